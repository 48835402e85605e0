-- SPDX-License-Identifier: Apache-2.0
-- What RFC 6455 and RFC 7692 demand of whoever receives, through a route whose messages are read: a list like that of
-- the Autobahn fuzzing client (sections 1 to 7, 9, 12, 13), with a service that echoes behind the gateway.
local bit = require "bit"
local gateway = require "spec.support.gateway"
local upstream = require "spec.support.upstream"
local websocket = require "spec.support.websocket"

local LOOK = [[
local look = { version = "1.0.0", priority = 1 }
function look.access(conf, exchange)
  exchange.websocket.client:set_max_payload_size(33554432)
  exchange.websocket.upstream:set_max_payload_size(33554432)
end
function look.ws_client_frame(conf, exchange, frame) return #frame.data end
look.ws_upstream_frame = look.ws_client_frame
return look
]]

describe("a WebSocket whose messages are read", function()
  local echo, gw, peer

  setup(function()
    echo = upstream.start(function(_, connection) require("spec.support.websocket").echo(connection) end)
    gw = gateway.start(([[
_format_version: "3.0"
services:
- { name: echo, url: "http://127.0.0.1:%d", routes: [{ name: all, paths: [/] }], plugins: [{ name: look }] }
]]):format(echo.port), { plugins = { look = LOOK } })
  end)
  teardown(function()
    gw:stop()
    echo:stop()
  end)
  before_each(function() peer = assert(websocket.connect(gw.port)) end)
  after_each(function() peer:hang_up() end)

  local function again()
    peer:hang_up()
    peer = assert(websocket.connect(gw.port))
  end

  -- Sends bytes in pieces of `size`, each a write of its own.
  local function chop(bytes, size)
    for at = 1, #bytes, size do peer:send_bytes(bytes:sub(at, at + size - 1)) end
  end

  local function frame(opcode, payload, options)
    options = options or {}
    options.mask = "\1\2\3\4"
    return websocket.frame(opcode, payload, options)
  end

  local function assert_echo(kind, data)
    local got, text = peer:receive(20)
    assert.equal(kind, got)
    assert.is_true(data == text, ("%d bytes sent, %s came"):format(#data, text and #text or "none"))
  end

  -- The connection ends with that code; what was good before it may or may not be echoed, for the service is elsewhere.
  local function assert_fails(code, note)
    local kind, found
    repeat kind, found = peer:receive() until kind == "close" or not kind
    assert.same({ "close", code }, { kind, found }, note)
    assert.is_true(peer:is_ended(), note)
  end

  local function assert_closes(code, reason)
    assert.same({ "close", code, reason }, { peer:receive() })
    assert.is_true(peer:is_ended())
  end

  it("echoes messages of every length (1.1, 1.2)", function()
    for _, kind in ipairs { "text", "binary" } do
      for _, length in ipairs { 0, 125, 126, 127, 128, 65535, 65536 } do
        peer:send(("*"):rep(length), kind)
        assert_echo(kind, ("*"):rep(length))
      end
    end
    chop(frame(1, ("*"):rep(65536)), 997)
    assert_echo("text", ("*"):rep(65536))
  end)

  it("answers pings and takes pongs that nobody asked for (2)", function()
    for _, payload in ipairs { "", "Hello", "\0\255\254\253\252\251\0\255", ("\254"):rep(125) } do
      peer:send(payload, "ping")
      assert_echo("pong", payload)
    end
    chop(frame(9, ("\254"):rep(125)), 1)
    assert_echo("pong", ("\254"):rep(125))
    peer:send("", "pong")
    peer:send("unsolicited", "pong")
    for i = 1, 10 do peer:send("payload " .. i, "ping") end
    for i = 1, 10 do assert_echo("pong", "payload " .. i) end
    peer:send_frame(9, ("\254"):rep(126))
    assert_fails(1002)
  end)

  it("fails for reserved bits, in data and control frames (3)", function()
    for rsv = 1, 7 do
      for _, opcode in ipairs { 1, 2, 8, 9 } do
        peer:send("before")
        chop(frame(opcode, opcode == 8 and "\3\232" or "a", { rsv = rsv }), rsv)
        assert_fails(1002, "bits " .. rsv .. " of opcode " .. opcode)
        again()
      end
    end
  end)

  it("fails for opcodes that mean nothing (4)", function()
    for _, opcode in ipairs { 3, 4, 5, 6, 7, 11, 12, 13, 14, 15 } do
      for _, payload in ipairs { "", "reserved opcode payload" } do
        peer:send_frame(opcode, payload)
        assert_fails(1002, "opcode " .. opcode)
        again()
      end
    end
  end)

  it("puts fragments together, however they are cut (5.3 to 5.8, 5.19, 5.20)", function()
    for _, size in ipairs { 1, 3, 10000 } do
      chop(frame(1, "fragment1", { fin = false }) .. frame(0, "fragment2"), size)
      assert_echo("text", "fragment1fragment2")
      chop(frame(1, "fragment1", { fin = false }) .. frame(9, "ping") .. frame(0, "fragment2"), size)
      assert_echo("pong", "ping")
      assert_echo("text", "fragment1fragment2")
      local bytes, text = frame(2, "f0", { fin = false }), "f0"
      for i = 1, 5 do
        bytes = bytes .. frame(9, "p" .. i) .. frame(0, "f" .. i, { fin = i == 5 })
        text = text .. "f" .. i
      end
      chop(bytes, size)
      for i = 1, 5 do assert_echo("pong", "p" .. i) end
      assert_echo("binary", text)
    end
  end)

  it("fails for fragments out of place (5.1, 5.2, 5.9 to 5.18)", function()
    local cases = {
      frame(9, "f1", { fin = false }) .. frame(0, "f2"), frame(10, "f1", { fin = false }) .. frame(0, "f2"),
      frame(0, "nothing to continue"), frame(0, "nothing to continue", { fin = false }),
      frame(1, "f1", { fin = false }) .. frame(0, "f2") .. frame(0, "f3", { fin = false }),
      frame(1, "f1", { fin = false }) .. frame(1, "f2"), frame(1, "f1", { fin = false }) .. frame(2, "f2"),
    }
    for number, bytes in ipairs(cases) do
      for _, size in ipairs { 1, 10000 } do
        chop(bytes, size)
        assert_fails(1002, "case " .. number)
        again()
      end
    end
  end)

  local function utf8(code)
    if code < 0x80 then return string.char(code) end
    if code < 0x800 then return string.char(0xc0 + bit.rshift(code, 6), 0x80 + bit.band(code, 63)) end
    if code < 0x10000 then
      return string.char(0xe0 + bit.rshift(code, 12), 0x80 + bit.band(bit.rshift(code, 6), 63),
        0x80 + bit.band(code, 63))
    end
    return string.char(0xf0 + bit.rshift(code, 18), 0x80 + bit.band(bit.rshift(code, 12), 63),
      0x80 + bit.band(bit.rshift(code, 6), 63), 0x80 + bit.band(code, 63))
  end

  local GREEK = "\206\186\225\189\185\207\131\206\188\206\181"

  it("echoes text that is UTF-8, whole, in fragments and byte by byte (6.1, 6.2, 6.5 to 6.7, 6.9, 6.11, 6.22, 6.23)",
    function()
      local texts = { "", GREEK, "Hello-\194\181@\195\159\195\182\195\164\195\188\195\160\195\161-UTF-8!!" }
      for _, code in ipairs { 0x0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xfffd, 0xffff, 0x10000, 0x10ffff } do
        texts[#texts + 1] = utf8(code)
      end
      for plane = 0, 16 do
        texts[#texts + 1] = utf8(plane * 0x10000 + 0xfffe)
        texts[#texts + 1] = utf8(plane * 0x10000 + 0xffff)
      end
      for code = 0xfff9, 0xffff do texts[#texts + 1] = utf8(code) end
      for _, text in ipairs(texts) do
        peer:send(text)
        assert_echo("text", text)
        peer:send_frame(1, "", { fin = false })
        for i = 1, #text do peer:send_frame(0, text:sub(i, i), { fin = false }) end
        peer:send_frame(0, "")
        assert_echo("text", text)
      end
    end)

  it("fails for text that is not UTF-8, whole and in fragments (6.3, 6.6, 6.8, 6.10, 6.12 to 6.21)", function()
    local texts = { GREEK .. "\237\160\128edited", "\248\136\128\128\128", "\252\132\128\128\128\128",
      "\247\191\191\191",
      "\244\144\128\128", "\251\191\191\191\191", "\128", "\191", ("\128\191"):rep(4), "\192 ", "\223 ", "\239 ",
      "\247 ", "\192", "\224\128", "\240\128\128", "\223", "\239\191", "\247\191\191", "\254", "\255",
      "\254\254\255\255", "\192\175", "\224\128\175", "\240\128\128\175", "\193\191", "\224\159\191",
      "\240\143\191\191", "\192\128", "\224\128\128", "\240\128\128\128", "\237\160\128", "\237\173\191",
      "\237\174\128", "\237\175\191", "\237\176\128", "\237\190\128", "\237\191\191", "\237\160\128\237\176\128" }
    for length = 1, #GREEK - 1 do
      if not ("\2\5\7\9"):find(string.char(length), 1, true) then texts[#texts + 1] = GREEK:sub(1, length) end
    end
    for number, text in ipairs(texts) do
      peer:send(text)
      assert_fails(1007, "text " .. number)
      again()
      local bytes = { frame(1, "", { fin = false }) }
      for i = 1, #text do bytes[#bytes + 1] = frame(0, text:sub(i, i), { fin = false }) end
      peer:send_bytes(table.concat(bytes) .. frame(0, ""))
      assert_fails(1007, "text " .. number .. " in fragments")
      again()
    end
  end)

  it("fails as soon as a text can no longer be UTF-8 (6.4)", function()
    peer:send_frame(1, GREEK, { fin = false })
    peer:send_frame(0, "\244\144\128\128", { fin = false })
    assert_fails(1007)
    again()
    peer:send_bytes(frame(1, GREEK .. "\244\144", { length = 1000 }))
    assert_fails(1007)
  end)

  it("closes as it is asked to, and hears nothing behind that (7.1, 7.3, 7.7)", function()
    peer:send("Hello")
    assert_echo("text", "Hello")
    peer:send_bytes(frame(8, "\3\232") .. frame(8, "\3\232") .. frame(9, "p") .. frame(1, "behind"))
    assert_closes(1000, "")
    again()
    peer:send_bytes(frame(1, "never whole", { fin = false }) .. frame(8, "\3\232") .. frame(0, "late"))
    assert_closes(1000, "")
    again()
    peer:close()
    assert_closes(nil, nil)
    for _, code in ipairs { 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
      4999 } do
      again()
      peer:close(code, ("*"):rep(code % 124))
      assert_closes(code, ("*"):rep(code % 124))
    end
  end)

  it("fails for closes that may not be (7.3, 7.5, 7.9, 7.13)", function()
    for _, payload in ipairs { "a", "\3\232" .. ("*"):rep(124) } do
      peer:send_frame(8, payload)
      assert_fails(1002)
      again()
    end
    peer:close(1000, GREEK .. "\237\160\128edited")
    assert_fails(1007)
    for _, code in ipairs { 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535 } do
      again()
      peer:close(code)
      assert_fails(1002, code)
    end
  end)

  it("carries large messages, in one frame, in many, and in many writes (9.1 to 9.6)", function()
    for _, kind in ipairs { "text", "binary" } do
      for _, size in ipairs { 65536, 1048576, 16777216 } do
        local data = ("*"):rep(size)
        peer:send(data, kind)
        assert_echo(kind, data)
      end
    end
    local data = ("*"):rep(4194304)
    for _, size in ipairs { 1024, 65536, 1048576 } do
      local frames = {}
      for at = 1, #data, size do
        frames[#frames + 1] = frame(at == 1 and 2 or 0, data:sub(at, at + size - 1), { fin = at + size > #data })
      end
      peer:send_bytes(table.concat(frames))
      assert_echo("binary", data)
    end
    data = ("*"):rep(1048576)
    for _, size in ipairs { 128, 2048 } do
      chop(frame(1, data), size)
      assert_echo("text", data)
    end
  end)

  it("carries many messages, one after the other (9.7, 9.8)", function()
    for _, size in ipairs { 0, 16, 64, 256, 1024, 4096 } do
      local data = ("*"):rep(size)
      for _ = 1, 200 do
        peer:send(data, size % 3 == 0 and "text" or "binary")
        assert_echo(size % 3 == 0 and "text" or "binary", data)
      end
    end
  end)

  describe("compressed", function()
    local function texts_of(size)
      local pieces, length = {}, 0
      while length < size do
        local piece = ('{"id": %d, "text": "%s"},'):format(#pieces, ("lorem"):rep(#pieces % 7))
        pieces[#pieces + 1], length = piece, length + #piece
      end
      return table.concat(pieces):sub(1, size)
    end

    local function open(offer, bits)
      peer:hang_up()
      peer = assert(websocket.connect_packed(gw.port, "/", offer, bits))
      return peer.bits ~= nil
    end

    it("carries messages of every size, in one frame or many (12)", function()
      assert.is_true(open())
      for _, size in ipairs { 0, 1, 16, 64, 256, 1024, 4096, 8192, 32768, 131072, 1000000 } do
        local text = texts_of(size)
        for _ = 1, 10 do
          peer:send(text)
          assert_echo("text", text)
          assert.is_true(peer.was_packed)
        end
        local packed = websocket.pack(text)
        local bytes = {}
        for at = 1, #packed, 255 do
          bytes[#bytes + 1] = frame(at == 1 and 2 or 0, packed:sub(at, at + 254),
            { fin = at + 255 > #packed, rsv = at == 1 and 4 or 0 })
        end
        peer:send_bytes(table.concat(bytes, frame(10, "")))
        assert_echo("binary", text)
      end
    end)

    it("keeps to what was agreed, whatever is offered (13)", function()
      local offers = { "server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits",
        "client_max_window_bits=15", "client_max_window_bits=9", "server_max_window_bits=9",
        "server_max_window_bits=15",
        "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits" }
      for _, offer in ipairs(offers) do
        assert.is_true(open(offer, tonumber(offer:match("client_max_window_bits=(%d+)")) or 15), offer)
        for _, size in ipairs { 0, 100, 5000, 100000 } do
          peer:send(texts_of(size))
          assert_echo("text", texts_of(size))
        end
      end
      assert.is_true(open("unknown_parameter, permessage-deflate; server_max_window_bits=10"))
      assert.equal(10, peer.window)
      assert.is_false(open("server_max_window_bits=8"))
      peer:send("plain")
      assert_echo("text", "plain")
    end)

    it("fails for what is no compressed text", function()
      for _, payload in ipairs { "\255\255\255", websocket.pack("\255\254") } do
        open()
        peer:send_frame(1, payload, { rsv = 4 })
        assert_fails(1007)
      end
      open()
      peer:send_bytes(frame(9, "p", { rsv = 4 }))
      assert_fails(1002)
      open()
      peer:send_bytes(frame(1, "a", { rsv = 4, fin = false }) .. frame(0, "b", { rsv = 4 }))
      assert_fails(1002)
    end)
  end)
end)
