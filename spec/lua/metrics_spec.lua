-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"
local fake = require "spec.lua.support.fake_core"

local lib = core.load("counters.h", "exposition.h")

-- The table that workers share, of the core itself, behind what a worker calls. All workers of a spec have one view.
local function share(C, slots)
  local failure = ffi.new("struct error")
  local counters = ffi.gc(lib.counters_new(slots, 1024 * 1024, failure), lib.counters_free)
  local view = ffi.gc(lib.exposition_new(counters), lib.exposition_free)
  local at, value, count = ffi.new("uint64_t[1]"), ffi.new("int64_t[1]"), ffi.new("uint64_t[1]")
  local family, series = ffi.new("struct exposition_family[1]"), ffi.new("struct exposition_series[1]")
  local key, key_len = ffi.new("const char *[1]"), ffi.new("uint32_t[1]")

  function C.bridge_counter_name(_, name, len)
    local handle = tonumber(lib.counters_name(counters, name, len))
    return handle > 0 and handle or 0
  end
  function C.bridge_counter_add_at(_, handle, delta)
    assert(delta % 1 == 0)
    return tonumber(lib.counters_add_at(counters, handle, delta))
  end
  function C.bridge_counter_at(_, handle) return tonumber(lib.counters_at(counters, handle)) end
  function C.bridge_counter_next(_, prefix, len, cursor, out, number)
    at[0] = cursor[0]
    local status = lib.counters_next(counters, prefix, len, 1024, at, key, key_len, value)
    cursor[0], out[0].data, out[0].len = tonumber(at[0]), key[0], key_len[0]
    number[0] = tonumber(value[0])
    return status == 0 and 0 or status == 5 and 1 or 2
  end
  function C.bridge_metrics_look() return lib.exposition_look(view, 256) end
  function C.bridge_metrics_family(_, i, out)
    if not lib.exposition_family(view, i, family) then return 2 end
    local it = family[0]
    out[0].name.data, out[0].name.len, out[0].kind = it.name.data, it.name.len, it.kind
    out[0].series, out[0].first_row = it.series, it.first_row
    return 0
  end
  function C.bridge_metrics_series(_, row, out)
    if not lib.exposition_series(view, row, series) then return 2 end
    out[0].labels.data, out[0].labels.len = series[0].labels.data, series[0].labels.len
    out[0].value, out[0].next_row = series[0].value, series[0].next_row
    return 0
  end
  function C.bridge_metrics_bucket(_, row, i, bound, out)
    if not lib.exposition_bucket(view, row, i, bound, count) then return 2 end
    out[0] = tonumber(count[0])
    return 0
  end
  function C.bridge_metrics_text(_, row, most, out)
    local text = lib.exposition_text(view, row, most)
    out[0].data, out[0].len = text.data, text.len
    return 0
  end
end

-- With the series of each family in order: a table of hashes has none.
local function in_order(text)
  local out, run = {}, {}
  local function flush()
    table.sort(run)
    for _, line in ipairs(run) do out[#out + 1] = line end
    run = {}
  end
  for line in text:gmatch("[^\n]+\n") do
    if line:sub(1, 1) == "#" then flush() end
    table.insert(line:sub(1, 1) == "#" and out or run, line)
  end
  flush()
  return table.concat(out)
end

describe("metrics", function()
  local metrics

  -- Another worker's view of the same cells.
  local function worker(id)
    package.loaded["sluice.metrics"] = nil
    fake.worker_id = id
    return require "sluice.metrics"
  end

  before_each(function()
    fake.install()
    share(fake.C, 16384)
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
      in_order(metrics.text()))
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
      in_order(metrics.text()))
  end)

  it("refuse series past the limit, and count them", function()
    local many = metrics.counter("many_total", nil, { "x" }, { max_series = 2 })
    for i = 1, 5 do many:increment(i) end
    assert.matches("sluice_metrics_refused_total 3\n", metrics.text(), nil, true)
    assert.is_nil(metrics.text():find('x="3"', 1, true))
  end)

  it("go on when the shared table is full", function()
    share(fake.C, 1024) -- 256 of them named
    metrics = worker(1)
    local many = metrics.counter("many_total", nil, { "x" })
    metrics.counter("sluice_metrics_refused_total"):add(0) -- has its cell
    for i = 1, 300 do many:increment(i) end
    local text = metrics.text()
    local _, lines = text:gsub("many_total{", "")
    assert.is_true(lines > 100 and lines < 256)
    assert.matches("sluice_metrics_refused_total " .. 300 - lines .. "\n", text, nil, true)
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
      .. 'x_total{a="1"} 2\nx_total{a="2"} 1\n', in_order(metrics.text()))
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
