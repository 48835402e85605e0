-- SPDX-License-Identifier: Apache-2.0
-- Floods over HTTP/2 at full client speed, and what another connection of the same worker notices of them:
--   luajit spec/bench/floods.lua [KIND ...]      SECONDS=10 each, in the environment
-- The flood runs on the other core. Answers to the other connection: p99 at most 50 ms.
local cjson = require "cjson"
local http = require "spec.support.http"
local measure = require "spec.bench.measure"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local SECONDS = tonumber(os.getenv("SECONDS") or "10")
local KINDS = { "rapid-reset", "rapid-reset-post", "made-you-reset", "malformed", "empty-data", "padded-data",
  "continuation", "empty-continuation", "empty-headers", "ping", "ping-unread", "settings", "settings-unread",
  "window-update", "priority", "unknown", "hpack-bomb", "requests-unread", "stalled" }
local PAUSE, LIMIT_MS = 0.004, 50

local function names(codes)
  local list = {}
  for name, count in pairs(codes) do list[#list + 1] = name .. " " .. count end
  table.sort(list)
  return table.concat(list, ", ")
end

local function run(gw, kind)
  local client = assert(http.connect(gw.port, { timeout = 30 }))
  assert(client:request({ path = "/128" }).status == 200)
  local before, cpu = measure.private_bytes(gw.worker), posix.cpu_seconds(gw.worker)
  local flood = process.start({ "taskset", "-c", servers.OTHER_CORE, "nice", "luajit", "spec/support/flood.lua",
    gw.port, kind, SECONDS, 1e9, "/1m" })
  local times, most, looked = {}, before, posix.now()
  while flood:is_running() do
    local start = posix.now()
    assert(assert(client:request({ path = "/128" })).status == 200)
    times[#times + 1] = (posix.now() - start) * 1000
    if posix.now() - looked > 0.1 then
      looked, most = posix.now(), math.max(most, measure.private_bytes(gw.worker))
    end
    posix.pause(PAUSE)
  end
  client:close()
  cpu = posix.cpu_seconds(gw.worker) - cpu
  local out = flood:stdout()
  local result = assert(out ~= "" and cjson.decode(out), flood:stderr())
  flood:forget()
  table.sort(times)
  local function at(share) return times[math.max(1, math.ceil(#times * share))] end
  print(("%-18s %7d of %-7d %8.3f %10.0f %7.2f %7.2f %7.2f %6.1f %5.0f  %s"):format(kind, result.closed,
    result.connections, result.longest, result.frames / SECONDS, at(0.5), at(0.99), at(1), (most - before) / 1e6,
    cpu / SECONDS * 100, names(result.codes)))
  return at(0.99) <= LIMIT_MS and result.closed > 0
end

local origin = servers.origin()
local gw = servers.sluice({ _format_version = "3.0", gateway = { limits = { send_timeout = 2000 } },
  services = { { name = "origin", url = "http://127.0.0.1:" .. origin.port,
    routes = { { name = "all", paths = { "/" }, strip_path = false } } } } }, { http2 = true })
print(("%-18s %18s %8s %10s %7s %7s %7s %6s %5s"):format("flood", "cut off", "longest", "frames/s", "p50", "p99",
  "most", "MB", "CPU%"))
local all = true
for _, kind in ipairs(#arg > 0 and arg or KINDS) do all = run(gw, kind) and all end
print("latency of another connection in ms (limit " .. LIMIT_MS .. " at p99); MB that the worker grew by")
servers.stop(gw)
servers.stop(origin)
os.exit(all and 0 or 1, true)
