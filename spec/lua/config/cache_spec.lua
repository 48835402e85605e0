-- SPDX-License-Identifier: Apache-2.0
-- Whatever a load kept, the next gives the very records that a load of everything gives.
local lfs = require "lfs"
local config = require "sluice.config"
local split = require "sluice.config.split"

local COLLECTIONS = { services = true, routes = true, plugins = true, consumers = true }

describe("cutting a text into items", function()
  local function items(text)
    local cut = split.cut(text, COLLECTIONS)
    return cut and cut.sections
  end

  it("takes each top-level item with all that is nested in it", function()
    local cut = split.cut('_format_version: "3.0"\nservices:\n- name: a\n  routes:\n  - name: r\n\n'
      .. "# about b\n- name: b\nroutes:\n  - name: x\n    paths: [/]\n  - name: y\ngateway:\n"
      .. "  workers: 1\n", COLLECTIONS)
    assert.same({ services = { "- name: a\n  routes:\n  - name: r\n\n# about b\n", "- name: b\n" },
      routes = { "  - name: x\n    paths: [/]\n", "  - name: y\n" } }, cut.sections)
    assert.equal('_format_version: "3.0"\nservices:\nroutes:\ngateway:\n  workers: 1\n', cut.head)
  end)

  it("leaves what is written in one line in the head", function()
    assert.same({}, items "services: []\nroutes: [{paths: [/]}]\n")
    assert.same({}, items "services:\nroutes:\n")
  end)

  it("does not mistake the lines of a block text for items", function()
    assert.same({ plugins = { "- name: a\n  x: |\n    - b\n    - c\n", "- name: d" } },
      items "plugins:\n- name: a\n  x: |\n    - b\n    - c\n- name: d")
  end)

  it("is given up where an item could mean something else on its own", function()
    for _, text in ipairs { "services:\n- &a {name: x}\n", "services: \n- name: a\n---\n", "%YAML 1.1\n---\na: 1\n",
      "services:\r\n- name: a\r\n", "services:\n- host: '{vault://env/X}'\n", "services:\n  name: a\n",
      "services:\n  - name: a\n - name: b\n", "services:\n- name: a\nservices:\n- name: b\n" } do
      assert.message(text).is_nil(items(text))
    end
  end)

  it("takes an ampersand within a text for what it is", function()
    assert.same({ services = { "- path: /a?b&c\n" } }, items "services:\n- path: /a?b&c\n")
  end)
end)

