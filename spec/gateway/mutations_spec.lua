-- SPDX-License-Identifier: Apache-2.0
-- Conversations of every protocol, spoilt at random: whatever comes, from clients or services, the worker lives on and
-- answers. Most is said by the sanitizer build. SLUICE_SPEC_MUTATIONS and SLUICE_SPEC_SEED in the environment: how many
-- of each kind, and where chance begins.
local bit = require "bit"
local gateway = require "spec.support.gateway"
local http2 = require "spec.support.http2"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"
local websocket = require "spec.support.websocket"

local COUNT = tonumber(os.getenv("SLUICE_SPEC_MUTATIONS") or "100")
local SEED = tonumber(os.getenv("SLUICE_SPEC_SEED") or "20261123")

local FRAMES = [[
local frames = { version = "1.0.0", priority = 10 }
function frames.ws_client_frame(_, _, frame) frame:set_data(frame.data .. "!") end
function frames.ws_upstream_frame(_, _, frame) frame:set_data(frame.data .. "?") end
return frames
]]

local BODIES = [[
local bodies = { version = "1.0.0", priority = 10 }
function bodies.access(_, exchange) exchange.request:get_raw_body() end
function bodies.response(_, exchange) exchange.response:set_header("X-Seen", "1") end
return bodies
]]

-- Waits where it can, so that clients leave while it does.
local SLOW = [[
local sluice = require "sluice"
local slow = { version = "1.0.0", priority = 10 }
function slow.access(_, exchange)
  sluice.sleep(0.003)
  exchange.request:get_raw_body()
  exchange.request:set_header("X-Slow", "1")
end
function slow.header_filter(_, exchange) exchange.response:set_header("X-Seen", "1") end
function slow.body_filter(_, exchange) exchange.response:get_raw_body() end
function slow.log() sluice.sleep(0.001) end
return slow
]]

local PROTO = [[
syntax = "proto3";
package t;
import "google/api/annotations.proto";
message M { string name = 1; int64 number = 2; repeated M more = 3; map<string, double> sums = 4; bytes raw = 5; }
service S {
  rpc One(M) returns (M) { option (google.api.http) = { post: "/v1/one" body: "*" }; }
  rpc Many(M) returns (stream M) { option (google.api.http) = { get: "/v1/many/{name}" }; }
}
]]

local random = math.random

-- ---- How bytes are spoilt ----

