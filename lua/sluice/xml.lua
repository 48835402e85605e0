-- SPDX-License-Identifier: Apache-2.0
-- XML as tables and back. What is read is bounded, and has no document type: so no entities of its own, and nothing is
-- fetched.
--
--   <order id="7"><item>a</item><item>b</item><note/></order>
--   { order = { _attr = { id = "7" }, item = { "a", "b" }, note = "" } }
--
-- An element with text alone is a text; elements of one name beside each other are a list; text beside elements is
-- `_text`.

local lxp = require "lxp"
local json = require "sluice.json"

local concat, find, gsub, sort = table.concat, string.find, string.gsub, table.sort
local pairs, tostring, type = pairs, tostring, type

local xml = {}

local DEPTH = 64         -- elements in each other
local ELEMENTS = 100000  -- in all
local ATTRIBUTES = 100   -- of an element

-- ---- Reading ----

local function add_child(parent, name, value)
  local present = parent[name]
  if present == nil then
    parent[name] = value
  elseif json.is_array(present) then
    present[#present + 1] = value
  else
    parent[name] = json.array { present, value }
  end
end

local function only_space(text)
  return not find(text, "[^ \t\r\n]")
end

-- What an element has become: a text unless it has attributes or elements.
local function finished(node)
  local text = concat(node.text)
  if not node.attr and not node.has_elements then return text end
  local value = node.children
  if node.attr then value._attr = node.attr end
  if not only_space(text) then value._text = text end
  return value
end

local function attributes_of(list)
  if not list[1] then return nil end
  local attributes = {}
  for i = 1, #list do attributes[list[i]] = list[list[i]] end
  return attributes
end

local function reader()
  local root = { children = {}, text = {} }
  local state = { open = { root }, count = 0, root = root }
  local callbacks = {
    StartElement = function(_, name, list)
      local open = state.open
      state.count = state.count + 1
      if #open > DEPTH then error("more than " .. DEPTH .. " elements in each other", 0) end
      if state.count > ELEMENTS then error("more than " .. ELEMENTS .. " elements", 0) end
      if #list > ATTRIBUTES then error("more than " .. ATTRIBUTES .. " attributes", 0) end
      open[#open].has_elements = true
      open[#open + 1] = { name = name, children = {}, text = {}, attr = attributes_of(list) }
    end,
    EndElement = function()
      local open = state.open
      local node = open[#open]
      open[#open] = nil
      add_child(open[#open].children, node.name, finished(node))
    end,
    CharacterData = function(_, text)
      local own = state.open[#state.open].text
      own[#own + 1] = text
    end,
    StartDoctypeDecl = function() error("a document type is not allowed", 0) end,
  }
  return state, callbacks
end

-- A document as { name of its root = value }.
---@param text string
---@return table|nil
---@return string|nil err with the line
function xml.decode(text)
  if type(text) ~= "string" then return nil, "expected a string, got " .. type(text) end
  local state, callbacks = reader()
  local parser = lxp.new(callbacks)
  local called, done, err, line = pcall(function()
    local fine, why, at = parser:parse(text)
    if fine then fine, why, at = parser:parse() end
    return fine, why, at
  end)
  if not called then done, err = nil, done end
  pcall(parser.close, parser)
  if not done then return nil, tostring(err) .. (line and " in line " .. line or "") end
  return state.root.children
end

-- ---- Writing ----

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&apos;" }

-- A text as it may stand in an element or attribute; control characters that XML cannot hold are left out.
---@param text string
---@return string
function xml.escape(text)
  return (gsub(gsub(text, "[%z\1-\8\11\12\14-\31]", ""), "[&<>\"']", ENTITIES))
end

local function is_name(text)
  return type(text) == "string" and find(text, "^[%a_\128-\255][%w_.:\128-\255-]*$") ~= nil
end

local function names_of(value)
  local names = {}
  for name in pairs(value) do
    if name ~= "_attr" and name ~= "_text" then
      if not is_name(name) then return nil, "no element can be named " .. tostring(name) end
      names[#names + 1] = name
    end
  end
  sort(names)
  return names
end

local function put_attributes(out, attributes)
  local names, err = names_of(attributes)
  if not names then return err end
  for _, name in ipairs(names) do
    out[#out + 1] = (' %s="%s"'):format(name, xml.escape(tostring(attributes[name])))
  end
end

local put_element

local function put_children(out, value, depth)
  local names, err = names_of(value)
  if not names then return err end
  if value._text then out[#out + 1] = xml.escape(tostring(value._text)) end
  for _, name in ipairs(names) do
    err = put_element(out, name, value[name], depth)
    if err then return err end
  end
end

local function is_list(value)
  return type(value) == "table" and (json.is_array(value) or value[1] ~= nil)
end

function put_element(out, name, value, depth)
  if depth > DEPTH then return "more than " .. DEPTH .. " elements in each other" end
  if is_list(value) then
    for _, one in ipairs(value) do
      local err = put_element(out, name, one, depth + 1)
      if err then return err end
    end
    return nil
  end
  out[#out + 1] = "<" .. name
  local is_table = type(value) == "table"
  local err = is_table and value._attr and put_attributes(out, value._attr)
  if err then return err end
  out[#out + 1] = ">"
  if is_table then
    err = put_children(out, value, depth + 1)
  elseif value ~= nil and value ~= json.null then
    out[#out + 1] = xml.escape(tostring(value))
  end
  out[#out + 1] = "</" .. name .. ">"
  return err
end

-- The reverse of `xml.decode`, without a head. Elements come in the order of their names.
---@param value table
---@return string|nil
---@return string|nil err
function xml.encode(value)
  if type(value) ~= "table" or is_list(value) then return nil, "expected a table of elements by name" end
  local out = {}
  local err = put_children(out, value, 1)
  if err then return nil, err end
  return concat(out)
end

return xml
