-- SPDX-License-Identifier: Apache-2.0
-- Stored responses: the core finds, sends and stores them, a plugin decides. Shared by all workers, on disk, bounded by
-- gateway.limits.cache_bytes; see plugins/proxy-cache for how it is used.

local ffi = require "ffi"
local core = require "sluice.api.core"
local sleep = require "sluice.sleep"

local C, worker, E = core.C, core.worker, core.E
local ffi_string = ffi.string

---@class sluice.cache
local cache = {}

-- What find gives besides negative numbers.
cache.HIT, cache.NONE, cache.FOUND = 0, 2, 3
-- How waiting ends.
cache.LANDED, cache.NOTHING, cache.GONE, cache.TIMEOUT = 0, 2, -4, -5

local HIT, FULL, STORED = 0, -3, E.MESSAGE_STORED_RESPONSE

cache.MUST_VALIDATE, cache.ALWAYS_VALIDATE = E.CACHE_MUST_VALIDATE, E.CACHE_ALWAYS_VALIDATE
cache.ASKS = {
  control = E.CACHE_ASKS_CONTROL, condition = E.CACHE_ASKS_CONDITION, precondition = E.CACHE_ASKS_PRECONDITION,
  range = E.CACHE_ASKS_RANGE, authorization = E.CACHE_ASKS_AUTHORIZATION,
}
cache.TELLS = { age = E.CACHE_TELLS_AGE, status = E.CACHE_TELLS_STATUS, key = E.CACHE_TELLS_KEY,
  member = E.CACHE_TELLS_MEMBER }

local subject, found, how = ffi.new("struct cache_subject"), ffi.new("struct cache_found"), ffi.new("struct cache_how")
local label_cell, member_cell, out = ffi.new("struct bytes"), ffi.new("struct bytes"), ffi.new("struct bytes[1]")

local function lay(cell, text)
  cell.data, cell.len = text, text and #text or 0
end

-- ---- Rules ----

local function texts_of(list)
  local cells = ffi.new("struct bytes[?]", #list + 1)
  for i = 1, #list do lay(cells[i - 1], list[i]) end
  return cells
end

---@class sluice.cache.rules
---@field headers string[] names of the request's fields whose values are part of the key
---@field params string[]|nil arguments of the query that are; all unless told
---@field ignore_case boolean of the path
---@field by_authorization boolean Authorization is part of the key
---@field ignores_control boolean Cache-Control of requests does not count
---@field tells integer sum of cache.TELLS that a hit has

-- What keys are made of, to be made once.
---@param options sluice.cache.rules
---@return table
function cache.rules(options)
  local headers, params = {}, options.params or {}
  for i, name in ipairs(options.headers or {}) do headers[i] = name:lower() end
  table.sort(headers)
  local header_cells, param_cells = texts_of(headers), texts_of(params)
  local raw = ffi.new("struct cache_rules", {
    headers = header_cells, params = param_cells, header_count = #headers, param_count = #params,
    tells = options.tells or 0, all_params = options.params == nil, ignore_case = options.ignore_case or false,
    by_authorization = options.by_authorization or false, ignores_control = options.ignores_control or false,
  })
  return { raw = raw, tells = options.tells or 0, held = { headers, params, header_cells, param_cells } }
end

-- ---- Answering ----

-- Looks for a response to this request, in access. HIT: it was good as it is, and is the answer already. FOUND:
-- `cache.describe` says what there is. NONE. Negative: this request cannot be looked up, or the store fails.
---@param exchange sluice.exchange
---@param rules table from cache.rules
---@param scope string what keeps responses apart whatever the request, such as the id of a route
---@param who string whose they are, "" for everybody's
---@param method string
---@param body string of the request, or its digest
---@return integer
function cache.find(exchange, rules, scope, who, method, body)
  lay(subject.scope, scope)
  lay(subject.who, who)
  lay(subject.method, method)
  lay(subject.body, body)
  local status = C.bridge_cache_find(worker, exchange.handle, rules.raw, subject, found)
  if status == HIT then exchange.answered = true end
  return status
end

-- Why a call that gave FAILED did not do it.
cache.FAILED, cache.reason = -6, core.reason

-- What the last `find` of this exchange has found, before anything else is looked for. Of a request that has no
-- response: key and asks.
---@return table key, asks, flags, status, age, lifetime, revalidate, error, length, first, total }
function cache.describe()
  return {
    key = ffi_string(found.key, E.CACHE_KEY_HEX), asks = found.asks, flags = found.flags, status = found.status,
    age = found.age_s, lifetime = found.lifetime_s, revalidate = found.revalidate_s, error = found.error_s,
    length = found.length, first = found.first, total = found.total,
  }
end

-- A field of the response that was found.
---@param nth? integer from 1
---@return string|nil
function cache.field(exchange, name, nth)
  return (core.header(exchange.handle, STORED, name, nth and nth - 1 or 0))
end

-- Answers with what was found, in access or service_head. The plugin has nothing more to do then.
---@param tells integer sum of cache.TELLS
---@param status? integer in place of its own
---@param label string for X-Cache-Status
---@param member? string for Cache-Status; a hit's unless told
---@return integer status of the core
function cache.answer(exchange, tells, status, label, member)
  lay(label_cell, label)
  lay(member_cell, member)
  local result = C.bridge_cache_answer(worker, exchange.handle, tells, status or 0, label_cell, member_cell)
  if result == HIT then exchange.answered = true end
  return result
