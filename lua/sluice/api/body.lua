-- SPDX-License-Identifier: Apache-2.0
-- Bodies by content type: form, JSON and multipart, to tables and back.

local json = require "sluice.json"
local multipart = require "sluice.multipart"
local query = require "sluice.query"

local find, lower, match = string.find, string.lower, string.match

local body = {}

body.FORM, body.JSON, body.MULTIPART = "application/x-www-form-urlencoded", "application/json", "multipart/form-data"

-- "Text/HTML; charset=x" to "text/html".
---@param content_type string
---@return string
function body.mime(content_type)
  return lower(match(content_type, "^%s*([^;%s]*)"))
end

local function decode_multipart(text, content_type)
  local boundary = multipart.boundary(content_type)
  -- A plugin that names the type names no boundary: the first line of the body has it.
  boundary = boundary or match(text, "^%-%-([^\r\n]+)\r?\n")
  if not boundary then return nil, "multipart body without a boundary" end
  local parts, err = multipart.decode(text, boundary)
  if not parts then return nil, "cannot decode multipart body: " .. err end
  return multipart.values(parts)
end

---@param text string
---@param content_type string
---@param max_args? integer for forms
---@return table|nil
---@return string|nil err
---@return string|nil mime the type it was decoded as
function body.decode(text, content_type, max_args)
  local mime = body.mime(content_type)
  if mime == body.FORM then return query.decode(text, max_args), nil, mime end
  if mime == body.JSON then
    local value, err = json.decode(text)
    if type(value) ~= "table" then return nil, "invalid json body" .. (err and ": " .. err or ""), mime end
    return value, nil, mime
  end
  if mime == body.MULTIPART then
    local values, err = decode_multipart(text, content_type)
    return values, err, mime
  end
  return nil, "unsupported content type '" .. content_type .. "'", mime
end

---@param args table
---@param content_type string
---@param new_boundary fun(): string for a multipart type without one
---@return string|nil text
---@return string|nil content_type or the error
function body.encode(args, content_type, new_boundary)
  local mime = body.mime(content_type)
  local text, err
  if mime == body.FORM then
    text, err = query.encode(args)
  elseif mime == body.JSON then
    text, err = json.encode(args)
  elseif mime == body.MULTIPART then
    local boundary = multipart.boundary(content_type) or new_boundary()
    text, err = multipart.encode(args, boundary)
    if not find(lower(content_type), "boundary=", 1, true) then
      content_type = body.MULTIPART .. "; boundary=" .. boundary
    end
  else
    return nil, "unsupported content type '" .. content_type .. "'"
  end
  if not text then return nil, err end
  return text, content_type
end

return body
