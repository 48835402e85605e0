-- SPDX-License-Identifier: Apache-2.0
-- Other readings of a path, and that no spelling of a path leads around a route that guards it.
local ffi = require "ffi"
local core = require "spec.support.core"
local router = require "sluice.cli.router"
local routes = require "spec.support.routes"
local spellings = require "spec.support.spellings"

local C = core.load("loose.h", "router.h", "uri.h")

local function slice(text)
  return ffi.new("struct slice", { text, #text })
end

local function read(path, reading)
  local out = ffi.new("char[?]", #path + 1)
  local len = tonumber(C.loose_read(slice(path), reading, out))
  return len >= 0 and ffi.string(out, len) or nil
end

local function canonical(raw)
  local out, len, err = ffi.new("char[?]", 3 * #raw), ffi.new("uint32_t[1]"), ffi.new("struct error")
  if C.uri_normalise(slice(raw), out, 3 * #raw, len, err) < 0 then return nil end
  return ffi.string(out, len[0])
end

describe("another reading of a path", function()
  local ALL = tonumber(C.LOOSE_KINDS)

  it("cuts parameters off and takes encoded slashes for slashes", function()
    local cases = {
      ["/a;x=1/b"] = "/a/b", ["/a%3Bx/b"] = "/a/b", ["/a%2Fb"] = "/a/b", ["/a%5Cb"] = "/a/b", ["/a/;x/b"] = "/a/b",
      ["/a;x%2Fb"] = "/a/b", ["/a/"] = "/a/", ["/a%2F"] = "/a/", ["/;"] = "/", ["/a%25"] = "/a%25", ["/...;"] = "/...",
    }
    for path, other in pairs(cases) do assert.equal(other, read(path, ALL), path) end
  end)

  it("does only what it is asked to", function()
    local path = "/a%2Fb%5Cc;d%2Fe%5Cf%3Bg/h"
    assert.equal("/a/b%5Cc;d/e%5Cf%3Bg/h", read(path, C.LOOSE_SLASH))
    assert.equal("/a%2Fb/c;d%2Fe/f%3Bg/h", read(path, C.LOOSE_BACKSLASH))
    assert.equal("/a%2Fb%5Cc/h", read(path, C.LOOSE_SEMICOLON))
    assert.equal("/a%2Fb%5Cc;d%2Fe%5Cf/h", read(path, C.LOOSE_ESCAPED_SEMICOLON))
    assert.equal("/a/b%5Cc/h", read(path, C.LOOSE_SLASH + C.LOOSE_SEMICOLON + C.LOOSE_PAST_SLASH))
    assert.equal("/a/b%5Cc/e%5Cf%3Bg/h", read(path, C.LOOSE_SLASH + C.LOOSE_SEMICOLON))
  end)

  it("is refused when dot segments come to light", function()
    for _, path in ipairs { "/a%2F..", "/..%2Fa", "/a/.%2Fb", "/a%5C..%5Cb" } do
      assert.is_nil(read(path, ALL), path)
    end
  end)

  it("exists for paths with parameters and encoded slashes only", function()
    local kinds = { ["/a;b"] = "SEMICOLON", ["/a%2Fb"] = "SLASH", ["/a%5C"] = "BACKSLASH",
      ["/%25%3B"] = "ESCAPED_SEMICOLON" }
    for path, kind in pairs(kinds) do assert.equal(tonumber(C["LOOSE_" .. kind]), C.loose_kinds(slice(path)), path) end
    for _, path in ipairs { "/", "/a/b", "/a%20b", "/a%2", "/%" } do
      assert.equal(0, C.loose_kinds(slice(path)), path)
    end
  end)

  it("is tried once for one kind, and in each order for several", function()
    local function count(kinds)
      local readings = 0
      for reading = 1, C.LOOSE_READINGS - 1 do
        if C.loose_applies(reading, kinds) then readings = readings + 1 end
      end
      return readings
    end
    assert.equal(1, count(C.LOOSE_SLASH))
    assert.equal(3, count(C.LOOSE_SLASH + C.LOOSE_BACKSLASH))
    assert.equal(4, count(C.LOOSE_SLASH + C.LOOSE_SEMICOLON))
  end)
end)

describe("a guarded path", function()
  local sets = {
    ["a prefix with a slash"] = { { paths = { "/" } }, { paths = { "/admin/" } } },
    ["a prefix beside open ones"] = {
      { paths = { "/open", "/x", "/a" } }, { paths = { "/admin/" } }, { paths = { "/" } },
    },
    ["a regex"] = { { paths = { "/" } }, { paths = { "~/admin/.*" } } },
    ["a prefix and a method"] = { { paths = { "/" }, methods = { "GET" } },
      { paths = { "/admin/" }, methods = { "GET" } } },
  }

  local function guard_of(set)
    for number, route in ipairs(set) do
      if route.paths[1]:find("admin", 1, true) then return number end
    end
  end

  local function check(compiled, guard, raw)
    local path = canonical(raw)
    local found = path and compiled:match { method = "GET", path = path }
    if not found or found.outcome == "ambiguous" or found.route == guard then return path ~= nil end
    for name, serve in pairs(spellings.servers) do
      local served = serve(path)
      assert.is_false(served:sub(1, 7) == "/admin/",
        ("%s, forwarded as %s, is %s to a server that %s"):format(raw, path, served, name))
    end
    return true
  end

  for name, set in pairs(sets) do
    it("behind " .. name .. " is reached through its route only, however it is spelt", function()
      local compiled, guard, random = assert(router.new(C, set)), guard_of(set), routes.randomiser(#name)
      local passed = 0
      for _ = 1, 8000 do
        if check(compiled, guard, spellings.random_path(random)) then passed = passed + 1 end
      end
      assert.is_true(passed > 4000)
    end)

    it("behind " .. name .. " is not reached by the known tricks", function()
      local compiled, guard = assert(router.new(C, set)), guard_of(set)
      for _, raw in ipairs(spellings.tricks) do
        check(compiled, guard, raw)
      end
    end)
  end
end)
