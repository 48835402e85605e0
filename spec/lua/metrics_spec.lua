-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local fake = require "spec.lua.support.fake_core"

-- Named cells as the shared table keeps them, for as many "workers" as load the module.
local function shared_cells()
  local handles, names, values = {}, {}, {}
  return {
    room = 1000,
    name = function(key)
      if handles[key] then return handles[key] end
      if #names == 1000 then return nil end
      names[#names + 1], values[#values + 1] = key, 0
      handles[key] = #names
      return #names
    end,
    add_at = function(handle, delta)
      assert(delta % 1 == 0)
      values[handle] = values[handle] + delta
    end,
    at = function(handle) return values[handle] end,
    watch = function(prefix, found)
      local known = 0
      return function(pause)
        for handle = known + 1, #names do
          if names[handle]:sub(1, #prefix) == prefix then
            found(handle, ffi.cast("const char *", names[handle]), #names[handle])
          end
          known = handle
          if handle % 64 == 0 and pause then pause() end
        end
      end
    end,
    each = function(prefix)
      local at = 0
      return function()
        repeat at = at + 1 until not names[at] or names[at]:sub(1, #prefix) == prefix
        return names[at], values[at]
      end
    end,
  }
end

describe("metrics", function()
  local cells, metrics

  -- Another worker's view of the same cells.
  local function worker(id)
    package.loaded["sluice.metrics"], package.loaded["sluice.counters"] = nil, cells
    fake.worker_id = id
    return require "sluice.metrics"
  end

  before_each(function()
    fake.install()
    cells = shared_cells()
    metrics = worker(1)
  end)

  after_each(fake.remove)

  it("print counters with their labels, escaped", function()
    local requests = metrics.counter("requests_total", "Requests\nserved.", { "service", "code" })
    requests:increment("a", 200)
    requests:add(2, "a", 200)
    requests:increment('b"\\\n', 500)
    assert.equal('# HELP requests_total Requests\\nserved.\n# TYPE requests_total counter\n'
      .. 'requests_total{service="a",code="200"} 3\nrequests_total{service="b\\"\\\\\\n",code="500"} 1\n',
      metrics.text())
  end)

  it("count what all workers count, whichever is asked", function()
    metrics.counter("x_total"):add(2)
    local other = worker(2)
    other.counter("x_total"):add(3)
    assert.equal("# TYPE x_total counter\nx_total 5\n", other.text())
    assert.equal("# TYPE x_total counter\nx_total 5\n", metrics.text())
  end)

  it("add up the workers' gauges, or take the highest", function()
    metrics.gauge("open"):set(2.5)
    metrics.gauge("peak", nil, nil, { merge = "max" }):set(7)
    local other = worker(2)
    other.gauge("open"):set(4)
    other.gauge("open"):set(3)
    other.gauge("open"):add(-1)
    other.gauge("peak", nil, nil, { merge = "max" }):set(5)
    assert.equal("# TYPE open gauge\nopen 4.5\n# TYPE peak gauge\npeak 7\n", other.text())
  end)

  it("forget what a dead worker's gauges said when another takes its place", function()
    metrics.gauge("open"):set(5)
    metrics = worker(1)
    assert.equal("# TYPE open gauge\nopen 0\n", metrics.text())
  end)

  it("print histograms with cumulative buckets", function()
    local latency = metrics.histogram("latency", "Latency.", { "route" }, { buckets = { 1, 2.5, 10 } })
    for _, value in ipairs { 0.5, 1, 2, 20 } do latency:observe(value, "r") end
    assert.equal('# HELP latency Latency.\n# TYPE latency histogram\nlatency_bucket{route="r",le="1"} 2\n'
      .. 'latency_bucket{route="r",le="2.5"} 3\nlatency_bucket{route="r",le="10"} 3\n'
      .. 'latency_bucket{route="r",le="+Inf"} 4\nlatency_sum{route="r"} 23.5\nlatency_count{route="r"} 4\n',
      metrics.text())
  end)

  it("print series of one family together, whatever came between", function()
    metrics.counter("b_total", nil, { "x" }):increment("1")
    metrics.counter("a_total"):increment()
    metrics.counter("b_total", nil, { "x" }):increment("2")
    assert.equal('# TYPE a_total counter\na_total 1\n# TYPE b_total counter\nb_total{x="1"} 1\nb_total{x="2"} 1\n',
      metrics.text())
  end)

  it("refuse series past the limit, and count them", function()
    local many = metrics.counter("many_total", nil, { "x" }, { max_series = 2 })
    for i = 1, 5 do many:increment(i) end
    assert.matches("sluice_metrics_refused_total 3\n", metrics.text(), nil, true)
    assert.is_nil(metrics.text():find('x="3"', 1, true))
  end)

  it("go on when the shared table is full", function()
    local many = metrics.counter("many_total", nil, { "x" })
    for i = 1, 1200 do many:increment(i) end
    local _, lines = metrics.text():gsub("many_total{", "")
    assert.equal(1000, lines)
  end)

  it("give the same family for the same definition, and a new one for another", function()
    local first = metrics.counter("x_total", nil, { "a" })
    assert.equal(first, metrics.counter("x_total", "other help", { "a" }))
    assert.are_not.equal(first, metrics.counter("x_total", nil, { "a", "b" }))
  end)

  it("refuse names that Prometheus would not take, at the caller's line", function()
    for _, name in ipairs { "a b", "", "1a", "a-b" } do
      local _, err = pcall(function() metrics.counter(name) end)
      assert.matches("metrics_spec.lua:%d+: sluice.metrics.counter: ", err)
    end
    assert.has_error(function() metrics.counter("a", nil, { "le" }) end)
    assert.error_matches(function() metrics.counter("a", nil, { "x", "y" }):add(1, "v") end,
      "a: no value for label y")
  end)

  it("refuse labels that are too long, and count them", function()
    local long = metrics.counter("long_total", nil, { "x" })
    long:increment(("x"):rep(5000))
    long:increment(("x"):rep(4000))
    assert.matches("sluice_metrics_refused_total 1\n", metrics.text(), nil, true)
    assert.is_nil(metrics.text():find(("x"):rep(5000), 1, true))
    assert.is_truthy(metrics.text():find('long_total{x="' .. ("x"):rep(4000) .. '"} 1\n', 1, true))
  end)

  it("say once in the log that series are refused, and why", function()
    local lines = {}
    require("sluice.log").tap(function(_, _, message, facts) lines[#lines + 1] = message .. ": " .. facts.why end)
    local many = metrics.counter("many_total", nil, { "x" }, { max_series = 2 })
    for i = 1, 5 do many:increment(i) end
    require("sluice.log").tap(nil)
    assert.same({ "a series of a metric is refused, and those that follow: the limit of series is reached" }, lines)
  end)

  it("pause while there is much to print, and let what is there be taken", function()
    local many = metrics.counter("many_total", nil, { "x" })
    for i = 1, 600 do many:increment(i) end
    local out, pieces = require("string.buffer").new(), {}
    metrics.put(out, function()
      if #out > 1000 then pieces[#pieces + 1] = out:get() end
    end)
    assert.is_true(#pieces >= 4)
    assert.equal(metrics.text(), table.concat(pieces) .. out:get())
  end)

  it("tell of series and cells that came since they were asked", function()
    local requests = metrics.counter("x_total", nil, { "a" })
    requests:increment("1")
    metrics.gauge("open"):set(1)
    metrics.text()
    requests:increment("1")
    requests:increment("2")
    metrics.counter("a_total"):increment()
    worker(2).gauge("open"):set(2)
    assert.equal('# TYPE a_total counter\na_total 1\n# TYPE open gauge\nopen 3\n# TYPE x_total counter\n'
      .. 'x_total{a="1"} 2\nx_total{a="2"} 1\n', metrics.text())
  end)

  it("tell the same in tables", function()
    metrics.histogram("latency", "Latency.", { "route" }, { buckets = { 1, 2 } }):observe(1.5, "r")
    metrics.counter("x_total", nil, { "a" }):add(3, "1")
    assert.same({
      { name = "latency", help = "Latency.", kind = "histogram", series = { { labels = { route = "r" }, value = 1.5,
        buckets = { { bound = 1, count = 0 }, { bound = 2, count = 1 }, { bound = math.huge, count = 0 } } } } },
      { name = "x_total", help = "", kind = "counter", series = { { labels = { a = "1" }, value = 3 } } },
    }, metrics.families())
  end)
end)
