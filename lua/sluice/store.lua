-- SPDX-License-Identifier: Apache-2.0
-- Texts by key that all workers share, on disk: may be large, survive a restart, and make room for younger ones when
-- the store is full. A cache, not a ledger.

local ffi = require "ffi"
local core = require "sluice.api.core"
local check = require "sluice.api.check"

local C, worker = core.C, core.worker
local ffi_string = ffi.string

---@class sluice.store
local store = {}

local OK, NONE, DIFFERS = 0, 2, 3

local out, key_out = ffi.new("struct bytes[1]"), ffi.new("struct bytes[1]")
local ttl_out = ffi.new("double[1]")

---@param key string 1 to 480 bytes
---@param value string
---@param ttl? number seconds; 0 or nil: it never ends
---@return boolean|nil true
---@return string|nil err
function store.set(key, value, ttl)
  check.string("sluice.store.set", "key", key)
  check.string("sluice.store.set", "value", value)
  local status = C.bridge_store_set(worker, key, #key, value, #value, ttl or 0)
  if status == OK then return true end
  return nil, core.reason(status)
end

-- Sets the value where there is none.
---@param key string
---@param value string
---@param ttl? number seconds
---@return boolean|nil true; false: there is one already
---@return string|nil err
function store.add(key, value, ttl)
  check.string("sluice.store.add", "key", key)
  check.string("sluice.store.add", "value", value)
  local status = C.bridge_store_add(worker, key, #key, value, #value, ttl or 0)
  if status == OK then return true end
  if status == DIFFERS then return false end
  return nil, core.reason(status)
end

---@param key string
---@return string|nil value nil without an error: there is none
---@return number|string|nil ttl seconds left, 0: it never ends; or the error
function store.get(key)
  check.string("sluice.store.get", "key", key)
  local status = C.bridge_store_get(worker, key, #key, out, ttl_out)
  if status == OK then return ffi_string(out[0].data, out[0].len), ttl_out[0] end
  if status == NONE then return nil end
  return nil, core.reason(status)
end

---@param key string
---@return boolean|nil whether there was one
---@return string|nil err
function store.delete(key)
  check.string("sluice.store.delete", "key", key)
  local status = C.bridge_store_delete(worker, key, #key)
  if status == OK or status == NONE then return status == OK end
  return nil, core.reason(status)
end

---@param prefix string
---@return integer|nil how many
---@return string|nil err
function store.delete_prefix(prefix)
  check.string("sluice.store.delete_prefix", "prefix", prefix)
  local count = C.bridge_store_delete_prefix(worker, prefix, #prefix)
  if count == count then return count end
  return nil, core.reason(-6)
end

-- Keys with a prefix in their order, with values and the seconds left. Others may write meanwhile.
---@param prefix? string all unless told
---@return fun(): string|nil, string|nil, number|nil
function store.each(prefix)
  prefix = prefix or ""
  check.string("sluice.store.each", "prefix", prefix)
  local after = ""
  return function()
    if C.bridge_store_next(worker, prefix, #prefix, after, #after, key_out, out, ttl_out) ~= OK then return nil end
    after = ffi_string(key_out[0].data, key_out[0].len)
    return after, ffi_string(out[0].data, out[0].len), ttl_out[0]
  end
end

---@return { entries: integer, bytes_used: integer, bytes_limit: integer, evicted: integer }|nil
---@return string|nil err
function store.usage()
  local usage = ffi.new("struct store_usage[1]")
  local status = C.bridge_store_usage(worker, usage)
  if status ~= OK then return nil, core.reason(status) end
  return {
    entries = usage[0].entries, bytes_used = usage[0].bytes_used, bytes_limit = usage[0].bytes_limit,
    evicted = usage[0].evicted,
  }
end

return store
