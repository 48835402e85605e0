-- SPDX-License-Identifier: Apache-2.0
-- Places in the configured topics, as the broker tells them: starts, ends, and what a group has committed. They are
-- offsets by topic and partition.
local kafka = require "sluice.kafka"

local places = {}

local TIMEOUT_S = 5

---@param at "latest"|"earliest"|number milliseconds since 1970: of the first record not older
---@return table<string, table<integer, integer>>|nil
---@return string|nil err
---@return string|nil code "topic": one of them is not there
function places.at(state, at)
  local found = {}
  for _, topic in ipairs(state.names) do
    local offsets, err, code = kafka.offsets { cluster = state.cluster, topic = topic, at = at, timeout = TIMEOUT_S }
    if not offsets then return nil, err, code == "UNKNOWN_TOPIC_OR_PART" and "topic" or code end
    found[topic] = offsets
  end
  return found
end

-- As a list of { topic, partition, offset }.
local function listed(positions)
  local list = {}
  for topic, offsets in pairs(positions) do
    for partition, offset in pairs(offsets) do
      list[#list + 1] = { topic = topic, partition = partition, offset = offset }
    end
  end
  return list
end

local function admin_of(state)
  return kafka.admin(state.cluster, { timeout = TIMEOUT_S })
end

local function committed(state, group, ends)
  local found, err, code = admin_of(state):committed(group, listed(ends))
  if not found then return nil, err, code end
  local positions = {}
  for _, one in ipairs(found) do
    if one.error then return nil, one.error.text, one.error.code end
    positions[one.topic] = positions[one.topic] or {}
    if one.offset >= 0 then positions[one.topic][one.partition] = one.offset end
  end
  return positions
end

-- Where the group goes on in the partitions of `ends`; where it has committed nothing, at `otherwise`.
---@param otherwise "latest"|"earliest"
---@return table<string, table<integer, integer>>|nil
---@return string|nil err
---@return string|nil code
---@return boolean|nil fresh it has nothing committed somewhere
function places.of_group(state, group, ends, otherwise)
  local had, err, code = committed(state, group, ends)
  if not had then return nil, err, code end
  local others, fresh = otherwise == "latest" and ends or nil, false
  local positions = {}
  for topic, offsets in pairs(ends) do
    positions[topic] = {}
    for partition in pairs(offsets) do
      local offset = had[topic] and had[topic][partition]
      if not offset then
        fresh = true
        if not others then others, err, code = places.at(state, otherwise) end
        if not others then return nil, err, code end
        offset = others[topic][partition]
      end
      positions[topic][partition] = offset
    end
  end
  return positions, nil, nil, fresh
end

---@return boolean|nil
---@return string|nil err
function places.commit(state, group, positions)
  local found, err = admin_of(state):commit(group, listed(positions))
  if not found then return nil, err end
  for _, one in ipairs(found) do
    if one.error then return nil, one.error.text end
  end
  return true
end

-- Whether every place of `positions` lies at or behind that of `ends`.
function places.reached(positions, ends)
  for topic, offsets in pairs(ends) do
    for partition, offset in pairs(offsets) do
      if (positions[topic] and positions[topic][partition] or 0) < offset then return false end
    end
  end
  return true
end

return places
