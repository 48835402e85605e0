-- SPDX-License-Identifier: Apache-2.0
-- How long single moments take, in milliseconds, median and worst of several:
--   luajit spec/bench/moments.lua saved    a saved plugin file until it answers (limit 300)
--   luajit spec/bench/moments.lua endless  `while true do end` until its 500 (budget 50, limit 100)
--   luajit spec/bench/moments.lua killed   kill -9 of a worker under load until a new one is answered (limit 100)
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local measure = require "spec.bench.measure"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local TIMES = 10

local function report(what, times, limit)
  table.sort(times)
  print(("%s: median %.1f ms, worst %.1f ms of %d (limit %d)"):format(what, measure.median(times), times[#times],
    #times, limit))
end

local function milliseconds(step)
  local start = posix.now()
  step()
  return (posix.now() - start) * 1000
end

local function start(origin, plugins, options)
  local list = {}
  for name in pairs(plugins) do list[#list + 1] = { name = name } end
  options = options or {}
  options.plugins = plugins
  return gateway.start({
    _format_version = "3.0",
    gateway = { plugin_cpu_budget_ms = 50 },
    services = { { name = "origin", url = "http://127.0.0.1:" .. origin.port,
      routes = { { name = "all", paths = { "/" }, strip_path = false } } } },
    plugins = list,
  }, options)
end

local function greeter(text)
  return ([[
    local greeter = { version = "1.0.0", priority = 10 }
    function greeter.access(_, exchange) exchange.response:exit(200, "%s") end
    return greeter
  ]]):format(text)
end

local scripts = {}

function scripts.saved(origin)
  local gw, times = start(origin, { greeter = greeter("0") }), {}
  local client = gw:connect()
  for number = 1, TIMES do
    gw:write_plugin("greeter", greeter(number))
    times[number] = milliseconds(function()
      process.wait_until(function() return client:request({}).body == tostring(number) end, 5, "the saved plugin")
    end)
  end
  gw:stop()
  report("a saved plugin is live after", times, 300)
end

function scripts.endless(origin)
  local gw, times = start(origin, { looping = [[
    local looping = { version = "1.0.0", priority = 10 }
    function looping.access(_, exchange)
      if exchange.request:get_path() == "/loop" then while true do end end
    end
    return looping
  ]] }), {}
  for number = 1, TIMES do
    local client = gw:connect()
    times[number] = milliseconds(function() assert(client:request({ path = "/loop" }).status == 500) end)
    client:close()
  end
  gw:stop()
  report("an endless loop is answered after", times, 100)
end

function scripts.killed(origin)
  local gw, times = start(origin, {}), {}
  local seconds = TIMES * 2
  local load = process.start({ "wrk", "-t1", "-c16", "-d" .. seconds .. "s",
    "http://127.0.0.1:" .. gw.port .. "/128" })
  for number = 1, TIMES do
    posix.kill(gw:workers()[1], posix.SIGKILL)
    times[number] = milliseconds(function() assert(http.get(gw.port, "/128").status == 200) end)
    posix.pause(1.5) -- a worker that dies again and again is started more slowly
  end
  load:wait(seconds + 10)
  print(load:stdout():match("[^\n]*Socket errors[^\n]*") or "  no socket errors", "of",
    load:stdout():match("%d+ requests"))
  gw:stop()
  report("after kill -9 a new connection is answered after", times, 100)
end

local script = scripts[arg[1]] or error("usage: luajit spec/bench/moments.lua saved|endless|killed", 0)
local origin = servers.origin()
script(origin)
servers.stop(origin)
