-- SPDX-License-Identifier: Apache-2.0
-- Finds plugins in folders and loads them: source text into handler, schema and what the runtime must know of both.
-- The checker does this to validate, each worker to run; both get the same texts, the worker's out of the snapshot.

local bit = require "bit"
local phases = require "sluice.phases"
local sandbox = require "sluice.sandbox"

local plugins = {}

-- ---- Finding ------------------------------------------------------------------------------------------------------

local function read_text(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read("*a")
  file:close()
  return text
end

local function entries(lfs, dir)
  local names = {}
  local ok, iterate, state = pcall(lfs.dir, dir)
  if not ok then return names end
  for name in iterate, state do
    if name:sub(1, 1) ~= "." then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- Lua files below `dir`, without the plugin's own specs: those are no part of what runs.
local function collect(lfs, dir, prefix, files)
  for _, name in ipairs(entries(lfs, dir)) do
    local path = dir .. "/" .. name
    local mode = lfs.attributes(path, "mode")
    if mode == "directory" and not (prefix == "" and name == "spec") then
      collect(lfs, path, prefix .. name .. "/", files)
    elseif mode == "file" and name:sub(-4) == ".lua" then
      files[prefix .. name] = read_text(path)
    end
  end
  return files
end

local FNV_PRIME, FNV_OFFSET = 0x100000001b3ULL, 0xcbf29ce484222325ULL

local function fnv(hash, text)
  for i = 1, #text do hash = bit.bxor(hash, text:byte(i)) * FNV_PRIME end
  return hash
end

-- Tells one set of files from another (FNV-1a, 64 bits): for reuse and display, not a defence against forgery.
---@param files table<string, string> texts by path
---@return string 16 hex digits
function plugins.hash(files)
  local paths = {}
  for path in pairs(files) do paths[#paths + 1] = path end
  table.sort(paths)
  local hash = FNV_OFFSET
  for _, path in ipairs(paths) do
    hash = fnv(fnv(hash, path .. "\0" .. #files[path] .. "\0"), files[path])
  end
  return bit.tohex(bit.rshift(hash, 32), 8) .. bit.tohex(hash, 8)
end

-- A plugin may be made of another's modules: its file `uses` names such plugins, one a line. Their files are among its
-- own then, at "../NAME/": it gets modules of its own, and is another plugin when theirs change.
local function add_used(code, found)
  local own = {}
  for path, text in pairs(code.files) do own[path] = text end
  for name in (read_text(code.dir .. "/uses") or ""):gmatch("[^%s]+") do
    local other = found[name]
    for path, text in pairs(other and other.files or {}) do
      if path:sub(1, 3) ~= "../" then own["../" .. name .. "/" .. path] = text end
    end
  end
  return own
end

-- Every folder in `dirs` that holds a handler.lua, by name; a later folder's plugin replaces an earlier one's.
---@param dirs string[]
---@return table<string, { name: string, dir: string, files: table<string, string>, hash: string }>
function plugins.discover(dirs)
  local lfs = require "lfs"
  local found = {}
  for _, dir in ipairs(dirs) do
    for _, name in ipairs(entries(lfs, dir)) do
      local folder = dir .. "/" .. name
      if name:find("^%w[%w_-]*$") and lfs.attributes(folder .. "/handler.lua", "mode") == "file" then
        found[name] = { name = name, dir = folder, files = collect(lfs, folder, "", {}) }
      end
    end
  end
  for _, code in pairs(found) do
    code.files = add_used(code, found)
    code.hash = plugins.hash(code.files)
  end
  return found
end

-- ---- Errors -------------------------------------------------------------------------------------------------------

-- The owner's file that an error names: LuaJIT tells the end alone of a long name, behind "...".
local function file_of(owner, name)
  local tail = name:match("^%.%.%.(.+)$")
  if not tail then return name:find(owner.dir, 1, true) == 1 and name or nil end
  for path in pairs(owner.files) do
    local file = owner.dir .. "/" .. path
    if file:sub(-#tail) == tail then return file end
  end
end

-- "dir/file.lua:7: message" in parts; what has no place is put at the start of `path`.
local function failure(owner, path, message)
  message = tostring(message)
  local file, line, what = message:match("^(.-):(%d+): (.*)$")
  file = file and file_of(owner, file)
  if file then return { file = file, line = tonumber(line), message = what, plugin = owner.name } end
  return { file = owner.dir .. "/" .. path, line = 1, message = message, plugin = owner.name }
end

-- ---- Spelling of phases -------------------------------------------------------------------------------------------

local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local corner = row[0]
    row[0] = i
    for j = 1, #b do
      local above = row[j]
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(above + 1, row[j - 1] + 1, corner + cost)
      corner = above
    end
  end
  return row[#b]
end

-- The phase that somebody who wrote `name` may have meant.
local function meant(name)
  local plain = name:gsub("%u", function(letter) return "_" .. letter:lower() end):gsub("-", "_"):gsub("^_", "")
  for number = 0, #phases.names do -- the table starts at 0
    local phase = phases.names[number]
    if distance(plain, phase) <= (#phase > 4 and 2 or 1) then return phase end
  end
end

-- ---- Loading ------------------------------------------------------------------------------------------------------

local function phases_of(handler)
  local mask = 0
  for number = 0, #phases.names do
    local fn = handler[phases.names[number]]
    if fn ~= nil then
      if type(fn) ~= "function" then
        return nil, phases.names[number] .. ": expected a function, found a " .. type(fn)
      end
      mask = bit.bor(mask, bit.lshift(1, number))
    end
  end
  return mask
end

local function warnings_of(handler)
  local warnings = {}
  for name, value in pairs(handler) do
    if type(value) == "function" and type(name) == "string" and not phases.numbers[name] then
      local phase = meant(name)
      if phase then
        warnings[#warnings + 1] = ("function '%s' is not a phase and is never called: did you mean %s?")
          :format(name, phase)
      end
    end
  end
  table.sort(warnings)
  return warnings
end

-- "a nil" reads badly.
local function kind_of(value)
  return value == nil and "nothing" or "a " .. type(value)
end

local function check_handler(handler)
  if type(handler) ~= "table" then return "the file must return the plugin's table, found " .. kind_of(handler) end
  if type(handler.version) ~= "string" then
    return "version: expected a string such as \"1.0.0\", found " .. kind_of(handler.version)
  end
  local priority = handler.priority
  if type(priority) ~= "number" or priority ~= priority or math.abs(priority) == math.huge then
    return "priority: expected a number, found " .. kind_of(priority)
  end
  if handler.needs ~= nil and type(handler.needs) ~= "function" then
    return "needs: expected a function, found " .. kind_of(handler.needs)
  end
  if handler.response and (handler.header_filter or handler.body_filter) then
    return "a plugin has response, or header_filter and body_filter, not both"
  end
end

local function run_file(owner, path, call)
  local chunk, message = sandbox.compile(owner, path)
  if not chunk then return nil, failure(owner, path, message) end
  local ok, result = call(chunk)
  if not ok then return nil, failure(owner, path, result) end
  return { result = result }
end

---@class sluice.plugin
---@field name string
---@field dir string
---@field hash string
---@field version string
---@field priority number
---@field phases integer mask of 1 << phase
---@field handler table
---@field schema any what schema.lua returned, nil without one
---@field warnings string[]
---@field trusted boolean

-- Loads a plugin's code into an environment of its own.
---@param code table { name, dir, files, hash }
---@param options? { trusted: boolean, call: fun(fn): boolean, any } `call` runs the plugin's code in place of pcall
---@return sluice.plugin|nil
---@return { file: string, line: integer, message: string, plugin: string }|nil err
function plugins.load(code, options)
  options = options or {}
  local call = options.call or pcall
  local plugin = {
    name = code.name, dir = code.dir, files = code.files, hash = code.hash or plugins.hash(code.files),
    trusted = options.trusted == true,
  }
  if not plugin.files["handler.lua"] then return nil, failure(plugin, "handler.lua", "there is no handler.lua") end
  sandbox.environment(plugin, plugin.trusted)
  if plugin.files["schema.lua"] then
    local schema, err = run_file(plugin, "schema.lua", call)
    if not schema then return nil, err end
    plugin.schema = schema.result
  end
  local run, err = run_file(plugin, "handler.lua", call)
  if not run then return nil, err end
  local handler = run.result
  local wrong = check_handler(handler)
  if wrong then return nil, failure(plugin, "handler.lua", wrong) end
  plugin.phases, wrong = phases_of(handler)
  if wrong then return nil, failure(plugin, "handler.lua", wrong) end
  plugin.handler, plugin.version, plugin.priority = handler, handler.version, handler.priority
  plugin.warnings = warnings_of(handler)
  return plugin
end

return plugins
