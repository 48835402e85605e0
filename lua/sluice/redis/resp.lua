-- SPDX-License-Identifier: Apache-2.0
-- The Redis protocol, versions 2 and 3: commands to bytes, replies to Lua values. Pure functions over a source of
-- lines and bytes; bounded, since a server that went wrong must not take the worker's memory.

local buffer = require "string.buffer"

local byte, sub, tonumber, type, tostring = string.byte, string.sub, tonumber, type, tostring

local resp = {}

-- What the absence of a value reads as; the same as json.null.
resp.null = require("cjson").null

local MAX_BULK, MAX_ITEMS, MAX_DEPTH, MAX_LINE = 64 * 1024 * 1024, 1048576, 16, 65536

-- An error reply as a value: { err = "WRONGTYPE ..." }.
local error_mt = { __tostring = function(self) return self.err end, __metatable = "redis.error" }

---@param value any
---@return boolean whether it is an error reply
function resp.is_error(value)
  return type(value) == "table" and getmetatable(value) == error_mt.__metatable
end

---@param out table string.buffer
---@param command (string|number|boolean)[]
---@return string|nil err
function resp.put_command(out, command)
  local count = #command
  if count == 0 then return "an empty command" end
  out:put("*", count, "\r\n")
  for i = 1, count do
    local value = command[i]
    local kind = type(value)
    if kind == "number" then
      value = value % 1 == 0 and ("%d"):format(value) or ("%.17g"):format(value)
    elseif kind == "boolean" then
      value = value and "1" or "0"
    elseif kind ~= "string" then
      return "argument " .. i .. " of a command must be a string or number, got " .. kind
    end
    out:put("$", #value, "\r\n", value, "\r\n")
  end
end

---@param command (string|number|boolean)[]
---@return string|nil
---@return string|nil err
function resp.command(command)
  local out = buffer.new()
  local err = resp.put_command(out, command)
  if err then return nil, err end
  return out:get()
end

local read

local function read_count(text, max)
  local count = tonumber(text)
  if not count or count % 1 ~= 0 or count < -1 or count > max then return nil end
  return count
end

local function read_bulk(source, text)
  local len = read_count(text, MAX_BULK)
  if not len then return nil, "an invalid length" end
  if len == -1 then return resp.null end
  local data, err = source:receive_exact(len + 2)
  if not data then return nil, err end
  if sub(data, -2) ~= "\r\n" then return nil, "a string without its end" end
  return sub(data, 1, len)
end

local function read_array(source, text, depth)
  local count = read_count(text, MAX_ITEMS)
  if not count then return nil, "an invalid count" end
  if count == -1 then return resp.null end
  local list = {}
  for i = 1, count do
    local value, err = read(source, depth)
    if err then return nil, err end
    list[i] = value
  end
  return list
end

local function read_map(source, text, depth)
  local count = read_count(text, MAX_ITEMS)
  if not count or count < 0 then return nil, "an invalid count" end
  local map = {}
  for _ = 1, count do
    local key, err = read(source, depth)
    if err then return nil, err end
    local value
    value, err = read(source, depth)
    if err then return nil, err end
    map[key] = value
  end
  return map
end

local function read_error(_, text)
  return setmetatable({ err = text }, error_mt)
end

local function read_number(_, text)
  local value = tonumber(text)
  if not value then return nil, "an invalid number" end
  return value
end

local DOUBLES = { inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 }

local READERS = {
  ["+"] = function(_, text) return text end,
  ["-"] = read_error,
  [":"] = read_number,
  ["$"] = read_bulk,
  ["*"] = read_array,
  ["~"] = read_array,                                  -- set
  ["%"] = read_map,
  ["_"] = function() return resp.null end,
  ["#"] = function(_, text) return text == "t" end,
  [","] = function(_, text) return DOUBLES[text] or read_number(nil, text) end,
  ["("] = function(_, text) return text end,           -- a big number keeps its digits
  ["!"] = function(source, text)
    local message, err = read_bulk(source, text)
    if not message then return nil, err end
    return read_error(nil, tostring(message))
  end,
  ["="] = function(source, text)                       -- "txt:" in front
    local message, err = read_bulk(source, text)
    if not message then return nil, err end
    return sub(message, 5)
  end,
}

local ATTRIBUTE, PUSH = 124, 62 -- "|", ">"

-- One reply. An error reply is a value (`is_error`); the second result is for a broken connection or protocol.
---@param source { receive_line: function, receive_exact: function }
---@param depth? integer
---@return any
---@return string|nil err
function read(source, depth)
  depth = (depth or 0) + 1
  if depth > MAX_DEPTH then return nil, "a reply nested too deeply" end
  local line, err = source:receive_line(MAX_LINE)
  if not line then return nil, err end
  local mark = byte(line)
  if mark == ATTRIBUTE or mark == PUSH then
    -- Beside the reply, not the reply: attributes and out-of-band messages are read over.
    local skip = mark == PUSH and read_array or read_map
    local _, bad = skip(source, sub(line, 2), depth)
    if bad then return nil, bad end
    return read(source, depth - 1)
  end
  local reader = READERS[sub(line, 1, 1)]
  if not reader then return nil, "a reply of no known kind" end
  return reader(source, sub(line, 2), depth)
end

resp.read = read

return resp
