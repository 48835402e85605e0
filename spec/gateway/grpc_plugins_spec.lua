-- SPDX-License-Identifier: Apache-2.0
-- grpc-gateway and grpc-web in front of a gRPC service that others wrote: grpc-go.
require "sluice.spec"
local cjson = require "cjson"
local crypto = require "sluice.crypto"
local gateway = require "spec.support.gateway"
local greeter = require "spec.support.greeter"
local process = require "spec.support.process"

local function frame(message, flags)
  return string.char(flags or 0, 0, 0, 0, #message) .. message
end

local ANN = "\10\3Ann" -- a greeting with the name

describe("in front of a service of grpc-go,", function()
  local service, gw

  local function config_with(proto)
    return { _format_version = "3.0", services = { { name = "greeter", url = "grpc://127.0.0.1:" .. service.port,
      routes = {
        { name = "json", paths = { "/v1" }, strip_path = false,
          plugins = { { name = "grpc-gateway", config = { proto = proto, emit_defaults = false } } } },
        { name = "web", paths = { "/hello.Greeter" }, strip_path = false,
          plugins = { { name = "grpc-web", config = { proto = proto } } } },
      } } } }
  end

  setup(function()
    service = greeter.start()
    gw = gateway.start(config_with("hello.proto"), { http2 = true, files = { ["hello.proto"] = greeter.PROTO,
      ["ann.bin"] = frame(ANN) } })
  end)

  teardown(function()
    if gw then gw:stop() end
    if service then service.stop() end
  end)

  local function json_of(response)
    return cjson.decode(response.body)
  end

  describe("grpc-gateway", function()
    it("makes a call of a GET and of a POST", function()
      local response = gw:get("/v1/hello/Ann%20B?number=7")
      assert.equal(200, response.status)
      assert.equal("application/json", response.headers["content-type"])
      assert.same({ name = "Ann B", text = "hello, Ann B", number = 7 }, json_of(response))
      assert.same({}, response.trailers or {})
      response = gw:request { method = "POST", path = "/v1/hello", body = '{"name":"Bob"}',
        headers = { ["Content-Type"] = "application/json" } }
      assert.same({ name = "Bob", text = "hello, Bob" }, json_of(response))
    end)

    it("tells an error with its status, message and details", function()
      local response = gw:get("/v1/hello/nobody")
      assert.equal(404, response.status)
      assert.same({ code = 5, message = "there is no nobody", details = { {
        ["@type"] = "type.googleapis.com/google.rpc.ErrorInfo", reason = "UNKNOWN_NAME", domain = "hello.example",
      } } }, json_of(response))
    end)

    it("sends each message of a stream as it comes", function()
      local client = gw:connect()
      client:send "GET /v1/countdown/Ann?number=3 HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
      for number = 3, 1, -1 do
        local chunk = assert(client.socket:receive_until("\n\n", 5))
        local text = chunk:match("data: (.*)\n\n$")
        assert.same({ name = "Ann", number = number }, cjson.decode(text))
        assert.is_nil(chunk:match("data: .*data: "))
      end
      assert.matches("0\r\n\r\n$", assert(client.socket:receive_until("0\r\n\r\n", 5)))
      client:close()
    end)

    it("ends a stream that breaks off with the error", function()
      local response = gw:get("/v1/countdown/nobody?number=3")
      local first, second = response.body:match("^(.-)\n(.-)\n$")
      assert.same({ name = "nobody", number = 3 }, cjson.decode(first))
      assert.equal(5, cjson.decode(second).error.code)
      assert.equal("UNKNOWN_NAME", cjson.decode(second).error.details[1].reason)
    end)

    it("collects lines for a method that takes a stream", function()
      local response = gw:request { method = "POST", path = "/v1/collect", body = '{"name":"a"}\n{"name":"b"}\n',
        headers = { ["Content-Type"] = "application/x-ndjson" } }
      assert.same({ text = "a;b;", number = 2 }, json_of(response))
    end)

    it("tells that a method is not there, and that the service is not", function()
      local proto = greeter.PROTO:gsub("rpc Hello", "rpc Missing")
      local other = gateway.start(config_with("hello.proto"), { files = { ["hello.proto"] = proto } })
      assert.same({ 501, 12 }, { other:get("/v1/hello/x").status, json_of(other:get("/v1/hello/x")).code })
      other:stop()
      local config = config_with("hello.proto")
      config.services[1].url = "grpc://127.0.0.1:" .. process.free_port()
      other = gateway.start(config, { files = { ["hello.proto"] = greeter.PROTO } })
      assert.equal(502, other:get("/v1/hello/x").status)
      other:stop()
    end)
  end)

  describe("grpc-web", function()
    local function ask(kind, body, method)
      return gw:request { method = "POST", path = "/hello.Greeter/" .. (method or "Hello"), body = body,
        headers = { ["Content-Type"] = kind } }
    end

    it("carries a call in binary and in base64", function()
      local response = ask("application/grpc-web+proto", frame(ANN))
      local expected = frame(ANN .. "\18\10hello, Ann")
        .. frame("grpc-status:0\r\ngrpc-message:\r\nx-greeter:go\r\n", 128)
      assert.equal(expected, response.body)
      assert.equal("application/grpc-web+proto", response.headers["content-type"])
      response = ask("application/grpc-web-text", crypto.base64_encode(frame(ANN)))
      assert.equal(expected, (response.body:gsub("([^=]+=?=?)", crypto.base64_decode)))
    end)

    it("carries an error, and a stream", function()
      local body = ask("application/grpc-web", frame "\10\6nobody").body
      assert.matches("^\128.*grpc%-status:5\r\ngrpc%-message:there is no nobody\r\n", body)
      assert.matches("\r\ngrpc%-status%-details%-bin:[%w+/]+\r\n", body)
      body = ask("application/grpc-web", frame(ANN .. "\24\2"), "Countdown").body
      assert.equal(frame(ANN .. "\24\2") .. frame(ANN .. "\24\1") .. frame("grpc-status:0\r\ngrpc-message:\r\n", 128),
        body)
    end)

    it("carries JSON", function()
      local response = ask("application/json", '{"name":"Ann"}')
      assert.same({ name = "Ann", text = "hello, Ann", number = 0 }, json_of(response))
    end)
  end)

  it("both serve clients of HTTP/2", function()
    local function curl(...)
      local shown = "\n%{http_version} %{http_code}"
      local _, out = process.run { "curl", "-s", "--http2-prior-knowledge", "-w", shown, ... }
      return out
    end
    local url = "http://127.0.0.1:" .. gw.port
    assert.matches('^{"name":"Ann","text":"hello, Ann"}\n2 200$', curl(url .. "/v1/hello/Ann"))
    assert.matches('"code":5.*\n2 404$', curl(url .. "/v1/hello/nobody"))
    assert.matches('"number":2}\n{"name":"Ann","number":1}\n\n2 200$', curl(url .. "/v1/countdown/Ann?number=2"))
    assert.matches("hello, Ann.*grpc%-status:0\r\ngrpc%-message:\r\n.*\n2 200$", curl("-H",
      "Content-Type: application/grpc-web", "--data-binary", "@" .. gw.directory .. "/ann.bin",
      url .. "/hello.Greeter/Hello"))
  end)

  it("a change of the .proto file is a new configuration, and a broken one is told and changes nothing", function()
    local other = gateway.start(config_with("hello.proto"), { files = { ["hello.proto"] = greeter.PROTO } })
    assert.equal(404, other:get("/v1/hi/Ann").status)
    other:write("hello.proto", (greeter.PROTO:gsub('post: "/v1/hello" body: "%*"', 'get: "/v1/hi/{name}"')))
    process.wait_until(function() return other:get("/v1/hi/Ann").status == 200 end, 10, "the new rule works")
    other:write("hello.proto", "syntax = \"proto3\";\nnonsense\n")
    other:wait_log("hello.proto:2:1: Expected top%-level statement")
    assert.equal(200, other:get("/v1/hi/Ann").status)
    other:stop()
  end)

  it("a client may leave in the middle of a stream", function()
    local client = gw:connect()
    client:send "GET /v1/countdown/Ann?number=1000 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.is_truthy(client.socket:receive_until('"number":999}', 5))
    client:close()
    assert.equal(200, gw:get("/v1/hello/Ann").status)
  end)
end)
