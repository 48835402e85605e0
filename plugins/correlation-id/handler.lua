-- SPDX-License-Identifier: Apache-2.0
-- Gives each request an id that goes to the service, into the logs and, if wanted, back to the client.
local node = require "sluice.node"
local time = require "sluice.time"
local uuid = require "sluice.uuid"

local correlation_id = { version = "1.0.0", priority = 100001 }

local format = string.format

function correlation_id.needs(conf)
  return { access = true, header_filter = conf.echo_downstream }
end

local worker_id -- a UUID of this worker's own, made when it is first needed
local counter = 0

local generators = {}

function generators.uuid()
  return uuid.v4()
end

generators["uuid#counter"] = function()
  worker_id = worker_id or uuid.v4() .. "#"
  counter = counter + 1
  return worker_id .. counter
end

-- Kong's format: ip-port-pid-connection-connection_requests-timestamp
function generators.tracker(exchange)
  local connection = exchange.client:get_connection()
  return format("%s-%d-%d-%d-%d-%.3f", connection.local_ip or "unix", connection.local_port, node.get_pid(),
    connection.number, connection.requests, time.now())
end

function correlation_id.access(conf, exchange)
  local name = conf.header_name
  local id = exchange.request:get_header(name)
  if not id or id == "" then
    id = generators[conf.generator](exchange)
    exchange.service.request:set_header(name, id)
  end
  exchange:set_serialize_value("correlation_id", id)
  if conf.echo_downstream then exchange.response:set_header(name, id) end
end

-- Where no route matched there was no access; the client is told an id all the same.
function correlation_id.header_filter(conf, exchange)
  if exchange.router:get_route() then return end
  local id = exchange.request:get_header(conf.header_name)
  if not id or id == "" then id = generators[conf.generator](exchange) end
  exchange:set_serialize_value("correlation_id", id)
  exchange.response:set_header(conf.header_name, id)
end

return correlation_id
