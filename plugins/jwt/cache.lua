-- SPDX-License-Identifier: Apache-2.0
-- What has been verified, by configuration and text. Bounded in entries and bytes by two halves: the young one takes
-- what is new; once it is full it becomes the old one, whose content goes unless it is asked for meanwhile.
local cache = {}

local MOST_ENTRIES, MOST_BYTES = 4096, 4 * 1024 * 1024 -- of one half
local ENTRY_BYTES = 512                                 -- beside the text: the tables that stand for it

local young, old = {}, {}
local entries, bytes = 0, 0

---@param conf table
---@param text string
---@param entry table
function cache.put(conf, text, entry)
  local size = #text + ENTRY_BYTES
  if entries >= MOST_ENTRIES or bytes + size > MOST_BYTES then
    old, young = young, {}
    entries, bytes = 0, 0
  end
  local mine = young[conf]
  if not mine then
    mine = {}
    young[conf] = mine
  end
  if mine[text] == nil then entries, bytes = entries + 1, bytes + size end
  mine[text] = entry
end

local function of_old(conf, text)
  local mine = old[conf]
  local entry = mine and mine[text]
  if not entry then return nil end
  mine[text] = nil
  cache.put(conf, text, entry)
  return entry
end

---@return table|nil
function cache.get(conf, text)
  local mine = young[conf]
  local entry = mine and mine[text]
  if entry then return entry end
  return (of_old(conf, text))
end

-- For specs.
---@return integer entries that are held
function cache.size()
  local count = 0
  for _, half in ipairs { young, old } do
    for _, mine in pairs(half) do
      for _ in pairs(mine) do count = count + 1 end
    end
  end
  return count
end

return cache
