-- SPDX-License-Identifier: Apache-2.0
-- Cuts a YAML text into its top-level list items without parsing it, so that a reload need only parse those that
-- changed. Only texts of the plain shape that people and tools write are cut:
--
--   _format_version: "3.0"     <- head: all that is not an item
--   services:                  <- head
--   - name: orders             <- an item of services, up to the next line that is indented as little
--     ...
--
-- Whatever could make an item mean something else on its own (anchors, several documents, references to secrets) means
-- that the text is not cut. What is cut is used only after the number of items was compared with a parser's.
local find, byte, sub = string.find, string.byte, string.sub

local split = {}

local SPACE, DASH, NEWLINE, RETURN, TAB, HASH = 32, 45, 10, 13, 9, 35

local function is_plain(text)
  return not (find(text, "\r", 1, true) or find(text, "vault://", 1, true) or find(text, "\n---", 1, true)
    or find(text, "\n...", 1, true) or find(text, "\n%", 1, true) or find(text, "^%%")
    or find(text, "[%s,%[{:-]&[^&%s]"))
end

local function is_blank(code)
  return code == nil or code == NEWLINE or code == HASH
end

local function begins_item(text, at)
  local code = byte(text, at + 1)
  return byte(text, at) == DASH and (code == SPACE or code == NEWLINE or code == TAB or code == RETURN or code == nil)
end

-- The collection that a line at the margin opens with a list below it; nil when it is anything else.
local function opened_collection(text, at, stop, collections)
  local key = sub(text, at, stop):match("^([%l_]+):%s*#?.-$")
  if not key or not collections[key] then return nil end
  return sub(text, at, stop):match("^[%l_]+:%s*$") and key or nil
end

local function close_item(state, before)
  local section = state.section
  if section and section.start then
    table.insert(section.items, sub(state.text, section.start, before))
    section.start = nil
  end
end

local function to_head(state, at, stop)
  state.head[#state.head + 1] = sub(state.text, at, stop)
end

local function margin_line(state, at, stop)
  close_item(state, at - 1)
  state.section = nil
  local collection = opened_collection(state.text, at, stop, state.collections)
  to_head(state, at, stop)
  if collection then
    if state.sections[collection] then return false end
    state.section = { items = {} }
    state.sections[collection] = state.section
  end
  return true
end

-- A line within a collection's list. False: the list is not of the plain shape.
local function item_line(state, at, first, indent)
  local section = state.section
  if begins_item(state.text, first) and (not section.indent or indent == section.indent) then
    close_item(state, at - 1)
    section.indent, section.start = indent, at
    return true
  end
  return section.indent ~= nil and indent > section.indent
end

local function take_line(state, at, stop)
  local text, first = state.text, at
  while byte(text, first) == SPACE do first = first + 1 end
  local indent, code = first - at, byte(text, first)
  local section = state.section
  if is_blank(code) then
    if not (section and section.start) then to_head(state, at, stop) end
    return true
  end
  if indent == 0 and code ~= DASH then return margin_line(state, at, stop) end
  if section then return item_line(state, at, first, indent) end
  to_head(state, at, stop)
  return true
end

-- Cuts `text`: { head = text, sections = { services = { "- name: ...", ... } } } for the lists of `collections` (a
-- set of names); or nil when it is not of the plain shape.
function split.cut(text, collections)
  if not is_plain(text) then return nil end
  local state = { text = text, collections = collections, head = {}, sections = {} }
  local at, length = 1, #text
  while at <= length do
    local stop = find(text, "\n", at, true) or length
    if not take_line(state, at, stop) then return nil end
    at = stop + 1
  end
  close_item(state, length)
  local sections = {}
  for collection, section in pairs(state.sections) do sections[collection] = section.items end
  return { head = table.concat(state.head), sections = sections }
end

return split
