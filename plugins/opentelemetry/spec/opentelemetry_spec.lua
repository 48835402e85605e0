-- SPDX-License-Identifier: Apache-2.0
local otlp = require "spec.support.otlp"
local spec = require "sluice.spec"

local TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
local TRACEPARENT = "00-" .. TRACE .. "-" .. SPAN .. "-01"

describe("opentelemetry", function()
  local gateway

  local function start(config, more)
    config.traces_endpoint = config.traces_endpoint or "http://collector.example:4318/v1/traces"
    if config.traces_endpoint == "none" then config.traces_endpoint = nil end
    config.sampling_rate = config.sampling_rate or 1
    local options = { plugins = { { name = "opentelemetry", config = config } },
      upstreams = { ["collector.example"] = { body = "" }, ["*"] = { body = "hello" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
    return gateway
  end

  local function requests(path)
    gateway:advance(5)
    local list = {}
    for _, request in ipairs(gateway:requests("collector.example")) do
      if request.path == path then list[#list + 1] = request end
    end
    return list
  end

  -- All spans that the collector has got.
  local function spans()
    local list = {}
    for _, request in ipairs(requests "/v1/traces") do
      for _, span in ipairs(otlp.spans(request.body)) do list[#list + 1] = span end
    end
    return list
  end

  local function named(list, name)
    for _, span in ipairs(list) do
      if span.name == name then return span end
    end
  end

  -- The fields that the service got.
  local function service_fields()
    return gateway:requests("service.example")[1].headers
  end

  describe("sends spans", function()
    it("of the request and of the try, as OpenTelemetry's definitions have them", function()
      start {}
      gateway:get("/a?b=c", { ["User-Agent"] = "spec/1" })
      local list = spans()
      assert.equal(2, #list)
      local root, try = list[1], list[2]
      assert.equal("GET /", root.name)
      assert.equal("SPAN_KIND_SERVER", root.kind)
      assert.equal("SPAN_KIND_CLIENT", try.kind)
      assert.equal("sluice.balancer", try.name)
      assert.is_nil(root.parentSpanId)
      assert.equal(root.spanId, try.parentSpanId)
      assert.equal(root.traceId, try.traceId)
      assert.is_true(tonumber(root.endTimeUnixNano) >= tonumber(root.startTimeUnixNano))
      assert.equal("1767225600", root.startTimeUnixNano:sub(1, 10))
      local attributes = root.attributes
      assert.equal("GET", attributes["http.method"])
      assert.equal("http", attributes["http.scheme"])
      assert.equal("1.1", attributes["http.flavor"])
      assert.equal("200", attributes["http.status_code"])
      assert.equal("/", attributes["http.route"])
      assert.equal("spec/1", attributes["http.user_agent"])
      assert.equal("127.0.0.1", attributes["net.peer.ip"])
      assert.equal("route", attributes["kong.route.name"])
      assert.matches("/a%?b=c$", attributes["http.url"])
      assert.equal("200", try.attributes["http.status_code"])
      assert.equal("1", try.attributes["try_count"])
      assert.equal("service.example", try.attributes["net.peer.name"])
    end)

    it("with the resource's attributes and the fields of the instance", function()
      start { resource_attributes = { ["service.name"] = "edge", zone = "b" }, headers = { ["X-Token"] = "secret" } }
      gateway:get("/")
      local request = requests("/v1/traces")[1]
      assert.equal("secret", request.headers["x-token"])
      assert.equal("application/x-protobuf", request.headers["content-type"])
      local resource = otlp.spans(request.body)[1].resource
      assert.equal("edge", resource["service.name"])
      assert.equal("b", resource.zone)
      assert.is_truthy(resource["service.instance.id"])
    end)

    it("that say of errors", function()
      start({}, { upstreams = { ["collector.example"] = { body = "" }, ["service.example"] = { refuse = true } },
        services = { { name = "s", url = "http://service.example", retries = 1,
          routes = { { name = "r", paths = { "/" } } } } } })
      gateway:get("/")
      local list = spans()
      assert.equal(3, #list)
      assert.equal("STATUS_CODE_ERROR", list[1].status.code)
      assert.equal("502", list[1].attributes["http.status_code"])
      assert.equal("STATUS_CODE_ERROR", list[2].status.code)
      assert.equal("STATUS_CODE_ERROR", list[3].status.code)
      assert.equal("2", list[3].attributes["try_count"])
    end)

    it("of each phase and each plugin, when they are asked for", function()
      start({ spans = { "phases", "plugins" } }, { plugins = {
        { name = "opentelemetry", config = { traces_endpoint = "http://collector.example/v1/traces", sampling_rate = 1,
          spans = { "phases", "plugins" } } },
        { name = "early" }, { name = "correlation-id" } }, plugins_code = { early = [[
          return { version = "1", priority = 2000, access = function() end, header_filter = function() end }
        ]] } })
      gateway:get("/")
      local list = spans()
      local access, plugin = named(list, "sluice.access"), named(list, "sluice.access.plugin.early")
      assert.equal(list[1].spanId, access.parentSpanId)
      assert.equal(access.spanId, plugin.parentSpanId)
      assert.is_truthy(named(list, "sluice.access.plugin.opentelemetry"))
      assert.is_truthy(named(list, "sluice.header_filter.plugin.early"))
      assert.is_true(tonumber(access.startTimeUnixNano) <= tonumber(plugin.startTimeUnixNano))
      assert.is_true(tonumber(access.endTimeUnixNano) >= tonumber(plugin.endTimeUnixNano))
    end)

    it("that plugins make in coroutines of their own, with a context for whoever they ask", function()
      start({}, { plugins_code = { maker = [[
        local together, tracing = require "sluice.together", require "sluice.tracing"
        local function ask()
          local span = tracing.start_span("ask")
          span:finish()
          return span:traceparent() or "none"
        end
        return { version = "1", priority = 5, access = function(_, exchange)
          local group = together.new()
          group:start("a", ask)
          local _, parent = group:next(1)
          exchange.response:exit(200, parent)
        end }
      ]] }, plugins = { { name = "opentelemetry", config = { traces_endpoint = "http://collector.example/v1/traces",
        sampling_rate = 1 } }, { name = "maker" } } })
      local body = gateway:get("/").body
      local ask = named(spans(), "ask")
      assert.equal("00-" .. ask.traceId .. "-" .. ask.spanId .. "-01", body)
      gateway:close()
      start({}, { plugins = {}, plugins_code = { maker = [[
        return { version = "1", priority = 5, access = function(_, exchange)
          local span = require("sluice.tracing").start_span("ask")
          exchange.response:exit(200, tostring(span:traceparent()))
        end }
      ]] }, routes = { { name = "r", paths = { "/" }, plugins = { { name = "maker" } } } } })
      assert.equal("nil", gateway:get("/").body)
    end)

    it("that plugins make, whatever their turn", function()
      start({}, { plugins_code = { maker = [[
        local tracing = require "sluice.tracing"
        local maker = { version = "1", priority = 2000 }
        function maker.access(_, exchange)
          local outer = tracing.start_span("outer", { kind = "client", attributes = { n = 7, x = 1.5, yes = true } })
          tracing.set_active_span(outer)
          local inner = tracing.start_span("inner")
          inner:add_event("found", { what = "it" })
          inner:record_error("no luck")
          inner:set_status(tracing.ERROR, "bad")
          inner:finish()
          assert(tracing.active_span() == outer)
          outer:set_attribute("n", 8)
          outer:finish()
          assert(tracing.active_span() == nil)
        end
        function maker.header_filter()
          tracing.start_span("late"):finish()
        end
        return maker
      ]] }, plugins = {
        { name = "opentelemetry", config = { traces_endpoint = "http://collector.example/v1/traces",
          sampling_rate = 1 } }, { name = "maker" } } })
      assert.equal(200, gateway:get("/").status)
      local list = spans()
      local outer, inner, late = named(list, "outer"), named(list, "inner"), named(list, "late")
      assert.equal(list[1].spanId, outer.parentSpanId)
      assert.equal(outer.spanId, inner.parentSpanId)
      assert.equal(list[1].spanId, late.parentSpanId)
      assert.equal("SPAN_KIND_CLIENT", outer.kind)
      assert.same({ n = "8", x = 1.5, yes = true }, outer.attributes)
      assert.equal("found", inner.events[1].name)
      assert.equal("it", otlp.attributes(inner.events[1].attributes).what)
      assert.equal("exception", inner.events[2].name)
      assert.same({ code = "STATUS_CODE_ERROR", message = "bad" }, inner.status)
    end)

    it("to `endpoint` too, the older name", function()
      start({ traces_endpoint = "none", endpoint = "http://collector.example/v1/traces" })
      gateway:get("/")
      assert.equal(2, #spans())
    end)

    it("in batches, and again when the collector did not take them", function()
      start({ queue = { max_batch_size = 4, max_coalescing_delay = 1, initial_retry_delay = 1 } }, { upstreams = {
        ["collector.example"] = { { status = 503, body = "busy" }, { body = "" } }, ["*"] = { body = "hello" } } })
      gateway:get("/1")
      gateway:get("/2")
      local list = requests "/v1/traces"
      assert.equal(2, #list)
      assert.equal(4, #otlp.spans(list[2].body))
      assert.matches("the collector answered 503: busy", gateway:log("cannot be sent, trying again")[1], 1, true)
    end)
  end)

  it("lets plugins make spans where nothing is traced", function()
    gateway = spec.gateway { plugins = { { name = "maker" } }, plugins_code = { maker = [[
      local tracing = require "sluice.tracing"
      return { version = "1", priority = 1, access = function()
        local span = tracing.start_span("nothing")
        tracing.set_active_span(span)
        span:set_attribute("a", 1)
        span:add_event("e")
        span:record_error("x")
        span:set_status(tracing.OK)
        span:finish()
        assert(tracing.active_span() == nil)
      end }
    ]] } }
    assert.equal(200, gateway:get("/").status)
  end)

  describe("samples", function()
    it("the share that it is told", function()
      start { sampling_rate = 0.5 }
      for _ = 1, 200 do gateway:get("/") end
      local share = #spans() / 2 / 200
      assert.is_true(share > 0.3 and share < 0.7, share)
    end)

    it("one of a hundred unless told", function()
      start({}, { plugins = { { name = "opentelemetry",
        config = { traces_endpoint = "http://collector.example/v1/traces" } } } })
      for _ = 1, 100 do gateway:get("/") end
      assert.is_true(#spans() < 20)
    end)

    it("nothing at rate 0, and tells the service so", function()
      start { sampling_rate = 0 }
      gateway:get("/")
      assert.equal(0, #spans())
      assert.matches("^00%-%x+%-%x+%-00$", service_fields().traceparent)
    end)

    it("nothing of what the caller dropped", function()
      start {}
      gateway:get("/", { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-00" })
      assert.equal(0, #spans())
      assert.matches("%-00$", service_fields().traceparent)
    end)

    it("by rate what the caller samples, unless the strategy follows it", function()
      start { sampling_rate = 0 }
      gateway:get("/", { traceparent = TRACEPARENT })
      assert.equal(0, #spans())
      gateway:close()
      start { sampling_rate = 0, sampling_strategy = "parent_probability_fallback" }
      gateway:get("/", { traceparent = TRACEPARENT })
      assert.equal(2, #spans())
    end)
  end)

  describe("propagates", function()
    it("W3C, under the caller's span", function()
      start {}
      gateway:get("/", { traceparent = TRACEPARENT, tracestate = "a=b" })
      local list = spans()
      assert.equal(TRACE, list[1].traceId)
      assert.equal(SPAN, list[1].parentSpanId)
      assert.equal("00-" .. TRACE .. "-" .. list[2].spanId .. "-01", service_fields().traceparent)
      assert.equal("a=b", service_fields().tracestate)
    end)

    it("begins a trace of its own in W3C when there is none, or none that could be read", function()
      for _, bad in ipairs { "", "x", "00-" .. ("0"):rep(32) .. "-" .. SPAN .. "-01",
        "00-" .. TRACE .. "-" .. ("0"):rep(16) .. "-01", "ff-" .. TRACE .. "-" .. SPAN .. "-01",
        "00-" .. TRACE:upper() .. "-" .. SPAN .. "-01", TRACEPARENT .. "-x", "00-" .. TRACE .. "-" .. SPAN } do
        start {}
        gateway:get("/", { traceparent = bad })
        local id = service_fields().traceparent:match("^00%-(%x+)%-%x+%-01$")
        assert.equal(32, #id)
        assert.not_equal(TRACE, id)
        gateway:close()
      end
    end)

    it("takes a version of W3C that is not known by what it knows of it", function()
      start {}
      gateway:get("/", { traceparent = "01-" .. TRACE .. "-" .. SPAN .. "-01-more" })
      assert.equal(TRACE, spans()[1].traceId)
    end)

    local DECIMAL_TRACE, DECIMAL_SPAN = "9532127138774266268", "13235353014750950193"
    local FORMATS = {
      b3 = { { ["x-b3-traceid"] = TRACE, ["x-b3-spanid"] = SPAN, ["x-b3-sampled"] = "1" },
        function(fields, span)
          assert.equal(TRACE, fields["x-b3-traceid"])
          assert.equal(span, fields["x-b3-spanid"])
          assert.equal("1", fields["x-b3-sampled"])
          assert.equal(16, #fields["x-b3-parentspanid"])
        end },
      ["b3-single"] = { { b3 = TRACE .. "-" .. SPAN .. "-1-00f067aa0ba902b7" }, function(fields, span)
        assert.matches("^" .. TRACE .. "%-" .. span .. "%-1%-%x+$", fields.b3)
      end },
      jaeger = { { ["uber-trace-id"] = TRACE .. ":" .. SPAN .. ":0:1" }, function(fields, span)
        assert.matches("^" .. TRACE .. ":" .. span .. ":%x+:01$", fields["uber-trace-id"])
      end },
      ot = { { ["ot-tracer-traceid"] = TRACE, ["ot-tracer-spanid"] = SPAN, ["ot-tracer-sampled"] = "true" },
        function(fields, span)
          assert.equal(TRACE, fields["ot-tracer-traceid"])
          assert.equal(span, fields["ot-tracer-spanid"])
          assert.equal("1", fields["ot-tracer-sampled"])
        end },
      datadog = { { ["x-datadog-trace-id"] = DECIMAL_TRACE, ["x-datadog-parent-id"] = DECIMAL_SPAN,
        ["x-datadog-sampling-priority"] = "1" }, function(fields)
        assert.equal(DECIMAL_TRACE, fields["x-datadog-trace-id"])
        assert.equal("1", fields["x-datadog-sampling-priority"])
      end, ("0"):rep(16) .. "8448eb211c80319c", "b7ad6b7169203331" },
      aws = { { ["x-amzn-trace-id"] = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=" .. SPAN .. ";Sampled=1" },
        function(fields, span)
          assert.equal("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=" .. span .. ";Sampled=1",
            fields["x-amzn-trace-id"])
        end },
      gcp = { { ["x-cloud-trace-context"] = TRACE .. "/" .. DECIMAL_SPAN .. ";o=1" }, function(fields)
        assert.matches("^" .. TRACE .. "/%d+;o=1$", fields["x-cloud-trace-context"])
      end },
    }

    for name, case in pairs(FORMATS) do
      it(name .. " in and out", function()
        start {}
        gateway:get("/", case[1])
        local list = spans()
        assert.equal(case[3] or TRACE, list[1].traceId)
        assert.equal(case[4] or SPAN, list[1].parentSpanId)
        case[2](service_fields(), list[2].spanId)
        assert.is_nil(service_fields().traceparent)
      end)

      it(name .. " where it is injected, from W3C", function()
        start { propagation = { extract = { "w3c" }, inject = { name }, default_format = "w3c" } }
        gateway:get("/", { traceparent = TRACEPARENT })
        local list = spans()
        case[2](service_fields(), list[2].spanId)
        assert.equal(TRACE, list[1].traceId)
      end)
    end

    it("what is not sampled in every format", function()
      start { sampling_rate = 0, propagation = { default_format = "w3c",
        inject = { "w3c", "b3", "b3-single", "jaeger", "ot", "datadog", "aws", "gcp" } } }
      gateway:get("/")
      local fields = service_fields()
      assert.matches("%-00$", fields.traceparent)
      assert.equal("0", fields["x-b3-sampled"])
      assert.matches("%-0%-%x+$", fields.b3)
      assert.matches(":00$", fields["uber-trace-id"])
      assert.equal("0", fields["ot-tracer-sampled"])
      assert.equal("0", fields["x-datadog-sampling-priority"])
      assert.matches("Sampled=0$", fields["x-amzn-trace-id"])
      assert.matches(";o=0$", fields["x-cloud-trace-context"])
    end)

    it("short trace ids of B3 as they came", function()
      start {}
      gateway:get("/", { ["x-b3-traceid"] = "8448eb211c80319c", ["x-b3-spanid"] = SPAN })
      assert.equal("8448eb211c80319c", service_fields()["x-b3-traceid"])
      assert.equal(("0"):rep(16) .. "8448eb211c80319c", spans()[1].traceId)
    end)

    it("B3's decision without ids, and its debug flag", function()
      start {}
      gateway:get("/", { b3 = "0" })
      assert.equal(0, #spans())
      gateway:close()
      start { sampling_rate = 0, sampling_strategy = "parent_probability_fallback" }
      gateway:get("/", { ["x-b3-traceid"] = TRACE, ["x-b3-spanid"] = SPAN, ["x-b3-flags"] = "1" })
      assert.equal(2, #spans())
      assert.equal("1", service_fields()["x-b3-flags"])
    end)

    it("the first format of `extract` that is there, and none when it is empty", function()
      local fields = { traceparent = TRACEPARENT, b3 = ("1"):rep(32) .. "-" .. SPAN .. "-1" }
      start { propagation = { extract = { "jaeger", "w3c", "b3" }, inject = { "preserve" }, default_format = "b3" } }
      gateway:get("/", fields)
      assert.equal(TRACE, spans()[1].traceId)
      gateway:close()
      start { propagation = { extract = {}, inject = { "preserve" }, default_format = "b3" } }
      gateway:get("/", fields)
      assert.not_equal(TRACE, spans()[1].traceId)
      assert.equal(spans()[1].traceId, service_fields()["x-b3-traceid"])
    end)

    it("nothing of what `clear` names", function()
      start { propagation = { extract = { "w3c" }, clear = { "uber-trace-id", "x-other" }, inject = { "w3c" },
        default_format = "w3c" } }
      gateway:get("/", { ["uber-trace-id"] = "1:2:3:1", ["X-Other"] = "1" })
      assert.is_nil(service_fields()["uber-trace-id"])
      assert.is_nil(service_fields()["x-other"])
    end)

    it("as the older header_type says", function()
      start { header_type = "ignore" }
      gateway:get("/", { traceparent = TRACEPARENT })
      assert.not_equal(TRACE, spans()[1].traceId)
      gateway:close()
      start { header_type = "b3" }
      gateway:get("/", { traceparent = TRACEPARENT })
      assert.equal(TRACE, service_fields()["x-b3-traceid"])
      assert.matches(TRACE, service_fields().traceparent, 1, true)
    end)
  end)

  it("traces a WebSocket when it ends", function()
    start({ access_logs = { endpoint = "http://collector.example/v1/logs" } }, { upstreams = {
      ["collector.example"] = { body = "" }, ["*"] = { websocket = true } } })
    local socket = gateway:websocket { path = "/chat", headers = { traceparent = TRACEPARENT } }
    socket:send("hello")
    assert.equal("hello", socket:receive().data)
    socket:close(1000)
    socket:receive()
    socket:hang_up()
    local list = spans()
    assert.equal(TRACE, list[1].traceId)
    assert.equal("101", list[1].attributes["http.status_code"])
    local record = otlp.decode("logs", requests("/v1/logs")[1].body).resourceLogs[1].scopeLogs[1].logRecords[1]
    assert.equal(TRACE, otlp.hex(record.traceId))
  end)

  it("keeps the trace of a WebSocket that is not sampled", function()
    start({ sampling_rate = 0, access_logs = { endpoint = "http://collector.example/v1/logs" } }, { upstreams = {
      ["collector.example"] = { body = "" }, ["*"] = { websocket = true } } })
    local socket = gateway:websocket { path = "/chat", headers = { traceparent = TRACEPARENT } }
    socket:close(1000)
    socket:receive()
    socket:hang_up()
    local record = otlp.decode("logs", requests("/v1/logs")[1].body).resourceLogs[1].scopeLogs[1].logRecords[1]
    assert.equal(TRACE, otlp.hex(record.traceId))
    assert.equal(0, #spans())
  end)

  it("tells the client the trace's id in the field that it is told", function()
    start { http_response_header_for_traceid = "X-Trace" }
    assert.equal(TRACE, gateway:get("/", { traceparent = TRACEPARENT }).headers["x-trace"])
  end)

  it("puts trace ids into the records of log plugins", function()
    start({}, { plugins = {
      { name = "opentelemetry", config = { traces_endpoint = "http://collector.example/v1/traces",
        propagation = { extract = { "w3c" }, inject = { "w3c", "aws", "datadog" }, default_format = "w3c" } } },
      { name = "http-log", config = { http_endpoint = "http://collector.example/entries" } } } })
    gateway:get("/", { traceparent = TRACEPARENT })
    local record = require("sluice.json").decode(requests("/entries")[1].body)
    assert.same({ w3c = TRACE, aws = "1-0af76519-16cd43dd8448eb211c80319c", datadog = "9532127138774266268" },
      record.trace_id)
  end)

  it("sends what plugins log while they work on a request, with its trace", function()
    start({}, { plugins = {
      { name = "opentelemetry", config = { traces_endpoint = "http://collector.example/v1/traces", sampling_rate = 1,
        logs_endpoint = "http://collector.example/v1/logs" } }, { name = "chatty" } },
      plugins_code = { chatty = [[
        local log = require "sluice.log"
        return { version = "1", priority = 2000, access = function()
          log.warn("watch out", { door = "left" })
          log.debug("nobody wants to know")
        end }
      ]] } })
    gateway:get("/", { traceparent = TRACEPARENT })
    local data = otlp.decode("logs", requests("/v1/logs")[1].body)
    local records = data.resourceLogs[1].scopeLogs[1].logRecords
    assert.equal(1, #records)
    assert.equal("watch out", records[1].body.stringValue)
    assert.equal("WARN", records[1].severityText)
    assert.equal("SEVERITY_NUMBER_WARN", records[1].severityNumber)
    assert.equal("left", otlp.attributes(records[1].attributes).door)
    assert.equal("chatty", otlp.attributes(records[1].attributes).plugin)
    assert.equal(TRACE, otlp.hex(records[1].traceId))
    assert.equal(spans()[1].spanId, otlp.hex(records[1].spanId))
  end)

  it("sends a record of each request", function()
    start { traces_endpoint = "none", access_logs = { endpoint = "http://collector.example/v1/logs",
      custom_attributes_by_lua = { who = "return 'Ada'" } } }
    gateway:get("/a")
    local data = otlp.decode("logs", requests("/v1/logs")[1].body)
    local record = data.resourceLogs[1].scopeLogs[1].logRecords[1]
    assert.equal("GET /a 200", record.body.stringValue)
    local attributes = otlp.attributes(record.attributes)
    assert.equal("GET", attributes["request.method"])
    assert.equal("200", attributes["response.status"])
    assert.equal("Ada", attributes.who)
  end)

  it("sends metrics now and then, and no more once it is told not to", function()
    local config = { metrics = { endpoint = "http://collector.example/v1/metrics", push_interval = 10 } }
    start({ traces_endpoint = "none" }, { plugins = { { name = "opentelemetry", config = config },
      { name = "prometheus", config = { status_code_metrics = true, latency_metrics = true } } } })
    gateway:get("/a")
    gateway:advance(11)
    local data = otlp.decode("metrics", requests("/v1/metrics")[1].body)
    local by_name = {}
    for _, metric in ipairs(data.resourceMetrics[1].scopeMetrics[1].metrics) do by_name[metric.name] = metric end
    local sum = by_name.sluice_http_requests_total.sum
    assert.equal("AGGREGATION_TEMPORALITY_CUMULATIVE", sum.aggregationTemporality)
    assert.is_true(sum.isMonotonic)
    local point = sum.dataPoints[1]
    assert.equal(1, point.asDouble)
    assert.equal("200", otlp.attributes(point.attributes).code)
    assert.is_true(tonumber(point.startTimeUnixNano) < tonumber(point.timeUnixNano))
    local histogram = by_name.sluice_request_latency_ms.histogram.dataPoints[1]
    assert.equal("1", histogram.count)
    assert.equal(#histogram.explicitBounds + 1, #histogram.bucketCounts)
    assert.is_true(gateway:reload { plugins = {} })
    local count = #requests "/v1/metrics"
    gateway:advance(30)
    assert.equal(count, #requests "/v1/metrics")
  end)

  it("refuses a configuration that is wrong, and says where", function()
    local function refused(config)
      return select(2, spec.check { plugins = { { name = "opentelemetry", config = config } } })
    end
    assert.matches("at least one of", refused {}, 1, true)
    local url = "http://collector.example/"
    for field, value in pairs { traces_endpoint = "x", logs_endpoint = 1, sampling_rate = 1.1, header_type = "x",
      sampling_strategy = "x", connect_timeout = -1, send_timeout = "x", read_timeout = "x", spans = { "x" },
      http_response_header_for_traceid = "a b", batch_span_count = "x", batch_flush_delay = "x", ssl_verify = 1,
      resource_attributes = { a = "" }, headers = { ["a b"] = "c" } } do
      local config = { traces_endpoint = url }
      config[field] = value
      assert.matches("config." .. field, refused(config), 1, true)
    end
    assert.matches("config.propagation.extract[0]: expected one of", refused { traces_endpoint = url,
      propagation = { extract = { "preserve" } } }, 1, true)
    assert.matches("config.propagation.inject[0]: expected one of", refused { traces_endpoint = url,
      propagation = { inject = { "x" } } }, 1, true)
    assert.matches("config.metrics.push_interval: expected",
      refused { metrics = { endpoint = url, push_interval = 0 } }, 1, true)
    assert.matches("config.access_logs.endpoint: expected", refused { access_logs = { endpoint = "x" } }, 1, true)
  end)
end)
