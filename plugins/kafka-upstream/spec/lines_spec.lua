-- SPDX-License-Identifier: Apache-2.0
-- A stream of records in, a stream of answers out.
local spec = require "sluice.spec"
local json = require "sluice.json"

describe("kafka-upstream makes a record of each line", function()
  local gateway

  local function with(config)
    config.topic = config.topic or "orders"
    config.value = config.value or "body"
    config.batch = config.batch or "lines"
    gateway = spec.gateway {
      topics = { orders = 4, audit = 1 },
      routes = { { name = "in", paths = { "/in" }, plugins = { { name = "kafka-upstream", config = config } } } },
    }
  end

  -- The lines of an answer, and the last one.
  local function answers_of(response)
    local list = {}
    for line in response.body:gmatch("[^\n]+") do list[#list + 1] = assert(json.decode(line)) end
    local last = table.remove(list)
    return list, last
  end

  local function post(body, headers)
    local response = gateway:request { method = "POST", path = "/in", headers = headers,
      chunks = type(body) == "table" and body or { body } }
    assert.equal(200, response.status)
    assert.equal("application/x-ndjson", response.headers["content-type"])
    return answers_of(response)
  end

  it("and answers each with a line, in order", function()
    with { key = "$(body.id)" }
    local list, last = post('{"id":1}\n{"id":"b" , "x":1.0}\r\n\n  \n{"id":1}')
    local records = gateway:records("orders")
    assert.same({ '{"id":1}', '{"id":"b" , "x":1.0}', '{"id":1}' },
      { records[1].value, records[2].value, records[3].value })
    assert.equal("b", records[2].key)
    for i, line in ipairs { 1, 2, 5 } do
      assert.same({ line = line, topic = "orders", partition = records[i].partition, offset = records[i].offset },
        list[i])
    end
    assert.same({ message = "done", sent = 3, failed = 0, dropped = 0 }, last)
  end)

  it("wherever pieces of the body end", function()
    with {}
    local body, pieces = '{"a":1}\n{"b":2}\r\n{"c":3}\n', {}
    for i = 1, #body do pieces[i] = body:sub(i, i) end
    local list, last = post(pieces)
    assert.same({ 3, 3 }, { #list, last.sent })
    assert.equal('{"b":2}', gateway:records("orders")[2].value)
  end)

  it("and tells of those that cannot be one, while the others go on", function()
    with { key = "$(body.order.id)", batch_line_most = 40 }
    local list, last = post('{"order":{"id":1}}\n{"n":1}\nno json\n{"long":"' .. ("x"):rep(100)
      .. '"}\n{"order":{"id":2}}\n')
    assert.same({ 2, 3 }, { last.sent, last.failed })
    assert.same({ 2, 422, "key" }, { list[2].line, list[2].status, list[2].field })
    assert.same({ 3, 400 }, { list[3].line, list[3].status })
    assert.matches("no JSON", list[3].error)
    assert.same({ 4, 413 }, { list[4].line, list[4].status })
    assert.same({ 5, "orders" }, { list[5].line, list[5].topic })
    assert.equal(2, #gateway:records("orders"))
  end)

  it("of which there may be more than it remembers", function()
    with {}
    local body = {}
    for i = 1, 5000 do body[i] = i .. "\n" end
    local list, last = post(table.concat(body))
    assert.same({ 5000, 5000 }, { #list, last.sent })
    for i, entry in ipairs(list) do assert.equal(i, entry.line) end
  end)

  it("and says what Kafka says of each", function()
    with {}
    gateway:fail_topic("orders", "MSG_SIZE_TOO_LARGE")
    local list, last = post("1\n2\n")
    assert.same({ 0, 2, 413, "MSG_SIZE_TOO_LARGE" }, { last.sent, last.failed, list[1].status, list[1].code })
    gateway:fail_topic("orders", "full")
    list = post("1\n2\n")
    assert.same({ 503, "full" }, { list[2].status, list[2].code })
    gateway:fail_topic("orders", "timeout")
    list = post("1\n")
    assert.same({ 504, "timeout" }, { list[1].status, list[1].code })
  end)

  it("and keeps the answers of those that went well to itself where the client prefers so", function()
    with { key = "$(body.id)" }
    local list, last = post('{"id":1}\n7x\n{"id":2}\n', { Prefer = "return=minimal" })
    assert.same({ 1, 2, 400 }, { #list, list[1].line, list[1].status })
    assert.same({ 2, 1 }, { last.sent, last.failed })
  end)

  it("without waiting for acknowledgements, when it is told so", function()
    with { wait = false }
    local list, last = post("1\n2\n")
    assert.same({ { line = 1, topic = "orders" }, { line = 2, topic = "orders" } }, list)
    assert.equal(2, last.sent)
  end)

  it("unless a function drops it", function()
    with { record_by_lua_functions = {
      "return function(record) if record.value ~= '2' then return record end end" } }
    local list, last = post("1\n2\n3\n")
    assert.same({ 2, 0, 1, true }, { last.sent, last.failed, last.dropped, list[2].dropped })
  end)

  it("of a body without any", function()
    with {}
    local list, last = post("\n\n")
    assert.same({ {}, 0 }, { list, last.sent })
    local response = gateway:post("/in", "")
    assert.equal(0, select(2, answers_of(response)).sent)
  end)

  it("where the type says so, with batch: auto", function()
    with { batch = "auto" }
    for _, kind in ipairs { "application/x-ndjson", "application/jsonl; charset=utf-8" } do
      assert.equal(2, select(2, post("1\n2\n", { ["Content-Type"] = kind })).sent)
    end
    assert.equal("message sent", gateway:post("/in", "1\n2\n", { ["Content-Type"] = "text/plain" }).json.message)
  end)

  it("in the topic that the query names", function()
    with { topics_query_arg = "topic", allowed_topics = { "audit" } }
    local list = answers_of(gateway:post("/in?topic=audit", "1\n"))
    assert.equal("audit", list[1].topic)
    list = answers_of(gateway:post("/in?topic=secret", "1\n"))
    assert.equal(403, list[1].status)
    list = answers_of(gateway:post("/in?topic=audit,orders", "1\n"))
    assert.equal(422, list[1].status)
  end)

  it("refuses a batch without the body", function()
    local _, err = spec.check { plugins = { { name = "kafka-upstream",
      config = { topic = "t", batch = "lines", forward_body = false, forward_uri = true } } } }
    assert.matches("expected forward_body: true", err, 1, true)
  end)
end)
