-- SPDX-License-Identifier: Apache-2.0
-- The checker and `sluice check` over real files and plugins.
local cjson = require "cjson"
local lfs = require "lfs"
local checker = require "sluice.checker"
local config = require "sluice.config"
local check = require "sluice.cli.check"
local snapshot = require "sluice.snapshot"

local HELLO = [[
local hello = { version = "1.0.0", priority = 10 }
function hello.header_filter(conf, exchange)
  exchange.response:set_header("X-Hello", conf.greeting)
end
return hello
]]

describe("the checker", function()
  local dir

  local function write(name, text)
    local path = dir
    for part in name:gmatch("([^/]+)/") do
      path = path .. "/" .. part
      lfs.mkdir(path)
    end
    local file = assert(io.open(dir .. "/" .. name, "wb"))
    file:write(text)
    file:close()
    return dir .. "/" .. name
  end

  local function remove(path)
    if lfs.symlinkattributes(path, "mode") ~= "directory" then return os.remove(path) end
    for name in lfs.dir(path) do
      if name ~= "." and name ~= ".." then remove(path .. "/" .. name) end
    end
    lfs.rmdir(path)
  end

  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    lfs.mkdir(dir)
  end)

  after_each(function() remove(dir) end)

  -- Runs the checker; gives its exit code and what it told, each key with a list of values.
  local function run(options)
    local told, text = {}, {}
    options.write = function(part) text[#text + 1] = part end
    local code = checker.run(options)
    for key, value in table.concat(text):gmatch("([^=\n]+)=([^\n]*)\n") do
      told[key] = told[key] or {}
      table.insert(told[key], value)
    end
    return code, told
  end

  local GATEWAY = 'gateway: {workers: 3, proxy_listen: ["127.0.0.1:0", "127.0.0.1:0 ssl"], plugin_dirs: [./mine]}\n'

  it("writes a snapshot and tells the master its settings", function()
    write("mine/hello/handler.lua", HELLO)
    write("mine/hello/schema.lua", 'return { greeting = { type = "string", default = "hello" } }')
    local file = write("kong.yml", GATEWAY .. "plugins: [{name: hello}]")
    local code, told = run { files = { file }, revision = 7 }
    assert.equal(0, code)
    assert.same({ { "7" }, { dir .. "/.sluice" }, { dir .. "/.sluice/snapshots/7" }, { "3" } },
      { told.revision, told.state_dir, told.snapshot, told.workers })
    assert.same({ "127.0.0.1:0", "127.0.0.1:0 ssl" }, told["listen.proxy"])
    assert.same({ { "127.0.0.1:8007" }, { "notice" }, { "text" }, { "200" }, { "100" } }, { told["listen.status"],
      told["log.level"], told["log.format"], told["limit.max_headers"], told["limit.plugin_cpu_budget_ms"] })
    assert.same({ file, lfs.currentdir() .. "/plugins", dir .. "/mine" }, told.watch)
    local reader = assert(snapshot.open(told.snapshot[1]))
    local meta, code_record = reader.decode(reader:next()), reader.decode(reader:next())
    assert.equal(7, meta.revision)
    assert.same({ "plugin_code", "hello", HELLO, false }, { code_record.kind, code_record.name,
      code_record.files["handler.lua"], code_record.trusted })
    assert.same({ greeting = "hello" }, reader.decode(reader:next()).config)
  end)

  describe("of a schema that prepares", function()
    local file

    before_each(function()
      write("mine/hello/handler.lua", HELLO)
      write("mine/hello/schema.lua", [[
        return {
          words = { type = "string" },
          prepare = function(config, files)
            local path = files.path(config.words)
            files.read(path)
            config.__words = require("io").open(path):read("*a")
            if config.__words == "bad" then return { field = "words", expected = "good words", found = path } end
          end,
        }
      ]])
      file = write("kong.yml", GATEWAY:gsub("%]}\n", "], trusted_plugins: [hello]}\n")
        .. "plugins:\n- name: hello\n  config: {words: a/words.txt}\n")
      write("a/words.txt", "one")
    end)

    local function config_of(told)
      local reader = assert(snapshot.open(told.snapshot[1]))
      local record
      for bytes in reader.next, reader do record = reader.decode(bytes) end
      return record.config
    end

    it("puts into the configuration what it refers to, and watches that", function()
      local _, told = run { files = { file } }
      assert.same({ words = "a/words.txt", __words = "one" }, config_of(told))
      assert.equal(dir .. "/a/words.txt", told.watch[2])
    end)

    it("looks again though the file of the configuration is as it was", function()
      run { files = { file } }
      write("a/words.txt", "two")
      local _, told = run { files = { file } }
      assert.equal("two", config_of(told).__words)
      assert.equal(dir .. "/a/words.txt", told.watch[2])
    end)

    it("tells what it found wrong, and goes on watching", function()
      write("a/words.txt", "bad")
      local code, told = run { files = { file } }
      assert.equal(1, code)
      local err = cjson.decode(told.error[1])
      assert.same({ file, 4, 'plugin "hello"', "config.words", "good words", dir .. "/a/words.txt" },
        { err.file, err.line, err.entity, err.field, err.expected, err.found })
      assert.equal(dir .. "/a/words.txt", told.watch[2])
    end)

    it("says so when it fails itself", function()
      os.remove(dir .. "/a/words.txt")
      local code, told = run { files = { file } }
      assert.equal(1, code)
      assert.matches("the schema's own preparation failed: .*schema.lua:6: attempt to index", told.error[1])
    end)
  end)

  it("counts revisions up where none is given", function()
    local file = write("kong.yml", "services: []")
    for expected = 1, 2 do
      local _, told = run { files = { file } }
      assert.same({ tostring(expected) }, told.revision)
    end
  end)

  it("tells the errors of a bad file, what to watch, and writes nothing", function()
    local file = write("kong.yml", GATEWAY .. "services:\n- name: a\n  port: x\n")
    local code, told = run { files = { file } }
    assert.equal(1, code)
    assert.is_nil(told.snapshot)
    assert.is_nil(lfs.attributes(dir .. "/.sluice"))
    assert.equal(file, told.watch[1])
    local err = cjson.decode(told.error[2])
    assert.same({ file, 4, 'service "a"', "port", "an integer", "a string" },
      { err.file, err.line, err.entity, err.field, err.expected, err.found })
  end)

  it("reads several files and folders as one configuration", function()
    write("conf/a.yml", "services: [{name: s, host: h}]")
    write("conf/b.json", '{"routes": [{"name": "r", "paths": ["/"], "service": "s"}]}')
    write("conf/notes.txt", "no configuration")
    local file = write("c.yaml", "plugins: [{name: hello, route: r}]")
    write("plugins/hello/handler.lua", HELLO)
    local loaded = assert(config.load({ dir .. "/conf", file }))
    assert.equal(loaded:list("services")[1].id, loaded:list("routes")[1].service)
    assert.equal(loaded:list("routes")[1].id, loaded:list("plugins")[1].route)
    assert.same({ dir .. "/conf", file }, loaded.watch)
  end)

  it("names both files when they collide", function()
    write("a.yml", "services: [{name: s, host: h}]")
    write("b.yml", "\nservices: [{name: s, host: h}]")
    local _, errors = config.load { dir .. "/a.yml", dir .. "/b.yml" }
    assert.equal(dir .. '/b.yml:2: service "s" (services[0]): name: expected a value that no other service has, '
      .. 'found "s", first at ' .. dir .. "/a.yml:1", errors[1].text)
  end)

  it("refuses two gateway sections, and files that are not there", function()
    write("a.yml", "gateway: {workers: 1}")
    write("b.yml", "gateway: {workers: 2}")
    local _, errors = config.load { dir .. "/a.yml", dir .. "/b.yml" }
    assert.matches("b.yml:1: gateway: gateway: expected one gateway section, found another", errors[1].text)
    _, errors = config.load { dir .. "/none.yml" }
    assert.equal(dir .. "/none.yml: expected a file or a folder, found nothing there", errors[1].text)
    lfs.mkdir(dir .. "/empty")
    _, errors = config.load { dir .. "/empty" }
    assert.matches("expected a folder with .yml, .yaml or .json files, found none", errors[1].text, 1, true)
  end)

  it("names the folders searched for a plugin that is not there", function()
    local file = write("kong.yml", GATEWAY .. "plugins:\n- name: hallo\n")
    write("mine/hello/handler.lua", HELLO)
    local _, errors = config.load { file }
    assert.equal(('%s:3: plugin "hallo" (plugins[0]): name: expected a plugin in %s/plugins or %s/mine, '
      .. 'did you mean "hello"?, found "hallo"'):format(file, config.home(), dir), errors[1].text)
  end)

  it("tells where a plugin that is used is broken, and who uses it", function()
    write("mine/hello/handler.lua", "local hello = {\nreturn hello")
    local file = write("kong.yml", GATEWAY .. "plugins:\n- name: hello\n")
    local _, errors = config.load { file }
    assert.equal(2, #errors)
    local text = errors[1].text .. "\n" .. errors[2].text
    assert.matches(file .. ":3: plugin \"hello\"", text, 1, true)
    assert.matches(dir .. "/mine/hello/handler.lua:2: plugin code \"hello\"", text, 1, true)
  end)

  it("tells what is wrong with a plugin's schema", function()
    write("mine/hello/handler.lua", HELLO)
    write("mine/hello/schema.lua", 'return { greeting = { type = "strng" } }')
    local _, errors = config.load { write("kong.yml", GATEWAY .. "plugins: [{name: hello}]") }
    assert.matches("mine/hello/schema.lua:1: plugin code \"hello\": config.greeting: expected a known type",
      errors[1].text .. errors[2].text, 1, true)
  end)

  it("gives a plugin's schema the typedefs, under Kong's name too, each plugin its own", function()
    local form = [[
local typedefs = require "%s"
local port = typedefs.port { default = 7 }
typedefs.port.between = { 1, 2 } -- hurts nobody else
return { name = "%s", fields = {
  { consumer = typedefs.no_consumer }, { protocols = typedefs.protocols_http },
  { config = { type = "record", fields = { { port = port }, { host = typedefs.host } } } },
} }
]]
    for name, module in pairs { one = "sluice.typedefs", two = "kong.db.schema.typedefs" } do
      write("mine/" .. name .. "/handler.lua", HELLO)
      write("mine/" .. name .. "/schema.lua", form:format(module, name))
    end
    local file = write("kong.yml", GATEWAY .. "plugins: [{name: one}, {name: two, config: {port: 65535}}]")
    local loaded = assert(config.load { file })
    assert.same({ { port = 7 }, { port = 65535 } },
      { loaded:list("plugins")[1].config, loaded:list("plugins")[2].config })
  end)

  it("only warns of a broken plugin that nothing uses", function()
    write("mine/hello/handler.lua", "return {")
    local code, told = run { files = { write("kong.yml", GATEWAY .. "services: []") } }
    assert.equal(0, code)
    assert.equal(1, #told.warning)
    assert.equal(dir .. "/mine/hello/handler.lua", cjson.decode(told.warning[1]).file)
  end)

  describe("behind sluice check", function()
    local printed, real_stdout, real_stderr

    local function capture()
      local parts = {}
      return { write = function(_, ...)
        for i = 1, select("#", ...) do parts[#parts + 1] = (select(i, ...)) end
      end, parts = parts }
    end

    -- The command writes to io.write and io.stderr: both are caught here.
    local function run_check(args)
      local out = capture()
      real_stdout, real_stderr = io.write, io.stderr
      io.write = function(...) return out:write(...) end -- luacheck: ignore 122
      io.stderr = out -- luacheck: ignore 122
      local ok, code = pcall(check.run, args)
      io.write, io.stderr = real_stdout, real_stderr -- luacheck: ignore 122
      assert(ok, code)
      printed = table.concat(out.parts)
      return code
    end

    it("says what is in a good file and exits 0", function()
      local file = write("kong.yml", "services: [{name: s, host: h, routes: [{paths: [/]}, {paths: [/b]}]}]")
      assert.equal(0, run_check { file })
      assert.equal("ok: 1 service, 2 routes in 1 file\n", printed)
    end)

    it("prints every error, counts them and exits 1", function()
      local file = write("kong.yml", "services:\n- name: s\n  prt: 1\n")
      assert.equal(1, run_check { file })
      assert.equal(table.concat {
        file, ':2: service "s" (services[0]): host: expected a host name or an address (or url), found nothing\n',
        file, ':3: service "s" (services[0]): prt: unknown field, did you mean "port"?\n', "2 errors\n",
      }, printed)
    end)

    it("writes no snapshot", function()
      run_check { write("kong.yml", "services: []") }
      assert.is_nil(lfs.attributes(dir .. "/.sluice"))
    end)
  end)
end)
