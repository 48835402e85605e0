-- SPDX-License-Identifier: Apache-2.0
-- A request that is sent again, since its client did not hear the answer, is to make no second record: the first
-- answer is remembered under the key that the client gave, and given again. After the IETF's draft of the field
-- Idempotency-Key.
--
--   key is new           -> claimed, the request runs, its answer is kept for `ttl`
--   key is at work       -> 409: the first request has not been answered yet
--   key has an answer    -> that answer, and Idempotency-Replayed
--   key of other content -> 422
--
-- What failed in a way that a second try may mend is not kept: such a request may be sent again with its key.
local json = require "sluice.json"
local lines = require "kafka-upstream.lines"
local sluice = require "sluice"

local idempotency = {}

local PREFIX = "kafka-upstream "
local AGAIN = { ["Retry-After"] = "1" }
local KEY_MOST = 255
local PATIENCE_S = 30   -- that a request of no timeout has at most: message.timeout.ms
local MARGIN_S = 5      -- behind the time that the broker has, until a claim whose worker died is nobody's

local function digest(...)
  return sluice.crypto.hex(sluice.crypto.digest("sha256", table.concat({ ... }, "\0")))
end

-- Keys are one client's: of a consumer where there is one, and of a route.
local function name_of(exchange, key)
  local route, consumer = exchange.router:get_route(), exchange.client:get_consumer()
  return PREFIX .. digest(route and route.id or "", consumer and consumer.id or "", key)
end

local function fingerprint_of(conf, exchange)
  local request = exchange.request
  local body = conf.forward_body and request:get_raw_body() or ""
  return digest(request:get_method(), request:get_path_with_query(), request:get_header("content-type") or "", body)
end

local function refuse(exchange, status, message, headers)
  return status, { message = message, request_id = exchange.id }, headers
end

-- A second request of a key.
local function answer_again(exchange, kept, fingerprint)
  if kept.fingerprint ~= fingerprint then
    return refuse(exchange, 422, "the Idempotency-Key was used for another request")
  end
  if not kept.status then
    return refuse(exchange, 409, "the first request of this Idempotency-Key is still at work", AGAIN)
  end
  return kept.status, kept.body, { ["Idempotency-Replayed"] = "true", ["Content-Type"] = kept.type }
end

-- Whether an answer will be the same next time: the record is in Kafka, or set aside, or can never be one.
local function is_final(status, body)
  return status < 300 or status == 207 or (type(body) == "table" and body.dead_letter ~= nil)
end

-- Claims the name. True; false and what is kept there; nil and why not.
local function claim(name, fingerprint, seconds)
  local text = json.encode { fingerprint = fingerprint }
  for _ = 1, 3 do
    local added, err = sluice.store.add(name, text, seconds)
    if added then return true end
    if added == nil then return nil, err end
    local kept = sluice.store.get(name)
    if kept then return false, json.decode(kept) end
  end
  return nil, "its keys come and go" -- another request's claim ended between the two, each time
end

local function settle(conf, name, fingerprint, status, body)
  if not is_final(status, body) then return sluice.store.delete(name) end
  local text = type(body) == "string" and body or json.encode(body)
  local stored, err = sluice.store.set(name, json.encode {
    fingerprint = fingerprint, status = status, body = text, type = "application/json; charset=utf-8",
  }, conf.idempotency.ttl)
  if not stored then
    sluice.store.delete(name)
    sluice.log.warn("an answer was not remembered for its Idempotency-Key", { error = err })
  end
end

local function run_once(conf, exchange, name, fingerprint, run)
  local ok, status, body, headers = pcall(run, exchange)
  if not ok then
    sluice.store.delete(name)
    error(status, 0)
  end
  settle(conf, name, fingerprint, status, body)
  return status, body, headers
end

-- The function of a configuration, behind that.
---@param conf table
---@param run fun(exchange: sluice.exchange): integer, table, table
---@return fun(exchange: sluice.exchange): integer, table, table
function idempotency.wrap(conf, run)
  local header, required = conf.idempotency.header, conf.idempotency.required
  local auto = conf.batch == "auto"
  local claim_s = (conf.timeout > 0 and conf.timeout / 1000 or PATIENCE_S) * 2 + MARGIN_S
  return function(exchange)
    local key = exchange.request:get_header(header)
    if not key or key == "" then
      if required then return refuse(exchange, 400, "the field " .. header .. " is required") end
      return run(exchange)
    end
    if #key > KEY_MOST then
      return refuse(exchange, 400, "the field " .. header .. " is longer than " .. KEY_MOST .. " bytes")
    end
    if auto and lines.are_in(exchange) then
      return refuse(exchange, 400, "the answer to a stream is not remembered: send it without " .. header)
    end
    local name, fingerprint = name_of(exchange, key), fingerprint_of(conf, exchange)
    local mine, kept = claim(name, fingerprint, claim_s)
    if mine then return run_once(conf, exchange, name, fingerprint, run) end
    if mine == nil then
      return refuse(exchange, 503, "the " .. header .. " cannot be looked up: " .. tostring(kept), AGAIN)
    end
    return answer_again(exchange, kept, fingerprint)
  end
end

return idempotency
