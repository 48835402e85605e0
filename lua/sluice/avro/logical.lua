-- SPDX-License-Identifier: Apache-2.0
-- Logical types as people write them: 12.50, 2026-03-01, 2026-03-01T08:15:00.250Z, each from and to what is encoded.

local bit = require "bit"
local ffi = require "ffi"

local band = bit.band
local byte, char, find, format, gsub, match = string.byte, string.char, string.find, string.format, string.gsub,
  string.match
local concat, floor, reverse, rep, sub = table.concat, math.floor, string.reverse, string.rep, string.sub
local tonumber, type = tonumber, type
local int64 = ffi.typeof("int64_t")

local logical = {}

-- ---- Days: the proleptic Gregorian calendar, by eras of 400 years ----

local DAYS_OF_ERA, DAYS_TO_1970 = 146097, 719468

local function date_of(days)
  days = days + DAYS_TO_1970
  local era = floor(days / DAYS_OF_ERA)
  local day = days - era * DAYS_OF_ERA
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  local in_year = day - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * in_year + 2) / 153) -- from March
  local of_month = in_year - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  return year + era * 400 + (month <= 2 and 1 or 0), month, of_month
end

local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function days_of(year, month, day)
  if month < 1 or month > 12 or day < 1 then return nil end
  local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  if day > MONTH_DAYS[month] + (month == 2 and leap and 1 or 0) then return nil end
  if month <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local of_era = year - era * 400
  local in_year = floor((153 * (month > 2 and month - 3 or month + 9) + 2) / 5) + day - 1
  return era * DAYS_OF_ERA + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + in_year - DAYS_TO_1970
end

local function date_text(days)
  local year, month, day = date_of(days)
  if year < 0 or year > 9999 then return nil end
  return format("%04d-%02d-%02d", year, month, day)
end

