-- SPDX-License-Identifier: Apache-2.0
-- WebSockets whose other end is a plugin.
local spec = require "sluice.spec"

local PLUGIN = [[
local talker = { version = "1.0.0", priority = 1 }
local acts = {}

function acts.echo(talk)
  while true do
    local data, kind = talk:receive(30)
    if not data then
      if kind == "timeout" then talk:close(4000, "too quiet") end
      return
    end
    if data == "boom" then error("on purpose") end
    if data == "leave" then return end
    if data == "bye" then talk:close(4001, "as you wish") return end
    talk:send(kind .. ":" .. data, kind)
  end
end

-- Sends while it does not receive.
function acts.many(talk, exchange)
  local last
  for i = 1, 40 do
    local ok, err = talk:send(("x"):rep(50000))
    last = ok and i or err
    if not ok then break end
  end
  talk:send("sent " .. tostring(last))
  local first = talk:receive(5)
  talk:send("first " .. tostring(first))
  talk:send(tostring(select(2, talk:send("\255"))))
end

function acts.hold(talk)
  for _ = 1, 3 do require("sluice.sleep")(1) end
  local count, bytes = 0, 0
  while true do
    local data = talk:receive(1)
    if not data then break end
    count, bytes = count + 1, bytes + #data
    if count == 100 then talk:send(count .. " " .. bytes) return end
  end
  talk:send("only " .. count)
end

function talker.access(conf, exchange)
  if not exchange.response:may_be_websocket() then exchange.response:exit(426, "WebSockets only") end
  local talk = exchange.response:websocket { ["Sec-WebSocket-Protocol"] = "chat" }
  acts[exchange.request:get_path():sub(2)](talk, exchange)
end

function talker.log(conf, exchange)
  require("sluice").log.notice("talked", { status = exchange.response:get_status() })
end
return talker
]]

describe("a WebSocket that a plugin speaks", function()
  local gateway

  before_each(function()
    gateway = spec.gateway { plugins = { { name = "talker" } }, plugins_code = { talker = PLUGIN } }
  end)

  it("is opened with the fields of the plugin, and takes and gives messages", function()
    local socket = gateway:websocket "/echo"
    socket:send "hello"
    assert.same({ type = "text", data = "text:hello" }, socket:receive())
    socket:send("\255", "binary")
    assert.same({ type = "binary", data = "binary:\255" }, socket:receive())
  end)

  it("answers the key as RFC 6455 says", function()
    local client = gateway:connect()
    local response = client:request { path = "/echo", headers = { Connection = "Upgrade", Upgrade = "websocket",
      ["Sec-WebSocket-Version"] = "13", ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ==" } }
    assert.equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", response.headers["sec-websocket-accept"])
    assert.same({ 101, "chat", "websocket", "Upgrade" }, { response.status,
      response.headers["sec-websocket-protocol"], response.headers.upgrade, response.headers.connection })
  end)

  it("is no answer to other requests", function()
    assert.equal(426, gateway:get("/echo").status)
  end)

  it("answers pings, and a close with the same code", function()
    local socket = gateway:websocket "/echo"
    socket:send("are you there", "ping")
    assert.same({ type = "pong", data = "are you there" }, socket:receive())
    socket:close(4003)
    assert.equal(4003, socket:receive().status)
    assert.is_nil(socket:receive())
    assert.equal(1, #gateway:log "talked")
  end)

  it("is closed by the plugin with a code and a reason", function()
    local socket = gateway:websocket "/echo"
    socket:send "bye"
    assert.same({ type = "close", status = 4001, data = "as you wish" }, socket:receive())
    gateway:advance(5) -- for who does not answer
    assert.equal(1, #gateway:log "talked")
  end)

  it("is closed with 1000 when the plugin returns, and with 1011 when it fails", function()
    local socket = gateway:websocket "/echo"
    socket:send "leave"
    assert.equal(1000, socket:receive().status)
    socket = gateway:websocket "/echo"
    socket:send "boom"
    assert.equal(1011, socket:receive().status)
    assert.is_true(#gateway:log "on purpose" > 0)
  end)

  it("tells the plugin when nothing came in time", function()
    local socket = gateway:websocket "/echo"
    gateway:advance(31)
    assert.same({ type = "close", status = 4000, data = "too quiet" }, socket:receive())
  end)

  it("closes where the client breaks the protocol", function()
    local socket = gateway:websocket "/echo"
    socket.peer:send "\131\0" -- an opcode that there is not, unmasked
    gateway:settle()
    assert.equal(1002, socket:receive().status)
  end)

  it("ends with the client's connection", function()
    local socket = gateway:websocket "/echo"
    socket.peer:close()
    gateway:settle()
    assert.equal(1, #gateway:log "talked")
  end)

  it("waits for a client that is slow, sends no text that is none, and keeps messages until they are asked for",
    function()
      local socket = gateway:websocket "/many"
      socket:send "one"
      socket:send "two"
      local count = 0
      local message
      repeat
        message = socket:receive()
        count = count + 1
      until not message or #message.data < 1000
      assert.same({ 41, "sent 40" }, { count, message.data })
      assert.equal("first one", socket:receive().data)
      assert.equal("invalid", socket:receive().data)
      assert.equal(1000, socket:receive().status)
    end)

  it("does not read on while the plugin does not ask, and loses nothing", function()
    local socket = gateway:websocket "/hold"
    for _ = 1, 100 do socket:send(("y"):rep(10000)) end
    gateway:advance(4)
    assert.equal("100 1000000", socket:receive().data)
  end)
end)
