-- SPDX-License-Identifier: Apache-2.0
-- What bodies are: read into tables, and the results of templates looked at.
local json = require "sluice.json"
local multipart = require "sluice.multipart"
local query = require "sluice.query"
local xml = require "sluice.xml"

local formats = {}

local BY_TYPE = {
  ["application/json"] = "json", ["application/xml"] = "xml", ["text/xml"] = "xml",
  ["application/x-www-form-urlencoded"] = "form", ["multipart/form-data"] = "multipart",
}

local TYPES = { json = "application/json", xml = "application/xml", form = "application/x-www-form-urlencoded",
  plain = "text/plain; charset=utf-8" }

-- Content-Type of what a template makes.
function formats.type_of(side)
  return side.content_type or TYPES[side.output_format]
end

local function format_of(content_type)
  local mime = content_type and content_type:match("^%s*([^;%s]*)"):lower() or ""
  return BY_TYPE[mime] or (mime:find("%+json$") and "json") or (mime:find("%+xml$") and "xml") or "plain"
end

local READ = {}

function READ.plain(raw) return raw end

function READ.form(raw) return (query.decode(raw, 1000)) end

function READ.json(raw)
  local value, err = json.decode(raw, { exact = true })
  if err then return nil, "is not valid JSON: " .. err end
  return value
end

function READ.xml(raw)
  local value, err = xml.decode(raw)
  if not value then return nil, "is not valid XML: " .. err end
  return value
end

-- Fields by name; those with a file name have the content all the same.
function READ.multipart(raw, content_type)
  local boundary = multipart.boundary(content_type or "")
  if not boundary then return nil, "is not valid multipart/form-data: its type names no boundary" end
  local list, err = multipart.decode(raw, boundary)
  if not list then return nil, "is not valid multipart/form-data: " .. tostring(err) end
  local fields = {}
  for _, part in ipairs(list) do
    if part.name then fields[part.name] = part.value end
  end
  return fields
end

-- What a body says; nil when it is empty.
---@param wanted string|nil format; nil: by its type
---@return any
---@return string|nil problem behind "The body of the request"
function formats.decode(wanted, raw, content_type, encoding)
  if raw == "" then return nil end
  if encoding and encoding:lower() ~= "identity" then return nil, "is compressed (" .. encoding .. ")" end
  local value, problem = READ[wanted or format_of(content_type)](raw, content_type)
  return value, problem
end

local CHECK = { json = json.decode, xml = xml.decode }

-- Whether a text is what it is to be.
---@return boolean|nil
---@return string|nil err
function formats.check(output, text)
  local check = CHECK[output]
  if not check then return true end
  local _, err = check(text)
  if err then return nil, err end
  return true
end

return formats
