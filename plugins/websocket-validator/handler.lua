-- SPDX-License-Identifier: Apache-2.0
-- Messages of a WebSocket have to be JSON that fits a schema; who sends another is told 1007, and the connection ends.
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"
local log = require "sluice.log"

local websocket_validator = { version = "1.0.0", priority = 1002 }

local INVALID, GOING_AWAY = 1007, 1001

-- Kong's names of the drafts.
local DRAFTS = { draft4 = "4", draft6 = "6", draft7 = "7", draft201909 = "2019-09", draft202012 = "2020-12" }

local plans = setmetatable({}, { __mode = "k" }) -- by configuration: validators by side and type of message

local function validator_of(one)
  if not one then return nil end
  local schema = json.decode(one.schema) -- which may be `false`
  return assert(json_schema.compile(schema, { draft = DRAFTS[one.type] }))
end

local function side_of(conf)
  return { text = validator_of(conf and conf.text), binary = validator_of(conf and conf.binary) }
end

function websocket_validator.needs(conf)
  return { ws_client_frame = conf.client ~= nil, ws_upstream_frame = conf.upstream ~= nil }
end

function websocket_validator.configure(confs)
  for _, conf in ipairs(confs or {}) do
    plans[conf] = { client = side_of(conf.client), upstream = side_of(conf.upstream) }
  end
end

-- What is wrong with a message; nil: nothing.
local function fault_of(validator, data)
  local value, err = json.decode(data, { unique = true })
  if err then return "no JSON: " .. err end
  local ok, errors = validator:validate(value)
  return not ok and json_schema.text(errors[1]) or nil
end

local function check(validators, exchange, frame, sender, from)
  local validator = validators[frame.type]
  local fault = validator and fault_of(validator, frame.data)
  if not fault then return end
  log.notice("a message does not fit its schema", { from = from, error = fault, request_id = exchange.id })
  sender:close(INVALID, nil, GOING_AWAY)
end

function websocket_validator.ws_client_frame(conf, exchange, frame)
  check(plans[conf].client, exchange, frame, exchange.websocket.client, "client")
end

function websocket_validator.ws_upstream_frame(conf, exchange, frame)
  check(plans[conf].upstream, exchange, frame, exchange.websocket.upstream, "service")
end

return websocket_validator
