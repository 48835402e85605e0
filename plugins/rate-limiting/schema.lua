-- SPDX-License-Identifier: Apache-2.0
local limits = require "sluice.limits"
local typedefs = require "sluice.typedefs"

local NAMES = limits.windows

local function not_negative(value)
  if value >= 0 then return true end
  return nil, "expected a number of at least 0"
end

local function limit(name)
  return { type = "number", custom_validator = not_negative, about = "requests in one " .. name }
end

local function needs(if_field, value, then_field)
  return { conditional = { if_field = if_field, if_match = { eq = value }, then_field = then_field,
    then_match = { required = true } } }
end

return {
  name = "rate-limiting",
  fields = {
    { config = { type = "record", required = true, fields = {
      { second = limit "second" }, { minute = limit "minute" }, { hour = limit "hour" }, { day = limit "day" },
      { month = limit "month" }, { year = limit "year" },
      { limit_by = { type = "string", default = "consumer",
        one_of = { "consumer", "credential", "ip", "service", "header", "path", "consumer-group" },
        about = "whose requests are counted together; where there is none of it, the client's address" } },
      { header_name = typedefs.header_name { about = "of `limit_by: header`" } },
      { path = typedefs.path { about = "of `limit_by: path`" } },
      { policy = { type = "string", default = "local", one_of = { "local", "cluster", "redis" }, len_min = 0,
        about = "where is counted: in this gateway, or in Redis for several" } },
      { fault_tolerant = { type = "boolean", required = true, default = true,
        about = "requests that cannot be counted pass; false: they get 500" } },
      { redis = limits.redis_schema(typedefs) },
      { hide_client_headers = { type = "boolean", required = true, default = false,
        about = "clients are not told the limits" } },
      { error_code = { type = "number", default = 429, custom_validator = not_negative,
        about = "status of a refusal" } },
      { error_message = { type = "string", default = "API rate limit exceeded", about = "message of a refusal" } },
      { sync_rate = { type = "number", required = true, default = -1,
        about = "-1: each request is counted in Redis before it goes on; else in this gateway, which tells Redis every "
          .. "so many seconds (at least 0.02)" } },
      { window_type = { type = "string", required = true, default = "fixed", one_of = { "fixed", "sliding" },
        about = "windows begin with the clock's, or end now" } },
    }, shorthand_fields = limits.redis_shorthands(), entity_checks = {
      { at_least_one_of = NAMES },
      { custom_entity_check = { field_sources = NAMES, fn = limits.in_order } },
      needs("limit_by", "header", "header_name"), needs("limit_by", "path", "path"),
      unpack(limits.redis_checks()),
    } } },
  },
}
