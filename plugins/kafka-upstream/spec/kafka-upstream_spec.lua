-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local cjson = require "cjson"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"

local C = client.C

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s" }
    away: { bootstrap.servers: "127.0.0.1:1" }
    full: { bootstrap.servers: "127.0.0.1:1", queue.buffering.max.messages: 1 }
routes:
- { name: raw, paths: [/raw], plugins: [{ name: kafka-upstream, config: {
    topic: raw, value: body, key_header: X-Key } }] }
- { name: kong, paths: [/kong], strip_path: false, plugins: [{ name: kafka-upstream, config: {
    topic: kong, forward_method: true, forward_uri: true, forward_headers: true } }] }
- { name: servers, paths: [/servers], plugins: [{ name: kafka-upstream, config: {
    topic: servers, value: body, timeout: 400000, bootstrap_servers: [{ host: 127.0.0.1, port: %s }] } }] }
- { name: patient, paths: [/patient], plugins: [{ name: kafka-upstream, config: {
    topic: raw, value: body, timeout: -1 } }] }
- { name: hasty, paths: [/hasty], plugins: [{ name: kafka-upstream, config: {
    topic: raw, value: body, timeout: -1, bootstrap_servers: [{ host: 127.0.0.1, port: %s }] } }] }
- { name: quick, paths: [/quick], plugins: [{ name: kafka-upstream, config: {
    topic: quick, value: body, wait: false } }] }
- { name: away, paths: [/away], plugins: [{ name: kafka-upstream, config: {
    cluster: away, topic: t, value: body, timeout: 100 } }] }
- { name: full, paths: [/full], plugins: [{ name: kafka-upstream, config: {
    cluster: full, topic: t, value: body, wait: false } }] }
]]

describe("kafka-upstream", function()
  local mock, kafka, gw

  setup(function()
    kafka = client.new()
    mock = C.kafka_mock_new(1, kafka.error)
    for _, topic in ipairs { "raw", "kong", "servers", "quick" } do C.kafka_mock_topic(mock, topic, 3) end
    local servers = ffi.string(C.kafka_mock_servers(mock))
    kafka:cluster("main", { ["bootstrap.servers"] = servers })
    local port = servers:match(":(%d+)$")
    gw = gateway.start(CONFIG:format(servers, port, port))
  end)

  teardown(function()
    gw:stop()
    kafka:close()
    C.kafka_mock_free(mock)
  end)

  local function post(path, body, headers)
    local response = gw:request { path = path, body = body, headers = headers }
    return response, cjson.decode(response.body)
  end

  -- The record that an answer speaks of.
  local function record_at(answer)
    local at = { { answer.partition, answer.offset } }
    local reader = kafka:open { topic = answer.topic, from = C.KAFKA_LATEST, at = at }
    local record = kafka:record(reader)
    local found = {
      value = ffi.string(record.value.data, record.value.len),
      key = record.key.data ~= nil and ffi.string(record.key.data, record.key.len) or nil,
      offset = tonumber(record.offset), partition = record.partition,
    }
    C.kafka_reader_free(reader)
    return found
  end

  it("answers with where the broker put the record, and there it is", function()
    for i = 1, 3 do
      local response, answer = post("/raw", "body " .. i, { ["X-Key"] = "key " .. i })
      assert.equal(200, response.status)
      assert.equal("message sent", answer.message)
      local record = record_at(answer)
      assert.same({ "body " .. i, "key " .. i }, { record.value, record.key })
      assert.same({ answer.partition, answer.offset }, { record.partition, record.offset })
    end
  end)

  it("keeps the records of a key in one partition", function()
    local _, first = post("/raw", "x", { ["X-Key"] = "same" })
    for _ = 1, 5 do
      local _, answer = post("/raw", "x", { ["X-Key"] = "same" })
      assert.equal(first.partition, answer.partition)
      assert.is_true(answer.offset > first.offset)
    end
  end)

  it("carries any bytes", function()
    local body = {}
    for i = 0, 255 do body[#body + 1] = string.char(i) end
    body = table.concat(body):rep(20)
    local _, answer = post("/raw", body)
    assert.equal(body, record_at(answer).value)
  end)

  it("builds Kong's message out of method, URI, fields and a parsed body", function()
    local _, answer = post("/kong/a?x=1&y", '{"n":5}', { ["Content-Type"] = "application/json", ["X-Test"] = "yes" })
    local message = cjson.decode(record_at(answer).value)
    assert.equal("POST", message.method)
    assert.equal("/kong/a?x=1&y", message.uri)
    assert.equal("1", message.uri_args.x)
    assert.equal("yes", message.headers["x-test"])
    assert.equal('{"n":5}', message.body)
    assert.same({ n = 5 }, message.body_args)
    assert.is_nil(message.body_base64)
  end)

  it("puts bytes into the message as base64, text as it is", function()
    local _, answer = post("/kong", "\0\1\2", { ["Content-Type"] = "application/octet-stream" })
    local message = cjson.decode(record_at(answer).value)
    assert.same({ "AAEC", true }, { message.body, message.body_base64 })
    _, answer = post("/kong", "plain", { ["Content-Type"] = "text/plain; charset=utf-8" })
    message = cjson.decode(record_at(answer).value)
    assert.equal("plain", message.body)
    assert.is_nil(message.body_base64)
  end)

  it("refuses a body that is not what its type says", function()
    local response, answer = post("/kong", "{", { ["Content-Type"] = "application/json" })
    assert.equal(400, response.status)
    assert.matches("application/json", answer.message, 1, true)
  end)

  it("takes Kong's bootstrap_servers in place of a named cluster", function()
    local response, answer = post("/servers", "by address")
    assert.equal(200, response.status)
    assert.equal("by address", record_at(answer).value)
  end)

  it("takes any timeout that Kong takes", function()
    for _, path in ipairs { "/patient", "/hasty" } do assert.equal(200, (post(path, "x")).status) end
  end)

  it("answers 202 at once when it is told not to wait", function()
    local response, answer = post("/quick", "later")
    assert.equal(202, response.status)
    assert.equal("quick", answer.topic)
    local reader = kafka:open { topic = "quick", from = C.KAFKA_EARLIEST }
    assert.equal("later", kafka:read(reader))
    C.kafka_reader_free(reader)
  end)

  it("answers 504 when no acknowledgement comes in time", function()
    local response, answer = post("/away", "x")
    assert.equal(504, response.status)
    assert.is_truthy(answer.code == "timeout" or answer.code == "expired", answer.code)
    assert.is_string(answer.request_id)
  end)

  it("answers 503 with Retry-After at once when the queue is full", function()
    assert.equal(202, (post("/full", "x")).status)
    local response, answer = post("/full", "x")
    assert.equal(503, response.status)
    assert.equal("full", answer.code)
    assert.equal("1", response.headers["retry-after"])
  end)

  it("calls no service and answers HEAD and GET too, with an empty body", function()
    local response = gw:get("/raw")
    assert.equal(200, response.status)
    assert.equal("", record_at(cjson.decode(response.body)).value)
  end)
end)
