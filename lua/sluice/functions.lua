-- SPDX-License-Identifier: Apache-2.0
-- A plugin whose functions stand in its configuration, as texts by phase: what pre-function and post-function are.
--
-- A text is a chunk that runs for each exchange, with (conf, exchange, chunk, last) as its arguments, or (conf,
-- exchange, frame). One that returns a function runs once: the function takes its place, so that its upvalues last.

local error, ipairs, setmetatable, type = error, ipairs, setmetatable, type

local functions = {}

local PHASES = {
  "certificate", "preread", "rewrite", "access", "header_filter", "body_filter", "log", "ws_client_frame",
  "ws_upstream_frame",
}
local OTHERS = { ws_handshake = "access", ws_close = "log" } -- Kong's, which here are phases of every request

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
  for _, phase in ipairs { "ws_handshake", "ws_close" } do
    fields[#fields + 1] = { [phase] = texts("accepted, and not run: " .. OTHERS[phase] .. " is the phase for it",
      code.check) }
  end
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

local function compile(code, name, conf)
  local compiler, compiled = code.compiler(), {}
  for _, phase in ipairs(PHASES) do
    local list = {}
    for i, text in ipairs(conf[phase] or {}) do
      local fn, why = compiler(text, ("%s.%s[%d]"):format(name, phase, i))
      if not fn then error(why, 0) end
      list[i] = { fn = fn, is_made = false }
    end
    compiled[phase] = list
  end
  return compiled
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
    return needed
  end

  -- A configuration that stays over a reload keeps its functions, and their upvalues.
  function plugin.configure(confs)
    for _, conf in ipairs(confs or {}) do compiled[conf] = compiled[conf] or compile(code, options.name, conf) end
  end

  for _, phase in ipairs(PHASES) do
    plugin[phase] = function(conf, exchange, frame) run(compiled[conf][phase], conf, exchange, frame) end
  end
  function plugin.body_filter(conf, exchange, chunk, last)
    return filter(compiled[conf].body_filter, conf, exchange, chunk, last)
  end
  return plugin
end

return functions
