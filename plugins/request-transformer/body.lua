-- SPDX-License-Identifier: Apache-2.0
-- Edits of bodies: JSON objects, forms and multipart forms. Any other body, or one that cannot be read as what its
-- type says, goes on as it is.
local json_edits = require "sluice.json_edits"
local log = require "sluice.log"
local members = require "request-transformer.members"
local parts = require "request-transformer.parts"
local query = require "sluice.query"

local body = {}

local FORM = "application/x-www-form-urlencoded"

-- A body of nothing is an object without members.
local function edit_json(edits, raw, roots)
  if raw == "" then raw = "{}" end
  if not json_edits.is_object(raw) then return nil, "it is no JSON object" end
  local edited, err = members.edit_json(edits, raw, roots)
  return edited, err
end

local EDITORS = {
  ["application/json"] = edit_json,
  [FORM] = function(edits, raw, roots)
    local args = query.decode(raw, 0)
    members.edit(edits, args, roots)
    return query.encode(args)
  end,
  ["multipart/form-data"] = parts.edit,
}

-- The media type, unless the body is encoded: then it cannot be read.
local function mime_of(request)
  local content_type, encoding = request:get_header("Content-Type"), request:get_header("Content-Encoding")
  if not content_type or (encoding and encoding:lower() ~= "identity") then return nil end
  return content_type:match("^%s*([^;%s]*)"):lower(), content_type
end

-- Arguments of a form; nil when the body is none.
---@param exchange sluice.exchange
---@return table|nil
function body.form(exchange)
  if mime_of(exchange.request) ~= FORM then return nil end
  local raw = exchange.request:get_raw_body()
  return raw and query.decode(raw, 0)
end

---@param edits table from edits.compile
---@param exchange sluice.exchange
---@param roots table|nil
function body.edit(edits, exchange, roots)
  local mime, content_type = mime_of(exchange.request)
  local editor = EDITORS[mime]
  if not editor then return end
  local raw, err = exchange.request:get_raw_body()
  local edited
  if raw then edited, err = editor(edits, raw, roots, content_type) end
  if edited then
    exchange.service.request:set_raw_body(edited)
  else
    log.info("request body was not edited", { error = err, request_id = exchange.id })
  end
end

return body
