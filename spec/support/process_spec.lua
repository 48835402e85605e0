-- SPDX-License-Identifier: Apache-2.0
local posix = require "spec.support.posix"
local process = require "spec.support.process"

describe("another program in a spec", function()
  it("gives its exit status and both outputs", function()
    local status, out, err = process.run({ "sh", "-c", "echo out; echo err >&2; exit 3" })
    assert.equal(3, status)
    assert.equal("out\n", out)
    assert.equal("err\n", err)
  end)

  it("gets the environment with changes", function()
    local _, out = process.run({ "sh", "-c", "echo $SPEC_A-$HOME" }, { env = { SPEC_A = "a", HOME = false } })
    assert.equal("a-\n", out)
  end)

  it("runs in the directory that was asked for", function()
    local _, out = process.run({ "pwd" }, { cwd = "/" })
    assert.equal("/\n", out)
  end)

  it("is waited for no longer than told, and stopped", function()
    local child = process.start({ "sleep", "60" })
    assert.is_nil(child:wait(0.02))
    assert.is_true(child:is_running())
    assert.equal(128 + posix.SIGTERM, child:stop())
    assert.is_false(child:is_running())
    child:forget()
  end)

  it("stands still from the moment on that it is held, and goes on", function()
    local child = process.start({ "sh", "-c", "while :; do echo; done" })
    process.wait_until(function() return child:stdout() ~= "" end, 5, "its first line")
    for _ = 1, 20 do
      child:hold()
      local said = #child:stdout()
      posix.pause(0.005)
      assert.equal(said, #child:stdout())
      child:go_on()
      process.wait_until(function() return #child:stdout() > said end, 5, "its next line")
    end
    child:stop()
    child:forget()
  end)

  it("raises with its name when it does not exist", function()
    local status, _, err = process.run({ "no-such-program" })
    assert.equal(127, status)
    assert.matches("no%-such%-program", err)
  end)

  it("leaves no directory behind, whatever it made", function()
    local status, out, err = process.run({ "luajit", "-e", [[
      local posix, process = require "spec.support.posix", require "spec.support.process"
      local kept, removed = posix.temporary_directory(), posix.temporary_directory()
      process.write_file(kept .. "/file", "x")
      process.remove(removed)
      package.loaded["spec.support.posix"] = nil
      print(kept .. " " .. removed .. " " .. require("spec.support.posix").temporary_directory())
      os.exit(0, true) ]] })
    assert.same({ 0, "" }, { status, err })
    local count = 0
    for directory in out:gmatch("%S+") do
      count = count + 1
      assert.equal(2, process.run({ "ls", directory }))
    end
    assert.equal(3, count)
  end)

  it("never gives the same port twice", function()
    local seen = {}
    for _ = 1, 50 do
      local port = process.free_port()
      assert.is_nil(seen[port])
      seen[port] = true
    end
  end)

  it("does not give a port that is taken", function()
    local port = process.free_port()
    local fd = assert(posix.listen("127.0.0.1", port + 1))
    assert.not_equal(port + 1, process.free_port())
    posix.C.sys_close_fd(fd)
  end)

  it("gives no port out of which another process takes its own", function()
    local function block_of(port) return math.floor(port / 500) end
    local ours = block_of(process.free_port())
    local _, out = process.run({ "luajit", "-e", [[
      local process = require "spec.support.process"
      for _ = 1, 600 do print(process.free_port()) end ]] })
    local count = 0
    for port in out:gmatch("%d+") do
      count = count + 1
      assert.not_equal(ours, block_of(tonumber(port)))
    end
    assert.equal(600, count)
  end)

  it("says what was waited for in vain", function()
    assert.has_error(function()
      process.wait_until(function() return false end, 0.01, "the moon")
    end, "not within 0.01 s: the moon")
  end)
end)
