-- SPDX-License-Identifier: Apache-2.0
-- What `format` asserts, where it is to. Each takes a string. Of formats that are not here nothing is asserted.
local pattern = require "sluice.json_schema.pattern"

local find, gsub, match, sub, tonumber = string.find, string.gsub, string.match, string.sub, tonumber

local formats = {}

-- ---- Dates and times (RFC 3339) ----

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

function formats.date(text)
  local year, month, day = match(text, "^(%d%d%d%d)-(%d%d)-(%d%d)$")
  if not year then return false end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  local most = DAYS[month]
  if month == 2 and year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) then most = 29 end
  return most ~= nil and day >= 1 and day <= most
end

-- Minutes that a zone is ahead of UTC; nil: it is none.
local function zone_of(text)
  if text == "Z" or text == "z" then return 0 end
  local sign, hours, minutes = match(text, "^([+-])(%d%d):(%d%d)$")
  if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
  return (tonumber(hours) * 60 + tonumber(minutes)) * (sign == "-" and -1 or 1)
end

function formats.time(text)
  local hour, minute, second, rest = match(text, "^(%d%d):(%d%d):(%d%d)(.*)$")
  if not hour then return false end
  rest = gsub(rest, "^%.%d+", "")
  local zone = zone_of(rest)
  if not zone then return false end
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  if hour > 23 or minute > 59 or second > 60 then return false end
  -- Leap seconds come at the end of a day in UTC.
  return second < 60 or (hour * 60 + minute - zone) % 1440 == 1439
end

formats["date-time"] = function(text)
  local date, time = match(text, "^([%d-]+)[Tt](.+)$")
  return date ~= nil and formats.date(date) and formats.time(time)
end

-- Units in their order, none left out between two others.
local function units(text, names)
  if text == "" then return true end
  local at, last = 1, nil
  while at <= #text do
    local digits, unit, past = match(text, "^(%d+)(%u)()", at)
    local place = unit and find(names, unit, 1, true)
    if not digits or not place or (last and place ~= last + 1) then return false end
    at, last = past, place
  end
  return true
end

function formats.duration(text)
  if find(text, "^P%d+W$") then return true end
  local date, rest = match(text, "^P([^T]*)(.*)$")
  if not date or (date == "" and rest == "") or rest == "T" then return false end
  return units(date, "YMD") and units(sub(rest, 2), "HMS")
end

-- ---- Addresses ----

function formats.ipv4(text)
  local count = 0
  for part in (text .. "."):gmatch("([^.]*)%.") do
    if not find(part, "^%d%d?%d?$") or tonumber(part) > 255 or find(part, "^0%d") then return false end
    count = count + 1
  end
  return count == 4
end

-- How many groups of 16 bits; nil: not such groups. An IPv4 address may be the last.
local function groups_of(text, may_end)
  if text == "" then return 0 end
  local count = 0
  local list = text .. ":"
  for group, past in list:gmatch("([^:]*):()") do
    if find(group, "^%x%x?%x?%x?$") then
      count = count + 1
    elseif may_end and past > #list and formats.ipv4(group) then
      count = count + 2
    else
      return nil
    end
  end
  return count
end

function formats.ipv6(text)
  if find(text, "[^%x:.]") then return false end
  local head, tail = match(text, "^(.-)::(.*)$")
  if not head then return groups_of(text, true) == 8 end
  local before, behind = groups_of(head, false), groups_of(tail, true)
  return before ~= nil and behind ~= nil and before + behind <= 7
end

local function is_label(label)
  return #label <= 63 and find(label, "^%w[%w-]*$") ~= nil and sub(label, -1) ~= "-"
    and (not find(label, "^..%-%-") or find(label, "^[xX][nN]%-%-%w") ~= nil)
end

function formats.hostname(text)
  if text == "" or #text > 253 then return false end
  for label in (text .. "."):gmatch("([^.]*)%.") do
    if not is_label(label) then return false end
  end
  return true
end

local ATOM = "^[%w!#$%%&'*+/=?^_`{|}~-]+$"

