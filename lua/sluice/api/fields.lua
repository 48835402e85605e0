-- SPDX-License-Identifier: Apache-2.0
-- Header fields between Lua and the core: look-up in any spelling, tables of them, checks of names and values.
--
-- As in Kong, `x_custom_header` finds `X-Custom-Header`. The other way round is not done: a field that a client
-- sent as `X_Consumer_Id` must not pass for the `X-Consumer-Id` which the gateway sets.

local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local error, type, tostring, pairs, rawget = error, type, tostring, pairs, rawget
local byte, find, gsub, lower, match = string.byte, string.find, string.gsub, string.lower, string.match
local SPACE, TAB = 32, 9

local fields = {}

local DEFAULT_MAX, MAX = 100, 1000

-- Names in these tables are lower case with dashes; any other spelling finds them.
local by_name = { __metatable = false }
function by_name.__index(self, name)
  if type(name) ~= "string" then return nil end
  local plain = lower(name)
  local value = rawget(self, plain)
  if value == nil and find(plain, "_", 1, true) then value = rawget(self, (gsub(plain, "_", "-"))) end
  return value
end

-- A table of fields that is found in any spelling.
---@return table
function fields.table()
  return setmetatable({}, by_name)
end

---@param list table from fields.table
---@param name string
---@param value string
function fields.collect(list, name, value)
  local key = lower(name)
  local present = rawget(list, key)
  if present == nil then
    list[key] = value
  elseif type(present) == "table" then
    present[#present + 1] = value
  else
    list[key] = { present, value }
  end
end

-- Names that plugins have used, by number: the core knows them and need not read them again. As many as it takes.
local known, learned = {}, 0

local function learn(name)
  if learned >= MAX then return nil end
  local number = C.bridge_field_name(worker, name, #name)
  if number == 0 then return nil end
  known[name], learned = number, number
  return number
end

---@param handle number
---@param message integer MESSAGE_*
---@param name string
---@param nth? integer from 1; the first unless told
---@return string|nil
function fields.get(handle, message, name, nth)
  local at = nth and nth - 1 or 0
  local number = known[name] or learn(name)
  local value
  if number then
    value = core.field(handle, message, number, at)
  else
    value = core.header(handle, message, name, at)
  end
  if value == nil and find(name, "_", 1, true) then value = core.header(handle, message, (gsub(name, "_", "-")), at) end
  return value
end

-- The value of the first field of that name, and whether it is not the only one.
---@return string|nil
---@return boolean several
function fields.only(handle, message, name)
  local number = known[name] or learn(name)
  if number then
    local value, several = core.field_only(handle, message, number)
    if value ~= nil or not find(name, "_", 1, true) then return value, several end
  end
  local value = fields.get(handle, message, name)
  return value, value ~= nil and fields.get(handle, message, name, 2) ~= nil
end

---@param handle number
---@param message integer MESSAGE_*
---@param max integer|nil how many fields at most, 100 unless told
---@param name string the API function, for its errors
---@return table<string, string|string[]> fields by lower-case name
---@return string|nil "truncated" when there were more
function fields.all(handle, message, max, name)
  if max == nil then
    max = DEFAULT_MAX
  elseif type(max) ~= "number" or max < 1 or max > MAX then
    error(name .. ": max_headers must be a number from 1 to " .. MAX .. ", got " .. tostring(max), 3)
  end
  local count = C.bridge_header_count(worker, handle, message)
  local list = fields.table()
  for i = 0, (count < max and count or max) - 1 do
    local key, value = core.header_at(handle, message, i)
    if key then fields.collect(list, key, value) end
  end
  return list, count > max and "truncated" or nil
end

-- No calls in tail position where requests pass: a trace may hold but few of them.

-- One value as it goes on the wire; nil for what cannot be one.
local function text(value)
  local kind = type(value)
  if kind == "string" then
    -- Trimming is rare and patterns do not compile: look at the two ends first.
    local first, last = byte(value, 1), byte(value, -1)
    if first == SPACE or first == TAB or last == SPACE or last == TAB then
      return (match(value, "^[ \t]*(.-)[ \t]*$"))
    end
    return value
  end
  if kind == "number" or kind == "boolean" then return (tostring(value)) end
  return nil
end

local function check_name(name, api, level)
  if type(name) ~= "string" then
    error(api .. ": header name must be a string, got " .. type(name), level + 1)
  end
  if name == "" then error(api .. ": header name must not be empty", level + 1) end
end

local function check_value(name, value, api, level)
  if type(value) ~= "table" then
    if text(value) == nil then
      error(("%s: value of header %q must be a string, number, boolean or an array of them, got %s")
        :format(api, name, type(value)), level + 1)
    end
    return
  end
  for i = 1, #value do
    if text(value[i]) == nil then
      error(("%s: value %d of header %q must be a string, number or boolean, got %s")
        :format(api, i, name, type(value[i])), level + 1)
    end
  end
end

-- Raises, at the plugin's line, unless name and value can be a field.
function fields.check(name, value, api)
  check_name(name, api, 3)
  check_value(name, value, api, 3)
end

function fields.check_name(name, api)
  check_name(name, api, 3)
end

-- The same for a whole table, before any of it is set.
function fields.check_all(headers, api)
  if type(headers) ~= "table" then error(api .. ": headers must be a table, got " .. type(headers), 3) end
  for name, value in pairs(headers) do
    check_name(name, api, 3)
    check_value(name, value, api, 3)
  end
end

local function put(call, handle, message, name, value)
  local line = text(value)
  return call(worker, handle, message, name, #name, line, #line)
end

-- Replaces the fields of that name by one, or by several when `value` is an array; an empty array clears.
---@return integer status of the core
function fields.set(handle, message, name, value)
  local kind = type(value)
  if kind ~= "table" then
    local number = known[name] or learn(name)
    if number and kind == "number" then return (C.bridge_field_set_number(worker, handle, message, number, value)) end
    local line = text(value)
    if number then return (C.bridge_field_set(worker, handle, message, number, line, #line)) end
    return (C.bridge_header_set(worker, handle, message, name, #name, line, #line))
  end
  if #value == 0 then return fields.clear(handle, message, name) end
  local status = put(C.bridge_header_set, handle, message, name, value[1])
  for i = 2, #value do
    if status ~= 0 then return status end
    status = put(C.bridge_header_add, handle, message, name, value[i])
  end
  return status
end

---@return integer status of the core
function fields.add(handle, message, name, value)
  if type(value) ~= "table" then
    local line, number = text(value), known[name] or learn(name)
    if number then return (C.bridge_field_add(worker, handle, message, number, line, #line)) end
    return (C.bridge_header_add(worker, handle, message, name, #name, line, #line))
  end
  local status = 0
  for i = 1, #value do
    if status ~= 0 then return status end
    status = put(C.bridge_header_add, handle, message, name, value[i])
  end
  return status
end

-- Clearing what is not there is no error.
---@return integer status of the core
function fields.clear(handle, message, name)
  local status = C.bridge_header_clear(worker, handle, message, name, #name)
  return status == 2 and 0 or status
end

-- Clears that field and all that a service may take for it.
---@return integer status of the core
function fields.clear_alike(handle, message, name)
  return (C.bridge_header_clear_alike(worker, handle, message, name, #name))
end

-- In order of the names, so that the same table gives the same bytes each time.
---@return integer status of the core
function fields.set_all(handle, message, headers)
  local names = {}
  for name in pairs(headers) do names[#names + 1] = name end
  table.sort(names)
  local status = 0
  for i = 1, #names do
    if status ~= 0 then return status end
    status = fields.set(handle, message, names[i], headers[names[i]])
  end
  return status
end

return fields
