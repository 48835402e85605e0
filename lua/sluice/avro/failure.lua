-- SPDX-License-Identifier: Apache-2.0
-- What is wrong with a value, raised from wherever that is found out, and caught by whoever began.

local native = package.loaded["sluice.native"]
local values = require "sluice.json_schema.values"

local on_error = native and native.on_error or tostring -- not pcall, which would swallow the end of the CPU budget
local concat, error, gsub, tostring, type, xpcall = table.concat, error, string.gsub, tostring, type, xpcall

local failure = {}

local mark = {} -- metatable of what is raised

---@class sluice.avro.failure
---@field path string JSON pointer to what is wrong; "" is the whole value
---@field expected string|nil
---@field found string|nil
---@field message string all of it in one line

-- The steps to what is being worked on: names and indices, of which the first `depth` count. A depth is handed down
-- instead of kept, so that there is nothing to undo on the way back.
failure.path = {}

local function pointer(depth)
  local parts, path = {}, failure.path
  for i = 1, depth do parts[i] = "/" .. gsub(gsub(tostring(path[i]), "~", "~0"), "/", "~1") end
  return concat(parts)
end

local function shown(value)
  if type(value) == "cdata" and value ~= nil then return (gsub(tostring(value), "U?LL$", "")) end
  return values.shown(value)
end

-- A value that does not fit.
function failure.expected(depth, expected, value)
  local found, path = shown(value), pointer(depth)
  local text = "expected " .. expected .. ", found " .. found
  error(setmetatable({ path = path, expected = expected, found = found,
    message = path == "" and text or path .. ": " .. text }, mark), 0)
end

-- Anything else.
function failure.raise(depth, text)
  local path = pointer(depth)
  error(setmetatable({ path = path, message = path == "" and text or path .. ": " .. text }, mark), 0)
end

-- fn(a, b, c); nil and a failure when one was raised. Any other error goes on.
function failure.catch(fn, a, b, c)
  local ok, result, second = xpcall(fn, on_error, a, b, c)
  if ok then return result, second end
  if type(result) == "table" and getmetatable(result) == mark then return nil, result end
  return error(result, 0)
end

return failure
