-- SPDX-License-Identifier: Apache-2.0
-- Lua files as endpoints: the path of a request says which file answers it.
local code = require "sluice.code"
local function_stats = require "sluice.function_stats"
local log = require "sluice.log"
local together = require "sluice.together"

local plugin = { version = "1.0.0", priority = 3 }

local sets = setmetatable({}, { __mode = "k" }) -- by configuration: { by_path, only }
local kept = {} -- { text, entry } by instance and file: what a reload leaves as it is

-- ---- Once a configuration -------------------------------------------------------------------------------------------

local METHODS = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS" }

-- What a file gives: a function, or a table of functions by method.
local function entry_of(name, made)
  if type(made) == "function" then return { name = name, fn = made, running = 0 } end
  if type(made) ~= "table" then
    error(("%s: expected a function or a table of functions by method, found a %s"):format(name, type(made)), 0)
  end
  local entry = { name = name, methods = made, running = 0 }
  local allowed = {}
  for _, method in ipairs(METHODS) do
    if made[method] or method == "HEAD" and made.GET then allowed[#allowed + 1] = method end
  end
  entry.allow = table.concat(allowed, ", ")
  return entry
end

local function load_file(name, text)
  local chunk, err = code.compiler()(text, name)
  if not chunk then error(err, 0) end
  return { text = text, entry = entry_of(name, chunk()) }
end

local function set_of(conf)
  local set, before, names = { by_path = {}, files = {} }, kept[conf.__plugin_id] or {}, {}
  for name, text in pairs(conf.__files) do
    local known = before[name]
    local file = known and known.text == text and known or load_file(name, text)
    set.files[name] = file
    names[#names + 1] = name
    set.by_path[name:sub(#conf.__prefix + 1, -#".lua" - 1)] = file.entry
    if conf.file then set.only = file.entry end
  end
  function_stats.have(conf.__plugin_id, names)
  return set
end

function plugin.configure(confs)
  local keep = {}
  for _, conf in ipairs(confs or {}) do
    sets[conf] = sets[conf] or set_of(conf)
    keep[conf.__plugin_id] = sets[conf].files
  end
  kept = keep
end

-- ---- Once a request -------------------------------------------------------------------------------------------------

local function find(set, path)
  if set.only then return set.only end
  local name = path:gsub("^/+", ""):gsub("/+$", "")
  return set.by_path[name] or set.by_path[name == "" and "index" or name .. "/index"]
end

local function function_for(entry, method)
  if entry.fn then return entry.fn end
  return entry.methods[method] or method == "HEAD" and entry.methods.GET or nil
end

-- What a function gives: a status, a body, fields; or a body alone.
local function answer(exchange, status, body, headers)
  if type(status) ~= "number" then status, body, headers = nil, status, body end
  if status == nil then status = body == nil and 204 or 200 end
  exchange.response:exit(status, body, headers)
end

local function run(fn, exchange)
  answer(exchange, fn(exchange))
end

-- "file:line: message" and a traceback, apart.
local function parts_of(err)
  local message, traceback = tostring(err):match("^(.-)\n(stack traceback:.*)$")
  message = message or tostring(err)
  local at, what = message:match("^(.-:%d+): (.*)$")
  return what or message, at or "", traceback or ""
end

local function failed(exchange, entry, err)
  local message, at, traceback = parts_of(err)
  log.error("function failed", { ["function"] = entry.name, at = at, error = message, traceback = traceback,
    request_id = exchange.id })
  exchange.response:error(500)
end

-- The mark of an answer that has been given is no failure.
local function is_failure(err)
  return type(err) == "string"
end

local function note_end(call, _, err)
  local entry = call.entry
  entry.running = entry.running - 1
  if call.timed_out then return end
  function_stats.note(entry.name, is_failure(err) and "error" or "ok", function_stats.now() - call.began)
end

local function late(exchange, call, seconds)
  call.timed_out = true
  function_stats.note(call.entry.name, "timeout", seconds)
  log.error("function timed out", { ["function"] = call.entry.name, seconds = ("%.3f"):format(seconds),
    request_id = exchange.id })
  exchange.response:error(504, "The function did not answer in time")
end

function plugin.access(conf, exchange)
  local entry = find(sets[conf], exchange.service.request:get_path())
  if not entry then return exchange.response:exit(404, { message = "no such function" }) end
  local fn = function_for(entry, exchange.request:get_method())
  if not fn then
    return exchange.response:exit(405, { message = "method not allowed" }, { Allow = entry.allow })
  end
  if entry.running >= conf.max_in_flight then
    return exchange.response:exit(503, { message = "too many calls of this function" }, { ["Retry-After"] = 1 })
  end
  exchange:set_serialize_value("function", entry.name)
  local call = { entry = entry, began = function_stats.now() }
  local group = together.new { memory = conf.memory_limit * 1048576, on_end = note_end }
  local ok, why = group:start(call, run, fn, exchange)
  if not ok then error(why) end
  entry.running = entry.running + 1
  local done, _, err = group:next(conf.timeout / 1000)
  if not done then return late(exchange, call, conf.timeout / 1000) end
  if is_failure(err) then failed(exchange, entry, err) end
end

return plugin
