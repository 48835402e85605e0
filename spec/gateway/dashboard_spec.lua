-- SPDX-License-Identifier: Apache-2.0
-- The Grafana dashboard in plugins/prometheus: every metric and label that it names is in a scrape of a gateway with
-- all of them on.
local dashboard = require "spec.support.dashboard"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

describe("the dashboard", function()
  local up, gw, scrape

  setup(function()
    up = upstream.start()
    local port = process.free_port()
    gw = gateway.start({
      _format_version = "3.0",
      consumers = { { username = "alice", keyauth_credentials = { { key = "secret" } } } },
      upstreams = { { name = "pool", targets = { { target = "127.0.0.1:" .. up.port } } } },
      services = {
        { name = "up", url = "http://pool", routes = { { name = "up", paths = { "/" } } } },
        { name = "raw", url = "tcp://127.0.0.1:" .. up.port, routes = { { name = "raw", protocols = { "tcp" },
          destinations = { { port = port } } } } },
      },
      plugins = {
        { name = "prometheus", protocols = { "http", "https", "tcp", "tls" }, config = { per_consumer = true,
          status_code_metrics = true, latency_metrics = true, bandwidth_metrics = true,
          upstream_health_metrics = true } },
        { name = "key-auth" }, { name = "limited" },
        { name = "http-log", config = { http_endpoint = "http://127.0.0.1:" .. process.free_port(),
          queue = { max_entries = 1, initial_retry_delay = 0.001 } } },
        { name = "udp-log", config = { host = "127.0.0.1", port = up.port } },
        { name = "tcp-log", config = { host = "127.0.0.1", port = up.port } },
      },
    }, { env = { SLUICE_STREAM_LISTEN = "127.0.0.1:" .. port }, plugins = { limited = [[
      local metrics = require "sluice.metrics"
      local few = metrics.counter("few", "", { "a" }, { max_series = 1 })
      return { version = "1", priority = 1, access = function()
        few:increment("1")
        few:increment("2")
      end }
    ]] } })
    for i = 1, 5 do gw:request { path = "/echo?" .. i, headers = { apikey = "secret" } } end
    http.get(port, "/echo")
    process.wait_until(function()
      scrape = http.get(gw.status_port, "/metrics").body
      return scrape:find("sluice_queue_length", 1, true) and scrape:find("sluice_queue_dropped_total", 1, true)
        and scrape:find("sluice_queue_sent_total", 1, true) and scrape:find("sluice_session_duration_ms", 1, true)
        and scrape:find("sluice_stream_bytes_total", 1, true)
    end, 10, function() return "all metrics, found:\n" .. scrape end)
  end)
  teardown(function()
    gw:stop()
    up:stop()
  end)

  for i, expression in ipairs(dashboard.expressions "plugins/prometheus/dashboard.json") do
    it(("finds what it asks for %s (%d)"):format(expression.title, i), function()
      dashboard.check(scrape, expression.text)
    end)
  end
end)
