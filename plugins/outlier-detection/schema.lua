-- SPDX-License-Identifier: Apache-2.0
local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }

local function seconds(default, about)
  return { type = "number", required = true, default = default, gt = 0, about = about }
end

local function percent(default, about)
  return { type = "number", default = default, gt = 0, between = { 0, 100 }, about = about }
end

local function count(default, about)
  return { type = "integer", required = true, default = default, gt = 0, about = about }
end

return {
  name = "outlier-detection",
  fields = {
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { consecutive_5xx = { type = "integer", default = 5, between = { 0, 1000000 },
        about = "failures in a row that eject a target; 0: they do not" } },
      { failure_percentage_threshold = percent(nil, "share of failures in the window that ejects it, in percent") },
      { slow_call_rate_threshold = percent(nil, "share of slow calls in the window that ejects it, in percent") },
      { slow_call_duration_threshold = seconds(60,
        "seconds from the request's going out to the head of the response, from which on a call is slow") },
      { success_rate_stdev_factor = { type = "number", gt = 0,
        about = "standard deviations by which a target's share of good calls is below the mean when it is ejected" } },
      { success_rate_minimum_hosts = count(5, "targets with enough calls that are needed for that") },
      { request_volume = count(20, "calls to a target in the window before shares are looked at") },
      { interval = seconds(10, "seconds that shares are taken over, and in which targets are compared once") },
      { failure_statuses = { type = "set", required = true, default = { 500, 502, 503, 504 },
        elements = { type = "integer", between = { 100, 599 } },
        about = "statuses of responses that are failures; so is a target that does not answer" } },
      { failure_grpc_statuses = { type = "set", required = true, default = { 2, 4, 13, 14, 15 },
        elements = { type = "integer", between = { 1, 16 } }, about = "the same of gRPC's statuses" } },
      { base_ejection_time = seconds(30, "seconds that a target is ejected for at first") },
      { ejection_time_multiplier = { type = "number", required = true, default = 2, between = { 1, 10 },
        about = "by which that time grows with each probe that fails" } },
      { max_ejection_time = seconds(300, "seconds that it is ejected for at most") },
      { ejection_time_jitter = { type = "number", required = true, default = 0.1, between = { 0, 1 },
        about = "share of that time by which it is made shorter or longer at random" } },
      { max_ejection_percent = { type = "number", required = true, default = 10, between = { 0, 100 },
        about = "share of an upstream's addresses that are ejected at the same time at most, in percent; one may "
          .. "always be, but never the last" } },
      { probes = count(1, "requests, one after the other, that have to go well before an ejected target is back") },
      { probe_interval = seconds(10, "seconds after which a probe that nothing is heard of is given up for another") },
    } } },
  },
}
