-- SPDX-License-Identifier: Apache-2.0
local lfs = require "lfs"
local plugins = require "sluice.plugins"

local HANDLER = 'return { version = "1.2.3", priority = 7, access = function() end, log = function() end }'

describe("plugins", function()
  local top

  local function write(path, text)
    local folder = ""
    for part in path:gmatch("([^/]+)/") do
      folder = folder .. "/" .. part
      lfs.mkdir(top .. folder)
    end
    local file = assert(io.open(top .. "/" .. path, "w"))
    file:write(text)
    file:close()
  end

  before_each(function()
    top = os.tmpname()
    os.remove(top)
    lfs.mkdir(top)
  end)

  local function clean(dir)
    for name in lfs.dir(dir) do
      local path = dir .. "/" .. name
      if name ~= "." and name ~= ".." then
        if lfs.attributes(path, "mode") == "directory" then clean(path) else os.remove(path) end
      end
    end
    lfs.rmdir(dir)
  end

  after_each(function() clean(top) end)

  describe("are found", function()
    it("as folders with a handler.lua, with their modules and without their specs", function()
      write("a/hello/handler.lua", HANDLER)
      write("a/hello/words/more.lua", "return {}")
      write("a/hello/README.md", "# hello")
      write("a/hello/spec/hello_spec.lua", "error()")
      write("a/notes/readme.lua", "")
      local found = plugins.discover { top .. "/a" }
      assert.same({ "hello" }, { next(found) and found.hello.name })
      assert.is_nil(found.notes)
      assert.same({ ["handler.lua"] = HANDLER, ["words/more.lua"] = "return {}" }, found.hello.files)
      assert.equal(top .. "/a/hello", found.hello.dir)
    end)

    it("in the last folder that has them", function()
      write("a/hello/handler.lua", HANDLER)
      write("b/hello/handler.lua", HANDLER .. "\n")
      assert.equal(top .. "/b/hello", plugins.discover({ top .. "/a", top .. "/b", top .. "/none" }).hello.dir)
    end)

    it("with the modules of those that they use", function()
      write("a/base/handler.lua", HANDLER)
      write("a/base/words.lua", 'return require "base.more" .. " world"')
      write("a/base/more.lua", "return 'hello'")
      write("a/derived/uses", "base\nnobody\n")
      write("a/derived/handler.lua", 'return { version = require "base.words", priority = 1 }')
      write("a/stranger/handler.lua", 'local base = require "base.words"\n' .. HANDLER)
      local found = plugins.discover { top .. "/a" }
      assert.is_nil(found.base.files["../derived/handler.lua"])
      local derived = assert(plugins.load(found.derived))
      assert.equal("hello world", derived.version)
      local _, err = plugins.load(found.stranger)
      assert.matches("no module 'base.words' for plugin stranger", err.message, 1, true)
      write("a/base/more.lua", "return 'good morning'")
      assert.not_equal(found.derived.hash, plugins.discover({ top .. "/a" }).derived.hash)
    end)

    it("with a hash that changes with any file, and with nothing else", function()
      local function hash(files) return plugins.hash(files) end
      local one = hash { ["handler.lua"] = "a", ["x.lua"] = "b" }
      assert.matches("^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x$", one)
      assert.equal(one, hash { ["x.lua"] = "b", ["handler.lua"] = "a" })
      assert.not_equal(one, hash { ["handler.lua"] = "a", ["x.lua"] = "c" })
      assert.not_equal(one, hash { ["handler.lua"] = "a", ["y.lua"] = "b" })
      assert.not_equal(hash { ["a"] = "bc" }, hash { ["ab"] = "c" })
      assert.equal("cbf29ce484222325", hash {}) -- FNV-1a of nothing
    end)
  end)

  describe("are loaded", function()
    local function load(handler, files)
      local all = { ["handler.lua"] = handler }
      for path, text in pairs(files or {}) do all[path] = text end
      return plugins.load { name = "hello", dir = "/p/hello", files = all, hash = "h" }
    end

    local function refused(handler, pattern, line, files)
      local plugin, err = load(handler, files)
      assert.is_nil(plugin)
      assert.matches(pattern, err.message)
      assert.equal(line, err.line)
      assert.equal("hello", err.plugin)
      return err
    end

    it("with version, priority, phases and schema", function()
      local plugin = load(HANDLER, { ["schema.lua"] = "return { greeting = { type = 'string' } }" })
      assert.equal("1.2.3", plugin.version)
      assert.equal(7, plugin.priority)
      assert.equal(2 ^ 5 + 2 ^ 10, plugin.phases)
      assert.same({ greeting = { type = "string" } }, plugin.schema)
      assert.same({}, plugin.warnings)
      assert.is_false(plugin.trusted)
    end)

    it("with modules of their own", function()
      local plugin = load([[
        local words = require "hello.words"
        return { version = words.version, priority = 1 }
      ]], { ["words.lua"] = 'return { version = "2.0.0" }' })
      assert.equal("2.0.0", plugin.version)
    end)

    it("unless the syntax is wrong: file, line and message", function()
      local err = refused("local x = 1\nlocal y = = 2", "unexpected symbol", 2)
      assert.equal("/p/hello/handler.lua", err.file)
    end)

    it("unless the syntax is wrong, in a folder with a name so long that Lua tells its end alone", function()
      local dir = "/" .. ("p"):rep(100) .. "/hello"
      local plugin, err = plugins.load { name = "hello", dir = dir, hash = "h",
        files = { ["handler.lua"] = 'return require "hello.words"', ["words.lua"] = "local x = 1\nlocal y = = 2" } }
      assert.is_nil(plugin)
      assert.same({ dir .. "/words.lua", 2, "unexpected symbol near '='" }, { err.file, err.line, err.message })
    end)

    it("unless a module is broken: the module's file and line", function()
      local err = refused('return require "hello.words"', "unexpected symbol", 3, { ["words.lua"] = "\n\nreturn = 1" })
      assert.equal("/p/hello/words.lua", err.file)
    end)

    it("unless the code raises", function()
      refused("local t = nil\n\nreturn t.x", "attempt to index", 3)
      refused("return oops", "undefined global 'oops'", 1)
    end)

    it("unless schema.lua is broken", function()
      local err = refused(HANDLER, "undefined global 'typedefs'", 2, { ["schema.lua"] = "return {\n a = typedefs.x }" })
      assert.equal("/p/hello/schema.lua", err.file)
    end)

    it("unless the handler is no handler", function()
      refused("local x = 1", "must return the plugin's table, found nothing", 1)
      refused("return { priority = 1 }", "version: expected a string such as \"1.0.0\", found nothing", 1)
      refused('return { version = "1", priority = "high" }', "priority: expected a number, found a string", 1)
      refused('return { version = "1", priority = 1, access = true }', "access: expected a function", 1)
      refused('return { version = "1", priority = 1, needs = {} }', "needs: expected a function, found a table", 1)
    end)

    it("unless response stands beside the filters that it replaces", function()
      refused('local fn = function() end return { version = "1", priority = 1, response = fn, body_filter = fn }',
        "response, or header_filter and body_filter", 1)
    end)

    for written, meant in pairs { header_filer = "header_filter", acess = "access", headerFilter = "header_filter",
      ["body-filter"] = "body_filter", init_workers = "init_worker", rewrites = "rewrite", logs = "log" } do
      it("with a warning when " .. written .. " may be meant for " .. meant, function()
        local plugin = load(('return { version = "1", priority = 1, [%q] = function() end }'):format(written))
        assert.equal(1, #plugin.warnings)
        assert.matches("'" .. written:gsub("%-", "%%-") .. "' is not a phase and is never called: did you mean "
          .. meant .. "%?", plugin.warnings[1])
      end)
    end

    it("without a warning for helpers that look like no phase", function()
      local plugin = load('return { version = "1", priority = 1, find_key = function() end, get = function() end }')
      assert.same({}, plugin.warnings)
    end)
  end)
end)
