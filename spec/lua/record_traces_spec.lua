-- SPDX-License-Identifier: Apache-2.0
-- Traces through records: contexts in headers, spans by OpenTelemetry's conventions for messaging.
local otlp = require "spec.support.otlp"
local spec = require "sluice.spec"

local TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
local SERVICE = "5c1e9d5e-0000-4000-8000-000000000001"
local OTHER = "11111111111111111111111111111111"
local TRACEPARENT = "00-" .. TRACE .. "-" .. SPAN .. "-01"

-- Runs before tracers do, and answers, as plugins for Kafka do.
local SENDER = { handler = [[
  local kafka, traces = require "sluice.kafka", require "sluice.record_traces"
  local plugin = { version = "1", priority = 750 }
  function plugin.access(conf, exchange)
    local given = exchange.request:get_header("x-own")
    if conf.many then
      local sending = traces.send_many(exchange, { topic = "orders", cluster = "main" })
      for i = 1, conf.many do
        local record = { topic = "orders", value = tostring(i) }
        sending:put(record)
        assert(kafka.produce(record))
      end
      sending:done()
    else
      local record = { topic = "orders", key = "k1", value = exchange.request:get_raw_body(),
        headers = given and { { "first", "1" }, { "traceparent", given } } or nil }
      local sending = traces.send(exchange, record)
      local at, err, code = kafka.produce(record)
      sending:done(at, err, code)
    end
    exchange.response:exit(200, "sent")
  end
  return plugin
]], schema = [[return { many = { type = "integer" } }]] }

local POLLER = [[
  local kafka, traces = require "sluice.kafka", require "sluice.record_traces"
  local plugin = { version = "1", priority = 750 }
  function plugin.access(conf, exchange)
    local polling = traces.poll(exchange, { topic = "orders", group = "g" })
    local reader = kafka.reader { topic = "orders", from = "earliest" }
    local record = reader:next(1)
    while record do
      polling:add(record)
      record = reader:next(0)
    end
    reader:close()
    polling:done()
    exchange.response:exit(200, "read")
  end
  return plugin
]]

-- Works on records outside of exchanges, and tells a service of them.
local WORKER = { handler = [[
  local http, kafka = require "sluice.http", require "sluice.kafka"
  local timer, traces = require "sluice.timer", require "sluice.record_traces"
  local plugin = { version = "1", priority = 750 }
  local function work(batch)
    local reader = kafka.reader { topic = "orders", from = "earliest" }
    local records = { reader:next(1) }
    while batch and #records < batch do records[#records + 1] = reader:next(1) end
    local span = traces.process(batch and records or records[1], { group = "g", topic = "orders",
      service = "5c1e9d5e-0000-4000-8000-000000000001" })
    local parent, state = span:context()
    http.request { url = "http://worker.example/", headers = { traceparent = parent, tracestate = state } }
    span:done(nil, not batch and records[1].value == "bad" and "no good" or nil, "INVALID")
    reader:close()
  end
  function plugin.configure(confs)
    for _, conf in ipairs(confs or {}) do timer.at(1, work, conf.batch) end
  end
  return plugin
]], schema = [[return { batch = { type = "integer" } }]] }

