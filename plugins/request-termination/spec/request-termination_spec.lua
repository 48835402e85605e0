-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

describe("request-termination", function()
  local gateway

  local function start(config)
    gateway = spec.gateway { plugins = { { name = "request-termination", config = config } } }
  end

  local function answer(config, path, headers)
    start(config)
    return gateway:get(path or "/", headers)
  end

  it("answers 503 and calls no service", function()
    local response = answer {}
    assert.equal(503, response.status)
    assert.equal('{"message":"Service unavailable"}', response.body)
    assert.equal("application/json; charset=utf-8", response.headers["content-type"])
    assert.equal(0, #gateway:requests())
  end)

  it("says the usual message of a status, where there is one", function()
    local usual = { [401] = "Unauthorized", [404] = "Not found", [405] = "Method not allowed",
      [500] = "An unexpected error occurred", [502] = "Bad Gateway", [503] = "Service unavailable" }
    for status, message in pairs(usual) do
      local response = answer { status_code = status }
      assert.same({ status, message }, { response.status, response.json.message })
    end
  end)

  it("has no body for other statuses", function()
    local response = answer { status_code = 204 }
    assert.same({ 204, "" }, { response.status, response.body })
    response = answer { status_code = 418 }
    assert.same({ 418, "", "0" }, { response.status, response.body, response.headers["content-length"] })
  end)

  it("says the message it is told", function()
    local response = answer { status_code = 403, message = 'not "now"' }
    assert.same({ 403, 'not "now"' }, { response.status, response.json.message })
  end)

  it("answers with a body of a content type", function()
    local response = answer { status_code = 200, body = "<p>closed</p>", content_type = "text/html" }
    assert.same({ 200, "<p>closed</p>", "text/html" },
      { response.status, response.body, response.headers["content-type"] })
    response = answer { status_code = 200, body = "{}" }
    assert.equal("application/json; charset=utf-8", response.headers["content-type"])
  end)

  it("answers HEAD as GET, without the body", function()
    start {}
    local response = gateway:head("/")
    assert.same({ 503, "", "33" }, { response.status, response.body, response.headers["content-length"] })
  end)

  describe("with echo", function()
    it("tells the request, the route and the service", function()
      start { echo = true, status_code = 404 }
      local response = gateway:request { method = "POST", path = "/a/b?x=1&y&x=2", headers = { ["X-One"] = "1" },
        body = { n = 5 } }
      assert.equal(404, response.status)
      local told = response.json
      assert.equal("Not found", told.message)
      local request = told.request
      assert.same({ "POST", "/a/b", "http", "gateway.example" },
        { request.method, request.path, request.scheme, request.host })
      assert.same({ x = { "1", "2" }, y = true }, request.query)
      assert.equal("1", request.headers["x-one"])
      assert.same({ n = 5 }, request.body)
      assert.equal('{"n":5}', request.raw_body)
      assert.equal("route", told.matched_route.name)
      assert.equal("service", told.matched_service.name)
      assert.same({ "string", "number", "string" }, { type(told.kong.node_id), type(told.kong.worker_pid),
        type(told.kong.hostname) })
      assert.equal(0, #gateway:requests())
    end)

    it("says its own message", function()
      assert.equal("look", answer({ echo = true, message = "look" }).json.message)
    end)
  end)

  describe("with a trigger", function()
    it("answers only when the request has a field or an argument of that name", function()
      start { trigger = "x-stop" }
      assert.equal(200, gateway:get("/").status)
      assert.equal(200, gateway:get("/?x-stopped=1", { ["X-Sto"] = "p" }).status)
      assert.equal(503, gateway:get("/", { ["X-Stop"] = "" }).status)
      assert.equal(503, gateway:get("/?a=1&x-stop").status)
      assert.equal(503, gateway:get("/?x-stop=false").status)
      assert.equal(2, #gateway:requests())
    end)

    it("echoes so too", function()
      start { trigger = "x-echo", echo = true, status_code = 200 }
      assert.is_nil(gateway:get("/").json.request)
      assert.is_table(gateway:get("/", { ["X-Echo"] = "1" }).json.request)
    end)
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "request-termination", config = config } } })
    end

    it("with a status that is none", function()
      assert.matches("config.status_code: expected an integer from 100 to 599, found 600",
        problem { status_code = 600 }, 1, true)
    end)

    it("with a message beside a body or its type", function()
      for _, config in ipairs { { message = "a", body = "b" }, { message = "a", content_type = "b" } } do
        assert.matches("message cannot be used with content_type or body", problem(config), 1, true)
      end
    end)

    it("with a type without a body", function()
      assert.matches("content_type requires a body", problem { content_type = "text/html" }, 1, true)
    end)

    it("with echo beside a body", function()
      assert.matches("echo cannot be used with content_type and body", problem { echo = true, body = "a" }, 1, true)
    end)

    it("with a trigger that cannot be a field's name", function()
      assert.matches("config.trigger: expected a header name", problem { trigger = "a b" }, 1, true)
    end)
  end)
end)
