-- SPDX-License-Identifier: Apache-2.0
-- kafka-log with topics that are tables of the spec; what takes librdkafka stands in broker_spec.
local spec = require "sluice.spec"

describe("kafka-log", function()
  local gateway

  local function start(config, more)
    config.topic = config.topic or "access"
    local options = { plugins = { { name = "kafka-log", config = config } }, topics = { access = 3 },
      upstreams = { ["*"] = { body = "hello" } } }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
    return gateway
  end

  local function records()
    gateway:settle()
    return gateway:records("access")
  end

  local function metric(name, labels)
    gateway:advance(1)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match("\n" .. name .. "{" .. labels .. "[^}]*} (%S+)"))
  end

  local function problem(config)
    config.topic = config.topic or "access"
    local ok, err = spec.check { plugins = { { name = "kafka-log", config = config } }, topics = { access = 1 } }
    assert.is_nil(ok)
    return err
  end

  it("writes each exchange as JSON in Kong's log format", function()
    start { queue = { max_batch_size = 1 } }
    gateway:get("/a?b=c")
    local record = records()[1]
    assert.equal("/a?b=c", record.json.request.uri)
    assert.equal(200, record.json.response.status)
    assert.equal("route", record.json.route.name)
    assert.is_nil(record.key)
    assert.equal(1767225600000, record.timestamp)
  end)

  it("adds the fields that Lua code returns", function()
    start { queue = { max_batch_size = 1 }, custom_fields_by_lua = {
      where = "return exchange.request:get_header('x-where')", who = "local it = ... return it.client:get_ip()" } }
    gateway:get("/", { ["X-Where"] = "here" })
    local record = records()[1].json
    assert.same({ "here", "127.0.0.1" }, { record.where, record.who })
  end)

  it("gives records the key that Lua code returns", function()
    start { queue = { max_batch_size = 1 }, key_by_lua = "return exchange.request:get_header('x-key')" }
    gateway:get("/1", { ["X-Key"] = "a b 3" })
    gateway:get("/2", { ["X-Key"] = "" })
    gateway:get("/3")
    local by_path = {}
    for _, record in ipairs(records()) do by_path[record.json.request.uri] = record.key or "none" end
    assert.same({ ["/1"] = "a b 3", ["/2"] = "", ["/3"] = "none" }, by_path)
  end)

  it("takes a number for a key", function()
    start { queue = { max_batch_size = 1 }, key_by_lua = "return 7" }
    gateway:get("/")
    assert.equal("7", records()[1].key)
  end)

  describe("sends records", function()
    it("in batches, once one is whole", function()
      start { queue = { max_batch_size = 3, max_coalescing_delay = 60 } }
      gateway:get("/1")
      gateway:get("/2")
      assert.equal(0, #records())
      gateway:get("/3")
      assert.equal(3, #records())
    end)

    it("once they have waited long enough, with the time at which they were logged", function()
      start { queue = { max_batch_size = 3, max_coalescing_delay = 5 } }
      gateway:get("/1")
      gateway:advance(4)
      assert.equal(0, #records())
      gateway:advance(1)
      assert.equal(1767225600000, records()[1].timestamp)
    end)

    it("after a second or with two hundred, unless told otherwise", function()
      start {}
      for i = 1, 200 do gateway:get("/" .. i) end
      assert.equal(200, #records())
      gateway:get("/201")
      assert.equal(200, #records())
      gateway:advance(1)
      assert.equal(201, #records())
    end)

    it("in such batches too where the queue is told something else", function()
      start { queue = { max_entries = 300 } }
      for i = 1, 200 do gateway:get("/" .. i) end
      assert.equal(200, #records())
      gateway:get("/201")
      assert.equal(200, #records())
    end)

    it("at once and side by side when told not to be asynchronous", function()
      start { producer_async = false }
      gateway:get("/1")
      assert.equal(1, #records())
    end)

    it("as Kong's older fields say", function()
      start { producer_request_limits_messages_per_request = 2, producer_async_flush_timeout = 3000,
        producer_async_buffering_limits_messages_in_memory = 4 }
      gateway:get("/1")
      gateway:get("/2")
      assert.equal(2, #records())
      gateway:get("/3")
      gateway:advance(2.5)
      assert.equal(2, #records())
      gateway:advance(0.5)
      assert.equal(3, #records())
      gateway:fail_topic("access", "full")
      for i = 4, 9 do gateway:get("/" .. i) end
      gateway:settle()
      assert.equal(2, metric("sluice_queue_dropped_total", 'plugin="kafka%-log"'))
    end)

    it("again, later each time, until the cluster takes them", function()
      start { queue = { max_batch_size = 2, initial_retry_delay = 1 } }
      gateway:fail_topic("access", "_TRANSPORT")
      gateway:get("/1")
      gateway:get("/2")
      gateway:advance(2)
      gateway:fail_topic("access")
      assert.equal(0, #records())
      gateway:advance(2)
      assert.equal(2, #records())
      assert.equal(2, metric("sluice_queue_retries_total", 'plugin="kafka%-log"'))
      assert.equal(2, metric("sluice_queue_sent_total", 'plugin="kafka%-log"'))
    end)

    it("again when there is no room in the cluster's queue, or no acknowledgement in time", function()
      for _, failure in ipairs { "full", "timeout" } do
        start { timeout = 1000, queue = { max_batch_size = 1, initial_retry_delay = 1 } }
        gateway:fail_topic("access", failure)
        gateway:get("/1")
        gateway:advance(1.5)
        gateway:fail_topic("access")
        gateway:advance(5)
        assert.equal(1, #records())
        gateway:close()
      end
    end)
  end)

  it("gives records up after queue.max_retry_time, counts them and says why", function()
    start { queue = { max_batch_size = 2, max_retry_time = 5, initial_retry_delay = 1 } }
    gateway:fail_topic("access", "_TRANSPORT")
    gateway:get("/1")
    gateway:get("/2")
    gateway:advance(20)
    assert.equal(2, metric("sluice_queue_dropped_total", 'plugin="kafka%-log"'))
    assert.matches("given up on", gateway:log("log entries dropped")[1])
  end)

  it("drops a record that Kafka will never take at once, counts it and says why", function()
    start { queue = { max_batch_size = 1 } }
    gateway:fail_topic("access", "MSG_SIZE_TOO_LARGE")
    gateway:get("/1")
    gateway:settle()
    gateway:fail_topic("access")
    gateway:advance(5)
    assert.equal(0, #records())
    assert.equal(1, metric("sluice_log_lost_total", 'plugin="kafka%-log"'))
    assert.is_nil(metric("sluice_queue_sent_total", 'plugin="kafka%-log"'))
    assert.matches("topic=access", gateway:log("log lines dropped")[1])
  end)

  it("drops the oldest past queue.max_entries, and holds no request up", function()
    start { queue = { max_batch_size = 1, max_entries = 3, initial_retry_delay = 1 } }
    gateway:fail_topic("access", "full")
    for i = 1, 5 do assert.equal("hello", gateway:get("/" .. i).body) end
    gateway:fail_topic("access")
    gateway:advance(5)
    local paths = {}
    for _, record in ipairs(records()) do paths[record.json.request.uri] = true end
    assert.same({ ["/1"] = true, ["/4"] = true, ["/5"] = true }, paths)
  end)

  it("keeps what waits over a reload", function()
    start { queue = { max_batch_size = 9, max_coalescing_delay = 5 } }
    gateway:get("/1")
    assert.is_true(gateway:reload {})
    gateway:get("/2")
    gateway:advance(5)
    assert.equal(2, #records())
  end)

  it("writes TCP streams as well, where it is told to", function()
    local ok, err = spec.check { plugins = { { name = "kafka-log", protocols = { "http", "tcp" },
      config = { topic = "access" } } }, topics = { access = 1 } }
    assert.is_true(ok, err)
  end)

  describe("refuses", function()
    it("a configuration without a topic, or with one that cannot be", function()
      local _, err = spec.check { plugins = { { name = "kafka-log", config = {} } }, topics = { access = 1 } }
      assert.matches("config.topic: expected", err, 1, true)
      assert.matches("config.topic: expected", problem { topic = "a b" }, 1, true)
    end)

    it("code that is no Lua", function()
      assert.matches("config.key_by_lua: expected Lua code (line 1", problem { key_by_lua = "return (" }, 1, true)
      assert.matches("custom_fields_by_lua", problem { custom_fields_by_lua = { a = "end" } }, 1, true)
    end)

    it("acknowledgements that Kafka does not know", function()
      assert.matches("producer_request_acks", problem { producer_request_acks = 2 }, 1, true)
    end)
  end)
end)
