-- SPDX-License-Identifier: Apache-2.0
-- Batches of encoded entries to a collector, over HTTP.
local http = require "sluice.http"
local node = require "sluice.node"
local otlp = require "sluice.otlp"

local exporter = {}

local MAX_ANSWER = 64 * 1024
local SHOWN_ANSWER = 256

-- Who tells: what the instance says, over what is known anyway.
local function resource_of(conf)
  local resource = {
    ["service.name"] = "sluice", ["service.version"] = node.get_version(), ["service.instance.id"] = node.get_id(),
  }
  for name, value in pairs(conf.resource_attributes or {}) do resource[name] = value end
  return resource
end

-- All that the requests of an instance to one of its endpoints have in common.
---@param conf table
---@param url string
function exporter.context(conf, url, scope)
  local headers = {}
  for name, value in pairs(conf.headers or {}) do headers[name] = value end
  headers["Content-Type"] = "application/x-protobuf"
  return {
    url = url, headers = headers, resource = resource_of(conf), scope = { name = scope, version = node.get_version() },
    connect_timeout = conf.connect_timeout / 1000, verify = conf.ssl_verify,
    timeout = (conf.connect_timeout + conf.send_timeout + conf.read_timeout) / 1000,
  }
end

---@param context table
---@param batch string[] entries, encoded
---@return boolean|nil true
---@return string|nil err
function exporter.send(context, batch)
  local response, err = http.request {
    url = context.url, method = "POST", headers = context.headers,
    body = otlp.request(context.resource, context.scope, batch), connect_timeout = context.connect_timeout,
    timeout = context.timeout, tls = { verify = context.verify }, max_body = MAX_ANSWER,
  }
  if not response then return nil, err end
  if response.status >= 200 and response.status < 300 then return true end
  return nil, ("the collector answered %d: %s"):format(response.status, response.body:sub(1, SHOWN_ANSWER))
end

return exporter
