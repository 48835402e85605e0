-- SPDX-License-Identifier: Apache-2.0
-- DNS as a table, and services that cannot be reached. A name that nobody told has an address of its own.
local ffi = require "ffi"
local core = require "sluice.spec.core"

local C = core.C
local MOST = 64

local Names = {}
Names.__index = Names

local names = {}

---@param raw ffi.cdata* struct spec
function names.new(raw)
  return setmetatable({ raw = raw, by_address = {}, addresses = {} }, Names)
end

-- The name that was told to have this address.
function Names:name_of(address)
  return self.by_address[address]
end

local records = ffi.new("struct dns_record[?]", MOST)

local function lay(index, it)
  if type(it) == "string" then it = { address = it } end
  local record = records[index]
  ffi.copy(record.address, (it.address or it[1]):sub(1, 47))
  record.port, record.priority, record.weight = it.port or 0, it.priority or 0, it.weight or 0
  return it.address or it[1]
end

local function tell_list(self, name, list)
  local known = {}
  for i = 1, math.min(#list, MOST) do
    known[i] = lay(i - 1, list[i])
    if name:sub(1, 1) ~= "_" then self.by_address[known[i]] = name end
  end
  self.addresses[name] = known
  return #known
end

local function tell_one(self, name, answer)
  local count
  if answer == "fails" then
    count = -1
  elseif not answer then
    count = 0
  else
    count = tell_list(self, name, type(answer) == "table" and not answer.address and answer or { answer })
  end
  if name:sub(1, 1) == "_" then
    C.spec_name(self.raw, name, C.DNS_SRV, records, count)
    return
  end
  for _, kind in ipairs { C.DNS_ADDRESS, C.DNS_A } do C.spec_name(self.raw, name, kind, records, count) end
end

function Names:tell(answers)
  for name, answer in pairs(answers) do tell_one(self, name, answer) end
end

local function is_address(text)
  return text:find("^%d+%.%d+%.%d+%.%d+$") or text:find("^%[?%x*:%x*:") or text:sub(1, 5) == "unix:"
end

-- Where a service of that key ("name:port") is reached: a list of addresses, and the port or 0.
local function places(self, key)
  if key == "*" then return { "" }, 0 end
  local host, port = key:match("^(.-):(%d+)$")
  host = host or key
  if is_address(host) then return { host }, tonumber(port) or 0 end
  return self.addresses[host] or { ffi.string(C.spec_address(self.raw, host)) }, tonumber(port) or 0
end

-- Connections to a service are refused, come to nothing, or are accepted, as its answer says.
function Names:mood(key, answer)
  local mood = C.SPEC_ACCEPTS
  if type(answer) == "table" then
    mood = answer.refuse and C.SPEC_REFUSES or answer.silent and C.SPEC_SILENT or mood
  end
  local addresses, port = places(self, key)
  for _, address in ipairs(addresses) do C.spec_mood(self.raw, address, port, mood) end
end

return names
