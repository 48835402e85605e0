-- SPDX-License-Identifier: Apache-2.0
-- A request that becomes several records.
local spec = require "sluice.spec"

describe("kafka-upstream", function()
  local gateway

  local function with(config)
    config.topic = config.topic or "orders"
    config.value = config.value or "body"
    gateway = spec.gateway {
      topics = { orders = 4, audit = 1, secret = 1, small = { fails = "MSG_SIZE_TOO_LARGE" } },
      routes = { { name = "in", paths = { "/in" }, plugins = { { name = "kafka-upstream", config = config } } } },
    }
  end

  local JSON = { ["Content-Type"] = "application/json; charset=utf-8" }

  local function values_of(topic)
    local list = {}
    for i, record in ipairs(gateway:records(topic)) do list[i] = record.value end
    return list
  end

  describe("makes a record of each element of a JSON array", function()
    it("as it is written, with an entry for each in the answer", function()
      with { batch = "array", key = "$(body.id)" }
      local response = gateway:post("/in", '[ {"id":1, "n":1.0},{"id":"a"} , {"id":1,"x":[]}]')
      assert.equal(200, response.status)
      assert.same({ "messages sent", 3, 0, 3 },
        { response.json.message, response.json.sent, response.json.failed, #response.json.records })
      local records = gateway:records("orders")
      assert.same({ '{"id":1, "n":1.0}', '{"id":"a"}', '{"id":1,"x":[]}' }, values_of("orders"))
      for i, record in ipairs(records) do
        local entry = response.json.records[i]
        assert.same({ "orders", record.partition, record.offset }, { entry.topic, entry.partition, entry.offset })
      end
      assert.same({ "1", "a", "1" }, { records[1].key, records[2].key, records[3].key })
    end)

    it("within the body", function()
      with { batch = "array", batch_at = "data.records", value = "$(body.value)", key = "$(headers.x_tenant)" }
      local body = '{"data":{"records":[{"value":1},{"value":{"a":2}}]}}'
      local response = gateway:post("/in", body, { ["X-Tenant"] = "t" })
      assert.equal(2, response.json.sent)
      assert.same({ "1", '{"a":2}' }, values_of("orders"))
      assert.equal("t", gateway:records("orders")[2].key)
    end)

    it("in Kong's format too", function()
      with { batch = "array", value = "message", forward_method = true }
      gateway:post("/in", '[{"n":1},7]')
      local records = gateway:records("orders")
      assert.same({ method = "POST", body = '{"n":1}', body_args = { n = 1 } }, records[1].json)
      assert.same({ method = "POST", body = "7", body_args = 7 }, records[2].json)
    end)

    it("more of them than a batch has places", function()
      with { batch = "array" }
      local list = {}
      for i = 1, 1500 do list[i] = tostring(i) end
      local response = gateway:post("/in", "[" .. table.concat(list, ",") .. "]")
      assert.same({ 200, 1500 }, { response.status, response.json.sent })
      for _, entry in ipairs(response.json.records) do assert.is_number(entry.offset) end
    end)

    it("none of an empty one", function()
      with { batch = "array" }
      local response = gateway:post("/in", "[]")
      assert.equal(200, response.status)
      assert.equal('[]', response.body:match('"records":(%[%])'))
    end)
  end)

  it("answers 207 when some of them cannot be records, and sends the others", function()
    with { batch = "array", key = "$(body.order.id)" }
    local response = gateway:post("/in", '[{"order":{"id":1}},{"n":2},{"order":{"id":3}}]')
    assert.equal(207, response.status)
    assert.same({ 2, 1 }, { response.json.sent, response.json.failed })
    assert.same({ 422, "key" }, { response.json.records[2].status, response.json.records[2].field })
    assert.is_number(response.json.records[3].offset)
    assert.equal(2, #gateway:records("orders"))
  end)

  it("answers what all failures have in common", function()
    with { batch = "array", topic = "small" }
    local response = gateway:post("/in", "[1,2]")
    assert.equal(413, response.status)
    assert.equal("MSG_SIZE_TOO_LARGE", response.json.records[1].code)
    gateway:fail_topic("small", "full")
    response = gateway:post("/in", "[1,2]")
    assert.same({ 503, "1" }, { response.status, response.headers["retry-after"] })
  end)

  it("answers 202 to a batch that it does not wait for", function()
    with { batch = "array", wait = false }
    local response = gateway:post("/in", "[1,2]")
    assert.same({ 202, 2, { topic = "orders" } },
      { response.status, response.json.sent, response.json.records[1] })
    assert.same({ "1", "2" }, values_of("orders"))
  end)

  it("says which elements functions dropped", function()
    with { batch = "array", record_by_lua_functions = {
      "return function(record) if record.value ~= '2' then return record end end" } }
    local response = gateway:post("/in", "[1,2,3]")
    assert.same({ 200, 2, 0, true },
      { response.status, response.json.sent, response.json.failed, response.json.records[2].dropped })
  end)

  it("refuses a batch that is none", function()
    with { batch = "array", batch_at = "list", batch_most = 2 }
    local cases = { { '{"list":[1', 400 }, { "[1]", 422 }, { '{"list":7}', 422 }, { '{"list":[1,2,3]}', 413 } }
    for _, case in ipairs(cases) do
      local response = gateway:post("/in", case[1])
      assert.same({ case[2], "batch" }, { response.status, response.json.field })
    end
    assert.equal(0, #gateway:records("orders"))
  end)

  it("refuses a batch of far too many before it looks at each", function()
    with { batch = "auto" }
    local body = "[" .. ("1,"):rep(1500000) .. "1]"
    local response = gateway:post("/in", body, { ["Content-Type"] = "application/json" })
    assert.same({ 413, "a batch has at most 10000 records", "batch" },
      { response.status, response.json.message, response.json.field })
  end)

  it("takes a batch of many in pieces, and answers so", function()
    with { batch = "array", batch_most = 300000 }
    local response = gateway:post("/in", "[" .. ("[1],"):rep(99999) .. "1]")
    assert.same({ 200, 100000, "application/json; charset=utf-8" },
      { response.status, response.json and response.json.sent, response.headers["content-type"] })
    assert.same({ 100000, "messages sent", "orders", "orders" }, { #response.json.records, response.json.message,
      response.json.records[1].topic, response.json.records[100000].topic })
  end)

  it("remembers a long answer for its Idempotency-Key", function()
    with { batch = "array", idempotency = {} }
    local function ask() return gateway:post("/in", "[" .. ("1,"):rep(4999) .. "2]", { ["Idempotency-Key"] = "k" }) end
    local first, again = ask(), ask()
    assert.same({ 200, 5000, "true", first.body }, { again.status, again.json.sent,
      again.headers["idempotency-replayed"], again.body })
    assert.equal(5000, #gateway:records("orders"))
  end)

  it("says what an expression found in place of an object", function()
    with { batch = "array", key = "$(body.k.id)" }
    local records = gateway:post("/in", '[7,null,{"k":null},{}]').json.records
    assert.same({ "body is a number", "body is null", "422", "422" }, { records[1].error:match(": (.*)"),
      records[2].error:match(": (.*)"), tostring(records[3].status), tostring(records[4].status) })
  end)

  it("refuses a body that is larger than what may be held", function()
    gateway = spec.gateway {
      topics = { orders = 4 }, gateway = { limits = { max_buffered_body_bytes = 100 } },
      plugins = { { name = "kafka-upstream", config = { topic = "orders", value = "body" } } },
    }
    assert.equal(200, gateway:post("/in", ("x"):rep(100)).status)
    assert.equal(413, gateway:post("/in", ("x"):rep(101)).status)
    assert.equal(1, #gateway:records("orders"))
  end)

  it("takes an array for a batch where it may be either", function()
    with { batch = "auto" }
    assert.equal(2, gateway:post("/in", " [1,2]", JSON).json.sent)
    assert.equal("message sent", gateway:post("/in", '{"a":[]}', JSON).json.message)
    assert.equal("message sent", gateway:post("/in", "[3]", { ["Content-Type"] = "text/plain" }).json.message)
    assert.same({ "1", "2", '{"a":[]}', "[3]" }, values_of("orders"))
  end)

  describe("writes to the topics that the query names", function()
    it("one record each", function()
      with { topics_query_arg = "topics", allowed_topics = { "audit" } }
      local response = gateway:post("/in?topics=audit,orders,audit", "v")
      assert.same({ 200, 2 }, { response.status, response.json.sent })
      assert.same({ { "v" }, { "v" } }, { values_of("audit"), values_of("orders") })
    end)

    it("the answer of one is that of a record", function()
      with { topics_query_arg = "topics", allowed_topics = { "audit" } }
      local response = gateway:post("/in?topics=audit", "v")
      assert.same({ 200, "message sent", "audit" }, { response.status, response.json.message, response.json.topic })
    end)

    it("and to the configured one when it names none", function()
      with { topics_query_arg = "topics" }
      assert.equal("orders", gateway:post("/in", "v").json.topic)
      assert.equal("orders", gateway:post("/in?topics=", "v").json.topic)
    end)

    it("but to no others", function()
      with { topics_query_arg = "topics", allowed_topics = { "audit" } }
      local response = gateway:post("/in?topics=audit,secret", "v")
      assert.equal(403, response.status)
      assert.same({ {}, {} }, { values_of("audit"), values_of("secret") })
    end)

    it("each element of a batch", function()
      with { topics_query_arg = "topics", allowed_topics = { "audit" }, batch = "array" }
      assert.equal(4, gateway:post("/in?topics=audit,orders", "[1,2]").json.sent)
      assert.same({ { "1", "2" }, { "1", "2" } }, { values_of("audit"), values_of("orders") })
    end)
  end)
end)
