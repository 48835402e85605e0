-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local spec = require "sluice.spec"

-- Runs the code that a request carries, and answers with what it gives.
local RUN = [[
  local regex = require("sluice").regex
  local run = { version = "1.0.0", priority = 1 }
  function run.access(_, exchange)
    exchange.response:exit(200, { load("local regex = ...; " .. exchange.request:get_raw_body())(regex) })
  end
  return run
]]

describe("sluice.regex", function()
  local gateway

  before_each(function()
    gateway = spec.gateway { plugins = { { name = "run" } }, plugins_code = { run = RUN } }
  end)

  local function run(code)
    return cjson.decode(gateway:post("/", code).body)
  end

  it("tells whether a text matches", function()
    assert.same({ true, false }, run [[local r = regex.new("b+$") return r:test("abb"), r:test("abba")]])
  end)

  it("matches at the start only when anchored, and letters of either case when caseless", function()
    assert.same({ true, false, true, false },
      run [[return regex.new("b"):test("ab"), regex.new("b", { anchored = true }):test("ab"),
        regex.new("B", { caseless = true }):test("ab"), regex.new("B"):test("ab")]])
  end)

  it("says where the match is", function()
    assert.same({ 3, 4, false }, run [[local r = regex.new("b+") local from, to = r:find("aabba")
      return from, to, r:find("x") or false]])
  end)

  it("gives groups by number and name", function()
    local found = run([[local m = regex.new("(?<user>\\w+)@(\\w+)(!)?"):match("to me@here")
      return m[0], m[1], m.user, m[2], m[3] ]])
    assert.same({ "me@here", "me", "me", "here", false }, found)
  end)

  it("says what is wrong with a pattern", function()
    local found = run [[local r, why = regex.new("a(b") return r or false, why]]
    assert.is_false(found[1])
    assert.matches("missing closing parenthesis", found[2])
  end)

  it("does not match what would take too long", function()
    assert.same({ false }, run [[return regex.new("^(a+)+$"):test(("a"):rep(40) .. "b")]])
  end)

  it("matches bytes of any kind, and zeros", function()
    assert.same({ true, false }, run [[return regex.new("a.b"):test("a\0b"), regex.new("^b"):test("a\0b")]])
  end)

  it("refuses what is no text, at the plugin's line", function()
    assert.equal(500, gateway:post("/", "return regex.new(7)").status)
    assert.equal(1, #gateway:log("sluice.regex.new: pattern must be a string, got number 7"))
  end)
end)