end

-- Before `answer`: of the content, a text and then what is stored from `from` up to before `to` go.
function cache.piece(exchange, text, from, to)
  return (C.bridge_cache_piece(worker, exchange.handle, text, #text, from, to))
end

-- ---- Storing ----

local function describe_how(options)
  how.lifetime_s, how.age_s = options.lifetime or 0, options.age or 0
  how.revalidate_s, how.error_s, how.keep_s = options.revalidate or 0, options.error or 0, options.keep or 0
  how.most_bytes, how.first, how.total = options.most_bytes or 0, options.first or 0, options.total or -1
  how.length, how.joins = options.length or 0, options.joins or false
  lay(how.vary, options.vary or "")
  lay(how.tags, options.tags or "")
  lay(how.drop, options.drop or "")
  how.flags = options.flags or 0
  return how
end

-- In service_head: the response is stored while it passes to the client.
---@param options table lifetime, age, revalidate, error, keep (seconds); most_bytes; vary, tags, drop (lists); flags;
--- of a part first, length, total, and whether it `joins` the part that was found
---@return boolean
---@return string|nil why not
function cache.store(exchange, options)
  local status = C.bridge_cache_store(worker, exchange.handle, describe_how(options))
  if status == HIT then return true end
  return false, status == FULL and "too large" or core.reason(status)
end

-- In service_head, with a 304 or a response to HEAD: what was found is good again, and takes over its fields.
---@return boolean
function cache.refresh(exchange, options)
  return C.bridge_cache_refresh(worker, exchange.handle, describe_how(options)) == HIT
end

-- In service_head: seconds from when the request went to the service until its response began.
---@return number
function cache.delay(exchange)
  return (core.number(exchange.handle, E.NUMBER_SERVICE_US) or 0) / 1e6
end

-- Names of fields, in a list, that the client is not told.
function cache.hide(exchange, names)
  return (C.bridge_cache_hide(worker, exchange.handle, names, #names))
end

-- What was found is stored no longer.
function cache.drop(exchange)
  return (C.bridge_cache_drop(worker, exchange.handle))
end

-- ---- One for all ----

-- One request goes to the service for all that want the same. HIT: this one. FOUND: another of this worker: `wait`.
-- NONE: one of another worker: ask again a little later.
---@param seconds number that others wait at most
---@return integer
function cache.lead(exchange, seconds)
  return (C.bridge_cache_lead(worker, exchange.handle, seconds))
end

-- Waits for the one that leads. LANDED: look again; NOTHING: there is nothing to look for; GONE; TIMEOUT.
---@return integer
function cache.wait(exchange, seconds)
  return (core.wait(C.bridge_cache_wait(worker, exchange.handle, seconds)))
end

-- Others need not wait for this one.
---@param stored boolean there is something to look for
function cache.unlead(exchange, stored)
  C.bridge_cache_unlead(worker, exchange.handle, stored)
end

-- The request goes to the service once more by itself, to validate what was found; what comes passes through
-- service_head and no other phase.
---@return number|nil handle of that exchange; nil: one is on its way already, or it cannot be done
function cache.renew(exchange)
  local handle = C.bridge_cache_renew(worker, exchange.handle)
  return handle == handle and handle or nil
end

-- ---- Purging ----

local URL, TAG, BATCH = E.CACHE_NAME_URL, E.CACHE_NAME_TAG, 200

-- In batches, between which others have their turn.
local function purge_all(kind, text, prefix, may_wait)
  local total = 0
  while true do
    local count = C.bridge_cache_purge(worker, kind, text, #text, prefix)
    if count ~= count then return nil, core.reason(-6) end
    total = total + count
    if count < BATCH then return total end
    if may_wait then sleep(0) end
  end
end

-- Responses to this URL ("host/path?query"), or to all that begin so. Waits where there are many.
---@return integer|nil how many
---@return string|nil err
function cache.purge_url(url, prefix)
  return purge_all(URL, url, prefix or false, true)
end

---@param tag string
---@return integer|nil how many
---@return string|nil err
function cache.purge_tag(tag)
  return purge_all(TAG, tag, false, true)
end

---@param key string as X-Cache-Key tells it
---@return integer|nil how many
---@return string|nil err
function cache.purge_key(key)
  local count = C.bridge_cache_purge_key(worker, key, #key)
  if count ~= count then return nil, "no key of a stored response" end
  return count
end

-- In any phase: responses to the exchange's own URL, or to a path (with a query) on its host.
---@param path? string
---@return integer|nil how many
function cache.invalidate(exchange, rules, path)
  local status = C.bridge_cache_url(worker, exchange.handle, rules.raw, path, path and #path or 0, out)
  if status ~= HIT then return nil end
  return (purge_all(URL, ffi_string(out[0].data, out[0].len), false, false))
end

-- The URL of an exchange as responses are stored under it.
---@return string|nil
function cache.url(exchange, rules)
  if C.bridge_cache_url(worker, exchange.handle, rules.raw, nil, 0, out) ~= HIT then return nil end
  return ffi_string(out[0].data, out[0].len)
end

local usage = ffi.new("struct store_usage[1]")

---@return { entries: integer, bytes_used: integer, bytes_limit: integer }|nil
function cache.usage()
  if C.bridge_cache_usage(worker, usage) ~= HIT then return nil end
  return { entries = usage[0].entries, bytes_used = usage[0].bytes_used, bytes_limit = usage[0].bytes_limit }
end

return cache
