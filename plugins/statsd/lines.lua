-- SPDX-License-Identifier: Apache-2.0
-- Metrics of an exchange as lines of StatsD, plain or with tags:
--
--   kong.service.shop.request.count:1|c        kong.request.count:1|c|#service:shop,route:all     (dogstatsd)
local counters = require "sluice.counters"
local node = require "sluice.node"
local random = require "sluice.random"
local sleep = require "sluice.sleep"
local store = require "sluice.store"
local time = require "sluice.time"

local lines = {}

local concat, floor, gsub, tostring = table.concat, math.floor, string.gsub, tostring

local TYPES = { counter = "c", gauge = "g", histogram = "h", meter = "m", set = "s", timer = "ms" }
local WORKSPACE = { workspace_id = "default", workspace_name = "default" }
local USAGE_EVERY_S = 60

-- What would end a name, or begin another part of the line.
local function plain(text)
  return (gsub(tostring(text), "[%s.:|@#,=%[%];]", "_"))
end

local function service_name(service, by)
  if by == "service_id" then return service.id end
  if by == "service_host" then return service.host end
  if by == "service_name" then return service.name or service.id end
  return service.name or service.host
end

local function consumer_name(consumer, by)
  if not consumer then return nil end
  return by == "consumer_id" and consumer.id or consumer[by]
end

local TAGGED = {
  dogstatsd = function(name, tail, tags) return name .. tail .. (tags[1] and "|#" .. concat(tags, ",") or "") end,
  influxdb = function(name, tail, tags) return name .. (tags[1] and "," .. concat(tags, ",") or "") .. tail end,
  librato = function(name, tail, tags) return name .. (tags[1] and "#" .. concat(tags, ",") or "") .. tail end,
  signalfx = function(name, tail, tags) return name .. (tags[1] and "[" .. concat(tags, ",") .. "]" or "") .. tail end,
}

