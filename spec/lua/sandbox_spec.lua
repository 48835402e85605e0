-- SPDX-License-Identifier: Apache-2.0
local sandbox = require "sluice.sandbox"

describe("the sandbox", function()
  local owner

  before_each(function()
    owner = { name = "probe", dir = "/plugins/probe", files = {} }
    package.loaded["sluice"] = { greet = function() return "hello" end, nested = { call = function() return 1 end } }
  end)

  after_each(function() package.loaded["sluice"] = nil end)

  local function run(text, trusted)
    owner.files["handler.lua"] = text
    sandbox.environment(owner, trusted)
    local chunk, err = sandbox.compile(owner, "handler.lua")
    assert(chunk, err)
    return chunk()
  end

  local function refused(text, pattern)
    local ok, err = pcall(run, text)
    assert.is_false(ok)
    assert.matches(pattern, tostring(err))
  end

  it("gives each plugin globals of its own", function()
    run("shared = 1; _G.other = 2")
    assert.is_nil(rawget(_G, "shared"))
    assert.is_nil(rawget(_G, "other"))
    refused("return shared", "undefined global 'shared'")
  end)

  it("names an undefined global with file and line", function()
    refused("local x\nx = oops", "^/plugins/probe/handler.lua:2: undefined global 'oops'")
  end)

  it("says what stands in for Kong's globals", function()
    refused("return kong.request", "undefined global 'kong' %(the exchange")
  end)

  for _, name in ipairs { "ffi", "io", "debug", "package", "jit", "dofile", "loadfile", "newproxy", "module" } do
    it("has no " .. name, function() refused("return " .. name, "undefined global '" .. name .. "'") end)
  end

  for _, name in ipairs { "execute", "exit", "remove", "rename", "getenv", "tmpname", "setlocale" } do
    it("has no os." .. name, function() assert.is_nil(run("return os." .. name)) end)
  end

  for _, name in ipairs { "ffi", "io", "os", "string.buffer", "sluice.ffi", "sluice.runtime", "lfs", "other.words" } do
    it("refuses require " .. name, function()
      refused("return require '" .. name .. "'", "no module '" .. name .. "' for plugin probe")
    end)
  end

  it("keeps the standard library from being changed", function()
    refused("string.format = nil", "read%-only: cannot set 'format'")
    refused("math.extra = 1", "read%-only: cannot set 'extra'")
    run("rawset(string, 'upper', function() return 'mine' end)")
    assert.equal("A", run("return string.upper('a')"))
    assert.equal("A", ("a"):upper())
  end)

  it("shows only metatables that the plugin set itself", function()
    assert.is_nil(run("return getmetatable('')"))
    assert.equal(7, run("local class = { x = 7 }; return getmetatable(setmetatable({}, class)).x"))
    package.loaded["sluice"].thing = function() return setmetatable({}, { __index = {} }) end
    assert.is_false(run("return getmetatable(require('sluice').thing())"))
    assert.is_false(run("return getmetatable(string)"))
    assert.is_false(run("return getmetatable(_G)"))
    refused("setmetatable(_G, nil)", "protected metatable")
  end)

  it("reaches no environment but its own", function()
    local own, of_another = run("return getfenv(0), getfenv(require('sluice').greet)")
    assert.equal(owner.env, own)
    assert.equal(owner.env, of_another)
    refused("setfenv(require('sluice').greet, {})", "only for a function of this plugin")
    assert.equal(7, run("local f = function() return x end; setfenv(f, { x = 7 }); return f()"))
  end)

  it("compiles source text at run time, and no bytecode", function()
    assert.equal(3, run("return load('return 1 + 2')()"))
    assert.equal(5, run("return load('return x', 'chunk', 't', { x = 5 })()"))
    local env = owner.env
    assert.is_nil((env.load(string.dump(function() end), "x", "b")))
    assert.is_nil((env.loadstring(string.dump(function() end))))
    refused("return load('return io')()", "undefined global 'io'")
  end)

  it("bounds what one string.rep may make", function()
    refused("return string.rep('x', 1e10)", "too large")
    assert.equal("a-a", run("return string.rep('a', 2, '-')"))
  end)

  it("offers sluice as a view that cannot be changed", function()
    assert.equal("hello", run("return require('sluice').greet()"))
    refused("require('sluice').greet = nil", "read%-only")
    refused("require('sluice').nested.call = nil", "read%-only")
    assert.equal("hello", package.loaded["sluice"].greet())
  end)

  it("gives each plugin its own settings of cjson", function()
    run("require('cjson').encode_number_precision(3)")
    assert.equal("3.14159", require("cjson").encode(3.14159))
    assert.equal('{"a":1}', run("return require('cjson').encode({ a = 1 })"))
  end)

  it("finds the plugin's own modules, once each", function()
    owner.files["words.lua"] = "count = (rawget(_G, 'count') or 0) + 1; return { n = count, name = ... }"
    owner.files["deep/init.lua"] = "return 'deep'"
    local first, second, deep =
      run("return require('probe.words'), require('probe.words'), require('probe.deep')")
    assert.equal(first, second)
    assert.same({ n = 1, name = "probe.words" }, first)
    assert.equal("deep", deep)
  end)

  it("tells of modules that require each other in a ring", function()
    owner.files["a.lua"] = "return require 'probe.b'"
    owner.files["b.lua"] = "return require 'probe.a'"
    refused("return require 'probe.a'", "requires itself")
  end)

  it("names the file and line of a syntax error in a module", function()
    owner.files["bad.lua"] = "return {\n  x = = 1 }"
    refused("return require 'probe.bad'", "^/plugins/probe/bad.lua:2: ")
  end)

  it("gives a trusted plugin everything", function()
    assert.equal(io, run("return io", true))
    assert.equal(require "ffi", run("return require 'ffi'", true))
    assert.equal(package, run("return package", true))
    assert.is_nil(run("return not_there", true))
  end)

  describe("coroutines", function()
    it("work as ever among the plugin's own", function()
      assert.same({ 1, 2, "done" }, { run([[
        local next_value = coroutine.wrap(function(a)
          local b = coroutine.yield(a)
          coroutine.yield(b)
          return "done"
        end)
        return next_value(1), next_value(2), next_value()
      ]]) })
      assert.same({ false, "oops" }, { run([[
        local thread = coroutine.create(function() error("oops", 0) end)
        return coroutine.resume(thread)
      ]]) })
    end)

    it("let a call that waits pass through to the gateway", function()
      local env = sandbox.environment(owner, false)
      env.wait = coroutine.yield -- what a call that waits does: it yields nothing
      owner.files["handler.lua"] = [[
        local inner = coroutine.wrap(function()
          coroutine.yield("before")
          return wait()
        end)
        return inner(), inner()
      ]]
      local chunk = sandbox.compile(owner, "handler.lua")
      local thread = coroutine.create(chunk)
      assert.same({ true }, { coroutine.resume(thread) })
      assert.same({ true, "before", "woken" }, { coroutine.resume(thread, "woken") })
    end)

    it("of the gateway can be neither had nor resumed", function()
      local env = sandbox.environment(owner, false)
      local gateways = coroutine.create(function() coroutine.yield() end)
      coroutine.resume(gateways)
      env.gateways = gateways
      owner.files["handler.lua"] = "return coroutine.running(), coroutine.resume(gateways)"
      local thread = coroutine.create(sandbox.compile(owner, "handler.lua"))
      local got = { coroutine.resume(thread) }
      assert.is_nil(got[2])
      assert.is_false(got[3])
      assert.equal("suspended", coroutine.status(gateways))
      owner.files["handler.lua"] = "return coroutine.wrap(function() return coroutine.running() end)()"
      assert.equal("thread", type(sandbox.compile(owner, "handler.lua")()))
    end)

    it("cannot yield from under the gateway's feet", function()
      sandbox.environment(owner, false)
      owner.files["handler.lua"] = "coroutine.yield(1)"
      local ok, err = coroutine.resume(coroutine.create(sandbox.compile(owner, "handler.lua")))
      assert.is_false(ok)
      assert.matches("only in a coroutine that the plugin created", err)
    end)
  end)

  it("runs the handler of xpcall after the error, where a budget can stop it", function()
    assert.same({ false, "caught /plugins/probe/handler.lua:1: oops" }, { run(
      "return xpcall(function() error('oops') end, function(err) return 'caught ' .. err end)") })
    assert.same({ true, 1, 2 }, { run("return xpcall(function(...) return ... end, error, 1, 2)") })
  end)
end)
