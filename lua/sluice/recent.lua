-- SPDX-License-Identifier: Apache-2.0
-- What was found out lately, by owner (such as a configuration) and text, bounded in entries and bytes. There are two
-- halves: the young one takes what is new; once it is full it becomes the old one, whose content goes unless it is
-- asked for meanwhile. So nothing has to be sorted, and a look-up is two look-ups in tables.
local check = require "sluice.api.check"

---@class sluice.recent
local recent = {}

---@class sluice.recent.object
local Recent = {}
local recent_mt = { __index = Recent, __metatable = false }

---@param most_entries integer in all
---@param most_bytes integer in all
---@param value_bytes? integer what a value counts beside its text, 256 unless told
---@return sluice.recent.object
function recent.new(most_entries, most_bytes, value_bytes)
  check.integer("sluice.recent.new", "most_entries", most_entries, 2, 2 ^ 31)
  check.integer("sluice.recent.new", "most_bytes", most_bytes, 1024, 2 ^ 40)
  return setmetatable({ young = {}, old = {}, entries = 0, bytes = 0, most_entries = most_entries / 2,
    most_bytes = most_bytes / 2, value_bytes = value_bytes or 256 }, recent_mt)
end

---@param owner any
---@param text string
---@param value any not nil
function Recent:put(owner, text, value)
  local size = #text + self.value_bytes
  if size > self.most_bytes then return end
  if self.entries >= self.most_entries or self.bytes + size > self.most_bytes then
    self.old, self.young = self.young, {}
    self.entries, self.bytes = 0, 0
  end
  local mine = self.young[owner]
  if not mine then
    mine = {}
    self.young[owner] = mine
  end
  if mine[text] == nil then self.entries, self.bytes = self.entries + 1, self.bytes + size end
  mine[text] = value
end

local function of_old(self, owner, text)
  local mine = self.old[owner]
  local value = mine and mine[text]
  if value == nil then return nil end
  mine[text] = nil
  self:put(owner, text, value)
  return value
end

---@param owner any
---@param text string
---@return any nil: not known, or no more
function Recent:get(owner, text)
  local mine = self.young[owner]
  local value = mine and mine[text]
  if value ~= nil then return value end
  value = of_old(self, owner, text)
  return value
end

return recent
