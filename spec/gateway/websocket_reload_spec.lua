-- SPDX-License-Identifier: Apache-2.0
-- What becomes of open WebSockets when their route changes or goes: kept, drained or cut, as gateway.websocket says.
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local upstream = require "spec.support.upstream"
local websocket = require "spec.support.websocket"

local LOOK = [[
local sluice = require "sluice"
local look = { version = "1.0.0", priority = 10 }
function look.ws_client_frame(conf, exchange, frame)
  if frame.data == "go on" then sluice.counters.set("go on", 1) end
  if frame.data ~= "wait" then return end
  sluice.log.notice("a message waits")
  repeat sluice.sleep(0.02) until sluice.counters.get("go on")
end
function look.ws_upstream_frame() end
return look
]]

local CONFIG = [[
_format_version: "3.0"
gateway: { websocket: { on_reload: %s, drain_timeout: %d } }
services:
- name: echo
  url: http://127.0.0.1:%d
  routes:
  - { name: read, paths: [/read], plugins: [{ name: look }], tags: [%s] }
  - { name: tunnel, paths: [/tunnel], tags: [%s] }
%s
]]
local OTHER = "  - { name: other, paths: [/other], plugins: [{ name: look }] }\n"

describe("an open WebSocket at a reload", function()
  local echo, gw, peers

  setup(function()
    echo = upstream.start(function(_, connection) require("spec.support.websocket").echo(connection) end)
  end)
  teardown(function() echo:stop() end)

  local function config(mode, tag, rest, timeout)
    return CONFIG:format(mode, timeout or 10000, echo.port, tag, tag, rest)
  end

  local function start(mode, timeout)
    gw, peers = gateway.start(config(mode, "one", OTHER, timeout), { plugins = { look = LOOK } }), {}
    for _, name in ipairs { "read", "tunnel", "other" } do
      peers[name] = assert(websocket.connect(gw.port, "/" .. name))
      peers[name]:send("hello")
      assert.same({ "text", "hello" }, { peers[name]:receive() })
    end
  end

  local function reload(mode, tag, rest, timeout)
    gw:write_config(config(mode, tag, rest, timeout))
    assert.equal(0, (gw:command("reload")))
  end

  local function still_echoes(peer)
    peer:send("still here")
    assert.same({ "text", "still here" }, { peer:receive() })
  end

  after_each(function()
    for _, peer in pairs(peers) do peer:hang_up() end
    gw:stop()
  end)

  it("is kept unless told otherwise", function()
    start("keep")
    reload("keep", "two", "")
    for _, peer in pairs(peers) do still_echoes(peer) end
  end)

  it("is drained with 1001, where its route changed or went, and kept where it did not", function()
    start("drain")
    reload("drain", "two", OTHER)
    for _, name in ipairs { "read", "tunnel" } do
      assert.same({ "close", 1001, "" }, { peers[name]:receive() }, name)
      peers[name]:close(1001)
      assert.is_true(peers[name]:is_ended(), name)
    end
    still_echoes(peers.other)
    reload("drain", "two", "")
    assert.same({ "close", 1001, "" }, { peers.other:receive() })
  end)

  it("is drained behind the message that has begun", function()
    start("drain")
    for _, name in ipairs { "read", "tunnel" } do peers[name]:send_frame(1, "first ", { fin = false }) end
    peers.other:send("wait")
    gw:wait_log("a message waits")
    reload("drain", "two", "")
    for _, name in ipairs { "read", "tunnel" } do
      -- To the client nothing is under way.
      assert.same({ "close", 1001, "" }, { peers[name]:receive() }, name)
      peers[name]:send_frame(0, "last")
      assert.is_true(peers[name]:is_ended(), name)
    end
    assert.same({ "close", 1001, "" }, { peers.other:receive() })
    peers.new = assert(websocket.connect(gw.port, "/read"))
    peers.new:send("go on")
    assert.same({ "text", "go on" }, { peers.new:receive() })
  end)

  it("is drained for no longer than that may take", function()
    start("drain", 300)
    for _, name in ipairs { "read", "tunnel" } do peers[name]:send_frame(1, "never ends", { fin = false }) end
    reload("drain", "two", OTHER, 300)
    for _, name in ipairs { "read", "tunnel" } do
      assert.same({ "close", 1001, "" }, { peers[name]:receive() }, name)
      assert.is_true(peers[name]:is_ended(2), name)
    end
    still_echoes(peers.other)
  end)

  it("is cut at once when told so", function()
    start("cut")
    reload("cut", "two", OTHER)
    assert.same({ "close", 1001, "" }, { peers.read:receive() })
    assert.is_true(peers.read:is_ended())
    assert.is_true(peers.tunnel:is_ended())
    still_echoes(peers.other)
  end)

  it("outlives a generation whose routes are the same, and is compared with the next", function()
    start("drain")
    reload("drain", "one", OTHER .. "  - { name: new, paths: [/new] }\n")
    reload("drain", "one", OTHER)
    for _, peer in pairs(peers) do still_echoes(peer) end
    reload("drain", "two", OTHER)
    assert.same({ "close", 1001, "" }, { peers.read:receive() })
  end)

  it("hears of a worker's end what it would hear of its route's, when its messages are read", function()
    start("keep")
    gw.process:signal(posix.SIGTERM)
    for _, name in ipairs { "read", "other" } do
      assert.same({ "close", 1001, "" }, { peers[name]:receive() }, name)
    end
  end)
end)
