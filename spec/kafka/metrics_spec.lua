-- SPDX-License-Identifier: Apache-2.0
-- What /metrics and `sluice status` tell of clusters: records, bytes, failures, queues, brokers, lag, latency.
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"

-- Runs the Lua code that a request brings, and answers with what it returned.
local RUNS = [[
return { version = "1", priority = 1, access = function(_, exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  exchange.response:exit(200, { said = { chunk(require("sluice").kafka, require("sluice")) } })
end }
]]

describe("metrics of Kafka", function()
  local shared, gw

  setup(function()
    shared = broker.shared()
    gw = gateway.start({ _format_version = "3.0", gateway = { kafka = {
      main = { ["bootstrap.servers"] = shared.servers },
      timed = { ["bootstrap.servers"] = shared.servers },
      away = { ["bootstrap.servers"] = "127.0.0.1:1", ["queue.buffering.max.messages"] = 2,
        ["message.timeout.ms"] = 3000 },
    } }, plugins = { { name = "runs" }, { name = "prometheus" } }, routes = { { name = "all", paths = { "/" } } } },
      { plugins = { runs = RUNS }, workers = 2 })
  end)

  teardown(function() if gw then gw:stop() end end)

  -- At the worker of a connection.
  local function run_at(connection, code, ...)
    local response = assert(connection:request { path = "/", body = code:format(...) })
    assert.equal(200, response.status, gw:log())
    return unpack(cjson.decode(response.body).said)
  end

  -- At any worker.
  local function run(code, ...)
    local connection = gw:connect { timeout = 20 }
    local said = { run_at(connection, code, ...) }
    connection:close()
    return unpack(said)
  end

  local function value(line)
    local text = assert(http.get(gw.status_port, "/metrics")).body
    for name, number in text:gmatch("([^\n]-) ([%d.e+-]+)\n") do
      if name == line then return tonumber(number) end
    end
  end

  local function becomes(wanted, line)
    local found
    process.wait_until(function()
      found = value(line)
      return found == wanted
    end, 20, function() return line .. " " .. wanted .. ", found " .. tostring(found) end)
  end

  it("count what was produced, by topic, of all workers", function()
    local topic = shared:topic(2, { ["max.message.bytes"] = 1000 })
    local label = ('{cluster="main",topic="%s"}'):format(topic)
    for _ = 1, 10 do -- each on a connection of its own, so that both workers have some
      run([[
        local kafka = ...
        for _ = 1, 5 do assert(kafka.produce { topic = %q, key = "ab", value = "12345678" }) end
        assert(not kafka.produce { topic = %q, value = ("x"):rep(2000) })
      ]], topic, topic)
    end
    becomes(50, "sluice_kafka_produced_records_total" .. label)
    becomes(500, "sluice_kafka_produced_bytes_total" .. label)
    becomes(10, "sluice_kafka_failed_records_total" .. label)
    becomes(0, 'sluice_kafka_queued_records{cluster="main"}')
    becomes(1, 'sluice_kafka_cluster_up{cluster="main"}')
  end)

  it("tell how long acknowledgements took", function()
    local topic = shared:topic()
    run([[ for _ = 1, 7 do assert((...).produce { cluster = "timed", topic = %q, value = "x" }) end ]], topic)
    becomes(7, 'sluice_kafka_delivery_seconds_count{cluster="timed"}')
    becomes(7, 'sluice_kafka_delivery_seconds_bucket{cluster="timed",le="+Inf"}')
    assert.is_true(value 'sluice_kafka_delivery_seconds_sum{cluster="timed"}' > 0)
    assert.is_truthy(value 'sluice_kafka_delivery_seconds_bucket{cluster="timed",le="0.5"}')
  end)

  it("tell what a cluster that is away did not take", function()
    assert.equal("full", (run [[
      local kafka, code = ...
      for _ = 1, 5 do code = select(3, kafka.send { cluster = "away", topic = "t", value = "x" }) or code end
      return code
    ]]))
    becomes(3, 'sluice_kafka_refused_records_total{cluster="away"}')
    becomes(0, 'sluice_kafka_cluster_up{cluster="away"}')
    becomes(2, 'sluice_kafka_failed_records_total{cluster="away",topic="t"}')
    becomes(0, 'sluice_kafka_queued_records{cluster="away"}')
  end)

  it("tell how far readers and groups are behind", function()
    local topic = shared:topic()
    local function lag(group)
      return ('sluice_kafka_lag_records{cluster="main",group="%s",topic="%s",partition="0"}'):format(group, topic)
    end
    local one = gw:connect { timeout = 20 }
    run_at(one, [[
      local kafka = ...
      for i = 1, 10 do assert(kafka.produce { topic = %q, value = "v" .. i }) end
      MEMBER = assert(kafka.group { group = "behind", topics = { %q }, from = "earliest" })
      for _ = 1, 4 do assert(MEMBER:next(10)) end
    ]], topic, topic)
    becomes(6, lag "behind")
    run_at(one, "MEMBER:close()")
    becomes(0, lag "behind") -- once it has left
    run_at(one, [[
      READER = assert((...).reader { topic = %q, from = "earliest" })
      for _ = 1, 10 do assert(READER:next(10)) end
    ]], topic)
    becomes(1, 'sluice_kafka_readers{cluster="main"}')
    run_at(one, "READER:close()")
    becomes(0, 'sluice_kafka_readers{cluster="main"}')
    one:close()
    assert.is_true(value(('sluice_kafka_consumed_records_total{cluster="main",topic="%s"}'):format(topic)) >= 20)
  end)

  it("name the brokers in status", function()
    local seen
    process.wait_until(function()
      run [[ (...).produce { topic = "brokers", value = "x", timeout = 5 } ]]
      local _, out = gw:command("status", "--json")
      for _, cluster in ipairs(cjson.decode(out).worker.kafka) do
        if cluster.name == "main" then seen = cluster.seen end
      end
      return type(seen) == "table" and seen[1].state == "up"
    end, 30, "brokers in status")
    assert.same({ { id = 1, address = shared.servers, state = "up" } }, seen)
  end)
end)
