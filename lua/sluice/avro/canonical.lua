-- SPDX-License-Identifier: Apache-2.0
-- The parsing canonical form of a schema, which two schemas share that mean the same bytes, and its fingerprints.

local bit = require "bit"
local ffi = require "ffi"
local json = require "sluice.json"

local band, bxor, rshift = bit.band, bit.bxor, bit.rshift
local byte, char, concat, format, ipairs, tonumber = string.byte, string.char, table.concat, string.format, ipairs,
  tonumber

local canonical = {}

local write

local function named(node, seen, rest)
  if seen[node] then return json.encode(node.name) end
  seen[node] = true
  return format('{"name":%s,"type":"%s",%s}', json.encode(node.name), node.kind, rest(node, seen))
end

local function list(items)
  return "[" .. concat(items, ",") .. "]"
end

local REST = {
  record = function(node, seen)
    local fields = {}
    for i, field in ipairs(node.fields) do
      fields[i] = format('{"name":%s,"type":%s}', json.encode(field.name), write(field.node, seen))
    end
    return '"fields":' .. list(fields)
  end,
  enum = function(node)
    local symbols = {}
    for i, symbol in ipairs(node.symbols) do symbols[i] = json.encode(symbol) end
    return '"symbols":' .. list(symbols)
  end,
  fixed = function(node) return format('"size":%d', node.size) end,
}

function write(node, seen)
  local kind = node.kind
  if REST[kind] then return named(node, seen, REST[kind]) end
  if kind == "array" then return '{"type":"array","items":' .. write(node.items, seen) .. "}" end
  if kind == "map" then return '{"type":"map","values":' .. write(node.values, seen) .. "}" end
  if kind ~= "union" then return '"' .. kind .. '"' end
  local branches = {}
  for i, branch in ipairs(node.branches) do branches[i] = write(branch, seen) end
  return list(branches)
end

---@param node table
---@return string
function canonical.text(node)
  return write(node, {})
end

-- ---- CRC-64-AVRO ----

local EMPTY = 0xc15d213aa4d7a795ULL

local crc_table = ffi.new("uint64_t[256]")
for i = 0, 255 do
  local value = ffi.cast("uint64_t", i)
  for _ = 1, 8 do
    value = bxor(rshift(value, 1), band(EMPTY, -band(value, 1ULL)))
  end
  crc_table[i] = value
end

-- Eight bytes, lowest first, as the single-object encoding has them.
---@param text string
---@return string
function canonical.crc64(text)
  local value = EMPTY
  for i = 1, #text do
    local index = tonumber(band(bxor(value, ffi.cast("uint64_t", byte(text, i))), 255ULL))
    value = bxor(rshift(value, 8), crc_table[index])
  end
  local out = {}
  for i = 1, 8 do
    out[i] = char(tonumber(band(value, 255ULL)))
    value = rshift(value, 8)
  end
  return concat(out)
end

return canonical
