-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local GATEWAY = { kafka = { main = { ["bootstrap.servers"] = "127.0.0.1:1" } } }

describe("kafka-sink", function()
  local gateway, answer

  local function options_of(config, more)
    local conf = { topics = { "orders" }, group = "billing" }
    for name, value in pairs(config or {}) do conf[name] = value end
    local options = { gateway = GATEWAY, topics = { orders = 3, dead = 1, replies = 1 },
      services = { { name = "billing", url = "http://billing.example/hook", retries = 0 } },
      plugins = { { name = "kafka-sink", service = "billing", config = conf } },
      upstreams = { ["*"] = function(request) return type(answer) == "function" and answer(request) or answer end } }
    for name, value in pairs(more or {}) do options[name] = value end
    return options
  end

  -- A gateway with the sink, which has joined its group.
  local function start(config, more)
    gateway = spec.gateway(options_of(config, more))
    gateway:advance(1)
  end

  before_each(function() answer = { status = 204 } end)

  local function produce(key, value, more)
    local record = { key = key, value = value }
    for name, it in pairs(more or {}) do record[name] = it end
    gateway:produce("orders", record)
  end

  local function sent()
    return gateway:requests("billing.example")
  end

  local function bodies()
    local list = {}
    for i, request in ipairs(sent()) do list[i] = request.body end
    return list
  end

  local function metric(line)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match("\n" .. line:gsub("%p", "%%%0") .. " (%S+)"))
  end

  local function done_with(outcome)
    return metric(('sluice_kafka_sink_records_total{group="billing",service="billing",outcome="%s"}'):format(outcome))
  end

  -- Another instance of the group, which goes on behind what was committed.
  local function replace()
    gateway:reload { plugins = { { name = "kafka-sink", service = "billing", config = { topics = { "orders" },
      group = "billing", path = "/again" } } } }
    gateway:advance(10)
  end

  describe("goes by phase consume", function()
    local function start_with(code, config, more)
      local options = options_of(config, more)
      options.plugins[2] = { name = "mask", service = "billing", config = {} }
      options.plugins_code = { mask = "local sluice = require 'sluice'\nlocal n = 0\n"
        .. "return { version = '1.0.0', priority = 10, consume = function(conf, exchange, record)\n" .. code
        .. "\nreturn record end }" }
      gateway = spec.gateway(options)
      gateway:advance(1)
    end

    it("which may change the record, once, however often it is sent; its place stays", function()
      local count = 0
      answer = function()
        count = count + 1
        return { status = count == 1 and 500 or 204 }
      end
      start_with("n = n + 1 record.value = record.value .. n record.key = 'masked' record.offset = 99\n"
        .. "record.headers = { { 'content-type', 'text/plain' } }")
      produce("k", "v", { partition = 1 })
      gateway:advance(5)
      assert.same({ "v1", "v1" }, bodies())
      local headers = sent()[2].headers
      assert.same({ "masked", "orders-1-0", "text/plain" },
        { headers["kafka-key"], headers["idempotency-key"], headers["content-type"] })
    end)

    it("which may drop it: it is done", function()
      start_with("if record.key == 'drop' then return nil end")
      produce("drop", "1", { partition = 0 })
      produce("k", "2", { partition = 0 })
      gateway:advance(5)
      assert.same({ "2" }, bodies())
      assert.same({ 1, 1 }, { done_with("dropped"), done_with("delivered") })
      replace()
      assert.equal(1, #sent())
    end)

    it("which may drop some of a batch", function()
      start_with("if record.value == '2' then return nil end", { body = "record", batch_size = 10 })
      for i = 1, 3 do produce("k", tostring(i), { partition = 0 }) end
      gateway:advance(1)
      assert.equal(1, #sent())
      assert.matches('"value":1.*"value":3', sent()[1].body)
      assert.is_nil(sent()[1].body:find('"value":2', 1, true))
      replace()
      assert.equal(1, #sent())
    end)

    it("which may fail: it becomes a dead letter, as it was, and nothing was sent", function()
      start_with("record.key = 'x' if record.value == 'bad' then error('no') end", { dead_letter_topic = "dead" })
      produce("k", "bad", { partition = 0 })
      produce("k", "good", { partition = 0 })
      gateway:advance(1)
      assert.same({ "good" }, bodies())
      local letter = gateway:records("dead")[1]
      assert.same({ "k", "bad" }, { letter.key, letter.value })
      assert.equal("a plugin failed in phase consume", letter.headers["dead-letter-reason"])
    end)

    it("which may not answer, for there is nobody to be answered", function()
      start_with("exchange.response:exit(403)", { dead_letter_topic = "dead" })
      produce("k", "v")
      gateway:advance(1)
      assert.same({}, bodies())
      assert.equal("a plugin answered in phase consume", gateway:records("dead")[1].headers["dead-letter-reason"])
    end)

    it("whose plugins may wait, and see an exchange that has nothing but its service", function()
      start_with("sluice.sleep(0.5)\nrecord.value = exchange.router:get_service().name .. ' '"
        .. " .. tostring(exchange.request:get_header('x')) .. ' ' .. #exchange.id")
      produce("k", "v")
      gateway:advance(2)
      assert.same({ "billing nil 32" }, bodies())
    end)
  end)

  describe("sends a record", function()
    it("as a request to the service, with where it stood and what names it", function()
      start()
      produce("k", '{"n":1}', { partition = 2, timestamp = 1700000000123 })
      local request = sent()[1]
      assert.same({ "POST", "/hook", '{"n":1}', "application/json" },
        { request.method, request.path, request.body, request.headers["content-type"] })
      local headers = request.headers
      assert.same({ "orders", "2", "0", "k", "1700000000123", "orders-2-0" },
        { headers["kafka-topic"], headers["kafka-partition"], headers["kafka-offset"], headers["kafka-key"],
          headers["kafka-timestamp"], headers["idempotency-key"] })
    end)

    it("with method, path and fields out of the record", function()
      start { method = "PUT", path = "/orders/$(key)?n=$(value.n)", content_type = "text/plain",
        headers = { ["X-A"] = "$(headers.a)", ["X-B"] = "b" }, forward_headers = { "trace", "none" } }
      produce("7", '{"n":5}', { headers = { a = "1", trace = "t", evil = "x" } })
      local request = sent()[1]
      assert.same({ "PUT", "/hook/orders/7", "n=5", "1", "b", "t", "text/plain" },
        { request.method, request.path, request.query, request.headers["x-a"], request.headers["x-b"],
          request.headers.trace, request.headers["content-type"] })
      assert.is_nil(request.headers.none)
      assert.is_nil(request.headers.evil)
    end)

    it("with its own content type, and goes on with its trace", function()
      start()
      local parent = "00-" .. ("a"):rep(32) .. "-" .. ("b"):rep(16) .. "-01"
      produce("k", "<a/>", { headers = { ["content-type"] = "text/xml", traceparent = parent } })
      local request = sent()[1]
      assert.equal("text/xml", request.headers["content-type"])
      assert.matches("^00%-" .. ("a"):rep(32), request.headers.traceparent)
    end)

    it("in a span of the record's trace, which the service's tracer is told", function()
      local json = require "sluice.json"
      start({}, { plugins = { { name = "kafka-sink", service = "billing", config = { topics = { "orders" },
        group = "billing" } }, { name = "zipkin", service = "billing", config = { sample_ratio = 1,
        http_endpoint = "http://zipkin.example/spans", propagation = { extract = { "w3c" }, inject = { "w3c" },
        default_format = "w3c" } } } } })
      produce("k", "v", { headers = { traceparent = "00-" .. ("a"):rep(32) .. "-" .. ("b"):rep(16) .. "-01" } })
      gateway:advance(5)
      local by_name = {}
      for _, request in ipairs(gateway:requests("zipkin.example")) do
        for _, span in ipairs(json.decode(request.body)) do by_name[span.name] = span end
      end
      local process, call = by_name["process orders"], by_name["POST"]
      assert.same({ "CONSUMER", ("a"):rep(32), ("b"):rep(16) }, { process.kind, process.traceId, process.parentId })
      assert.same({ ("a"):rep(32), process.id }, { call.traceId, call.parentId })
    end)

    it("as JSON with all of it, whatever its bytes are", function()
      start { body = "record" }
      produce("k", '{"n":1}', { partition = 0, timestamp = 5, headers = { a = "1" } })
      produce("l", "plain \195\164", { partition = 0 })
      produce("\255", "\0\255", { partition = 0 })
      produce("m", nil, { partition = 0 })
      local all = sent()
      assert.same({ topic = "orders", partition = 0, offset = 0, timestamp = 5, key = "k", value = { n = 1 },
        headers = { { name = "a", value = 1 } } }, all[1].json)
      assert.equal("plain \195\164", all[2].json.value)
      assert.same({ "/w==", true, "AP8=", true },
        { all[3].json.key, all[3].json.key_base64, all[3].json.value, all[3].json.value_base64 })
      assert.matches('"value":null', all[4].body, 1, true)
    end)

    it("as JSON also where a header's name is no text", function()
      start { body = "record" }
      produce("k", "1", { headers = { { "\255", "a" } } })
      produce("k", "2")
      gateway:advance(1)
      assert.equal(2, #sent())
      assert.matches('"headers":%[{[^}]*"name":"/w=="', sent()[1].body)
      assert.matches('"name_base64":true', sent()[1].body, 1, true)
    end)

    it("leaves out a key that no field can hold", function()
      start()
      produce("a\r\nX-Evil: 1", "v")
      assert.is_nil(sent()[1].headers["kafka-key"])
      assert.is_nil(sent()[1].headers["x-evil"])
    end)
  end)

  describe("keeps the order", function()
    -- The service answers after a second.
    local function slow(config)
      answer = { status = 200, delay = 1 }
      start(config)
    end

    it("of a key, while other keys do not wait", function()
      slow()
      for i = 1, 3 do produce("a", "a" .. i, { partition = 0 }) end
      for i = 1, 2 do produce("b", "b" .. i, { partition = 0 }) end
      assert.same({ "a1", "b1" }, bodies())
      gateway:advance(1.1)
      assert.same({ "a1", "b1", "a2", "b2" }, bodies())
      gateway:advance(1.1)
      assert.equal("a3", bodies()[5])
    end)

    it("of nothing where there are no keys", function()
      slow()
      for i = 1, 4 do produce(nil, "v" .. i, { partition = 0 }) end
      assert.equal(4, #sent())
    end)

    it("of a partition with order: partition", function()
      slow { order = "partition" }
      produce(nil, "1", { partition = 0 })
      produce("k", "2", { partition = 0 })
      produce("k", "3", { partition = 1 })
      assert.same({ "1", "3" }, bodies())
      gateway:advance(1.1)
      assert.equal("2", bodies()[3])
    end)

    it("with no more calls at a time than concurrency", function()
      slow { concurrency = 2 }
      for i = 1, 5 do produce("k" .. i, "v" .. i) end
      assert.equal(2, #sent())
      gateway:advance(1.1)
      assert.equal(4, #sent())
    end)

    it("of a key whose record is tried again", function()
      local count = 0
      answer = function(request)
        if request.body ~= "a1" then return { status = 200 } end
        count = count + 1
        return { status = count < 3 and 500 or 200 }
      end
      start { backoff_initial = 1000 }
      produce("a", "a1", { partition = 0 })
      produce("a", "a2", { partition = 0 })
      produce("b", "b1", { partition = 0 })
      gateway:advance(10)
      assert.same({ "a1", "b1", "a1", "a1", "a2" }, bodies())
    end)
  end)

  describe("in batches", function()
    it("sends as many as there are, as a list", function()
      start { batch_size = 3, body = "record", batch_delay = 1000, concurrency = 1 }
      for i = 1, 3 do produce("k" .. i, "v" .. i, { partition = 0 }) end
      assert.equal(1, #sent())
      assert.same({ "v1", "v2", "v3" }, { sent()[1].json[1].value, sent()[1].json[2].value, sent()[1].json[3].value })
      assert.equal("orders-0-0.orders-0-2", sent()[1].headers["idempotency-key"])
      produce("k4", "v4", { partition = 0 })
      assert.equal(1, #sent())
      gateway:advance(1.1)
      assert.equal("v4", sent()[2].json[1].value)
    end)

    it("finds the record that the service does not take", function()
      answer = function(request)
        return { status = request.body:find("poison", 1, true) and 422 or 200 }
      end
      start { batch_size = 4, body = "record", dead_letter_topic = "dead", concurrency = 1, batch_delay = 1000 }
      for _, value in ipairs { "v1", "v2", "poison", "v4" } do produce(nil, value, { partition = 0 }) end
      gateway:advance(5)
      assert.equal(1, #gateway:records("dead"))
      assert.equal("poison", gateway:records("dead")[1].value)
      local good = 0
      for _, request in ipairs(sent()) do
        if not request.body:find("poison", 1, true) then good = good + #request.json end
      end
      assert.equal(3, good)
    end)
  end)

  describe("with a service that fails", function()
    it("tries again, later each time", function()
      answer = { status = 503 }
      start { backoff_initial = 1000, backoff_max = 4000 }
      produce("k", "v")
      assert.equal(1, #sent())
      gateway:advance(0.7)
      assert.equal(1, #sent())
      gateway:advance(0.6) -- 1 s, give or take a fifth
      assert.equal(2, #sent())
      gateway:advance(1.2)
      assert.equal(2, #sent())
      gateway:advance(1.3)
      assert.equal(3, #sent())
      answer = { status = 200 }
      gateway:advance(5)
      assert.equal(4, #sent())
      assert.equal(1, done_with "delivered")
      assert.equal(3, metric 'sluice_kafka_sink_retries_total{group="billing",service="billing"}')
    end)

    it("waits as long as it asks for", function()
      answer = { status = 429, headers = { ["Retry-After"] = "60" } }
      start()
      produce("k", "v")
      gateway:advance(59)
      assert.equal(1, #sent())
      gateway:advance(2)
      assert.equal(2, #sent())
    end)

    it("writes what it will not take to the dead-letter topic, with the cause", function()
      answer = { status = 422 }
      start { dead_letter_topic = "dead" }
      produce("k", "v", { partition = 1, timestamp = 99, headers = { a = "1", ["dead-letter-reason"] = "old" } })
      local dead = gateway:records("dead")[1]
      assert.same({ "k", "v", "1" }, { dead.key, dead.value, dead.headers.a })
      local headers = dead.headers
      assert.same({ "orders", "1", "0", "99", "billing", "billing", "422", "1", "the service answered 422" },
        { headers["dead-letter-topic"], headers["dead-letter-partition"], headers["dead-letter-offset"],
          headers["dead-letter-timestamp"], headers["dead-letter-group"], headers["dead-letter-service"],
          headers["dead-letter-status"], headers["dead-letter-tries"], headers["dead-letter-reason"] })
      assert.equal(11, #dead.fields) -- and when
    end)

    it("gives up after max_tries, and goes on with the key", function()
      answer = function(request) return { status = request.body == "poison" and 500 or 200 } end
      start { dead_letter_topic = "dead", max_tries = 3, backoff_initial = 100 }
      produce("k", "poison")
      produce("k", "fine")
      gateway:advance(5)
      assert.same({ "poison", "poison", "poison", "fine" }, bodies())
      assert.equal("3", gateway:records("dead")[1].headers["dead-letter-tries"])
    end)

    it("has no record done that cannot be written to the dead-letter topic", function()
      answer = { status = 400 }
      start { dead_letter_topic = "dead" }
      gateway:fail_topic("dead", "TOPIC_AUTHORIZATION_FAILED")
      produce("k", "v")
      gateway:advance(5)
      assert.is_nil(done_with "dead-lettered")
      gateway:fail_topic("dead", nil)
      gateway:advance(20)
      assert.equal(1, #gateway:records("dead"))
      assert.equal(1, #sent())
      assert.equal(1, done_with "dead-lettered")
    end)

    it("tries for ever where there is none", function()
      answer = { status = 400 }
      start { max_tries = 2, backoff_initial = 100, backoff_max = 1000 }
      produce("k", "v")
      gateway:advance(30)
      assert.is_true(#sent() > 20)
      answer = { status = 200 }
      gateway:advance(2)
      assert.equal(1, done_with "delivered")
    end)

    it("passes over it with skip_failed", function()
      answer = function(request) return { status = request.body == "poison" and 400 or 200 } end
      start { skip_failed = true }
      produce("k", "poison")
      produce("k", "fine")
      assert.same({ "poison", "fine" }, bodies())
      assert.equal(1, done_with "skipped")
    end)

    it("has a record whose expressions fail as one that will not pass", function()
      start { dead_letter_topic = "dead", path = "/orders/$(value.id + 1)" }
      produce("k", '{"n":1}')
      assert.matches("^path: ", gateway:records("dead")[1].headers["dead-letter-reason"])
      produce("k", '{"id":1}')
      assert.equal("/hook/orders/2", sent()[1].path)
    end)
  end)

  describe("while the service is away", function()
    it("tries one record at a time, and none is at fault", function()
      answer = { refuse = true }
      start({ dead_letter_topic = "dead", max_tries = 2, backoff_initial = 1000, backoff_max = 8000 },
        { upstreams = { ["*"] = { refuse = true } } })
      for i = 1, 5 do produce("k" .. i, "v" .. i) end
      gateway:advance(300)
      assert.equal(0, #gateway:records("dead"))
      assert.equal(1, metric 'sluice_kafka_sink_paused{group="billing",service="billing"}')
      assert.equal(1, #gateway:log("the service is away"))
      gateway:upstream("*", { status = 200 })
      gateway:advance(10)
      local got = bodies()
      table.sort(got)
      assert.same({ "v1", "v2", "v3", "v4", "v5" }, got)
      gateway:advance(1)
      assert.equal(0, metric 'sluice_kafka_sink_paused{group="billing",service="billing"}')
    end)

    it("does not take it for back because an expression fails", function()
      answer = { refuse = true }
      start({ dead_letter_topic = "dead", max_tries = 2, backoff_initial = 1000, backoff_max = 8000,
        path = "/$(value.id.x)", concurrency = 4 }, { upstreams = { ["*"] = { refuse = true } } })
      for i = 1, 20 do
        produce("k" .. i, '{"id":{"x":1}}')
        produce("p" .. i, "1") -- has none
        gateway:advance(10)
      end
      for _, letter in ipairs(gateway:records("dead")) do assert.equal("1", letter.value) end
      assert.equal(1, #gateway:log("the service is away"))
    end)

    it("reads no more than it may keep", function()
      answer = { hang = true }
      start { max_pending = 3, timeout = 60000 }
      for i = 1, 10 do produce("k" .. i, "v" .. i) end
      assert.equal(3, #sent())
      gateway:advance(10)
      assert.equal(3, #sent())
    end)

    it("finds the record at fault when others get through", function()
      answer = function(request)
        if request.body == "poison" then return { close = true } end
        return { status = 200 }
      end
      start { dead_letter_topic = "dead", max_tries = 3, backoff_initial = 1000 }
      produce("bad", "poison")
      for i = 1, 30 do
        produce("k" .. i, "v" .. i)
        gateway:advance(2)
      end
      assert.equal("poison", gateway:records("dead")[1].value)
    end)

    it("heeds plugins that answer in its place, such as an open circuit", function()
      answer = { status = 500 }
      start(nil, { plugins = {
        { name = "kafka-sink", service = "billing", config = { topics = { "orders" }, group = "billing",
          backoff_initial = 1000, backoff_max = 1000 } },
        { name = "circuit-breaker", service = "billing", config = { consecutive_failures = 2,
          wait_duration_in_open_state = 20, wait_duration_jitter = 0 } } } })
      produce("k", "v")
      gateway:advance(15)
      assert.equal(2, #sent())
      answer = { status = 200 }
      gateway:advance(30)
      assert.equal(3, #sent())
    end)
  end)

  describe("commits", function()
    -- Another sink of the same group takes the place of the one that runs.
    it("what has arrived, so that another one goes on behind it", function()
      start()
      for i = 1, 3 do produce("k", "v" .. i) end
      gateway:advance(2)
      replace()
      produce("k", "v4")
      assert.same({ "v1", "v2", "v3", "v4" }, bodies())
      assert.equal("/hook/again", sent()[4].path)
    end)

    it("nothing behind a record that has not", function()
      answer = function(request) return { status = request.body == "v1" and 500 or 200 } end
      start()
      produce("a", "v1", { partition = 0 })
      produce("b", "v2", { partition = 0 })
      gateway:advance(2)
      answer = { status = 200 }
      replace()
      local again = {}
      for _, request in ipairs(sent()) do
        if request.path == "/hook/again" then again[#again + 1] = request.body end
      end
      table.sort(again) -- they have different keys
      assert.same({ "v1", "v2" }, again)
    end)
  end)

  it("delivers all in the order of their keys, whatever the service does and however long it takes", function()
    local random, failures = 7, {}
    local function roll(most)
      random = (random * 1103515245 + 12345) % 2147483648
      return math.floor(random / 65536) % most
    end
    local done, last = 0, {}
    answer = function(request)
      local key, number = request.headers["kafka-key"], tonumber(request.body)
      local what = roll(6)
      if what == 0 then return { status = 503, delay = 0.01 * roll(30) } end
      if what == 1 then return { close = true } end
      if what == 2 and (failures[number] or 0) < 3 then
        failures[number] = (failures[number] or 0) + 1
        return { status = 500 }
      end
      assert(number > (last[key] or 0), key .. ": " .. number .. " behind " .. tostring(last[key]))
      last[key], done = number, done + 1
      return { status = 200, delay = 0.01 * roll(30) }
    end
    start { concurrency = 4, backoff_initial = 20, backoff_max = 200, max_tries = 1000, max_pending = 50 }
    for i = 1, 200 do produce("k" .. roll(9), tostring(i)) end
    gateway:run_until(function() return done == 200 end, 600)
    assert.equal(200, done)
  end)

  it("begins anew where a sender fails, instead of waiting for what it had", function()
    local headers = {}
    for i = 1, 501 do headers["X-" .. i] = "v" end -- more than a call takes
    start { headers = headers }
    produce("k", "v")
    gateway:advance(10)
    assert.is_true(#gateway:log("a sink failed, and begins anew") >= 2)
  end)

  it("comes back with its service", function()
    start()
    local service = { name = "billing", url = "http://billing.example/hook", retries = 0 }
    gateway:reload { services = { { name = "billing", url = service.url, retries = 0, enabled = false } } }
    gateway:advance(3)
    produce("k", "v1")
    gateway:advance(3)
    assert.equal(0, #sent())
    gateway:reload { services = { service } }
    gateway:advance(3)
    assert.same({ "v1" }, bodies())
  end)

  it("stops when its instance is gone", function()
    start()
    gateway:reload { plugins = {} }
    gateway:advance(5)
    produce("k", "v")
    gateway:advance(5)
    assert.equal(0, #sent())
  end)

  it("begins at the end of a topic with from: latest", function()
    start(nil, { plugins = {} })
    produce("k", "old")
    gateway:reload { plugins = options_of({ from = "latest" }).plugins }
    gateway:advance(2)
    produce("k", "new")
    assert.same({ "new" }, bodies())
  end)

  it("reads several topics, none of which waits for another", function()
    start({ topics = { "orders", "bills" } }, { topics = { orders = 1, bills = 1 } })
    produce("k", "order")
    gateway:produce("bills", { key = "k", value = "bill" })
    assert.same({ "order", "bill" }, bodies())
  end)

  describe("replies", function()
    it("with the service's response, to a topic that may be named", function()
      answer = { status = 404, headers = { ["Content-Type"] = "text/plain" }, body = "no such order" }
      start { reply_topics = { "replies" } }
      produce("k", "v", { headers = { ["reply-topic"] = "replies", ["correlation-id"] = "42" } })
      local reply = gateway:records("replies")[1]
      assert.same({ "no such order", "42", "404", "text/plain" }, { reply.value, reply.headers["correlation-id"],
        reply.headers.status, reply.headers["content-type"] })
      assert.equal(1, done_with "delivered")
    end)

    it("to no other topic, and not unasked", function()
      start { reply_topics = { "replies" } }
      produce("k", "v", { headers = { ["reply-topic"] = "dead", ["correlation-id"] = "42" } })
      produce("k", "v")
      assert.equal(2, #sent())
      assert.same({ 0, 0 }, { #gateway:records("replies"), #gateway:records("dead") })
    end)

    it("to whoever asked over HTTP, through kafka-request-reply", function()
      answer = function(request) return { status = 200, body = "for " .. request.body } end
      start({ reply_topics = { "replies" } }, { routes = { { name = "ask", paths = { "/ask" }, plugins = {
        { name = "kafka-request-reply", config = { topic = "orders", reply_topic = "replies" } } } } } })
      assert.equal("for tea", gateway:post("/ask", "tea").body)
    end)
  end)

  describe("refuses", function()
    local function refused(config, more)
      local _, err = spec.check(options_of(config, more))
      return assert(err, "it was not refused")
    end

    it("to stand anywhere but at a service", function()
      local plugins = { { name = "kafka-sink", config = { topics = { "orders" }, group = "g" } } }
      local err = refused(nil, { plugins = plugins })
      assert.matches("service: expected a service: kafka-sink stands at one", err, 1, true)
    end)

    it("what does not fit together", function()
      assert.matches("batch_size above 1 needs body: record", refused { batch_size = 2 }, 1, true)
      assert.matches("reply_topics needs batch_size 1",
        refused { batch_size = 2, body = "record", reply_topics = { "a" } }, 1, true)
      assert.matches("skip_failed", refused { skip_failed = true, dead_letter_topic = "dead" }, 1, true)
    end)

    it("what is no topic, no group, no expression, no name of a field", function()
      assert.matches("config.topics", refused { topics = {} }, 1, true)
      assert.matches("config.topics", refused { topics = { "a b" } }, 1, true)
      assert.matches("config.group", refused { group = "" }, 1, true)
      assert.matches("config.path", refused { path = "$(1 +)" }, 1, true)
      assert.matches("config.headers", refused { headers = { a = "$(1 +)" } }, 1, true)
      assert.matches("config.forward_headers", refused { forward_headers = { "a b" } }, 1, true)
      assert.matches("config.order", refused { order = "any" }, 1, true)
      assert.matches("config.body", refused { body = "any" }, 1, true)
      assert.matches("config.dead_letter_topic", refused { dead_letter_topic = "a b" }, 1, true)
      assert.matches("config.method", refused { method = "GET" }, 1, true)
    end)
  end)
end)
