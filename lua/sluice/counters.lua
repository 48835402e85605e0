-- SPDX-License-Identifier: Apache-2.0
-- Numbers that all workers share, exact and without locks: what rate limits and the like count with. Whole numbers
-- below 2^53. They live as long as the gateway and may end by themselves.

local ffi = require "ffi"
local core = require "sluice.api.core"
local check = require "sluice.api.check"

local C, worker = core.C, core.worker
local ffi_string = ffi.string

---@class sluice.counters
local counters = {}

local PAUSE_EVERY = 16
local OK, AGAIN, NONE, DIFFERS = 0, 1, 2, 3
local FULL_TEXT = "the table of shared counters is full"

-- Adds and gives the new value. A key that is new begins at 0 and ends after `ttl`; adding to a living one does not
-- prolong it.
---@param key string
---@param delta? integer 1 unless told
---@param ttl? number seconds; 0 or nil: it never ends
---@param whose? string goes behind `key`; where it differs from request to request, this saves making the whole key
---@return integer|nil value
---@return string|nil err
function counters.add(key, delta, ttl, whose)
  check.string("sluice.counters.add", "key", key)
  check.string_or_nil("sluice.counters.add", "whose", whose)
  whose = whose or ""
  local value = C.bridge_counter_add(worker, key, #key, whose, #whose, delta or 1, ttl or 0)
  if value == value then return value end
  return nil, FULL_TEXT
end

---@param key string
---@return integer|nil value
function counters.get(key)
  check.string("sluice.counters.get", "key", key)
  local value = C.bridge_counter_get(worker, key, #key)
  if value == value then return value end
  return nil
end

---@param key string
---@return number|nil seconds left; 0: it never ends; nil: there is none
function counters.ttl(key)
  check.string("sluice.counters.ttl", "key", key)
  local value = C.bridge_counter_ttl(worker, key, #key)
  if value == value then return value end
  return nil
end

---@param key string
---@param value integer
---@param ttl? number seconds; 0 or nil: it never ends
---@return boolean|nil true
---@return string|nil err
function counters.set(key, value, ttl)
  check.string("sluice.counters.set", "key", key)
  check.number("sluice.counters.set", "value", value)
  if C.bridge_counter_set(worker, key, #key, value, ttl or 0) == OK then return true end
  return nil, FULL_TEXT
end

-- Sets the value where it still is `expected`.
---@param key string
---@param expected integer
---@param value integer
---@return boolean done
---@return string|nil why "none" or "differs"
function counters.compare_set(key, expected, value)
  check.string("sluice.counters.compare_set", "key", key)
  local status = C.bridge_counter_compare_set(worker, key, #key, expected, value)
  if status == OK then return true end
  return false, status == DIFFERS and "differs" or status == NONE and "none" or core.reason(status)
end

---@param key string
function counters.delete(key)
  check.string("sluice.counters.delete", "key", key)
  C.bridge_counter_delete(worker, key, #key)
end

-- ---- Named counters: they never end and can be listed; metrics are made of them ----

-- A handle that stays good for the life of the gateway, so that adding needs no look-up.
---@param key string
---@return number|nil handle nil: no room
function counters.name(key)
  local handle = C.bridge_counter_name(worker, key, #key)
  if handle > 0 then return handle end
  return nil
end

---@param handle number
---@param delta integer
function counters.add_at(handle, delta)
  C.bridge_counter_add_at(worker, handle, delta)
end

---@param handle number
---@return integer
function counters.at(handle)
  return (C.bridge_counter_at(worker, handle))
end

-- Sets the value where it still is `expected`.
---@param handle number
---@param expected integer
---@param value integer
---@return boolean done
function counters.swap_at(handle, expected, value)
  return C.bridge_counter_swap_at(worker, handle, expected, value) == OK
end

-- The named counters whose key begins with `prefix`, in no particular order.
---@param prefix string
---@return fun(): string|nil, integer|nil
function counters.each(prefix)
  local cursor, value = ffi.new("double[1]"), ffi.new("double[1]")
  local key = ffi.new("struct bytes[1]")
  return function()
    local status
    repeat status = C.bridge_counter_next(worker, prefix, #prefix, cursor, key, value) until status ~= AGAIN
    if status ~= OK then return nil end
    return ffi_string(key[0].data, key[0].len), value[0]
  end
end

local function no_pause() end

-- Which of them have been seen, a byte each: a table would grow by being made anew.
local function seen_before(known, handle)
  if handle >= known.room then
    local room = handle * 2
    local bytes = ffi.new("uint8_t[?]", room)
    ffi.copy(bytes, known.bytes, known.room)
    known.bytes, known.room = bytes, room
  end
  if known.bytes[handle] == 1 then return true end
  known.bytes[handle] = 1
  return false
end

local function each_new(prefix, known, found, pause)
  local cursor, value = ffi.new("double[1]"), ffi.new("double[1]")
  local key = ffi.new("struct bytes[1]")
  local status, seen = OK, 0
  while status == OK or status == AGAIN do
    status = C.bridge_counter_next(worker, prefix, #prefix, cursor, key, value)
    local handle = cursor[0]
    if status == OK and not seen_before(known, handle) then found(handle, key[0].data, key[0].len) end
    seen = seen + 1
    if status == AGAIN or seen % PAUSE_EVERY == 0 then pause() end
  end
end

-- A function that calls `found(handle, key, len)` once for each named counter whose key begins with `prefix`: for those
-- that are there when it is first called, later for the new ones. Names never end; while none is new, it looks at none.
---@param prefix string
---@param found fun(handle: integer, key: ffi.cdata*, len: integer) the bytes of the key stay good
---@return fun(pause?: fun()) pause is called now and then: looking through the whole table takes milliseconds
function counters.watch(prefix, found)
  local known, names = { bytes = ffi.new("uint8_t[1]"), room = 1 }, -1
  return function(pause)
    local now = C.bridge_counter_names(worker)
    if now == names then return end
    each_new(prefix, known, found, pause or no_pause)
    names = now
  end
end

---@param pause? fun() called now and then: looking through the whole table takes milliseconds
---@return { slots: integer, used: integer, named: integer, text_bytes: integer, text_used: integer, refused: integer }
function counters.usage(pause)
  local out, cursor = ffi.new("struct counter_usage[1]"), ffi.new("double[1]")
  while C.bridge_counter_usage(worker, cursor, out) == AGAIN do
    if pause then pause() end
  end
  return {
    slots = out[0].slots, used = out[0].used, named = out[0].named, text_bytes = out[0].text_bytes,
    text_used = out[0].text_used, refused = out[0].refused,
  }
end

jit.off(counters.usage) -- as exposition.lua, which it is asked with

return counters
