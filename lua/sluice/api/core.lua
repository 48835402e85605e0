-- SPDX-License-Identifier: Apache-2.0
-- The core as the API sees it: one scratch cell, texts and numbers as Lua values, statuses as errors.
--
-- Functions that raise do so at the line of the plugin: they must be called directly by an API method, and not as a
-- tail call (`return (core.text(...))`), which would remove the method's frame and shift the level.

local ffi = require "ffi"
local native = require "sluice.ffi"
local phases = require "sluice.phases"

local C, worker = native.C, native.worker
if worker == nil then
  -- The checker loads plugins too, to validate them: what needs a running gateway says so instead of crashing.
  C = setmetatable({}, { __index = function(_, name)
    error("this needs a running gateway; it cannot be used while a plugin is loaded (" .. name .. ")", 3)
  end })
end
local E = ffi.C -- the enums of bridge.h
local ffi_string = ffi.string
local error = error
local yield = coroutine.yield

local OK, AGAIN, NONE, SEVERAL, STALE, FULL, LATE = 0, 1, 2, 3, -1, -3, -7
local NOT_BUFFERED = "the response is not buffered: see exchange.service.request:enable_buffering"

local core = { C = C, worker = worker, E = E }

local out = ffi.new("struct bytes[1]")
local out2 = ffi.new("struct bytes[1]")

local MESSAGES = {
  [-1] = "the exchange has ended",
  [-3] = "a limit of the gateway was reached",
  [-4] = "the connection is closed",
  [-5] = "timeout",
  [-7] = "the head of the response has already been sent",
  [2] = "not found",
}

-- What a status of the core means, for an error value or message.
---@param status integer
---@return string
function core.reason(status)
  local text = MESSAGES[status]
  if text then return text end
  local why = C.bridge_error(worker)
  if why ~= nil then
    local said = ffi_string(why)
    if said ~= "" then return said end
  end
  return status == -2 and "invalid argument" or "failed"
end

-- Raises for a status that a correct plugin does not meet.
local function raise(status, name, level)
  error((name and name .. ": " or "") .. core.reason(status), level + 1)
end

-- Raises unless `status` says that it was done.
---@param status integer
---@param name string the API function
function core.must(status, name)
  if status ~= OK then raise(status, name, 3) end
end

---@param handle number
---@param what integer TEXT_*
---@return string|nil
function core.text(handle, what)
  local status = C.bridge_text(worker, handle, what, out)
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  if status == STALE then raise(status, nil, 3) end
  return nil
end

---@param handle number
---@param what integer NUMBER_*
---@return number|nil
function core.number(handle, what)
  local value = C.bridge_number(worker, handle, what)
  if value == value then return value end
  return nil
end