-- One metric: what is in its name, and in tags where those are wanted: { tag, value, tag, value... }.
local function put(state, list, metric, parts, name, value, tags)
  local rate = metric.sample_rate
  if rate and rate < 1 and random() >= rate then return end
  local tail = ":" .. tostring(value) .. "|" .. TYPES[metric.stat_type]
  if rate and rate < 1 then tail = tail .. "|@" .. tostring(rate) end
  if not state.style then
    list[#list + 1] = state.prefix .. parts .. name .. tail
    return
  end
  local texts, sign = {}, state.style == "dogstatsd" and ":" or "="
  for i = 1, #tags, 2 do
    if tags[i + 1] then texts[#texts + 1] = tags[i] .. sign .. plain(tags[i + 1]) end
  end
  list[#list + 1] = TAGGED[state.style](state.prefix .. name, tail, texts)
end

local function named(state, facts, metric)
  local service = facts.service
  return service and service_name(service, metric.service_identifier or state.conf.service_identifier_default)
end

local function scope_of(state, facts, metric)
  local name = named(state, facts, metric)
  return name and "service." .. plain(name) .. "." or "global.unmatched."
end

local function tags_of(state, facts, metric)
  local route = facts.route
  return { "service", named(state, facts, metric) or false, "route", route and (route.name or route.id) or false }
end

-- ---- What is measured: each gets the facts of an exchange ----

local measure = {}

local function scoped(name, of)
  return function(state, list, metric, facts)
    local value = of(facts)
    if not value then return end
    put(state, list, metric, scope_of(state, facts, metric), name, value, tags_of(state, facts, metric))
  end
end

measure.request_count = scoped("request.count", function() return 1 end)
measure.request_size = scoped("request.size", function(facts) return facts.request_size end)
measure.response_size = scoped("response.size", function(facts) return facts.response_size end)
measure.latency = scoped("latency", function(facts) return facts.latency end)
measure.upstream_latency = scoped("upstream_latency", function(facts) return facts.upstream_latency end)
measure.kong_latency = scoped("kong_latency", function(facts) return facts.kong_latency end)

local function with_status(state, facts, metric, more)
  local tags = tags_of(state, facts, metric)
  tags[#tags + 1], tags[#tags + 2] = "status", facts.status
  for i = 1, #(more or {}) do tags[#tags + 1] = more[i] end
  return tags
end

function measure.status_count(state, list, metric, facts)
  if not facts.status_wanted then return end
  put(state, list, metric, scope_of(state, facts, metric), state.style and "status" or "status." .. facts.status, 1,
    with_status(state, facts, metric))
end

function measure.status_count_per_workspace(state, list, metric, facts)
  if not facts.status_wanted then return end
  local workspace = WORKSPACE[metric.workspace_identifier or state.conf.workspace_identifier_default]
  put(state, list, metric, "workspace." .. workspace .. ".",
    state.style and "workspace.status" or "status." .. facts.status, 1,
    with_status(state, facts, metric, { "workspace", workspace }))
end

-- The rest is of exchanges with a consumer.
local function user_of(state, metric, facts)
  return consumer_name(facts.consumer, metric.consumer_identifier or state.conf.consumer_identifier_default)
end

function measure.unique_users(state, list, metric, facts)
  local user = user_of(state, metric, facts)
  if not user then return end
  put(state, list, metric, scope_of(state, facts, metric), "user.uniques", plain(user), tags_of(state, facts, metric))
end

function measure.request_per_user(state, list, metric, facts)
  local user = user_of(state, metric, facts)
  if not user then return end
  local tags = tags_of(state, facts, metric)
  tags[#tags + 1], tags[#tags + 2] = "consumer", user
  put(state, list, metric, scope_of(state, facts, metric) .. "user." .. plain(user) .. ".",
    state.style and "user.request.count" or "request.count", 1, tags)
end

function measure.status_count_per_user(state, list, metric, facts)
  local user = user_of(state, metric, facts)
  if not user or not facts.status_wanted then return end
  put(state, list, metric, scope_of(state, facts, metric) .. "user." .. plain(user) .. ".",
    state.style and "user.status" or "status." .. facts.status, 1,
    with_status(state, facts, metric, { "consumer", user }))
end

function measure.status_count_per_user_per_route(state, list, metric, facts)
  local user, route = user_of(state, metric, facts), facts.route
  if not user or not route or not facts.status_wanted then return end
  put(state, list, metric, "route." .. plain(route.id) .. ".user." .. plain(user) .. ".",
    state.style and "route.user.status" or "status." .. facts.status, 1,
    with_status(state, facts, metric, { "consumer", user }))
end

local function give_way()
  sleep(0)
end

-- Shared memory, told once a minute: it is not a request's.
function measure.shdict_usage(state, list, metric)
  local now = time.monotonic()
  if now - state.usage_at < USAGE_EVERY_S then return end
  state.usage_at = now
  local counted, stored = counters.usage(give_way), store.usage()
  local shared = { { "counters", counted.slots * 64 + counted.text_bytes,
    counted.used * 64 + counted.text_used } }
  if stored then shared[2] = { "store", stored.bytes_limit, stored.bytes_used } end
  for _, one in ipairs(shared) do
    local host = plain(node.get_hostname())
    local parts = ("node.%s.shdict.%s."):format(host, one[1])
    local tags = { "node", host, "shdict", one[1] }
    put(state, list, metric, parts, state.style and "shdict.free_space" or "free_space", one[2] - one[3], tags)
    put(state, list, metric, parts, state.style and "shdict.capacity" or "capacity", one[2], tags)
  end
end

-- There is no datastore to be asked: nothing to count.
function measure.cache_datastore_hits_total() end
function measure.cache_datastore_misses_total() end

-- ---- Facts ----

local function is_wanted(state, status)
  if not state.ranges then return true end
  for _, range in ipairs(state.ranges) do
    if status >= range[1] and status <= range[2] then return true end
  end
  return false
end

local function facts_of(state, exchange)
  local whole, in_gateway, to_service, receiving = exchange:get_latencies()
  local status = exchange.response:get_status() or 0
  local route, service = exchange.router:get_route(), exchange.router:get_service()
  return {
    service = service, status = status, status_wanted = is_wanted(state, status), route = route,
    consumer = exchange.client:get_consumer(),
    request_size = exchange.request:get_size(), response_size = exchange.response:get_size(), latency = floor(whole),
    kong_latency = floor(in_gateway + (receiving or 0)), upstream_latency = to_service and floor(to_service),
  }
end

---@param conf table of an instance
---@return table state for `lines.of`
function lines.prepare(conf)
  local prefix = conf.prefix and conf.prefix ~= "" and conf.prefix .. "." or ""
  if conf.hostname_in_prefix then prefix = prefix .. "node." .. plain(node.get_hostname()) .. "." end
  local ranges
  for i, text in ipairs(conf.allow_status_codes or {}) do
    local from, to = text:match("^(%d+)%-(%d+)$")
    ranges = ranges or {}
    ranges[i] = { tonumber(from), tonumber(to) }
  end
  return { conf = { service_identifier_default = conf.service_identifier_default,
    consumer_identifier_default = conf.consumer_identifier_default,
    workspace_identifier_default = conf.workspace_identifier_default }, prefix = prefix, ranges = ranges,
    style = conf.tag_style, metrics = conf.metrics, usage_at = -USAGE_EVERY_S }
end

---@return string[]
function lines.of(state, exchange)
  local facts, list = facts_of(state, exchange), {}
  for _, metric in ipairs(state.metrics or {}) do measure[metric.name](state, list, metric, facts) end
  return list
end

return lines
