-- SPDX-License-Identifier: Apache-2.0
-- The same target for the same consumer, address, header, cookie, path, argument or piece of the path. Each text has
-- its own order among the targets (rendezvous hashing), the same in every worker and gateway: a target that goes takes
-- with it only what it had, one that comes takes its share from all. Without anything to go by, any target will do.

local ffi = require "ffi"
local cookie = require "sluice.balancer.cookie"
local exchanges = require "sluice.exchanges"
local native = require "sluice.ffi"
local query = require "sluice.query"
local random = require "sluice.random"
local uuid = require "sluice.uuid"

local C, worker = native.C, native.worker

local hashing = {}
hashing.__index = hashing

local OK = 0
local bytes, name_bytes, group = ffi.new("struct bytes[1]"), ffi.new("struct bytes[1]"), ffi.new("uint32_t[1]")

local function taken(status)
  if status ~= OK or bytes[0].len == 0 then return nil end
  return ffi.string(bytes[0].data, bytes[0].len)
end

-- What an exchange is known by; each gets the handle and what it is configured with.
local inputs = {}

function inputs.none()
  return nil
end

function inputs.consumer(exchange)
  local object = exchanges.find(exchange)
  if not object then return nil end
  local known = object.consumer or object.credential
  return known and tostring(known.id or known)
end

function inputs.ip(exchange)
  return taken(C.bridge_text(worker, exchange, C.TEXT_FORWARDED_IP, bytes))
end

function inputs.path(exchange)
  return taken(C.bridge_text(worker, exchange, C.TEXT_PATH, bytes))
end

-- All fields of that name, in their order.
function inputs.header(exchange, its)
  local values, nth = nil, 0
  while true do
    local value = taken(C.bridge_header_get(worker, exchange, C.MESSAGE_REQUEST, its.header, #its.header, nth, bytes))
    if not value then return values end
    values = values and values .. "," .. value or value
    nth = nth + 1
  end
end

function inputs.query_arg(exchange, its)
  local text = taken(C.bridge_text(worker, exchange, C.TEXT_QUERY, bytes))
  local value = text and query.first(text, its.query_arg)
  return value ~= nil and value ~= "" and tostring(value) or nil
end

-- By number ("1") or by name.
function inputs.uri_capture(exchange, its)
  local number = tonumber(its.uri_capture)
  if number then return taken(C.bridge_capture(worker, exchange, number, bytes)) end
  local nth = 0
  while C.bridge_capture_name(worker, exchange, nth, name_bytes, group) == OK do
    if ffi.string(name_bytes[0].data, name_bytes[0].len) == its.uri_capture then
      return taken(C.bridge_capture(worker, exchange, group[0], bytes))
    end
    nth = nth + 1
  end
end

-- A client without the cookie gets one.
function inputs.cookie(exchange, its)
  local value = cookie.sent(exchange, its.cookie) or cookie.told(exchange, its.cookie)
  if value then return value end
  value = uuid.v4()
  cookie.tell(exchange, its.cookie, value, "; Path=" .. its.cookie_path)
  return value
end

local function input(upstream, which)
  return {
    read = inputs[upstream["hash_" .. which] or "none"], header = upstream["hash_" .. which .. "_header"],
    query_arg = upstream["hash_" .. which .. "_query_arg"], uri_capture = upstream["hash_" .. which .. "_uri_capture"],
    cookie = upstream.hash_on_cookie, cookie_path = upstream.hash_on_cookie_path or "/",
  }
end

---@param upstream table
---@return table policy
function hashing.new(upstream)
  return setmetatable({ spread = "hash", on = input(upstream, "on"),
    fallback = input(upstream, "fallback") }, hashing)
end

function hashing:pick(exchange)
  local on, fallback = self.on, self.fallback
  local text = on.read(exchange, on) or fallback.read(exchange, fallback) or tostring(random())
  return C.bridge_target_by_hash(worker, exchange, self.generation, self.index, text, #text)
end

return hashing
