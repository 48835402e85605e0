-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as JSON to an HTTP server, by way of a queue: no request waits for that server, and what it does not
-- take is sent again.
local http = require "sluice.http"
local logging = require "sluice.logging"
local queue = require "sluice.queue"

local concat = table.concat

local http_log = { version = "1.0.0", priority = 12 }

local MAX_ANSWER = 64 * 1024
local SHOWN_ANSWER = 256

local states = setmetatable({}, { __mode = "k" }) -- by configuration: custom fields and queue

-- What every request of an instance has in common; `whole`: entries go one by one, as they are.
local function context_of(conf)
  local headers = {}
  for name, value in pairs(conf.headers or {}) do headers[name] = value end
  headers["Content-Type"] = conf.content_type
  return {
    single = queue.params(conf).max_batch_size == 1, url = conf.http_endpoint, method = conf.method, headers = headers,
    timeout = conf.timeout / 1000, keepalive = conf.keepalive > 0, keepalive_timeout = conf.keepalive / 1000,
    ssl_verify = conf.ssl_verify,
  }
end

local function send(context, batch)
  local response, err = http.request {
    url = context.url, method = context.method, headers = context.headers,
    body = context.single and batch[1] or "[" .. concat(batch, ",") .. "]",
    timeout = context.timeout, keepalive = context.keepalive, keepalive_timeout = context.keepalive_timeout,
    tls = { verify = context.ssl_verify }, max_body = MAX_ANSWER,
  }
  if not response then return nil, err end
  if response.status < 400 then return true end
  return nil, ("the server answered %d: %s"):format(response.status, response.body:sub(1, SHOWN_ANSWER))
end

function http_log.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local state = states[conf] or { fields = logging.fields(conf), losses = logging.losses {} }
    state.queue = queue.open(conf, send, context_of(conf))
    states[conf] = state
  end
end

function http_log.log(conf, exchange)
  local state = states[conf]
  local line, err = logging.line(state.fields, exchange)
  if line then
    state.queue:add(line)
  else
    logging.lose(state.losses, err)
  end
end

return http_log
