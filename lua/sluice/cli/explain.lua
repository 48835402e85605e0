-- SPDX-License-Identifier: Apache-2.0
-- `sluice explain`: which route takes a request and why, which nearly would, what plugins run, where it goes. Asks the
-- core's own router, so it cannot tell otherwise than the gateway does.
local entities = require "sluice.cli.explain.entities"
local gateway = require "sluice.cli.gateway"
local options = require "sluice.cli.options"
local plan = require "sluice.plan"
local report = require "sluice.cli.explain.report"
local requests = require "sluice.cli.explain.request"
local router = require "sluice.cli.router"
local stream = require "sluice.cli.explain.stream"

local explain = {}

-- Routes as the gateway has them: those of a disabled service match nothing.
local function active_routes(known)
  local active = {}
  for _, route in ipairs(known.routes) do
    local service = known.by_id[route.service]
    local streams = plan.is_stream(route.protocols)
    if not streams and (not service or service.enabled ~= false) then active[#active + 1] = route end
  end
  return active
end

local function built(C, routes)
  local compiled, err, number = router.new(C, routes)
  if compiled then return compiled end
  local route = routes[number] or {}
  return nil, ("route %s: %s"):format(route.name or route.id or "?", err)
end

-- What there is to tell: the routes, how each fares, which one wins.
---@param known table from sluice.cli.explain.entities
---@param request table from sluice.cli.explain.request
---@return table|nil findings
---@return string|nil why
function explain.find(known, request)
  local C = router.library()
  local routes = active_routes(known)
  local compiled, err = built(C, routes)
  if not compiled then return nil, err end
  local match = compiled:match(request)
  local reasons = {}
  for index in ipairs(routes) do reasons[index] = compiled:explain(request, index) end
  return { C = C, known = known, request = request, routes = routes, match = match, reasons = reasons,
    route = routes[match.route] }
end

-- The whole answer as text, and whether a route takes the request; nil, reason.
---@param consumer? string its name: what runs for it is told
function explain.text(known, method, url, fields, consumer)
  local request, err = requests.parse(router.library(), method, url, fields or {})
  if not request then return nil, err end
  local findings, why = explain.find(known, request)
  if not findings then return nil, why end
  if consumer then
    findings.consumer, why = entities.consumer(known, consumer)
    if not findings.consumer then return nil, why end
  end
  return report.text(findings), findings.route ~= nil
end

local flags = { options.config, { "-H", "--header", key = "fields", value = "'NAME: VALUE'", many = true },
  { "--consumer", key = "consumer", value = "NAME" }, { "--from", key = "from", value = "ADDRESS" } }

---@param args string[]
---@param host table
---@return integer 0: a route takes the request, 1: none does, or an error
function explain.run(args, host)
  local parsed = options.parse(args, flags, 2)
  if #parsed < 2 then options.fail("expected METHOD and URL, or tcp or tls and HOST:PORT") end
  local known, why = entities.read(parsed.files, host)
  if not known then return gateway.complain(why) end
  local text, found
  if stream.is_meant(parsed[1]) then
    text, found = stream.text(known, parsed[1], parsed[2], parsed.from)
  else
    text, found = explain.text(known, parsed[1], parsed[2], parsed.fields, parsed.consumer)
  end
  if not text then return gateway.complain(found) end
  io.write(text)
  return found and 0 or 1
end

return explain
