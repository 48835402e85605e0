-- SPDX-License-Identifier: Apache-2.0
-- The phases by name and number, which of them a call is allowed in, and how a plugin's answer ends a phase.
--
-- Numbers are those of `enum phase` in core/bridge.h. Each API function tests the phase that its exchange is in against
-- a mask made when the module was loaded.

local bit = require "bit"
local exchanges = require "sluice.exchanges"

local band, bor, lshift = bit.band, bit.bor, bit.lshift
local error = error
local find, running = exchanges.find, exchanges.running

local phases = {}

-- Those "(stream)" are plugins' balancer and log run for a TCP or TLS stream: phases of their own here, so that what a
-- stream does not have is refused there as in any other phase that does not allow it. produce and consume run inside
-- access, for each record that a plugin carries there, and may do what access may; the core does not run them.
local NAMES = {
  "init_worker", "configure", "certificate", "preread", "rewrite", "access", "balancer", "header_filter", "body_filter",
  "response", "log", "ws_client_frame", "ws_upstream_frame", "balancer (stream)", "log (stream)",
  "service_head", "produce", "consume",
}
local GROUPS = { heads = { "service_head", "header_filter" }, frames = { "ws_client_frame", "ws_upstream_frame" },
  streams = { "preread", "balancer (stream)", "log (stream)" }, access = { "access", "produce", "consume" } }

---@type table<integer, string> names by number, from 0
phases.names = {}
---@type table<string, integer> numbers by name
phases.numbers = {}
for i, name in ipairs(NAMES) do
  phases.names[i - 1] = name
  phases.numbers[name] = i - 1
end

-- What `exchange.response:exit` raises: the phase runner takes it for the end of the phase, not for an error.
phases.EXIT = setmetatable({}, { __tostring = function() return "the exchange has been answered" end })

-- Phases in which a call may wait, as plugin-api.md lists them.
local WAITING = {
  init_worker = true, certificate = true, preread = true, rewrite = true, access = true, response = true, log = true,
  ws_client_frame = true, ws_upstream_frame = true, ["log (stream)"] = true,
  produce = true, consume = true,
}

---@param ... string names of phases; "heads": both of a response's head; "frames": those of WebSockets; "streams": of
--- TCP
---@return integer mask with one bit a phase
function phases.mask(...)
  local mask = 0
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    for _, one in ipairs(GROUPS[name] or { name }) do
      local number = phases.numbers[one]
      if not number then error("no such phase: " .. tostring(one), 2) end
      mask = bor(mask, lshift(1, number))
    end
  end
  return mask
end

---@param phase integer
---@return boolean whether a call may wait (yield) in it
function phases.may_wait(phase)
  return WAITING[phases.names[phase]] == true
end

local function names_in(mask)
  local list = {}
  for i, name in ipairs(NAMES) do
    if band(mask, lshift(1, i - 1)) ~= 0 then list[#list + 1] = name end
  end
  return table.concat(list, ", ")
end

-- Apart from `check`, so that the compiled path of a call that is allowed holds no string work.
local function refuse(mask, phase, name, level)
  local running_names = names_in(phase)
  error(name .. " cannot be called in phase " .. (running_names ~= "" and running_names or "none") .. "; it can in "
    .. names_in(mask), level)
end

-- The phase of an exchange whose turn it is not, or that runs inside another of its phases; as a bit.
local function bit_of(handle, level)
  local exchange = find(handle)
  if not exchange then error("the exchange has ended", level + 1) end
  return (lshift(1, exchange.phase))
end

-- Raises, at the line of the plugin that called the API function, unless its exchange's phase is in the mask.
---@param mask integer the phases that allow it
---@param handle number of the exchange
---@param name string the function, as the plugin wrote it
---@param level? integer of the error, as seen from the caller of `check`; 2: whoever called that one
function phases.check(mask, handle, name, level)
  local phase = running.bit
  if running.handle ~= handle then phase = bit_of(handle, (level or 2) + 1) end
  if band(mask, phase) == 0 then refuse(mask, phase, name, (level or 2) + 2) end
end

return phases
