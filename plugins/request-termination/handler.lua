-- SPDX-License-Identifier: Apache-2.0
-- Answers by itself; no service is called.
local json = require "sluice.json"
local node = require "sluice.node"

local termination = { version = "1.0.0", priority = 2 }

local MESSAGES = {
  [401] = "Unauthorized", [404] = "Not found", [405] = "Method not allowed", [500] = "An unexpected error occurred",
  [502] = "Bad Gateway", [503] = "Service unavailable",
}
local JSON = "application/json; charset=utf-8"
local MOST = 1000 -- fields and arguments that are looked through

local answers = setmetatable({}, { __mode = "k" }) -- by configuration: { body, headers }, made once

local function answer_of(conf)
  if conf.body then return { body = conf.body, headers = { ["Content-Type"] = conf.content_type or JSON } } end
  local message = conf.message or MESSAGES[conf.status_code]
  if not message then return {} end
  return { body = json.encode { message = message }, headers = { ["Content-Type"] = JSON } }
end

function termination.configure(confs)
  for _, conf in ipairs(confs or {}) do answers[conf] = answer_of(conf) end
end

local function has_trigger(request, name)
  return request:get_header(name) ~= nil or request:get_query(MOST)[name] ~= nil
end

local function request_seen(request)
  return {
    scheme = request:get_scheme(), host = request:get_host(), port = request:get_port(),
    method = request:get_method(), path = request:get_path(), query = request:get_query(MOST),
    headers = request:get_headers(MOST), body = request:get_body(), raw_body = request:get_raw_body(),
  }
end

local function echo(conf, exchange)
  return {
    message = conf.message or MESSAGES[conf.status_code],
    kong = { node_id = node.get_id(), worker_pid = node.get_pid(), hostname = node.get_hostname() },
    request = request_seen(exchange.request),
    matched_route = exchange.router:get_route(),
    matched_service = exchange.router:get_service(),
  }
end

function termination.access(conf, exchange)
  if conf.trigger and not has_trigger(exchange.request, conf.trigger) then return end
  if conf.echo then return exchange.response:exit(conf.status_code, echo(conf, exchange)) end
  local answer = answers[conf]
  exchange.response:exit(conf.status_code, answer.body, answer.headers)
end

return termination
