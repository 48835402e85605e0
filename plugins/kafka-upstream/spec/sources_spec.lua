-- SPDX-License-Identifier: Apache-2.0
-- Where the parts of a record come from.
local spec = require "sluice.spec"

describe("kafka-upstream makes a record", function()
  local gateway

  local function with(config, topics)
    config.topic = config.topic or "orders"
    config.value = config.value or "body"
    gateway = spec.gateway {
      topics = topics or { orders = 8, ["orders.eu"] = 1, ["orders.us"] = 1, secret = 1 },
      routes = { { name = "in", paths = { "~/in/(?<region>[a-z]+)$", "/in" },
        plugins = { { name = "kafka-upstream", config = config } } } },
    }
  end

  local function send(body, headers, path)
    local response = gateway:post(path or "/in", body, headers)
    return response, gateway:records("orders")[1]
  end

  local function refused(body, headers, path)
    local response, record = send(body, headers, path)
    assert.is_nil(record)
    return response
  end

  describe("with a key from", function()
    it("a header", function()
      with { key = "$(headers.x_order)" }
      local _, record = send("v", { ["X-Order"] = "17" })
      assert.equal("17", record.key)
    end)

    it("several headers of one name, in one line", function()
      with { key = "$(headers.x_order)" }
      local _, record = send("v", { ["X-Order"] = { "1", "2" } })
      assert.equal("1, 2", record.key)
    end)

    it("a query argument", function()
      with { key = "$(query_params.order)" }
      local _, record = send("v", nil, "/in?order=a%20b")
      assert.equal("a b", record.key)
    end)

    it("a group of the path", function()
      with { key = "$(uri_captures.region)" }
      local _, record = send("v", nil, "/in/eu")
      assert.equal("eu", record.key)
    end)

    it("a member of the body, with all digits of a long number", function()
      with { key = "$(body.order.id)" }
      local _, record = send('{"order":{"id":12345678901234567}}')
      assert.equal("12345678901234567", record.key)
    end)

    it("text around several expressions", function()
      with { key = "order-$(body.id)/$(method)" }
      local _, record = send('{"id":5}')
      assert.equal("order-5/POST", record.key)
    end)

    it("Kong's key_query_arg", function()
      with { key_query_arg = "k" }
      local _, record = send("v", nil, "/in?k=seven")
      assert.equal("seven", record.key)
    end)

    it("nothing, where there is nothing", function()
      with { key = "$(headers.x_order)" }
      local response, record = send("v")
      assert.equal(200, response.status)
      assert.is_nil(record.key)
    end)
  end)

  it("answers 422 with the field when an expression fails on what the client sent", function()
    with { key = "$(body.order.id)" }
    local response = refused('{"id":1}')
    assert.equal(422, response.status)
    assert.equal("key", response.json.field)
    assert.equal("config.key finds no value in this request", response.json.message)
    assert.is_string(response.json.request_id)
  end)

  it("answers 400 when an expression looks at a body that is no JSON", function()
    with { key = "$(body.id)" }
    local response = refused("{")
    assert.equal(400, response.status)
    assert.equal("the body is no JSON", response.json.message)
  end)

  describe("for a topic", function()
    it("from the path", function()
      with { topic = "orders.$(uri_captures.region)" }
      local response = gateway:post("/in/eu", "v")
      assert.equal("orders.eu", response.json.topic)
      assert.equal("v", gateway:records("orders.eu")[1].value)
    end)

    it("of allowed_topics alone, where they are given", function()
      with { topic = "$(headers.x_topic)", allowed_topics = { "orders" } }
      assert.equal(200, send("v", { ["X-Topic"] = "orders" }).status)
      local response = gateway:post("/in", "v", { ["X-Topic"] = "secret" })
      assert.equal(403, response.status)
      assert.equal("topic", response.json.field)
      assert.equal(0, #gateway:records("secret"))
    end)

    it("that can be a topic's name", function()
      with { topic = "$(headers.x_topic)" }
      for _, name in ipairs { "a/b", ".", "..", "", ("t"):rep(250), "ä" } do
        assert.equal(422, gateway:post("/in", "v", { ["X-Topic"] = name }).status, name)
      end
      assert.equal(422, gateway:post("/in", "v").status)
    end)
  end)

  describe("for the partition", function()
    it("that the configuration names", function()
      with { partition = 5 }
      local response, record = send("v")
      assert.same({ 5, 5 }, { response.json.partition, record.partition })
    end)

    it("that the request names", function()
      with { partition = "$(query_params.partition)" }
      local _, record = send("v", nil, "/in?partition=3")
      assert.equal(3, record.partition)
    end)

    it("of its key, where the request names none", function()
      with { partition = "$(query_params.partition)" }
      assert.equal(200, send("v").status)
    end)

    it("and refuses what is no number of one", function()
      with { partition = "$(query_params.partition)" }
      for _, wrong in ipairs { "x", "-1", "1.5", "2147483648", "99999999999999999999" } do
        local response = refused("v", nil, "/in?partition=" .. wrong)
        assert.equal(422, response.status, wrong)
        assert.equal("partition", response.json.field)
      end
    end)
  end)

  describe("with the time", function()
    it("in milliseconds", function()
      with { timestamp = "$(body.at)" }
      local _, record = send('{"at":1700000000123}')
      assert.equal(1700000000123, record.timestamp)
    end)

    it("as RFC 3339 writes it", function()
      with { timestamp = "$(headers.x_time)" }
      local _, record = send("v", { ["X-Time"] = "2023-11-14T23:13:20.5+01:00" })
      assert.equal(1700000000500, record.timestamp)
    end)

    it("of its coming, where the request says none", function()
      with { timestamp = "$(headers.x_time)" }
      local _, record = send("v")
      assert.equal(gateway:now() * 1000, record.timestamp)
    end)

    it("and refuses what is none", function()
      with { timestamp = "$(headers.x_time)" }
      local response = refused("v", { ["X-Time"] = "yesterday" })
      assert.same({ 422, "timestamp", "yesterday" }, { response.status, response.json.field, response.json.error })
    end)
  end)

  it("with headers, and none for those without a value", function()
    with { headers = { tenant = "$(headers.x_tenant)", kind = "order", none = "$(headers.x_none)" } }
    local _, record = send("v", { ["X-Tenant"] = "acme" })
    assert.same({ { "kind", "order" }, { "tenant", "acme" } }, record.fields)
  end)

  describe("with the trace of the request", function()
    local TRACE = { traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate = "a=1" }

    it("in its headers", function()
      with {}
      local _, record = send("v", TRACE)
      assert.same(TRACE, record.headers)
    end)

    it("beside others", function()
      with { headers = { kind = "order" } }
      local _, record = send("v", TRACE)
      assert.same({ kind = "order", traceparent = TRACE.traceparent, tracestate = "a=1" }, record.headers)
    end)

    it("unless it is not to", function()
      with { trace_headers = false }
      local _, record = send("v", TRACE)
      assert.same({}, record.headers)
    end)
  end)

  describe("whose value is", function()
    it("a member of the body", function()
      with { value = "$(body.payload)" }
      local _, record = send('{"payload":{"a":[1,2]}}')
      assert.same({ a = { 1, 2 } }, record.json)
    end)

    it("a text of the body as it is", function()
      with { value = "$(body.text)" }
      local _, record = send('{"text":"plain"}')
      assert.equal("plain", record.value)
    end)

    it("Kafka's null, where JSON says null", function()
      with { value = "$(body.payload)" }
      local response, record = send('{"payload":null}')
      assert.equal(200, response.status)
      assert.is_nil(record.value)
    end)

    it("never null for want of a value", function()
      with { value = "$(body.payload)" }
      local response = refused('{"other":1}')
      assert.same({ 422, "value" }, { response.status, response.json.field })
    end)

    it("Kong's message as functions change it", function()
      with { value = "message", message_by_lua_functions = {
        "return function(message) message.seen = message.body_args.n; return message end",
        "return function(message) message.body, message.body_args = nil, nil; return message end",
      } }
      local _, record = send('{"n":5}', { ["Content-Type"] = "application/json" })
      assert.same({ seen = 5 }, record.json)
    end)
  end)

  it("as a function makes it of the record and the exchange", function()
    with { key = "$(body.id)", record_by_lua_functions = { [[
      return function(record, exchange)
        record.key = record.key .. "!"
        record.value = { was = record.value, method = exchange.request:get_method() }
        record.headers = { { "by", "lua" } }
        record.partition = 2
        return record
      end]] } }
    local _, record = send('{"id":7}')
    assert.same({ "7!", 2, "lua" }, { record.key, record.partition, record.headers.by })
    assert.same({ was = '{"id":7}', method = "POST" }, record.json)
  end)

  it("and says so when a function drops it", function()
    with { record_by_lua_functions = { "return function() return nil end" } }
    local response = refused("v")
    assert.same({ 200, "message dropped" }, { response.status, response.json.message })
  end)

  it("and answers 500 when a function makes no record of it", function()
    with { record_by_lua_functions = { "return function() return 5 end" } }
    assert.equal(500, refused("v").status)
    assert.equal(1, #gateway:log("expected a record or nil, got number"))
  end)
end)

describe("kafka-upstream refuses", function()
  local function refusal(config)
    config.topic = config.topic or "t"
    local ok, err = spec.check { plugins = { { name = "kafka-upstream", config = config } } }
    assert.is_nil(ok)
    return err
  end

  it("a template that is no Lua", function()
    assert.matches("config.key: expected Lua expressions", refusal { key = "$(body.)" }, 1, true)
    assert.matches("config.topic: expected Lua expressions", refusal { topic = "$(1 +)" }, 1, true)
    assert.matches("config.value: expected Lua expressions", refusal { value = "$(1 +)" }, 1, true)
    assert.matches("config.headers", refusal { headers = { a = "$(1 +)" } }, 1, true)
  end)

  it("a value that is neither of its words nor a template", function()
    assert.matches("config.value: expected message, body, or a template", refusal { value = "raw" }, 1, true)
  end)

  it("a topic that cannot be one", function()
    assert.matches("config.topic", refusal { topic = "a/b" }, 1, true)
    assert.matches("config.topic", refusal { topic = ("t"):rep(250) }, 1, true)
  end)

  it("a partition that is none", function()
    for _, wrong in ipairs { -1, 1.5, "x", true } do
      assert.matches("config.partition: expected a whole number", refusal { partition = wrong }, 1, true)
    end
  end)

  it("two sources of the key", function()
    assert.matches("key_header", refusal { key = "$(id)", key_header = "X-Key" }, 1, true)
  end)

  it("code that is no Lua, or gives no function", function()
    assert.matches("record_by_lua_functions", refusal { record_by_lua_functions = { "return +" } }, 1, true)
    local ok, err = pcall(spec.gateway, { plugins = { { name = "kafka-upstream",
      config = { topic = "t", record_by_lua_functions = { "return 5" } } } } })
    assert.is_false(ok)
    assert.matches("record_by_lua_functions[1]: the code must return a function", err, 1, true)
  end)

  it("functions for a message where there is none", function()
    assert.matches("expected value: message",
      refusal { value = "body", message_by_lua_functions = { "return print" } }, 1, true)
  end)
end)
