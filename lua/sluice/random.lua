-- SPDX-License-Identifier: Apache-2.0
-- Random numbers of the core: cryptographic, or seeded by a spec. Called like math.random.

local ffi = require "ffi"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local floor, error, type = math.floor, error, type

local COUNT = 64
local pool = ffi.new("uint32_t[?]", COUNT)
local at = COUNT

local function next32()
  if at == COUNT then
    C.bridge_random(worker, ffi.cast("char *", pool), COUNT * 4)
    at = 0
  end
  at = at + 1
  return tonumber(pool[at - 1])
end

-- 53 bits, from 0 up to but not including 1.
local function unit()
  return (next32() % 67108864 * 134217728 + next32() % 134217728) / 9007199254740992
end

-- Without arguments a number from 0 up to 1, with one an integer from 1 to it, with two from one to the other.
---@param low? integer
---@param high? integer
---@return number
return function(low, high)
  if low == nil then return unit() end
  if high == nil then low, high = 1, low end
  if type(low) ~= "number" or type(high) ~= "number" or low > high then
    error("sluice.random: expected two numbers in order, got " .. tostring(low) .. " and " .. tostring(high), 2)
  end
  return low + floor(unit() * (high - low + 1))
end
