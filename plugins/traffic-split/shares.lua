-- SPDX-License-Identifier: Apache-2.0
-- Targets with weights: the next one in turn, or the one of a key.
local hash = require "sluice.hash"

local shares = {}

local Shares = {}
Shares.__index = Shares

-- "host:port" in parts; an IPv6 address without its brackets.
local function parts_of(target)
  local host, port = target:match("^%[(.*)%]:(%d+)$")
  if not host then host, port = target:match("^(.*):(%d+)$") end
  return host, tonumber(port)
end

---@param given table as its own name says, else by what it leads to
---@return string
function shares.name_of(given)
  return given.name or given.service or given.upstream or given.target or "default"
end

local function target_of(given)
  local host, port
  if given.target then host, port = parts_of(given.target) end
  return { name = shares.name_of(given), weight = given.weight, service = given.service, upstream = given.upstream,
    host = host, port = port, protocol = given.protocol, credit = 0 }
end

---@param list table[] of the configuration
function shares.new(list)
  local self = setmetatable({ targets = {}, by_name = {}, total = 0 }, Shares)
  for i, given in ipairs(list) do
    local target = target_of(given)
    self.targets[i], self.by_name[target.name] = target, target
    self.total = self.total + target.weight
  end
  return self
end

-- Smooth round-robin: each turn every target gains its weight; the richest goes, and pays the sum of all. So 9 to 1 is
-- nine and one of every ten in a worker, well mixed.
---@return table|nil target nil: all weights are 0
function Shares:next()
  if self.total == 0 then return nil end
  local best
  for i = 1, #self.targets do
    local target = self.targets[i]
    target.credit = target.credit + target.weight
    if target.weight > 0 and (not best or target.credit > best.credit) then best = target end
  end
  best.credit = best.credit - self.total
  return best
end

-- The target of a key, by weighted rendezvous: a change of one weight moves only keys to or from that target.
---@param key string
---@return table|nil
function Shares:of(key)
  local best, best_score
  for i = 1, #self.targets do
    local target = self.targets[i]
    if target.weight > 0 then
      local score = target.weight / -math.log((hash.number(target.name .. "\0" .. key) + 0.5) / 4294967296)
      if not best or score > best_score then best, best_score = target, score end
    end
  end
  return best
end

return shares
