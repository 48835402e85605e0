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
    full: { bootstrap.servers: "127.0.0.1:1", queue.buffering.max.messages: 2 }
routes:
- name: logged
  paths: [/logged]
  plugins:
  - { name: tea }
  - { name: kafka-log, config: { topic: access, custom_fields_by_lua: {
      where: "local exchange = ... return exchange.request:get_header('x-where')" } } }
- name: dropped
  paths: [/dropped]
  plugins:
  - { name: tea }
  - { name: kafka-log, config: { topic: access, cluster: full } }
]]

-- Answers in access, so that these specs stand on nothing but this plugin.
local TEA = [[
return { version = "1.0.0", priority = 2, access = function(_, exchange)
  exchange.response:exit(418, "tea")
end }
]]

describe("kafka-log", function()
  local mock, kafka, gw

  setup(function()
    kafka = client.new()
    mock = C.kafka_mock_new(1, kafka.error)
    C.kafka_mock_topic(mock, "access", 1)
    local servers = ffi.string(C.kafka_mock_servers(mock))
    kafka:cluster("main", { ["bootstrap.servers"] = servers })
    gw = gateway.start(CONFIG:format(servers), { plugins = { tea = TEA } })
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

  it("drops and counts what the queue cannot take, and holds nobody up", function()
    for _ = 1, 20 do assert.equal(418, gw:get("/dropped").status) end
    assert.matches("dropped=1", gw:wait_log("log records dropped"), 1, true)
  end)
end)
