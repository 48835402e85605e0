-- SPDX-License-Identifier: Apache-2.0
-- A broker takes or refuses a batch whole: the records that were to blame for nothing go once more, each in a batch of
-- its own.
local ffi = require "ffi"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"

local C = client.C

describe("a batch that the broker refuses", function()
  local shared, kafka

  setup(function() shared = broker.shared() end)

  before_each(function() kafka = client.new() end)

  -- So many records are a batch: librdkafka waits for them, and no longer.
  local function batches_of(count)
    assert(kafka:cluster("main", { ["bootstrap.servers"] = shared.servers, ["linger.ms"] = "20000",
      ["batch.num.messages"] = tostring(count) }) == 0, kafka:why())
  end

  after_each(function() kafka:close() end)

  -- Produces the records, and gives the offset of each, or the name of its error.
  local function fates(records)
    local waiting, told = {}, {}
    batches_of(#records)
    for i, record in ipairs(records) do
      local status, delivery = kafka:produce(record)
      assert.equal(C.BRIDGE_OK, status, kafka:why())
      waiting[i] = delivery
    end
    for i, delivery in ipairs(waiting) do
      kafka:await("report " .. i, function() return delivery.done end)
      local result = delivery.result
      told[i] = result.status == C.BRIDGE_OK and tonumber(result.offset) or ffi.string(result.name)
    end
    return told
  end

  local function counts()
    local status = kafka:status()
    return { tonumber(status.produced), tonumber(status.delivered), tonumber(status.failed), tonumber(status.queued) }
  end

  it("for one that is too large fails that one alone; the others keep their order", function()
    local topic, records, expected = shared:topic(1, { ["max.message.bytes"] = 2000 }), {}, {}
    for i = 1, 30 do
      records[i] = { topic = topic, value = i == 11 and ("x"):rep(5000) or "value " .. i }
      expected[i] = i == 11 and "MSG_SIZE_TOO_LARGE" or i < 11 and i - 1 or i - 2
    end
    assert.same(expected, fates(records))
    assert.same({ 30, 29, 1, 0 }, counts())
    local reader = kafka:open { topic = topic, from = C.KAFKA_EARLIEST }
    for i = 1, 30 do
      if i ~= 11 then assert.equal("value " .. i, kafka:read(reader)) end
    end
    C.kafka_reader_free(reader)
  end)

  it("for one without a key where topics are compacted", function()
    local topic = shared:topic(1, { ["cleanup.policy"] = "compact" })
    assert.same({ 0, "INVALID_RECORD", 1 }, fates { { topic = topic, key = "a", value = "1" },
      { topic = topic, value = "2" }, { topic = topic, key = "c", value = "3" } })
  end)

  it("for one of a time that the topic does not take", function()
    local topic = shared:topic(1, { ["message.timestamp.before.max.ms"] = 3600000 })
    assert.same({ 0, "INVALID_TIMESTAMP", 1 }, fates { { topic = topic, value = "1" },
      { topic = topic, value = "2", timestamp = 1000 }, { topic = topic, value = "3" } })
  end)

  it("has the records go again as they were", function()
    local topic = shared:topic(3, { ["max.message.bytes"] = 1000 })
    local now = os.time() * 1000 - 12345
    local told = fates {
      { topic = topic, partition = 2, key = "", headers = { "a", "1", "a", "2", "empty", "" }, timestamp = now },
      { topic = topic, partition = 2, value = ("x"):rep(3000) },
      { topic = topic, partition = 2, value = "" },
    }
    assert.same({ 0, "MSG_SIZE_TOO_LARGE", 1 }, told)
    local reader = kafka:open { topic = topic, from = C.KAFKA_EARLIEST }
    local record = kafka:record(reader)
    assert.same({ 2, now, 3 }, { record.partition, tonumber(record.timestamp_ms), record.header_count })
    assert.is_true(record.value.data == nil and record.key.data ~= nil and record.key.len == 0)
    assert.equal("2", ffi.string(record.headers[3].data, record.headers[3].len))
    record = kafka:record(reader)
    assert.is_true(record.value.data ~= nil and record.value.len == 0 and record.key.data == nil)
    C.kafka_reader_free(reader)
  end)

  it("has them go again also when the cluster was defined anew meanwhile", function()
    local topic, records = shared:topic(1, { ["max.message.bytes"] = 1000 }), {}
    for i = 1, 10 do records[i] = { topic = topic, value = i == 5 and ("x"):rep(3000) or "v" } end
    local waiting = {}
    batches_of(#records)
    for i, record in ipairs(records) do waiting[i] = select(2, kafka:produce(record)) end
    assert.equal(0, kafka:cluster("main", { ["bootstrap.servers"] = shared.servers }))
    for i, delivery in ipairs(waiting) do
      kafka:await("report " .. i, function() return delivery.done end)
      assert.equal(i == 5 and C.BRIDGE_FAILED or C.BRIDGE_OK, delivery.result.status)
    end
  end)

  it("may come again and again", function()
    local topic = shared:topic(1, { ["max.message.bytes"] = 1000 })
    for round = 0, 4 do
      assert.same({ 2 * round, "MSG_SIZE_TOO_LARGE", 2 * round + 1 }, fates { { topic = topic, value = "a" },
        { topic = topic, value = ("x"):rep(3000) }, { topic = topic, value = "b" } })
    end
  end)
end)
