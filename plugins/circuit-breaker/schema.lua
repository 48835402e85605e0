-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }

local function seconds(default, about)
  return { type = "number", required = true, default = default, gt = 0, about = about }
end

local function percent(about, default)
  return { type = "number", gt = 0, between = { 0, 100 }, default = default, about = about }
end

local status = { type = "integer", between = { 100, 599 } }

local fallback = { type = "record", about = "what a client gets while the circuit is open; without it an error with "
  .. "`status`, `message` and `Retry-After`", fields = {
  { status = { type = "integer", between = { 200, 599 }, about = "status of an answer in place of the service's" } },
  { body = { type = "string", len_min = 0, about = "its content" } },
  { headers = { type = "map", keys = typedefs.header_name, values = { type = "string", len_min = 0 },
    about = "its fields" } },
  { service = { type = "string",
    about = "a service of the configuration (name or id) that gets the request instead" } },
  { upstream = { type = "string", about = "an upstream of the configuration that gets the request instead" } },
  { host = typedefs.host { about = "a host that gets the request instead" } },
  { port = typedefs.port { about = "its port" } },
}, entity_checks = {
  { only_one_of = { "status", "service", "upstream", "host" } },
  { mutually_required = { "host", "port" } },
  { custom_entity_check = { field_sources = { "status", "body", "headers" }, fn = function(fallback)
    if fallback.status or not fallback.body and not fallback.headers then return true end
    return nil, "body and headers are of an answer: expected a status", "status"
  end } },
} }

-- Names must lead somewhere.
local function prepare(config, files)
  local given = config.fallback or {}
  for kind, collection in pairs { service = "services", upstream = "upstreams" } do
    local name = given[kind]
    if name and not files.has(collection, name) then
      return { field = "fallback." .. kind, found = ("%q"):format(name),
        expected = ("the name of %s %s in the configuration"):format(kind == "service" and "a" or "an", kind) }
    end
  end
end

return {
  name = "circuit-breaker",
  prepare = prepare,
  fields = {
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { scope = { type = "string", required = true, default = "service", one_of = { "service", "route" },
        about = "what a circuit is for: all requests to a service, or those of a route" } },
      { consecutive_failures = { type = "integer", gt = 0, about = "failures in a row that open the circuit" } },
      { failure_rate_threshold = percent("share of failures in the window that opens it, in percent; "
        .. "100: only when every call fails", 50) },
      { slow_call_rate_threshold = percent("share of slow calls in the window that opens it, in percent") },
      { slow_call_duration_threshold = seconds(60,
        "seconds from the request's going out to the head of the response, from which on a call is slow") },
      { sliding_window_size = seconds(60, "seconds that rates are taken over") },
      { minimum_number_of_calls = { type = "integer", required = true, default = 20, gt = 0,
        about = "calls in the window before rates are looked at" } },
      { failure_statuses = { type = "set", required = true, default = { 500, 502, 503, 504 }, elements = status,
        about = "statuses of responses that are failures; so is a service that does not answer" } },
      { failure_grpc_statuses = { type = "set", required = true, default = { 2, 4, 13, 14, 15 },
        elements = { type = "integer", between = { 1, 16 } }, about = "the same of gRPC's statuses" } },
      { wait_duration_in_open_state = seconds(10, "seconds that the circuit is open at first") },
      { wait_duration_multiplier = { type = "number", required = true, default = 2, between = { 1, 10 },
        about = "by which that time grows with each probe that fails" } },
      { max_wait_duration_in_open_state = seconds(300, "seconds that it is open at most") },
      { wait_duration_jitter = { type = "number", required = true, default = 0.1, between = { 0, 1 },
        about = "share of that time by which it is made shorter or longer at random" } },
      { permitted_number_of_calls_in_half_open_state = { type = "integer", required = true, default = 3,
        between = { 1, 100 }, about = "probes of a half-open circuit, over all workers; all must go well for it to "
          .. "close" } },
      { max_wait_duration_in_half_open_state = seconds(60,
        "seconds after which a probe that nothing is heard of is given to another request") },
      { status = { type = "integer", required = true, default = 503, between = { 400, 599 },
        about = "status of the error while the circuit is open" } },
      { message = { type = "string", required = true, default = "The service is not available at the moment",
        about = "its message" } },
      { fallback = fallback },
    } } },
  },
}
