-- SPDX-License-Identifier: Apache-2.0
-- What tracers are told of clients that read topics.
local otlp = require "spec.support.otlp"
local spec = require "sluice.spec"

local TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

describe("kafka-consume, traced,", function()
  local gateway

  local function start(config, alone)
    config.topics = { { name = "news" } }
    gateway = spec.gateway { plugins_code = { look = "return { version = '1.0.0', priority = 1, consume = "
        .. "function(conf, exchange, record) return record end }" }, topics = { news = { partitions = 1, records = {
      { value = "a", headers = { { "traceparent", "00-" .. TRACE .. "-" .. SPAN .. "-01" } } }, { value = "b" } } } },
      upstreams = { ["collector.example"] = { body = "" } },
      plugins = { { name = "kafka-consume", config = config }, { name = "opentelemetry", config = {
        traces_endpoint = "http://collector.example:4318/v1/traces", sampling_rate = 1 } },
        alone and { name = "look" } or nil } }
  end

  local function spans()
    gateway:advance(3)
    local list = {}
    for _, request in ipairs(gateway:requests("collector.example")) do
      for _, span in ipairs(otlp.spans(request.body)) do list[#list + 1] = span end
    end
    return list
  end

  it("has a span for an answer that ends, with a link to where each record was sent", function()
    start {}
    assert.equal(200, gateway:get("/?partition=0&offset=0").status)
    local list = spans()
    assert.equal(2, #list)
    local root, poll = list[1], list[2]
    assert.same({ "poll news", "SPAN_KIND_CLIENT", root.spanId }, { poll.name, poll.kind, poll.parentSpanId })
    assert.equal("2", poll.attributes["messaging.batch.message_count"])
    assert.same({ 1, TRACE, SPAN }, { #poll.links, otlp.hex(poll.links[1].traceId), otlp.hex(poll.links[1].spanId) })
  end)

  it("has a span for a stream, until it ends", function()
    start { mode = "server-sent-events", auto_offset_reset = "earliest" }
    local client = gateway:connect()
    client:send { path = "/" }
    gateway:advance(2)
    client:close()
    local list = spans()
    assert.equal("poll news", list[2].name)
    assert.equal(list[1].endTimeUnixNano, list[2].endTimeUnixNano)
    assert.is_true(tonumber(list[1].endTimeUnixNano) - tonumber(list[1].startTimeUnixNano) >= 2e9)
  end)

  it("links to the records of a client that is read for on its own", function()
    start({ mode = "server-sent-events", auto_offset_reset = "earliest" }, true)
    local client = gateway:connect()
    client:send { path = "/" }
    gateway:run_until(function() return select(2, client:partial()):find("data: b", 1, true) end, 10)
    client:close()
    local poll = spans()[2]
    assert.same({ "poll news", 1, TRACE, SPAN }, { poll.name, #poll.links, otlp.hex(poll.links[1].traceId),
      otlp.hex(poll.links[1].spanId) })
  end)
end)
