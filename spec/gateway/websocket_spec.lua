-- SPDX-License-Identifier: Apache-2.0
-- WebSockets through the gateway: plugins see whole messages of both sides, and what they make of them arrives; a route
-- without frame phases stays a tunnel.
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"
local websocket = require "spec.support.websocket"

-- Does to each message what the text in it asks for; `side` says whose messages are meant.
local ACTOR = [[
local sluice = require "sluice"
local actor = { version = "1.0.0", priority = 10 }

local function act(conf, exchange, frame, side, name)
  if conf.note then sluice.log.notice(("seen %s %s <%s> %s on %s"):format(name, frame.type, frame.data:sub(1, 40),
    tostring(frame.status), exchange.request:get_path())) end
  local word, rest = frame.data:match("^" .. name .. " (%S+) ?(.*)$")
  if not word then return end
  if word == "upper" then frame:set_data(rest:upper())
  elseif word == "drop" then frame:drop()
  elseif word == "kong" then
    local data, kind = side:get_frame()
    side:set_frame_data(kind .. ":" .. data)
  elseif word == "close" then side:close(4001, rest, 4002, "other")
  elseif word == "sleep" then
    sluice.sleep(0.2)
    frame:set_data("slept " .. rest)
  elseif word == "grow" then frame:set_data(("x"):rep(tonumber(rest)))
  elseif word == "raise" then error("by request")
  elseif word == "loop" then while true do end
  elseif word == "wrong" then frame:set_data("\255")
  elseif word == "set" then frame.data = "x"
  elseif word == "status" then frame:set_status(4444)
  elseif word == "foreign" then
    local other = name == "client" and exchange.websocket.upstream or exchange.websocket.client
    local ok, err = pcall(other.get_frame, other)
    frame:set_data(tostring(ok) .. " " .. tostring(err))
  elseif word == "exit" then exchange.response:exit(200)
  end
end

function actor.ws_client_frame(conf, exchange, frame)
  act(conf, exchange, frame, exchange.websocket.client, "client")
end
function actor.ws_upstream_frame(conf, exchange, frame)
  act(conf, exchange, frame, exchange.websocket.upstream, "upstream")
end
function actor.log(conf, exchange)
  sluice.log.notice("ended " .. exchange.request:get_path())
end
return actor
]]

local BOUND = [[
local bound = { version = "1.0.0", priority = 5 }
function bound.access(conf, exchange)
  exchange.websocket.client:set_max_payload_size(1000)
  exchange.websocket.upstream:set_max_payload_size(2000)
end
return bound
]]

-- What of the handshake is there once the tunnel is: in a frame phase, and at the end.
local RECALL = [[
local sluice = require "sluice"
local recall = { version = "1.0.0", priority = 5 }
local function all(exchange)
  local request = exchange.request
  return table.concat({ request:get_method(), request:get_path(), request:get_raw_query(), request:get_header("x-mine"),
    request:get_host(), request:get_uri_captures().named.room, exchange.router:get_route().name }, " ")
end
function recall.access(conf, exchange) exchange.ctx.before = all(exchange) end
function recall.header_filter(conf, exchange) exchange.response:set_header("X-Added", "1") end
function recall.ws_client_frame(conf, exchange, frame)
  if frame.type == "text" then frame:set_data(exchange.ctx.before .. "|" .. all(exchange)) end
end
function recall.log(conf, exchange)
  sluice.log.notice(("recalled %s; %s %s %s"):format(all(exchange), exchange.response:get_status(),
    exchange.response:get_header("x-added"), exchange.service.response:get_header("upgrade")))
end
return recall
]]

local function echo(_, connection)
  require("spec.support.websocket").echo(connection)
end

