-- SPDX-License-Identifier: Apache-2.0
-- Calls a function that may fail or take more CPU than a call may, and goes on: for work on what came from outside,
-- where one piece must not stop all that come behind it. A plugin's own pcall cannot do that, for who has used up its
-- budget is stopped at whatever it does next, unless it has waited.
--
--   local ok, text = attempt(encode, record)

local native = require "sluice.ffi"
local sleep = require "sluice.sleep"

local on_error = native.on_error
local xpcall, tostring = xpcall, tostring

-- The message without the traceback.
local function told(err)
  if type(err) ~= "string" then return tostring(err) end
  return err:match("^(.-)\nstack traceback:") or err
end

-- What was done before in the same turn may have taken most of the budget: who is stopped gets a turn for itself.
---@param fn fun(a: any, b: any): any it must be fit to be called twice
---@return boolean ok
---@return any result one, or why it failed
local function attempt(fn, a, b)
  local ok, result = xpcall(fn, on_error, a, b)
  if ok then return true, result end
  sleep(0)
  if tostring(result):find("stopped: passed its ", 1, true) then
    ok, result = xpcall(fn, on_error, a, b)
    if ok then return true, result end
    sleep(0)
  end
  return false, told(result)
end

return attempt
