-- SPDX-License-Identifier: Apache-2.0
-- `delay` and `abort` are those of APISIX's plugin of that name, with an expression in place of `vars`.
local expression = require "sluice.expression"
local typedefs = require "sluice.typedefs"

local function is_early_expression(text)
  local ok, why = expression.check(text)
  if not ok then return nil, why end
  local since, field = expression.since(text)
  if since ~= "header_filter" then return true end
  return nil, ("expected an expression on the request (%s is known too late)"):format(field)
end

local function more_than_nothing(value)
  if value > 0 and value <= 3600 then return true end
  return nil, "expected a number of seconds above 0, up to 3600"
end

-- A fault: its own fields, and whom it strikes.
local function fault(about, early, fields)
  fields[#fields + 1] = { percentage = { type = "number", required = true, default = 100, between = { 0, 100 },
    about = "of the requests that `match` holds for" } }
  fields[#fields + 1] = { match = { type = "string", custom_validator = early and is_early_expression
    or expression.check, about = early and "expression that a request must meet"
    or "expression that a request and its response must meet" } }
  return { type = "record", about = about, fields = fields }
end

local function bytes(about)
  return { type = "integer", between = { 0, 2147483647 }, about = about }
end

local truncated = bytes "of the body, which then ends as if it were whole"
truncated.required = true

return {
  name = "fault-injection",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { delay = fault("requests wait before they go on", true, {
        { duration = { type = "number", required = true, custom_validator = more_than_nothing, about = "seconds" } },
        { jitter = { type = "number", required = true, default = 0, between = { 0, 3600 },
          about = "up to so many seconds more, at random" } },
      }) },
      { abort = fault("requests are answered here", true, {
        { http_status = { type = "integer", required = true, between = { 200, 599 } } },
        { body = { type = "string", len_min = 0, about = "of the answer" } },
        { headers = { type = "map", keys = typedefs.header_name, values = { type = "string" },
          about = "of the answer" } },
      }) },
      { reset = fault("connections break (streams of HTTP/2 are reset)", false, {
        { after_bytes = bytes "of the response's body; without it there is no response at all" },
      }) },
      { truncate = fault("bodies end early", false, { { after_bytes = truncated } }) },
      { corrupt = fault("bodies are not what the service sent", false, {
        { every_bytes = { type = "integer", required = true, default = 64, between = { 1, 1048576 },
          about = "of so many bytes one is another, on average" } },
      }) },
      { response_header = typedefs.header_name { about = "field of the response that names the faults in it" } },
    }, entity_checks = {
      { at_least_one_of = { "delay", "abort", "reset", "truncate", "corrupt" } },
      { custom_entity_check = { field_sources = { "reset" }, fn = function(conf)
        local reset = conf.reset
        if not reset or reset.after_bytes or not reset.match then return true end
        local ok, why = is_early_expression(reset.match)
        if ok then return true end
        return nil, why, "reset.match"
      end } },
    } } },
  },
}
