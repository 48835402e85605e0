-- SPDX-License-Identifier: Apache-2.0
-- Loops over `pairs` see every element, however the compiler treats them.
local process = require "spec.support.process"

-- Nested loops of which the compiler gives up the outer one; prints how often an element was missed.
local nested = [[
local list = { 1, 2, 3, 4, 5 }
local outer = { a = list, b = list, c = list, d = list, e = list }
local function leave(...) for _ = 1, 100 do end end
local missed = 0
for _ = 1, 100000 do
  leave()
  local count = 0
  for _, inner in %s do
    for _ in %s do end
    count = count + 1
  end
  if count ~= 5 then missed = missed + 1 end
end
print(missed)
]]

local function missed(prefix, over, inner)
  local status, out, err = process.run({ "luajit", "-e", prefix .. "\n" .. nested:format(over, inner) })
  assert(status == 0, err)
  return tonumber(out)
end

describe("a loop over", function()
  it("pairs loses elements in this LuaJIT as it comes; else lua/sluice/iterate.lua can go", function()
    assert.is_true(missed("", "pairs(outer)", "pairs(inner)") > 0)
  end)

  local fixed = 'dofile("lua/sluice/iterate.lua")'

  it("pairs sees every element", function()
    assert.equal(0, missed(fixed, "pairs(outer)", "pairs(inner)"))
  end)

  it("next sees every element", function()
    assert.equal(0, missed(fixed, "next, outer", "next, inner"))
  end)

  -- Short loops, of which the compiler unrolls several turns into one trace.
  local short = [[
    local function highest(list)
      local count, most = 0, 0
      for key in pairs(list) do
        count = count + 1
        if key > most then most = key end
      end
      return most
    end
    local function greatest(list)
      local count, most = 0, 0
      for _, value in pairs(list) do
        count = count + 1
        if value > most then most = value end
      end
      return most
    end
    local wrong = 0
    for _ = 1, 20000 do
      if highest { {}, {} } ~= 2 or greatest { 1, 2 } ~= 2 then wrong = wrong + 1 end
    end
    print(wrong)
  ]]

  it("pairs gives each key and value but once", function()
    local status, out = process.run({ "luajit", "-e", fixed .. short })
    assert.same({ 0, "0\n" }, { status, out })
  end)

  it("an empty table ends at once, and one over no table is an error", function()
    local status, out = process.run({ "luajit", "-e", fixed ..
      ' for _ in pairs({}) do print("never") end print(next({})) print(pcall(pairs))' ..
      " print(pcall(function() for _ in pairs(7) do end end))" })
    assert.equal(0, status)
    assert.matches("^nil\nfalse\tbad argument #1 to 'pairs'", out)
    assert.matches("command line.*table expected, got number", out)
  end)

  it("pairs in a plugin sees every element", function()
    local spec = require "sluice.spec"
    local gateway = spec.gateway {
      plugins = { { name = "looping" } },
      plugins_code = { looping = { handler = ([[
        local looping = { version = "1.0.0", priority = 1 }
        local missed
        local function print(count) missed = count end
        function looping.access(_, exchange)
          %s
          exchange.response:exit(200, tostring(missed))
        end
        return looping
      ]]):format(nested:format("pairs(outer)", "pairs(inner)")) } },
    }
    assert.equal("0", gateway:get("/").body)
  end)
end)
