-- SPDX-License-Identifier: Apache-2.0
-- Loads a configuration: files and folders, or a table, to the records of a snapshot; or every error in it at once.
--
--   source (files, YAML, JSON) -> secrets -> gateway -> collect (nested to flat, fields) -> link (ids) -> rules
local lfs = require "lfs"
local cache = require "sluice.config.cache"
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

-- Reads the files into loader.texts.
local function read_texts(loader, paths)
  local files, watch, missing = source.files(paths)
  loader.watch, loader.texts = watch, {}
  for _, err in ipairs(missing) do errors.add(loader.errors, err) end
  for _, file in ipairs(files) do
    local text, err = source.read(file)
    if err then errors.add(loader.errors, err) end
    table.insert(loader.texts, { file = file, text = text, base = folder_of(file) })
  end
end

local function parse_texts(loader)
  loader.sources = {}
  for i, given in ipairs(loader.texts) do
    local src, err = source.parse(given.file, given.text or "")
    src.base = given.base
    loader.sources[i] = src
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
  local section = loader.gateway
  loader.registry = options.registry or registries.open(plugin_dirs(section), section.trusted_plugins)
  collect.run(loader)
  if loader.take_items and not loader.take_items() then return end
  link.run(loader)
  rules.run(loader)
  return true
end

-- A load of what changed only. False, with `loader` as it was, when everything has to be read.
local function check_changes(loader, options)
  local function path_of()
    return options.cache_path(gateway.read(loader, loader.base, options.getenv))
  end
  if not options.cache_path then return false end
  if cache.begin(loader, home(), path_of) and check(loader, options) and not cache.in_doubt(loader) then return true end
  loader.errors, loader.sources, loader.used, loader.take_items, loader.twins = errors.new(), {}, nil, nil, nil
  return false
end

-- The operator's broken plugins that nothing uses are told, but stop nothing. The bundled ones are not even loaded.
local function warn_of_broken(loader)
  local registry = loader.registry
  local bundled = home() .. "/plugins/"
  for _, name in ipairs(registry.codes and registry.names or {}) do
    local _, problem
    if not loader.used[name] and registry.codes[name].dir:sub(1, #bundled) ~= bundled then
      _, problem = registry:get(name)
    end
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
      local entry = list[i]
      if not entry.bytes then
        entry.record.kind = entry.definition.kind
        entry.bytes = encode(entry.record)
      end
      records[#records + 1] = entry.bytes
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

-- Keeps what was found out, to make the next load of what has hardly changed fast. After records().
function Configuration:keep()
  if self.loader.cache_path then cache.keep(self.loader) end
end

-- The entities of a collection ("routes") as tables, in the order of the files. Not after a load with a cache.
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
    if loader.used and options.warn_of_broken then warn_of_broken(loader) end
  end
  return finish(loader)
end

-- Loads files and folders as one configuration. Options: `registry` (default: the plugins in gateway.plugin_dirs),
-- `getenv`, `warn_of_broken`, `cache_path` (function of the gateway's section: a file that keeps what this load
-- finds, so that the next need not find it again). Returns the configuration { gateway, warnings, watch, dirs,
-- records(), list() }; or nil, the errors (see config.errors), and what is known all the same { warnings, watch,
-- dirs, gateway }.
function config.load(paths, options)
  options = options or {}
  local loader = { sources = {}, errors = errors.new(), watch = {}, base = folder_of(paths[1]) }
  read_texts(loader, paths)
  if #loader.errors.list > 0 then return finish(loader) end
  if check_changes(loader, options) then
    if options.warn_of_broken then warn_of_broken(loader) end
    return finish(loader)
  end
  parse_texts(loader)
  return run(loader, options)
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