-- What else a service may do; its path says it.
local function strange(request, connection)
  local ws = require "spec.support.websocket"
  local what = request.target:match("/strange/(%w+)")
  if what == "other" then
    connection:send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
  elseif what == "extension" then
    ws.accept(connection, { ["Sec-WebSocket-Extensions"] = "x-unasked" })
  elseif what == "plain" then
    connection:echo()
  elseif what == "masked" then
    ws.accept(connection):send_frame(1, "a", { mask = "abcd" })
    connection:receive(5)
  elseif what == "gone" then
    ws.accept(connection):send("upstream sleep last")
    connection:close()
  elseif what == "flood" then
    local peer = ws.accept(connection)
    for _ = 1, 400 do peer:send(("f"):rep(100000), "binary") end
    peer:send("done")
    connection:receive(30)
  elseif what == "slow" then -- reads nothing until it is told to by time
    local peer = ws.accept(connection)
    connection:sleep(1)
    local count = 0
    while true do
      local kind, data = peer:receive(20)
      if kind ~= "binary" then break end
      count = count + #data
    end
    peer:send(tostring(count))
    connection:receive(5)
  elseif what == "quiet" then -- answers a close, and ends nothing
    local peer = ws.accept(connection)
    peer:receive(20)
    peer:close(1000)
    connection:receive(60)
  end
end

