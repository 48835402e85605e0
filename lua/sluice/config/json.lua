-- SPDX-License-Identifier: Apache-2.0
-- JSON (RFC 8259) to Lua tables or, in a second reading when there is an error to report, to a tree of positions of
-- the shape that config.yaml makes. Not cjson, which takes the last of duplicate keys and forgets where things stood.
local cjson = require "cjson"

local json = {}

local byte, find, sub = string.byte, string.find, string.sub
local DEPTH_MAX = 200

local escapes = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

-- Stops the decoder: caught in json.decode.
local function fail(d, at, message)
  error({ at = at, message = message, decoder = d }, 0)
end

local function skip_space(d, at)
  return find(d.text, "[^ \t\r\n]", at) or #d.text + 1
end

local function unicode_escape(d, at)
  local code = tonumber(d.text:match("^u(%x%x%x%x)", at) or fail(d, at, "JSON: bad \\u escape"), 16)
  if code < 0xD800 or code > 0xDFFF then return utf8(code), at + 5 end
  local low = tonumber(d.text:match("^\\u([dD][c-fC-F]%x%x)", at + 5) or fail(d, at, "JSON: lone surrogate"), 16)
  if code > 0xDBFF then fail(d, at, "JSON: lone surrogate") end
  return utf8(0x10000 + (code - 0xD800) * 1024 + (low - 0xDC00)), at + 11
end

local function escaped_string(d, at)
  local parts, text = {}, d.text
  while true do
    local stop = find(text, '["\\%c]', at) or fail(d, at, "JSON: text without its closing quote")
    parts[#parts + 1] = sub(text, at, stop - 1)
    local char = sub(text, stop, stop)
    if char == '"' then return table.concat(parts), stop + 1 end
    if char ~= "\\" then fail(d, stop, "JSON: control character in a text") end
    local escape = sub(text, stop + 1, stop + 1)
    if escape == "u" then
      parts[#parts + 1], at = unicode_escape(d, stop + 1)
    else
      parts[#parts + 1] = escapes[escape] or fail(d, stop, "JSON: unknown escape")
      at = stop + 2
    end
  end
end

-- `at` is behind the opening quote.
local function read_string(d, at)
  local stop = find(d.text, '["\\%c]', at)
  if stop and byte(d.text, stop) == 34 then
    if byte(d.text, at) == 123 then d.references = true end
    return sub(d.text, at, stop - 1), stop + 1
  end
  return escaped_string(d, at)
end

local function read_number(d, at)
  local _, stop = find(d.text, "^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  local text = stop and sub(d.text, at, stop)
  if not text or find(text, "^-?0%d") or find(text, "%.$") or find(text, "%.[eE]") or not tonumber(text) then
    fail(d, at, "JSON: expected a value")
  end
  return tonumber(text), stop + 1
end

local read_value

local function position(d, at)
  local line, start = d.line, d.line_start
  while true do
    local stop = find(d.text, "\n", start, true)
    if not stop or stop >= at then break end
    line, start = line + 1, stop + 1
  end
  d.line, d.line_start = line, start
  return { line = line, column = at - start + 1 }
end

local function node_at(d, at)
  if not d.want_positions then return nil end
  local node = position(d, at)
  node.children, node.keys = {}, {}
  return node
end

local function enter(d, at)
  d.depth = d.depth + 1
  if d.depth > DEPTH_MAX then fail(d, at, "nested too deeply") end
end

local function read_list(d, at)
  enter(d, at)
  local list, count, node = {}, 0, node_at(d, at)
  at = skip_space(d, at + 1)
  if byte(d.text, at) ~= 93 then
    repeat
      count = count + 1
      local value, child
      value, at, child = read_value(d, at)
      list[count] = value
      if node then node.children[count] = child end
      at = skip_space(d, at)
      local separator = byte(d.text, at)
      if separator == 44 then
        at = skip_space(d, at + 1)
      elseif separator ~= 93 then
        fail(d, at, 'JSON: expected "," or "]"')
      end
    until separator == 93
  end
  d.depth = d.depth - 1
  return list, at + 1, node
end

local function read_key(d, at, map)
  if byte(d.text, at) ~= 34 then fail(d, at, "JSON: expected a key") end
  local key, after = read_string(d, at + 1)
  if map[key] ~= nil then fail(d, at, ("duplicate key %q"):format(key)) end
  after = skip_space(d, after)
  if byte(d.text, after) ~= 58 then fail(d, after, 'JSON: expected ":"') end
  return key, skip_space(d, after + 1)
end

local function read_map(d, at)
  enter(d, at)
  local map, node = {}, node_at(d, at)
  at = skip_space(d, at + 1)
  if byte(d.text, at) ~= 125 then
    repeat
      local key, value_at = read_key(d, at, map)
      if node then node.keys[key] = position(d, at) end
      local value, after, child = read_value(d, value_at)
      map[key], at = value, after
      if node then node.children[key] = child end
      at = skip_space(d, at)
      local separator = byte(d.text, at)
      if separator == 44 then
        at = skip_space(d, at + 1)
      elseif separator ~= 125 then
        fail(d, at, 'JSON: expected "," or "}"')
      end
    until separator == 125
  end
  d.depth = d.depth - 1
  return map, at + 1, node
end

local literals = { t = { "true", true }, f = { "false", false }, n = { "null", cjson.null } }

-- Returns value, the offset behind it, and its node when positions are wanted.
function read_value(d, at)
  local first = byte(d.text, at)
  if first == 123 then return read_map(d, at) end
  if first == 91 then return read_list(d, at) end
  local node = node_at(d, at)
  local value, after
  if first == 34 then
    value, after = read_string(d, at + 1)
    return value, after, node
  end
  local literal = first and literals[string.char(first)]
  if literal and sub(d.text, at, at + #literal[1] - 1) == literal[1] then
    return literal[2], at + #literal[1], node
  end
  value, after = read_number(d, at)
  return value, after, node
end

local function read_all(d)
  local value, at, node = read_value(d, skip_space(d, 1))
  at = skip_space(d, at)
  if at <= #d.text then fail(d, at, "JSON: text after the end") end
  return value, node
end

local function new(text, want_positions)
  return { text = text, want_positions = want_positions, depth = 0, line = 1, line_start = 1, references = false }
end

-- Like yaml.decode.
function json.decode(text)
  local d = new(text, false)
  local ok, value = pcall(read_all, d)
  if ok then return value, d.references end
  if type(value) ~= "table" then error(value, 0) end
  d.line, d.line_start = 1, 1
  local err = position(d, value.at)
  err.message = value.message
  return nil, nil, err
end

-- Like yaml.positions.
function json.positions(text)
  local _, node = read_all(new(text, true))
  return node
end

return json
