-- SPDX-License-Identifier: Apache-2.0
-- Keys and values by the schemas of a registry.
local spec = require "sluice.spec"
local json = require "sluice.json"
local schema_registry = require "spec.support.schema_registry"

local ORDER = [[{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},
  {"name":"note","type":["null","string"],"default":null}]}]]
local ORDER_JSON = '{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}'
local ORDER_PROTO = 'syntax = "proto3"; message Order { int64 id = 1; } message Other { string name = 1; }'

describe("kafka-upstream with a schema registry", function()
  local registry, gateway

  before_each(function()
    registry = schema_registry.new()
    registry:add("orders-value", { text = ORDER })
    registry:add("text", { text = '"string"' })
    registry:add("number", { text = '"long"' })
    registry:add("json", { text = ORDER_JSON, type = "JSON" })
    registry:add("proto", { text = ORDER_PROTO, type = "PROTOBUF" })
    registry:add("others-value", { text = '{"type":"record","name":"O","fields":[{"name":"id","type":"string"}]}' })
  end)

  local function with(confluent, config)
    config = config or {}
    confluent.url = "http://registry.test"
    config.schema_registry = { confluent = confluent }
    config.topic, config.value = "orders", config.value or "body"
    gateway = spec.gateway {
      topics = { orders = 1, others = 1, dead = 1 }, upstreams = { ["registry.test"] = registry.answer },
      dns = { ["registry.test"] = "10.0.0.8" },
      routes = { { name = "in", paths = { "/in" }, plugins = { { name = "kafka-upstream", config = config } } } },
    }
  end

  local function sent(topic)
    return gateway:records(topic or "orders")
  end

  it("writes values as the subject of the topic says", function()
    with {}
    local response = gateway:post("/in", '{"id":7}')
    assert.equal(200, response.status, response.body)
    assert.equal("\0\0\0\0\1\14\0", sent()[1].value)
  end)

  it("refuses what does not fit, and says where", function()
    with { value_schema = { subject_name = "orders-value", schema_version = "1" } }
    local response = gateway:post("/in", '{"id":"x"}')
    assert.equal(422, response.status)
    local answer = response.json
    assert.same({ "the value does not fit its schema", '/id: expected a long, found "x"', "value_schema", "/id" },
      { answer.message, answer.error, answer.field, answer.path })
    assert.equal(422, gateway:post("/in", "{").status)
    assert.equal(0, #sent())
  end)

  it("writes by JSON Schema and Protobuf as well", function()
    with { value_schema = { subject_name = "json" } }
    assert.equal(200, gateway:post("/in", '{ "id": 7 }').status)
    assert.equal('\0\0\0\0\4{ "id": 7 }', sent()[1].value)
    local answer = gateway:post("/in", '{"id":"x"}')
    assert.same({ 422, "/id" }, { answer.status, answer.json.path })
    with { value_schema = { subject_name = "proto", message = "Other" } }
    assert.equal(200, gateway:post("/in", '{"name":"a"}').status)
    assert.equal("\0\0\0\0\5\2\2\10\1a", sent()[1].value)
    answer = gateway:post("/in", '{"name":{}}')
    assert.equal(422, answer.status)
    assert.matches("name", answer.json.error)
  end)

  it("writes keys, which are texts or JSON", function()
    with({ key_schema = { subject_name = "text" } }, { key = "$(body.key)" })
    assert.equal(200, gateway:post("/in", '{"key":"12"}').status)
    assert.same({ "\0\0\0\0\2\00412", '{"key":"12"}' }, { sent()[1].key, sent()[1].value })
    with({ key_schema = { subject_name = "number" } }, { key = "$(body.key)" })
    assert.equal(200, gateway:post("/in", '{"key":"12"}').status)
    assert.equal("\0\0\0\0\3\24", sent()[1].key)
    local answer = gateway:post("/in", '{"key":"x"}')
    assert.same({ 422, "the key does not fit its schema", 'expected a long, found "x"', "key_schema" },
      { answer.status, answer.json.message, answer.json.error, answer.json.field })
  end)

  it("writes each of a batch, and tells of each that does not fit", function()
    with({}, { batch = "auto" })
    local response = gateway:post("/in", '[{"id":1},{"id":"x"},{"id":3}]', { ["Content-Type"] = "application/json" })
    assert.same({ 207, 2, 1 }, { response.status, response.json.sent, response.json.failed })
    assert.same({ 422, "/id" }, { response.json.records[2].status, response.json.records[2].path })
    assert.same({ "\0\0\0\0\1\2\0", "\0\0\0\0\1\6\0" }, { sent()[1].value, sent()[2].value })
    local lines = gateway:post("/in", '{"id":4}\n{"id":[]}\n', { ["Content-Type"] = "application/x-ndjson" })
    assert.matches('"path":"/id"', lines.body, 1, true)
    assert.equal("\0\0\0\0\1\8\0", sent()[3].value)
  end)

  it("uses each topic's own subject, where several are named", function()
    with({}, { topics_query_arg = "to", allowed_topics = { "others" } })
    local response = gateway:post("/in?to=orders,others", '{"id":1}')
    assert.same({ 207, 1, 1 }, { response.status, response.json.sent, response.json.failed })
    assert.equal(0, #sent("others"))
    response = gateway:post("/in?to=others", '{"id":"a"}')
    assert.equal(200, response.status)
    assert.equal("\0\0\0\0\6\2a", sent("others")[1].value)
  end)

  it("leaves Kafka's null as it is", function()
    with({}, { value = "$(body.v)", key = "k" })
    assert.equal(200, gateway:post("/in", '{"v":null}').status)
    assert.is_nil(sent()[1].value)
  end)

  it("sets aside what its schema refuses, as it was", function()
    with({}, { dead_letter_topic = "dead" })
    local response = gateway:post("/in", '{"id":"x"}')
    assert.same({ 422, "dead" }, { response.status, response.json.dead_letter.topic })
    assert.same({ '{"id":"x"}', "value_schema" },
      { sent("dead")[1].value, sent("dead")[1].headers["dead-letter-field"] })
  end)

  it("says that the registry is away, or does not know the subject", function()
    with { value_schema = { subject_name = "nothing" } }
    local response = gateway:post("/in", '{"id":1}')
    assert.same({ 502, "the value cannot be encoded", "subject nothing: Subject 'nothing' not found." },
      { response.status, response.json.message, response.json.error })
    with {}
    registry.away = { status = 500, json = { error_code = 50001, message = "Error in the backend data store" } }
    response = gateway:post("/in", '{"id":1}')
    assert.same({ 503, "1" }, { response.status, response.headers["retry-after"] })
    assert.matches("Error in the backend data store", response.json.error, 1, true)
    registry.away = nil
    gateway:advance(2)
    assert.equal(200, gateway:post("/in", '{"id":1}').status)
  end)

  it("writes Avro's own JSON when told to", function()
    with { avro_form = "avro" }
    assert.equal(422, gateway:post("/in", '{"id":1,"note":"a"}').status)
    assert.equal(200, gateway:post("/in", json.encode { id = 1, note = { string = "a" } }).status)
    assert.equal("\0\0\0\0\1\2\2\2a", sent()[1].value)
  end)
end)
