-- SPDX-License-Identifier: Apache-2.0
-- What `sluice explain` prints.
local bit = require "bit"
local json = require "sluice.json"
local plugins = require "sluice.cli.explain.plugins"
local router = require "sluice.cli.router"

local report = {}

local MOST_OTHERS = 5
local ATTRIBUTES = { "methods", "hosts", "paths", "headers", "snis" }
local SINGULAR = { methods = "method", hosts = "host", paths = "path", headers = "header", snis = "server name" }

local function name_of(entity)
  return entity.name or entity.id
end

-- ---- Why ----------------------------------------------------------------------------------------------------------

local function header_texts(headers)
  local texts = {}
  for name, values in pairs(headers) do
    local wanted = table.concat(values, " or ")
    texts[#texts + 1] = name .. ": " .. (wanted ~= "" and wanted or "(empty)")
  end
  table.sort(texts)
  return texts
end

local function wanted(route, attribute)
  local values = route[attribute]
  if attribute == "headers" then return table.concat(header_texts(values), ", ") end
  return table.concat(values, ", ")
end

local function sent(request, attribute)
  if attribute == "methods" then return request.method end
  if attribute == "hosts" then return request.authority or "no host" end
  if attribute == "paths" then return request.path end
  return request.sni or "no server name"
end

local function captures_text(captures)
  local named, numbered = {}, {}
  for name, value in pairs(captures) do
    if type(name) == "string" then named[#named + 1] = name .. " = " .. tostring(value) end
  end
  table.sort(named)
  for i, value in ipairs(captures) do numbered[i] = ("%d = %s"):format(i, tostring(value)) end
  local texts = #named > 0 and named or numbered
  return #texts > 0 and "; captures " .. table.concat(texts, ", ") or ""
end

-- Which of the route's values fits, in words.
local function fit(findings, attribute)
  local request, match = findings.request, findings.match
  if attribute == "methods" then return request.method end
  if attribute == "hosts" then return ("%s fits %s"):format(request.host, match.host) end
  if attribute == "snis" then return request.sni end
  if attribute == "headers" then return wanted(findings.route, "headers") end
  local kind = match.path:sub(1, 1) == "~" and "regex" or "prefix"
  return ("%s %s%s"):format(kind, match.path, captures_text(match.captures))
end

local function attribute_lines(findings)
  local reasons = findings.reasons[findings.match.route]
  local lines = {}
  for _, attribute in ipairs(ATTRIBUTES) do
    local says = "not asked for"
    if reasons[attribute] == "matched" then says = fit(findings, attribute) end
    lines[#lines + 1] = ("  %-8s %s"):format(attribute, says)
  end
  return lines
end

-- ---- The order of routes ------------------------------------------------------------------------------------------

local function part(priority, from, bits)
  return tonumber(bit.band(bit.rshift(priority, from), bit.lshift(1ULL, bits) - 1))
end

-- In the layout of core/router.c; a phrase says why the route with the smaller number comes later.
local PARTS = {
  { 61, 3, "it asks for fewer attributes (%d, not %d)" }, { 60, 1, "its hosts are not all plain" },
  { 52, 8, "it asks for fewer headers (%d, not %d)" }, { 51, 1, "its path is a prefix, not a regex" },
  { 19, 32, "its regex_priority is lower (%d, not %d)", -2147483648 },
  { 0, 19, "its prefix is shorter (%d bytes, not %d)" },
}

local function why_later(priority, best)
  for _, one in ipairs(PARTS) do
    local from, bits, phrase, bias = one[1], one[2], one[3], one[4] or 0
    local its, bests = part(priority, from, bits), part(best, from, bits)
    if its ~= bests then return phrase:format(its + bias, bests + bias) end
  end
  return "it is younger, or stands behind it"
end

local function failures(reasons)
  local failed = {}
  for _, attribute in ipairs(ATTRIBUTES) do
    if reasons[attribute] == "failed" then failed[#failed + 1] = attribute end
  end
  return failed
end

local function by_priority(findings, indexes)
  table.sort(indexes, function(a, b)
    local first, second = findings.reasons[a].priority, findings.reasons[b].priority
    if first ~= second then return first > second end
    return a < b
  end)
  return indexes
end

-- Indexes of the routes, besides the one that wins, that pass the test, the best first.
local function others(findings, test)
  local found = {}
  for index in ipairs(findings.routes) do
    if index ~= findings.match.route and test(index) then found[#found + 1] = index end
  end
  return by_priority(findings, found)
end

-- A slash at the end or the case of a letter is all that is wrong.
local function is_close(path, wanted_path)
  path = path:lower()
  return (path .. "/"):sub(1, #wanted_path) == wanted_path:lower()
end

local function is_near(findings, index)
  local route, reasons = findings.routes[index], findings.reasons[index]
  if #failures(reasons) ~= 1 then return false end
  for _, attribute in ipairs(ATTRIBUTES) do
    if reasons[attribute] == "matched" then return true end
  end
  for _, path in ipairs(route.paths or {}) do
    if is_close(findings.request.path, path) then return true end
  end
  return false
end

local function put_list(out, title, indexes, line)
  if #indexes == 0 then return end
  out[#out + 1] = "\n" .. title
  for i = 1, math.min(#indexes, MOST_OTHERS) do out[#out + 1] = "  " .. line(indexes[i]) end
  if #indexes > MOST_OTHERS then out[#out + 1] = ("  and %d more"):format(#indexes - MOST_OTHERS) end
end

local function put_others(out, findings)
  local best = findings.reasons[findings.match.route]
  local function fits(index) return #failures(findings.reasons[index]) == 0 end
  put_list(out, "fit too, but come later", others(findings, fits), function(index)
    local priority = findings.reasons[index].priority
    return ("%s: %s"):format(name_of(findings.routes[index]), why_later(priority, best.priority))
  end)
end

local function put_near_misses(out, findings)
  local function near(index) return is_near(findings, index) end
  put_list(out, "near misses: all but one attribute fits", others(findings, near), function(index)
    local route, reasons = findings.routes[index], findings.reasons[index]
    local attribute = failures(reasons)[1]
    local found = attribute == "headers" and ("%s does not fit"):format(reasons.header)
      or "found " .. sent(findings.request, attribute)
    return ("%s: %s: wants %s, %s"):format(name_of(route), SINGULAR[attribute], wanted(route, attribute), found)
  end)
end

-- ---- Where it goes ------------------------------------------------------------------------------------------------

local SCHEMES = { grpc = "http", grpcs = "https", http2 = "http", http2s = "https", ws = "http", wss = "https" }
local HTTP2 = { grpc = true, grpcs = true, http2 = true, http2s = true }
local PORTS = { http = 80, https = 443 }

local function authority(scheme, host, port)
  return port == PORTS[scheme] and host or ("%s:%d"):format(host, port)
end

local function upstream_named(known, name)
  for _, upstream in ipairs(known.upstreams) do
    if upstream.name == name then return upstream end
  end
end

local function upstream_path(findings, service)
  local route, match = findings.route, findings.match
  return router.upstream_path(findings.C, service.path or "", findings.request.path, match.path_len,
    route.strip_path ~= false, route.path_handling == "v1")
end

local function put_targets(out, known, upstream)
  for _, target in ipairs(known.targets) do
    if target.upstream == upstream.id then
      out[#out + 1] = ("    %s  weight %d"):format(target.target, target.weight or 100)
    end
  end
end

local function put_upstream(out, findings)
  local known, route, request = findings.known, findings.route, findings.request
  local service = known.by_id[route.service]
  if not service then
    out[#out + 1] = "\nservice   none: a plugin has to answer"
    return
  end
  local scheme = SCHEMES[service.protocol] or service.protocol
  local at = authority(scheme, service.host, service.port)
  local query = request.query and "?" .. request.query or ""
  local upstream = upstream_named(known, service.host)
  local host_field = route.preserve_host and request.authority or upstream and upstream.host_header or at
  out[#out + 1] = ("\nservice   %s\n  %s %s://%s%s%s%s\n  Host: %s"):format(name_of(service), request.method, scheme,
    at, upstream_path(findings, service), query, HTTP2[service.protocol] and "  over HTTP/2" or "", host_field)
  if not upstream then return end
  out[#out + 1] = ("  upstream %s, %s, with targets"):format(upstream.name, upstream.algorithm or "round-robin")
  put_targets(out, known, upstream)
end

-- ---- Plugins ------------------------------------------------------------------------------------------------------

local function put_config(out, config)
  local names = {}
  for name in pairs(config) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do out[#out + 1] = ("       %s = %s"):format(name, json.encode(config[name])) end
end

local function runs_for(uses)
  for _, use in ipairs(uses) do
    if use.runs then return true end
  end
  return false
end

local function put_use(out, use, consumer)
  out[#out + 1] = "     " .. use.scope .. (consumer and use.runs and "  <- runs" or "")
  if use.when then out[#out + 1] = "       only when " .. use.when:gsub("%s+", " ") end
  for _, order in ipairs(use.ordering) do out[#out + 1] = "       ordered " .. order end
  if use.tags and use.tags[1] then out[#out + 1] = "       tags " .. table.concat(use.tags, ", ") end
  put_config(out, use.config)
end

local function put_consumer(out, consumer)
  local groups = {}
  for i, group in ipairs(consumer.groups) do groups[i] = group.name end
  out[#out + 1] = ("\nconsumer  %s%s"):format(consumer.entity.username or consumer.entity.custom_id,
    groups[1] and ", of the groups " .. table.concat(groups, ", ") or "")
end

local function put_plugins(out, findings)
  local consumer = findings.consumer
  local list, why = plugins.list(findings.known, findings.route, consumer)
  if not list then
    out[#out + 1] = "\nplugins   unknown: " .. why
    return
  end
  if consumer then put_consumer(out, consumer) end
  out[#out + 1] = #list > 0 and "\nplugins, in the order in which they run" or "\nplugins   none"
  for i, one in ipairs(list) do
    out[#out + 1] = ("  %2d. %s %s  priority %s  in %s"):format(i, one.name, one.version or "", tostring(one.priority),
      table.concat(one.phases, ", "))
    if consumer and not runs_for(one.uses) then
      out[#out + 1] = "     does not run for this consumer"
    elseif not consumer and one.uses[2] then
      out[#out + 1] = "     once, as the first of these that applies to the consumer (--consumer NAME tells which)"
    end
    for _, use in ipairs(one.uses) do put_use(out, use, consumer) end
  end
  local idle = plugins.idle(findings.known, findings.route, list)
  if idle[1] then out[#out + 1] = "\nplugins that stand here and do not run" end
  for _, one in ipairs(idle) do out[#out + 1] = ("  %s %s: %s"):format(one.name, one.scope, one.why) end
end

-- ---- The whole ----------------------------------------------------------------------------------------------------

local function put_request(out, request)
  out[#out + 1] = ("%s %s"):format(request.method, request.url)
  if request.path ~= request.raw_path then
    out[#out + 1] = ("  %s is matched and forwarded as %s"):format(request.raw_path, request.path)
  end
end

local function sends_grpc(request)
  local types = request.headers["content-type"]
  return types ~= nil and (types[1]:lower() .. ";"):find("^application/grpc[+;]") ~= nil
end

local function takes_grpc_alone(route)
  for _, protocol in ipairs(route.protocols or {}) do
    if protocol == "grpc" or protocol == "grpcs" then return true end
  end
  return false
end

local function put_outcome(out, findings)
  local outcome, status = findings.match.outcome, findings.route.https_redirect_status_code or 426
  if outcome == "overrun" then
    out[#out + 1] = "  answered 500: its regex passes its limits on this request"
  elseif outcome == "ambiguous" then
    out[#out + 1] = "  answered 400: a lenient server would read the path otherwise, as that of a better route"
  elseif takes_grpc_alone(findings.route) and not sends_grpc(findings.request) then
    out[#out + 1] = "  answered 415: it takes gRPC alone (content-type: application/grpc)"
  elseif takes_grpc_alone(findings.route) then
    out[#out + 1] = outcome == "needs_tls" and "  answered with grpc-status 1: it takes gRPC over TLS only"
      or "  over HTTP/1.1 it is answered 426"
  elseif outcome == "needs_tls" and status == 426 then
    out[#out + 1] = "  answered 426: it takes HTTPS only"
  elseif outcome == "needs_tls" then
    out[#out + 1] = ("  answered %d: it takes HTTPS only, and redirects there"):format(status)
  end
end

local function put_route(out, findings)
  local route = findings.route
  out[#out + 1] = ("\nroute     %s"):format(name_of(route))
  if findings.match.outcome ~= "overrun" then
    for _, line in ipairs(attribute_lines(findings)) do out[#out + 1] = line end
  end
  put_outcome(out, findings)
end

report.put_plugins = put_plugins

-- Where a stream goes.
function report.put_service(out, known, route)
  local service = known.by_id[route.service]
  if not service then
    out[#out + 1] = "\nservice   none: a plugin has to say where it goes"
    return
  end
  out[#out + 1] = ("\nservice   %s\n  %s://%s:%d%s"):format(name_of(service), service.protocol, service.host,
    service.port, service.proxy_protocol and "  behind a PROXY header, " .. service.proxy_protocol or "")
  local upstream = upstream_named(known, service.host)
  if not upstream then return end
  out[#out + 1] = ("  upstream %s, %s, with targets"):format(upstream.name, upstream.algorithm or "round-robin")
  put_targets(out, known, upstream)
end

-- The answer for what sluice.cli.explain has found.
---@param findings table
---@return string
function report.text(findings)
  local out = {}
  put_request(out, findings.request)
  local count = #findings.routes
  out[#out + 1] = ("  of %d route%s, from %s"):format(count, count == 1 and "" or "s", findings.known.source)
  if findings.route then
    put_route(out, findings)
    put_others(out, findings)
  else
    out[#out + 1] = "\nno route takes it: answered 404"
  end
  put_near_misses(out, findings)
  if findings.match.outcome == "found" then
    put_plugins(out, findings)
    put_upstream(out, findings)
  end
  return table.concat(out, "\n") .. "\n"
end

return report
