-- SPDX-License-Identifier: Apache-2.0
-- Lua code that stands in a configuration. It sees what the plugin sees that runs it, and beside that `exchange`: the
-- one at hand, whichever function of the code looks, for a closure may outlive the exchange that it was made in; and
-- `kong` and `ngx`, Kong's globals over the same.

local error, load, pcall, rawset, setmetatable, tostring = error, load, pcall, rawset, setmetatable, tostring
local gsub = string.gsub

local pdk = require "sluice.pdk"
local GLOBALS = { kong = pdk.kong, ngx = pdk.ngx }

local code = {}

-- "code:2: message" to "line 2: message".
local function without_name(message)
  return (gsub(message, "^code:(%d+): ", "line %1: "))
end

-- Whether a text is Lua; a `custom_validator` for schemas.
---@param text string
---@return boolean|nil true
---@return string|nil err begins with "expected"
function code.check(text)
  local chunk, why = load(text, "=code", "t")
  if chunk then return true end
  return nil, "expected Lua code (" .. without_name(why) .. ")"
end

local function exchange_at_hand()
  local job = require("sluice.runtime").job()
  return job and job.exchange
end

local function look_up(env, name)
  return env[name]
end

-- Globals of the plugin's own are kept where they were found: what is there never changes. An undefined one is told at
-- the line of the code that wanted it.
local function environment(env)
  return setmetatable({}, { __metatable = false, __index = function(self, name)
    if name == "exchange" then return exchange_at_hand() end
    local make = GLOBALS[name]
    if make then
      local global = make(env.require, exchange_at_hand)
      rawset(self, name, global)
      return global
    end
    local ok, value = pcall(look_up, env, name)
    if not ok then error((gsub(tostring(value), "^[^\n]-:%d+: ", "")), 2) end
    rawset(self, name, value)
    return value
  end })
end

---@param owner { env: table }|nil the plugin; its globals are the code's
---@return sluice.code
function code.bind(owner)
  ---@class sluice.code
  local bound = { check = code.check }

  -- A function that compiles texts which share their globals.
  ---@return fun(text: string, name: string): function|nil, string|nil
  function bound.compiler()
    local env = environment(owner.env)
    return function(text, name)
      return load(text, "=" .. name, "t", env)
    end
  end

  -- Kong's global `kong`, for code that is compiled elsewhere.
  ---@return table
  function bound.kong()
    return pdk.kong(owner.env.require, exchange_at_hand)
  end

  return bound
end

return code
