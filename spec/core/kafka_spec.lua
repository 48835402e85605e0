-- SPDX-License-Identifier: Apache-2.0
-- Kafka in one worker, against librdkafka's mock brokers in this process.
local ffi = require "ffi"
local client = require "spec.kafka.client"
local posix = require "spec.support.posix"

local C = client.C

describe("kafka", function()
  local kafka

  before_each(function() kafka = client.new() end)
  after_each(function() kafka:close() end)

  describe("clusters", function()
    it("names the property that librdkafka does not know", function()
      local status = kafka:cluster("main", { ["bootstrap.servers"] = "127.0.0.1:1", ["no.such"] = "1" })
      assert.equal(C.ERROR_INVALID, status)
      assert.matches("no.such", kafka:why(), 1, true)
      assert.equal(C.BRIDGE_NONE, C.kafka_cluster_at(kafka.kafka, 0, ffi.new("struct kafka_cluster_status")))
    end)

    it("names what is missing for tokens, and takes the rest as librdkafka does", function()
      local properties = { ["bootstrap.servers"] = "127.0.0.1:1", ["security.protocol"] = "sasl_plaintext",
        ["sasl.mechanism"] = "OAUTHBEARER" }
      local function why(name, value)
        if name then properties[name] = value end
        return kafka:cluster("main", properties) == 0 and "taken" or kafka:why()
      end
      assert.equal("sasl.oauthbearer.method: expected oidc for OAUTHBEARER", why())
      assert.equal("sasl.oauthbearer.client.id: expected a text, found nothing",
        why("sasl.oauthbearer.method", "oidc"))
      assert.matches("client.secret", why("sasl.oauthbearer.client.id", "gateway"), 1, true)
      assert.matches("token.endpoint.url", why("sasl.oauthbearer.client.secret", "secret"), 1, true)
      assert.equal("sasl.oauthbearer.token.endpoint.url: expected http:// or https://",
        why("sasl.oauthbearer.token.endpoint.url", "ftp://a"))
      assert.equal("taken", why("sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1:1/"))
      assert.matches("sasl.oauthbearer.scopes: No such configuration property",
        why("sasl.oauthbearer.scopes", "x"), 1, true)
    end)

    it("takes OAUTHBEARER with tokens that nobody signs, which librdkafka makes itself", function()
      assert.equal(0, kafka:cluster("main", { ["bootstrap.servers"] = "127.0.0.1:1",
        ["security.protocol"] = "sasl_plaintext", ["sasl.mechanism"] = "OAUTHBEARER",
        ["enable.sasl.oauthbearer.unsecure.jwt"] = "true", ["sasl.oauthbearer.config"] = "principal=a" }))
    end)

    it("refuses a certificate without its key, which librdkafka would show to nobody", function()
      local properties = { ["bootstrap.servers"] = "127.0.0.1:1", ["ssl.certificate.location"] = "/some.crt" }
      assert.equal(C.ERROR_INVALID, kafka:cluster("main", properties))
      assert.equal("ssl.certificate.location: expected ssl.key.location or ssl.key.pem beside it, found neither",
        kafka:why())
      properties["ssl.key.location"] = "/some.key"
      assert.equal(0, kafka:cluster("main", properties))
    end)

    it("refuses one that says nowhere to connect to", function()
      local status = kafka:cluster("main", { ["client.id"] = "x" })
      assert.equal(C.ERROR_INVALID, status)
      assert.matches("bootstrap.servers", kafka:why(), 1, true)
    end)

    it("starts although the broker is down, and says so", function()
      kafka:cluster("main", { ["bootstrap.servers"] = "127.0.0.1:1" })
      assert.equal("idle", ffi.string(kafka:status().state))
      kafka:produce { value = "x", forget = true }
      kafka:await("the state", function() return ffi.string(kafka:status().state) == "down" end)
      assert.matches("127.0.0.1:1", ffi.string(kafka:status().error), 1, true)
    end)

    it("ends in the time that it has, however many are away", function()
      local other, before = client.new(), posix.now()
      for i = 1, 20 do
        other:cluster("away" .. i, { ["bootstrap.servers"] = "127.0.0.1:1" })
        other:produce { cluster = "away" .. i, value = "x", forget = true }
      end
      other:close(1000)
      assert.is_true(posix.now() - before < 15, "each had its own time") -- which would be 20 s
    end)

    it("keeps a cluster that is defined the same again", function()
      kafka:cluster("main", { embedded = "true" })
      local servers = ffi.string(kafka:status().servers)
      kafka:cluster("main", { embedded = "true" })
      assert.equal(servers, ffi.string(kafka:status().servers))
    end)

    it("lets acks=1 do without idempotence", function()
      kafka:cluster("main", { embedded = "true", acks = "1" })
      assert.equal(0, select(2, kafka:send { value = "x" }))
    end)

    it("shares one embedded cluster that another process runs", function()
      local processes = ffi.new("struct embedded")
      C.embedded_init(processes, nil)
      local names = ffi.new("const char *[1]", { "main" })
      assert.equal(0, C.embedded_run(processes, names, 1, kafka.error), kafka:why())
      local servers = ffi.string(processes.clusters[0].servers)
      C.kafka_embedded(kafka.kafka, "main", servers)
      kafka:cluster("main", { embedded = "true" })
      kafka:cluster("other", { ["bootstrap.servers"] = servers })
      local from = kafka:open { cluster = "other", from = C.KAFKA_EARLIEST }
      kafka:send { value = "across" }
      assert.equal("across", kafka:read(from))
      C.kafka_reader_free(from)
      C.embedded_close(processes)
      assert.equal(0, processes.count)
    end)
  end)

  describe("produce", function()
    before_each(function() kafka:cluster("main", { embedded = "true" }) end)

    it("reports the partition and offset that the broker gave", function()
      for offset = 0, 4 do
        local partition, given = kafka:send { value = "v" .. offset, partition = 2 }
        assert.same({ 2, offset }, { partition, tonumber(given) })
      end
    end)

    it("says the truth: each offset reads back as what was sent", function()
      local sent = {}
      for i = 1, 20 do
        local partition, offset = kafka:send { key = "k" .. i, value = "v" .. i }
        sent[partition .. "/" .. tonumber(offset)] = "v" .. i
      end
      local from = kafka:open { from = C.KAFKA_EARLIEST }
      for _ = 1, 20 do
        local record = kafka:record(from)
        local value = ffi.string(record.value.data, record.value.len)
        local at = record.partition .. "/" .. tonumber(record.offset)
        assert.equal(sent[at], value)
        sent[at] = nil
      end
      assert.is_nil(next(sent))
      C.kafka_reader_free(from)
    end)

    it("puts a key into one partition, the one that Java's clients would choose", function()
      -- murmur2("21") % 4 and murmur2("foobar") % 4 by Kafka's own unit tests: -973932308, -790332482
      assert.equal(bit.band(-973932308, 0x7fffffff) % 4, (kafka:send { key = "21", value = "x" }))
      assert.equal(bit.band(-790332482, 0x7fffffff) % 4, (kafka:send { key = "foobar", value = "x" }))
    end)

    it("carries headers, timestamp, the empty text and null as they are", function()
      local from = kafka:open {}
      kafka:send { key = "", headers = { "a", "1", "a", "2", "empty", "" }, timestamp = 1700000000123 }
      local record = kafka:record(from)
      assert.is_true(record.value.data == nil)
      assert.is_true(record.key.data ~= nil and record.key.len == 0)
      assert.equal(1700000000123, tonumber(record.timestamp_ms))
      assert.equal(3, record.header_count)
      assert.equal("a", ffi.string(record.headers[2].data, record.headers[2].len))
      assert.equal("2", ffi.string(record.headers[3].data, record.headers[3].len))
      assert.equal(0, record.headers[5].len)
      C.kafka_reader_free(from)
    end)

    it("holds no more than its queue may, whatever part of a record is large", function()
      for name, record in pairs {
        value = { value = ("x"):rep(1000) }, key = { key = ("x"):rep(1000) },
        headers = { headers = { "name", ("x"):rep(1000) } }, nothing = {},
      } do
        kafka:cluster(name, { ["bootstrap.servers"] = "127.0.0.1:1", ["queue.buffering.max.kbytes"] = "64",
          ["message.timeout.ms"] = "300" })
        record.cluster, record.forget = name, true
        local function fill()
          local count = 0
          while kafka:produce(record) == C.BRIDGE_OK and count < 5000 do count = count + 1 end
          return count
        end
        local count = fill()
        assert.is_true(name == "nothing" and count < 260 or count <= 64, name .. " " .. count)
        kafka:await("room", function() return kafka:produce(record) == C.BRIDGE_OK end)
        assert.is_true(fill() > 0)
      end
    end)

    it("refuses a cluster that nobody defined and a topic that cannot be", function()
      assert.equal(C.BRIDGE_NONE, (kafka:produce { cluster = "nowhere", value = "x" }))
      assert.matches('no Kafka cluster named "nowhere"', kafka:why())
      for _, topic in ipairs { "", "a b", "..", "a/b", ("x"):rep(250) } do
        assert.equal(C.BRIDGE_INVALID, (kafka:produce { topic = topic, value = "x" }))
      end
    end)

    it("refuses a partition that does not exist, with headers, and lives", function()
      kafka:send { value = "x", partition = 0 } -- now the partitions are known
      for _ = 1, 3 do
        assert.equal(C.KAFKA_NO_PARTITION, (kafka:produce { value = "x", partition = 99, headers = { "a", "b" } }))
      end
      assert.equal(1, tonumber((select(2, kafka:send { value = "x", partition = 0 }))))
    end)

    it("refuses a record that no broker of the cluster is to be sent", function()
      kafka:cluster("small", { embedded = "true", ["message.max.bytes"] = "2000" })
      assert.equal(C.KAFKA_TOO_LARGE, (kafka:produce { cluster = "small", value = ("x"):rep(3000) }))
    end)

    describe("that is dropped when its time is over", function()
      -- How many clients of librdkafka there are: each has one such thread.
      local function clients()
        local count = 0
        for name in io.popen("cat /proc/" .. posix.getpid() .. "/task/*/comm 2>/dev/null"):lines() do
          if name == "rdk:main" then count = count + 1 end
        end
        return count
      end

      local function away(name, properties)
        properties = properties or {}
        properties["bootstrap.servers"] = "127.0.0.1:1"
        assert.equal(0, kafka:cluster(name, properties))
      end

      local function fate(fields)
        local status, delivery = kafka:produce(fields)
        assert.equal(C.BRIDGE_OK, status)
        kafka:await("a report", function() return delivery.done end)
        return delivery.result.status, ffi.string(delivery.result.text)
      end

      it("says that it was not sent, and will not be, before the one who waits gives up", function()
        away "dead"
        local status, text = fate { cluster = "dead", value = "x", expires = 4, timeout = 15 }
        assert.equal(C.KAFKA_EXPIRED, status)
        assert.matches("was not sent, and will not be", text, 1, true)
        assert.equal(0, kafka:status(0).queued)
      end)

      it("goes by the cluster's message.timeout.ms where that is given", function()
        away("dead", { ["message.timeout.ms"] = "200" })
        assert.equal(C.KAFKA_EXPIRED, (fate { cluster = "dead", value = "x", expires = 3600 }))
      end)

      it("waits longer than the cluster's records linger", function()
        away("slow", { ["linger.ms"] = "900" })
        assert.equal(C.KAFKA_EXPIRED, (fate { cluster = "slow", value = "x", expires = 0.1 }))
      end)

      it("shares a client with those of the same time, of which a cluster has no more than eight", function()
        away "dead"
        local before = clients()
        for _ = 1, 2 do
          for seconds = 101, 120 do
            kafka:produce { cluster = "dead", value = "x", expires = seconds, forget = true }
          end
        end
        assert.equal(before + 8 + 1, clients())
        assert.equal(40, kafka:status(0).queued)
      end)

      it("shares the cluster's memory with all others", function()
        away("dead", { ["queue.buffering.max.kbytes"] = "64" })
        local count = 0
        while kafka:produce { cluster = "dead", value = ("x"):rep(1000), expires = 101 + count % 4,
          forget = true } == C.BRIDGE_OK do count = count + 1 end
        assert.is_true(count > 40 and count <= 64, count)
      end)

      it("needs its client no more when nobody has such records", function()
        kafka:send { value = "x" }
        local before = clients()
        kafka:send { value = "x", expires = 77 }
        assert.equal(before + 1, clients())
        C.kafka_expiry_drop(kafka.kafka, "main", 77)
        C.kafka_expiry_drop(kafka.kafka, "main", 78)
        C.kafka_expiry_drop(kafka.kafka, "nowhere", 77)
        kafka:await("its end", function() return clients() == before end)
        kafka:send { value = "x", expires = 77 }
      end)
    end)

    it("answers in time when the broker does not", function()
      kafka:cluster("dead", { ["bootstrap.servers"] = "127.0.0.1:1" })
      local _, delivery = kafka:produce { cluster = "dead", value = "x", timeout = 0.05 }
      kafka:await("the timeout", function() return delivery.done end, 20) -- before that of the record, 30 s
      assert.equal(C.BRIDGE_TIMEOUT, delivery.result.status)
    end)

    it("fails at once when the queue is full, and counts it", function()
      kafka:cluster("dead", { ["bootstrap.servers"] = "127.0.0.1:1", ["queue.buffering.max.messages"] = "3" })
      for _ = 1, 3 do assert.equal(C.BRIDGE_OK, (kafka:produce { cluster = "dead", value = "x" })) end
      assert.equal(C.BRIDGE_FULL, (kafka:produce { cluster = "dead", value = "x", headers = { "a", "b" } }))
      assert.equal(1, tonumber(kafka:status(0).refused))
      assert.equal(3, kafka:status(0).queued)
    end)

    it("forgets a wait that was cancelled, not the record", function()
      local from = kafka:open {}
      local _, delivery = kafka:produce { value = "still sent", timeout = 5 }
      C.kafka_delivery_cancel(kafka.kafka, delivery)
      assert.equal("still sent", kafka:read(from))
      assert.is_false(delivery.done)
      C.kafka_reader_free(from)
    end)

    it("sends what is queued in a cluster that leaves the configuration", function()
      local servers = ffi.string(kafka:status().servers)
      kafka:cluster("leaving", { ["bootstrap.servers"] = servers })
      local _, delivery = kafka:produce { cluster = "leaving", value = "last words" }
      C.kafka_cluster_drop(kafka.kafka, "leaving")
      kafka:await("the delivery", function() return delivery.done end)
      assert.equal(C.BRIDGE_OK, delivery.result.status)
      assert.equal(C.BRIDGE_NONE, (kafka:produce { cluster = "leaving", value = "x" }))
    end)
  end)

  describe("read", function()
    before_each(function() kafka:cluster("main", { embedded = "true" }) end)

    it("begins at the end, so that only what comes later is read", function()
      kafka:send { value = "before" }
      local from = kafka:open {}
      kafka:send { value = "after" }
      assert.equal("after", kafka:read(from))
      C.kafka_reader_free(from)
    end)

    it("gives many readers every record in order, through one consumer", function()
      local readers = {}
      for i = 1, 50 do readers[i] = kafka:open {} end
      for i = 1, 30 do kafka:produce { value = tostring(i), partition = 1, forget = true } end
      for _, from in ipairs(readers) do
        for i = 1, 30 do assert.equal(tostring(i), kafka:read(from)) end
      end
      assert.equal(1, kafka:status().consumers)
      assert.equal(50, kafka:status().readers)
      assert.equal(30, tonumber(kafka:status().consumed))
      for _, from in ipairs(readers) do C.kafka_reader_free(from) end
    end)

    it("holds a record once: all readers see the same serial", function()
      local one, two = kafka:open {}, kafka:open {}
      kafka:send { value = "x" }
      local record = kafka:record(one)
      assert.equal(record, kafka:record(two))
      C.kafka_reader_free(one)
      C.kafka_reader_free(two)
    end)

    it("stops the consumer when the last reader leaves", function()
      local one, two = kafka:open {}, kafka:open {}
      C.kafka_reader_free(one)
      kafka:turn()
      assert.equal(1, kafka:status().consumers)
      C.kafka_reader_free(two)
      kafka:await("the consumer's end", function() return kafka:status().consumers == 0 end)
      assert.equal(0, kafka:status().readers)
    end)

    it("begins a little before the end: who comes back needs no consumer of its own", function()
      for i = 0, 9 do kafka:send { value = tostring(i), partition = 0 } end
      local new, back = kafka:open {}, kafka:open { from = C.KAFKA_LATEST, at = { { 0, 7 } } }
      assert.is_true(C.kafka_reader_shares(back))
      for i = 7, 9 do assert.equal(tostring(i), kafka:read(back)) end
      kafka:send { value = "new", partition = 0 }
      assert.equal("new", kafka:read(new))
      assert.equal("new", kafka:read(back))
      assert.equal(1, kafka:status().consumers)
      C.kafka_reader_free(new)
      C.kafka_reader_free(back)
    end)

    it("begins at the end after all where what is before it is large, and loses nothing", function()
      local large = ("x"):rep(900000)
      for i = 0, 7 do kafka:send { value = i .. large, partition = i < 4 and 0 or 2 } end
      kafka:send { value = "small", partition = 1 }
      local new, back = kafka:open {}, kafka:open { from = C.KAFKA_LATEST, at = { { 0, 1 }, { 1, 0 }, { 2, 0 } } }
      local values = {}
      for _ = 1, 8 do values[#values + 1] = kafka:read(back):sub(1, 5) end
      table.sort(values)
      assert.same({ "1xxxx", "2xxxx", "3xxxx", "4xxxx", "5xxxx", "6xxxx", "7xxxx", "small" }, values)
      kafka:await_sharing(back)
      kafka:send { value = "new", partition = 0 }
      assert.equal("new", kafka:read(new))
      assert.equal("new", kafka:read(back))
      C.kafka_reader_free(new)
      C.kafka_reader_free(back)
    end)

    it("reads from the earliest record and then shares the window", function()
      kafka:cluster("main", { embedded = "true", window_records = "4" }) -- which does not hold it
      for i = 1, 10 do kafka:send { value = tostring(i), partition = 0 } end
      local from = kafka:open { from = C.KAFKA_EARLIEST }
      for i = 1, 10 do assert.equal(tostring(i), kafka:read(from)) end
      kafka:send { value = "live", partition = 0 }
      assert.equal("live", kafka:read(from))
      kafka:await_sharing(from)
      kafka:await("the own consumer's end", function() return kafka:status().consumers == 1 end)
      kafka:send { value = "shared", partition = 0 }
      assert.equal("shared", kafka:read(from))
      C.kafka_reader_free(from)
    end)

    it("resumes at given offsets, with neither gap nor duplicate", function()
      for partition = 0, 3 do
        for i = 0, 5 do kafka:send { value = partition .. ":" .. i, partition = partition } end
      end
      local from = kafka:open { from = C.KAFKA_EARLIEST, at = { { 0, 5 }, { 1, 3 }, { 2, 6 } } } -- all of partition 3
      local seen = {}
      for _ = 1, 1 + 3 + 0 + 6 do seen[#seen + 1] = kafka:read(from) end
      table.sort(seen)
      assert.same({ "0:5", "1:3", "1:4", "1:5", "3:0", "3:1", "3:2", "3:3", "3:4", "3:5" }, seen)
      kafka:send { value = "next", partition = 2 }
      assert.equal("next", kafka:read(from))
      C.kafka_reader_free(from)
    end)

    it("resumes inside the window without another consumer", function()
      local first = kafka:open {}
      for i = 0, 5 do kafka:send { value = tostring(i), partition = 0 } end
      for _ = 0, 5 do kafka:read(first) end
      local second = kafka:open { from = C.KAFKA_LATEST, at = { { 0, 3 } } }
      assert.is_true(C.kafka_reader_shares(second))
      for i = 3, 5 do assert.equal(tostring(i), kafka:read(second)) end
      assert.equal(1, kafka:status().consumers)
      C.kafka_reader_free(first)
      C.kafka_reader_free(second)
    end)

    it("tells a gap when the wanted offset is past the log's end", function()
      kafka:send { value = "0", partition = 0 }
      local from = kafka:open { from = C.KAFKA_EARLIEST, at = { { 0, 40 } } }
      assert.equal("gap", kafka:read(from))
      kafka:send { value = "1", partition = 0 }
      assert.equal("1", kafka:read(from))
      C.kafka_reader_free(from)
    end)

    it("says why a topic cannot be read", function()
      kafka:cluster("dead", { ["bootstrap.servers"] = "127.0.0.1:1" })
      local from = kafka:reader { cluster = "dead" }
      assert.equal(C.BRIDGE_AGAIN, C.kafka_reader_ready(from))
      C.kafka_cluster_drop(kafka.kafka, "dead")
      assert.equal(C.BRIDGE_FAILED, C.kafka_reader_ready(from))
      assert.matches("left the configuration", ffi.string(C.kafka_reader_error(from)))
      C.kafka_reader_free(from)
    end)

    it("finds a reader by its number while it lives, and not after", function()
      local from = kafka:open {}
      local number = C.kafka_reader_handle(from)
      assert.is_true(C.kafka_reader_find(kafka.kafka, number) == from)
      C.kafka_reader_free(from)
      assert.is_true(C.kafka_reader_find(kafka.kafka, number) == nil)
      local other = kafka:open {}
      assert.is_true(C.kafka_reader_find(kafka.kafka, number) == nil)
      assert.is_true(C.kafka_reader_find(kafka.kafka, 0 / 0) == nil)
      assert.is_true(C.kafka_reader_find(kafka.kafka, -1) == nil)
      C.kafka_reader_free(other)
    end)
  end)

  describe("a reader behind the window", function()
    before_each(function() kafka:cluster("main", { embedded = "true", window_records = "8" }) end)

    local function fill(fast, count)
      for i = 1, count do kafka:produce { value = tostring(i), partition = 0, forget = true } end
      for i = 1, count do assert.equal(tostring(i), kafka:read(fast)) end
    end

    it("catches up from the broker and loses nothing", function()
      local fast, slow = kafka:open {}, kafka:open {}
      fill(fast, 100)
      for i = 1, 100 do assert.equal(tostring(i), kafka:read(slow)) end
      kafka:send { value = "live", partition = 0 }
      assert.equal("live", kafka:read(slow))
      kafka:await_sharing(slow)
      C.kafka_reader_free(fast)
      C.kafka_reader_free(slow)
    end)

    it("skips and says so, when that is what it wants", function()
      local fast, slow = kafka:open {}, kafka:open { skip = true }
      fill(fast, 100)
      -- What it reads while it shares is in the window: the last of it is not still to come.
      kafka:await_sharing(fast)
      kafka:send { value = "101", partition = 0 }
      assert.equal("101", kafka:read(fast))
      assert.equal("gap", kafka:read(slow))
      local first = tonumber(kafka:read(slow))
      assert.is_true(first > 80)
      for i = first + 1, 101 do assert.equal(tostring(i), kafka:read(slow)) end
      C.kafka_reader_free(fast)
      C.kafka_reader_free(slow)
    end)

    it("is told a gap when the broker has deleted what it had not read, and goes on behind it", function()
      kafka:cluster("main", { embedded = "true", window_records = "4", ["queued.max.messages.kbytes"] = "64",
        ["fetch.message.max.bytes"] = "20000" }) -- so that it cannot have fetched all of it
      local value, count = ("x"):rep(10000), 1500 -- the mock keeps 5 MB of a partition
      local function fill_to(from, to)
        for i = from, to do kafka:produce { value = i .. " " .. value, partition = 0, forget = true } end
        kafka:await("all acknowledged", function() return kafka:status().delivered == to end)
      end
      fill_to(1, 5)
      local slow = kafka:open { from = C.KAFKA_EARLIEST }
      assert.equal("1", kafka:read(slow):match("^%d+"))
      fill_to(6, count)
      local at, gaps, behind = 1, 0, 0
      while behind < 10 do
        local text = kafka:read(slow)
        if text == "gap" then
          gaps = gaps + 1
        else
          local number = tonumber(text:match("^%d+"))
          assert.is_true(number == at + 1 or (gaps == 1 and number > at), at .. " then " .. number .. " gaps " .. gaps)
          at, behind = number, behind + gaps
        end
      end
      assert.equal(1, gaps)
      C.kafka_reader_free(slow)
    end)

    it("changes nothing for the others", function()
      kafka:cluster("main", { embedded = "true", window_records = "1024" }) -- more than one turn of the loop takes
      local fast, stuck = kafka:open {}, kafka:open {}
      kafka:send { value = "0", partition = 0 }
      assert.equal("0", kafka:read(stuck))
      assert.equal("0", kafka:read(fast))
      fill(fast, 2000)
      assert.equal(1, kafka:status().consumers)
      C.kafka_reader_free(fast)
      C.kafka_reader_free(stuck)
    end)
  end)

  describe("a broker that goes and comes back", function()
    local mock

    before_each(function()
      mock = C.kafka_mock_new(1, kafka.error)
      C.kafka_mock_topic(mock, "events", 1)
      kafka:cluster("main", { ["bootstrap.servers"] = ffi.string(C.kafka_mock_servers(mock)) })
    end)

    -- The mock goes last: its clients would only log that it is gone.
    after_each(function()
      C.kafka_cluster_drop(kafka.kafka, "main")
      C.kafka_mock_free(mock)
    end)

    it("gets the records that were queued meanwhile, and readers go on", function()
      local from = kafka:open {}
      kafka:send { value = "before" }
      assert.equal("before", kafka:read(from))
      C.kafka_mock_down(mock, true)
      local _, delivery = kafka:produce { value = "meanwhile", timeout = 20 }
      local _, late = kafka:produce { value = "given up", timeout = 0.02 }
      kafka:await("giving up", function() return late.done end)
      assert.equal(C.BRIDGE_TIMEOUT, late.result.status)
      C.kafka_mock_down(mock, false)
      kafka:await("the delivery", function() return delivery.done end)
      assert.equal(C.BRIDGE_OK, delivery.result.status)
      assert.equal("meanwhile", kafka:read(from))
      assert.equal("given up", kafka:read(from)) -- as the answer said: it may yet arrive
      C.kafka_reader_free(from)
    end)
  end)
end)
