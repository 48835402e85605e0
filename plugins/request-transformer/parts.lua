-- SPDX-License-Identifier: Apache-2.0
-- Edits of multipart/form-data: parts that are not named keep their headers, such as a file's name and type.
local multipart = require "sluice.multipart"
local template = require "request-transformer.template"

local parts = {}

local text = template.text

local function find(list, name)
  for i, part in ipairs(list) do
    if part.name == name then return i end
  end
end

local function remove(list, name)
  for i = #list, 1, -1 do
    if list[i].name == name then table.remove(list, i) end
  end
end

local function quoted(name)
  return (name:gsub('"', "%%22"):gsub("\r", "%%0D"):gsub("\n", "%%0A"))
end

local function new_part(name, value)
  return { name = name, value = value,
    headers = { ["content-disposition"] = ('form-data; name="%s"'):format(quoted(name)) } }
end

-- A part under another name is a plain value, as in Kong.
local function rename(list, from, to)
  local at = find(list, from)
  if not at or to == "" then return end
  local part = new_part(to, list[at].value)
  remove(list, from)
  list[#list + 1] = part
end

local function replace(list, name, value)
  local at = find(list, name)
  if not at then return end
  remove(list, name)
  table.insert(list, at, new_part(name, value))
end

local function keep(list, names)
  local allowed = {}
  for _, name in ipairs(names) do allowed[name] = true end
  for i = #list, 1, -1 do
    if not allowed[list[i].name] then table.remove(list, i) end
  end
end

local function edit_all(edits, list, roots)
  for _, edit in ipairs(edits.remove) do remove(list, edit.name) end
  for _, edit in ipairs(edits.rename) do rename(list, edit.name, text(edit.value, roots)) end
  for _, edit in ipairs(edits.replace) do replace(list, edit.name, text(edit.value, roots)) end
  for _, edit in ipairs(edits.add) do
    if not find(list, edit.name) then list[#list + 1] = new_part(edit.name, text(edit.value, roots)) end
  end
  for _, edit in ipairs(edits.append) do list[#list + 1] = new_part(edit.name, text(edit.value, roots)) end
  if edits.allow then keep(list, edits.allow) end
end

-- "content-type" to "Content-Type": there are readers that know the usual spelling only.
local function usual(name)
  return (name:gsub("%f[%a]%a", string.upper))
end

local function encode(list, boundary)
  local out = {}
  for _, part in ipairs(list) do
    out[#out + 1] = "--" .. boundary
    local names = {}
    for name in pairs(part.headers) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do out[#out + 1] = usual(name) .. ": " .. part.headers[name] end
    out[#out + 1] = ""
    out[#out + 1] = part.value
  end
  out[#out + 1] = "--" .. boundary .. "--\r\n"
  return table.concat(out, "\r\n")
end

local function holds_boundary(list, boundary)
  for _, part in ipairs(list) do
    if part.value:find("--" .. boundary, 1, true) then return true end
  end
  return false
end

---@param edits table
---@param raw string
---@param roots table|nil
---@param content_type string
---@return string|nil
---@return string|nil err
function parts.edit(edits, raw, roots, content_type)
  local boundary = multipart.boundary(content_type)
  if not boundary then return nil, "its type names no boundary" end
  local list, err = {}, nil
  if raw ~= "" then list, err = multipart.decode(raw, boundary) end
  if not list then return nil, err end
  edit_all(edits, list, roots)
  if holds_boundary(list, boundary) then return nil, "a value holds the boundary" end
  return encode(list, boundary)
end

return parts
