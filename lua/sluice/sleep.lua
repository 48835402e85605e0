-- SPDX-License-Identifier: Apache-2.0
-- Waiting in a plugin: the worker serves others meanwhile.

local core = require "sluice.api.core"

local C, worker = core.C, core.worker

-- Waits; raises in a phase that may not.
---@param seconds number 0 lets others run and goes on in the next turn of the loop
return function(seconds)
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then
    error("sluice.sleep: seconds must be a number of at least 0, got " .. tostring(seconds), 2)
  end
  local status = core.wait(C.bridge_sleep(worker, seconds))
  if status ~= 0 then error("sluice.sleep: " .. core.reason(status), 2) end
end
