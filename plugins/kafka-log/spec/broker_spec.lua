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
    small: { bootstrap.servers: "%s", queue.buffering.max.messages: 2, message.max.bytes: 4000 }
    away: { bootstrap.servers: "127.0.0.1:1" }
routes:
- name: logged
  paths: [/logged]
  plugins:
  - { name: tea }
  - { name: kafka-log, config: { topic: access, custom_fields_by_lua: {
      where: "local exchange = ... return exchange.request:get_header('x-where')" }, queue: { max_batch_size: 1 } } }
- name: small
  paths: [/small]
  plugins:
  - { name: tea }
  - { name: kafka-log, config: { topic: narrow, cluster: small,
      queue: { max_batch_size: 12, max_coalescing_delay: 60 },
      custom_fields_by_lua: { pad: "return ('x'):rep(tonumber(exchange.request:get_header('x-pad')))" } } }
- name: dropped
  paths: [/dropped]
  plugins:
  - { name: tea }
  - { name: kafka-log, config: { topic: access, cluster: away, timeout: 200,
      queue: { max_batch_size: 1, max_entries: 5 } } }
]]

-- Answers in access, so that these specs stand on nothing but this plugin.
local TEA = [[
return { version = "1.0.0", priority = 2, access = function(_, exchange)
  exchange.response:exit(418, "tea")
end }
]]

describe("kafka-log and a cluster", function()
  local mock, kafka, gw

  setup(function()
    kafka = client.new()
    mock = C.kafka_mock_new(1, kafka.error)
    C.kafka_mock_topic(mock, "access", 1)
    C.kafka_mock_topic(mock, "narrow", 1)
    local servers = ffi.string(C.kafka_mock_servers(mock))
    kafka:cluster("main", { ["bootstrap.servers"] = servers })
    gw = gateway.start(CONFIG:format(servers, servers), { plugins = { tea = TEA } })
  end)

  teardown(function()
    gw:stop()
    kafka:close()
    C.kafka_mock_free(mock)
  end)

  it("writes one record an exchange, in the log's format, with custom fields", function()
    local reader = kafka:open { topic = "access", from = C.KAFKA_EARLIEST }
    for i = 1, 3 do assert.equal(418, gw:get("/logged?n=" .. i, { ["X-Where"] = "here" .. i }).status) end
    for i = 1, 3 do
      local record = cjson.decode(kafka:read(reader))
      assert.equal(418, record.response.status)
      assert.equal("GET", record.request.method)
      assert.equal("logged", record.route.name)
      assert.equal("here" .. i, record.where)
    end
    C.kafka_reader_free(reader)
  end)

  it("sends more than the cluster's queue has room for, without what is too large for it", function()
    local reader = kafka:open { topic = "narrow", from = C.KAFKA_EARLIEST }
    for i = 1, 12 do gw:get("/small?n=" .. i, { ["X-Pad"] = i == 3 and "5000" or "1" }) end
    local seen = {}
    for i = 1, 11 do seen[i] = cjson.decode(kafka:read(reader)).request.querystring.n end
    assert.same({ "1", "2", "4", "5", "6", "7", "8", "9", "10", "11", "12" }, seen)
    assert.matches("lines=1", gw:wait_log("log lines dropped", 20), 1, true)
    C.kafka_reader_free(reader)
  end)

  it("drops and counts what there is no room for while the cluster is away, and holds nobody up", function()
    for _ = 1, 20 do assert.equal(418, gw:get("/dropped").status) end
    assert.matches("the queue is full", gw:wait_log("log entries dropped", 20), 1, true)
  end)
end)
