-- SPDX-License-Identifier: Apache-2.0
-- Schemas that Kong publishes beside ours: `sluice plugin compare`.
local compare = require "sluice.cli.plugin.compare"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local schema = require "sluice.schema"

local OURS = [[
return { name = "demo", fields = { { config = { type = "record", required = true, fields = {
  { mode = { type = "string", one_of = { "a", "b" }, default = "a" } },
  { count = { type = "integer", between = { 1, 100 }, default = 10 } },
  { names = { type = "set", elements = { type = "string" }, default = { "y", "x" } } },
  { limits = { type = "map", keys = { type = "string" }, values = { type = "number" } } },
  { pool = { type = "record", fields = { { size = { type = "number", default = 3 } } } } },
  { ours = { type = "boolean", default = true } },
}, shorthand_fields = { { old = { type = "string", func = function() end } } } } } } }
]]

local function published(changes)
  local config = {
    mode = { type = "string", enum = { "a", "b" }, default = "a" },
    count = { type = "integer", minimum = 1, maximum = 100, default = 10 },
    names = { type = "array", items = { type = "string" }, default = { "x", "y" } },
    limits = { type = "object", additionalProperties = { type = "number" } },
    pool = { type = "object", properties = { size = { type = "number", default = 3 } }, required = {} },
  }
  for name, field in pairs(changes or {}) do config[name] = field end
  return { properties = { config = { type = "object", properties = config, required = {},
    shorthand_fields = { old = { type = "string" } } } } }
end

local function differences(changes, ours)
  local normal = assert(schema.normalise(assert(loadstring(ours or OURS))()))
  local found, texts = compare.schemas(normal, published(changes)), {}
  for i, difference in ipairs(found) do texts[i] = difference.path .. " " .. difference.message end
  return texts, found.options
end

describe("a published schema beside ours", function()
  it("has no difference where ours takes all that it takes, with its defaults", function()
    local texts, options = differences()
    assert.same({}, texts)
    assert.equal(8, options) -- elements and values are some as well
  end)

  for about, case in pairs {
    ["a field that is not there"] = { { other = { type = "string" } }, "config.other is not there" },
    ["another type"] = { { count = { type = "string", default = 10 } },
      "config.count is of type integer, published is string" },
    ["a type that takes more"] = { { count = { type = "number", minimum = 1, maximum = 100, default = 10 } },
      "config.count is of type integer, published is number" },
    ["another default"] = { { mode = { type = "string", enum = { "a", "b" }, default = "b" } },
      'config.mode its default is "a", published is "b"' },
    ["no default"] = { { mode = { type = "string", enum = { "a", "b" } } },
      'config.mode its default is "a", published is none' },
    ["other elements by default"] = {
      { names = { type = "array", items = { type = "string" }, default = { "x", "x" } } },
      'config.names its default is ["y","x"], published is ["x","x"]' },
    ["a choice that is not taken"] = { { mode = { type = "string", enum = { "a", "b", "c" }, default = "a" } },
      'config.mode does not take "c"' },
    ["no choice at all"] = { { mode = { type = "string", default = "a" } },
      'config.mode takes only a or b, published is any' },
    ["a lower bound"] = { { count = { type = "integer", minimum = 0, maximum = 100, default = 10 } },
      "config.count values from 1 on, published is 0" },
    ["no upper bound"] = { { count = { type = "integer", minimum = 1, default = 10 } },
      "config.count values up to 100, published is any" },
    ["values of another type"] = { { limits = { type = "object", additionalProperties = { type = "string" } } },
      "config.limits{} is of type number, published is string" },
    ["a field of a record"] = {
      { pool = { type = "object", properties = { size = { type = "number", default = 4 } } } },
      "config.pool.size its default is 3, published is 4" },
  } do
    it("tells " .. about, function()
      assert.same({ case[2] }, (differences(case[1])))
    end)
  end

  it("tells a field that is required only here, and a shorthand that is only there", function()
    assert.same({ "config.ours is required", "config.old is not there, published is a shorthand" },
      (differences(nil, (OURS:gsub("default = true", "required = true"):gsub("old =", "older =")))))
  end)

  it("does not tell what ours takes besides", function()
    assert.same({}, (differences {
      mode = { type = "string", enum = { "a" }, default = "a" },
      count = { type = "integer", minimum = 5, maximum = 10, default = 10 },
    }))
  end)
end)

describe("sluice plugin compare", function()
  local directory

  setup(function()
    directory = posix.temporary_directory()
    os.execute("mkdir -p " .. directory .. "/plugins/demo-plugin")
    process.write_file(directory .. "/plugins/demo-plugin/handler.lua", "return { version = '1.0.0', priority = 1 }")
    process.write_file(directory .. "/plugins/demo-plugin/schema.lua", (OURS:gsub('"demo"', '"demo-plugin"')))
    process.write_file(directory .. "/Absent.json", '{"properties": {}}')
    process.write_file(directory .. "/broken.json", "{")
  end)

  teardown(function() process.remove(directory) end)

  local function run(...)
    return process.run({ "bin/sluice", "plugin", "compare", "--dir", directory .. "/plugins", ... })
  end

  local function publish(changes)
    local path = directory .. "/DemoPlugin-3.15.json"
    process.write_file(path, require("cjson").encode(published(changes)))
    return path
  end

  it("goes by the names of files, counts, and fails for a difference only", function()
    local status, out, err = run(publish(), directory .. "/Absent.json")
    assert.equal("", err)
    assert.same({ 0, "plugins: 1, options: 8, differences: 0; plugins that are not here: 1\n" }, { status, out })
    status, out = run(publish { other = { type = "string" } })
    assert.same({ 1, "demo-plugin: config.other is not there\n"
      .. "plugins: 1, options: 8, differences: 1; plugins that are not here: 0\n" }, { status, out })
  end)

  it("says which file is none, and what it expects", function()
    local status, out, err = run(directory .. "/broken.json")
    assert.same({ 1, "" }, { status, out })
    assert.matches("broken.json: expected a JSON Schema with properties, found", err, 1, true)
    status, out, err = run(directory .. "/no.json")
    assert.same({ 1, "" }, { status, out })
    assert.matches("no.json: No such file", err, 1, true)
    status, out, err = run()
    assert.same({ 2, "" }, { status, out })
    assert.matches("expected files of JSON Schema", err, 1, true)
  end)
end)
