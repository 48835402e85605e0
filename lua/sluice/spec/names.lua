-- SPDX-License-Identifier: Apache-2.0
-- DNS as a table, and services that cannot be reached. A name that nobody told has an address of its own.
local core = require "sluice.spec.core"

local C = core.C

local Names = {}
Names.__index = Names

local names = {}

---@param world table sluice.spec.inside or outside
function names.new(world)
  return setmetatable({ world = world, by_address = {}, addresses = {} }, Names)
end

-- The name that was told to have this address.
function Names:name_of(address)
  return self.by_address[address]
end

local function tell_list(self, name, list)
  local known, answer = {}, {}
  for i, it in ipairs(list) do
    if type(it) == "string" then it = { address = it } end
    answer[i] = { address = it.address or it[1], port = it.port, priority = it.priority, weight = it.weight }
    known[i] = answer[i].address
    if name:sub(1, 1) ~= "_" then self.by_address[known[i]] = name end
  end
  self.addresses[name] = known
  return answer
end

local function tell_one(self, name, given)
  local answer
  if given == "fails" then
    answer = -1
  elseif not given then
    answer = 0
  else
    answer = tell_list(self, name, type(given) == "table" and not given.address and given or { given })
  end
  if name:sub(1, 1) == "_" then
    self.world:name(name, C.DNS_SRV, answer)
    return
  end
  for _, kind in ipairs { C.DNS_ADDRESS, C.DNS_A } do self.world:name(name, kind, answer) end
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
  return self.addresses[host] or { self.world:address(host) }, tonumber(port) or 0
end

-- Connections to a service are refused, come to nothing, or are accepted, as its answer says.
function Names:mood(key, answer)
  local mood = C.KIT_ACCEPTS
  if type(answer) == "table" then
    mood = answer.refuse and C.KIT_REFUSES or answer.silent and C.KIT_SILENT or mood
  end
  local addresses, port = places(self, key)
  for _, address in ipairs(addresses) do self.world:mood(address, port, mood) end
end

return names
