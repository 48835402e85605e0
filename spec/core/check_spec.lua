-- SPDX-License-Identifier: Apache-2.0
-- The checker's process, as the master runs it: what it prints, and what becomes of one that dies.
local core = require "spec.support.core"
local ffi = require "ffi"
local loops = require "spec.support.loop"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

pcall(ffi.cdef, "typedef int32_t pid_t;") -- of sys/types.h; another spec may have declared it
local C = core.load("check.h", "settings.h", "title.h")

ffi.cdef [[
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
int getpid(void);
long write(int fd, const void *data, size_t size);
]]

local WNOHANG, SIGKILL, STDOUT = 1, 9, 1

describe("a check", function()
  local loop, directory, held

  setup(function() jit.off() end) -- callbacks from C come back into Lua
  teardown(function() jit.on() end)

  -- Runs `child(attempt)` as the checker, and gives its settings and how many attempts there were. The attempts are
  -- counted by a file, since each is a process of its own.
  local function run(child)
    local settings
    local counter = directory .. "/attempts"
    local body = ffi.cast("int (*)(void *)", function()
      local file = assert(io.open(counter, "ab"))
      file:write("x")
      file:close()
      return child(#process.read_file(counter)) or 0
    end)
    local done = ffi.cast("void (*)(void *, struct settings *)", function(_, found) settings = found end)
    held = { body, done }
    local options = ffi.new("struct check_options",
      { run = body, timeout_ms = 5000, title = ffi.new("struct title"), on_done = done })
    local check = C.check_start(loop.raw, options)
    assert(check ~= nil)
    local status = ffi.new("int[1]")
    loop:turn_until(function()
      if settings then return true end
      local pid = C.check_pid(check)
      if C.waitpid(pid, status, WNOHANG) == pid then C.check_exited(check, status[0]) end
      return settings ~= nil
    end)
    return settings, #process.read_file(counter)
  end

  local function say(text)
    C.write(STDOUT, text, #text)
  end

  before_each(function()
    loop = loops.new("check.h", "settings.h", "title.h")
    directory = posix.temporary_directory()
  end)

  after_each(function()
    loop:close()
    process.remove(directory)
    for _, callback in ipairs(held) do callback:free() end
  end)

  it("gives the settings that the child printed", function()
    local settings, attempts = run(function() say("revision=7\nsnapshot=/s/7\nstate_dir=/s\nworkers=2\n") end)
    assert.equal(7, tonumber(settings.revision))
    assert.equal(2, settings.workers)
    assert.equal(0, settings.error_count)
    assert.equal(1, attempts)
    C.settings_free(settings)
  end)

  it("starts a checker once more that a signal killed", function()
    local settings, attempts = run(function(attempt)
      if attempt == 1 then
        say("revision=6\n")
        C.kill(C.getpid(), SIGKILL)
      end
      say("revision=7\nsnapshot=/s/7\nstate_dir=/s\n")
    end)
    assert.equal(2, attempts)
    assert.equal(7, tonumber(settings.revision))
    assert.equal(0, settings.error_count)
    C.settings_free(settings)
  end)

  it("fails when the second one dies too", function()
    local settings, attempts = run(function() C.kill(C.getpid(), SIGKILL) end)
    assert.equal(2, attempts)
    assert.equal(1, settings.error_count)
    assert.matches("killed by signal 9", ffi.string(settings.errors[0]))
    C.settings_free(settings)
  end)

  it("does not start a checker again that found errors", function()
    local settings, attempts = run(function()
      say('error={"message":"no"}\n')
      return 1
    end)
    assert.equal(1, attempts)
    assert.equal(1, settings.error_count)
    C.settings_free(settings)
  end)
end)
