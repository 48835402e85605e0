-- SPDX-License-Identifier: Apache-2.0
-- Looks for a reply in what the topic holds from before this worker read it: a reader of its own walks from where the
-- request found the topic to where the worker's own knowledge begins. Bounded in time; what it came to is kept, so that
-- the next one who asks goes on there.
local kafka = require "sluice.kafka"
local recent = require("sluice").recent
local time = require("sluice").time

local search = {}

local REACHED_MOST, REACHED_BYTES = 10000, 4 * 1024 * 1024
local AT_ONCE = 4         -- each has a consumer of its own
local FOR_S = 5           -- one search
local LOOK_S = 0.1
local QUIET_S = 1         -- without a record, behind the first one: offsets may end in ones that no record has

local Search = {}
Search.__index = Search

---@param hub table
function search.new(hub)
  return setmetatable({ hub = hub, running = 0, reached = recent.new(REACHED_MOST, REACHED_BYTES) }, Search)
end

-- Where to begin, and where the worker's own knowledge begins, by partition; nothing where these meet.
local function range_of(self, ticket)
  local from, to, any = {}, {}, false
  local reached = self.reached:get(self, ticket.id)
  for partition in pairs(self.hub:positions()) do
    local begin = math.max(ticket.positions[partition] or 0, reached and reached[partition] or 0)
    local finish = self.hub.kept:from(partition)
    if begin < finish then from[partition], to[partition], any = begin, finish, true end
  end
  return from, to, any
end

local function is_through(positions, to)
  for partition, offset in pairs(to) do
    if (positions[partition] or 0) < offset then return false end
  end
  return true
end

-- The reply, or nil and whether all was looked through and whether records were missing on the way. Where it stands is
-- looked at without a record too: what is left may be none, such as marks of transactions.
local function walk(self, reader, ticket, to)
  local deadline, quiet_since, gaps = time.monotonic() + FOR_S, nil, false
  while time.monotonic() < deadline do
    local record, err = reader:next(LOOK_S)
    if record then
      quiet_since = time.monotonic()
      if to[record.partition] and self.hub:id_of(record) == ticket.id then return record end
    elseif err == "gap" then
      gaps = true
    elseif err ~= "timeout" then
      return nil, false, gaps
    elseif quiet_since and time.monotonic() - quiet_since >= QUIET_S then
      return nil, true, gaps
    end
    if is_through(reader:positions(), to) then return nil, true, gaps end
  end
  return nil, false, gaps
end

local function note(self, id, reader, to, through)
  local reached, positions = {}, reader:positions()
  for partition, offset in pairs(to) do
    reached[partition] = through and offset or math.min(offset, positions[partition] or 0)
  end
  self.reached:put(self, id, reached)
end

local function look(self, ticket, from, to)
  local reader, err = kafka.reader { cluster = self.hub.cluster, topic = self.hub.topic, from = from,
    otherwise = "latest" }
  if not reader then return nil, err end
  local ok, record, through, gaps = pcall(walk, self, reader, ticket, to)
  if ok and not record then note(self, ticket.id, reader, to, through) end
  reader:close()
  if not ok then error(record, 0) end
  if record then return record end
  return nil, gaps and "gone" or through and "none" or "more"
end

-- The reply of a ticket, among what this worker has not read or no longer keeps.
---@return sluice.kafka.record|nil
---@return "none"|"gone"|"more"|"busy"|string|nil why "gone": records were missing; "more": not yet through
function Search:find(ticket)
  local from, to, any = range_of(self, ticket)
  if not any then return nil, "none" end
  if self.running >= AT_ONCE then return nil, "busy" end
  self.running = self.running + 1
  local ok, record, err = pcall(look, self, ticket, from, to)
  self.running = self.running - 1
  if not ok then error(record, 0) end
  return record, err
end

return search
