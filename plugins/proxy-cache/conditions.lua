-- SPDX-License-Identifier: Apache-2.0
-- Conditional requests (RFC 9110 13) and ranges (14), answered from what is stored (RFC 9111 4.3.2, 3.3).
local time = require "sluice.time"

local conditions = {}

local MOST_RANGES = 16

-- ---- Validators ----

local function opaque(tag)
  return (tag:gsub("^W/", ""))
end

-- Whether a list of entity tags has this one; `W/` makes no difference (RFC 9110 8.8.3.2).
local function has_tag(list, tag)
  if list:match("^%s*%*%s*$") then return true end
  if not tag then return false end
  for each in list:gmatch('W?/?"[^"]*"') do
    if opaque(each) == opaque(tag) then return true end
  end
  return false
end

-- Whether the client has it already: 304. `field` gives fields of the stored response.
---@param request { if_none_match: string|nil, if_modified_since: string|nil }
---@return boolean
function conditions.is_not_modified(request, field)
  if request.if_none_match then return has_tag(request.if_none_match, field "etag") end
  local since = request.if_modified_since and time.parse_http_date(request.if_modified_since)
  if not since then return false end
  local modified = time.parse_http_date(field "last-modified" or field "date" or "")
  return modified ~= nil and modified <= since
end

-- Whether a validator of a new response contradicts what is stored.
function conditions.differs(new, field)
  local tag, other = new "etag", field "etag"
  if tag and other then return opaque(tag) ~= opaque(other) end
  local modified, stored = new "last-modified", field "last-modified"
  return modified ~= nil and stored ~= nil and modified ~= stored
end

-- ---- Ranges ----

-- If-Range: the range counts only while the content is the same, by a strong comparison (RFC 9110 13.1.5).
local function range_holds(if_range, field)
  if not if_range then return true end
  if if_range:find('^"') then return if_range == field "etag" end
  if if_range:find("^W/") then return false end
  local modified, date = field "last-modified", time.parse_http_date(field "date" or "")
  if if_range ~= modified or not date then return false end
  return time.parse_http_date(modified) + 1 <= date
end

local function one_range(text, length)
  local first, last = text:match("^%s*(%d*)%s*%-%s*(%d*)%s*$")
  if not first or first == "" and last == "" then return nil end
  if first == "" then
    local count = math.min(tonumber(last), length)
    return length - count, length
  end
  first, last = tonumber(first), last ~= "" and tonumber(last) or nil
  if last and last < first then return nil end
  return first, math.min(last and last + 1 or length, length)
end

-- The ranges that are asked for: a list of { from, to }, empty when none can be had (416); nil: the request is for the
-- whole, or is to be taken so.
---@param request { range: string|nil, if_range: string|nil }
---@param length integer of the whole
---@return integer[][]|nil
function conditions.ranges(request, length, field)
  local set = request.range and request.range:lower():match("^%s*bytes%s*=(.*)$")
  if not set or not range_holds(request.if_range, field) then return nil end
  local list, seen, bytes = {}, 0, 0
  for text in (set .. ","):gmatch("([^,]*),") do
    if text:find("%S") then
      local from, to = one_range(text, length)
      if not from then return nil end
      seen = seen + 1
      if from < to then
        list[#list + 1] = { from, to }
        bytes = bytes + to - from
      end
    end
  end
  -- Many small ones, or ones that overlap, are an attack more often than a need (RFC 9110 14.2).
  if seen == 0 or seen > MOST_RANGES or #list > 1 and bytes > length then return nil end
  return list
end

return conditions
