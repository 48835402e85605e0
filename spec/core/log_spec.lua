-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("log.h")

describe("the log", function()
  local log, lines, sink

  before_each(function()
    lines = {}
    sink = ffi.cast("void (*)(void *, const char *, uint32_t)", function(_, line, len)
      lines[#lines + 1] = ffi.string(line, len)
    end)
    log = ffi.new("struct log", { level = C.LOG_INFO, fd = -1, source = "worker 1", sink = sink })
  end)

  after_each(function() sink:free() end)

  local function write(level, message, ...)
    local texts = { ... }
    C.log_pairs(log, level, message, ffi.new("const char *[?]", #texts + 1, texts), #texts / 2)
  end
  jit.off(write)

  -- What stands behind the time.
  local function last()
    return lines[#lines]:match("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ (.*)$")
  end

  it("writes a line of time, level, source, message and pairs", function()
    write(C.LOG_WARN, "upstream refused", "peer", "10.0.0.1", "tries", "3")
    assert.equal("warn worker 1: upstream refused peer=10.0.0.1 tries=3", last())
  end)

  it("drops what is below its level", function()
    write(C.LOG_DEBUG, "detail")
    assert.equal(0, #lines)
    write(C.LOG_INFO, "fact")
    assert.equal(1, #lines)
  end)

  it("quotes values that would not read as one word", function()
    write(C.LOG_INFO, "m", "a", "two words", "b", 'say "x"', "c", "", "d", "k=v", "e", "back\\slash")
    assert.equal([[info worker 1: m a="two words" b="say \"x\"" c="" d="k=v" e="back\\slash"]], last())
  end)

  it("lets no value, key or message begin a line of its own, nor move the terminal", function()
    write(C.LOG_INFO, "m\n", "a", "x\n2026-01-01 crit forged", "b\n", "\27[31m\r\127")
    assert.is_nil(lines[1]:find("[%c\127]"))
    assert.matches([[: m\n a="x\n2026%-01%-01 crit forged" b\n="\u001b%[31m\u000d\u007f"$]], last())
  end)

  it("writes JSON that says the same", function()
    log.json = true
    write(C.LOG_ERROR, 'a "message"', "key", "va\n\0lue", "none", nil)
    local fact = cjson.decode(lines[1])
    assert.matches("^%d+%-%d+%-%d+T", fact.time)
    fact.time = nil
    assert.same({ level = "error", source = "worker 1", message = 'a "message"', key = "va\n" }, fact)
  end)

  it("cuts off a line that is too long, and it is JSON all the same", function()
    local long = ("x"):rep(20000)
    write(C.LOG_INFO, long, "k", long)
    assert.is_true(#lines[1] <= 8192)
    log.json = true
    for shift = 0, 7 do -- wherever the cut falls
      write(C.LOG_INFO, ("m"):rep(shift), "k", ("\1"):rep(5000), "more", "v")
      local line = lines[#lines]
      assert.is_true(#line <= 8192)
      assert.matches("^\1+$", cjson.decode(line).k)
    end
    for size = 8050, 8100 do
      write(C.LOG_INFO, "m", "k", ("x"):rep(size), "more", "v")
      assert.matches("^x+$", cjson.decode(lines[#lines]).k)
    end
  end)

  it("knows its levels by name", function()
    for number, name in ipairs { "debug", "info", "notice", "warn", "error", "crit" } do
      assert.equal(number - 1, C.log_level_parse(name))
    end
    assert.equal(-1, C.log_level_parse("loud"))
  end)

  it("shows numbers as text", function()
    local buffer = ffi.new("char[32]")
    assert.equal("-9223372036854775807", ffi.string(C.log_number(buffer, -9223372036854775807LL)))
  end)
end)
