-- SPDX-License-Identifier: Apache-2.0
-- The tables of options in READMEs are what the schemas say; `sluice plugin docs NAME --write` renews one.
local spec = require "sluice.spec" -- luacheck: ignore 211 (some plugins' code needs its state)
local docs = require "sluice.cli.plugin.docs"
local plugins = require "sluice.plugins"
local process = require "spec.support.process"
local schema = require "sluice.schema"

describe("the README of the plugin", function()
  local found = plugins.discover { "plugins" }
  local names = {}
  for name in pairs(found) do names[#names + 1] = name end
  table.sort(names)

  for _, name in ipairs(names) do
    local readme = process.read_file(found[name].dir .. "/README.md")
    if readme:find("<!-- options -->", 1, true) then
      it(name .. " has the options of its schema", function()
        local plugin, why = plugins.load(found[name], { trusted = true })
        assert(plugin, why and why.message)
        local table_shown = readme:match("<!%-%- options %-%->\n(.-)<!%-%-")
        assert.equal(docs.table(assert(schema.normalise(plugin.schema))), table_shown)
      end)
    end
  end
end)
