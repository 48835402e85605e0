-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local core = require "spec.support.core"
local ffi = require "ffi"

describe("history", function()
  local C = core.load("history.h", "text.h", "clock.h")
  local history, clock

  before_each(function()
    history, clock = ffi.new("struct history"), ffi.new("struct clock")
    C.clock_init(clock)
    clock.manual = true
  end)

  after_each(function() C.history_close(history) end)

  local function described(outcome)
    local text = ffi.new("struct text")
    C.outcome_describe(outcome, text)
    local result = cjson.decode("[" .. ffi.string(text.data, text.len) .. "]")[1]
    C.text_free(text)
    return result
  end

  local function sentence(json)
    local text = ffi.new("struct text")
    C.error_sentence(json, text)
    local result = ffi.string(text.data, text.len)
    C.text_free(text)
    return result
  end

  it("has nothing to tell before the first reload", function()
    assert.equal(cjson.null, described(history.last))
  end)

  it("keeps the last reload with how long it took and what it was for", function()
    C.history_begin(history, clock, 'changed "x"')
    C.clock_advance(clock, 1500)
    C.history_ok(history, clock, 7, true)
    local last = described(history.last)
    assert.same({ ok = true, changed = true, revision = 7, took_ms = 1.5, reason = 'changed "x"' },
      { ok = last.ok, changed = last.changed, revision = last.revision, took_ms = last.took_ms, reason = last.reason })
    assert.equal(cjson.null, described(history.failure))
  end)

  it("remembers the last failure after it has been mended", function()
    C.history_begin(history, clock, "signal")
    C.history_fail(history, clock, '[{"message":"no"}]')
    C.history_begin(history, clock, "signal")
    C.history_ok(history, clock, 8, true)
    assert.is_true(described(history.last).ok)
    local failure = described(history.failure)
    assert.is_false(failure.ok)
    assert.equal("no", failure.errors[1].message)
  end)

  it("says an error as a person reads it", function()
    assert.equal('a.yml:7: service "x": port: expected a number, found a string', sentence(cjson.encode {
      file = "a.yml", line = 7, entity = 'service "x"', field = "port", expected = "a number", found = "a string",
    }))
    assert.equal("a.yml: it is not there", sentence(cjson.encode { file = "a.yml", message = "it is not there" }))
    assert.equal("just so", sentence(cjson.encode { message = "just so" }))
  end)
end)
