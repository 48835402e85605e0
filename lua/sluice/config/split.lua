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
local ffi = require "ffi"
local find, byte, sub = string.find, string.byte, string.sub

local split = {}

ffi.cdef "void *memchr(const void *bytes, int byte, size_t length);"

local DASH, SPACE, NEWLINE, HASH = 45, 32, 10, 35

-- An anchor may stand only where a node begins; most texts have no "&" at all.
local function has_anchor(text)
  return find(text, "&", 1, true) and find(text, "[%s,%[{:-]&[^&%s]")
end

local function is_plain(text)
  return not (find(text, "\r", 1, true) or find(text, "vault://", 1, true) or find(text, "\n---", 1, true)
    or find(text, "\n...", 1, true) or find(text, "\n%", 1, true) or find(text, "^%%") or has_anchor(text))
end

-- Where the next line behind `at` begins that has text within its first `indent` + 1 columns; behind the end when none
-- has. Bytes are looked at by pointer: the loop is compiled, and a pattern would take ten times as long.
local function next_low_line(cursor, at, indent)
  local bytes, length = cursor.bytes, cursor.length
  while true do
    local newline = ffi.C.memchr(bytes + at - 1, NEWLINE, length - at + 1)
    if newline == nil then return length + 1 end
    at = tonumber(ffi.cast("const uint8_t *", newline) - bytes) + 2
    if at > length then return length + 1 end
    local column = 0
    while column < indent and bytes[at - 1 + column] == SPACE do column = column + 1 end
    local code = bytes[at - 1 + column]
    if code ~= SPACE and code ~= NEWLINE and code ~= HASH and code ~= 0 then return at end
  end
end

local function next_margin(cursor, at)
  if find(cursor.text, "^[^ \n#]", at) then return at end
  return next_low_line(cursor, at, 0)
end

-- The first line from `at` on that is neither blank nor a comment: its start and its indentation.
local function first_line(text, at)
  while true do
    local first, last = find(text, "^ *[^ \n#]", at)
    if first then return first, last - first end
    local stop = find(text, "\n", at, true)
    if not stop then return nil end
    at = stop + 1
  end
end

local function begins_item(text, at)
  return byte(text, at) == DASH and find(text, "^%-[ \n]", at) ~= nil
end

-- The items of the list that begins at `at`, indented by `indent`, and where it ends; nil when a line in it is odd.
local function cut_items(cursor, at, indent)
  local items, text = {}, cursor.text
  while true do
    local stop = next_low_line(cursor, at, indent)
    items[#items + 1] = sub(text, at, stop - 1)
    if stop > #text then return items, stop end
    at = stop
    local first = at
    while byte(text, first) == SPACE do first = first + 1 end
    local is_item = first - at == indent and begins_item(text, first)
    if not is_item then
      if first ~= at or byte(text, at) == DASH then return nil end
      return items, at
    end
  end
end

-- Cuts one collection, whose key's line ends before `at`. Returns its items (nil: leave it in the head) and where the
-- next line at the margin begins; or false.
local function cut_collection(cursor, at)
  local text = cursor.text
  local start, indent = first_line(text, at)
  if not start or (indent == 0 and byte(text, start) ~= DASH) then return nil, start or #text + 1 end
  if not begins_item(text, start + indent) then return false end
  local items, stop = cut_items(cursor, start, indent)
  if not items then return false end
  return items, stop
end

-- Cuts `text`: { head = text, sections = { services = { "- name: ...", ... } } } for the lists of `collections` (a
-- set of names); or nil when it is not of the plain shape.
function split.cut(text, collections)
  if not is_plain(text) then return nil end
  local head, sections = {}, {}
  local cursor = { text = text, bytes = ffi.cast("const uint8_t *", text), length = #text }
  local at = next_margin(cursor, 1)
  while at <= #text do
    local stop = find(text, "\n", at, true) or #text
    local key = sub(text, at, stop):match("^([%l_]+): *\n$")
    local items, after
    if key and collections[key] then
      items, after = cut_collection(cursor, stop + 1)
      if items == false or sections[key] then return nil end
      sections[key] = items
    end
    after = after or next_margin(cursor, stop + 1)
    head[#head + 1] = sub(text, at, items and stop or after - 1)
    at = after
  end
  return { head = table.concat(head), sections = sections }
end

return split
