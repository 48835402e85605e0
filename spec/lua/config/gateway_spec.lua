-- SPDX-License-Identifier: Apache-2.0
local lfs = require "lfs"
local loading = require "spec.lua.config.loading"

local function section(text, environment)
  return loading.good(text, environment).gateway
end

describe("the gateway section", function()
  it("has defaults for all that is not said", function()
    local gateway = section "services: []"
    assert.same({ "0.0.0.0:8000", "0.0.0.0:8443 ssl http2" }, gateway.proxy_listen)
    assert.same({ "127.0.0.1:8007" }, gateway.status_listen)
    assert.same({ "auto", 100, "off", "notice", "text" }, { gateway.workers, gateway.plugin_cpu_budget_ms,
      gateway.access_log.path, gateway.log.level, gateway.log.format })
    assert.same({ client_header_timeout = 10000, client_body_timeout = 30000, keepalive_timeout = 60000,
      send_timeout = 30000, drain_timeout = 30000, watchdog_timeout = 5000, max_head_bytes = 32768, max_headers = 200,
      max_streams = 100, max_body_bytes = 0, max_buffered_body_bytes = 8388608, max_connections = 0,
      cache_bytes = 1073741824 },
      gateway.limits)
    assert.same({ on_reload = "keep", drain_timeout = 10000, client_max_payload = 1048576,
      upstream_max_payload = 16777216 }, gateway.websocket)
    assert.same({ {}, {}, {} }, { gateway.trusted_plugins, gateway.trusted_ips, gateway.kafka })
  end)

  it("says what an open WebSocket's reload may be", function()
    assert.equal("drain", section("gateway: {websocket: {on_reload: drain}}").websocket.on_reload)
    assert.matches('websocket.on_reload: expected one of keep, drain or cut, found "close"',
      (loading.error "gateway: {websocket: {on_reload: close}}"))
    assert.equal("cut", section("services: []", { SLUICE_WEBSOCKET_ON_RELOAD = "cut" }).websocket.on_reload)
  end)

  it("takes paths relative to the file", function()
    local gateway = section "gateway: {plugin_dirs: [./mine, /opt/plugins]}"
    local here = lfs.currentdir()
    assert.same({ here .. "/mine", "/opt/plugins" }, gateway.plugin_dirs)
    assert.equal(here .. "/.sluice", gateway.state_dir)
  end)

  local function listen(value)
    return section("gateway: {proxy_listen: " .. value .. "}").proxy_listen
  end

  it("reads Kong's listen syntax", function()
    assert.same({ "127.0.0.1:80" }, listen "'127.0.0.1:80'")
    assert.same({ "0.0.0.0:80 backlog=64", "[::]:443 ssl http2" },
      listen "'0.0.0.0:80 reuseport backlog=64, [::]:443 ssl http2 deferred'")
    assert.same({ "127.0.0.1:0", "unix:/run/s.sock" }, listen "['localhost:0', 'unix:/run/s.sock']")
  end)

  it("reads listeners of streams, of which there are none unless told", function()
    local function streams(value) return section("gateway: {stream_listen: " .. value .. "}").stream_listen end
    assert.same({}, section("gateway: {}").stream_listen)
    assert.same({ "0.0.0.0:9000 proxy_protocol", "[::1]:9443 ssl backlog=5" },
      streams "['0.0.0.0:9000 proxy_protocol reuseport', '[::1]:9443 ssl backlog=5']")
    assert.same({}, streams "off")
    assert.matches("expected a known flag.*http2", loading.error("gateway: {stream_listen: '0.0.0.0:1 http2'}"))
    assert.matches("expected a flag for TCP", loading.error("gateway: {stream_listen: '0.0.0.0:1 udp'}"))
    assert.same({ "0.0.0.0:80 proxy_protocol" }, listen "'0.0.0.0:80 proxy_protocol'")
  end)

  local function warnings(text)
    local lines = {}
    for i, warning in ipairs(loading.good(text).warnings) do lines[i] = warning.text or warning.message end
    return table.concat(lines, "\n")
  end

  it("warns of a PROXY header that nobody is believed in", function()
    local told = "proxy_protocol without trusted_ips"
    assert.matches(told, warnings "gateway: {proxy_listen: '0.0.0.0:80 proxy_protocol'}", 1, true)
    assert.matches(told, warnings "gateway: {stream_listen: '0.0.0.0:90 ssl proxy_protocol'}", 1, true)
    assert.equal("", warnings "gateway: {proxy_listen: '0.0.0.0:80 proxy_protocol', trusted_ips: [10.0.0.0/8]}")
    assert.equal("", warnings "gateway: {stream_listen: '0.0.0.0:90'}")
  end)

  it("warns once of routes of streams that nothing listens for", function()
    local routes = "routes:\n- {name: a, protocols: [tcp], destinations: [{port: 5}]}\n"
      .. "- {name: b, protocols: [tcp], destinations: [{port: 6}]}\n"
    assert.matches("^[^\n]*nothing listens for streams: gateway.stream_listen is off$", warnings(routes))
    assert.equal("", warnings(routes .. "gateway: {stream_listen: '0.0.0.0:5'}"))
  end)

  it("turns a listener off", function()
    assert.same({}, listen "off")
    assert.same({}, listen "'off'")
    assert.same({}, listen "['off']")
  end)

  it("refuses what is no address", function()
    for _, value in ipairs { "8000", "'8000'", "'0.0.0.0'", "'h.example.com:80'", "'0.0.0.0:80 sll'", "[5]",
      "'0.0.0.0:99999'" } do
      local line = loading.error("gateway:\n  proxy_listen: " .. value)
      assert.message(value).matches("^kong.yml:2: gateway: proxy_listen", line)
    end
  end)

  it("takes an access log that can be written", function()
    local here = lfs.currentdir()
    assert.equal(here .. "/a.log", section("gateway: {access_log: {path: ./a.log}}").access_log.path)
    assert.equal("/dev/null", section("gateway: {access_log: {path: /dev/null}}").access_log.path)
    assert.equal("off", section("gateway: {access_log: {path: off}}").access_log.path)
    assert.equal("/dev/null", section("services: []", { SLUICE_ACCESS_LOG_PATH = "/dev/null" }).access_log.path)
    assert.is_nil(lfs.attributes(here .. "/a.log"))
  end)

  it("refuses an access log that cannot be written", function()
    for value, why in pairs {
      ["nowhere/a.log"] = "found a file in a folder that is not there %(" .. lfs.currentdir():gsub("%p", "%%%0"),
      ["/dev"] = "found a folder %(/dev%)", ["7"] = "found a number", ["''"] = 'found ""',
    } do
      assert.matches("^kong.yml:1: gateway: access_log.path: expected a file to write to, or off, " .. why,
        (loading.error("gateway: {access_log: {path: " .. value .. "}}")))
    end
  end)

  it("takes Kong's names for what responses tell of the gateway", function()
    local function headers(value, environment)
      return section(value and "gateway: {headers: " .. value .. "}" or "services: []", environment).headers
    end
    local latencies = { "x-kong-proxy-latency", "x-kong-response-latency", "x-kong-upstream-latency" }
    assert.same({ "server", "via" }, headers())
    assert.same({}, headers "off")
    assert.same({}, headers "[off]")
    assert.same({ "server", "server-timing", "via" }, headers "[Server_Tokens, Server-Timing, via]")
    assert.same(latencies, headers "latency_tokens")
    assert.same({ "x-kong-request-id", "x-kong-upstream-status" }, headers(nil,
      { SLUICE_HEADERS = "X-Kong-Upstream-Status, X-Kong-Request-Id, X-Kong-Admin-Latency" }))
    assert.matches("^kong.yml:1: gateway: headers%[1%]: expected off, or a list of server_tokens.*found \"x%-other\"",
      (loading.error("gateway: {headers: [via, x-other]}")))
    assert.matches("headers: expected off, or a list.*found a number", (loading.error("gateway: {headers: 7}")))
  end)

  it("gives librdkafka every property as a text", function()
    local gateway = section [[
gateway:
  kafka:
    main: { bootstrap.servers: ["a:9092", "b:9092"], linger.ms: 5, enable.idempotence: true, acks: all }
    demo: { embedded: true }
]]
    assert.same({ main = { ["bootstrap.servers"] = "a:9092,b:9092", ["linger.ms"] = "5",
      ["enable.idempotence"] = "true", acks = "all" }, demo = { embedded = true } }, gateway.kafka)
  end)

  it("needs to know a cluster's brokers", function()
    assert.matches("kafka.main: expected bootstrap.servers, or embedded: true, found neither",
      (loading.error "gateway: {kafka: {main: {acks: all}}}"))
  end)

  it("lets the environment override single values", function()
    local gateway = section("gateway: {workers: 4, log: {level: error}}", { SLUICE_WORKERS = "2",
      SLUICE_PROXY_LISTEN = "127.0.0.1:1, 127.0.0.1:2 ssl", SLUICE_LOG_LEVEL = "debug", SLUICE_STATE_DIR = "/tmp/s",
      SLUICE_LIMITS_MAX_HEADERS = "50", SLUICE_PLUGIN_DIRS = "/a, /b", SLUICE_STATUS_LISTEN = "off",
      SLUICE_TRUSTED_IPS = "10.0.0.0/8" })
    assert.same({ 2, "debug", "/tmp/s", 50 }, { gateway.workers, gateway.log.level, gateway.state_dir,
      gateway.limits.max_headers })
    assert.same({ "127.0.0.1:1", "127.0.0.1:2 ssl" }, gateway.proxy_listen)
    assert.same({ { "/a", "/b" }, {}, { "10.0.0.0/8" } }, { gateway.plugin_dirs, gateway.status_listen,
      gateway.trusted_ips })
  end)

  it("names the variable when its value is wrong", function()
    assert.equal("environment variable SLUICE_WORKERS: gateway: workers: expected auto or an integer from 1 to 1024, "
      .. 'found "many"', (loading.error("services: []", { SLUICE_WORKERS = "many" })))
    assert.matches("^environment variable SLUICE_LIMITS_MAX_HEADERS: gateway: limits.max_headers: expected an integer",
      (loading.error("services: []", { SLUICE_LIMITS_MAX_HEADERS = "x" })))
  end)
end)
