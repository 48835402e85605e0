-- SPDX-License-Identifier: Apache-2.0
-- multipart/form-data (RFC 7578): bodies to parts and back. Bounded, since the text comes from the network.

local find, sub, lower, match, gsub = string.find, string.sub, string.lower, string.match, string.gsub
local concat, sort = table.concat, table.sort
local type, tostring, pairs = type, tostring, pairs

local multipart = {}

local MAX_PARTS, MAX_HEAD = 1000, 8192

-- The boundary of a Content-Type, quoted or not.
---@param content_type string
---@return string|nil
function multipart.boundary(content_type)
  local at = find(lower(content_type), "boundary=", 1, true)
  if not at then return nil end
  local rest = sub(content_type, at + 9)
  local boundary = match(rest, '^"([^"]*)"') or match(rest, "^([^%s;,\"]+)")
  if not boundary or boundary == "" or #boundary > 70 then return nil end
  return boundary
end

-- A parameter of Content-Disposition. Browsers write a quote in a name as %22 and no backslash escapes.
local function parameter(value, name)
  for before, at in value:gmatch("()[;%s]" .. name .. "=()") do
    if before then
      return match(value, '^"([^"]*)"', at) or match(value, "^([^;%s\"]*)", at)
    end
  end
  return nil
end

local function parse_head(head)
  local part = { headers = {} }
  for line in (head .. "\r\n"):gmatch("(.-)\r?\n") do
    if line ~= "" then
      local name, value = match(line, "^([^%s:]+):%s*(.-)%s*$")
      if not name then return nil, "a part has a header without a colon" end
      part.headers[lower(name)] = value
    end
  end
  local disposition = part.headers["content-disposition"]
  if disposition then
    part.name = parameter(disposition, "name")
    part.filename = parameter(disposition, "filename")
  end
  return part
end

-- One part of the body between `from` and `stop`: its head, an empty line, its value.
local function parse_part(body, from, stop)
  local first = sub(body, from, from + 1)
  if first == "\r\n" then return { headers = {}, value = sub(body, from + 2, stop) } end
  local head_end, value_start = find(body, "\r?\n\r?\n", from)
  if not head_end or value_start > stop then return nil, "a part has no empty line behind its headers" end
  if head_end - from > MAX_HEAD then return nil, "the headers of a part are too long" end
  local part, err = parse_head(sub(body, from, head_end - 1))
  if not part then return nil, err end
  part.value = sub(body, value_start + 1, stop)
  return part
end

-- Where the delimiter line after `from` begins (its line break included) and what follows it.
local function next_delimiter(body, delimiter, from)
  while true do
    local at, past = find(body, delimiter, from, true)
    if not at then return nil end
    local tail = match(body, "^[ \t]*\r?\n()", past + 1)
    local last = sub(body, past + 1, past + 2) == "--"
    if tail or last then
      if sub(body, at - 1, at - 1) == "\r" then at = at - 1 end
      return at, tail, last
    end
    from = past + 1
  end
end

---@class sluice.multipart.part
---@field name string|nil
---@field filename string|nil
---@field headers table<string, string> by lower-case name
---@field value string

---@param body string
---@param boundary string
---@return sluice.multipart.part[]|nil
---@return string|nil err
function multipart.decode(body, boundary)
  local delimiter = "\n--" .. boundary
  local parts = {}
  -- The first delimiter may stand at the very start: a line break in front of the body makes them all alike.
  local text = "\n" .. body
  local _, from, last = next_delimiter(text, delimiter, 1)
  if not from and not last then return nil, "the boundary does not occur in the body" end
  while not last do
    local at, after, final = next_delimiter(text, delimiter, from - 1)
    if not at then return nil, "the last boundary is missing" end
    local part, err = parse_part(text, from, at - 1)
    if not part then return nil, err end
    if #parts == MAX_PARTS then return nil, "more than " .. MAX_PARTS .. " parts" end
    parts[#parts + 1] = part
    from, last = after, final
  end
  return parts
end

-- Values by name; a repeated name gives an array. Parts without a name are left out.
---@param parts sluice.multipart.part[]
---@return table<string, string|string[]>
function multipart.values(parts)
  local values = {}
  for _, part in ipairs(parts) do
    local name = part.name
    if name then
      local present = values[name]
      if present == nil then
        values[name] = part.value
      elseif type(present) == "table" then
        present[#present + 1] = part.value
      else
        values[name] = { present, part.value }
      end
    end
  end
  return values
end

local function encode_part(list, boundary, name, value)
  local kind = type(value)
  if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    return "value of \"" .. name .. "\" must be a string, number or boolean, got " .. kind
  end
  value = tostring(value)
  if find("\n" .. value, "\n--" .. boundary, 1, true) then return "value of \"" .. name .. "\" holds the boundary" end
  local quoted = gsub(gsub(gsub(name, '"', "%%22"), "\r", "%%0D"), "\n", "%%0A")
  list[#list + 1] = ('--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'):format(boundary, quoted)
  list[#list + 1] = value .. "\r\n"
end

-- Names in alphabetical order.
---@param values table<string, string|number|boolean|(string|number|boolean)[]>
---@param boundary string
---@return string|nil body
---@return string|nil err
function multipart.encode(values, boundary)
  local names, list = {}, {}
  for name in pairs(values) do
    if type(name) ~= "string" then return nil, "names must be strings, got " .. type(name) end
    names[#names + 1] = name
  end
  sort(names)
  for _, name in ipairs(names) do
    local value = values[name]
    local several = type(value) == "table" and value or { value }
    for i = 1, #several do
      local err = encode_part(list, boundary, name, several[i])
      if err then return nil, err end
    end
  end
  list[#list + 1] = "--" .. boundary .. "--\r\n"
  return concat(list)
end

return multipart