local function date_number(text)
  local year, month, day = match(text, "^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  return year and days_of(tonumber(year), tonumber(month), tonumber(day))
end

-- ---- Times of a day ----

local function clock_text(seconds, fraction, digits)
  local text = format("%02d:%02d:%02d", floor(seconds / 3600), floor(seconds / 60) % 60, seconds % 60)
  return digits > 0 and text .. "." .. format("%0" .. digits .. "d", fraction) or text
end

-- Seconds, and the fraction as a number of so many digits; nil when there are more.
local function clock_number(text, digits)
  local hour, minute, second, rest = match(text, "^(%d%d):(%d%d):(%d%d)(.*)$")
  if not hour or tonumber(hour) > 23 or tonumber(minute) > 59 or tonumber(second) > 59 then return nil end
  local fraction = rest == "" and "" or match(rest, "^%.(%d+)$")
  if not fraction then return nil end
  fraction = gsub(fraction, "0+$", "")
  if #fraction > digits then return nil end
  return hour * 3600 + minute * 60 + second, tonumber(fraction .. rep("0", digits - #fraction)) or 0
end

local function time_of_day(digits)
  local unit = 10 ^ digits
  return {
    expected = digits == 3 and "a time such as 08:15:00.250" or "a time such as 08:15:00.250000",
    show = function(value)
      if type(value) ~= "number" or value < 0 or value >= 86400 * unit then return value end
      return clock_text(floor(value / unit), value % unit, digits)
    end,
    read = function(text)
      local seconds, fraction = clock_number(text, digits)
      return seconds and seconds * unit + fraction
    end,
  }
end

-- ---- Moments ----

-- In whole numbers of 64 bits: nanoseconds of our days are beyond a double.
local function divide(value, by)
  local wide = int64(value)
  local quotient = wide / by
  if wide % by < 0 then quotient = quotient - 1 end
  return tonumber(quotient), tonumber(wide - quotient * by)
end

local function number_of(wide)
  local number = tonumber(wide)
  if number < 2 ^ 53 and number > -2 ^ 53 then return number end
  return wide
end

-- Minutes that the text's clock is ahead of UTC, by its end.
local function offset_of(text)
  if text == "Z" or text == "z" then return 0 end
  local sign, hours, minutes = match(text, "^([+-])(%d%d):?(%d%d)$")
  if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
  local offset = hours * 60 + minutes
  return sign == "-" and -offset or offset
end

local SECONDS_MOST = 2 ^ 63 / 1e9 -- that fit as nanoseconds

local function moment(digits, zone)
  local unit = int64(10 ^ digits)
  local example = "2026-03-01T08:15:00.25" .. (zone and "Z" or "")
  return {
    expected = "a time such as " .. example,
    show = function(value)
      local seconds, fraction = divide(value, unit)
      local day = date_text(floor(seconds / 86400))
      return day and day .. "T" .. clock_text(seconds % 86400, fraction, digits) .. (zone and "Z" or "") or value
    end,
    read = function(text)
      local date, clock, rest = match(text, "^(%d%d%d%d%-%d%d%-%d%d)[Tt ](%d%d:%d%d:%d%d%.?%d*)(.*)$")
      local days = date and date_number(date)
      local seconds, fraction = clock_number(clock or "", digits)
      local offset = rest == "" and 0 or rest and offset_of(rest)
      if not days or not seconds or not offset or zone ~= (rest ~= "") then return nil end
      seconds = days * 86400 + seconds - offset * 60
      if digits == 9 and (seconds >= SECONDS_MOST - 1 or seconds <= 1 - SECONDS_MOST) then return nil end
      return number_of(int64(seconds) * unit + fraction)
    end,
  }
end

-- ---- Decimals: two's complement of any length ----

local BASE, BASE_DIGITS = 1e7, 7
local DECIMAL_BYTES = 4096

-- Limbs of BASE, lowest first: times 256 and plus a byte.
local function shift_in(limbs, add)
  for i = 1, #limbs do
    local value = limbs[i] * 256 + add
    limbs[i] = value % BASE
    add = floor(value / BASE)
  end
  if add > 0 then limbs[#limbs + 1] = add end
end

-- The digits of a magnitude, highest first.
local function digits_of(raw, negative)
  local limbs = { 0 }
  for i = 1, #raw do shift_in(limbs, negative and 255 - byte(raw, i) or byte(raw, i)) end
  if negative then
    local i = 1
    limbs[1] = limbs[1] + 1 -- the complement, plus one
    while limbs[i] == BASE do
      limbs[i], limbs[i + 1] = 0, (limbs[i + 1] or 0) + 1
      i = i + 1
    end
  end
  local parts = {}
  for i = #limbs, 1, -1 do parts[#parts + 1] = format("%07d", limbs[i]) end
  return (gsub(concat(parts), "^0+", ""))
end

-- Bytes of a magnitude, lowest first.
local function bytes_of(digits)
  local limbs, out = {}, {}
  for to = #digits, 1, -BASE_DIGITS do
    limbs[#limbs + 1] = tonumber(sub(digits, math.max(1, to - BASE_DIGITS + 1), to))
  end
  while #limbs > 0 do
    local left = 0
    for i = #limbs, 1, -1 do
      local value = left * BASE + limbs[i]
      limbs[i] = floor(value / 256)
      left = value % 256
    end
    out[#out + 1] = left
    if limbs[#limbs] == 0 then limbs[#limbs] = nil end
  end
  return out
end

local function negate(list)
  local carry = 1
  for i = 1, #list do
    local value = 255 - list[i] + carry
    list[i], carry = band(value, 255), value > 255 and 1 or 0
  end
end

-- As few bytes as hold it with its sign, or as many as are asked for; nil: it needs more.
local function complement_of(digits, negative, size)
  local list = bytes_of(digits)
  if #list == 0 or list[#list] >= 128 then list[#list + 1] = 0 end
  if negative then
    negate(list)
    if #list > 1 and list[#list] == 255 and list[#list - 1] >= 128 then list[#list] = nil end
  end
  if size and #list > size then return nil end
  for i = 1, #list do list[i] = char(list[i]) end
  local fill = negative and "\255" or "\0"
  return rep(fill, size and size - #list or 0) .. reverse(concat(list))
end

local function decimal_text(raw, scale)
  local negative = raw ~= "" and byte(raw, 1) >= 128 -- none is zero, as a writer of few bytes may have it
  local digits = digits_of(raw, negative)
  if #digits <= scale then digits = rep("0", scale + 1 - #digits) .. digits end
  local text = scale > 0 and sub(digits, 1, -scale - 1) .. "." .. sub(digits, -scale) or digits
  return negative and "-" .. text or text
end

-- Sign, digits of the whole number that is encoded; nil when it does not fit.
local function decimal_parts(text, precision, scale)
  local sign, whole, fraction = match(text, "^(%-?)(%d+)%.?(%d*)$")
  if not whole or sub(text, -1) == "." then return nil end
  fraction = gsub(fraction, "0+$", "")
  if #fraction > scale then return nil end
  local digits = gsub(whole .. fraction .. rep("0", scale - #fraction), "^0+", "")
  if #digits > precision then return nil end
  return sign == "-" and digits ~= "", digits
end

local function decimal(node)
  return {
    expected = format("a decimal number of %d digits, %d of them behind the point", node.precision, node.scale),
    show = function(raw)
      if #raw > DECIMAL_BYTES then return nil end
      return decimal_text(raw, node.scale)
    end,
    read = function(text)
      local negative, digits = decimal_parts(text, node.precision, node.scale)
      return digits and complement_of(digits, negative, node.size)
    end,
    -- 12.5 of JSON is 12.5, not the double beside it.
    from_number = function(number)
      local text = format("%.15g", number)
      if tonumber(text) ~= number then text = format("%.17g", number) end
      if find(text, "e", 1, true) then text = number % 1 == 0 and format("%.0f", number) or "" end
      return text
    end,
  }
end

-- ---- Others ----

local UUID = "^" .. rep("%x", 8) .. rep("%-" .. rep("%x", 4), 3) .. "%-" .. rep("%x", 12) .. "$"

local function uuid_bytes(text)
  if not find(text, UUID) then return nil end
  return (gsub(gsub(text, "-", ""), "%x%x", function(pair) return char(tonumber(pair, 16)) end))
end

local function uuid_text(raw)
  local hex = gsub(raw, ".", function(c) return format("%02x", byte(c)) end)
  return format("%s-%s-%s-%s-%s", sub(hex, 1, 8), sub(hex, 9, 12), sub(hex, 13, 16), sub(hex, 17, 20), sub(hex, 21))
end

local EXAMPLE_UUID = "a UUID"

local function uuid(node)
  if node.kind == "fixed" then return { expected = EXAMPLE_UUID, show = uuid_text, read = uuid_bytes } end
  return { expected = EXAMPLE_UUID, show = function(text) return text end,
    read = function(text) return find(text, UUID) and text or nil end }
end

local function number_at(raw, at)
  local a, b, c, d = byte(raw, at, at + 3)
  return a + b * 256 + c * 65536 + d * 16777216
end

local function bytes_at(number)
  return char(number % 256, floor(number / 256) % 256, floor(number / 65536) % 256, floor(number / 16777216))
end

local PARTS = { "months", "days", "millis" }

-- An object, for months and days are of no fixed length.
local function duration()
  return {
    expected = "an object with months, days and millis, each from 0 to 4294967295",
    show = function(raw)
      return { months = number_at(raw, 1), days = number_at(raw, 5), millis = number_at(raw, 9) }
    end,
    from_table = function(value)
      local out = {}
      for i, name in ipairs(PARTS) do
        local number = value[name]
        if type(number) ~= "number" or number % 1 ~= 0 or number < 0 or number > 4294967295 then return nil end
        out[i] = bytes_at(number)
      end
      return concat(out)
    end,
  }
end

local MAKE = {
  date = function() return { expected = "a date such as 2026-03-01", read = date_number,
    show = function(value) return date_text(value) or value end } end,
  ["time-millis"] = function() return time_of_day(3) end,
  ["time-micros"] = function() return time_of_day(6) end,
  ["timestamp-millis"] = function() return moment(3, true) end,
  ["timestamp-micros"] = function() return moment(6, true) end,
  ["timestamp-nanos"] = function() return moment(9, true) end,
  ["local-timestamp-millis"] = function() return moment(3, false) end,
  ["local-timestamp-micros"] = function() return moment(6, false) end,
  ["local-timestamp-nanos"] = function() return moment(9, false) end,
  decimal = decimal, uuid = uuid, duration = duration,
}

-- The conversions of a node with a logical type. `show(raw)`: what JSON shows of what was decoded; nil: it cannot be
-- shown so. `read(text)`, `from_number(number)` (gives a text), `from_table(object)`: back; nil: it is none.
---@return table
function logical.of(node)
  return MAKE[node.logical](node)
end

return logical
