-- SPDX-License-Identifier: Apache-2.0
-- Edits header fields and the body of responses. Where a configuration has nothing for bodies, none is touched.
local body = require "response-transformer.body"
local headers = require "response-transformer.headers"
local log = require "sluice.log"

local transformer = { version = "1.0.0", priority = 800 }

local compiled = setmetatable({}, { __mode = "k" }) -- by configuration: { headers = , body = }

function transformer.needs(conf)
  return { header_filter = headers.has_work(conf), body_filter = body.has_work(conf), identity = body.reads(conf) }
end

function transformer.configure(confs)
  for _, conf in ipairs(confs or {}) do
    compiled[conf] = compiled[conf] or { headers = headers.compile(conf), body = body.compile(conf) }
  end
end

function transformer.header_filter(conf, exchange)
  local response = exchange.response
  local edits = compiled[conf].headers[response:get_status()]
  if edits then headers.edit(edits, response) end
end

-- Holds the body back until it is whole.
function transformer.body_filter(conf, exchange, chunk, last)
  local response = exchange.response
  local work = compiled[conf].body[response:get_status()]
  if work.text then return last and work.text or nil end
  if not work.edits or not body.is_json(response:get_header("Content-Type")) then return chunk end
  local text = response:get_raw_body()
  if not text then return nil end
  local edited, err = body.edit(work.edits, text)
  if edited then return edited end
  log.warn("response body was not edited", { error = err, request_id = exchange.id })
  return text
end

return transformer
