-- SPDX-License-Identifier: Apache-2.0
-- After APISIX's plugin of that name: rules, each with weighted upstreams.
local expression = require "sluice.expression"
local shares = require "traffic-split.shares"
local typedefs = require "sluice.typedefs"

local function has_port(target)
  if target:match(":%d+$") and not target:match("^[^%[].*:.*:") then return true end
  return nil, "expected a host and a port, such as host:8080"
end

local host_and_port = typedefs.host_with_optional_port { about = "host and port; requests go there as they would "
  .. "to the service of the route" }
local is_host = host_and_port.custom_validator
host_and_port.custom_validator = function(target)
  local ok, why = is_host(target)
  if not ok then return nil, why end
  return has_port(target)
end

local target = { type = "record", fields = {
  { name = { type = "string", len_max = 128,
    about = "what cookies, headers and logs call it; without it `service`, `upstream`, `target` or `default`" } },
  { weight = { type = "integer", default = 1, between = { 0, 65535 },
    about = "its share of the requests is this over the sum of all; 0: none, not even of those that stick to it" } },
  { service = { type = "string", about = "name or id of a service, called with all that it says" } },
  { upstream = { type = "string", about = "name of an upstream, whose targets take the place of the service's host" } },
  { target = host_and_port },
  { protocol = { type = "string", one_of = { "http", "https" }, about = "protocol towards `upstream` or `target`" } },
}, entity_checks = {
  { mutually_exclusive = { "service", "upstream", "target" } }, { mutually_exclusive = { "service", "protocol" } },
} }

local function names_differ(rule)
  local seen = {}
  for _, one in ipairs(rule.weighted_upstreams) do
    local name = shares.name_of(one)
    if seen[name] then
      return nil, ("expected names that differ, found two of %q"):format(name), "weighted_upstreams"
    end
    seen[name] = true
  end
  return true
end

local rule = { type = "record", fields = {
  { match = { type = "string", custom_validator = expression.check,
    about = "expression that a request must meet; without it every request does" } },
  { weighted_upstreams = { type = "array", required = true, len_min = 1, elements = target,
    about = "where requests go; one that names nothing is the service of the route" } },
}, entity_checks = { { custom_entity_check = { field_sources = { "weighted_upstreams" }, fn = names_differ } } } }

local sticky = { type = "record", required = true, about = "sends a client where it went before", fields = {
  { by = { type = "string", required = true, default = "none",
    one_of = { "none", "cookie", "header", "consumer", "ip" },
    about = "what a client is known by; one without it goes by weight alone" } },
  { name = { type = "string", match = "^[%w!#$%%&'*+.^_`|~-]+$", err = "a name of a header or a cookie",
    about = "of the cookie (`sluice_split` unless told) or the header" } },
  { cookie_ttl = { type = "integer", gt = 0, about = "seconds that the cookie lives; without it as long as the "
    .. "browser runs" } },
  { cookie_path = typedefs.path { required = true, default = "/" } },
  { cookie_domain = typedefs.host { about = "sent to this host and those below; without it to the host alone" } },
  { cookie_secure = { type = "boolean", default = false, about = "sent over TLS only" } },
  { cookie_http_only = { type = "boolean", default = true, about = "hidden from scripts" } },
  { cookie_same_site = { type = "string", one_of = { "Strict", "Lax", "None" }, default = "Lax" } },
}, entity_checks = {
  { conditional = { if_field = "by", if_match = { eq = "header" }, then_field = "name",
    then_match = { required = true } } },
} }

-- Names must lead somewhere.
local function prepare(config, files)
  if config.sticky.by == "cookie" then config.sticky.name = config.sticky.name or "sluice_split" end
  for i, one in ipairs(config.rules) do
    for j, given in ipairs(one.weighted_upstreams) do
      for kind, collection in pairs { service = "services", upstream = "upstreams" } do
        local name = given[kind]
        if name and not files.has(collection, name) then
          return { field = ("rules.%d.weighted_upstreams.%d.%s"):format(i, j, kind),
            expected = ("the name of %s %s in the configuration"):format(kind == "service" and "a" or "an", kind),
            found = ("%q"):format(name) }
        end
      end
    end
  end
end

return {
  name = "traffic-split",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { rules = { type = "array", required = true, len_min = 1, elements = rule,
        about = "the first one that a request meets decides; one that meets none goes its usual way" } },
      { sticky = sticky },
      { response_header = typedefs.header_name { about = "field of the response that says which one was chosen" } },
    } } },
  },
  prepare = prepare,
}
