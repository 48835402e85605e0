-- SPDX-License-Identifier: Apache-2.0
-- Whether a response may be stored (RFC 9111 3), and for how long it is fresh (4.2).
local control = require "proxy-cache.control"
local time = require "sluice.time"

local storing = {}

local DAY = 86400
local NONE = {}

-- Statuses that are cacheable without being told so (RFC 9110 15.1).
local HEURISTIC = {}
for _, status in ipairs { 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501 } do HEURISTIC[status] = true end

-- What else may be stored without knowing more of it than that it is to be stored.
local UNDERSTOOD = setmetatable({ [302] = true, [303] = true, [307] = true }, { __index = HEURISTIC })

-- ---- Content-Type ----

-- "text/html; charset=utf-8" as { type, subtype, parameters }; nil when it is none.
---@param text string|nil
function storing.media(text)
  local main, sub, rest = (text or ""):match("^%s*([^/;%s]+)/([^/;%s]+)%s*(.*)$")
  if not main then return nil end
  local parameters = {}
  for name, value in rest:gmatch(";%s*([^=;%s]+)%s*=%s*([^;]+)") do
    parameters[name:lower()] = value:match('^"(.*)"%s*$') or value:match("^(.-)%s*$")
  end
  return { main = main:lower(), sub = sub:lower(), parameters = parameters }
end

local function fits(media, wanted)
  if wanted.main ~= "*" and wanted.main ~= media.main or wanted.sub ~= "*" and wanted.sub ~= media.sub then
    return false
  end
  for name, value in pairs(wanted.parameters) do
    if media.parameters[name] ~= value then return false end
  end
  return true
end

local function has_content_type(plan, text)
  local media = storing.media(text)
  if media and media.main == "text" and media.sub == "event-stream" then return false end -- it has no end
  if plan.any_type then return true end
  if not media then return false end
  for i = 1, #plan.types do
    if fits(media, plan.types[i]) then return true end
  end
  return false
end

-- ---- May it be stored ----

-- Why Cache-Control, or the lack of it, forbids to store a response (RFC 9111 3, 3.5); nil: it does not.
local function objection_of(cc, state, status, field)
  if cc["must-understand"] and not UNDERSTOOD[status] then return "must-understand" end
  if cc["no-store"] and not cc["must-understand"] then return "no-store" end
  if cc.private == true then return "private" end
  local shared = cc.public or cc["s-maxage"]
  if state.authorized and not (shared or cc["must-revalidate"]) then return "authorization" end
  if not (shared or cc["max-age"] or field "expires" or HEURISTIC[status]) then return "no lifetime" end
end

-- Names of fields that are not stored with it.
local function dropped(cc)
  local drop = {}
  for _, directive in ipairs { "private", "no-cache" } do
    local names = type(cc[directive]) == "string" and control.names(cc[directive]) or NONE
    for i = 1, #names do drop[#drop + 1] = names[i] end
  end
  return drop
end

-- ---- For how long ----

local function date_of(field, now)
  return time.parse_http_date(field "date" or "") or now
end

-- A tenth, or what is configured, of how long it has not changed (RFC 9111 4.2.2).
local function heuristic(conf, status, cc, field, now)
  if not HEURISTIC[status] and not cc.public then return 0 end
  local modified = time.parse_http_date(field "last-modified" or "")
  if not modified then return 0 end
  return math.min(math.max(0, date_of(field, now) - modified) * conf.heuristic_fraction, conf.heuristic_max)
end

-- RFC 9111 4.2.1
local function lifetime_of(conf, status, cc, field, now)
  local seconds = control.seconds(cc, "s-maxage") or control.seconds(cc, "max-age")
  if seconds then return seconds end
  local expires = field "expires"
  if expires then
    local moment = time.parse_http_date(expires)
    return moment and math.max(0, moment - date_of(field, now)) or 0
  end
  return heuristic(conf, status, cc, field, now)
end

-- RFC 9111 4.2.3
local function age_of(field, delay, now)
  local told = tonumber((field "age" or ""):match("^%s*(%d+)")) or 0
  local apparent = math.max(0, now - date_of(field, now))
  return math.max(apparent, told + delay)
end

local function flags_of(cache, cc)
  local flags = 0
  if cc["must-revalidate"] or cc["proxy-revalidate"] or cc["s-maxage"] then flags = flags + cache.MUST_VALIDATE end
  if cc["no-cache"] == true then flags = flags + cache.ALWAYS_VALIDATE end
  return flags
end

local function tags_of(conf, field)
  local tags
  for i = 1, #conf.tag_headers do
    local value = field(conf.tag_headers[i])
    if value then tags = tags and tags .. " " .. value or value end
  end
  return tags or ""
end

-- Stored beyond its lifetime where it may still be of use: to be validated, or to be served stale.
local function keep_of(conf, how, field)
  if conf.storage_ttl then return conf.storage_ttl end
  local beyond = math.max(how.revalidate, how.error)
  if conf.cache_control and (field "etag" or field "last-modified") then beyond = math.max(beyond, DAY) end
  return how.lifetime + beyond
end

local function is_useless(how, field)
  return how.lifetime <= how.age and how.revalidate == 0 and how.error == 0
    and not (field "etag" or field "last-modified")
end

local function seconds_of(conf, cc, name, mine)
  return conf.cache_control and control.seconds(cc, name) or mine or 0
end

-- What is the same whether Cache-Control counts or not.
local function common_objection(conf, plan, field, drop)
  if not has_content_type(plan, field "content-type") then return "content type" end
  local vary = field "vary"
  if vary and vary:find("*", 1, true) then return "vary" end
  if not field "set-cookie" or conf.store_set_cookie then return nil end
  for i = 1, #drop do
    if drop[i] == "set-cookie" then return nil end
  end
  return "set-cookie"
end

-- How a response is to be stored (see sluice.cache.store), or nil and why it is not.
---@param conf table
---@param plan table made of it once
---@param state { authorized: boolean } of the request
---@param status integer
---@param field fun(name: string): string|nil of the response, several values in a list
---@param delay number seconds that the response took
---@param cache table sluice.cache
---@return table|nil
---@return string|nil why
function storing.judge(conf, plan, state, status, field, delay, cache)
  if not plan.statuses[status] then return nil, "status" end
  local now, cc, drop = time.now(), control.parse(field "cache-control"), {}
  if conf.cache_control then
    local why = objection_of(cc, state, status, field)
    if why then return nil, why end
    drop = dropped(cc)
  end
  local objection = common_objection(conf, plan, field, drop)
  if objection then return nil, objection end
  local how = {
    lifetime = conf.cache_ttl, age = 0, flags = 0, most_bytes = conf.max_object_bytes,
    revalidate = seconds_of(conf, cc, "stale-while-revalidate", conf.stale_while_revalidate),
    error = seconds_of(conf, cc, "stale-if-error", conf.stale_if_error),
    vary = (field "vary" or ""):lower(), tags = tags_of(conf, field),
    drop = table.concat(drop, ",") .. "," .. plan.hidden,
  }
  if conf.cache_control then
    how.lifetime = lifetime_of(conf, status, cc, field, now)
    how.age = age_of(field, delay, now)
    how.flags = flags_of(cache, cc)
    if is_useless(how, field) then return nil, "stale" end
  end
  if how.lifetime == 0 and not conf.cache_control then return nil, "cache_ttl" end
  how.keep = keep_of(conf, how, field)
  return how
end

return storing
