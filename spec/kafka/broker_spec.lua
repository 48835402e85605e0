-- SPDX-License-Identifier: Apache-2.0
-- core/kafka against a real broker: what it says of a record is so, also when the broker is killed and comes back.
local ffi = require "ffi"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local posix = require "spec.support.posix"

local C = client.C

describe("kafka with a real broker", function()
  local shared, kafka

  setup(function() shared = broker.shared() end)

  before_each(function()
    kafka = client.new()
    assert(kafka:cluster("main", { ["bootstrap.servers"] = shared.servers }) == 0, kafka:why())
  end)

  after_each(function() kafka:close() end)

  it("says the truth: each acknowledged offset reads back as what was sent", function()
    local topic, sent, waiting = shared:topic(3), {}, {}
    for i = 1, 300 do
      local status, delivery = kafka:produce { topic = topic, key = "k" .. i % 17, value = "v" .. i }
      assert.equal(C.BRIDGE_OK, status)
      waiting[i] = delivery
    end
    for i, delivery in ipairs(waiting) do
      kafka:await("a report", function() return delivery.done end)
      assert.equal(C.BRIDGE_OK, delivery.result.status)
      sent[delivery.result.partition .. "/" .. tonumber(delivery.result.offset)] = "v" .. i
    end
    local reader = kafka:open { topic = topic, from = C.KAFKA_EARLIEST }
    for _ = 1, 300 do
      local record = kafka:record(reader)
      local at = record.partition .. "/" .. tonumber(record.offset)
      assert.equal(sent[at], ffi.string(record.value.data, record.value.len))
      sent[at] = nil
    end
    assert.is_nil(next(sent))
    C.kafka_reader_free(reader)
  end)

  it("tells each record to every reader, in order, within moments", function()
    local topic, readers = shared:topic(), {}
    for i = 1, 20 do readers[i] = kafka:open { topic = topic } end
    for i = 1, 100 do kafka:send { topic = topic, value = tostring(i) } end
    for _, reader in ipairs(readers) do
      for i = 1, 100 do assert.equal(tostring(i), kafka:read(reader)) end
    end
    assert.equal(1, kafka:status().consumers)
    for _, reader in ipairs(readers) do C.kafka_reader_free(reader) end
  end)

  it("says that a topic does not exist", function()
    assert(kafka:cluster("strict", { ["bootstrap.servers"] = shared.servers }) == 0)
    local reader = kafka:reader { cluster = "strict", topic = "nobody-made-this" }
    kafka:await("an answer", function() return C.kafka_reader_ready(reader) ~= C.BRIDGE_AGAIN end)
    assert.equal(C.BRIDGE_FAILED, C.kafka_reader_ready(reader))
    assert.matches("Unknown topic", ffi.string(C.kafka_reader_error(reader)))
    C.kafka_reader_free(reader)
  end)

  it("names the error of a record that is too large for the broker", function()
    local topic = shared:topic(1, { ["max.message.bytes"] = 1000 })
    local _, delivery = kafka:produce { topic = topic, value = ("x"):rep(5000) }
    kafka:await("a report", function() return delivery.done end)
    assert.equal(C.BRIDGE_FAILED, delivery.result.status)
    assert.equal("MSG_SIZE_TOO_LARGE", ffi.string(delivery.result.name))
  end)

  it("streams a long topic to a slow reader in bounded memory, complete and in order", function()
    local topic, count, size = shared:topic(), 3000, 20000 -- 60 MB
    local value = ("x"):rep(size)
    local sent = 0
    while sent < count do
      if kafka:produce { topic = topic, value = ("%08d"):format(sent) .. value, forget = true } == C.BRIDGE_OK then
        sent = sent + 1
      else
        kafka:turn()
      end
    end
    kafka:await("all acknowledged", function() return kafka:status().delivered == count end, 60)
    local function resident()
      local pages = io.open("/proc/self/statm"):read("*l"):match("^%d+ (%d+)")
      return tonumber(pages) * 4096
    end
    local before, most = resident(), 0
    local reader = kafka:open { topic = topic, from = C.KAFKA_EARLIEST }
    for i = 0, count - 1 do
      assert.equal(("%08d"):format(i), kafka:read(reader):sub(1, 8))
      if i % 100 == 0 then
        posix.pause(0.02)
        collectgarbage()
        most = math.max(most, resident())
      end
    end
    assert.is_true(most - before < 64e6, ("grew by %d MB"):format((most - before) / 1e6))
    C.kafka_reader_free(reader)
  end)

  describe("that is killed and comes back", function()
    local own

    setup(function() own = broker.start() end)
    teardown(function() if own then own:stop() end end)

    before_each(function()
      assert(kafka:cluster("own", { ["bootstrap.servers"] = own.servers, ["message.timeout.ms"] = "120000" }) == 0,
        kafka:why())
    end)

    it("loses no acknowledged record, repeats none and keeps their order; a reader goes on", function()
      local topic = own:topic()
      local reader = kafka:open { cluster = "own", topic = topic }
      local waiting = {}
      for i = 1, 50 do
        waiting[i] = select(2, kafka:produce { cluster = "own", topic = topic, value = tostring(i) })
      end
      kafka:await("the first report", function() return waiting[1].done end)
      own:kill()
      for i = 51, 100 do
        waiting[i] = select(2, kafka:produce { cluster = "own", topic = topic, value = tostring(i) })
      end
      own:restart()
      local offsets = {}
      for i = 1, 100 do
        kafka:await("report " .. i, function() return waiting[i].done end, 130)
        assert.equal(C.BRIDGE_OK, waiting[i].result.status, ffi.string(waiting[i].result.text))
        offsets[i] = tonumber(waiting[i].result.offset)
      end
      for i = 1, 100 do
        local record = kafka:record(reader)
        assert.equal(tostring(i), ffi.string(record.value.data, record.value.len))
        assert.equal(offsets[i], tonumber(record.offset))
      end
      C.kafka_reader_free(reader)
    end)

    it("answers in time while it is away, and says so in its state", function()
      local topic = own:topic()
      kafka:send { cluster = "own", topic = topic, value = "x" }
      own:kill()
      local _, delivery = kafka:produce { cluster = "own", topic = topic, value = "y", timeout = 0.2 }
      kafka:await("an answer", function() return delivery.done end, 20) -- not the two minutes of the record
      assert.equal(C.BRIDGE_TIMEOUT, delivery.result.status)
      kafka:await("the state", function() return ffi.string(kafka:status(0).state) == "down" end)
      own:restart()
      kafka:send { cluster = "own", topic = topic, value = "z" }
      kafka:await("the state", function() return ffi.string(kafka:status(0).state) == "up" end)
    end)
  end)
end)