local function cut(text)
  local from = random(1, #text)
  return from, math.min(#text, from + random(0, 20))
end

local mutators = {
  function(text, at) return text:sub(1, at - 1) .. string.char(random(0, 255)) .. text:sub(at + 1) end,
  function(text, at)
    return text:sub(1, at - 1) .. string.char(bit.bxor(text:byte(at), 2 ^ random(0, 7))) .. text:sub(at + 1)
  end,
  function(text)
    local from, to = cut(text)
    return text:sub(1, from - 1) .. text:sub(to + 1)
  end,
  function(text)
    local from, to = cut(text)
    return text:sub(1, to) .. text:sub(from)
  end,
  function(text, at) return text:sub(1, at) .. string.char(random(0, 255)):rep(random(1, 40)) .. text:sub(at + 1) end,
  function(text, at) return text:sub(1, at) end,
}

local function spoil(text)
  for _ = 1, random(1, 4) do
    if #text > 0 then text = mutators[random(#mutators)](text, random(1, #text)) end
  end
  return text
end

local function shuffled(list)
  for index = #list, 2, -1 do
    local other = random(index)
    list[index], list[other] = list[other], list[index]
  end
  return list
end

-- ---- Conversations ----

local frame = http2.frame

local function request_block(path, method)
  return http2.block { { ":method", method or "POST" }, { ":scheme", "http" }, { ":authority", "a.test" },
    { ":path", path }, { "x-long", ("v"):rep(random(0, 300)) }, { "te", "trailers" },
    random(3) == 1 and { "content-type", "application/grpc" } or { "accept", "*/*" } }
end

-- What a client may send behind its preface, in order.
local function client_frames(path)
  local post, get = request_block(path), request_block(path, "GET")
  return {
    frame(4, 0, 0, http2.settings { { 1, random(0, 5000) }, { 4, random(0, 100000) }, { 5, 16384 } }),
    frame(1, 0, 1, post:sub(1, 10)), frame(9, 4, 1, post:sub(11)),
    frame(0, 0, 1, ("d"):rep(random(0, 2000))), frame(0, 8, 1, "\5hello\0\0\0\0\0"),
    frame(1, 0x25, 3, "\0\0\0\0\16" .. get), frame(8, 0, 1, http2.bytes(random(0, 70000), 4)),
    frame(6, 0, 0, "12345678"), frame(2, 0, 3, "\0\0\0\1\7"), frame(8, 0, 0, http2.bytes(random(0, 70000), 4)),
    frame(1, 5, 1, http2.block { { "x-trailer", "t" } }), frame(1, 5, 5, get), frame(3, 0, 5, http2.bytes(8, 4)),
    frame(1, 4, 7, post), frame(0, 1, 7, "end"), frame(random(10, 255), random(0, 255), random(0, 9), "?"),
  }
end

local function server_frames()
  local head = "\136" .. http2.block { { "content-type", "text/plain" }, { "x-long", ("v"):rep(random(0, 300)) } }
  return {
    frame(4, 0, 0, http2.settings { { 3, random(0, 100) }, { 4, random(0, 100000) } }), frame(4, 1, 0),
    frame(1, 4, 1, http2.block { { ":status", "103" }, { "link", "a" } }), frame(1, 4, 1, head),
    frame(0, 0, 1, ("d"):rep(random(0, 2000))), frame(8, 0, 0, http2.bytes(random(0, 70000), 4)),
    frame(6, 0, 0, "12345678"), frame(0, 8, 1, "\3abc\0\0\0"), frame(1, 5, 1, http2.block { { "grpc-status", "0" } }),
    frame(3, 0, random(0, 2) * 2 + 1, http2.bytes(random(0, 13), 4)),
    frame(7, 0, 0, http2.bytes(random(0, 9), 4) .. http2.bytes(0, 4) .. "bye"),
    frame(5, 4, 1, http2.bytes(2, 4) .. request_block("/pushed", "GET")),
  }
end

local function spoilt_frames(list)
  local kind = random(4)
  if kind == 1 then
    shuffled(list)
  elseif kind == 2 then
    for _ = 1, random(1, 4) do table.insert(list, random(#list), list[random(#list)]) end
  elseif kind == 3 then
    for _ = 1, random(1, 3) do
      local at = random(#list)
      list[at] = spoil(list[at])
    end
  end
  local text = table.concat(list)
  return kind == 4 and spoil(text) or text
end

local function websocket_frames(packed)
  local list = {}
  for index = 1, random(1, 6) do
    local text = ("message %d "):format(index):rep(random(0, 40))
    local data = packed and random(2) == 1 and websocket.pack(text, 15)
    list[index] = websocket.frame(({ 0, 1, 1, 2, 8, 9, 10 })[random(7)], data or text,
      { mask = "abcd", rsv = data and 4 or 0, fin = random(4) > 1 })
  end
  return spoil(table.concat(list))
end

local UPGRADE = "GET %s HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"

local function hello(name)
  local sni = "\0\0" .. http2.bytes(#name + 5, 2) .. http2.bytes(#name + 3, 2) .. "\0" .. http2.bytes(#name, 2) .. name
  local body = "\3\3" .. ("r"):rep(32) .. "\0\0\2\19\1\1\0" .. http2.bytes(#sni, 2) .. sni
  local message = "\1" .. http2.bytes(#body, 3) .. body
  return "\22\3\1" .. http2.bytes(#message, 2) .. message
end

local function proxy_header()
  if random(2) == 1 then return "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n" end
  local fields = "\4\0\3abc\1\0\2h2"
  return "\r\n\r\n\0\r\nQUIT\n\33\17" .. http2.bytes(12 + #fields, 2) .. "\1\2\3\4\5\6\7\8\1\2\3\4" .. fields
end

local function request_text(path)
  return ("POST %s HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n" ..
    "0\r\nX-T: 1\r\n\r\n"):format(path)
end

-- ---- ----

describe("spoilt conversations:", function()
  local up, echo, gw, worker, ports, evil

  setup(function()
    math.randomseed(SEED)
    up = upstream.start()
    echo = upstream.start(function(_, connection) require("spec.support.websocket").echo(connection) end)
    local fd, evil_port = posix.listen("127.0.0.1", process.free_port())
    evil = { fd = fd, port = evil_port }
    ports = { proxy = process.free_port(), tcp = process.free_port(), tls = process.free_port() }
    local function own(self, protocol) return ("%s://127.0.0.1:%d/up"):format(protocol, self.port) end
    gw = gateway.start(function(self)
      local function service(name, url, plugin)
        return { name = name, url = url, retries = 0, read_timeout = 500, routes = { { name = name,
          paths = { "/" .. name }, plugins = plugin and { { name = plugin } } or nil } } }
      end
      return { _format_version = "3.0",
        gateway = { limits = { send_timeout = 500, client_body_timeout = 500, client_header_timeout = 500 } },
        services = {
          service("up", up:url()), service("bodies", up:url(), "bodies"), service("again", own(self, "http2")),
          service("call", own(self, "http2"), "bodies"), service("ws", echo:url()),
          service("frames", echo:url(), "frames"),
          service("evil", "http2://127.0.0.1:" .. evil.port), service("evil1", "http://127.0.0.1:" .. evil.port),
          service("evilws", "http://127.0.0.1:" .. evil.port, "frames"), service("slow", up:url(), "slow"),
          { name = "calls", url = "grpc://127.0.0.1:" .. evil.port, retries = 0, read_timeout = 500, routes = {
            { name = "json", paths = { "/v1" }, strip_path = false,
              plugins = { { name = "grpc-gateway", config = { proto = "t.proto" } } } },
            { name = "web", paths = { "/t.S" }, strip_path = false, plugins = { { name = "grpc-web" } } } } },
          { name = "tcp", host = "127.0.0.1", port = up.port, protocol = "tcp", routes = {
            { name = "tcp", protocols = { "tcp" }, destinations = { { port = ports.tcp } } },
            { name = "tls", protocols = { "tls_passthrough" }, snis = { "t.test" } } } },
        } }
    end, { http2 = true, plugins = { frames = FRAMES, bodies = BODIES, slow = SLOW },
      files = { ["t.proto"] = PROTO }, env = {
      SLUICE_STREAM_LISTEN = ("127.0.0.1:%d proxy_protocol, 127.0.0.1:%d ssl"):format(ports.tcp, ports.tls),
      SLUICE_TRUSTED_IPS = "127.0.0.1" } })
    worker = gw:workers()[1]
  end)

  teardown(function()
    gw:stop()
    up:stop()
    echo:stop()
    posix.C.sys_close_fd(evil.fd)
  end)

  local function leave(socket)
    local how = random(3)
    if how == 1 then
      socket:reset()
    else
      if how == 2 then socket:finish() end
      socket:receive_some(0.005)
      socket:close()
    end
  end

  local function say(port, text)
    local socket = assert(net.connect("127.0.0.1", port, { timeout = 2 }))
    local middle = random(0, #text)
    if socket:send(text:sub(1, middle)) and random(2) == 1 then socket:receive_some(0.002) end
    socket:send(text:sub(middle + 1))
    leave(socket)
  end

  local function check()
    for _, path in ipairs { "/up", "/again" } do
      local answer
      process.wait_until(function() -- the service may still be at what it was asked before
        answer = http2.request(gw.port, { path = path })
        return answer.status == 200
      end, 10, function() return ("%s: %s %s"):format(path, tostring(answer.status), gw:log()) end)
    end
    assert.equal(worker, gw:workers()[1])
  end

  local function many(name, talk)
    it(name, function()
      for _ = 1, COUNT do talk() end
      check()
    end)
  end

  local PATHS = { "/up", "/bodies", "/again", "/call", "/up/close", "/again/bytes/100000", "/nowhere", "/slow",
    "/slow/bytes/100000" }

  many("a client's over HTTP/2", function()
    local list = client_frames(PATHS[random(#PATHS)])
    local preface = random(20) == 1 and spoil(http2.PREFACE) or http2.PREFACE
    say(gw.port, preface .. spoilt_frames(list))
  end)

  many("a client's over HTTP/1.1", function() say(gw.port, spoil(request_text(PATHS[random(#PATHS)]))) end)

  many("a WebSocket client's", function()
    local packed = random(2) == 1
    local head = UPGRADE:format(random(3) == 1 and "/ws" or "/frames",
      packed and "Sec-WebSocket-Extensions: permessage-deflate\r\n" or "")
    if random(10) == 1 then head = spoil(head) end
    say(gw.port, head .. websocket_frames(packed))
  end)

  many("a WebSocket client's over HTTP/2", function()
    local block = http2.block { { ":method", "CONNECT" }, { ":protocol", "websocket" }, { ":scheme", "http" },
      { ":authority", "a.test" }, { ":path", random(3) == 1 and "/ws" or "/frames" },
      { "sec-websocket-version", "13" } }
    local list = { frame(4, 0, 0), frame(1, 4, 1, random(10) == 1 and spoil(block) or block) }
    for _ = 1, random(1, 3) do list[#list + 1] = frame(0, random(5) == 1 and 1 or 0, 1, websocket_frames(false)) end
    say(gw.port, http2.PREFACE .. (random(3) == 1 and spoilt_frames(list) or table.concat(list)))
  end)

  many("a client's while the configuration changes", function()
    if random(30) == 1 then gw:write_config(require("cjson").decode(process.read_file(gw.config_path))) end
    local list = client_frames(PATHS[random(#PATHS)])
    say(gw.port, http2.PREFACE .. spoilt_frames(list))
  end)

  many("a ClientHello", function() say(ports.tls, spoil(hello("t.test"))) end)

  many("a PROXY header", function() say(ports.tcp, spoil(proxy_header()) .. request_text("/")) end)

  -- The spec is the service: it answers the gateway with `answer`, whatever it was asked.
  local function serve(request, answer)
    local client = assert(net.connect("127.0.0.1", gw.port, { timeout = 2 }))
    client:send(request)
    local deadline, asked = posix.now() + 0.3
    repeat -- a request of HTTP/1.1 that is refused is answered at once
      asked = net.wait(evil.fd, posix.POLLIN, posix.now() + 0.005)
      local answered = request:sub(1, 3) ~= "PRI" and net.wait(client.fd, posix.POLLIN, posix.now())
    until asked or answered or posix.now() > deadline
    if asked then
      local socket = net.wrap(posix.accept(evil.fd), 1)
      socket:receive_some(0.2)
      local middle = random(0, #answer)
      socket:send(answer:sub(1, middle))
      if random(2) == 1 then client:receive_some(0.002) end
      socket:send(answer:sub(middle + 1))
      if random(2) == 1 then client:receive_some(0.005) end
      leave(socket)
    end
    leave(client)
  end

  local function get(path)
    return ("GET %s HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\n\r\n"):format(path)
  end

  local function post(path, kind, body)
    return ("POST %s HTTP/1.1\r\nHost: a.test\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"):format(path, kind,
      #body, body)
  end

  many("a service's over HTTP/2", function()
    local list = server_frames()
    local request = random(2) == 1 and get("/evil")
      or http2.PREFACE .. frame(4, 0, 0) .. frame(1, 5, 1, request_block("/evil", "GET"))
    serve(request, spoilt_frames(list))
  end)

  local function call_frame(data, flags)
    return string.char(flags or 0) .. http2.bytes(#data, 4) .. data
  end

  many("a gRPC service's, behind plugins", function()
    local message = "\10\3Ann\16\7\26\4\10\2Bo\34\12\10\1a\17\0\0\0\0\0\0\240\63\42\2\0\255"
    if random(2) == 1 then message = spoil(message) end
    local data = call_frame(message) .. (random(2) == 1 and call_frame(message) or "")
    local list = { frame(4, 0, 0), frame(4, 1, 0),
      frame(1, 4, 1, http2.block { { ":status", "200" }, { "content-type", "application/grpc" } }),
      frame(0, 0, 1, random(3) == 1 and spoil(data) or data),
      frame(1, 5, 1, http2.block { { "grpc-status", tostring(random(0, 17)) }, { "grpc-message", "a%20b%" } }) }
    local body = call_frame(spoil("\10\3Ann"))
    local json = '{"name":"Ann","number":"7","more":[{"name":"Bo"}],"sums":{"a":1},"raw":"AP8="}'
    if random(3) == 1 then json = spoil(json) end
    local request = ({ get("/v1/many/Ann?number=7&more.name=x"), post("/v1/one", "application/json", json),
      post("/t.S/One", "application/grpc-web+proto", body),
      post("/t.S/Many", "application/grpc-web-text", spoil("AAAAAAUKA0Fubg==")) })[random(4)]
    serve(request, random(2) == 1 and spoilt_frames(list) or table.concat(list))
  end)

  many("a service's over HTTP/1.1", function()
    serve(random(2) == 1 and get("/evil1")
      or http2.PREFACE .. frame(4, 0, 0) .. frame(1, 5, 1, request_block("/evil1", "GET")),
      spoil("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" ..
        "Trailer: X-T\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"))
  end)

  many("a WebSocket service's", function()
    local head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
      "Sec-WebSocket-Accept: " .. websocket.accept_of("dGhlIHNhbXBsZSBub25jZQ==") .. "\r\n\r\n"
    local list = {}
    for index = 1, random(1, 5) do
      list[index] = websocket.frame(({ 0, 1, 2, 8, 9, 10 })[random(6)], ("m"):rep(random(0, 200)),
        { fin = random(4) > 1 })
    end
    serve(UPGRADE:format("/evilws", ""), random(10) == 1 and spoil(head) or head .. spoil(table.concat(list)))
  end)
end)
