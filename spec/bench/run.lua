-- SPDX-License-Identifier: Apache-2.0
-- make bench: requests per CPU-second of one worker, in turns with nginx in one run; medians, and the median of what
-- they are to each other in each round, which a machine that slows down and recovers does not move; then latency at a
-- fixed rate. CASES, ROUNDS and SECONDS in the environment narrow it.
local cases = require "spec.bench.cases"
local measure = require "spec.bench.measure"
local servers = require "spec.bench.servers"

local function setting(name, default)
  local value = os.getenv(name)
  return value and value ~= "" and value or default
end

local ROUNDS = tonumber(setting("ROUNDS", 20))
local SECONDS = tonumber(setting("SECONDS", 1))
local WANTED = " " .. setting("CASES", "") .. " "

local function chosen()
  local list, names = {}, {}
  for _, case in ipairs(cases) do
    if WANTED:match("^ +$") or WANTED:find(" " .. case.name .. " ", 1, true) then
      list[#list + 1] = case
      names[case.name] = true
    end
  end
  assert(#list > 0, "no such case:" .. WANTED)
  -- A case that is compared with another of Sluice's own needs that one.
  for _, case in ipairs(cases) do
    for _, one in ipairs(list) do
      if one.against == case.name and not names[case.name] then
        names[case.name] = true
        table.insert(list, 1, case)
        break
      end
    end
  end
  return list
end

-- A call's message: a byte that says it is not compressed, its length, and so many bytes.
local call = os.tmpname()
require("spec.support.process").write_file(call, "\0\0\0\0\16" .. ("m"):rep(16))

-- What is to be asked of a server for a case.
local function load_of(case, server, seconds)
  local port = case.tls and server.tls_port or server.port
  return { url = (case.tls and "https" or "http") .. "://127.0.0.1:" .. port .. case.path, headers = case.headers,
    connections = case.connections, seconds = seconds, rate = case.latency, streams = case.streams,
    data = case.grpc and call }
end

local function start(case, origin, certificate)
  local config = case.config(origin)
  if case.tls then
    config.certificates = { { cert = certificate.certificate_pem, key = certificate.key_pem,
      snis = { { name = "*" } } } }
  end
  local list = { servers.sluice(config, { http2 = case.streams ~= nil }) }
  if case.nginx then
    list[2] = servers.proxy(origin, { tls = case.tls and certificate, http = case.nginx.http,
      location = case.nginx.location, http2 = case.streams ~= nil, grpc = case.grpc })
    list[2].tls_port = list[2].port
  end
  for _, server in ipairs(list) do
    measure.throughput(server.worker, load_of(case, server, 1)) -- warm: connections, compiled traces
    server.figures = {}
  end
  return list
end

local function print_row(case, results)
  local own = measure.median(results[case.name].sluice)
  local other = case.against == "nginx" and results[case.name].nginx or results[case.against].sluice
  local ratios = {}
  for round, figure in ipairs(results[case.name].sluice) do ratios[round] = figure / other[round] end
  local ratio = measure.median(ratios)
  local verdict = ratio >= case.floor and "ok" or "BELOW"
  print(("%-14s %12.0f %12.0f of %-6s %8.3f %7.2f  %s"):format(case.name, own, measure.median(other), case.against,
    ratio, case.floor, verdict))
  return ratio >= case.floor
end

local function throughput(list, running)
  local results = {}
  for _, case in ipairs(list) do results[case.name] = { sluice = {}, nginx = {} } end
  for round = 1, ROUNDS do
    io.stderr:write("round ", round, " of ", ROUNDS, "\n")
    for _, case in ipairs(list) do
      for _, server in ipairs(running[case.name]) do
        local result = measure.throughput(server.worker, load_of(case, server, SECONDS))
        table.insert(results[case.name][server.name], result.per_cpu)
      end
    end
  end
  print(("%-14s %12s %12s    %-6s %8s %7s"):format("case", "sluice", "compared", "", "ratio", "floor"))
  local all = true
  for _, case in ipairs(list) do all = print_row(case, results) and all end
  print("requests per CPU-second of one worker, and how they compare: medians of " .. ROUNDS .. " rounds of " .. SECONDS
    .. " s, in turns")
  return all
end

local function latency(list, running)
  for _, case in ipairs(list) do
    for _, server in ipairs(case.latency and running[case.name] or {}) do
      local result = measure.latency(load_of(case, server, SECONDS))
      print(("%-14s %-7s at %d requests/s: p50 %.2f ms, p99 %.2f ms, greatest %.2f ms (%d)"):format(case.name,
        server.name, case.latency, result.p50, result.p99, result.greatest, result.count))
    end
  end
end

local list = chosen()
local origin, certificate = servers.origin(), servers.certificate()
local running = {}
for _, case in ipairs(list) do running[case.name] = start(case, origin, certificate) end
local ok = throughput(list, running)
latency(list, running)
for _, group in pairs(running) do
  for _, server in ipairs(group) do servers.stop(server) end
end
servers.stop(origin)
require("spec.support.process").remove(certificate.directory)
os.remove(call)
os.exit(ok and 0 or 1, true)
