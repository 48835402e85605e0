-- SPDX-License-Identifier: Apache-2.0
-- Edits header fields and the JSON body of responses. Where a configuration has no json option, no body is touched.
local body = require "response-transformer.body"
local headers = require "response-transformer.headers"
local log = require "sluice.log"

local transformer = { version = "1.0.0", priority = 800 }

local compiled = setmetatable({}, { __mode = "k" }) -- by configuration: { headers = , body = }

function transformer.needs(conf)
  return { header_filter = headers.compile(conf) ~= nil, body_filter = body.compile(conf) ~= nil }
end

function transformer.configure(confs)
  for _, conf in ipairs(confs or {}) do
    compiled[conf] = compiled[conf] or { headers = headers.compile(conf), body = body.compile(conf) }
  end
end

function transformer.header_filter(conf, exchange)
  local edits = compiled[conf].headers
  if edits then headers.edit(edits, exchange.response) end
end

-- Holds the body back until it is whole.
function transformer.body_filter(conf, exchange, chunk)
  local edits, response = compiled[conf].body, exchange.response
  if not edits or not body.is_json(response:get_header("Content-Type")) then return chunk end
  local text = response:get_raw_body()
  if not text then return nil end
  local edited, err = body.edit(edits, text)
  if edited then return edited end
  log.warn("response body was not edited", { error = err, request_id = exchange.id })
  return text
end

return transformer
