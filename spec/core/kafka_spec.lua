-- SPDX-License-Identifier: Apache-2.0
-- Kafka in one worker, against librdkafka's mock brokers in this process.
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("kafka.h", "errands.h", "embedded.h")
if not pcall(function() return C.ev_loop_new end) then
  ffi.cdef [[
    struct ev_loop *ev_loop_new(unsigned flags);
    void ev_loop_destroy(struct ev_loop *loop);
    int ev_run(struct ev_loop *loop, int flags);
  ]]
end
if not pcall(function() return C.usleep end) then ffi.cdef "int usleep(unsigned us);" end

local EVRUN_NOWAIT = 1

describe("kafka", function()
  local loop, kafka, anchors, err

  before_each(function()
    anchors = {}
    err = ffi.new("struct error")
    local log = ffi.new("struct log", { fd = -1, level = C.LOG_CRIT })
    loop = ffi.new("struct loop", { ev = C.ev_loop_new(0), log = log })
    anchors.log = log
    C.clock_init(loop.clock)
    C.timers_init(loop.timers)
    kafka = C.kafka_new(loop)
  end)

  after_each(function()
    C.kafka_close(kafka, 0)
    C.timers_close(loop.timers)
    C.ev_loop_destroy(loop.ev)
  end)

  local function turn()
    C.clock_update(loop.clock)
    C.ev_run(loop.ev, EVRUN_NOWAIT)
    C.clock_update(loop.clock)
    C.timers_run(loop.timers, loop.clock.mono_us)
  end

  local function await(what, ready, seconds)
    C.clock_update(loop.clock)
    local deadline = loop.clock.mono_us + (seconds or 10) * 1e6
    while true do
      local value = ready()
      if value then return value end
      turn()
      if loop.clock.mono_us > deadline then error("not in time: " .. what, 2) end
      C.usleep(500)
    end
  end

  local function cluster(name, properties)
    local pairs_ = {}
    for key, value in pairs(properties) do
      pairs_[#pairs_ + 1] = key
      pairs_[#pairs_ + 1] = value
    end
    local array = ffi.new("const char *[?]", #pairs_, pairs_)
    return C.kafka_cluster(kafka, name, array, #pairs_ / 2, err), ffi.string(err.text)
  end

  local function bytes(text)
    return ffi.new("struct bytes", text and { text, #text } or {})
  end

  local function produce(fields)
    local message = ffi.new("struct kafka_message")
    message.cluster = fields.cluster or "main"
    message.topic = fields.topic or "events"
    message.key = bytes(fields.key)
    message.value = bytes(fields.value)
    message.partition = fields.partition or C.KAFKA_ANY_PARTITION
    message.timestamp_ms = fields.timestamp or 0
    message.timeout_s = fields.timeout or 0
    local headers = ffi.new("struct bytes[16]")
    for i, text in ipairs(fields.headers or {}) do headers[i - 1] = bytes(text) end
    message.headers = headers
    message.header_count = fields.headers and #fields.headers / 2 or 0
    if fields.forget then return C.kafka_produce(kafka, message, nil, err) end
    local delivery = ffi.new("struct kafka_delivery")
    anchors[#anchors + 1] = delivery
    local status = C.kafka_produce(kafka, message, delivery, err)
    return status, delivery
  end

  -- Waits for the acknowledgement: its partition and offset.
  local function send(fields)
    local status, delivery = produce(fields)
    assert.equal(C.BRIDGE_OK, status, ffi.string(err.text))
    await("a delivery report", function() return delivery.done end)
    assert.equal(C.BRIDGE_OK, delivery.result.status, ffi.string(delivery.result.text))
    return delivery.result.partition, delivery.result.offset
  end

  local function reader(fields)
    local options = ffi.new("struct kafka_reader_options")
    options.cluster = fields.cluster or "main"
    options.topic = fields.topic or "events"
    options.from = fields.from or C.KAFKA_LATEST
    options.skip_when_behind = fields.skip or false
    local positions = ffi.new("struct kafka_position[16]")
    for i, at in ipairs(fields.at or {}) do positions[i - 1] = { partition = at[1], offset = at[2] } end
    options.positions = positions
    options.position_count = fields.at and #fields.at or 0
    local opened = C.kafka_reader_new(kafka, options, err)
    assert(opened ~= nil, ffi.string(err.text))
    return opened
  end

  local function ready(opened)
    local status = await("a reader's positions", function()
      local status = C.kafka_reader_ready(opened)
      return status ~= C.BRIDGE_AGAIN and status + 100
    end)
    return status - 100
  end

  local function open(fields)
    local opened = reader(fields)
    assert.equal(C.BRIDGE_OK, ready(opened), ffi.string(C.kafka_reader_error(opened)))
    return opened
  end

  local view = ffi.new("const struct kafka_record *[1]")

  -- The next record's value, or "gap".
  local function read(from)
    return await("a record", function()
      local status = C.kafka_reader_next(from, view)
      if status == C.BRIDGE_OK then return ffi.string(view[0].value.data, view[0].value.len) end
      if status == C.KAFKA_GAP then return "gap" end
      assert.equal(C.BRIDGE_AGAIN, status)
    end)
  end

  local function status_of(index)
    local status = ffi.new("struct kafka_cluster_status")
    assert.equal(C.BRIDGE_OK, C.kafka_cluster_at(kafka, index or 0, status))
    return status
  end

  describe("clusters", function()
    it("names the property that librdkafka does not know", function()
      local status, text = cluster("main", { ["bootstrap.servers"] = "127.0.0.1:1", ["no.such"] = "1" })
      assert.equal(C.ERROR_INVALID, status)
      assert.matches("no.such", text, 1, true)
      assert.equal(C.BRIDGE_NONE, C.kafka_cluster_at(kafka, 0, ffi.new("struct kafka_cluster_status")))
    end)

    it("refuses one that says nowhere to connect to", function()
      local status, text = cluster("main", { ["client.id"] = "x" })
      assert.equal(C.ERROR_INVALID, status)
      assert.matches("bootstrap.servers", text, 1, true)
    end)

    it("starts although the broker is down, and says so", function()
      cluster("main", { ["bootstrap.servers"] = "127.0.0.1:1" })
      assert.equal("idle", ffi.string(status_of().state))
      produce { value = "x", forget = true }
      await("the state", function() return ffi.string(status_of().state) == "down" end)
      assert.matches("127.0.0.1:1", ffi.string(status_of().error), 1, true)
    end)

    it("keeps a cluster that is defined the same again", function()
      cluster("main", { embedded = "true" })
      local servers = ffi.string(status_of().servers)
      cluster("main", { embedded = "true" })
      assert.equal(servers, ffi.string(status_of().servers))
    end)

    it("lets acks=1 do without idempotence", function()
      cluster("main", { embedded = "true", acks = "1" })
      assert.equal(0, select(2, send { value = "x" }))
    end)

    it("shares one embedded cluster that another process runs", function()
      local processes = ffi.new("struct embedded")
      C.embedded_init(processes, nil)
      local names = ffi.new("const char *[1]", { "main" })
      assert.equal(0, C.embedded_run(processes, names, 1, err), ffi.string(err.text))
      local servers = ffi.string(processes.clusters[0].servers)
      C.kafka_embedded(kafka, "main", servers)
      cluster("main", { embedded = "true" })
      cluster("other", { ["bootstrap.servers"] = servers })
      local from = open { cluster = "other", from = C.KAFKA_EARLIEST }
      send { value = "across" }
      assert.equal("across", read(from))
      C.kafka_reader_free(from)
      C.embedded_close(processes)
      assert.equal(0, processes.count)
    end)
  end)

  describe("produce", function()
    before_each(function() cluster("main", { embedded = "true" }) end)

    it("reports the partition and offset that the broker gave", function()
      for offset = 0, 4 do
        local partition, given = send { value = "v" .. offset, partition = 2 }
        assert.same({ 2, offset }, { partition, tonumber(given) })
      end
    end)

    it("says the truth: each offset reads back as what was sent", function()
      local sent = {}
      for i = 1, 20 do
        local partition, offset = send { key = "k" .. i, value = "v" .. i }
        sent[partition .. "/" .. tonumber(offset)] = "v" .. i
      end
      local from = open { from = C.KAFKA_EARLIEST }
      for _ = 1, 20 do
        local value = read(from)
        local at = view[0].partition .. "/" .. tonumber(view[0].offset)
        assert.equal(sent[at], value)
        sent[at] = nil
      end
      assert.is_nil(next(sent))
      C.kafka_reader_free(from)
    end)

    it("puts a key into one partition, the one that Java's clients would choose", function()
      -- murmur2("21") % 4 and murmur2("foobar") % 4 by Kafka's own unit tests: -973932308, -790332482
      assert.equal(bit.band(-973932308, 0x7fffffff) % 4, (send { key = "21", value = "x" }))
      assert.equal(bit.band(-790332482, 0x7fffffff) % 4, (send { key = "foobar", value = "x" }))
    end)

    it("carries headers, timestamp, the empty text and null as they are", function()
      local from = open {}
      send { key = "", headers = { "a", "1", "a", "2", "empty", "" }, timestamp = 1700000000123 }
      await("the record", function() return C.kafka_reader_next(from, view) == C.BRIDGE_OK end)
      local record = view[0]
      assert.is_true(record.value.data == nil)
      assert.is_true(record.key.data ~= nil and record.key.len == 0)
      assert.equal(1700000000123, tonumber(record.timestamp_ms))
      assert.equal(3, record.header_count)
      assert.equal("a", ffi.string(record.headers[2].data, record.headers[2].len))
      assert.equal("2", ffi.string(record.headers[3].data, record.headers[3].len))
      assert.equal(0, record.headers[5].len)
      C.kafka_reader_free(from)
    end)

    it("refuses a cluster that nobody defined and a topic that cannot be", function()
      assert.equal(C.BRIDGE_NONE, (produce { cluster = "nowhere", value = "x" }))
      assert.matches('no Kafka cluster named "nowhere"', ffi.string(err.text))
      for _, topic in ipairs { "", "a b", "..", "a/b", ("x"):rep(250) } do
        assert.equal(C.BRIDGE_INVALID, (produce { topic = topic, value = "x" }))
      end
    end)

    it("refuses a partition that does not exist, with headers, and lives", function()
      send { value = "x", partition = 0 } -- now the partitions are known
      for _ = 1, 3 do
        assert.equal(C.BRIDGE_INVALID, (produce { value = "x", partition = 99, headers = { "a", "b" } }))
      end
      assert.equal(1, tonumber((select(2, send { value = "x", partition = 0 }))))
    end)

    it("answers in time when the broker does not", function()
      cluster("dead", { ["bootstrap.servers"] = "127.0.0.1:1" })
      local _, delivery = produce { cluster = "dead", value = "x", timeout = 0.05 }
      await("the timeout", function() return delivery.done end, 1)
      assert.equal(C.BRIDGE_TIMEOUT, delivery.result.status)
    end)

    it("fails at once when the queue is full, and counts it", function()
      cluster("dead", { ["bootstrap.servers"] = "127.0.0.1:1", ["queue.buffering.max.messages"] = "3" })
      for _ = 1, 3 do assert.equal(C.BRIDGE_OK, (produce { cluster = "dead", value = "x" })) end
      assert.equal(C.BRIDGE_FULL, (produce { cluster = "dead", value = "x", headers = { "a", "b" } }))
      assert.equal(1, tonumber(status_of(0).refused))
      assert.equal(3, status_of(0).queued)
    end)

    it("forgets a wait that was cancelled, not the record", function()
      local from = open {}
      local _, delivery = produce { value = "still sent", timeout = 5 }
      C.kafka_delivery_cancel(kafka, delivery)
      assert.equal("still sent", read(from))
      assert.is_false(delivery.done)
      C.kafka_reader_free(from)
    end)

    it("sends what is queued in a cluster that leaves the configuration", function()
      local servers = ffi.string(status_of().servers)
      cluster("leaving", { ["bootstrap.servers"] = servers })
      local _, delivery = produce { cluster = "leaving", value = "last words" }
      C.kafka_cluster_drop(kafka, "leaving")
      await("the delivery", function() return delivery.done end)
      assert.equal(C.BRIDGE_OK, delivery.result.status)
      assert.equal(C.BRIDGE_NONE, (produce { cluster = "leaving", value = "x" }))
    end)
  end)

  describe("read", function()
    before_each(function() cluster("main", { embedded = "true" }) end)

    it("begins at the end, so that only what comes later is read", function()
      send { value = "before" }
      local from = open {}
      send { value = "after" }
      assert.equal("after", read(from))
      C.kafka_reader_free(from)
    end)

    it("gives many readers every record in order, through one consumer", function()
      local readers = {}
      for i = 1, 50 do readers[i] = open {} end
      for i = 1, 30 do produce { value = tostring(i), partition = 1, forget = true } end
      for _, from in ipairs(readers) do
        for i = 1, 30 do assert.equal(tostring(i), read(from)) end
      end
      assert.equal(1, status_of().consumers)
      assert.equal(50, status_of().readers)
      assert.equal(30, tonumber(status_of().consumed))
      for _, from in ipairs(readers) do C.kafka_reader_free(from) end
    end)

    it("holds a record once: all readers see the same serial", function()
      local one, two = open {}, open {}
      send { value = "x" }
      read(one)
      local data = view[0].value.data
      read(two)
      assert.equal(data, view[0].value.data)
      C.kafka_reader_free(one)
      C.kafka_reader_free(two)
    end)

    it("stops the consumer when the last reader leaves", function()
      local one, two = open {}, open {}
      C.kafka_reader_free(one)
      turn()
      assert.equal(1, status_of().consumers)
      C.kafka_reader_free(two)
      await("the consumer's end", function() return status_of().consumers == 0 end)
      assert.equal(0, status_of().readers)
    end)

    it("reads from the earliest record and then shares the window", function()
      for i = 1, 10 do send { value = tostring(i), partition = 0 } end
      local from = open { from = C.KAFKA_EARLIEST }
      for i = 1, 10 do assert.equal(tostring(i), read(from)) end
      send { value = "live", partition = 0 }
      assert.equal("live", read(from))
      await("sharing", function()
        assert.equal(C.BRIDGE_AGAIN, C.kafka_reader_next(from, view))
        return C.kafka_reader_shares(from)
      end)
      await("the own consumer's end", function() return status_of().consumers == 1 end)
      send { value = "shared", partition = 0 }
      assert.equal("shared", read(from))
      C.kafka_reader_free(from)
    end)

    it("resumes at given offsets, with neither gap nor duplicate", function()
      for partition = 0, 3 do
        for i = 0, 5 do send { value = partition .. ":" .. i, partition = partition } end
      end
      local from = open { from = C.KAFKA_EARLIEST, at = { { 0, 5 }, { 1, 3 }, { 2, 6 } } } -- all of partition 3
      local seen = {}
      for _ = 1, 1 + 3 + 0 + 6 do seen[#seen + 1] = read(from) end
      table.sort(seen)
      assert.same({ "0:5", "1:3", "1:4", "1:5", "3:0", "3:1", "3:2", "3:3", "3:4", "3:5" }, seen)
      send { value = "next", partition = 2 }
      assert.equal("next", read(from))
      C.kafka_reader_free(from)
    end)

    it("resumes inside the window without another consumer", function()
      local first = open {}
      for i = 0, 5 do send { value = tostring(i), partition = 0 } end
      for _ = 0, 5 do read(first) end
      local second = open { from = C.KAFKA_LATEST, at = { { 0, 3 } } }
      assert.is_true(C.kafka_reader_shares(second))
      for i = 3, 5 do assert.equal(tostring(i), read(second)) end
      assert.equal(1, status_of().consumers)
      C.kafka_reader_free(first)
      C.kafka_reader_free(second)
    end)

    it("tells a gap when the wanted offset is past the log's end", function()
      send { value = "0", partition = 0 }
      local from = open { from = C.KAFKA_EARLIEST, at = { { 0, 40 } } }
      assert.equal("gap", read(from))
      send { value = "1", partition = 0 }
      assert.equal("1", read(from))
      C.kafka_reader_free(from)
    end)

    it("says why a topic cannot be read", function()
      cluster("dead", { ["bootstrap.servers"] = "127.0.0.1:1" })
      local from = reader { cluster = "dead" }
      assert.equal(C.BRIDGE_AGAIN, C.kafka_reader_ready(from))
      C.kafka_cluster_drop(kafka, "dead")
      assert.equal(C.BRIDGE_FAILED, C.kafka_reader_ready(from))
      assert.matches("left the configuration", ffi.string(C.kafka_reader_error(from)))
      C.kafka_reader_free(from)
    end)

    it("finds a reader by its number while it lives, and not after", function()
      local from = open {}
      local number = C.kafka_reader_handle(from)
      assert.is_true(C.kafka_reader_find(kafka, number) == from)
      C.kafka_reader_free(from)
      assert.is_true(C.kafka_reader_find(kafka, number) == nil)
      local other = open {}
      assert.is_true(C.kafka_reader_find(kafka, number) == nil)
      assert.is_true(C.kafka_reader_find(kafka, 0 / 0) == nil)
      assert.is_true(C.kafka_reader_find(kafka, -1) == nil)
      C.kafka_reader_free(other)
    end)
  end)

  describe("a reader behind the window", function()
    before_each(function() cluster("main", { embedded = "true", window_records = "8" }) end)

    local function fill(fast, count)
      for i = 1, count do produce { value = tostring(i), partition = 0, forget = true } end
      for i = 1, count do assert.equal(tostring(i), read(fast)) end
    end

    it("catches up from the broker and loses nothing", function()
      local fast, slow = open {}, open {}
      fill(fast, 100)
      for i = 1, 100 do assert.equal(tostring(i), read(slow)) end
      send { value = "live", partition = 0 }
      assert.equal("live", read(slow))
      await("sharing", function()
        assert.equal(C.BRIDGE_AGAIN, C.kafka_reader_next(slow, view))
        return C.kafka_reader_shares(slow)
      end)
      C.kafka_reader_free(fast)
      C.kafka_reader_free(slow)
    end)

    it("skips and says so, when that is what it wants", function()
      local fast, slow = open {}, open { skip = true }
      fill(fast, 100)
      assert.equal("gap", read(slow))
      local first = tonumber(read(slow))
      assert.is_true(first > 80)
      for i = first + 1, 100 do assert.equal(tostring(i), read(slow)) end
      C.kafka_reader_free(fast)
      C.kafka_reader_free(slow)
    end)

    it("changes nothing for the others", function()
      cluster("main", { embedded = "true", window_records = "1024" }) -- more than one turn of the loop takes
      local fast, stuck = open {}, open {}
      send { value = "0", partition = 0 }
      assert.equal("0", read(stuck))
      assert.equal("0", read(fast))
      fill(fast, 2000)
      assert.equal(1, status_of().consumers)
      C.kafka_reader_free(fast)
      C.kafka_reader_free(stuck)
    end)
  end)

  describe("a broker that goes and comes back", function()
    local mock

    before_each(function()
      mock = C.kafka_mock_new(1, err)
      C.kafka_mock_topic(mock, "events", 1)
      cluster("main", { ["bootstrap.servers"] = ffi.string(C.kafka_mock_servers(mock)) })
    end)

    -- The mock goes last: its clients would only log that it is gone.
    after_each(function()
      C.kafka_cluster_drop(kafka, "main")
      C.kafka_mock_free(mock)
    end)

    it("gets the records that were queued meanwhile, and readers go on", function()
      local from = open {}
      send { value = "before" }
      assert.equal("before", read(from))
      C.kafka_mock_down(mock, true)
      local _, delivery = produce { value = "meanwhile", timeout = 20 }
      local _, late = produce { value = "given up", timeout = 0.02 }
      await("giving up", function() return late.done end)
      assert.equal(C.BRIDGE_TIMEOUT, late.result.status)
      C.kafka_mock_down(mock, false)
      await("the delivery", function() return delivery.done end, 15)
      assert.equal(C.BRIDGE_OK, delivery.result.status)
      assert.equal("meanwhile", read(from))
      assert.equal("given up", read(from)) -- as the answer said: it may yet arrive
      C.kafka_reader_free(from)
    end)
  end)
end)
