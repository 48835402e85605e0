-- SPDX-License-Identifier: Apache-2.0
-- What named counters say as metrics, whatever stands in the table.
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("counters.h", "exposition.h")

local OK, MORE = 0, 1

describe("an exposition", function()
  local counters, view

  before_each(function()
    local failure = ffi.new("struct error")
    counters = C.counters_new(65536, 4 * 1024 * 1024, failure)
    assert(counters ~= nil, ffi.string(failure.text))
    view = C.exposition_new(counters)
  end)

  after_each(function()
    C.exposition_free(view)
    C.counters_free(counters)
  end)

  local function cell(kind, scale, family, labels, extra, value)
    local name = table.concat({ "m", kind, scale, family, labels, extra }, "\1")
    local handle = C.counters_name(counters, name, #name)
    assert(handle > 0)
    C.counters_add_at(counters, handle, value)
  end

  local function look()
    for _ = 1, 10000 do
      local status = C.exposition_look(view, 100)
      if status ~= MORE then return status end
    end
    error("no end")
  end

  local function families()
    local list, it = {}, ffi.new("struct exposition_family[1]")
    while C.exposition_family(view, #list, it) do
      list[#list + 1] = { name = ffi.string(it[0].name.data, it[0].name.len), kind = string.char(it[0].kind),
        series = it[0].series, row = it[0].first_row }
    end
    table.sort(list, function(a, b) return a.name .. a.kind < b.name .. b.kind end)
    return list
  end

  local function lines(family)
    local row, all = ffi.new("uint32_t[1]", family.row), {}
    while row[0] ~= 0 do
      local text = C.exposition_text(view, row, 7)
      all[#all + 1] = ffi.string(text.data, text.len)
    end
    return table.concat(all)
  end

  local function text() -- of all families
    assert.equal(OK, look())
    local all = {}
    for _, family in ipairs(families()) do all[#all + 1] = lines(family) end
    return table.concat(all)
  end

  it("adds the cells of a series up, each by its scale", function()
    cell("c", 1, "a_total", "", "", 3)
    cell("c", 1000, "a_total", "", "", 250)
    cell("c", 8, "b_total", 'x="y"', "", 1)
    assert.equal('a_total 3.25\nb_total{x="y"} 0.125\n', text())
  end)

  it("takes the highest of a gauge that is one, below zero too", function()
    for i, value in ipairs { -7000, -2500, -9000 } do cell("x", 1000, "peak", "", tostring(i), value) end
    for i, value in ipairs { -7000, 2500, -9000 } do cell("g", 1000, "sum", "", tostring(i), value) end
    assert.equal("peak -2.5\nsum -13.5\n", text())
  end)

  it("writes numbers so that they are read as the same", function()
    cell("c", 3, "third", "", "", 1)
    cell("c", 10, "tenth", "", "", 1)
    cell("c", 1, "large", "", "", 999999999999999)
    cell("c", 1, "larger", "", "", 9007199254740991LL)
    cell("g", 1, "less", "", "1", -5)
    assert.equal("large 999999999999999\nlarger 9007199254740991\nless -5\ntenth 0.1\n"
      .. "third " .. ("%.17g"):format(1 / 3) .. "\n", text())
    assert.equal(1 / 3, tonumber(text():match("third (%S+)")))
  end)

  it("puts buckets in order, whatever came first", function()
    for _, bound in ipairs { "10", "+Inf", "0.5", "2.5", "1" } do cell("h", 1000, "h", 'a="b"', bound, 1) end
    cell("h", 1000, "h", 'a="b"', "sum", 14500)
    assert.equal('h_bucket{a="b",le="0.5"} 1\nh_bucket{a="b",le="1"} 2\nh_bucket{a="b",le="2.5"} 3\n'
      .. 'h_bucket{a="b",le="10"} 4\nh_bucket{a="b",le="+Inf"} 5\nh_sum{a="b"} 14.5\nh_count{a="b"} 5\n', text())
    local bound, count = ffi.new("double[1]"), ffi.new("uint64_t[1]")
    local row = families()[1].row
    assert.is_true(C.exposition_bucket(view, row, 4, bound, count))
    assert.same({ math.huge, 1 }, { bound[0], tonumber(count[0]) })
    assert.is_false(C.exposition_bucket(view, row, 5, bound, count))
  end)

  it("says what there is of a histogram that has lost some", function()
    cell("h", 1, "h", "", "sum", 4)
    assert.equal("h_sum 4\nh_count 0\n", text())
  end)

  it("leaves out what no metric is named like", function()
    for _, name in ipairs { "m", "m\1", "m\1c", "m\1c\1001\1", "m\1q\0011\1a\1\1", "m\1c\1zero\1a\1\1",
      "m\1c\0010\1a\1\1", "m\1cc\0011\1a\1\1", "m\1h\0011\1a\1\1wide", "v\1requests",
      "m\1c\1" .. ("1"):rep(100) .. "\1a\1\1" } do
      assert(C.counters_name(counters, name, #name) > 0)
    end
    local out = text()
    assert.equal("a_sum 0\na_count 0\n", out) -- of the bucket without a bound
  end)

  it("keeps kinds of one name apart", function()
    cell("c", 1, "x", "", "", 1)
    cell("g", 1, "x", "", "1", 2)
    look()
    local list = families()
    assert.same({ "c", "g" }, { list[1].kind, list[2].kind })
    assert.same({ "x 1\n", "x 2\n" }, { lines(list[1]), lines(list[2]) })
  end)

  it("has each of many series once, those that came later too", function()
    local function add(first, last)
      for i = first, last do cell("c", 1, "many_total", ('n="%d"'):format(i), "", i) end
    end
    local function check(count)
      local seen = 0
      for n, value in text():gmatch('many_total{n="(%d+)"} (%d+)\n') do
        assert.equal(n, value)
        seen = seen + 1
      end
      assert.equal(count, seen)
      assert.equal(count, families()[1].series)
    end
    add(1, 5000)
    check(5000)
    add(5001, 9000)
    check(9000)
  end)

  it("goes through the table a piece at a time, and not at all while nothing is new", function()
    cell("c", 1, "a_total", "", "", 1)
    assert.equal(MORE, C.exposition_look(view, 100))
    assert.equal(OK, look())
    assert.equal(OK, C.exposition_look(view, 100))
    cell("c", 1, "b_total", "", "", 1)
    assert.equal(MORE, C.exposition_look(view, 100))
    assert.equal(OK, look())
    assert.equal("a_total 1\nb_total 1\n", text())
  end)

  it("knows no rows that are none", function()
    local out = ffi.new("struct exposition_series[1]")
    assert.is_false(C.exposition_series(view, 0, out))
    assert.is_false(C.exposition_series(view, 1, out))
    local row = ffi.new("uint32_t[1]", 77)
    assert.equal(0, C.exposition_text(view, row, 5).len)
  end)
end)