describe("a WebSocket", function()
  local gw, echoing, odd

  setup(function()
    echoing, odd = upstream.start(echo), upstream.start(strange)
    gw = gateway.start(([[
_format_version: "3.0"
gateway: { plugin_cpu_budget_ms: %d }
services:
- name: echo
  url: http://127.0.0.1:%d
  read_timeout: 20000
  routes:
  - { name: watched, paths: [/watched], plugins: [{ name: actor, config: { note: true } }] }
  - { name: tunnel, paths: [/tunnel] }
  - { name: bound, paths: [/bound], plugins: [{ name: bound }] }
  - { name: recall, paths: ["~/recall/(?<room>[a-z]+)$"], plugins: [{ name: recall }] }
  - { name: only, paths: [/only], protocols: [ws, wss] }
  - { name: secure, paths: [/secure], protocols: [wss] }
  - { name: both, paths: [/both], plugins: [{ name: actor }, { name: bound }] }
- name: as-ws
  url: ws://127.0.0.1:%d
  routes:
  - { name: as-ws, paths: [/as-ws], plugins: [{ name: actor }] }
- name: odd
  url: http://127.0.0.1:%d/strange
  read_timeout: 20000
  routes:
  - { name: strange, paths: [/strange], plugins: [{ name: actor }] }
]]):format(50 * process.slowness, echoing.port, echoing.port, odd.port), { plugins = {
      actor = { ["handler.lua"] = ACTOR, ["schema.lua"] = 'return { note = { type = "boolean", default = false } }' },
      bound = { ["handler.lua"] = BOUND }, recall = { ["handler.lua"] = RECALL } } })
  end)
  teardown(function()
    gw:stop()
    echoing:stop()
    odd:stop()
  end)

  local peers = {}

  local function note(peer, response)
    peers[#peers + 1] = assert(peer, response)
    return peer, response
  end

  local function open(path, headers)
    return note(websocket.connect(gw.port, path or "/watched/a", headers))
  end

  after_each(function()
    for _, peer in ipairs(peers) do peer:hang_up() end
    peers = {}
  end)

  local function said(peer, text, kind)
    peer:send(text, kind)
    return select(2, assert(peer:receive()))
  end

  local function wait_ended(path)
    gw:wait_log("ended " .. path)
  end

  describe("with frame phases", function()
    it("carries messages of every kind and size", function()
      local peer = open()
      for _, size in ipairs { 0, 1, 125, 126, 65535, 65536, 200000 } do
        for _, kind in ipairs { "text", "binary" } do
          local text = ("x"):rep(size)
          peer:send(text, kind)
          assert.same({ kind, text }, { peer:receive() })
        end
      end
      peer:send("p", "ping")
      assert.same({ "pong", "p" }, { peer:receive() })
      peer:close(1000, "bye")
      assert.same({ "close", 1000, "bye" }, { peer:receive() })
      assert.is_true(peer:is_ended())
    end)

    it("shows plugins whole messages, with their types, and closes with their codes", function()
      local peer = open("/watched/seen")
      peer:send_frame(1, "one ", { fin = false })
      peer:send_frame(9, "between")
      peer:send_frame(0, "two")
      assert.same({ "pong", "between" }, { peer:receive() })
      assert.same({ "text", "one two" }, { peer:receive() })
      peer:close(4321, "why")
      assert.same({ "close", 4321, "why" }, { peer:receive() })
      gw:wait_log("seen client ping <between> nil on /watched/seen")
      gw:wait_log("seen client text <one two> nil on /watched/seen")
      gw:wait_log("seen upstream text <one two> nil on /watched/seen")
      gw:wait_log("seen client close <why> 4321 on /watched/seen")
      wait_ended("/watched/seen")
    end)

    it("lets plugins change messages of either side", function()
      local peer = open()
      assert.equal("SHOUT", said(peer, "client upper shout"))
      assert.equal("WHISPER", said(peer, "upstream upper whisper"))
      assert.equal("text:client kong x", said(peer, "client kong x"))
      assert.equal(300000, #said(peer, "client grow 300000"))
      assert.equal(70000, #said(peer, "upstream grow 70000"))
    end)

    it("lets plugins drop messages", function()
      local peer = open()
      peer:send("client drop")
      peer:send("upstream drop")
      assert.equal("after", said(peer, "after"))
    end)

    it("lets plugins close, each side with its own code", function()
      local peer = open("/watched/closed")
      peer:send("client close enough")
      assert.same({ "close", 4001, "enough" }, { peer:receive() })
      assert.is_true(peer:is_ended())
      peer = open("/watched/closed")
      peer:send("upstream close enough")
      assert.same({ "close", 4002, "other" }, { peer:receive() })
      wait_ended("/watched/closed")
    end)

    it("keeps the order of each side while a plugin waits, and lets the other side go on", function()
      local peer = open()
      peer:send("upstream sleep 1")
      peer:send("2")
      peer:send("client sleep 3")
      peer:send("4")
      for _, expected in ipairs { "slept 1", "2", "slept 3", "4" } do
        assert.same({ "text", expected }, { peer:receive() })
      end
    end)

    it("closes with 1011 when a plugin fails, and says which, where and why", function()
      for _, word in ipairs { "raise", "wrong", "set", "exit" } do
        local peer = open("/watched/fails")
        peer:send("client " .. word)
        assert.same({ "close", 1011, "" }, { peer:receive() }, word)
        assert.is_true(peer:is_ended())
      end
      gw:wait_log("plugin failed.*plugin=actor.*phase=ws_client_frame.*at=.*handler.lua:19.*by request")
      gw:wait_log("plugin failed.*handler.lua:21.*frame:set_data: a text must be UTF%-8")
      gw:wait_log("plugin failed.*handler.lua:22.*use frame:set_data")
      gw:wait_log("plugin failed.*exit cannot be called in phase ws_client_frame")
      local peer = open()
      peer:send("upstream raise")
      assert.same({ "close", 1011, "" }, { peer:receive() })
    end)

    it("stops a plugin that passes its CPU budget", function()
      local peer = open()
      peer:send("client loop")
      assert.same({ "close", 1011, "" }, { peer:receive() })
      gw:wait_log("passed its CPU budget")
    end)

    it("offers each side's frame in that side's phase only", function()
      local answer = said(open(), "client foreign")
      assert.matches("^false exchange.websocket.upstream:get_frame cannot be called in phase ws_client_frame", answer)
    end)

    it("lets a plugin change the code of a close", function()
      local peer = open()
      peer:close(4000, "client status")
      assert.same({ "close", 4444, "client status" }, { peer:receive() })
    end)

    it("runs phase log when a client has gone while a plugin waited", function()
      local peer = open("/watched/left")
      peer:send("client sleep x")
      peer:hang_up()
      wait_ended("/watched/left")
    end)

    it("passes on what a service had said before it left", function()
      local peer = open("/strange/gone")
      assert.same({ "text", "slept last" }, { peer:receive() })
      assert.is_true(peer:is_ended())
    end)

    it("ends by itself when a service answers a close and leaves it at that", function()
      local peer = open("/strange/quiet")
      peer:close(1000)
      assert.same({ "close", 1000, "" }, { peer:receive() })
      assert.is_true(peer:is_ended(10))
    end)
  end)

  it("knows its request and its response as long as it lasts", function()
    local peer = open("/recall/lobby?a=1", { ["X-Mine"] = "yes" })
    local known = "GET /recall/lobby a=1 yes 127.0.0.1 lobby recall"
    assert.equal(known .. "|" .. known, said(peer, "what do you know"))
    peer:close(1000)
    assert.equal("close", (peer:receive()))
    gw:wait_log("recalled " .. known:gsub("%p", "%%%0") .. "; 101 1 websocket")
  end)

  describe("that breaks the rules", function()
    it("is closed with the reason, and the service hears that its peer goes", function()
      local cases = {
        { "a frame without mask", 1002, function(peer) peer:send_frame(1, "a", { mask = false }) end },
        { "text that is no UTF-8", 1007, function(peer) peer:send_frame(1, "\255") end },
        { "a message too large", 1009, function(peer) peer:send_frame(2, "a", { length = 1048577 }) end },
        { "reserved bits", 1002, function(peer) peer:send_frame(2, "a", { rsv = 4 }) end },
      }
      for _, case in ipairs(cases) do
        local peer = open()
        case[3](peer)
        local kind, code = peer:receive()
        assert.same({ "close", case[2] }, { kind, code }, case[1])
        assert.is_true(peer:is_ended())
      end
    end)

    it("on the service's side ends without blame on the client's", function()
      local peer = open("/strange/masked")
      assert.same({ "close", 1001, "" }, { peer:receive() })
    end)

    it("does not take the next connection with it", function()
      local many = {}
      for i = 1, 20 do many[i] = open() end
      for i = 1, 20, 2 do many[i]:send_bytes("\255\255\255\255") end
      for i = 2, 20, 2 do assert.equal("still", said(many[i], "still")) end
    end)
  end)

  describe("in its handshake", function()
    it("may not become another protocol, which plugins would not see", function()
      local headers = { Connection = "Upgrade", Upgrade = "echo" }
      assert.equal(200, gw:request({ path = "/strange/plain", headers = headers }).status)
      local _, response = websocket.connect(gw.port, "/strange/other")
      assert.equal(502, response.status)
    end)

    it("may not agree to an extension that was not offered", function()
      local _, response = websocket.connect(gw.port, "/strange/extension")
      assert.equal(502, response.status)
      gw:wait_log("agreed to a WebSocket extension that was not offered")
    end)

    it("does not pass on extensions that the gateway does not know", function()
      local peer, response = open("/watched/a", { ["Sec-WebSocket-Extensions"] = "x-other" })
      assert.is_nil(response.headers["sec-websocket-extensions"])
      assert.equal("a", said(peer, "a"))
      response = select(2, open("/tunnel", { ["Sec-WebSocket-Extensions"] = "permessage-deflate" }))
      assert.matches("permessage%-deflate", response.headers["sec-websocket-extensions"])
    end)

    it("answers as the service does when that does not switch", function()
      local _, response = websocket.connect(gw.port, "/strange/plain")
      assert.equal(200, response.status)
    end)
  end)

  describe("with compression", function()
    local function open_packed(offer, bits)
      return note(websocket.connect_packed(gw.port, "/watched/packed", offer, bits))
    end

    it("shows plugins plain messages and keeps the wire compressed", function()
      local peer, response = open_packed()
      assert.equal("permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        response.headers["sec-websocket-extensions"])
      for _, text in ipairs { "", "short", ("long "):rep(20000) } do
        peer:send(text)
        assert.same({ "text", text }, { peer:receive() })
        assert.is_true(peer.was_packed)
      end
      peer:send("client upper " .. ("a"):rep(1000))
      assert.same({ "text", ("A"):rep(1000) }, { peer:receive() })
      assert.is_true(peer.was_packed)
      peer:send("client upper short")
      assert.same({ "text", "SHORT" }, { peer:receive() })
      assert.is_false(peer.was_packed)
      peer.bits = nil
      peer:send("plain")
      assert.same({ "text", "plain" }, { peer:receive() })
      assert.is_false(peer.was_packed)
    end)

    it("keeps to the window that the client asks for", function()
      local peer = open_packed("server_max_window_bits=9; client_max_window_bits")
      assert.equal(9, peer.window)
      local pieces = {}
      for i = 1, 3000 do pieces[i] = ("%d %x,"):format(i % 700, i * 7919) end
      local text = table.concat(pieces)
      peer:send(text .. text)
      assert.same({ "text", text .. text }, { peer:receive() })
      assert.is_true(peer.was_packed)
    end)

    it("bounds what a message unpacks to", function()
      local peer = open_packed()
      peer:send(("\0"):rep(1048577), "binary")
      local kind, code = peer:receive()
      assert.same({ "close", 1009 }, { kind, code })
    end)
  end)

  describe("bounded by a plugin", function()
    it("has its messages read without any frame phase", function()
      local peer = open("/bound")
      assert.equal(1000, #said(peer, ("x"):rep(1000)))
      peer:send(("x"):rep(1001))
      assert.same({ "close", 1009, "Payload Too Large" }, { peer:receive() })
    end)

    it("holds each side to its own bound", function()
      local peer = open("/both")
      assert.equal(2000, #said(peer, "client grow 2000"))
      peer:send("client grow 2001")
      assert.same({ "close", 1001, "" }, { peer:receive() })
    end)
  end)

  describe("under pressure", function()
    local function worker_rss()
      return tonumber(process.read_file("/proc/" .. gw:workers()[1] .. "/status"):match("VmRSS:%s*(%d+)"))
    end

    it("leaves a service unread while its client does not read", function()
      local before = worker_rss()
      local peer = open("/strange/flood")
      process.wait_until(function() return peer:read_frame() end, 5, "the first frame")
      local most = 0
      for _ = 1, 10 do
        posix.pause(0.05)
        most = math.max(most, worker_rss() - before)
      end
      assert.is_true(most < 20000, "grew by " .. most .. " KB")
      local count = 1
      while true do
        local kind, data = peer:receive(20)
        if kind == "text" then
          assert.equal("done", data)
          break
        end
        count = count + 1
      end
      assert.equal(400, count)
    end)

    it("leaves a client unread while its service does not read", function()
      local peer = open("/strange/slow")
      local piece = ("s"):rep(100000)
      for _ = 1, 300 do assert(peer:send(piece, "binary")) end
      peer:send("end")
      assert.same({ "text", tostring(300 * 100000) }, { peer:receive(30) })
    end)

    it("takes thousands of small messages in one piece, in order", function()
      local peer = open("/both")
      local frames = {}
      for i = 1, 5000 do frames[i] = websocket.frame(1, tostring(i), { mask = "abcd" }) end
      peer:send_bytes(table.concat(frames))
      for i = 1, 5000 do assert.equal(tostring(i), select(2, peer:receive())) end
    end)

    it("takes messages byte by byte", function()
      local peer = open()
      local bytes = websocket.frame(1, "slowly", { mask = "abcd" })
      for i = 1, #bytes do peer:send_bytes(bytes:sub(i, i)) end
      assert.same({ "text", "slowly" }, { peer:receive() })
    end)
  end)

  describe("by protocols", function()
    it("has routes that take nothing else", function()
      assert.equal("a", said(open("/only"), "a"))
      local response = gw:get("/only")
      assert.same({ 426, "websocket", "Upgrade" },
        { response.status, response.headers.upgrade, response.headers.connection })
      assert.equal("a", said(note(websocket.connect(gw.tls_port, "/secure", nil, { tls = {} })), "a"))
      assert.equal(426, select(2, websocket.connect(gw.port, "/secure")).status)
    end)

    it("has services that say so", function()
      assert.equal("UP", said(open("/as-ws"), "client upper up"))
    end)
  end)

  describe("without frame phases", function()
    it("is a tunnel: what passes is nobody's business", function()
      local peer = open("/tunnel")
      peer:send_frame(1, "half ", { fin = false })
      peer:send_frame(0, "message")
      assert.equal("half message", select(2, peer:receive()))
      assert.equal(3000000, #said(peer, ("x"):rep(3000000), "binary"))
    end)
  end)

  it("leaves nothing behind", function()
    process.wait_until(function() return echoing:stats().open <= 1 end, 10, "the end of all connections")
  end)
end)
