-- SPDX-License-Identifier: Apache-2.0
-- A client stays with the target that it first came to, as a cookie says, for as long as that target takes requests.
-- Who has no such cookie, or one whose target is out or gone, is given a target in turn and told the new cookie.
--
-- The value is "SESSION.TARGET": TARGET tells the target without naming it, SESSION chooses among its addresses.

local ffi = require "ffi"
local cookie = require "sluice.balancer.cookie"
local crypto = require "sluice.crypto"
local native = require "sluice.ffi"
local round_robin = require "sluice.balancer.round_robin"
local uuid = require "sluice.uuid"

local C, worker = native.C, native.worker

local sticky = {}
sticky.__index = sticky

local TAG_DIGITS = 16
local cell = ffi.new("const struct target_state *[1]")

-- The same in every gateway that has this target.
local function tag_of(upstream, target)
  local text = upstream.name .. "\0" .. target.host .. "\0" .. target.port
  return crypto.hex(crypto.digest("sha256", text)):sub(1, TAG_DIGITS)
end

---@param upstream table
---@param targets table[]
---@return table policy
function sticky.new(upstream, targets)
  local tags, places = {}, {}
  for i, target in ipairs(targets) do
    tags[i] = tag_of(upstream, target)
    places[tags[i]] = i
  end
  return setmetatable({
    spread = "hash", tags = tags, places = places, turns = round_robin.new(upstream, targets),
    cookie = upstream.sticky_sessions_cookie,
    attributes = "; Path=" .. (upstream.sticky_sessions_cookie_path or "/") .. "; HttpOnly",
  }, sticky)
end

function sticky:next_in_turn(states, count)
  for _ = 1, #self.turns.order do
    local place = self.turns:pick()
    if place and place <= count and states[place - 1].usable then return place end
  end
end

function sticky:pick(exchange)
  local count = C.bridge_target_states(worker, exchange, self.generation, self.index, cell)
  if count == 0 then return nil end
  local states = cell[0]
  local value = cookie.sent(exchange, self.cookie)
  local session, tag = (value or ""):match("^(%w+)%.(%w+)$")
  local place = tag and self.places[tag]
  if not place or not states[place - 1].usable then
    place = self:next_in_turn(states, count)
    if not place then return nil end
    session = session or (uuid.v4():gsub("-", ""))
    cookie.tell(exchange, self.cookie, session .. "." .. self.tags[place], self.attributes)
  end
  C.bridge_target_session(worker, exchange, session, #session)
  return place
end

return sticky
