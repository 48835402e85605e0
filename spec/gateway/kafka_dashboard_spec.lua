-- SPDX-License-Identifier: Apache-2.0
-- What a gateway tells of Kafka: the Grafana dashboard finds all that it asks for, `sluice status` and `sluice top`
-- show clusters, topics and who is behind, for all workers together.
local cjson = require "cjson"
local dashboard = require "spec.support.dashboard"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

describe("Kafka, as it is seen from outside:", function()
  local up, gw, scrape

  local function sink(name, url, config)
    config.group = name
    return { name = name, url = url, connect_timeout = 200, retries = 0, plugins = {
      { name = "kafka-sink", config = config } } }
  end

  local function log(config)
    config.topic, config.timeout = "access", 200
    config.queue = { max_batch_size = 1, max_entries = 1, initial_retry_delay = 0.001 }
    return { name = "kafka-log", config = config }
  end

  local function route(path, name, config, more)
    return { name = path:sub(2), paths = { path }, methods = more and more.methods,
      plugins = { { name = name, config = config }, more and more.log } }
  end

  local function start()
    return gateway.start({
      _format_version = "3.0",
      gateway = { kafka = { main = { embedded = true }, away = { ["bootstrap.servers"] = "127.0.0.1:1",
        ["queue.buffering.max.messages"] = 2, ["message.timeout.ms"] = 100 } } },
      services = {
        sink("works", "http://127.0.0.1:" .. up.port .. "/echo", { topics = { "orders" } }),
        sink("away", "http://127.0.0.1:1", { topics = { "orders" } }),
        sink("answers", "http://127.0.0.1:" .. up.port .. "/echo", { topics = { "asked" }, reply_topics = { "told" } }),
      },
      routes = {
        route("/orders", "kafka-upstream", { topic = "orders", value = "body" }, { log = log {} }),
        route("/events", "kafka-consume", { topics = { { name = "orders" } }, mode = "server-sent-events",
          auto_offset_reset = "earliest" }),
        route("/ask", "kafka-request-reply", { topic = "asked", reply_topic = "told", timeout = 20000 }),
        route("/lost", "kafka-upstream", { topic = "orders", value = "body", cluster = "away", timeout = 100,
          wait = false }, { log = log { cluster = "away" } }),
        route("/large", "request-termination", {}, { log = log { custom_fields_by_lua = {
          pad = "return ('x'):rep(1100000)" } } }),
      },
      plugins = { { name = "prometheus" } },
    }, { workers = 2 })
  end

  local function command(...)
    local status, out, err = process.run({ gateway.binary, ... }, { cwd = gw.directory,
      env = { SLUICE_STATE_DIR = gw.directory .. "/state", SLUICE_HOME = assert(io.popen("pwd")):read("*l") } })
    assert.equal(0, status, err)
    return out
  end

  local NEEDED = { "sluice_kafka_sink_paused", "sluice_kafka_sink_retries_total", 'outcome="delivered"',
    "sluice_kafka_reply_seconds_count", "sluice_queue_dropped_total", "sluice_queue_sent_total",
    "sluice_queue_retries_total", "sluice_log_lost_total", "sluice_kafka_refused_records_total",
    "sluice_kafka_failed_records_total", 'lag_records{cluster="main",group="works"', "sluice_kafka_delivery_seconds_c" }

  local function missing()
    scrape = http.get(gw.status_port, "/metrics").body
    for _, name in ipairs(NEEDED) do
      if not scrape:find(name, 1, true) then return name end
    end
  end

  setup(function()
    up = upstream.start()
    gw = start()
    for i = 1, 20 do
      assert.equal(200, gw:request({ method = "POST", path = "/orders", body = "order " .. i }).status)
    end
    gw:request { method = "POST", path = "/ask", body = "what?", timeout = 25 }
    for _ = 1, 8 do gw:request { method = "POST", path = "/lost", body = "x" } end
    gw:request { path = "/large" }
    process.run { "curl", "-sN", "--max-time", "1.5", "http://127.0.0.1:" .. gw.port .. "/events" }
    process.wait_until(function() return not missing() end, 30,
      function() return tostring(missing()) .. " in\n" .. scrape end)
  end)

  teardown(function()
    if gw then gw:stop() end
    up:stop()
  end)

  for i, expression in ipairs(dashboard.expressions "plugins/prometheus/dashboard-kafka.json") do
    it(("the dashboard finds what it asks for %s (%d)"):format(expression.title, i), function()
      dashboard.check(scrape, expression.text)
    end)
  end

  it("status tells what all workers have done with each cluster and topic, and who is behind", function()
    local clusters
    process.wait_until(function() -- workers tell of themselves each second, and a record fails in its own time
      clusters = {}
      for _, cluster in ipairs(cjson.decode(command("status", "--json")).worker.kafka) do
        clusters[cluster.name] = cluster.all
      end
      local main, away = clusters.main, clusters.away
      return main.produced >= 20 and main.consumed >= 20 and main.up == 1 and away.failed + away.refused >= 8
    end, 20, function() return "all of it: " .. cjson.encode(clusters) end)
    local topics, lags = {}, {}
    for _, topic in ipairs(clusters.main.topics) do topics[topic.name] = topic end
    for _, lag in ipairs(clusters.main.lags) do lags[lag.group .. " " .. lag.topic] = lag.records end
    assert.is_true(topics.orders.produced >= 20 and topics.orders.produced_bytes >= 20 * #"order 1")
    assert.is_number(lags["works orders"])
    local screen = command("status")
    assert.matches("\nmain +embedded +up +%d+", screen)
    assert.matches("\naway +127.0.0.1:1 +%a+ +0", screen)
    assert.matches("\norders +main +%d+ +[%d.]+ K?B", screen)
    assert.matches("\nworks +orders +main +%d+\n", screen)
  end)

  it("top tells rates of clusters, and how long acknowledgements take", function()
    local child = process.start({ gateway.binary, "top", "--once", "--json", "--interval", "2.5" }, {
      cwd = gw.directory, env = { SLUICE_STATE_DIR = gw.directory .. "/state",
        SLUICE_HOME = assert(io.popen("pwd")):read("*l") } })
    while child:is_running() do gw:request { method = "POST", path = "/orders", body = "order" } end
    local seen, main = cjson.decode(child:stdout()), nil
    for _, cluster in ipairs(seen.kafka) do
      if cluster.name == "main" then main = cluster end
    end
    assert.is_true(main.produced_per_second > 0 and main.produced_bytes_per_second > 0)
    assert.is_true(main.latency_ms.p50 > 0 and main.latency_ms.p50 <= main.latency_ms.p99)
    assert.equal("up", main.state)
    assert.matches("\nmain +up +[%d.]+", command("top", "--once", "--interval", "0.2"))
  end)
end)