local function is_local_part(text)
  if find(text, '^".*"$') then return #text >= 2 and not find(gsub(sub(text, 2, -2), "\\.", ""), '["\\]') end
  for atom in (text .. "."):gmatch("([^.]*)%.") do
    if not find(atom, ATOM) then return false end
  end
  return #text <= 64
end

function formats.email(text)
  local name, host = match(text, "^(.*)@([^@]*)$")
  if not name or not is_local_part(name) then return false end
  local literal = match(host, "^%[(.*)%]$")
  if not literal then return formats.hostname(host) end
  local six = match(literal, "^IPv6:(.*)$")
  if six then return formats.ipv6(six) end
  return formats.ipv4(literal)
end

-- ---- URIs (RFC 3986) ----

local PLAIN = "%w%-._~!$&'()*+,;=:@"

local function only(text, extra, wide)
  if find(gsub(text, "%%%x%x", ""), "%", 1, true) then return false end
  return not find(text, "[^%%" .. PLAIN .. extra .. (wide and "\128-\255" or "") .. "]")
end

local function is_host(host, wide)
  local literal = match(host, "^%[(.*)%]$")
  if literal then return formats.ipv6(literal) or find(literal, "^v%x+%.[%w%-._~!$&'()*+,;=:]+$") ~= nil end
  return not find(host, "[:@]") and only(host, "", wide)
end

local function is_authority(text, wide)
  local user, rest = match(text, "^(.*)@([^@]*)$")
  if user and (find(user, "@", 1, true) or not only(user, "", wide)) then return false end
  rest = rest or text
  local host = match(rest, "^(.-):%d*$") or rest
  if sub(rest, 1, 1) == "[" then
    host = match(rest, "^(%[.*%])$") or match(rest, "^(%[.*%]):%d*$")
    if not host then return false end
  end
  return is_host(host, wide)
end

local function reference(text, needs_scheme, wide)
  local before, fragment = match(text, "^([^#]*)#?(.*)$")
  local scheme, rest = match(before, "^(%a[%w+.-]*):(.*)$")
  if needs_scheme and not scheme then return false end
  rest = rest or before
  local authority
  if sub(rest, 1, 2) == "//" then authority, rest = match(rest, "^//([^/?]*)(.*)$") end
  local path, query = match(rest, "^([^?]*)%??(.*)$")
  if authority and not is_authority(authority, wide) then return false end
  if not scheme and not authority and find(path, "^[^/]*:") then return false end
  return only(path, "/", wide) and only(query, "/?", wide) and only(fragment, "/?", wide)
end

function formats.uri(text) return reference(text, true, false) end
function formats.iri(text) return reference(text, true, true) end
formats["uri-reference"] = function(text) return reference(text, false, false) end
formats["iri-reference"] = function(text) return reference(text, false, true) end

local function is_variable(text)
  local name = match(text, "^(.-)%*$") or match(text, "^(.-):[1-9]%d?%d?%d?$") or text
  name = gsub(name, "%%%x%x", "x")
  return find(name, "^[%w_][%w_.]*$") ~= nil and not find(name, "%.%.") and sub(name, -1) ~= "."
end

local function is_expression(text)
  local list = gsub(text, "^[+#./;?&=,!@|]", "")
  for variable in (list .. ","):gmatch("([^,]*),") do
    if not is_variable(variable) then return false end
  end
  return true
end

formats["uri-template"] = function(text)
  local literals = gsub(text, "{([^{}]*)}", function(inner) return is_expression(inner) and "" or "{" end)
  return not find(literals, "[%c \"'<>\\^`{|}]") and not find(gsub(literals, "%%%x%x", ""), "%", 1, true)
end

-- ---- The rest ----

function formats.uuid(text)
  return find(text, "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") ~= nil
end

formats["json-pointer"] = function(text)
  return (text == "" or sub(text, 1, 1) == "/") and not find(gsub(text, "~[01]", ""), "~", 1, true)
end

formats["relative-json-pointer"] = function(text)
  local digits, rest = match(text, "^(%d+)(.*)$")
  if not digits or find(digits, "^0%d") then return false end
  return rest == "#" or formats["json-pointer"](rest)
end

function formats.regex(text)
  return pattern.new(text) ~= nil
end

return formats
