-- SPDX-License-Identifier: Apache-2.0
local limits = require "sluice.limits"
local typedefs = require "sluice.typedefs"

local IDENTIFIERS = { "ip", "credential", "consumer", "service", "header", "path", "consumer-group" }

local function above_zero(value)
  if value > 0 then return true end
  return nil, "expected a number above 0"
end

local function not_negative(value)
  if value >= 0 then return true end
  return nil, "expected a number of at least 0"
end

-- ---- Checks ----

local function as_many(conf)
  if #conf.limit == #conf.window_size then return true end
  return nil, ("expected as many as limit has, %d, found %d"):format(#conf.limit, #conf.window_size), "window_size"
end

-- Windows in order of their size, longer ones with no less.
local function in_order(conf)
  local order = {}
  for i, size in ipairs(conf.window_size) do order[i] = { size = size, limit = conf.limit[i] } end
  table.sort(order, function(a, b) return a.size < b.size end)
  for i = 2, #order do
    if order[i].size == order[i - 1].size then return nil, "expected sizes that differ", "window_size" end
    if order[i].limit and order[i - 1].limit and order[i].limit < order[i - 1].limit then
      return nil, "expected that a longer window holds no less than a shorter one", "limit"
    end
  end
  return true
end

local function has_database(conf)
  if conf.strategy ~= "cluster" then return true end
  return nil, '"cluster" needs a database, which comes with a later version; expected "local" or "redis"', "strategy"
end

local function has_rate(conf)
  if conf.strategy ~= "redis" or conf.sync_rate then return true end
  return nil, "expected a number (because of strategy), found nothing", "sync_rate"
end

local function rate_is_possible(conf)
  local rate = conf.sync_rate
  if not rate or rate == -1 or rate == 0 or rate >= 0.02 then return true end
  return nil, "expected -1, 0, or at least 0.02", "sync_rate"
end

local function overrides_nothing(conf)
  if not conf.enforce_consumer_groups then return true end
  return nil, "expected false: give the plugin to the consumer group instead, with limits of its own",
    "enforce_consumer_groups"
end

-- What the identifiers need, compound or not.
local function has_what_identifies(conf)
  local wanted = conf.compound_identifier or { conf.identifier }
  for _, name in ipairs(wanted) do
    if name == "header" and not conf.header_name then return nil, "expected a value", "header_name" end
    if name == "path" and not conf.path then return nil, "expected a value", "path" end
  end
  return true
end

local function check(fn, ...)
  return { custom_entity_check = { field_sources = { ... }, fn = fn } }
end

return {
  name = "rate-limiting-advanced",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { limit = { type = "array", required = true, len_min = 1, about = "requests in each of the windows",
        elements = { type = "number", custom_validator = not_negative } } },
      { window_size = { type = "array", required = true, len_min = 1, about = "seconds of each window",
        elements = { type = "number", custom_validator = above_zero } } },
      { window_type = { type = "string", default = "sliding", one_of = { "fixed", "sliding" },
        about = "windows begin with the clock's, or end now" } },
      { identifier = { type = "string", required = true, default = "consumer", one_of = IDENTIFIERS,
        about = "whose requests are counted together; where there is none of it, the client's address" } },
      { compound_identifier = { type = "array", elements = { type = "string", one_of = IDENTIFIERS },
        about = "several of them at once, in place of `identifier`" } },
      { header_name = typedefs.header_name { about = "of identifier `header`" } },
      { path = typedefs.path { about = "of identifier `path`" } },
      { namespace = { type = "string", len_min = 1,
        about = "instances of the same one count together; each for itself unless set" } },
      { strategy = { type = "string", required = true, default = "local", one_of = { "cluster", "redis", "local" },
        about = "where is counted: in this gateway, or in Redis for several" } },
      { sync_rate = { type = "number",
        about = "with strategy redis: 0, each request is counted there before it goes on; -1, Redis is never told; "
          .. "else it is told every so many seconds" } },
      { redis = limits.redis_schema_advanced(typedefs) },
      { disable_penalty = { type = "boolean", default = false,
        about = "refused requests do not count in windows that slide" } },
      { hide_client_headers = { type = "boolean", default = false, about = "clients are not told the limits" } },
      { retry_after_jitter_max = { type = "number", default = 0, custom_validator = not_negative,
        about = "up to so many seconds are added to Retry-After by chance" } },
      { error_code = { type = "number", default = 429, custom_validator = not_negative,
        about = "status of a refusal" } },
      { error_message = { type = "string", default = "API rate limit exceeded", about = "message of a refusal" } },
      { enforce_consumer_groups = { type = "boolean", default = false,
        about = "only false: a consumer group that has this plugin has limits of its own" } },
      { consumer_groups = { type = "array", elements = { type = "string" },
        about = "of `enforce_consumer_groups`; nothing without it" } },
      { dictionary_name = { type = "string", required = true, default = "kong_rate_limiting_counters",
        about = "nothing: counters are where all plugins' are" } },
      { lock_dictionary_name = { type = "string", required = true, default = "kong_locks",
        about = "nothing: no lock is needed" } },
    }, entity_checks = {
      check(as_many, "limit", "window_size"), check(in_order, "limit", "window_size"),
      check(has_database, "strategy"), check(has_rate, "strategy", "sync_rate"), check(rate_is_possible, "sync_rate"),
      check(overrides_nothing, "enforce_consumer_groups"),
      check(has_what_identifies, "identifier", "compound_identifier", "header_name", "path"),
    } } },
  },
}
