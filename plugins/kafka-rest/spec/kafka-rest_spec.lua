-- SPDX-License-Identifier: Apache-2.0
-- What needs no cluster to ask: records of v2 into topics in memory, options, pieces of JSON. The rest is in
-- spec/kafka/rest_spec.lua.
local spec = require "sluice.spec"

local JSON, BINARY = "application/vnd.kafka.json.v2+json", "application/vnd.kafka.binary.v2+json"

local UPPER = [[
return { version = "1", priority = 1, produce = function(_, _, record)
  if record.value == "drop" then return nil end
  if record.value == "raise" then error("no") end
  record.value = record.value:upper()
  return record
end }
]]

describe("kafka-rest", function()
  local gateway

  local function start(config, topics, plugin)
    local plugins = { { name = "kafka-rest", config = config } }
    if plugin then plugins[2] = { name = "own" } end
    gateway = spec.gateway { topics = topics or { orders = 2 }, plugins = plugins,
      plugins_code = plugin and { own = plugin } }
  end

  local function post(path, body, kind)
    return gateway:post(path, body, { ["Content-Type"] = kind or JSON })
  end

  it("produces what stands in JSON as it was written", function()
    start()
    local response = post("/topics/orders", [[{"records":[
      {"value":{"b":1.50,"a":[ ],"n":12345678901234567890}, "key":"k\u0041"},{"value":null},{"value":"x"} ]}]])
    assert.equal(200, response.status, response.body)
    local records = gateway:records "orders"
    assert.same({ '{"b":1.50,"a":[ ],"n":12345678901234567890}', '"k\\u0041"' }, { records[1].value, records[1].key })
    assert.is_nil(records[2].value)
    assert.equal('"x"', records[3].value)
    for i = 1, 3 do
      assert.equal(records[i].partition, response.json.offsets[i].partition)
      assert.equal(records[i].offset, response.json.offsets[i].offset)
    end
  end)

  it("produces bytes, which is also meant where no format is told", function()
    start()
    for _, kind in ipairs { BINARY, "application/vnd.kafka.v2+json", "application/json",
      "application/vnd.kafka.v1+json", "application/vnd.kafka.binary.v1+json" } do
      assert.equal(200, post("/topics/orders", '{"records":[{"key":"AAE=","value":"AP8="}]}', kind).status)
    end
    for _, record in ipairs(gateway:records "orders") do
      assert.same({ "\0\1", "\0\255" }, { record.key, record.value })
    end
  end)

  it("takes v1's types, and answers in them", function()
    start()
    local response = gateway:post("/topics/orders", '{"records":[{"value":{"n":1}}]}',
      { ["Content-Type"] = "application/vnd.kafka.json.v1+json", Accept = "application/vnd.kafka.v1+json" })
    assert.same({ 200, "application/vnd.kafka.v1+json" }, { response.status, response.headers["content-type"] })
    assert.equal('{"n":1}', gateway:records("orders")[1].value)
    assert.equal(415, post("/topics/orders", "{}", "application/vnd.kafka.json.v9+json").status)
  end)

  it("answers in the type that the client wants", function()
    start()
    local function type_for(accept)
      return gateway:post("/topics/orders", '{"records":[{"value":1}]}',
        { ["Content-Type"] = JSON, Accept = accept }).headers["content-type"]
    end
    assert.equal("application/vnd.kafka.v2+json", type_for "*/*")
    assert.equal("application/json", type_for "application/json")
    assert.equal("application/json", type_for "application/vnd.kafka.v2+json;q=0.5, application/json")
    assert.equal("application/vnd.kafka.v2+json", type_for "application/vnd.kafka.v2+json, application/json;q=0.8")
    assert.equal(JSON, type_for(JSON))
    assert.equal("application/vnd.kafka.v2+json", type_for(JSON .. ";q=0.5, application/vnd.kafka.v2+json"))
  end)

  it("tells the error of each record", function()
    start(nil, { orders = 1, small = { fails = "MSG_SIZE_TOO_LARGE" },
      shy = { fails = "NOT_ENOUGH_REPLICAS" }, none = { fails = "UNKNOWN_TOPIC_OR_PART" },
      closed = { fails = "TOPIC_AUTHORIZATION_FAILED" }, full = { fails = "full" } })
    local function entry(topic)
      local response = post("/topics/" .. topic, '{"records":[{"value":1}]}')
      local offsets = response.json.offsets
      return { response.status, response.json.error_code or offsets[1].error_code }
    end
    assert.same({ 200, 50002 }, entry "small")
    assert.same({ 200, 50003 }, entry "shy")
    assert.same({ 404, 40401 }, entry "none")
    assert.same({ 403, 40301 }, entry "closed")
    assert.same({ 503, 503 }, entry "full")
    assert.equal("1", post("/topics/full", '{"records":[{"value":1}]}').headers["retry-after"])
  end)

  it("runs the phase of records in other plugins", function()
    start(nil, nil, UPPER)
    local response = post("/topics/orders",
      '{"records":[{"value":"YQ=="},{"value":"ZHJvcA=="},{"value":"cmFpc2U="}]}', BINARY)
    local records = gateway:records "orders"
    assert.same({ 1, "A" }, { #records, records[1].value })
    local offsets = response.json.offsets
    assert.same({ 0, require("sluice.json").null, 50002 }, { offsets[1].offset, offsets[2].error_code,
      offsets[3].error_code })
  end)

  it("bounds the body", function()
    start { body_bytes_max = 1024 }
    local response = post("/topics/orders", '{"records":[{"value":"' .. ("x"):rep(1024) .. '"}]}')
    assert.equal(413, response.status)
  end)

  it("refuses options that are none", function()
    local _, err = spec.check { plugins = { { name = "kafka-rest", config = { operations = { "dance" } } } } }
    assert.matches("config.operations", err, 1, true)
    _, err = spec.check { plugins = { { name = "kafka-rest", config = { cluster = "elsewhere" } } } }
    assert.matches("config.cluster: expected a cluster of gateway.kafka (there is none)", err, 1, true)
    _, err = spec.check { plugins = { { name = "kafka-rest", config = { prefix = "kafka" } } } }
    assert.matches("config.prefix", err, 1, true)
    _, err = spec.check { plugins = { { name = "kafka-rest", config = { advertised_url = "ftp://x" } } } }
    assert.matches("config.advertised_url", err, 1, true)
  end)
end)
