-- SPDX-License-Identifier: Apache-2.0
-- What a spec says of its gateway, as a configuration: entities as tables (or a YAML text) through the very loader of
-- `sluice check`, with the plugins of the folders that the spec stands in.
local cjson = require "cjson"
local config = require "sluice.config"
local lfs = require "lfs"

local setup = {}

-- What is the kit's own; everything else is Kong's declarative format.
local OWN = { config = true, upstreams = true, dns = true, env = true, time = true, seed = true, plugin_dirs = true,
  plugins_code = true, topics = true }

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = copy(item) end
  return setmetatable(result, getmetatable(value))
end

-- ---- Plugins ----

local function is_folder(path)
  return lfs.attributes(path, "mode") == "directory"
end

local function absolute(path)
  if path:sub(1, 1) == "/" then return path end
  return lfs.currentdir() .. "/" .. path:gsub("^%./", "")
end

-- The folder of plugins around the spec that asks: .../plugins/NAME/spec/NAME_spec.lua.
local function folder_of_caller()
  for level = 2, 30 do
    local info = debug.getinfo(level, "S")
    if not info then return nil end
    local plugin = info.source:match("^@(.*)/spec/[^/]+$")
    if plugin and lfs.attributes(plugin .. "/handler.lua", "mode") then return plugin:match("^(.*)/[^/]+$") or "." end
  end
end

local function make_folders(path)
  if is_folder(path) then return end
  local parent = path:match("^(.+)/[^/]+$")
  if parent then make_folders(parent) end
  lfs.mkdir(path)
end

-- Lua in place of a file's text: a handler or schema as a function cannot be written to a file, a text can.
local function write_plugin(folder, name, files)
  if type(files) == "string" then files = { handler = files } end
  for file, text in pairs(files) do
    local path = ("%s/%s/%s"):format(folder, name, file:find("%.lua$") and file or file .. ".lua")
    if type(text) ~= "string" then
      error(("plugins_code.%s.%s: expected the text of a file, got a %s"):format(name, file, type(text)), 0)
    end
    make_folders(path:match("^(.*)/"))
    local out = assert(io.open(path, "wb"))
    out:write(text)
    out:close()
  end
end

local function plugin_dirs(options, directory)
  local dirs, seen = {}, {}
  local function add(dir)
    dir = absolute(dir)
    if not seen[dir] and is_folder(dir) then
      seen[dir] = true
      dirs[#dirs + 1] = dir
    end
  end
  for dir in (os.getenv("SLUICE_PLUGIN_DIRS") or "./plugins,./bin/demo/plugins"):gmatch("[^,]+") do add(dir) end
  local own = folder_of_caller()
  if own then add(own) end
  for _, dir in ipairs(options.plugin_dirs or {}) do add(dir) end
  if options.plugins_code and directory then
    local folder = directory .. "/plugins"
    make_folders(folder)
    for name, files in pairs(options.plugins_code) do write_plugin(folder, name, files) end
    add(folder)
  end
  return dirs
end

-- ---- Entities ----

local function default_route(name)
  return { name = name, paths = { "/" }, strip_path = false }
end

-- A spec of a plugin need not say where requests come from and go to.
local function add_defaults(tree)
  if tree.routes or tree._format_version then return end
  if not tree.services then
    tree.services = { { name = "service", url = "http://service.example", routes = { default_route("route") } } }
  elseif #tree.services == 1 and type(tree.services[1]) == "table" and not tree.services[1].routes then
    tree.services[1].routes = { default_route("route") }
  end
end

-- Items of `upstreams` in order are Kong's entities; those by name are services that the kit plays.
local function split_upstreams(given)
  local entities, played = {}, {}
  for key, value in pairs(given or {}) do
    if type(key) == "number" then entities[key] = value else played[key] = value end
  end
  return #entities > 0 and entities or nil, played
end

-- Where a spec has topics there is a cluster to reach them by.
local function add_cluster(tree, options)
  if not options.topics then return end
  tree.gateway = tree.gateway or {}
  tree.gateway.kafka = tree.gateway.kafka or { main = { ["bootstrap.servers"] = "kafka.example:9092" } }
end

local function tree_of(options)
  local tree = {}
  for key, value in pairs(options) do
    if not OWN[key] then tree[key] = copy(value) end
  end
  tree.upstreams = copy((split_upstreams(options.upstreams)))
  add_defaults(tree)
  add_cluster(tree, options)
  tree._format_version = tree._format_version or "3.0"
  return tree
end

-- ---- Loading ----

local function environment(options, dirs)
  local own = { SLUICE_PLUGIN_DIRS = table.concat(dirs, ",") }
  for name, value in pairs(options.env or {}) do own[name] = value end
  return function(name)
    if own[name] ~= nil then return own[name] or nil end
    return name:sub(1, 7) ~= "SLUICE_" and os.getenv(name) or nil
  end
end

-- The configuration, or nil and the list of errors. `directory`: where inline plugins are written.
function setup.load(options, directory)
  local dirs = plugin_dirs(options, directory)
  local load_options = { name = "configuration", getenv = environment(options, dirs) }
  if type(options.config) == "string" then return config.of_text(options.config, load_options) end
  return config.of_table(options.config and copy(options.config) or tree_of(options), load_options)
end

-- The same as files for a gateway process: the text of its configuration, and where plugins are.
function setup.files(options, directory)
  local dirs = plugin_dirs(options, directory)
  if type(options.config) == "string" then return options.config, dirs end
  return cjson.encode(options.config or tree_of(options)), dirs
end

-- Errors as `sluice check` prints them.
function setup.text(errors)
  local lines = {}
  for i, err in ipairs(errors) do lines[i] = err.text end
  return table.concat(lines, "\n")
end

-- The services that the kit plays, by "name:port", "name" or "*".
function setup.services(options)
  local _, played = split_upstreams(options.upstreams)
  return played
end

return setup
