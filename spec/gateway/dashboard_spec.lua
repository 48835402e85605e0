-- SPDX-License-Identifier: Apache-2.0
-- The Grafana dashboard in plugins/prometheus: every metric and label that it names is in a scrape of a gateway with
-- all of them on.
local cjson = require "cjson"
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

  local dashboard = cjson.decode(process.read_file("plugins/prometheus/dashboard.json"))
  local expressions = {}
  for _, panel in ipairs(dashboard.panels) do
    for _, target in ipairs(panel.targets or {}) do
      expressions[#expressions + 1] = { title = panel.title, text = target.expr }
    end
  end
  for _, variable in ipairs(dashboard.templating.list) do
    if type(variable.query) == "table" then
      expressions[#expressions + 1] = { title = variable.name, text = variable.query.query }
    end
  end

  -- One line of the scrape that has this metric.
  local function sample_of(metric)
    local text = "\n" .. scrape
    return text:match("\n" .. metric .. "({[^\n]*)") or text:match("\n" .. metric .. "( [^\n]*)")
  end

  for i, expression in ipairs(expressions) do
    it(("finds what it asks for %s (%d)"):format(expression.title, i), function()
      local count = 0
      for metric, selector in expression.text:gmatch("(sluice_[%w_]+)({?[^}]*)") do
        local sample = sample_of(metric)
        assert(sample, metric .. " is not in the scrape")
        count = count + 1
        if selector:sub(1, 1) == "{" then
          for label in selector:gmatch('([%a_]+)[=!]') do assert.matches(label .. '="', sample, 1, true) end
        end
        for labels in expression.text:gmatch("by %(([%w_, ]+)%)") do
          for label in labels:gmatch("[%w_]+") do assert.matches(label .. '="', sample, 1, true) end
        end
      end
      assert.is_true(count > 0)
    end)
  end
end)
