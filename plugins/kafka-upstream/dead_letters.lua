-- SPDX-License-Identifier: Apache-2.0
-- What could not be produced where it should, in another topic: as far as it had become a record, with headers that say
-- why it is there.
local said = require "sluice.dead_letters"

local dead_letters = {}

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

-- The record for that topic.
---@param plan table
---@param exchange sluice.exchange
---@param entry { error: string, code?: string, status: integer, field?: string } why
---@param made table|nil the record, if it had become one
---@param text string the body or the element that it was to be made of
---@return sluice.kafka.message
function dead_letters.record(plan, exchange, entry, made, text)
  local route = exchange.router:get_route()
  local headers = said.headers(made and made.headers, { topic = made and made.topic, reason = entry.error,
    code = entry.code, field = entry.field, status = entry.status, route = route and (route.name or route.id),
    ["request-id"] = exchange.id })
  local value = text
  if made then value = made.value end
  return { cluster = plan.cluster, timeout = plan.timeout, topic = plan.dead_letter_topic, key = made and made.key,
    value = value, headers = headers }
end

return dead_letters
