-- SPDX-License-Identifier: Apache-2.0
-- Argument checks of the API: the message names the function and the argument, and points at the plugin's line.
--
-- Each check is called directly by the API function, so the plugin is two levels above it. Written out per type,
-- since a general one would build strings on the path that passes.

local error, type, tostring = error, type, tostring

local check = {}

-- The line of whoever called the API function which called the check which called this.
local CALLER = 4

local function refuse(name, argument, expected, found)
  local kind = type(found)
  local shown = kind == "nil" and "nil" or ("a " .. kind)
  if kind == "number" or kind == "boolean" then shown = kind .. " " .. tostring(found) end
  if kind == "string" then shown = ("string %q"):format(#found > 40 and found:sub(1, 40) .. "..." or found) end
  error(name .. ": " .. argument .. " must be " .. expected .. ", got " .. shown, CALLER)
end

---@param name string the API function
---@param argument string
---@param value any
function check.string(name, argument, value)
  if type(value) ~= "string" then refuse(name, argument, "a string", value) end
end

function check.string_or_nil(name, argument, value)
  if value ~= nil and type(value) ~= "string" then refuse(name, argument, "a string or nil", value) end
end

function check.table(name, argument, value)
  if type(value) ~= "table" then refuse(name, argument, "a table", value) end
end

function check.table_or_nil(name, argument, value)
  if value ~= nil and type(value) ~= "table" then refuse(name, argument, "a table or nil", value) end
end

function check.boolean(name, argument, value)
  if type(value) ~= "boolean" then refuse(name, argument, "a boolean", value) end
end

function check.callable(name, argument, value)
  if type(value) ~= "function" then refuse(name, argument, "a function", value) end
end

function check.number(name, argument, value)
  if type(value) ~= "number" or value ~= value then refuse(name, argument, "a number", value) end
end

---@param low number
---@param high number
function check.integer(name, argument, value, low, high)
  if type(value) ~= "number" or value % 1 ~= 0 or value < low or value > high then
    refuse(name, argument, ("an integer from %d to %d"):format(low, high), value)
  end
end

-- Anything else that is wrong with an argument.
---@param message string what is wrong, behind the function's name
---@param level? integer for the error; 3, the caller of whoever calls this, unless told
function check.fail(name, message, level)
  error(name .. ": " .. message, level or 3)
end

return check
