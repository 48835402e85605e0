-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local typedefs = require "sluice.typedefs"

local OLD_NAMES = { whitelist = "allow", blacklist = "deny" }
local HASHES = { "consumer", "ip", "none", "allow", "deny", "header" }

local function not_negative(value)
  if value >= 0 then return true end
  return nil, "expected a number of at least 0"
end

local function needs(value, field)
  return { conditional = { if_field = "hash", if_match = { eq = value }, then_field = field,
    then_match = { required = true } } }
end

local function is_hash(value)
  if OLD_NAMES[value] then return true end
  for _, name in ipairs(HASHES) do
    if name == value then return true end
  end
  return nil, "expected one of " .. table.concat(HASHES, ", ")
end

return {
  name = "canary",
  fields = {
    { consumer = typedefs.no_consumer },
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { start = { type = "number", custom_validator = not_negative,
        about = "when the release begins, seconds since 1970; without it when the gateway first sees it. Passed over "
          .. "with `percentage`, `allow` and `deny`" } },
      { duration = { type = "number", default = 3600, custom_validator = not_negative,
        about = "seconds in which the share grows from nothing to all" } },
      { steps = { type = "number", default = 1000, between = { 1, 1e9 },
        about = "groups that clients are divided into; one after the other goes to the canary" } },
      { percentage = { type = "number", between = { 0, 100 },
        about = "a fixed share of the requests, in place of one that grows" } },
      { hash = { type = "string", default = "consumer", custom_validator = is_hash,
        about = "what clients are told apart by: `consumer`, `ip`, `header` (each the same way every time), `none` (at "
          .. "random); or who goes: `allow` those of `groups`, `deny` all but those" } },
      { hash_header = typedefs.header_name { about = "of `hash: header`" } },
      { groups = { type = "array", elements = { type = "string" },
        about = "names of groups, those of ACLs and consumer groups alike" } },
      { canary_by_header_name = typedefs.header_name {
        about = "a request with this field goes by its value: `always`, `never`" } },
      { upstream_host = typedefs.host { about = "host of the canary, or name of an upstream" } },
      { upstream_port = typedefs.port { about = "port of the canary; without it that of the service" } },
      { upstream_uri = { type = "string", len_min = 1,
        about = "path that the canary gets in place of the request's" } },
      { upstream_fallback = { type = "boolean", required = true, default = false,
        about = "go to the service as usual while no target of the upstream `upstream_host` takes requests" } },
    }, entity_checks = {
      { at_least_one_of = { "upstream_uri", "upstream_host", "upstream_port" } },
      needs("header", "hash_header"), needs("allow", "groups"), needs("deny", "groups"),
      { conditional = { if_field = "upstream_fallback", if_match = { eq = true }, then_field = "upstream_host",
        then_match = { required = true } } },
    } } },
  },
  prepare = function(config)
    config.hash = OLD_NAMES[config.hash] or config.hash
  end,
}
