-- SPDX-License-Identifier: Apache-2.0
-- A plugin takes a body piece by piece, and may answer while it does.
local gateway = require "spec.support.gateway"
local http2 = require "spec.support.http2"

local READER = [[
local reader = { version = "1.0.0", priority = 10 }
local sluice = require "sluice"

local act = {}

function act.echo(exchange)
  local stream = exchange.response:stream(200)
  while true do
    local piece, err = exchange.request:read_body()
    if not piece then
      stream:send(err and "error: " .. err or "end")
      break
    end
    if not stream:send(piece:upper()) then break end
  end
  stream:finish()
end

local bell = require "sluice.bell"
local go -- of the request that has begun its answer and reads when another one says so

function act.later(exchange)
  go = bell.new()
  local stream = exchange.response:stream(200)
  go:wait(30)
  local piece, err = exchange.request:read_body()
  stream:send(piece and #piece .. " bytes" or err)
  stream:finish()
end

function act.turn(exchange)
  exchange.response:exit(200, "")
end

function act.go(exchange)
  go:ring()
  exchange.response:exit(200, "")
end

function act.count(exchange)
  local bytes, most = 0, 0
  while true do
    local piece, err = exchange.request:read_body()
    if not piece then
      exchange.response:exit(err and 400 or 200, bytes .. " in pieces of at most " .. most .. (err or ""))
    end
    bytes, most = bytes + #piece, math.max(most, #piece)
    if bytes == #piece then sluice.sleep(0.05) end
  end
end

function act.limit(exchange)
  exchange.request:limit_body(10)
  act.count(exchange)
end

function act.refused(exchange)
  local _, err, status = exchange.request:get_raw_body()
  exchange.response:exit(status, err)
end

function act.refused_piece(exchange)
  local piece, err, status = true, nil, nil
  while piece do piece, err, status = exchange.request:read_body() end
  exchange.response:exit(status, err)
end

function act.some(exchange)
  exchange.request:read_body()
end

function act.whole_first(exchange)
  local body = exchange.request:get_raw_body()
  local piece, err = exchange.request:read_body()
  exchange.response:exit(200, body .. ", " .. tostring(piece) .. ", " .. tostring(err))
end

function act.whole_later(exchange)
  exchange.request:read_body()
  local body, err = exchange.request:get_raw_body()
  exchange.response:exit(200, tostring(body) .. ", " .. tostring(err))
end

function act.left(exchange)
  while exchange.request:read_body() do end
  local _, err = exchange.request:read_body()
  sluice.log.notice("the body ended", { err = err })
  exchange.response:exit(200, "")
end

function reader.access(_, exchange)
  act[exchange.request:get_path():match("[^/]+$")](exchange)
end

return reader
]]

local CONFIG = [[
_format_version: "3.0"
services:
- name: up
  url: http://127.0.0.1:1
  routes:
  - { name: read, paths: [/], plugins: [{ name: reader }] }
]]

describe("exchange.request:read_body", function()
  local gw

  setup(function() gw = gateway.start(CONFIG, { plugins = { reader = READER }, http2 = true }) end)
  teardown(function() gw:stop() end)

  it("gives pieces as they come, while the answer streams", function()
    local client = gw:connect()
    client:send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    client:read_head()
    assert(client.socket:receive_until("ABC"))
    client:send("3\r\ndef\r\n")
    assert(client.socket:receive_until("DEF"))
    client:send("0\r\n\r\n")
    assert(client.socket:receive_until("0\r\n\r\n"))
    client:send("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab") -- and the connection goes on
    assert.matches("^2 in pieces", client:read_response().body)
    client:close()
  end)

  -- A client whose content came behind the beginning of the answer, before anybody has asked for it.
  local function sent_early(content)
    local client = gw:connect({ timeout = 30 })
    client:send(("POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"):format(#content))
    client:read_head()
    client:send(content)
    for _ = 1, 2 do assert.equal(200, gw:get("/turn").status) end -- what is there has been read
    assert.equal(200, gw:get("/go").status)
    return client
  end

  it("has the content that came behind the beginning of the answer", function()
    local client = sent_early("abc")
    assert(client.socket:receive_until("3 bytes"))
    assert(client.socket:receive_until("0\r\n\r\n"))
    client:close()
  end)

  it("keeps nobody from sending who streams without a look, and gives no content with a hole", function()
    local client = sent_early(("x"):rep(4 * 1024 * 1024))
    assert(client.socket:receive_until("the body has passed by the answer"))
    client:close()
  end)

  it("does so over HTTP/2", function()
    local client = assert(http2.connect(gw.port))
    local number = client:request { method = "POST", path = "/echo", body = "abc", open = true }
    local stream = client:stream(number)
    client:wait_until(function() return table.concat(stream.parts) == "ABC" end)
    client:data(number, "def")
    assert.equal("ABCDEFend", client:wait(number).body)
    client:close()
  end)

  it("gives all of a large body, and holds little of it", function()
    local body = ("0123456789abcdef"):rep(512 * 1024)
    for _, response in ipairs {
      gw:request { method = "POST", path = "/count", body = body },
      http2.request(gw.port, { method = "POST", path = "/count", body = "x" }),
    } do
      local bytes, most = response.body:match("^(%d+) in pieces of at most (%d+)$")
      assert.is_true(tonumber(bytes) == #body or tonumber(bytes) == 1)
      assert.is_true(tonumber(most) <= 65536, most)
    end
    local client = assert(http2.connect(gw.port))
    local number = client:request { method = "POST", path = "/count", open = true }
    assert.is_true(client:upload(number, body))
    assert.equal(#body, tonumber(client:wait(number).body:match("^%d+")))
    client:close()
  end)

  it("invites a client that waits for a sign", function()
    local client = gw:connect()
    client:send("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert.matches("^HTTP/1.1 100", client.socket:receive_until("\r\n\r\n"))
    client:send("ab")
    assert.matches("^2 in pieces", client:read_response().body)
    client:close()
  end)

  it("tells when the body is refused in the middle", function()
    local client = gw:connect()
    client:send("POST /limit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    client:send("10\r\n0123456789abcdef\r\n0\r\n\r\n")
    local response = client:read_response()
    assert.equal(400, response.status)
    assert.matches("a limit of the gateway was reached", response.body, 1, true)
    client:close()
  end)

  it("tells why a body is refused, whole or in pieces, and the status that says so", function()
    for _, path in ipairs { "/refused", "/refused_piece" } do
      local client = gw:connect()
      client:send("POST " .. path .. " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
      local response = client:read_response()
      assert.same({ 400, "the framing of the body is broken" }, { response.status, response.body }, path)
      client:close()
    end
    local response = gw:request { method = "POST", path = "/refused", body = ("x"):rep(9000000) }
    assert.same({ 413, "a limit of the gateway was reached" }, { response.status, response.body })
  end)

  it("tells when the client leaves", function()
    local client = gw:connect()
    client:send("POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    client:close()
    assert.matches("connection is closed", gw:wait_log("the body ended"), 1, true)
  end)

  it("is not for a body that goes on to a service", function()
    assert.equal(500, gw:request({ method = "POST", path = "/some", body = "abc" }).status)
  end)

  it("does not mix with a body that is asked for whole", function()
    assert.equal("abc, nil, the body has been asked for whole",
      gw:request({ method = "POST", path = "/whole_first", body = "abc" }).body)
    assert.matches("^nil, ", gw:request({ method = "POST", path = "/whole_later", body = "abc" }).body)
  end)
end)
