-- SPDX-License-Identifier: Apache-2.0
-- Ids of traces (32 hex digits) and spans (16): made at random, and turned into what wire formats want.

local bit = require "bit"
local ffi = require "ffi"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local tohex = bit.tohex
local find, format, gsub, lower = string.find, string.format, string.gsub, string.lower
local rep, sub = string.rep, string.sub
local tonumber, tostring = tonumber, tostring

local ids = {}

local COUNT = 1024 -- numbers that are fetched at once
local pool = ffi.new("uint32_t[?]", COUNT)
local at = COUNT

local function refill()
  C.bridge_random(worker, ffi.cast("char *", pool), COUNT * 4)
  at = 0
end

---@return string 32 hex digits
function ids.trace()
  return ids.span() .. ids.span()
end

-- Where the last 56 bits of a trace id stand between 0 and 1: what sampling goes by.
---@param id string 32 hex digits
---@return number
function ids.share(id)
  return tonumber(sub(id, -14, -2), 16) / 4503599627370496
end

---@return string 16 hex digits
function ids.span()
  if at > COUNT - 2 then refill() end
  local from = at
  at = from + 2
  return tohex(pool[from]) .. tohex(bit.bor(pool[from + 1], 1))
end

-- Hex digits in lower case, with zeros in front or without digits in front until there are `size`; nil when they are
-- none, or zero.
---@param text string|nil
---@param size integer
---@return string|nil
function ids.sized(text, size)
  if not text or find(text, "[^%x]") or not find(text, "[^0]") then return nil end
  if #text > size then text = sub(text, -size) else text = rep("0", size - #text) .. text end
  return lower(text)
end

-- The last 16 hex digits as a decimal number, for Datadog and Google.
---@param hex string
---@return string
function ids.decimal(hex)
  local high, low = tonumber(sub(hex, -16, -9), 16), tonumber(sub(hex, -8), 16)
  return (gsub(tostring(ffi.cast("uint64_t", high) * 4294967296ULL + ffi.cast("uint64_t", low)), "ULL$", ""))
end

-- A decimal number of at most 64 bits to 16 hex digits.
---@param text string
---@return string|nil
function ids.from_decimal(text)
  if #text > 20 or find(text, "[^%d]") then return nil end
  local value = 0ULL
  for i = 1, #text do value = value * 10ULL + (text:byte(i) - 48) end
  local high, low = tonumber(value / 4294967296ULL), tonumber(value % 4294967296ULL)
  if high == 0 and low == 0 then return nil end
  return format("%08x%08x", high, low)
end

return ids
