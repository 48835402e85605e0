-- SPDX-License-Identifier: Apache-2.0
-- What could not be produced where it should, in another topic: as far as it had become a record, with headers that say
-- why it is there.
local sluice = require "sluice"

local dead_letters = {}

local REASON_MOST = 1000

-- What a second try would not mend. Where Kafka is away or full, the client is to come again; where a topic is not
-- allowed, nobody is to be able to fill another with it.
local STATUSES = { [400] = true, [404] = true, [413] = true, [422] = true, [500] = true, [502] = true }

-- Whether what failed in that way is set aside.
---@param plan table
---@param status integer
---@return boolean
function dead_letters.wants(plan, status)
  return plan.dead_letter_topic ~= nil and STATUSES[status] == true
end

local function is_ours(name)
  return name:sub(1, 12) == "dead-letter-"
end

-- The record for that topic.
---@param plan table
---@param exchange sluice.exchange
---@param entry { error: string, code?: string, status: integer, field?: string } why
---@param made table|nil the record, if it had become one
---@param text string the body or the element that it was to be made of
---@return sluice.kafka.message
function dead_letters.record(plan, exchange, entry, made, text)
  local headers = {}
  for _, header in ipairs(made and made.headers or headers) do
    if not is_ours(header[1]) then headers[#headers + 1] = { header[1], header[2] } end
  end
  local function put(name, value)
    if value ~= nil then headers[#headers + 1] = { "dead-letter-" .. name, tostring(value) } end
  end
  local route = exchange.router:get_route()
  put("topic", made and made.topic)
  put("reason", entry.error:sub(1, REASON_MOST))
  put("code", entry.code)
  put("field", entry.field)
  put("status", entry.status)
  put("route", route and (route.name or route.id))
  put("request-id", exchange.id)
  put("time", ("%.0f"):format(sluice.time.now() * 1000))
  local value = text
  if made then value = made.value end
  return { cluster = plan.cluster, timeout = plan.timeout, topic = plan.dead_letter_topic, key = made and made.key,
    value = value, headers = headers }
end

return dead_letters
