-- SPDX-License-Identifier: Apache-2.0
-- A plugin whose functions stand in its configuration, as texts by phase: what pre-function and post-function are.
--
-- A text is a chunk that runs for each exchange, with (conf, exchange, chunk, last) as its arguments, or (conf,
-- exchange, frame). One that returns a function runs once: the function takes its place, so that its upvalues last.

local error, ipairs, pairs, setmetatable, type = error, ipairs, pairs, setmetatable, type
local lower = string.lower

local STREAM_LOG = require("sluice.phases").numbers["log (stream)"]

local functions = {}

local PHASES = {
  "certificate", "preread", "rewrite", "access", "header_filter", "body_filter", "log", "ws_client_frame",
  "ws_upstream_frame",
}
-- Kong's for WebSockets, which here run in phases of every request: behind the code for those, and for WebSockets only.
local WEBSOCKET = { ws_handshake = "access", ws_close = "log" }

-- ---- Schema -------------------------------------------------------------------------------------------------------

local function texts(about, check)
  return { type = "array", default = {}, about = about,
    elements = { type = "string", custom_validator = check } }
end

-- Fields of the configuration.
---@param code sluice.code
---@return table[] in Kong's form
function functions.fields(code)
  local fields = {}
  for _, phase in ipairs(PHASES) do
    fields[#fields + 1] = { [phase] = texts("Lua code for phase " .. phase, code.check) }
  end
  fields[#fields + 1] = { ws_handshake = texts("Lua code for a WebSocket's handshake, in phase access", code.check) }
  fields[#fields + 1] = { ws_close = texts("Lua code for a WebSocket's end, in phase log", code.check) }
  return fields
end

-- ---- Running ------------------------------------------------------------------------------------------------------

local function call(entry, conf, exchange, chunk, last)
  local out = entry.fn(conf, exchange, chunk, last)
  if type(out) ~= "function" or entry.is_made then return out end
  entry.fn, entry.is_made = out, true
  return out(conf, exchange, chunk, last)
end

-- `frame`: of the frame phases.
local function run(list, conf, exchange, frame)
  for i = 1, #list do call(list[i], conf, exchange, frame) end
end

-- Each function gets what the one before has passed on: what it returned, what it gave to set_raw_body (the runtime
-- notes both as `chunk` and `taken`), or the chunk as it was.
local function filter(list, conf, exchange, chunk, last)
  for i = 1, #list do
    exchange.chunk, exchange.taken = chunk, false
    local out = call(list[i], conf, exchange, chunk, last)
    if type(out) == "string" then chunk = out elseif exchange.taken then chunk = exchange.taken end
  end
  return chunk
end

local function compile_list(compiler, name, phase, texts_of_phase)
  local list = {}
  for i, text in ipairs(texts_of_phase or {}) do
    local fn, why = compiler(text, ("%s.%s[%d]"):format(name, phase, i))
    if not fn then error(why, 0) end
    list[i] = { fn = fn, is_made = false }
  end
  return list
end

local function compile(code, name, conf)
  local compiler, compiled = code.compiler(), {}
  for _, phase in ipairs(PHASES) do compiled[phase] = compile_list(compiler, name, phase, conf[phase]) end
  for phase in pairs(WEBSOCKET) do compiled[phase] = compile_list(compiler, name, phase, conf[phase]) end
  return compiled
end

local function is_websocket(exchange)
  if exchange.phase == STREAM_LOG then return false end
  local upgrade = exchange.request:get_header("upgrade")
  return upgrade ~= nil and lower(upgrade) == "websocket"
end

local function run_both(lists, phase, of_websockets, conf, exchange)
  run(lists[phase], conf, exchange)
  local list = lists[of_websockets]
  if list[1] and is_websocket(exchange) then run(list, conf, exchange) end
end

-- The handler.
---@param code sluice.code
---@param options { name: string, version: string, priority: number }
---@return table
function functions.plugin(code, options)
  local plugin = { version = options.version, priority = options.priority }
  local compiled = setmetatable({}, { __mode = "k" }) -- by configuration

  function plugin.needs(conf)
    local needed = {}
    for _, phase in ipairs(PHASES) do needed[phase] = conf[phase] ~= nil and conf[phase][1] ~= nil end
    for phase, where in pairs(WEBSOCKET) do
      needed[where] = needed[where] or conf[phase] ~= nil and conf[phase][1] ~= nil
    end
    return needed
  end

  -- A configuration that stays over a reload keeps its functions, and their upvalues.
  function plugin.configure(confs)
    for _, conf in ipairs(confs or {}) do compiled[conf] = compiled[conf] or compile(code, options.name, conf) end
  end

  for _, phase in ipairs(PHASES) do
    plugin[phase] = function(conf, exchange, frame) run(compiled[conf][phase], conf, exchange, frame) end
  end
  function plugin.access(conf, exchange) run_both(compiled[conf], "access", "ws_handshake", conf, exchange) end
  function plugin.log(conf, exchange) run_both(compiled[conf], "log", "ws_close", conf, exchange) end
  function plugin.body_filter(conf, exchange, chunk, last)
    return filter(compiled[conf].body_filter, conf, exchange, chunk, last)
  end
  return plugin
end

return functions
