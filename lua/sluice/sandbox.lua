-- SPDX-License-Identifier: Apache-2.0
-- The world a plugin sees: a global table of its own over a read-only standard library, and a `require` that finds the
-- plugin's own modules, what `sluice` offers and a few pure libraries. What could reach the process, other plugins or
-- raw memory is absent. A global that is not defined is an error that names it, with file and line.
--
-- Reading goes through constant tables and `__index` tables only, which compiled code folds away.

local sandbox = {}

local error, type, pairs, tostring = error, type, pairs, tostring
local getmetatable, setmetatable, rawget, rawset = getmetatable, setmetatable, rawget, rawset
local pcall, load, getfenv, setfenv = pcall, load, getfenv, setfenv
local create, resume, running, status, yield =
  coroutine.create, coroutine.resume, coroutine.running, coroutine.status, coroutine.yield

local MAX_REPEATED_BYTES = 64 * 1024 * 1024 -- of one string.rep: C code that the CPU budget cannot stop

-- ---- Read-only views ----------------------------------------------------------------------------------------------

local function refuse_write(_, key)
  error("this table is read-only: cannot set '" .. tostring(key) .. "'", 2)
end

-- An empty table that shows `content` and refuses writes.
local function read_only(content, call)
  return setmetatable({}, { __index = content, __newindex = refuse_write, __metatable = false, __call = call })
end

local function has_function(value)
  for _, field in pairs(value) do
    if type(field) == "function" then return true end
  end
  return false
end

-- A module as a plugin gets it: tables of functions in it (made when first touched) are views as well, while marks and
-- constants that happen to be tables keep their identity.
local function view(module)
  local shown = {}
  setmetatable(shown, { __index = function(_, key)
    local value = module[key]
    if type(value) == "table" and (getmetatable(value) ~= nil or has_function(value)) then
      value = view(value)
      rawset(shown, key, value)
    elseif value ~= nil and type(value) ~= "boolean" and type(value) ~= "number" then
      rawset(shown, key, value)
    end
    return value
  end })
  local meta = getmetatable(module)
  local call = type(meta) == "table" and meta.__call and function(_, ...) return module(...) end or nil
  return read_only(shown, call)
end

sandbox.view = view

-- ---- The standard library -----------------------------------------------------------------------------------------

local function only(library, names)
  local kept = {}
  for name in names:gmatch("%S+") do kept[name] = library[name] end
  return kept
end

local rep = string.rep

local function bounded_rep(text, count, separator)
  if type(text) == "number" then text = tostring(text) end
  if type(text) == "string" and type(count) == "number" then
    local each = #text + (type(separator) == "string" and #separator or 0)
    if each * count > MAX_REPEATED_BYTES then error("string.rep: the result would be too large", 2) end
  end
  return rep(text, count, separator)
end

-- A plugin sees the metatables that it set itself: those of strings, of the exchange and of other plugins' tables are
-- shared by all.
local function metatables()
  local mine = setmetatable({}, { __mode = "k" })
  local function safe_getmetatable(value)
    if type(value) ~= "table" then return nil end
    local meta = getmetatable(value)
    if type(meta) == "table" and not mine[meta] then return false end
    return meta
  end
  local function safe_setmetatable(value, meta)
    if type(meta) == "table" then mine[meta] = true end
    return setmetatable(value, meta)
  end
  return safe_getmetatable, safe_setmetatable
end

local function after_xpcall(handler, ok, ...)
  if ok then return true, ... end
  return false, handler((...))
end

-- The handler runs after the error has unwound, for within an error handler no budget could stop it.
local function safe_xpcall(fn, handler, ...)
  return after_xpcall(handler, pcall(fn, ...))
end

local function counting_collectgarbage(what)
  if what ~= "count" then error("collectgarbage: a plugin can ask for \"count\" only", 2) end
  return collectgarbage("count")
end

-- Bounds what methods of strings reach in every environment, for C code knows no budget.
function sandbox.bound_strings()
  rawset(string, "rep", bounded_rep)
end

-- ---- Coroutines ---------------------------------------------------------------------------------------------------
-- A call that waits yields nothing, up to C. In a coroutine of the plugin's own it must pass through the plugin's
-- resume unseen; what the plugin yields itself carries a mark in front to tell the two apart.

local MARK = {}
local own = setmetatable({}, { __mode = "k" })

