-- SPDX-License-Identifier: Apache-2.0
local limits = require "sluice.limits"
local typedefs = require "sluice.typedefs"

local NAMES = limits.windows

local function window(name)
  return { type = "number", gt = 0, about = "amount in one " .. name }
end

local function windows()
  local list = {}
  for i, name in ipairs(NAMES) do list[i] = { [name] = window(name) } end
  return list
end

return {
  name = "response-ratelimiting",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { limits = { type = "map", required = true, len_min = 1,
        about = "by the names that the service has for them; each as much in each window",
        keys = { type = "string", match = "^[%w_-]+$", err = "a name of letters, digits, _ and -" },
        values = { type = "record", required = true, fields = windows(), entity_checks = {
          { at_least_one_of = NAMES },
          { custom_entity_check = { field_sources = NAMES, fn = limits.in_order } },
        } } } },
      { header_name = typedefs.header_name { default = "x-kong-limit",
        about = "field of the service's response that says what it cost; clients do not see it" } },
      { limit_by = { type = "string", default = "consumer", one_of = { "consumer", "credential", "ip" },
        about = "whose responses are counted together; where there is none of it, the client's address" } },
      { policy = { type = "string", default = "local", one_of = { "local", "cluster", "redis" },
        about = "where is counted: in this gateway, or in Redis for several" } },
      { fault_tolerant = { type = "boolean", required = true, default = true,
        about = "requests that cannot be counted pass; false: they get 500" } },
      { redis = limits.redis_schema(typedefs) },
      { block_on_first_violation = { type = "boolean", required = true, default = false,
        about = "once any limit is used up, no request gets to the service, whatever it would cost" } },
      { hide_client_headers = { type = "boolean", required = true, default = false,
        about = "clients are not told the limits" } },
    }, shorthand_fields = limits.redis_shorthands(), entity_checks = limits.redis_checks() } },
  },
}
