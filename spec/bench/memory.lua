-- SPDX-License-Identifier: Apache-2.0
-- Resident memory:
--   luajit spec/bench/memory.lua idle     of an idle keep-alive connection
--   luajit spec/bench/memory.lua routes   of a worker with 1,000 routes
--   luajit spec/bench/memory.lua soak     before and after another million requests through four plugins; with
--                                         SLUICE_BUILD=asan: one million, and what the sanitizers found
local cases = require "spec.bench.cases"
local http = require "spec.support.http"
local measure = require "spec.bench.measure"
local servers = require "spec.bench.servers"

local IDLE, ROUTES, MILLION = 8000, 1000, 1000000

local function case_named(name)
  for _, case in ipairs(cases) do
    if case.name == name then return case end
  end
end

local function idle()
  local origin = servers.origin()
  local gw = servers.sluice(case_named("plain").config(origin))
  local connections = {}
  local function open(count)
    for _ = 1, count do
      local client = assert(http.connect(gw.port))
      assert(client:request({ path = "/128" }))
      connections[#connections + 1] = client
    end
  end
  open(200) -- what is allocated once
  local before = measure.private_bytes(gw.worker)
  open(IDLE)
  local after = measure.private_bytes(gw.worker)
  print(("an idle keep-alive connection: %.0f bytes resident (%d of them; limit 1024)"):format((after - before) / IDLE,
    IDLE))
  for _, client in ipairs(connections) do client:close() end
  servers.stop(gw)
  servers.stop(origin)
end

local function routes()
  local origin = servers.origin()
  local list = {}
  for index = 1, ROUTES do
    list[index] = { name = "r" .. index, paths = { "/r" .. index .. "/" }, strip_path = false }
  end
  local gw = servers.sluice({ _format_version = "3.0",
    services = { { name = "origin", url = "http://127.0.0.1:" .. origin.port, routes = list } } })
  assert(gw:get("/r77/x").status == 200)
  print(("a worker with %d routes: %.1f MB resident, %.1f MB its own (limit 20)"):format(ROUTES,
    measure.resident_bytes(gw.worker) / 1e6, measure.private_bytes(gw.worker) / 1e6))
  servers.stop(gw)
  servers.stop(origin)
end

local function load_until(gw, case, count)
  local done = 0
  while done < count do
    done = done + measure.throughput(gw.worker, { url = "http://127.0.0.1:" .. gw.port .. case.path,
      headers = case.headers, seconds = 5 }).requests
  end
  return done
end

local function soak()
  local origin = servers.origin()
  local case = case_named("chain")
  local gw = servers.sluice(case.config(origin))
  local done = load_until(gw, case, MILLION)
  -- Pages of the counters that all workers share are touched one by one as keys come and go; their table is bounded.
  local first = measure.private_bytes(gw.worker)
  print(("%d requests: %.2f MB of its own, %.2f MB resident"):format(done, first / 1e6,
    measure.resident_bytes(gw.worker) / 1e6))
  if os.getenv("SLUICE_BUILD") ~= "asan" then
    done = done + load_until(gw, case, MILLION)
    local second = measure.private_bytes(gw.worker)
    print(("%d requests: %.2f MB of its own (%+.2f %%, limit 1), %.2f MB resident"):format(done, second / 1e6,
      (second / first - 1) * 100, measure.resident_bytes(gw.worker) / 1e6))
  end
  local log = gw:log()
  servers.stop(gw) -- raises when a sanitizer found something
  servers.stop(origin)
  local _, findings = log:gsub("ERROR: %w+Sanitizer", "")
  print("sanitizer findings: " .. findings)
end

local scripts = { idle = idle, routes = routes, soak = soak }
local script = scripts[arg[1]] or error("usage: luajit spec/bench/memory.lua idle|routes|soak")
script()
