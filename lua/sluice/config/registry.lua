-- SPDX-License-Identifier: Apache-2.0
-- The plugins that a configuration may name: found in folders, loaded in the sandbox, their schemas made ready.
-- A registry is { names, dirs, get(name) -> { code, plugin, schema } | nil, problem }.
local schema = require "sluice.schema"

local registry = {}

-- A broken plugin is told with the place that its author needs.
local function problem_of(code, err)
  if type(err) ~= "table" then err = { message = tostring(err) } end
  return { kind = "broken", name = code.name, file = err.file or code.dir, line = err.line,
    message = err.message or "it cannot be loaded" }
end

local function load_one(code, trusted)
  local plugins = require "sluice.plugins"
  local plugin, err = plugins.load(code, { trusted = trusted })
  if not plugin then return nil, problem_of(code, err) end
  local given = plugin.schema
  if given == nil then given = { fields = { { config = { type = "record", fields = {} } } } } end
  local normal, why = schema.normalise(given)
  if not normal then
    return nil, problem_of(code, { file = code.dir .. "/schema.lua", line = 1, message = why })
  end
  return { code = code, plugin = plugin, schema = normal, trusted = trusted }
end

local function get(self, name)
  local known = self.loaded[name]
  if known then return known.entry, known.problem end
  local code = self.codes[name]
  if not code then return nil, { kind = "missing", name = name } end
  known = {}
  known.entry, known.problem = load_one(code, self.trusted[name] or false)
  self.loaded[name] = known
  return known.entry, known.problem
end

-- The plugins in `dirs` (later folders win), of which those in `trusted` (a list of names) may use everything.
function registry.open(dirs, trusted)
  local plugins = require "sluice.plugins"
  local self = { dirs = dirs, codes = plugins.discover(dirs), names = {}, loaded = {}, trusted = {}, get = get }
  for name in pairs(self.codes) do table.insert(self.names, name) end
  table.sort(self.names)
  for _, name in ipairs(trusted) do self.trusted[name] = true end
  return self
end

-- A registry of schemas alone, { name = schema in either form }: for specs that need no code.
function registry.of_schemas(schemas)
  local self = { dirs = {}, names = {}, get = function(self, name)
    local entry = self[1][name]
    if entry then return entry end
    return nil, { kind = "missing", name = name }
  end, {} }
  for name, given in pairs(schemas) do
    self[1][name] = { schema = assert(schema.normalise(given)), code = { name = name, dir = name, files = {},
      hash = name }, trusted = false }
    table.insert(self.names, name)
  end
  table.sort(self.names)
  return self
end

return registry
