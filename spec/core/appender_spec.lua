-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local lfs = require "lfs"
local bare_loop = require "spec.support.loop"
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("appender.h", "errands.h")

local DELAY_US = 100 * 1000

-- Frees what calls back into the loop's log.
local function free(appender)
  C.appender_free(appender)
end
jit.off(free)

describe("an appender", function()
  local loop, appender, directory, path, log, sink

  before_each(function()
    loop = bare_loop.new("appender.h")
    C.timers_init(loop.raw.timers)
    log = {}
    sink = ffi.cast("void (*)(void *, const char *, uint32_t)", function(_, line, len)
      log[#log + 1] = ffi.string(line, len)
    end)
    loop.log.sink = sink
    appender = C.appender_new(loop.raw)
    directory = posix.temporary_directory()
    path = directory .. "/lines"
  end)

  after_each(function()
    if appender then free(appender) end
    C.timers_close(loop.raw.timers)
    loop:close()
    sink:free()
    os.execute(("chmod -R u+w '%s'; rm -rf '%s'"):format(directory, directory))
  end)

  local function put(line, options)
    options = options or {}
    return C.appender_put(appender, ffi.new("struct appended",
      { options.path or path, line, #line, options.reopen or false }))
  end
  jit.off(put) -- it may log

  local function text(of)
    local file = io.open(of or path, "rb")
    if not file then return nil end
    local all = file:read("*a")
    file:close()
    return all
  end

  -- Lets the moment pass that lines wait for company.
  local function pass()
    loop.raw.clock.mono_us = loop.raw.clock.mono_us + DELAY_US
    local function fire() C.timers_run(loop.raw.timers, loop.raw.clock.mono_us) end
    jit.off(fire)
    fire()
  end

  local function pass_until(condition)
    loop:turn_until(function()
      pass()
      return condition()
    end)
  end

  local function close()
    free(appender)
    appender = nil
  end

  it("makes a file of the lines, each with a line feed", function()
    put("one")
    put("two\n")
    assert.is_nil(text())
    pass_until(function() return text() == "one\ntwo\n" end)
  end)

  it("adds to what is there", function()
    process.write_file(path, "before\n")
    put("after")
    pass_until(function() return text() == "before\nafter\n" end)
  end)

  it("writes what waits when it is freed, in order", function()
    local expected = {}
    for i = 1, 5000 do
      expected[i] = "line " .. i
      put(expected[i])
    end
    close()
    assert.equal(table.concat(expected, "\n") .. "\n", text())
  end)

  it("does not wait when a batch is full", function()
    put(("x"):rep(270000))
    loop:turn_until(function() return text() and #text() == 270001 end)
  end)

  it("keeps files apart", function()
    put("one")
    put("two", { path = directory .. "/other" })
    close()
    assert.equal("one\n", text())
    assert.equal("two\n", text(directory .. "/other"))
  end)

  it("makes a file anew that was moved away", function()
    put("one")
    pass_until(function() return text() == "one\n" end)
    os.rename(path, path .. ".1")
    put("two")
    pass_until(function() return text() == "two\n" end)
    assert.equal("one\n", text(path .. ".1"))
  end)

  it("goes on at the start of a file that was cut", function()
    put("one")
    pass_until(function() return text() == "one\n" end)
    process.write_file(path, "")
    put("two")
    pass_until(function() return text() == "two\n" end)
  end)

  local function open_files()
    local count = 0
    for fd in lfs.dir("/proc/self/fd") do
      if lfs.symlinkattributes("/proc/self/fd/" .. fd, "target") == path then count = count + 1 end
    end
    return count
  end

  it("holds a file open, unless it is told to reopen it", function()
    put("one")
    pass_until(function() return text() == "one\n" end)
    assert.equal(1, open_files())
    put("two", { reopen = true })
    pass_until(function() return text() == "one\ntwo\n" end)
    loop:turn_until(function() return open_files() == 0 end)
  end)

  it("says what was lost, and not for every line", function()
    local missing = directory .. "/none/lines"
    put("one", { path = missing })
    put("two", { path = missing })
    pass_until(function() return #log == 1 end)
    assert.matches("lines for a file were lost path=" .. missing .. ' error="No such file or directory" lines=2',
      log[1], 1, true)
    put("three", { path = missing })
    close()
    assert.equal(1, #log)
  end)

  it("goes on once the file can be written", function()
    local missing = directory .. "/later/lines"
    put("one", { path = missing })
    pass_until(function() return #log == 1 end)
    os.execute(("mkdir '%s/later'"):format(directory))
    put("two", { path = missing })
    pass_until(function() return text(missing) == "two\n" end)
  end)

  it("is not held up by a pipe that nobody reads", function()
    os.execute(("mkfifo '%s'"):format(path))
    put("one")
    pass_until(function() return #log == 1 end)
    assert.matches("No such device or address", log[1])
  end)

  it("loses lines rather than take memory without end", function()
    local line = ("x"):rep(1024 * 1024)
    os.execute(("mkfifo '%s'"):format(path))
    local lost = 0
    for _ = 1, 20 do
      if put(line) == C.APPENDER_FULL then lost = lost + 1 end
    end
    assert.is_true(lost >= 4)
    assert.matches("too much waits", log[1])
  end)

  it("has a bounded number of files, and gives up the one idle for longest", function()
    for i = 1, 70 do
      loop.raw.clock.mono_us = loop.raw.clock.mono_us + 1
      put("line", { path = path .. i })
      pass_until(function() return text(path .. i) == "line\n" end)
    end
    close()
    assert.equal("line\n", text(path .. 70))
  end)

  it("refuses one more file when all are busy", function()
    for i = 1, 64 do assert.equal(C.APPENDER_OK, put("line", { path = path .. i })) end
    assert.equal(C.APPENDER_FULL, put("line"))
  end)
end)
