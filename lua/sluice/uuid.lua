-- SPDX-License-Identifier: Apache-2.0
-- UUIDs (RFC 9562): v4 random, v7 ordered by time.

local ffi = require "ffi"
local bit = require "bit"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local band, bor, rshift = bit.band, bit.bor, bit.rshift
local floor, find, type = math.floor, string.find, type

local uuid = {}

local raw = ffi.new("uint8_t[16]")
local text = ffi.new("char[36]")
local HEX = ffi.new("char[16]", "0123456789abcdef")

local function write(version)
  raw[6] = bor(band(raw[6], 0x0f), version * 16)
  raw[8] = bor(band(raw[8], 0x3f), 0x80)
  local at = 0
  for i = 0, 15 do
    if i == 4 or i == 6 or i == 8 or i == 10 then
      text[at] = 45
      at = at + 1
    end
    text[at] = HEX[rshift(raw[i], 4)]
    text[at + 1] = HEX[band(raw[i], 15)]
    at = at + 2
  end
  return ffi.string(text, 36)
end

---@return string 122 random bits
function uuid.v4()
  C.bridge_random(worker, ffi.cast("char *", raw), 16)
  return write(4)
end

---@return string milliseconds since 1970 in front: later ones sort behind earlier ones
function uuid.v7()
  C.bridge_random(worker, ffi.cast("char *", raw), 16)
  local ms = floor(C.bridge_now(worker) * 1000)
  for i = 5, 0, -1 do
    raw[i] = ms % 256
    ms = floor(ms / 256)
  end
  return write(7)
end

local PATTERN = "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"

---@param value any
---@return boolean whether it is the text of a UUID, of any version
function uuid.is_valid(value)
  return type(value) == "string" and #value == 36 and find(value, PATTERN) ~= nil
end

-- Calling the module gives a random one, as Kong's utility does.
return setmetatable(uuid, { __call = function() return uuid.v4() end })
