-- SPDX-License-Identifier: Apache-2.0
-- Loads a configuration: files and folders, or a table, to the records of a snapshot; or every error in it at once.
--
--   source (files, YAML, JSON) -> secrets -> gateway -> collect (nested to flat, fields) -> link (ids) -> rules
local lfs = require "lfs"
local collect = require "sluice.config.collect"
local entities = require "sluice.config.entities"
local errors = require "sluice.config.errors"
local gateway = require "sluice.config.gateway"
local link = require "sluice.config.link"
local registries = require "sluice.config.registry"
local rules = require "sluice.config.rules"
local secrets = require "sluice.config.secrets"
local snapshot = require "sluice.snapshot"
local source = require "sluice.config.source"

local config = {}

local function absolute(path)
  if path:sub(1, 1) == "/" then return path end
  if path == "." then return lfs.currentdir() end
  return lfs.currentdir() .. "/" .. path:gsub("^%./", "")
end

-- The folder that holds lua/ and plugins/.
local function home()
  local here = debug.getinfo(1, "S").source:match("^@(.*)/lua/sluice/config/init%.lua$")
  return absolute(os.getenv("SLUICE_HOME") or here or ".")
end

-- The folder beside whose things a file or a folder of files stands: what is written there by default must not be in
-- the folder that is watched.
local function folder_of(path)
  local folder = absolute(path):gsub("/+$", ""):match("^(.*)/[^/]*$")
  return folder ~= "" and folder or "/"
end

local function read_sources(loader, paths)
  local files, watch, missing = source.files(paths)
  loader.watch = watch
  for _, err in ipairs(missing) do errors.add(loader.errors, err) end
  for _, file in ipairs(files) do
    local src, err = source.read(file)
    src.base = folder_of(file)
    loader.sources[#loader.sources + 1] = src
    if err then errors.add(loader.errors, err) end
  end
end

-- Bundled plugins first: one of the operator's with the same name takes its place.
local function plugin_dirs(section)
  local dirs = { home() .. "/plugins" }
  for _, dir in ipairs(section.plugin_dirs) do
    if absolute(dir) ~= dirs[1] then dirs[#dirs + 1] = dir end
  end
  return dirs
end

local function check(loader, options)
  if not secrets.resolve(loader, options.getenv) then return end
  loader.gateway = gateway.read(loader, loader.base, options.getenv)
  collect.run(loader)
  link.run(loader)
  local section = loader.gateway
  loader.registry = options.registry or registries.open(plugin_dirs(section), section.trusted_plugins)
  rules.run(loader)
end

-- The operator's broken plugins that nothing uses are told, but stop nothing. The bundled ones are not even loaded.
local function warn_of_broken(loader)
  local registry = loader.registry
  local bundled = home() .. "/plugins/"
  for _, name in ipairs(registry.codes and registry.names or {}) do
    local _, problem
    if registry.codes[name].dir:sub(1, #bundled) ~= bundled then _, problem = registry:get(name) end
    if problem and not loader.broken[problem.file .. ":" .. (problem.line or 0)] then
      errors.warn(loader.errors, { file = problem.file, line = problem.line, message = problem.message,
        entity = ('plugin "%s" (not used)'):format(name) })
    end
  end
end

local function encoder_of(definition)
  if not definition.encode then
    local names = { "kind" }
    for _, field in ipairs(definition.fields) do names[#names + 1] = (next(field)) end
    definition.encode = snapshot.encoder(names)
  end
  return definition.encode
end

local function encode_entities(loader, records, counts)
  for _, collection in ipairs(entities.order) do
    local list = loader.entries[collection]
    local encode = encoder_of(entities.by_collection[collection])
    counts[collection] = #list
    for i = 1, #list do
      local record = list[i].record
      record.kind = list[i].definition.kind
      records[#records + 1] = encode(record)
    end
  end
end

-- The records of a snapshot, encoded: meta first, then plugin code, then entities, each kind behind what it refers to.
local function records_of(loader, revision)
  local records, counts = { "" }, {}
  for _, record in ipairs(rules.plugin_code(loader)) do records[#records + 1] = record end
  encode_entities(loader, records, counts)
  records[1] = snapshot.encode { kind = "meta", revision = revision, gateway = loader.gateway, counts = counts }
  return records
end

local Configuration = {}
Configuration.__index = Configuration

-- The encoded records of a snapshot of this revision.
function Configuration:records(revision)
  return records_of(self.loader, revision)
end

-- The entities of a collection ("routes") as tables, in the order of the files.
function Configuration:list(collection)
  local list = {}
  for i, entry in ipairs(self.loader.entries[collection]) do list[i] = entry.record end
  return list
end

local function finish(loader)
  local failed, warnings = errors.finish(loader.errors)
  if #failed > 0 then
    return nil, failed, { warnings = warnings, watch = loader.watch, dirs = loader.registry and loader.registry.dirs,
      gateway = loader.gateway }
  end
  return setmetatable({ gateway = loader.gateway, warnings = warnings, watch = loader.watch,
    dirs = loader.registry.dirs, files = #loader.sources, loader = loader }, Configuration)
end

local function run(loader, options)
  if #loader.errors.list == 0 then
    check(loader, options)
    if loader.registry and options.warn_of_broken then warn_of_broken(loader) end
  end
  return finish(loader)
end

-- Loads files and folders as one configuration. Options: `registry` (default: the plugins in gateway.plugin_dirs),
-- `getenv`, `warn_of_broken`. Returns the configuration { gateway, warnings, watch, dirs, records(), list() }; or nil,
-- the errors (see config.errors), and what is known all the same { warnings, watch, dirs, gateway }.
function config.load(paths, options)
  local loader = { sources = {}, errors = errors.new(), watch = {}, base = folder_of(paths[1]) }
  read_sources(loader, paths)
  return run(loader, options or {})
end

-- The same of a table in the shape of a file. `options.name` is what errors call it.
function config.of_table(tree, options)
  options = options or {}
  local src = source.of_table(options.name or "configuration", tree)
  local loader = { sources = { src }, errors = errors.new(), watch = {}, base = lfs.currentdir() }
  return run(loader, options)
end

-- The same of a text, YAML or JSON.
function config.of_text(text, options)
  options = options or {}
  local src, err = source.parse(options.name or "configuration", text)
  src.base = lfs.currentdir()
  local loader = { sources = { src }, errors = errors.new(), watch = {}, base = src.base }
  if err then errors.add(loader.errors, err) end
  return run(loader, options)
end

-- The folder that holds lua/ and plugins/.
config.home = home

return config
