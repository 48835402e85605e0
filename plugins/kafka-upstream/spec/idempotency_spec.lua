-- SPDX-License-Identifier: Apache-2.0
-- Requests that are sent again.
local spec = require "sluice.spec"

describe("kafka-upstream with idempotency", function()
  local gateway

  local function with(idempotency, config)
    config = config or {}
    config.topic, config.value, config.idempotency = "orders", "body", idempotency
    gateway = spec.gateway {
      topics = { orders = 4 },
      routes = {
        { name = "in", paths = { "/in" }, plugins = { { name = "kafka-upstream", config = config } } },
        { name = "other", paths = { "/other" }, plugins = { { name = "kafka-upstream", config = config } } },
      },
    }
  end

  local KEY = { ["Idempotency-Key"] = "8e03978e-40d5-43dd-bc93-6894a57f9324" }

  local function count()
    return #gateway:records("orders")
  end

  it("answers a request again, and makes no second record", function()
    with {}
    local first = gateway:post("/in", "v", KEY)
    local second = gateway:post("/in", "v", KEY)
    assert.equal(200, first.status)
    assert.same({ first.status, first.json, "application/json; charset=utf-8" },
      { second.status, second.json, second.headers["content-type"] })
    assert.same({ nil, "true" }, { first.headers["idempotency-replayed"], second.headers["idempotency-replayed"] })
    assert.equal(1, count())
  end)

  it("for as long as it is told", function()
    with { ttl = 60 }
    gateway:post("/in", "v", KEY)
    gateway:advance(59)
    gateway:post("/in", "v", KEY)
    assert.equal(1, count())
    gateway:advance(2)
    gateway:post("/in", "v", KEY)
    assert.equal(2, count())
  end)

  it("knows keys of another route, and requests without one, for others", function()
    with {}
    gateway:post("/in", "v", KEY)
    gateway:post("/other", "v", KEY)
    gateway:post("/in", "v")
    gateway:post("/in", "v")
    assert.equal(4, count())
  end)

  it("knows the same key of another consumer for another", function()
    gateway = spec.gateway {
      topics = { orders = 1 },
      consumers = { { username = "ada", keyauth_credentials = { { key = "a" } } },
        { username = "bob", keyauth_credentials = { { key = "b" } } } },
      plugins = { { name = "key-auth" },
        { name = "kafka-upstream", config = { topic = "orders", value = "body", idempotency = {} } } },
    }
    for _, key in ipairs { "a", "b", "a", "b" } do
      assert.equal(200, gateway:post("/in", "v", { apikey = key, ["Idempotency-Key"] = "same" }).status)
    end
    assert.equal(2, count())
  end)

  it("refuses a key that comes with another request", function()
    with {}
    gateway:post("/in", "v", KEY)
    local response = gateway:post("/in", "w", KEY)
    assert.same({ 422, "the Idempotency-Key was used for another request" }, { response.status, response.json.message })
    assert.equal(422, gateway:post("/in?x=1", "v", KEY).status)
    assert.equal(1, count())
  end)

  it("refuses a second request while the first is at work", function()
    with({}, { record_by_lua_functions = {
      "return function(record) require('sluice').sleep(5) return record end" } })
    local first = gateway:send { method = "POST", path = "/in", body = "v", headers = KEY }
    gateway:advance(1)
    local second = gateway:post("/in", "v", KEY)
    assert.same({ 409, "1" }, { second.status, second.headers["retry-after"] })
    gateway:advance(10)
    assert.equal(200, first:receive().status)
    assert.equal(200, gateway:post("/in", "v", KEY).status)
    assert.equal(1, count())
  end)

  it("forgets what failed, so that it may be tried again", function()
    with {}
    gateway:fail_topic("orders", "full")
    assert.equal(503, gateway:post("/in", "v", KEY).status)
    gateway:fail_topic("orders")
    local response = gateway:post("/in", "v", KEY)
    assert.same({ 200 }, { response.status, response.headers["idempotency-replayed"] })
    assert.equal(1, count())
  end)

  it("forgets a request whose function failed", function()
    with({}, { record_by_lua_functions = { [[
      local calls = 0
      return function(record) calls = calls + 1; if calls == 1 then error("once") end return record end]] } })
    assert.equal(500, gateway:post("/in", "v", KEY).status)
    assert.equal(200, gateway:post("/in", "v", KEY).status)
  end)

  it("remembers the answer to a batch", function()
    with({}, { batch = "array" })
    local first, second = gateway:post("/in", "[1,2]", KEY), gateway:post("/in", "[1,2]", KEY)
    assert.same(first.json, second.json)
    assert.equal(2, count())
  end)

  it("wants a key where one is required, of a size that can be kept", function()
    with { required = true, header = "X-Once" }
    local response = gateway:post("/in", "v", KEY)
    assert.same({ 400, "the field X-Once is required" }, { response.status, response.json.message })
    assert.equal(400, gateway:post("/in", "v", { ["X-Once"] = ("k"):rep(256) }).status)
    assert.equal(200, gateway:post("/in", "v", { ["X-Once"] = ("k"):rep(255) }).status)
    assert.equal(1, count())
  end)

  it("is not for streams", function()
    with({}, { batch = "auto" })
    local response = gateway:post("/in", "1\n", { ["Content-Type"] = "application/x-ndjson",
      ["Idempotency-Key"] = "k" })
    assert.equal(400, response.status)
    assert.equal(0, count())
    local _, err = spec.check { plugins = { { name = "kafka-upstream",
      config = { topic = "t", batch = "lines", idempotency = {} } } } }
    assert.matches("expected batch other than lines", err, 1, true)
  end)
end)
