-- SPDX-License-Identifier: Apache-2.0
-- The process log for plugins: a constant message and keys, `log.warn("upstream refused", { peer = peer })`.
-- Several values in a row are joined, as Kong's plugins do it: `log.err("cannot reach ", host, ": ", err)`.

local ffi = require "ffi"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local select, type, tostring, pairs = select, type, tostring, pairs
local concat, sort = table.concat, table.sort

local log = {}

local MAX_PAIRS = 32

-- Kong's levels that the core does not tell apart are the next one below.
local LEVELS = { debug = 0, info = 1, notice = 2, warn = 3, err = 4, error = 4, crit = 5, alert = 5, emerg = 5 }

local cells = ffi.new("const char *[?]", MAX_PAIRS * 2)

-- A table whose keys are names: the facts that belong to the message.
local function is_facts(value)
  return type(value) == "table" and getmetatable(value) == nil and value[1] == nil
end

local function message_of(count, ...)
  local parts = {}
  for i = 1, count do parts[i] = tostring((select(i, ...))) end
  return concat(parts)
end

-- Lays the facts out for C; `alive` keeps the strings from being collected until the call is over.
local function lay_out(facts, plugin, alive)
  local names, count = {}, 0
  for name in pairs(facts) do names[#names + 1] = tostring(name) end
  sort(names)
  if plugin then
    cells[0], cells[1] = "plugin", plugin
    count = 1
  end
  for _, name in ipairs(names) do
    if count == MAX_PAIRS then break end
    local value = tostring(facts[name])
    alive[#alive + 1] = value
    cells[count * 2], cells[count * 2 + 1] = name, value
    count = count + 1
  end
  alive.names = names
  return count
end

local NO_FACTS = {}
local tap -- who else wants to know

local function write(level, plugin, ...)
  if worker == nil then return end -- the checker's only output is its findings
  local count = select("#", ...)
  local facts = NO_FACTS
  if count > 1 and is_facts((select(count, ...))) then
    facts = select(count, ...)
    count = count - 1
  end
  local alive = {}
  local message = message_of(count, ...)
  if tap then tap(level, plugin, message, facts) end
  local pairs_count = lay_out(facts, plugin, alive)
  C.bridge_log(worker, level, message, cells, pairs_count)
end

-- Functions of every level, writing the plugin's name with each fact.
---@param plugin? string
---@return sluice.log
function log.bind(plugin)
  local bound = { bind = log.bind }
  for name, level in pairs(LEVELS) do
    bound[name] = function(...) write(level, plugin, ...) end
  end
  return bound
end

local unbound = log.bind(nil)

-- From now on `fn(level, plugin, message, facts)` hears of each line of plugins, whatever the log's level. Not for
-- plugins: what they get is bound.
---@param fn fun(level: integer, plugin: string|nil, message: string, facts: table<string, any>)
function unbound.tap(fn)
  tap = fn
end

---@class sluice.log
---@field debug fun(message: any, ...)
---@field info fun(message: any, ...)
---@field notice fun(message: any, ...)
---@field warn fun(message: any, ...)
---@field err fun(message: any, ...)
---@field crit fun(message: any, ...)
return unbound
