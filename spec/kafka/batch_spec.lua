-- SPDX-License-Identifier: Apache-2.0
-- kafka.batch in a gateway with a real broker: what it says of a record is so, in order, while others have theirs.
local cjson = require "cjson"
local ffi = require "ffi"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"

local C = client.C

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s" }
    small: { bootstrap.servers: "%s", queue.buffering.max.messages: 100 }
    away: { bootstrap.servers: "127.0.0.1:1" }
plugins: [{ name: runs }]
routes: [{ name: all, paths: [/] }]
]]

-- Runs the Lua code that a request brings, and answers with what it returned.
local RUNS = [[
return { version = "1", priority = 1, access = function(_, exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  exchange.response:exit(200, { said = chunk(require("sluice").kafka, require("sluice")) })
end }
]]

-- Produces `count` records of a topic through the places of one batch, and gives what was said of each in the order of
-- its telling: "index partition offset" or "index code".
local STREAM = [[
local kafka = ...
local batch, said, record = kafka.batch { cluster = "%s", timeout = %d }, {}, { topic = "%s" }
local function take()
  local index = batch:next(20)
  if not index then return false end
  local at, _, code = batch:result(index)
  said[#said + 1] = at and ("%%d %%d %%d"):format(index, at.partition, at.offset) or index .. " " .. code
  return true
end
for i = 1, %d do
  record.key, record.value = "key " .. i %% 7, "value " .. i
  local index, err, code = batch:add(record)
  while code == "full" and take() do index, err, code = batch:add(record) end
  assert(index == i, err)
end
while take() do end
return said
]]

describe("kafka.batch", function()
  local shared, kafka, gw

  setup(function()
    shared = broker.shared()
    kafka = client.new()
    assert(kafka:cluster("main", { ["bootstrap.servers"] = shared.servers }) == 0, kafka:why())
    gw = gateway.start(CONFIG:format(shared.servers, shared.servers), { plugins = { runs = RUNS } })
  end)

  teardown(function()
    if gw then gw:stop() end
    if kafka then kafka:close() end
  end)

  local function stream(cluster, topic, count, timeout)
    local response = gw:request { path = "/", body = STREAM:format(cluster, timeout or 20, topic, count) }
    assert.equal(200, response.status, gw:log())
    return cjson.decode(response.body).said
  end

  -- What was said of each record, against what stands at that place.
  local function check_all(topic, said, count)
    assert.equal(count, #said)
    local at = {}
    for _, text in ipairs(said) do
      local index, partition, offset = text:match("^(%d+) (%d+) (%d+)$")
      assert.is_truthy(index, text)
      at[partition .. " " .. offset] = tonumber(index)
    end
    local reader, before = kafka:open { topic = topic, from = C.KAFKA_EARLIEST }, {}
    for _ = 1, count do
      local record = kafka:record(reader)
      local index = assert(at[record.partition .. " " .. tonumber(record.offset)])
      assert.equal("value " .. index, ffi.string(record.value.data, record.value.len))
      assert.is_true(index > (before[record.partition] or 0))
      before[record.partition] = index
    end
    C.kafka_reader_free(reader)
  end

  it("says where each of 5,000 records is, and there it is, in order", function()
    local topic = shared:topic(3)
    check_all(topic, stream("main", topic, 5000), 5000)
  end)

  it("waits for room when the cluster's queue is what is full", function()
    local topic = shared:topic(2)
    check_all(topic, stream("small", topic, 1000), 1000)
  end)

  it("tells each record of a topic that refuses it", function()
    local topic = shared:topic(1, { ["max.message.bytes"] = 60 })
    for _, text in ipairs(stream("main", topic, 10)) do assert.matches("MSG_SIZE_TOO_LARGE$", text) end
  end)

  it("ends in time when no broker is there", function()
    local said = stream("away", "t", 1024, 1)
    assert.equal(1024, #said)
    for _, text in ipairs(said) do assert.matches("timeout$", text) end
  end)
end)