function core.set_text(handle, what, value, name)
  local status = C.bridge_text_set(worker, handle, what, value, #value)
  if status ~= OK then raise(status, name, 3) end
end

function core.set_number(handle, what, value, name)
  local status = C.bridge_number_set(worker, handle, what, value)
  if status ~= OK then raise(status, name, 3) end
end

---@param nth? integer from 0; the first unless told
---@return string|nil value of that field of that name
function core.header(handle, message, name, nth)
  local status = C.bridge_header_get(worker, handle, message, name, #name, nth or 0, out)
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  if status == STALE then raise(status, nil, 3) end
  return nil
end

-- The same by the number of the name.
---@param name integer from bridge_field_name
function core.field(handle, message, name, nth)
  local status = C.bridge_field_get(worker, handle, message, name, nth, out)
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  if status == STALE then raise(status, nil, 3) end
  return nil
end

-- The same with whether there are several of that name.
---@return string|nil
---@return boolean several
function core.field_only(handle, message, name)
  local status = C.bridge_field_only(worker, handle, message, name, out)
  if status == OK then return ffi_string(out[0].data, out[0].len), false end
  if status == SEVERAL then return ffi_string(out[0].data, out[0].len), true end
  if status == STALE then raise(status, nil, 3) end
  return nil, false
end

local identity = ffi.new("struct identity[1]")

local function put_bytes(at, value)
  if value then
    at.data, at.len = value, #value
  else
    at.data = nil
  end
end

-- Tells the service whom the request was authenticated as; nil: that is not known.
---@return integer status of the core
function core.set_identity(handle, id, custom_id, username, credential, anonymous)
  local it = identity[0]
  put_bytes(it.consumer_id, id)
  put_bytes(it.consumer_custom_id, custom_id)
  put_bytes(it.consumer_username, username)
  put_bytes(it.credential, credential)
  it.anonymous = anonymous
  return (C.bridge_identity_set(worker, handle, identity))
end

---@return integer status of the core
function core.clear_identity(handle)
  return (C.bridge_identity_clear(worker, handle))
end

---@return string|nil name
---@return string|nil value
function core.header_at(handle, message, index)
  if C.bridge_header_at(worker, handle, message, index, out, out2) ~= OK then return nil end
  return ffi_string(out[0].data, out[0].len), ffi_string(out2[0].data, out2[0].len)
end

local REFUSALS = { [400] = "the framing of the body is broken", [408] = "the body did not arrive in time" }

-- Why there is no more of a client's body, and the status to answer with.
local function no_body(handle, status)
  if status ~= FULL then return nil, core.reason(status), 400 end
  local refusal = C.bridge_body_refused(worker, handle)
  return nil, REFUSALS[refusal] or core.reason(status), refusal ~= 0 and refusal or 413
end

-- A whole body; waits for it.
---@return string|nil body
---@return string|nil err
---@return integer|nil refusal of a client's body: the status to answer with
function core.body(handle, message)
  local status = C.bridge_body(worker, handle, message, out)
  while status == AGAIN do
    status = yield()
    if status == OK then status = C.bridge_body(worker, handle, message, out) end
  end
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  if status == 2 then return "" end
  if message ~= E.MESSAGE_RESPONSE then return no_body(handle, status) end
  return nil, status == LATE and NOT_BUFFERED or core.reason(status)
end

-- See exchange.request:read_body.
---@return string|nil piece
---@return string|nil err
---@return integer|nil refusal
function core.take_body(handle)
  local status = C.bridge_body_take(worker, handle, out)
  while status == AGAIN do
    status = yield()
    if status == OK then status = C.bridge_body_take(worker, handle, out) end
  end
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  if status == NONE then return nil end
  if status == LATE then return nil, "the body has been asked for whole" end
  return no_body(handle, status)
end

-- See exchange.request:get_kept_body.
---@return string|nil body
---@return string|nil err
function core.kept_body(handle)
  local status = C.bridge_body_kept(worker, handle, out)
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  if status == E.BRIDGE_FULL then return nil, "too large" end
  return nil, "incomplete"
end

local try_info = ffi.new("struct try_info[1]")

-- See exchange.service:get_tries.
---@return table[]
function core.tries(handle)
  local list = {}
  while C.bridge_try(worker, handle, #list, try_info) == OK do
    local try = try_info[0]
    local failed, known = try.status > 0, try.ip.len > 0
    list[#list + 1] = {
      ip = known and ffi_string(try.ip.data, try.ip.len) or nil, port = known and try.port or nil,
      balancer_start = math.floor(try.begun_us / 1000), balancer_start_ns = try.begun_us * 1000,
      state = failed and (try.answered and "next" or "failed") or nil, code = failed and try.status or nil,
    }
  end
  return list
end

---@return string|nil
function core.capture(handle, index)
  if C.bridge_capture(worker, handle, index, out) ~= OK then return nil end
  return ffi_string(out[0].data, out[0].len)
end

local group = ffi.new("uint32_t[1]")

---@return string|nil name
---@return integer|nil group
function core.capture_name(handle, index)
  if C.bridge_capture_name(worker, handle, index, out, group) ~= OK then return nil end
  return ffi_string(out[0].data, out[0].len), tonumber(group[0])
end

-- Waits when the core said so. Must not be called in a phase that may not wait: `core.may_wait` first.
---@param status integer
---@return integer status
---@return number|nil number what the operation gave
function core.wait(status)
  if status == AGAIN then return yield() end
  return status
end

core.check_phase = phases.check

local function is_same(one, other)
  return one.handle == other.handle
end

-- A part of the exchange object: nothing but the handle with methods on it, made anew at each look at it. Compiled code
-- keeps it in a register, so it is never allocated there; and no plugin can make it speak of another exchange.
---@param find fun(part: table, key: string): any its methods
---@return fun(handle: number): table
function core.part(find)
  local type_of_its_own = ffi.typeof(ffi.new("struct { const double handle; }"))
  return ffi.metatype(type_of_its_own, { __index = find, __eq = is_same })
end

-- The same for methods alone.
---@param methods table
---@return fun(handle: number): table
function core.plain_part(methods)
  return (core.part(function(_, key) return methods[key] end))
end

return core
