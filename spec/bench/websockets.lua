-- SPDX-License-Identifier: Apache-2.0
-- Resident memory of an idle WebSocket, each after a message has been echoed through it:
--   luajit spec/bench/websockets.lua [COUNT]   10,000 unless told
-- as a tunnel, with frame phases, and with frame phases and compression. Two workers share them, for one may not open
-- as many files as both sides of 10,000 connections need.
local gateway = require "spec.support.gateway"
local measure = require "spec.bench.measure"
local upstream = require "spec.support.upstream"
local websocket = require "spec.support.websocket"

local COUNT = tonumber(arg[1]) or 10000
local WARM, MESSAGES, LIMIT, SERVICES = 400, 20000, 4096, 20

local LOOK = [[
local look = { version = "1.0.0", priority = 1 }
function look.ws_client_frame(conf, exchange, frame) end
function look.ws_upstream_frame(conf, exchange, frame) end
return look
]]

-- What waits for the collector is no connection's: it goes before memory is looked at.
local COLLECT = [[
local collect = { version = "1.0.0", priority = 1 }
function collect.access(conf, exchange)
  collectgarbage()
  collectgarbage()
  exchange.response:exit(200)
end
return collect
]]

local services, routes = {}, {}
for i = 1, SERVICES do
  services[i] = upstream.start(function(_, connection) require("spec.support.websocket").echo(connection) end)
  routes[i] = ([[
- name: echo%d
  url: http://127.0.0.1:%d
  read_timeout: 600000
  routes:
  - { name: tunnel%d, paths: [/tunnel/%d/] }
  - { name: read%d, paths: [/read/%d/], plugins: [{ name: look }] }]]):format(i, services[i].port, i, i, i, i)
end

local function bytes_of(gw)
  local sum = 0
  for _ = 1, 30 do assert(gw:get("/collect").status == 200) end -- each worker gets some of them
  for _, pid in ipairs(gw:workers()) do sum = sum + measure.private_bytes(pid) end
  return sum
end

local function figure(name, open)
  local gw = gateway.start('_format_version: "3.0"\nservices:\n' .. table.concat(routes, "\n")
    .. "\nroutes:\n- { name: collect, paths: [/collect], plugins: [{ name: collect }] }\n",
    { workers = 2, plugins = { look = LOOK, collect = COLLECT }, env = { SLUICE_TRUSTED_PLUGINS = "collect" } })
  local peers = {}
  local function more(count)
    for _ = 1, count do
      local peer = assert(open(gw, #peers % SERVICES + 1))
      peer:send("hello")
      assert(select(2, peer:receive()) == "hello")
      peers[#peers + 1] = peer
    end
  end
  more(WARM) -- what is allocated once, and the room that garbage takes between two collections
  for i = 1, MESSAGES do
    local peer = peers[i % 20 + 1]
    peer:send("hello")
    peer:receive()
  end
  local before = bytes_of(gw)
  more(COUNT)
  local each = (bytes_of(gw) - before) / COUNT
  print(("an idle WebSocket, %s: %.0f bytes resident (%d of them; limit %d)"):format(name, each, COUNT, LIMIT))
  for _, peer in ipairs(peers) do peer:hang_up() end
  gw:stop()
  return each <= LIMIT
end

local good = figure("tunnel", function(gw, i) return (websocket.connect(gw.port, "/tunnel/" .. i .. "/")) end)
good = figure("frame phases", function(gw, i) return (websocket.connect(gw.port, "/read/" .. i .. "/")) end) and good
good = figure("frame phases, compressed", function(gw, i)
  return (websocket.connect_packed(gw.port, "/read/" .. i .. "/"))
end) and good
for _, service in ipairs(services) do service:stop() end
os.exit(good and 0 or 1)