describe("a load after another", function()
  local dir, file

  local HANDLER = 'return { version = "1.0.0", priority = 10, access = function() end }'

  local function write(name, text)
    local handle = assert(io.open(dir .. "/" .. name, "wb"))
    handle:write(text)
    handle:close()
  end

  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    lfs.mkdir(dir)
    lfs.mkdir(dir .. "/plugins")
    lfs.mkdir(dir .. "/plugins/hello")
    write("plugins/hello/handler.lua", HANDLER)
    write("plugins/hello/schema.lua", 'return { greeting = { type = "string", default = "hello" } }')
    file = dir .. "/kong.yml"
  end)

  after_each(function()
    for _, name in ipairs { "plugins/hello/handler.lua", "plugins/hello/schema.lua", "plugins/hello", "plugins",
      "kong.yml", "cache" } do
      os.remove(dir .. "/" .. name)
    end
    lfs.rmdir(dir)
  end)

  local BASE = [[
_format_version: "3.0"
services:
- name: one
  host: up
  routes:
  - name: r1
    paths: [/1]
    plugins:
    - name: hello
- name: two
  host: up
routes:
- name: r2
  paths: [/2]
  service: two
- paths: [/unnamed]
consumers:
- username: bob
  keyauth_credentials: [{key: k}]
plugins:
- name: hello
  service: two
]]

  local function load_with_cache()
    local loaded, errors = config.load({ file }, { cache_path = function() return dir .. "/cache" end })
    if not loaded then return nil, errors end
    local records = loaded:records(1)
    loaded:keep()
    return records, loaded
  end

  local function text_of(errors)
    local lines = {}
    for i, err in ipairs(errors) do lines[i] = err.text end
    return table.concat(lines, "\n")
  end

  -- Loads BASE, then `text`, which must come out as if nothing had been kept. Gives how many entries were taken over.
  local function reload(text)
    write("kong.yml", BASE)
    assert(load_with_cache())
    write("kong.yml", text)
    local records, loaded = load_with_cache()
    local whole, errors = config.load { file }
    if not whole then
      assert.is_nil(records)
      assert.equal(text_of(errors), text_of(loaded))
      return text_of(errors)
    end
    assert.same(whole:records(1), records)
    local taken = 0
    for _, entries in pairs(loaded.loader.entries) do
      for _, entry in ipairs(entries) do taken = taken + (entry.known and 1 or 0) end
    end
    return taken
  end

  local function replaced(from, to)
    local first, last = BASE:find(from, 1, true)
    return BASE:sub(1, first - 1) .. to .. BASE:sub(last + 1)
  end

  it("takes everything over when nothing changed", function()
    assert.equal(9, reload(BASE))
  end)

  it("reads only the item that changed", function()
    assert.equal(8, reload(replaced("host: up\nroutes", "host: down\nroutes")))
    assert.equal(6, reload(replaced("paths: [/1]", "paths: [/one]")))
  end)

  it("reads what is new and forgets what is gone", function()
    assert.equal(9, reload(replaced("plugins:\n- name: hello\n", "plugins:\n- name: hello\n  consumer: bob\n"
      .. "- name: hello\n")))
    assert.equal(7, reload(replaced("- username: bob\n  keyauth_credentials: [{key: k}]\n", "")))
  end)

  it("keeps the order of the file", function()
    assert.equal(9, reload((replaced("- name: r2\n  paths: [/2]\n  service: two\n- paths: [/unnamed]\n",
      "- paths: [/unnamed]\n- name: r2\n  paths: [/2]\n  service: two\n"))))
  end)

  it("finds the error in what did not change", function()
    assert.matches('route "r2" (routes[0]): service: expected the id or name of a service',
      reload(replaced("- name: two\n", "- name: zwei\n")), 1, true)
  end)

  it("finds what collides with what did not change", function()
    assert.matches("no other route has", reload(replaced("- paths: [/unnamed]", "- name: r1\n  paths: [/]")))
    assert.matches("expected one such plugin",
      reload(BASE .. "- name: hello\n  id: 5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319\n  service: two\n"))
  end)

  it("reads everything when the head changed", function()
    assert.equal(0, reload(replaced('_format_version: "3.0"', '_format_version: "2.1"')))
  end)

  it("reads again what uses a plugin whose code changed", function()
    write("kong.yml", BASE)
    assert(load_with_cache())
    write("plugins/hello/schema.lua", 'return { greeting = { type = "string", default = "ahoy!" } }')
    local records = assert(load_with_cache())
    assert.same(config.load({ file }):records(1), records)
    assert.matches("ahoy!", table.concat(records), 1, true)
    write("plugins/hello/handler.lua", "return {")
    assert.is_nil((load_with_cache()))
  end)

  it("is not misled by a cache that is damaged or not its own", function()
    write("kong.yml", BASE)
    local records = assert(load_with_cache())
    for _, bytes in ipairs { "", "nonsense", ("\0"):rep(100) } do
      write("cache", bytes)
      assert.same(records, (load_with_cache()))
    end
  end)

  it("keeps nothing where two unnamed entities are equal, as their ids depend on each other", function()
    write("kong.yml", (replaced("- paths: [/unnamed]", "- paths: [/unnamed]\n- paths: [/unnamed]")))
    assert(load_with_cache())
    assert.is_nil(lfs.attributes(dir .. "/cache"))
  end)

  it("lets nobody else read what it kept", function()
    write("kong.yml", BASE)
    assert(load_with_cache())
    assert.equal("rw-------", lfs.attributes(dir .. "/cache", "permissions"))
  end)
end)
