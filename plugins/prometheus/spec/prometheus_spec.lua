-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local BY_ROUTE = 'service="service",route="route"'

describe("prometheus", function()
  local gateway

  -- Every line of /metrics: what is in front of its value, and the value.
  local function scrape()
    local client = gateway:connect { listener = "status" }
    local response = client:request("/metrics")
    client:close()
    assert.equal(200, response.status)
    assert.matches("^text/plain; version=0.0.4", response.headers["content-type"])
    local values = {}
    for line in response.body:gmatch("[^\n]+") do
      local name, value = line:match("^([^#].-) (%S+)$")
      if name then
        assert.is_nil(values[name], name .. " stands there twice")
        values[name] = tonumber(value)
      end
    end
    return values, response.body
  end

  -- Counters live as long as the process of the specs: what has been added since `before`.
  local function added(before, name)
    return (scrape()[name] or 0) - (before[name] or 0)
  end

  local function start(config, more)
    local options = { plugins = { { name = "prometheus", config = config } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
    return scrape()
  end

  it("counts requests by service, route, status and source", function()
    local before = start({ status_code_metrics = true }, { plugins = {
      { name = "prometheus", config = { status_code_metrics = true } },
      { name = "request-termination", config = { trigger = "stop", status_code = 403 } } } })
    local function requests(code, source)
      return ('sluice_http_requests_total{%s,code="%d",source="%s",workspace="default",consumer=""}')
        :format(BY_ROUTE, code, source)
    end
    gateway:get("/")
    gateway:get("/")
    gateway:get("/?stop")
    gateway:upstream("*", { close = true })
    gateway:get("/")
    assert.equal(2, added(before, requests(200, "service")))
    assert.equal(1, added(before, requests(403, "exit")))
    assert.equal(1, added(before, requests(502, "error")))
  end)

  it("counts bytes of both directions", function()
    local before = start { bandwidth_metrics = true }
    local client = gateway:connect()
    client:send_bytes("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    assert(client:receive())
    local function bytes(direction)
      return ('sluice_bandwidth_bytes{%s,direction="%s",workspace="default",consumer=""}'):format(BY_ROUTE, direction)
    end
    assert.equal(#"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", added(before, bytes("ingress")))
    assert.is_true(added(before, bytes("egress")) > 100)
  end)

  it("says how long it took: all in all, until the service answered, in the gateway", function()
    local before = start({ latency_metrics = true }, { upstreams = { ["*"] = { delay = 0.3 } } })
    gateway:get("/")
    local function of(name)
      return ('sluice_%s{%s,workspace="default"%s}'):format(name:match("^[^,]*"), BY_ROUTE,
        name:find(",") and ',le="' .. name:match(",(.*)") .. '"' or "")
    end
    for _, name in ipairs { "request_latency_ms", "upstream_latency_ms" } do
      assert.equal(1, added(before, of(name .. "_count")))
      assert.equal(300, math.floor(added(before, of(name .. "_sum")) + 0.5))
      assert.equal(0, added(before, of(name .. "_bucket,250")))
      assert.equal(1, added(before, of(name .. "_bucket,400")))
      assert.equal(1, added(before, of(name .. "_bucket,+Inf")))
    end
    assert.equal(1, added(before, of "kong_latency_ms_bucket,5"))
  end)

  it("tells nothing of a service that did not answer", function()
    local before = start({ latency_metrics = true }, { upstreams = { ["*"] = { refuse = true } } })
    gateway:get("/")
    assert.equal(1, added(before, ('sluice_request_latency_ms_count{%s,workspace="default"}'):format(BY_ROUTE)))
    assert.equal(0, added(before, ('sluice_upstream_latency_ms_count{%s,workspace="default"}'):format(BY_ROUTE)))
  end)

  describe("names the consumer", function()
    local function counts(config)
      local before = start(config, { consumers = { { username = "alice", keyauth_credentials = { { key = "k" } } } },
        plugins = { { name = "prometheus", config = config }, { name = "key-auth" } } })
      gateway:get("/", { apikey = "k" })
      local name = 'sluice_http_requests_total{%s,code="200",source="service",workspace="default",consumer="%s"}'
      return added(before, name:format(BY_ROUTE, "alice")), added(before, name:format(BY_ROUTE, ""))
    end

    it("with per_consumer", function()
      assert.same({ 1, 0 }, { counts { status_code_metrics = true, per_consumer = true } })
    end)

    it("not without", function()
      assert.same({ 0, 1 }, { counts { status_code_metrics = true } })
    end)
  end)

  it("counts what no route or no service was found for, too", function()
    local before = start({ status_code_metrics = true }, { routes = { { name = "alone", paths = { "/a" } } } })
    gateway:get("/a")
    gateway:get("/b")
    local name = 'sluice_http_requests_total{service="",route="%s",code="%d",source="error",workspace="default",'
      .. 'consumer=""}'
    assert.equal(1, added(before, name:format("alone", 503)))
    assert.equal(1, added(before, name:format("", 404)))
  end)

  it("counts nothing that it is not told to", function()
    local before = start {}
    gateway:get("/")
    local after = scrape()
    for name, value in pairs(after) do
      if name:find(BY_ROUTE, 1, true) then assert.equal(before[name], value, name) end
    end
  end)

  it("keeps counting over a reload", function()
    local before = start { status_code_metrics = true }
    gateway:get("/")
    assert(gateway:reload { consumers = { { username = "new" } } })
    gateway:get("/")
    assert.equal(2, added(before, ('sluice_http_requests_total{%s,code="200",source="service",workspace="default",'
      .. 'consumer=""}'):format(BY_ROUTE)))
  end)

  describe("tells the health of targets", function()
    local upstreams = { { name = "up", targets = { { target = "192.0.2.1:80" }, { target = "a.example:81" } } } }
    local name = 'sluice_upstream_target_health{upstream="up",target="%s",address="%s",state="%s",subsystem="http"}'

    it("with upstream_health_metrics", function()
      local values = start({ upstream_health_metrics = true }, { upstreams = upstreams })
      assert.equal(1, values[name:format("192.0.2.1:80", "192.0.2.1:80", "healthchecks_off")])
      assert.equal(1, values[name:format("a.example:81", "", "healthchecks_off")])
      for _, state in ipairs { "healthy", "unhealthy", "dns_error" } do
        assert.equal(0, values[name:format("a.example:81", "", state)])
      end
    end)

    it("not without", function()
      local _, text = start({}, { upstreams = upstreams })
      assert.is_nil(text:find("sluice_upstream_target_health", 1, true))
    end)
  end)

  describe("the gateway itself tells, without it,", function()
    before_each(function() gateway = spec.gateway {} end)

    it("what it is, its connections, requests and memory", function()
      local values, text = scrape()
      local function value_of(pattern)
        for name, value in pairs(values) do
          if name:find(pattern) then return value end
        end
        error("no metric " .. pattern .. " in " .. text)
      end
      assert.equal(1, value_of('^sluice_node_info{node_id="[%x-]+",version="[^"]+"}$'))
      assert.equal(1, values.sluice_datastore_reachable)
      for _, prefix in ipairs { "sluice_", "sluice_nginx_" } do
        local connections = prefix .. 'connections_total{node_id="[%x-]+",subsystem="http",state="active"}'
        assert.is_true(value_of("^" .. connections .. "$") > 0)
        assert.is_true(value_of("^" .. prefix .. 'requests_total{node_id="[%x-]+",subsystem="http"}$') > 0)
      end
      assert.is_true(value_of('^sluice_memory_workers_lua_vms_bytes{.*pid="%d+",kong_subsystem="http"}$') > 1e5)
      assert.is_true(value_of('^sluice_memory_lua_shared_dict_total_bytes{.*shared_dict="counters"') > 1e5)
    end)

    it("each family once, with its help and type", function()
      local _, text = scrape()
      local seen = {}
      for name in text:gmatch("# TYPE (%S+) %l+\n") do
        assert.is_nil(seen[name], name)
        seen[name] = true
        assert.is_truthy(text:find("# HELP " .. name .. " ", 1, true), name)
      end
      for name in text:gmatch("\n([%w_]+)[{ ]") do
        local family = name:gsub("_bucket$", ""):gsub("_sum$", ""):gsub("_count$", "")
        assert.is_truthy(seen[name] or seen[family], name)
      end
    end)
  end)

  it("takes what Kong writes out of itself, and no metrics of filters that are not there", function()
    local function check(wasm)
      return spec.check { plugins = { { name = "prometheus", config = { wasm_metrics = wasm, per_consumer = true } } } }
    end
    assert(check(false))
    assert.matches("config.wasm_metrics: expected false, found true", select(2, check(true)), 1, true)
  end)

  it("refuses options that it does not know", function()
    local _, err = spec.check { plugins = { { name = "prometheus", config = { status_codes = true } } } }
    assert.matches("config.status_codes: unknown field", err, 1, true)
  end)
end)
