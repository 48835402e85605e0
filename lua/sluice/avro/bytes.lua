-- SPDX-License-Identifier: Apache-2.0
-- Bytes in and out, as Avro lays them: zigzag integers, floats, lengths. One text is written and one read at a time,
-- and nothing waits meanwhile.

local ffi = require "ffi"
local bit = require "bit"
local failure = require "sluice.avro.failure"

local band, bor, bxor = bit.band, bit.bor, bit.bxor
local lshift, rshift, arshift = bit.lshift, bit.rshift, bit.arshift
local cast, copy, ffi_string, tonumber = ffi.cast, ffi.copy, ffi.string, tonumber
local int64 = ffi.typeof("int64_t")
local raise = failure.raise

assert(ffi.abi("le"), "sluice.avro: written for little-endian machines")

local bytes = {}

local ROOM, KEPT = 4096, 1048576 -- bytes of the buffer at first, and those that are not given back
local SMALL = 2 ^ 30
local MAX_EXACT = 2 ^ 53
local VARINT_MOST = 10

-- ---- Out ----

local room = ROOM
local data = ffi.new("uint8_t[?]", room)
local out = 0 -- bytes written

local function grow(count)
  local wanted = room
  while wanted < out + count do wanted = wanted * 2 end
  local fresh = ffi.new("uint8_t[?]", wanted)
  copy(fresh, data, out)
  data, room = fresh, wanted
end

-- Begins a text.
function bytes.start()
  out = 0
  if room > KEPT then
    room = ROOM
    data = ffi.new("uint8_t[?]", room)
  end
end

function bytes.finish()
  return ffi_string(data, out)
end

function bytes.mark()
  return out
end

-- Forgets what was written behind the mark.
function bytes.back_to(mark)
  out = mark
end

local function put_wide(value)
  local wide = int64(value)
  local zigzag = cast("uint64_t", bxor(lshift(wide, 1), arshift(wide, 63)))
  while zigzag >= 128ULL do
    data[out] = tonumber(band(zigzag, 127ULL)) + 128
    out = out + 1
    zigzag = rshift(zigzag, 7)
  end
  data[out] = tonumber(zigzag)
  out = out + 1
end

-- An integer: a number or an int64_t.
local function put_long(value)
  if out + VARINT_MOST > room then grow(VARINT_MOST) end
  if value >= SMALL or value < -SMALL then
    put_wide(value)
    return
  end
  value = tonumber(value)
  local zigzag = bxor(lshift(value, 1), arshift(value, 31))
  while zigzag >= 128 do
    data[out] = bor(band(zigzag, 127), 128)
    out = out + 1
    zigzag = rshift(zigzag, 7)
  end
  data[out] = zigzag
  out = out + 1
end
bytes.put_long = put_long

function bytes.put_raw(text)
  local len = #text
  if out + len > room then grow(len) end
  copy(data + out, text, len)
  out = out + len
end

-- With its length before it.
function bytes.put_text(text)
  local len = #text
  put_long(len)
  if out + len > room then grow(len) end
  copy(data + out, text, len)
  out = out + len
end

function bytes.put_boolean(value)
  if out + 1 > room then grow(1) end
  data[out] = value and 1 or 0
  out = out + 1
end

local float_cell, double_cell = ffi.new("float[1]"), ffi.new("double[1]")

function bytes.put_float(value)
  if out + 4 > room then grow(4) end
  float_cell[0] = value
  copy(data + out, float_cell, 4)
  out = out + 4
end

function bytes.put_double(value)
  if out + 8 > room then grow(8) end
  double_cell[0] = value
  copy(data + out, double_cell, 8)
  out = out + 8
end

-- ---- In ----

local held                     -- the text, so that it lives
local input = cast("const uint8_t *", "")
local at, last = 0, 0

-- Begins to read a text; gives what `restore` takes to go on with the one before.
function bytes.read_from(text, from)
  local held_before, at_before = held, at
  held, input, at, last = text, cast("const uint8_t *", text), from or 0, #text
  return held_before, at_before
end

function bytes.restore(text, from)
  held = text
  input, at, last = cast("const uint8_t *", text or ""), from, text and #text or 0
end

-- Bytes that have not been read.
function bytes.left()
  return last - at
end

local function cut(depth)
  raise(depth, "the bytes end too early")
end

-- An integer whose first byte says that more follow: in 64 bits.
local function get_wide(depth)
  local value, shift = 0ULL, 0
  while true do
    if at >= last then cut(depth) end
    local byte = input[at]
    at = at + 1
    if shift == 63 and byte > 1 then raise(depth, "an integer of more than 64 bits") end
    value = bor(value, lshift(cast("uint64_t", band(byte, 127)), shift))
    if byte < 128 then break end
    shift = shift + 7
    if shift > 63 then raise(depth, "an integer of more than 64 bits") end
  end
  local signed = bxor(cast("int64_t", rshift(value, 1)), -cast("int64_t", band(value, 1ULL)))
  local number = tonumber(signed)
  if number < MAX_EXACT and number > -MAX_EXACT then return number end
  return signed
end

-- A number where it is exact, else an int64_t.
local function get_long(depth)
  if at >= last then cut(depth) end
  local first = input[at]
  if first < 128 then
    at = at + 1
    return bxor(rshift(first, 1), -band(first, 1))
  end
  if at + 1 < last and input[at + 1] < 128 then
    local both = bor(band(first, 127), lshift(input[at + 1], 7))
    at = at + 2
    return bxor(rshift(both, 1), -band(both, 1))
  end
  return get_wide(depth)
end
bytes.get_long = get_long

-- So many bytes.
local function get_raw(depth, count)
  if count > last - at then cut(depth) end
  local from = at
  at = at + count
  return ffi_string(input + from, count)
end
bytes.get_raw = get_raw

-- Bytes with their length before them.
function bytes.get_text(depth)
  local count = get_long(depth)
  if count < 0 then raise(depth, "a negative length") end
  if count > last - at then cut(depth) end
  local from = at
  at = at + tonumber(count)
  return ffi_string(input + from, tonumber(count))
end

function bytes.get_boolean(depth)
  if at >= last then cut(depth) end
  local byte = input[at]
  at = at + 1
  if byte > 1 then raise(depth, "a boolean that is neither 0 nor 1") end
  return byte == 1
end

function bytes.get_float(depth)
  if last - at < 4 then cut(depth) end
  copy(float_cell, input + at, 4)
  at = at + 4
  return float_cell[0]
end

function bytes.get_double(depth)
  if last - at < 8 then cut(depth) end
  copy(double_cell, input + at, 8)
  at = at + 8
  return double_cell[0]
end

return bytes
