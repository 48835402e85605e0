-- SPDX-License-Identifier: Apache-2.0
-- What reloads cost the traffic:
--   luajit spec/bench/reload.lua stall    one of 10,000 routes changes under load: until effective, worst stall
--   luajit spec/bench/reload.lua storm    100,000 requests at full load through 50 reloads: failures, mixtures, closes
local cjson = require "cjson"
local http = require "spec.support.http"
local measure = require "spec.bench.measure"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local ROUTES, CHANGES = 10000, 10
local RELOADS, REQUESTS, IDLE = 50, 100000, 100

-- Whether each of the connections still answers.
local function count_closed(connections)
  local closed = 0
  for _, client in ipairs(connections) do
    local response = client:request({ path = "/idle" })
    if not response then closed = closed + 1 end
    client:close()
  end
  return closed
end

local function open_idle(gw, count)
  local connections = {}
  for index = 1, count do
    connections[index] = assert(http.connect(gw.port))
    assert(connections[index]:request({ path = "/idle" }))
  end
  return connections
end

local function background_load(gw, arguments, path)
  local command = { "taskset", "-c", servers.OTHER_CORE, unpack(arguments) }
  command[#command + 1] = "http://127.0.0.1:" .. gw.port .. path
  return process.start(command)
end

-- ---- stall ----

local function routes_yaml(origin, changed)
  local lines = { '_format_version: "3.0"', "services:", "- name: origin", "  url: http://127.0.0.1:" .. origin.port,
    "  routes:" }
  for index = 1, ROUTES do
    lines[#lines + 1] = ("  - {name: r%d, strip_path: false, paths: [/r%d/]}"):format(index, index)
  end
  lines[#lines + 1] = "- name: changed\n  url: http://127.0.0.1:" .. origin.port .. "\n  routes:"
  lines[#lines + 1] = ("  - {name: changed, strip_path: false, paths: [/changed-%d]}"):format(changed)
  return table.concat(lines, "\n") .. "\n"
end

-- Sends a request after another on one connection and notes the worst wait, until `path` is found or time is up.
local function probe_until_found(client, path, seconds)
  local start, worst = posix.now(), 0
  while true do
    local before = posix.now()
    local response = assert(client:request({ path = path }))
    local now = posix.now()
    worst = math.max(worst, now - before)
    if response.status == 200 then return now - start, worst end
    if now - start > seconds then return nil, worst end
    posix.pause(0.001)
  end
end

-- The longest that the worker's loop kept everybody waiting since the reload began, in milliseconds.
local function longest_turn(gw)
  local _, out = gw:command("status", "--json")
  return cjson.decode(out).workers[1].longest_turn_us / 1000
end

local function stall()
  local origin = servers.origin()
  local gw = servers.sluice(routes_yaml(origin, 0))
  local idle = open_idle(gw, IDLE)
  local load = background_load(gw, { "h2load", "--h1", "-t1", "-c20", "--duration=" .. CHANGES * 2, "--rps=250" },
    "/r77/")
  local client = assert(http.connect(gw.port))
  local times, stalls, turns = {}, {}, {}
  for change = 1, CHANGES do
    gw:write_config(routes_yaml(origin, change))
    local seconds, worst = probe_until_found(client, "/changed-" .. change, 10)
    assert(seconds, "not effective within 10 s: " .. gw:log())
    times[change], stalls[change], turns[change] = seconds * 1000, worst * 1000, longest_turn(gw)
  end
  load:wait(CHANGES * 2 + 10)
  table.sort(times)
  table.sort(stalls)
  table.sort(turns)
  print(("one of %d routes changed, %d times, under 5000 requests/s"):format(ROUTES, CHANGES))
  print(("effective after  median %.0f ms, greatest %.0f ms (limit 300)"):format(measure.median(times), times[CHANGES]))
  print(("worst turn of the loop  median %.1f ms, greatest %.1f ms (limit 5)"):format(measure.median(turns),
    turns[CHANGES]))
  print(("worst wait of a request  median %.1f ms, greatest %.1f ms"):format(measure.median(stalls), stalls[CHANGES]))
  print(("connections closed  %d of %d idle"):format(count_closed(idle), IDLE))
  print(load:stdout():match("requests:[^\n]*") or load:stderr())
  load:forget()
  servers.stop(gw)
  servers.stop(origin)
end

-- ---- storm ----

-- The plugin stamps each response twice, in two phases, with its code's and its configuration's number.
local function stamp_code(number)
  return ([[
local stamp = { version = "1.0.%d", priority = 10 }
function stamp.access(conf, exchange) exchange.ctx.stamp = "%d-" .. conf.number end
function stamp.header_filter(conf, exchange)
  exchange.response:set_header("X-Early", exchange.ctx.stamp or "none")
  exchange.response:set_header("X-Late", "%d-" .. conf.number)
end
return stamp
]]):format(number, number, number)
end

local stamp_schema = [[
return { number = { type = "integer", default = 0 } }
]]

-- Another plugin carries the configuration's number too: both must be of one generation.
local function storm_config(origin, number)
  return { _format_version = "3.0", gateway = { limits = { keepalive_timeout = 600000 } },
    services = { { name = "origin", url = "http://127.0.0.1:" .. origin.port,
      routes = { { name = "all", paths = { "/" }, strip_path = false } } } },
    plugins = { { name = "stamp", config = { number = number } },
      { name = "response-transformer", config = { add = { headers = { "X-Number:" .. number } } } } } }
end

local function mixed(response)
  local early, late = response.headers["x-early"], response.headers["x-late"]
  return early ~= late or (late or ""):match("%d+$") ~= response.headers["x-number"]
end

local function storm()
  local origin = servers.origin()
  local plugin = { ["handler.lua"] = stamp_code(0), ["schema.lua"] = stamp_schema }
  local gw = servers.sluice(storm_config(origin, 0), { plugins = { stamp = plugin } })
  local idle = open_idle(gw, IDLE)
  local load = background_load(gw, { "wrk", "-t1", "-c64", "-d600s" }, "/128")
  local client = assert(http.connect(gw.port))
  local failed, mixtures, last, seen = 0, 0, nil, 0
  for number = 1, REQUESTS do
    if number % (REQUESTS / RELOADS) == 0 then
      local reload = number / (REQUESTS / RELOADS)
      if reload % 2 == 0 then gw:write_config(storm_config(origin, reload))
      else gw:write_plugin("stamp", { ["handler.lua"] = stamp_code(reload) }) end
    end
    local response = client:request({ path = "/128" })
    if not response or response.status ~= 200 then
      failed = failed + 1
      client = assert(http.connect(gw.port))
    else
      if mixed(response) then mixtures = mixtures + 1 end
      if response.headers["x-late"] ~= last then seen, last = seen + 1, response.headers["x-late"] end
    end
  end
  load:signal(posix.SIGINT)
  load:wait(10)
  print(("%d requests on a checked connection through %d reloads, full load beside them"):format(REQUESTS, RELOADS))
  print(("generations seen %d, failed %d, mixtures %d, idle connections closed %d of %d"):format(seen, failed, mixtures,
    count_closed(idle), IDLE))
  print(load:stdout())
  load:forget()
  servers.stop(gw)
  servers.stop(origin)
end

local scripts = { stall = stall, storm = storm }
local script = scripts[arg[1]] or error("usage: luajit spec/bench/reload.lua stall|storm")
script()