local resume_through

local function after_resume(thread, ok, first, ...)
  if not ok then return false, first end
  if first == MARK then return true, ... end
  if status(thread) == "dead" then return true, first, ... end
  return resume_through(thread, yield())
end

function resume_through(thread, ...)
  return after_resume(thread, resume(thread, ...))
end

-- The gateway's own coroutines are no business of a plugin: resumed by it, they would be lost to the core.
local function own_resume(thread, ...)
  if type(thread) == "thread" and not own[thread] then
    return false, "coroutine.resume: only a coroutine that a plugin created"
  end
  return resume_through(thread, ...)
end

local function own_running()
  local thread = running()
  return thread and own[thread] and thread or nil
end

local function own_create(fn)
  local thread = create(fn)
  own[thread] = true
  return thread
end

local function own_yield(...)
  local thread = running()
  if not (thread and own[thread]) then
    error("coroutine.yield: only in a coroutine that the plugin created; to wait, call sluice.sleep", 2)
  end
  return yield(MARK, ...)
end

local function raise_or_pass(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

local function own_wrap(fn)
  local thread = own_create(fn)
  return function(...) return raise_or_pass(resume_through(thread, ...)) end
end

local COROUTINE = {
  create = own_create, wrap = own_wrap, yield = own_yield, resume = own_resume, status = status, running = own_running,
}

-- ---- Code made at run time ----------------------------------------------------------------------------------------

-- Source text only, and never in the runtime's own environment.
local function loader(env)
  local function safe_load(chunk, name, _, its_env)
    return load(chunk, name or "=(load)", "t", its_env == nil and env or its_env)
  end
  local function safe_loadstring(text, name)
    if type(text) ~= "string" then error("loadstring: expected a string", 2) end
    return load(text, name or "=(load)", "t", env)
  end
  return safe_load, safe_loadstring
end

-- Environments of the plugin's own functions; any other function's is shown as the plugin's own and cannot be set.
local function environments(env)
  local mine = setmetatable({ [env] = true }, { __mode = "k" })
  local function is_mine(fn)
    return type(fn) == "function" and mine[getfenv(fn)] == true
  end
  local function safe_getfenv(fn)
    return is_mine(fn) and getfenv(fn) or env
  end
  local function safe_setfenv(fn, its_env)
    if not is_mine(fn) then error("setfenv: only for a function of this plugin", 2) end
    if type(its_env) ~= "table" then error("setfenv: expected a table", 2) end
    mine[its_env] = true
    return setfenv(fn, its_env)
  end
  return safe_getfenv, safe_setfenv
end

-- ---- Globals ------------------------------------------------------------------------------------------------------

local function safe_random_seed()
  error("math.randomseed: the generator is shared and seeded already", 2)
end

local STRING = only(string, "byte char find format gmatch gsub len lower match reverse sub upper")
STRING.rep = bounded_rep
local MATH = only(math, "abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10 max min "
  .. "modf pi pow rad random sin sinh sqrt tan tanh")
MATH.randomseed = safe_random_seed
local TABLE = only(table, "concat insert maxn remove sort unpack move")
local OS = only(os, "clock date difftime time")
local BASE = only(_G, "assert error ipairs next pairs pcall rawequal rawget rawset rawlen select tonumber "
  .. "tostring type unpack _VERSION")
BASE.xpcall = safe_xpcall
BASE.collectgarbage = counting_collectgarbage

local LIBRARIES = { string = STRING, math = MATH, table = TABLE, os = OS, coroutine = COROUTINE, bit = require "bit" }

local ABSENT = {
  ffi = true, io = true, debug = true, package = true, jit = true, dofile = true, loadfile = true, module = true,
  newproxy = true, kong = true, ngx = true,
}

local HINTS = {
  print = "sluice.log writes to the process log",
  kong = "the exchange and require \"sluice\" give what Kong's PDK gives",
  ngx = "the exchange and require \"sluice\" give what it was for",
}

local function undefined(_, name)
  name = tostring(name)
  local hint = HINTS[name] or (ABSENT[name] and "it is for plugins under gateway.trusted_plugins")
  error("undefined global '" .. name .. "'" .. (hint and " (" .. hint .. ")" or ""), 2)
end

local function sandboxed_globals(env)
  local globals = {}
  for name, value in pairs(BASE) do globals[name] = value end
  for name, library in pairs(LIBRARIES) do globals[name] = read_only(library) end
  globals.load, globals.loadstring = loader(env)
  globals.getfenv, globals.setfenv = environments(env)
  globals.getmetatable, globals.setmetatable = metatables()
  return globals
end

-- ---- Modules ------------------------------------------------------------------------------------------------------

-- Pure libraries without a door to anything else.
local PURE = { bit = true, cjson = true, ["cjson.safe"] = true, ["table.new"] = true, ["table.clear"] = true }
local WITH_SETTINGS = { cjson = true, ["cjson.safe"] = true } -- each plugin gets an instance of its own

-- What plugins use of the gateway; everything else under `sluice.` is the runtime's own.
local PUBLIC = { ["sluice.tables"] = true }
for _, names in pairs(require "sluice.parts") do
  for _, name in ipairs(names) do PUBLIC["sluice." .. name] = true end
end

-- Modules that know whom they work for (timers, log lines) are bound to the plugin.
local function bound(name, owner)
  local module = require(name)
  if type(module) ~= "table" or type(rawget(module, "bind")) ~= "function" then return module end
  return module.bind(name == "sluice.log" and owner.name or owner)
end

local function shared_module(name, owner)
  if PURE[name] then
    local module = require(name)
    if WITH_SETTINGS[name] then module = module.new() end
    return type(module) == "table" and view(module) or module
  end
  if name == "sluice" or PUBLIC[name] then
    local module = bound(name, owner)
    return type(module) == "table" and view(module) or module
  end
end

-- Fields to build schemas from, under our name and under the one that Kong's plugins use.
local TYPEDEFS = { ["sluice.typedefs"] = true, ["kong.db.schema.typedefs"] = true }

-- Where a module is among the plugin's files: its own, or those of a plugin that it uses (see plugins.discover).
local function path_of(owner, name)
  local plugin, rest = name:match("^([%w_-]+)%.(.+)$")
  if not plugin then return nil end
  local base = (plugin == owner.name and "" or "../" .. plugin .. "/") .. rest:gsub("%.", "/")
  for _, path in ipairs { base .. ".lua", base .. "/init.lua" } do
    if owner.files[path] then return path end
  end
end

-- Compiles one file of the plugin; an error has file, line and message.
---@param owner table with name, dir, files, env
---@param path string inside the plugin's folder
---@return function|nil
---@return string|nil message
function sandbox.compile(owner, path)
  return load(owner.files[path], "@" .. owner.dir .. "/" .. path, "t", owner.env)
end

local LOADING = {}

local function requirer(owner, trusted)
  local loaded = {}
  local function load_own(name, path)
    local chunk, message = sandbox.compile(owner, path)
    if not chunk then error(message, 0) end
    loaded[name] = LOADING
    local ok, result = pcall(chunk, name)
    if not ok then
      loaded[name] = nil
      error(result, 0)
    end
    loaded[name] = result == nil and true or result
    return loaded[name]
  end
  return function(name)
    if type(name) ~= "string" then error("require: expected a string", 2) end
    local module = loaded[name]
    if module == LOADING then error("require: module '" .. name .. "' requires itself", 2) end
    if module ~= nil then return module end
    local path = path_of(owner, name)
    if path then return load_own(name, path) end
    if TYPEDEFS[name] then
      module = require("sluice.schema.typedefs").copy()
    elseif trusted then
      module = name:find("^sluice") and bound(name, owner) or require(name)
    else
      module = shared_module(name, owner)
    end
    if module == nil then
      error("require: no module '" .. name .. "' for plugin " .. owner.name
        .. " (its own files, sluice and pure libraries only)", 2)
    end
    loaded[name] = module
    return module
  end
end

-- The global table for one load of a plugin.
---@param owner table with name, files, dir; gets `env`
---@param trusted boolean everything of the runtime is in reach
---@return table env
function sandbox.environment(owner, trusted)
  local env = {}
  local globals = trusted and setmetatable({}, { __index = _G }) or sandboxed_globals(env)
  globals.require = requirer(owner, trusted)
  globals._G = env
  if trusted then
    globals.coroutine = COROUTINE
    setmetatable(env, { __index = globals })
  else
    setmetatable(globals, { __index = undefined })
    setmetatable(env, { __index = globals, __metatable = false })
  end
  owner.env = env
  return env
end

return sandbox
