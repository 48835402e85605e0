-- SPDX-License-Identifier: Apache-2.0
-- IP addresses and ranges, v4 and v6. A matcher looks one address up in any number of ranges with one look-up per
-- prefix length that occurs, so ten thousand ranges cost no more than ten.

local bit = require "bit"

local band, lshift = bit.band, bit.lshift
local byte, char, find, format, gmatch, match, sub =
  string.byte, string.char, string.find, string.format, string.gmatch, string.match, string.sub
local tonumber, type = tonumber, type

---@class sluice.ip
local ip = {}

local function parse_v4(text)
  local a, b, c, d = match(text, "^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$")
  if not a or find(text, "^0%d") or find(text, "%.0%d") then return nil end
  a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
  if a > 255 or b > 255 or c > 255 or d > 255 then return nil end
  return char(a, b, c, d)
end

-- Groups between colons as bytes; the last of them may be an IPv4 address.
local function parse_groups(text, may_end_v4)
  if text == "" then return "" end
  local out = ""
  for group, colon in gmatch(text, "([^:]*)(:?)") do
    if group == "" and colon == "" then break end
    local v4 = colon == "" and may_end_v4 and find(group, ".", 1, true) and parse_v4(group)
    if v4 then
      out = out .. v4
    elseif find(group, "^%x%x?%x?%x?$") then
      local number = tonumber(group, 16)
      out = out .. char((number - number % 256) / 256, number % 256)
    else
      return nil
    end
  end
  return sub(text, -1) ~= ":" and out or nil
end

local function parse_v6(text)
  local left, right = match(text, "^(.-)::(.*)$")
  if not left then
    local whole = parse_groups(text, true)
    return whole and #whole == 16 and whole or nil
  end
  if find(right, "::", 1, true) then return nil end
  local front, back = parse_groups(left, false), parse_groups(right, true)
  if not front or not back or #front + #back > 14 then return nil end
  return front .. ("\0"):rep(16 - #front - #back) .. back
end

local MAPPED = ("\0"):rep(10) .. "\255\255"

-- The address as its 4 or 16 bytes; an IPv4 address in IPv6 form (::ffff:1.2.3.4) is the IPv4 address.
---@param text string
---@return string|nil bytes
function ip.parse(text)
  if type(text) ~= "string" then return nil end
  if not find(text, ":", 1, true) then return parse_v4(text) end
  local bytes = parse_v6(text)
  if bytes and sub(bytes, 1, 12) == MAPPED then return sub(bytes, 13) end
  return bytes
end

-- The first `length` bits; the others are 0.
local function prefix(bytes, length)
  local whole = (length - length % 8) / 8
  if whole == #bytes then return bytes end
  local rest = length % 8
  local edge = rest == 0 and 0 or band(byte(bytes, whole + 1), lshift(0xff, 8 - rest))
  return sub(bytes, 1, whole) .. char(edge) .. ("\0"):rep(#bytes - whole - 1)
end

-- "10.0.0.0/8" or a single address.
---@param text string
---@return string|nil bytes of the first address
---@return integer|string length of the prefix; the error
function ip.parse_range(text)
  local address, length = match(text, "^(.-)/(%d+)$")
  local bytes = ip.parse(address or text)
  if not bytes then return nil, format("%q is no IP address or range", text) end
  if not address then return bytes, #bytes * 8 end
  length = tonumber(length)
  -- A range of mapped addresses is a range of IPv4.
  if #bytes == 4 and find(address, ":", 1, true) then length = length - 96 end
  if length < 0 or length > #bytes * 8 then return nil, format("%q has an invalid prefix length", text) end
  return prefix(bytes, length), length
end

---@class sluice.ip.matcher
local Matcher = {}
local matcher_mt = { __index = Matcher, __metatable = false }

---@param address string
---@return boolean
function Matcher:matches(address)
  local bytes = ip.parse(address)
  if not bytes then return false end
  local sets = #bytes == 4 and self.v4 or self.v6
  for i = 1, #sets do
    local set = sets[i]
    if set.known[prefix(bytes, set.length)] then return true end
  end
  return false
end

local function add(sets, bytes, length)
  for i = 1, #sets do
    if sets[i].length == length then
      sets[i].known[bytes] = true
      return
    end
  end
  sets[#sets + 1] = { length = length, known = { [bytes] = true } }
end

---@param ranges string[]
---@return sluice.ip.matcher|nil
---@return string|nil err
function ip.matcher(ranges)
  local made = setmetatable({ v4 = {}, v6 = {} }, matcher_mt)
  for _, text in ipairs(ranges) do
    local bytes, length = ip.parse_range(text)
    if not bytes then return nil, length end
    add(#bytes == 4 and made.v4 or made.v6, bytes, length)
  end
  return made
end

local trusted = setmetatable({}, { __mode = "k" }) -- matchers by generation

-- Whether an address is one of the operator's `trusted_ips`.
---@param address string
---@return boolean
function ip.is_trusted(address)
  if type(address) ~= "string" then
    error("sluice.ip.is_trusted: address must be a string, got " .. type(address), 2)
  end
  local generation = require("sluice.generation").current()
  if not generation then return false end
  local matcher = trusted[generation]
  if not matcher then
    local gateway = generation.meta and generation.meta.gateway
    matcher = ip.matcher(gateway and gateway.trusted_ips or {}) or ip.matcher {}
    trusted[generation] = matcher
  end
  return matcher:matches(address)
end

return ip
