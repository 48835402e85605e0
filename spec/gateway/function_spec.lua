-- SPDX-License-Identifier: Apache-2.0
-- Functions in a whole gateway: files that come and change while it runs, and what `sluice status` says of them.
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"

local CONFIG = [[
_format_version: "3.0"
routes:
- { name: fn, paths: [/fn], plugins: [{ name: function, config: { directory: ./functions } }] }
]]

describe("a folder of functions", function()
  local gw

  setup(function()
    gw = gateway.start(CONFIG, { files = { ["functions/a.lua"] = "return function() return 'a1' end" } })
  end)
  teardown(function()
    if gw then gw:stop() end
  end)

  local function comes(path, body)
    return process.wait_until(function()
      local _, out = process.run { "curl", "-s", ("http://127.0.0.1:%d%s"):format(gw.port, path) }
      return out == body
    end, 10)
  end

  it("is served as its files are at the moment", function()
    assert.is_truthy(comes("/fn/a", "a1"))
    process.write_file(gw.directory .. "/functions/a.lua", "return function() return 'a2' end")
    assert.is_truthy(comes("/fn/a", "a2"))
    process.write_file(gw.directory .. "/functions/b.lua", "return function() return 'b' end")
    assert.is_truthy(comes("/fn/b", "b"))
    os.remove(gw.directory .. "/functions/b.lua")
    assert.is_truthy(comes("/fn/b", '{"message":"no such function"}'))
  end)

  it("stays as it was while one of them is wrong", function()
    process.write_file(gw.directory .. "/functions/a.lua", "return function( end")
    assert.is_truthy(process.wait_until(function() return gw:log():find("functions/a.lua:1", 1, true) end, 10))
    assert.is_truthy(comes("/fn/a", "a2"))
    process.write_file(gw.directory .. "/functions/a.lua", "return function() return 'a3' end")
    assert.is_truthy(comes("/fn/a", "a3"))
  end)

  -- It ends within the turn of the worker's loop in which it began. No machine adds five million numbers, one to the
  -- other, in a millisecond.
  it("has functions that compute take the time that it took", function()
    process.write_file(gw.directory .. "/functions/busy.lua",
      "return function() local sum = 0 for i = 1, 5e6 do sum = sum + i end return tostring(sum) end")
    assert.is_truthy(comes("/fn/busy", "12500002500000"))
    local _, out = gw:command("status")
    local average = out:match("functions/busy.lua +%d+ +0 +0 +(%d+%.%d) ms")
    assert.is_true(tonumber(average) >= 1, "listed with " .. tostring(average) .. " ms")
  end)

  it("is listed by sluice status", function()
    local _, out = gw:command("status")
    assert.matches("FUNCTION +CALLS +ERRORS +TIMEOUTS", out)
    assert.matches("functions/a.lua +%d+ +0 +0 +%d+%.%d ms", out)
  end)
end)
