-- SPDX-License-Identifier: Apache-2.0
-- Time as of this turn of the loop, and its texts. A spec moves the clock, so nothing here asks the system.

local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local floor, format, match, tonumber, type = math.floor, string.format, string.match, tonumber, type

local time = {}

local DAYS = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
local MONTH_NUMBERS = {}
for i, name in ipairs(MONTHS) do MONTH_NUMBERS[name] = i end

---@return number seconds since 1970, with a fraction
function time.now()
  return (C.bridge_now(worker))
end

---@return number seconds that only ever grow, for durations
function time.monotonic()
  return (C.bridge_mono(worker))
end

-- Days since 1970 of a date of the Gregorian calendar, and back (Howard Hinnant's chrono algorithms).
local function days_from_date(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local year_of_era = year - era * 400
  local day_of_year = floor((153 * (month + (month > 2 and -3 or 9)) + 2) / 5) + day - 1
  return era * 146097 + year_of_era * 365 + floor(year_of_era / 4) - floor(year_of_era / 100) + day_of_year - 719468
end

local function date_from_days(days)
  days = days + 719468
  local era = floor(days / 146097)
  local day_of_era = days - era * 146097
  local year = floor((day_of_era - floor(day_of_era / 1460) + floor(day_of_era / 36524)
    - floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local shifted = floor((5 * day_of_year + 2) / 153)
  local month = shifted + (shifted < 10 and 3 or -9)
  return year + era * 400 + (month <= 2 and 1 or 0), month, day_of_year - floor((153 * shifted + 2) / 5) + 1
end

---@class sluice.date
---@field year integer
---@field month integer 1 to 12
---@field day integer
---@field hour integer
---@field minute integer
---@field second integer
---@field weekday integer 1: Sunday

---@param seconds? number since 1970; now unless told
---@return sluice.date in UTC
function time.date(seconds)
  local whole = floor(seconds or time.now())
  local days = floor(whole / 86400)
  local rest = whole - days * 86400
  local year, month, day = date_from_days(days)
  return {
    year = year, month = month, day = day,
    hour = floor(rest / 3600), minute = floor(rest / 60) % 60, second = rest % 60,
    weekday = (days + 4) % 7 + 1,
  }
end

-- nil unless each is in its range.
local function seconds_of(year, month, day, hour, minute, second)
  if month < 1 or month > 12 or day < 1 or day > 31 or hour > 23 or minute > 59 or second > 60 then return nil end
  local days = days_from_date(year, month, day)
  local _, its_month, its_day = date_from_days(days)
  if its_month ~= month or its_day ~= day then return nil end
  return days * 86400 + hour * 3600 + minute * 60 + second
end

---@param seconds? number since 1970; now unless told
---@return string "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7)
function time.http_date(seconds)
  local d = time.date(seconds)
  return format("%s, %02d %s %04d %02d:%02d:%02d GMT", DAYS[d.weekday], d.day, MONTHS[d.month], d.year, d.hour,
    d.minute, d.second)
end

-- A year of two digits more than 50 years ahead is one of the past century.
local function full_year(year)
  local this = time.date().year
  local guess = this - this % 100 + year
  return guess > this + 50 and guess - 100 or guess
end

local FORMS = {
  "^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$",          -- IMF-fixdate
  "^%a+, (%d%d)%-(%a%a%a)%-(%d%d) (%d%d):(%d%d):(%d%d) GMT$",               -- RFC 850
}
local ASCTIME = "^%a%a%a (%a%a%a) ([%d ]%d) (%d%d):(%d%d):(%d%d) (%d%d%d%d)$"

---@param text string in one of the three forms that HTTP knows
---@return number|nil seconds since 1970
function time.parse_http_date(text)
  if type(text) ~= "string" then return nil end
  local day, month, year, hour, minute, second
  for _, form in ipairs(FORMS) do
    day, month, year, hour, minute, second = match(text, form)
    if day then break end
  end
  if not day then month, day, hour, minute, second, year = match(text, ASCTIME) end
  local number = month and MONTH_NUMBERS[month]
  if not number then return nil end
  year = #year == 2 and full_year(tonumber(year)) or tonumber(year)
  return seconds_of(year, number, tonumber(day), tonumber(hour), tonumber(minute), tonumber(second))
end

---@param seconds? number since 1970; now unless told
---@param digits? integer of the fraction, 0 unless told
---@return string "1994-11-06T08:49:37Z" (RFC 3339)
function time.iso8601(seconds, digits)
  seconds = seconds or time.now()
  local fraction = ""
  if digits and digits > 0 then
    local scale = 10 ^ digits
    local units = floor(seconds * scale + 1e-6)
    seconds = floor(units / scale)
    fraction = format(".%0" .. digits .. "d", units - seconds * scale)
  end
  local d = time.date(seconds)
  return format("%04d-%02d-%02dT%02d:%02d:%02d%sZ", d.year, d.month, d.day, d.hour, d.minute, d.second, fraction)
end

local function offset_seconds(zone)
  if zone == "Z" or zone == "z" then return 0 end
  local sign, hours, minutes = match(zone, "^([+-])(%d%d):?(%d%d)$")
  if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
  return (sign == "-" and -1 or 1) * (tonumber(hours) * 3600 + tonumber(minutes) * 60)
end

---@param text string such as "1994-11-06T09:49:37.5+01:00"
---@return number|nil seconds since 1970
function time.parse_iso8601(text)
  if type(text) ~= "string" then return nil end
  local year, month, day, hour, minute, second, fraction, zone =
    match(text, "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(%.?%d*)(.*)$")
  local offset = zone and offset_seconds(zone)
  if not offset or fraction == "." then return nil end
  local whole = seconds_of(tonumber(year), tonumber(month), tonumber(day), tonumber(hour), tonumber(minute),
    tonumber(second))
  return whole and whole - offset + (tonumber("0" .. fraction) or 0)
end

return time