describe("traces of records", function()
  local gateway

  local function start(plugins, more)
    local options = { plugins = plugins, topics = { orders = 1 },
      plugins_code = { sender = SENDER, poller = POLLER, worker = WORKER },
      upstreams = { ["collector.example"] = { body = "" }, ["zipkin.example"] = { status = 202 },
        ["*"] = { body = "hello" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
    return gateway
  end

  local function opentelemetry(rate, more)
    local config = { traces_endpoint = "http://collector.example:4318/v1/traces", sampling_rate = rate }
    for key, value in pairs(more or {}) do config[key] = value end
    return { name = "opentelemetry", config = config }
  end

  local function spans()
    gateway:advance(5)
    local list = {}
    for _, request in ipairs(gateway:requests("collector.example")) do
      for _, span in ipairs(otlp.spans(request.body)) do list[#list + 1] = span end
    end
    return list
  end

  local function headers_of(nth)
    return gateway:records("orders")[nth or 1].headers
  end

  describe("where no tracer is on", function()
    it("the request's context goes into the record as it came", function()
      start { { name = "sender" } }
      gateway:post("/", "x", { traceparent = TRACEPARENT, tracestate = { "a=1", "b=2" } })
      assert.same({ traceparent = TRACEPARENT, tracestate = "a=1,b=2" }, headers_of())
    end)

    it("a record of a request without one has no headers, nor has one of a request with a broken one", function()
      start { { name = "sender" } }
      gateway:post("/", "x")
      gateway:post("/", "x", { traceparent = "00-" .. TRACE .. "-0000000000000000-01" })
      assert.same({}, headers_of(1))
      assert.same({}, headers_of(2))
    end)

    it("a record that is in another trace stays there", function()
      start { { name = "sender" } }
      gateway:post("/", "x", { traceparent = TRACEPARENT, ["X-Own"] = "00-" .. OTHER .. "-" .. SPAN .. "-01" })
      assert.same({ first = "1", traceparent = "00-" .. OTHER .. "-" .. SPAN .. "-01" }, headers_of())
    end)

    it("the context of a record goes on to the service that is told of it", function()
      start({ { name = "worker" } }, { topics = { orders = { partitions = 1, records = {
        { value = "v", headers = { { "traceparent", TRACEPARENT }, { "tracestate", "a=1" } } } } } } })
      gateway:advance(3)
      local fields = gateway:requests("worker.example")[1].headers
      assert.same({ TRACEPARENT, "a=1" }, { fields.traceparent, fields.tracestate })
    end)
  end)

  describe("a record that is sent", function()
    it("has a producer span under the request's, whose context it carries, though the plugin answers first", function()
      start { { name = "sender" }, opentelemetry(1) }
      gateway:post("/", "hello", { traceparent = TRACEPARENT, tracestate = "a=1" })
      local list = spans()
      assert.equal(2, #list)
      local root, send = list[1], list[2]
      assert.same({ TRACE, TRACE, SPAN }, { root.traceId, send.traceId, root.parentSpanId })
      assert.same({ "send orders", "SPAN_KIND_PRODUCER", root.spanId }, { send.name, send.kind, send.parentSpanId })
      assert.same({ traceparent = "00-" .. TRACE .. "-" .. send.spanId .. "-01", tracestate = "a=1" }, headers_of())
      assert.same({
        ["messaging.system"] = "kafka", ["messaging.operation.name"] = "send", ["messaging.operation.type"] = "send",
        ["messaging.destination.name"] = "orders", ["messaging.destination.partition.id"] = "0",
        ["messaging.kafka.offset"] = "0", ["messaging.kafka.message.key"] = "k1",
        ["messaging.message.body.size"] = "5",
      }, send.attributes)
    end)

    it("begins a trace where the request has none", function()
      start { { name = "sender" }, opentelemetry(1) }
      gateway:post("/", "hello")
      local list = spans()
      assert.equal("00-" .. list[1].traceId .. "-" .. list[2].spanId .. "-01", headers_of().traceparent)
      assert.is_nil(list[1].parentSpanId)
    end)

    it("carries the context without a span where the trace is not sampled", function()
      start { { name = "sender" }, opentelemetry(0) }
      gateway:post("/", "hello", { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-00" })
      gateway:post("/", "hello")
      assert.same({}, spans())
      assert.matches("^00%-" .. TRACE .. "%-%x+%-00$", headers_of(1).traceparent)
      assert.matches("^00%-%x+%-%x+%-00$", headers_of(2).traceparent)
    end)

    it("says what went wrong", function()
      start { { name = "sender" }, opentelemetry(1) }
      gateway:fail_topic("orders", "MSG_SIZE_TOO_LARGE")
      gateway:post("/", "hello")
      local send = spans()[2]
      assert.equal("STATUS_CODE_ERROR", send.status.code)
      assert.equal("MSG_SIZE_TOO_LARGE", send.attributes["error.type"])
    end)

    it("that is in another trace already stays there, and is linked to", function()
      start { { name = "sender" }, opentelemetry(1) }
      gateway:post("/", "x", { ["X-Own"] = "00-" .. OTHER .. "-" .. SPAN .. "-01" })
      assert.equal("00-" .. OTHER .. "-" .. SPAN .. "-01", headers_of().traceparent)
      local links = spans()[2].links
      assert.same({ 1, OTHER, SPAN }, { #links, otlp.hex(links[1].traceId), otlp.hex(links[1].spanId) })
    end)

    it("and carries the request's own context already gets the span's instead", function()
      start { { name = "sender" }, opentelemetry(1) }
      gateway:post("/", "x", { traceparent = TRACEPARENT, ["X-Own"] = TRACEPARENT })
      local send = spans()[2]
      assert.equal("00-" .. TRACE .. "-" .. send.spanId .. "-01", headers_of().traceparent)
      assert.is_nil(send.links)
    end)

    it("with others has one span for all of them", function()
      start { { name = "sender", config = { many = 3 } }, opentelemetry(1) }
      gateway:get("/")
      local list = spans()
      assert.equal(2, #list)
      assert.equal("3", list[2].attributes["messaging.batch.message_count"])
      assert.equal("main", list[2].attributes["sluice.kafka.cluster"])
      for nth = 1, 3 do
        assert.equal("00-" .. list[1].traceId .. "-" .. list[2].spanId .. "-01", headers_of(nth).traceparent)
      end
    end)
  end)

  it("records that are read for a client are linked to", function()
    start({ { name = "poller" }, opentelemetry(1) }, { topics = { orders = { partitions = 1, records = {
      { value = "a", headers = { { "traceparent", TRACEPARENT }, { "tracestate", "a=1" } } }, { value = "b" } } } } })
    gateway:get("/")
    local poll = spans()[2]
    assert.same({ "poll orders", "SPAN_KIND_CLIENT" }, { poll.name, poll.kind })
    assert.same({ "receive", "g", "2" }, { poll.attributes["messaging.operation.type"],
      poll.attributes["messaging.consumer.group.name"], poll.attributes["messaging.batch.message_count"] })
    assert.equal(1, #poll.links)
    local link = poll.links[1]
    assert.same({ TRACE, SPAN, "a=1" }, { otlp.hex(link.traceId), otlp.hex(link.spanId), link.traceState })
    assert.equal("0", otlp.attributes(link.attributes)["messaging.kafka.offset"])
  end)

  describe("a record that is worked on outside of an exchange", function()
    local function work(records, config, tracer)
      start({ { name = "worker", config = config }, tracer or opentelemetry(1) },
        { topics = { orders = { partitions = 1, records = records } } })
      local list = spans()
      return list, gateway:requests("worker.example")[1].headers
    end

    it("has a consumer span in the record's trace, which the service is told", function()
      local list, fields = work { { key = "k", value = "v", headers = { { "traceparent", TRACEPARENT } } } }
      assert.equal(1, #list)
      local span = list[1]
      assert.same({ "process orders", "SPAN_KIND_CONSUMER", TRACE, SPAN }, { span.name, span.kind, span.traceId,
        span.parentSpanId })
      assert.equal(SPAN, otlp.hex(span.links[1].spanId))
      assert.equal("00-" .. TRACE .. "-" .. span.spanId .. "-01", fields.traceparent)
      assert.same({
        ["messaging.system"] = "kafka", ["messaging.operation.name"] = "process",
        ["messaging.operation.type"] = "process", ["messaging.destination.name"] = "orders",
        ["messaging.consumer.group.name"] = "g", ["messaging.destination.partition.id"] = "0",
        ["messaging.kafka.offset"] = "0", ["messaging.kafka.message.key"] = "k", ["messaging.message.body.size"] = "1",
      }, span.attributes)
    end)

    it("says that it failed", function()
      local list = work { { value = "bad" } }
      assert.same({ "STATUS_CODE_ERROR", "no good", "INVALID" }, { list[1].status.code, list[1].status.message,
        list[1].attributes["error.type"] })
    end)

    it("is told to the tracer of its service, or to one for all", function()
      local tracer, other = opentelemetry(1), opentelemetry(1)
      tracer.config.traces_endpoint, tracer.service = "http://collector.example/ours", "service"
      other.service = "elsewhere"
      start({ { name = "worker" }, tracer, other }, { topics = { orders = { partitions = 1,
        records = { { value = "v" } } } }, services = { { name = "service", id = SERVICE, url = "http://a.example" },
        { name = "elsewhere", url = "http://b.example" } } })
      assert.equal(1, #spans())
      assert.equal("/ours", gateway:requests("collector.example")[1].path)
    end)

    it("begins a trace where it carries none", function()
      local list, fields = work { { value = "v" } }
      assert.equal("00-" .. list[1].traceId .. "-" .. list[1].spanId .. "-01", fields.traceparent)
      assert.is_nil(list[1].parentSpanId)
    end)

    it("has no span where its sender did not sample", function()
      local list, fields = work { { value = "v", headers = { { "traceparent", TRACEPARENT:gsub("01$", "00") } } } }
      assert.same({}, list)
      assert.equal("00-" .. TRACE .. "-" .. SPAN .. "-00", fields.traceparent)
    end)

    it("with others has one span, and a link to each of them", function()
      local list, fields = work({ { value = "a", headers = { { "traceparent", TRACEPARENT } } },
        { value = "b", headers = { { "traceparent", "00-" .. OTHER .. "-" .. SPAN .. "-01" } } } }, { batch = 2 })
      assert.equal(1, #list)
      assert.same({ 2, "2" }, { #list[1].links, list[1].attributes["messaging.batch.message_count"] })
      assert.is_nil(list[1].parentSpanId)
      assert.matches(list[1].spanId, fields.traceparent, 1, true)
    end)
  end)

  describe("zipkin", function()
    local json = require "sluice.json"

    local function zipkin_spans()
      gateway:advance(5)
      local list = {}
      for _, request in ipairs(gateway:requests("zipkin.example")) do
        for _, span in ipairs(json.decode(request.body)) do list[#list + 1] = span end
      end
      return list
    end

    local ZIPKIN = { name = "zipkin", config = { http_endpoint = "http://zipkin.example/api/v2/spans",
      sample_ratio = 1 } }

    it("is told of records that are sent", function()
      start { { name = "sender" }, ZIPKIN }
      gateway:post("/", "hello")
      local list = zipkin_spans()
      local root, send = list[1], list[#list]
      assert.same({ "send orders", "PRODUCER", root.id, root.traceId }, { send.name, send.kind, send.parentId,
        send.traceId })
      assert.same({ "orders", "kafka" }, { send.tags["messaging.destination.name"],
        send.remoteEndpoint.serviceName })
      assert.equal("00-" .. root.traceId .. "-" .. send.id .. "-01", headers_of().traceparent)
    end)

    it("is told of records that are worked on", function()
      start({ { name = "worker" }, ZIPKIN }, { topics = { orders = { partitions = 1, records = {
        { value = "bad", headers = { { "traceparent", TRACEPARENT } } } } } } })
      local list = zipkin_spans()
      assert.equal(1, #list)
      assert.same({ "process orders", "CONSUMER", TRACE, SPAN, "no good" }, { list[1].name, list[1].kind,
        list[1].traceId, list[1].parentId, list[1].tags.error })
    end)
  end)
end)
