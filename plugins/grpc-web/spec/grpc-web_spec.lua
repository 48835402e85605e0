-- SPDX-License-Identifier: Apache-2.0
local lfs = require "lfs"
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"
local grpc = require "sluice.grpc"
local json = require "sluice.json"

local FILE = lfs.currentdir() .. "/plugins/grpc-gateway/spec/library.proto"
local EMMA = "\10\4emma" -- a book of that name
local GET, LIST = "/library.Library/Get", "/library.Library/List"

local function echo(request)
  return { headers = { ["Content-Type"] = "application/grpc" }, chunks = { request.body },
    trailers = { ["grpc-status"] = "0", ["grpc-message"] = "" } }
end

local function trailers(text)
  return grpc.frame(text, 128)
end

local OK = trailers "grpc-status:0\r\ngrpc-message:\r\n"

-- Texts that stand one behind the other, each with padding of its own.
local function from_base64(text)
  return (text:gsub("([^=]+=?=?)", function(part) return assert(crypto.base64_decode(part)) end))
end

describe("grpc-web", function()
  local gateway

  local function start(answer, config, options)
    options = options or {}
    options.plugins = options.plugins or { { name = "grpc-web", config = config or { proto = FILE } } }
    options.upstreams = { ["service.example"] = answer or echo }
    gateway = spec.gateway(options)
    return gateway
  end

  local function ask(kind, body, path)
    return gateway:post(path or GET, body, { ["Content-Type"] = kind })
  end

  local function called()
    local requests = gateway:requests("service.example")
    return requests[#requests]
  end

  for _, kind in ipairs { "application/grpc-web", "application/grpc-web+proto" } do
    it("passes frames as they are: " .. kind, function()
      start(nil, {})
      local response = ask(kind, grpc.frame(EMMA))
      assert.same({ 200, kind, grpc.frame(EMMA) .. OK }, { response.status, response.headers["content-type"],
        response.body })
      assert.same({}, response.trailers or {})
      assert.same({ "POST", GET, grpc.frame(EMMA), "application/grpc" }, { called().method, called().target,
        called().body, called().headers["content-type"] })
    end)
  end

  for _, kind in ipairs { "application/grpc-web-text", "application/grpc-web-text+proto" } do
    it("takes and gives base64: " .. kind, function()
      start(nil, {})
      local response = ask(kind, crypto.base64_encode(grpc.frame(EMMA)))
      assert.equal(kind, response.headers["content-type"])
      assert.equal(grpc.frame(EMMA) .. OK, from_base64(response.body))
      assert.equal(grpc.frame(EMMA), called().body)
    end)
  end

  it("takes base64 in pieces", function()
    start(nil, {})
    local frame = grpc.frame(EMMA)
    for cut = 1, #frame - 1 do
      ask("application/grpc-web-text", crypto.base64_encode(frame:sub(1, cut))
        .. crypto.base64_encode(frame:sub(cut + 1)))
      assert.equal(frame, called().body)
    end
    for _, text in ipairs { "!", "AAA", "AAA=A", "=", "AAAA====" } do
      local response = ask("application/grpc-web-text", text)
      assert.equal(trailers "grpc-status:3\r\ngrpc-message:the body is not base64\r\n", from_base64(response.body))
    end
  end)

  it("gives base64 of every piece as it comes", function()
    start({ headers = { ["Content-Type"] = "application/grpc" }, chunks = { "\0\0\0\0\4a", "bcd" },
      trailers = { ["grpc-status"] = "0" } }, {})
    assert.equal(grpc.frame "abcd" .. OK, from_base64(ask("application/grpc-web-text", "").body))
  end)

  it("turns frames with JSON into messages and back", function()
    start()
    for _, kind in ipairs { "application/grpc-web+json", "application/grpc-web-text+json" } do
      local text = kind:find("text", 1, true) ~= nil
      local body = grpc.frame('{"name":"emma","weightKg":1}') .. grpc.frame("{}")
      local response = ask(kind, text and crypto.base64_encode(body) or body)
      assert.equal(kind, response.headers["content-type"])
      assert.equal("identity", called().headers["grpc-accept-encoding"])
      local reader = grpc.reader(1000)
      reader:put(text and from_base64(response.body) or response.body)
      local book = json.decode((reader:next()))
      assert.same({ "emma", 1, "" }, { book.name, book.weight_kg, book.title })
      assert.equal("", json.decode((reader:next())).name)
      local _, err = reader:next() -- flags of the trailers
      assert.equal("a message with unknown flags", err)
    end
  end)

  it("takes bare JSON, and answers with the status of HTTP", function()
    start()
    local response = ask("application/json", '{"name":"emma"}')
    assert.same({ 200, "application/json", "emma" }, { response.status, response.headers["content-type"],
      response.json.name })
    assert.equal(grpc.frame(EMMA), called().body)
    gateway:upstream("service.example", { chunks = {},
      trailers = { ["grpc-status"] = "5", ["grpc-message"] = "gone" } })
    response = ask("application/json", "")
    assert.same({ 404, { code = 5, message = "gone", details = {} } }, { response.status, response.json })
    gateway:upstream("service.example", { headers = { ["Content-Type"] = "application/grpc" }, chunks = {
      grpc.frame(EMMA) .. grpc.frame(EMMA) }, trailers = { ["grpc-status"] = "0" } })
    response = ask("application/json", "", LIST)
    assert.equal("application/json", response.headers["content-type"])
    assert.equal(2, select(2, response.body:gsub('"name":"emma"', "")))
  end)

  it("puts all trailers into the last frame, those of the fields as well", function()
    start({ chunks = {}, trailers = { ["grpc-status"] = "5", ["Grpc-Message"] = "no%0Abook", ["x-b"] = "2",
      ["X-A"] = "1", ["grpc-status-details-bin"] = "CAU" } }, {})
    assert.equal(trailers("grpc-status:5\r\ngrpc-message:no%0Abook\r\ngrpc-status-details-bin:CAU\r\n"
      .. "x-a:1\r\nx-b:2\r\n"), ask("application/grpc-web", "").body)
    gateway:upstream("service.example", { headers = { ["grpc-status"] = "7", ["grpc-message"] = "no" }, body = "" })
    local response = ask("application/grpc-web", "")
    assert.equal(trailers "grpc-status:7\r\ngrpc-message:no\r\n", response.body)
    assert.equal("grpc-status,grpc-message,grpc-status-details-bin", response.headers["access-control-expose-headers"])
  end)

  it("tells in the last frame what went wrong on the way", function()
    for _, case in ipairs {
      { { status = 503, body = "<p>busy" },
        "grpc-status:14\r\ngrpc-message:the service answered with HTTP status 503\r\n" },
      { { body = "" }, "grpc-status:2\r\ngrpc-message:the service told no status\r\n" },
      { { refuse = true }, "grpc-status:14\r\n" },
    } do
      start(case[1], {})
      local response = ask("application/grpc-web", "")
      assert.equal(200, response.status)
      assert.matches(case[2], response.body, 1, true)
      assert.equal("\128", response.body:sub(1, 1))
    end
    for chunk, expected in pairs { ["\0\0\0\0\5ab"] = "the last message is cut short", ["\1\0\0\0\0"] = "compressed",
      ["\0\0\0\0\1\255"] = "malformed" } do
      start { chunks = { grpc.frame(EMMA), chunk }, trailers = { ["grpc-status"] = "0" } }
      local body = ask("application/grpc-web+json", "").body
      assert.matches("emma", body)
      assert.matches("grpc%-status:13\r\ngrpc%-message:[^\r]*" .. expected, body)
    end
  end)

  it("translates what other plugins answer", function()
    start(nil, nil, { plugins = { { name = "grpc-web" }, { name = "key-auth" } } })
    local response = ask("application/grpc-web", "")
    assert.equal(200, response.status)
    assert.equal("application/grpc-web", response.headers["content-type"])
    assert.equal(trailers "grpc-status:16\r\ngrpc-message:No API key found in request\r\n", response.body)
    assert.equal(401, ask("text/plain", "").status)
  end)

  it("answers preflight requests, and says who may read", function()
    start(nil, { allow_origin_header = "https://app.example" })
    local response = gateway:request { method = "OPTIONS", path = GET }
    assert.same({ 200, "OK", "https://app.example", "POST", "application/grpc-web-text+proto" }, { response.status,
      response.body, response.headers["access-control-allow-origin"], response.headers["access-control-allow-methods"],
      response.headers["content-type"] })
    assert.matches("^content%-type,x%-grpc%-web,x%-user%-agent", response.headers["access-control-allow-headers"])
    assert.equal("https://app.example", ask("application/grpc-web", "").headers["access-control-allow-origin"])
    gateway = start(nil, {})
    assert.equal("*", ask("application/grpc-web", "").headers["access-control-allow-origin"])
  end)

  it("refuses what is none of its own, and lets gRPC pass", function()
    start()
    assert.equal(415, ask("text/plain", "x").status)
    assert.equal(415, gateway:get(GET).status)
    assert.equal("grpc-status:12\r\n", gateway:get(GET, { ["Content-Type"] = "application/grpc-web" }).body:sub(6, 21))
    local response = ask("application/grpc+proto", grpc.frame(EMMA))
    assert.same({ "application/grpc", grpc.frame(EMMA), "0" }, { response.headers["content-type"], response.body,
      response.trailers["grpc-status"] })
  end)

  it("refuses JSON that is not what the method takes", function()
    start()
    for body, expected in pairs { ["{"] = "expected a name", ['{"pages":"x"}'] = "invalid value",
      [("["):rep(100000)] = "nested too deeply" } do
      local response = ask("application/json", body)
      assert.equal(400, response.status)
      assert.matches(expected, response.json.message)
      assert.matches("grpc%-status:3\r\ngrpc%-message:.*" .. expected,
        ask("application/grpc-web+json", grpc.frame(body)).body)
    end
    assert.matches("cut short", ask("application/grpc-web+json", "\0\0\0\0\5ab").body)
    assert.equal('Unknown path "/library.Library/None"',
      ask("application/json", "{}", "/library.Library/None").json.message)
    start(nil, {})
    assert.equal("transcoding requests require a .proto file defining the service", ask("application/json", "{}")
      .json.message)
  end)

  describe("behind a route that strips", function()
    local function path_with(config)
      start(nil, config, { services = { { name = "s", url = "http://service.example", routes = {
        { name = "r", paths = { "/api" }, strip_path = true } } } } })
      ask("application/grpc-web", grpc.frame(EMMA), "/api" .. GET)
      return called().path
    end

    it("sends the whole path", function()
      assert.equal("/api" .. GET, path_with {})
    end)

    it("sends what is left when told to", function()
      assert.equal(GET, path_with { pass_stripped_path = true })
      assert.equal("emma", (path_with { pass_stripped_path = true, proto = FILE }
        and ask("application/json", '{"name":"emma"}', "/api" .. GET).json.name))
    end)
  end)

  it("checks its .proto file", function()
    local _, err = spec.check { plugins = { { name = "grpc-web", config = { proto = "none.proto" } } } }
    assert.matches("config.proto: expected a .proto file that compiles, found .*/none.proto: No such file", err)
  end)
end)
