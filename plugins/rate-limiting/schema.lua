-- SPDX-License-Identifier: Apache-2.0
local limits = require "sluice.limits"
local typedefs = require "sluice.typedefs"

local NAMES = { "second", "minute", "hour", "day", "month", "year" }

local function not_negative(value)
  if value >= 0 then return true end
  return nil, "expected a number of at least 0"
end

local function limit(name)
  return { type = "number", custom_validator = not_negative, about = "requests in one " .. name }
end

-- A longer window that holds less than a shorter one: an error of whoever wrote it.
local function in_order(conf)
  for i, short in ipairs(NAMES) do
    for j = i + 1, #NAMES do
      local long = NAMES[j]
      if conf[short] and conf[long] and conf[long] < conf[short] then
        return nil, ("The limit for %s(%.1f) cannot be lower than the limit for %s(%.1f)"):format(long, conf[long],
          short, conf[short]), long
      end
    end
  end
  return true
end

local function has_database(conf)
  if conf.policy ~= "cluster" then return true end
  return nil, '"cluster" needs a database, which comes with a later version; expected "local" or "redis"', "policy"
end

local function has_server(conf)
  if conf.policy ~= "redis" or limits.has_redis_server(conf.redis) then return true end
  return nil, "expected a value, or sentinel_nodes and sentinel_master, or cluster_nodes", "redis.host"
end

local function needs(if_field, value, then_field)
  return { conditional = { if_field = if_field, if_match = { eq = value }, then_field = then_field,
    then_match = { required = true } } }
end

-- Older names of what stands under `redis`.
local function shorthand(name, field)
  field.func = function(value) return { redis = { [name] = value } } end
  return { ["redis_" .. name] = field }
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
    }, shorthand_fields = {
      shorthand("host", { type = "string" }), shorthand("port", { type = "integer" }),
      shorthand("username", { type = "string" }), shorthand("password", { type = "string", len_min = 0 }),
      shorthand("ssl", { type = "boolean" }), shorthand("ssl_verify", { type = "boolean" }),
      shorthand("server_name", { type = "string" }), shorthand("timeout", { type = "integer" }),
      shorthand("database", { type = "integer" }),
    }, entity_checks = {
      { at_least_one_of = NAMES },
      { custom_entity_check = { field_sources = NAMES, fn = in_order } },
      { custom_entity_check = { field_sources = { "policy" }, fn = has_database } },
      needs("limit_by", "header", "header_name"), needs("limit_by", "path", "path"),
      { custom_entity_check = { field_sources = { "policy", "redis" }, fn = has_server } },
    } } },
  },
}
