-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local spec = require "sluice.spec"

local TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

describe("zipkin", function()
  local gateway

  local function start(config, more)
    if config.http_endpoint == nil then config.http_endpoint = "http://zipkin.example:9411/api/v2/spans" end
    if config.http_endpoint == false then config.http_endpoint = nil end
    config.sample_ratio = config.sample_ratio or 1
    local options = { plugins = { { name = "zipkin", config = config } },
      upstreams = { ["zipkin.example"] = { status = 202 }, ["*"] = { body = "hello" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
    return gateway
  end

  local function spans()
    gateway:advance(2)
    local list = {}
    for _, request in ipairs(gateway:requests("zipkin.example")) do
      assert.equal("application/json", request.headers["content-type"])
      for _, span in ipairs(json.decode(request.body)) do list[#list + 1] = span end
    end
    return list
  end

  local function service_fields()
    return gateway:requests("service.example")[1].headers
  end

  it("sends the request, what was proxied and each try", function()
    start {}
    gateway:get("/a?b=c")
    local list = spans()
    assert.equal(3, #list)
    local request, proxy, try = list[1], list[2], list[3]
    assert.same({ "GET", "GET (proxy)", "GET (balancer try 1)" }, { request.name, proxy.name, try.name })
    assert.same({ "SERVER", "CLIENT", "CLIENT" }, { request.kind, proxy.kind, try.kind })
    assert.is_nil(request.parentId)
    assert.same({ request.id, proxy.id }, { proxy.parentId, try.parentId })
    assert.equal(32, #request.traceId)
    assert.equal("kong", request.localEndpoint.serviceName)
    assert.equal("127.0.0.1", request.remoteEndpoint.ipv4)
    assert.equal("service", proxy.remoteEndpoint.serviceName)
    assert.equal(80, proxy.remoteEndpoint.port)
    local tags = request.tags
    assert.same({ "GET", "/a", "200", "kong", "HTTP/1.1" }, { tags["http.method"], tags["http.path"],
      tags["http.status_code"], tags.lc, tags["http.protocol"] })
    assert.equal("route", proxy.tags["kong.route_name"])
    assert.equal("1", try.tags["kong.balancer.try"])
    assert.is_true(request.duration >= 1 and request.timestamp >= 1767225600000000)
    local values = {}
    for i, one in ipairs(proxy.annotations) do values[i] = one.value end
    assert.same({ "kas", "kaf", "khs", "khf", "kbs", "kbf" }, values)
    assert.equal(proxy.id, service_fields()["x-b3-spanid"])
    assert.equal(request.traceId, service_fields()["x-b3-traceid"])
  end)

  it("tells how long phases took in tags, when it is told to", function()
    start { phase_duration_flavor = "tags" }
    gateway:get("/")
    local proxy = spans()[2]
    assert.matches("^%d+%.%d+$", proxy.tags["kong.access.duration_ms"])
    assert.matches("^%d+%.%d+$", proxy.tags["kong.body_filter.duration_ms"])
    assert.is_nil(proxy.annotations)
  end)

  it("names tries that failed", function()
    start({}, { upstreams = { ["zipkin.example"] = { status = 202 }, ["service.example"] = { refuse = true } },
      services = { { name = "s", url = "http://service.example", retries = 1,
        routes = { { name = "r", paths = { "/" } } } } } })
    gateway:get("/")
    local list = spans()
    assert.equal(4, #list)
    assert.same({ "true", "failed", "502", "2" }, { list[4].tags.error, list[4].tags["kong.balancer.state"],
      list[4].tags["http.status_code"], list[4].tags["kong.balancer.try"] })
    assert.equal("true", list[1].tags.error)
  end)

  it("has only the request's span where no service was asked", function()
    start({}, { plugins = {
      { name = "zipkin", config = { http_endpoint = "http://zipkin.example/", sample_ratio = 1 } },
      { name = "request-termination", config = { status_code = 418 } } } })
    gateway:get("/")
    local list = spans()
    assert.equal(1, #list)
    assert.equal("418", list[1].tags["http.status_code"])
  end)

  it("goes on under the caller's span, which decides", function()
    start { sample_ratio = 0 }
    gateway:get("/", { ["x-b3-traceid"] = TRACE, ["x-b3-spanid"] = SPAN, ["x-b3-sampled"] = "1" })
    local request = spans()[1]
    assert.same({ TRACE, SPAN }, { request.traceId, request.parentId })
    gateway:close()
    start {}
    gateway:get("/", { ["x-b3-traceid"] = TRACE, ["x-b3-spanid"] = SPAN, ["x-b3-sampled"] = "0" })
    assert.equal(0, #spans())
    assert.equal("0", service_fields()["x-b3-sampled"])
  end)

  it("samples one of a thousand unless told", function()
    start({}, { plugins = { { name = "zipkin", config = { http_endpoint = "http://zipkin.example/" } } } })
    for _ = 1, 20 do gateway:get("/") end
    assert.equal(0, #spans())
  end)

  it("makes short trace ids when it is told to", function()
    start { traceid_byte_count = 8 }
    gateway:get("/")
    assert.equal(16, #spans()[1].traceId)
    assert.equal(spans()[1].traceId, service_fields()["x-b3-traceid"])
  end)

  it("takes tags from the configuration and from the request", function()
    start { static_tags = { { name = "zone", value = "b" } }, tags_header = "X-Tags" }
    gateway:get("/", { ["X-Tags"] = "fg=blue; bg = red;broken" })
    local tags = spans()[1].tags
    assert.same({ "b", "blue", "red" }, { tags.zone, tags.fg, tags.bg })
    gateway:close()
    start {}
    gateway:get("/", { ["Zipkin-Tags"] = "fg=blue" })
    assert.equal("blue", spans()[1].tags.fg)
  end)

  it("names spans, the gateway and services as it is told", function()
    start({ http_span_name = "method_path", local_service_name = "edge", default_service_name = "somebody" },
      { services = { { url = "http://service.example", routes = { { name = "r", paths = { "/" } } } } } })
    gateway:get("/a?b")
    local list = spans()
    assert.same({ "GET /a", "edge", "somebody" }, { list[1].name, list[1].localEndpoint.serviceName,
      list[2].remoteEndpoint.serviceName })
  end)

  it("names consumer and credential, the latter unless told not to", function()
    local function tags_with(include)
      start({}, { consumers = { { username = "alice", keyauth_credentials = { { key = "secret" } } } }, plugins = {
        { name = "zipkin", config = { http_endpoint = "http://zipkin.example/", sample_ratio = 1,
          include_credential = include } }, { name = "key-auth" } } })
      gateway:get("/", { apikey = "secret" })
      local tags = spans()[1].tags
      gateway:close()
      return tags
    end
    assert.is_truthy(tags_with(true)["kong.credential"])
    local tags = tags_with(false)
    assert.is_nil(tags["kong.credential"])
    assert.is_truthy(tags["kong.consumer"])
  end)

  it("passes traces on without a server to tell", function()
    start { http_endpoint = false }
    gateway:get("/", { ["x-b3-traceid"] = TRACE, ["x-b3-spanid"] = SPAN })
    assert.equal(TRACE, service_fields()["x-b3-traceid"])
    assert.equal(0, #spans())
  end)

  it("uses the formats that it is told", function()
    start { propagation = { extract = { "w3c" }, inject = { "w3c", "jaeger" }, default_format = "w3c" } }
    gateway:get("/", { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-01" })
    assert.matches(TRACE, service_fields().traceparent, 1, true)
    assert.matches("^" .. TRACE .. ":", service_fields()["uber-trace-id"])
    gateway:close()
    start { default_header_type = "ot" }
    gateway:get("/")
    assert.is_truthy(service_fields()["ot-tracer-traceid"])
    gateway:close()
    start { header_type = "w3c" }
    gateway:get("/", { ["x-b3-traceid"] = TRACE, ["x-b3-spanid"] = SPAN })
    assert.matches(TRACE, service_fields().traceparent, 1, true)
  end)

  it("shares the trace with opentelemetry", function()
    start({}, { plugins = {
      { name = "zipkin", config = { http_endpoint = "http://zipkin.example/", sample_ratio = 1 } },
      { name = "opentelemetry", config = { traces_endpoint = "http://otel.example/", sampling_rate = 1,
        http_response_header_for_traceid = "X-Trace" } } } })
    local id = gateway:get("/").headers["x-trace"]
    assert.equal(id, spans()[1].traceId)
    assert.equal(id, service_fields()["x-b3-traceid"])
    gateway:advance(5)
    assert.equal(1, #gateway:requests("otel.example"))
  end)

  it("tells the client the trace's id", function()
    start { http_response_header_for_traceid = "X-Trace" }
    assert.equal(32, #gateway:get("/").headers["x-trace"])
  end)

  it("sends again what the server did not take, in batches", function()
    start({ queue = { max_batch_size = 3, initial_retry_delay = 1 } }, { upstreams = {
      ["zipkin.example"] = { { status = 500, body = "full" }, { status = 202 } }, ["*"] = { body = "hello" } } })
    gateway:get("/")
    assert.equal(6, #spans())
    assert.matches("the server answered 500: full", gateway:log("cannot be sent, trying again")[1], 1, true)
  end)

  it("refuses a configuration that is wrong, and says where", function()
    local function refused(config)
      return select(2, spec.check { plugins = { { name = "zipkin", config = config } } })
    end
    for field, value in pairs { http_endpoint = "x", sample_ratio = 2, traceid_byte_count = 7, header_type = "x",
      default_header_type = "x", http_span_name = "x", phase_duration_flavor = "x", connect_timeout = -1,
      send_timeout = -1, read_timeout = -1, ssl_verify = 1, http_response_header_for_traceid = "a b",
      include_credential = 1, tags_header = 1, local_service_name = 1, default_service_name = 1 } do
      assert.matches("config." .. field .. ": expected", refused { [field] = value }, 1, true)
    end
    assert.matches("config.static_tags[0].name: expected", refused { static_tags = { { name = "lc", value = "x" } } },
      1, true)
  end)
end)
