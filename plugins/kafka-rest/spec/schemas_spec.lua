-- SPDX-License-Identifier: Apache-2.0
-- Records by the schemas of a registry, in v2 over topics in memory.
local spec = require "sluice.spec"
local json = require "sluice.json"
local schema_registry = require "spec.support.schema_registry"

local ORDER = [[{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},
  {"name":"note","type":["null","string"]}]}]]

describe("kafka-rest with a schema registry", function()
  local gateway, registry

  before_each(function()
    registry = schema_registry.new {}
    gateway = spec.gateway {
      topics = { orders = 1 }, upstreams = { ["registry.test"] = registry.answer },
      dns = { ["registry.test"] = "10.0.0.8" },
      plugins = { { name = "kafka-rest", config = {
        schema_registry = { confluent = { url = "http://registry.test" } } } } },
    }
  end)

  local function post(kind, body)
    local response = gateway:post("/topics/orders", json.encode(body),
      { ["Content-Type"] = "application/vnd.kafka." .. kind .. ".v2+json" })
    return response.status, response.json
  end

  it("produces Avro in its JSON form, by a schema that comes along, then by its id", function()
    local status, body = post("avro", { value_schema = ORDER,
      records = { { value = { id = 7, note = { string = "x" } } } } })
    assert.equal(200, status, json.encode(body))
    assert.equal(1, body.value_schema_id)
    assert.equal(json.null, body.key_schema_id)
    status = post("avro", { value_schema_id = body.value_schema_id,
      records = { { value = { id = 8, note = json.null } } } })
    assert.equal(200, status)
    local records = gateway:records "orders"
    assert.same({ "\0\0\0\0\1\14\2\2x", "\0\0\0\0\1\16\0" }, { records[1].value, records[2].value })
  end)

  it("produces by JSON Schema and Protobuf", function()
    local status, body = post("jsonschema", { value_schema = '{"type":"object","required":["id"]}',
      records = { { value = { id = 7 } } } })
    assert.equal(200, status, json.encode(body))
    status, body = post("protobuf", { value_schema = 'syntax = "proto3"; message Order { int64 id = 1; }',
      records = { { value = { id = 7 } } } })
    assert.equal(200, status, json.encode(body))
    assert.equal('\0\0\0\0\1{"id":7}', gateway:records("orders")[1].value)
    assert.equal("\0\0\0\0\2\0\8\7", gateway:records("orders")[2].value)
  end)

  it("tells what is missing and what does not fit", function()
    local function code(body)
      local status, answer = post("avro", body)
      return { status, answer.error_code }
    end
    assert.same({ 422, 42202 }, code { records = { { value = 1 } } })
    assert.same({ 422, 42201 }, code { value_schema = '"int"', records = { { key = 1, value = 1 } } })
    assert.same({ 422, 42203 }, code { value_schema = ORDER, records = { { value = { id = "no number" } } } })
    assert.same({ 422, 42205 }, code { value_schema = '{"type":"nonsense"}', records = { { value = 1 } } })
    assert.same({ 422, 42205 }, code { value_schema_id = 99, records = { { value = 1 } } })
    assert.same({ 422, 422 }, code { value_schema = 7, records = { { value = 1 } } })
    assert.equal(0, #gateway:records "orders")
  end)

  it("tells that the registry is away as what may pass", function()
    gateway:upstream("registry.test", function() return { status = 503 } end)
    local status, body = post("avro", { value_schema = '"int"', records = { { value = 1 } } })
    assert.same({ 500, 50003 }, { status, body.error_code })
  end)
end)
