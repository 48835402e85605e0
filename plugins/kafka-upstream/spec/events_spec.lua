-- SPDX-License-Identifier: Apache-2.0
-- CloudEvents in, CloudEvents in the topic.
local spec = require "sluice.spec"

describe("kafka-upstream with cloudevents", function()
  local gateway

  local function with(cloudevents, config)
    config = config or {}
    config.topic, config.cloudevents = "events", cloudevents
    gateway = spec.gateway {
      topics = { events = 4 },
      routes = { { name = "in", paths = { "/in" }, plugins = { { name = "kafka-upstream", config = config } } } },
    }
  end

  local BINARY = { ["ce-specversion"] = "1.0", ["ce-id"] = "1", ["ce-source"] = "/s", ["ce-type"] = "made",
    ["ce-subject"] = "Euro%20%E2%82%AC", ["ce-partitionkey"] = "ada", ["Content-Type"] = "application/json" }
  local STRUCTURED = { ["Content-Type"] = "application/cloudevents+json" }
  local EVENT = '{"specversion":"1.0","id":"%s","source":"/s","type":"made","data":{"n":1.0}}'

  local function send(body, headers)
    local response = gateway:post("/in", body, headers)
    return response, gateway:records("events")
  end

  it("keeps one of the binary mode", function()
    with {}
    local response, records = send('{"n":1.0}', BINARY)
    assert.equal(200, response.status)
    assert.same({ "ada", '{"n":1.0}' }, { records[1].key, records[1].value })
    assert.same({ ce_specversion = "1.0", ce_id = "1", ce_source = "/s", ce_type = "made", ce_subject = "Euro €",
      ce_partitionkey = "ada", ["content-type"] = "application/json" }, records[1].headers)
  end)

  it("turns one of the structured mode into the binary mode of a record", function()
    with {}
    local _, records = send(EVENT:format("7"), STRUCTURED)
    assert.equal('{"n":1.0}', records[1].value)
    assert.same({ "7", "application/json" }, { records[1].headers.ce_id, records[1].headers["content-type"] })
  end)

  it("writes the structured mode where that is wanted", function()
    with { mode = "structured" }
    local _, records = send('{"n":1.0}', BINARY)
    assert.equal("application/cloudevents+json; charset=utf-8", records[1].headers["content-type"])
    assert.same({ "1", "Euro €", "ada" }, { records[1].json.id, records[1].json.subject, records[1].key })
    assert.matches('"data":{"n":1.0}', records[1].value, 1, true)
  end)

  it("makes a record of each event of a batch", function()
    with {}
    local response, records = send("[" .. EVENT:format("1") .. "," .. EVENT:format("2") .. "]",
      { ["Content-Type"] = "application/cloudevents-batch+json; charset=utf-8" })
    assert.same({ 200, 2 }, { response.status, response.json.sent })
    assert.same({ "1", "2" }, { records[1].headers.ce_id, records[2].headers.ce_id })
  end)

  it("of each element of an array, and each line", function()
    with({}, { batch = "auto" })
    local response = send("[" .. EVENT:format("1") .. ',{"id":5}]', { ["Content-Type"] = "application/json" })
    assert.same({ 207, 1, 400 }, { response.status, response.json.sent, response.json.records[2].status })
    local _, records = send(EVENT:format("2") .. "\n" .. EVENT:format("3") .. "\n",
      { ["Content-Type"] = "application/x-ndjson" })
    assert.same({ "1", "2", "3" },
      { records[1].headers.ce_id, records[2].headers.ce_id, records[3].headers.ce_id })
    assert.equal('{"n":1.0}', records[3].value)
  end)

  it("gives other parts of the record what the event says", function()
    with({}, { key = "$(event.type)-$(body.n)", headers = { extra = "$(event.id)" }, timestamp = "$(event.time)" })
    local _, records = send('{"n":1}', { ["ce-specversion"] = "1.0", ["ce-id"] = "1", ["ce-source"] = "/s",
      ["ce-type"] = "made", ["ce-time"] = "2023-11-14T22:13:20Z", ["Content-Type"] = "application/json" })
    assert.same({ "made-1", "1", 1700000000000 },
      { records[1].key, records[1].headers.extra, records[1].timestamp })
  end)

  it("refuses what is no event, and says which attribute is wrong", function()
    with {}
    local response = send("{}", { ["Content-Type"] = "application/json" })
    assert.same({ 400, "the request is no CloudEvent" }, { response.status, response.json.message })
    response = send('{"specversion":"1.0","id":"1","source":"/s"}', STRUCTURED)
    assert.same({ 400, "type" }, { response.status, response.json.field })
    response = send("{", STRUCTURED)
    assert.equal(400, response.status)
    local records
    response, records = send("", { ["ce-specversion"] = "0.3", ["ce-id"] = "1" })
    assert.same({ 400, "specversion" }, { response.status, response.json.field })
    assert.equal(0, #records)
  end)

  it("lets what is none go on where it may", function()
    with({ required = false }, { value = "body" })
    local _, records = send("plain", { ["Content-Type"] = "text/plain" })
    assert.same({ "plain", {} }, { records[1].value, records[1].headers })
  end)

  it("makes an event of what is none", function()
    with { type = "com.example.$(headers.x_kind)", source = "/orders", subject = "$(body.id)" }
    local response, records = send('{"id":5}', { ["Content-Type"] = "application/json", ["X-Kind"] = "order" })
    assert.equal(200, response.status)
    local headers = records[1].headers
    assert.same({ "com.example.order", "/orders", "5", "1.0", "application/json", '{"id":5}' }, { headers.ce_type,
      headers.ce_source, headers.ce_subject, headers.ce_specversion, headers["content-type"], records[1].value })
    assert.equal(36, #headers.ce_id)
    assert.matches("^%d+%-%d%d%-%d%dT", headers.ce_time)
    response = send('{"id":5}', { ["Content-Type"] = "no type" })
    assert.same({ 422, "cloudevents.datacontenttype" }, { response.status, response.json.field })
  end)

  it("gives it the id that it is told", function()
    with { type = "t", source = "/s", id = "$(body.id)" }
    local response, records = send('{"id":"o-5"}', { ["Content-Type"] = "application/json" })
    assert.same({ 200, "o-5" }, { response.status, records[1].headers.ce_id })
    assert.same({ 422, "cloudevents.id" },
      { send('{"id":""}').status, send('{"id":""}').json.field })
  end)

  it("is not for a value of another kind, nor for a type without a source", function()
    local function check(config)
      config.topic = "t"
      return select(2, spec.check { plugins = { { name = "kafka-upstream", config = config } } })
    end
    assert.matches("expected none beside cloudevents", check { value = "$(body.x)", cloudevents = {} }, 1, true)
    assert.matches("source", check { cloudevents = { type = "t" } }, 1, true)
  end)
end)
