-- SPDX-License-Identifier: Apache-2.0
-- Circuits: closed while what is behind them serves, open while it does not, half-open while a few calls try whether
-- it does again. All workers share the state of each.
--
--   CLOSED ──too many failures, or slow calls──> OPEN ──its time is over──> HALF_OPEN ──all probes good──> CLOSED
--                                                  ▲───────────a probe failed, a longer time───┘
--
-- The state is one named counter, so that looking at it costs a load, and each change is one compare-and-swap, which
-- one worker wins. The number says all there is to know:
--
--   moment in ms * 2048 + level * 4 + state    moment: when it opened's end (OPEN), or when the state began
--                                              level: how often it has opened without closing, for the back-off
--
-- so no number comes twice, and what belongs to one stay in a state (counts, probes) is kept under it: a late result
-- of an earlier stay meets keys that nobody reads any more. A probe is a key that ends by itself: what a worker that
-- is killed, or a client that leaves, held comes back.

local counters = require "sluice.counters"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local random = require "sluice.random"
local time = require "sluice.time"

local at, swap_at, add, get, delete = counters.at, counters.swap_at, counters.add, counters.get, counters.delete
local floor, format, min = math.floor, string.format, math.min
local now_of = time.now

local circuit = {}

local CLOSED, HALF_OPEN, OPEN = 0, 1, 2
local NAMES = { [CLOSED] = "closed", [HALF_OPEN] = "half-open", [OPEN] = "open" }
local PREFIX = "circuit\1"

local UNIT, LEVELS = 2048, 512
local LEVEL_MOST = LEVELS - 1
local BUCKETS = 10          -- of a window
local ROW_TTL_S = 3600      -- of a row of failures
local GOOD = 2 ^ 40         -- in the place of a probe that went well
local GOOD_TTL_S = 3600     -- how long it counts
local HALF_OPEN_RETRY_S = 1 -- that who finds no free probe is told to wait

local transitions = metrics.counter("sluice_circuit_breaker_transitions_total",
  "Changes of a circuit's state", { "kind", "name", "to" })
local refused = metrics.counter("sluice_circuit_breaker_not_permitted_calls_total",
  "Calls that a circuit did not let through", { "kind", "name" })
local probes = metrics.counter("sluice_circuit_breaker_probes_total",
  "Calls that a half-open circuit let through, by what came of them", { "kind", "name", "result" })

---@class sluice.circuit.settings
---@field consecutive_failures? integer that open it
---@field failure_rate? number percent of the calls in a window
---@field slow_call_rate? number
---@field window number seconds
---@field minimum_calls integer in a window, before rates are looked at
---@field wait number seconds that it is open at first
---@field wait_multiplier number for each time that it opens again
---@field wait_most number seconds
---@field wait_jitter number share of the time by which it may be shorter or longer
---@field probes integer calls that a half-open circuit lets through, all of which must go well
---@field probe_seconds number after which a probe that nothing is heard of is given to another call

---@class sluice.circuit.permit
---@field circuit sluice.circuit
---@field word number the state in which it was given
---@field probe integer number of the probe, 0: none
---@field ends number when another call may have it

---@class sluice.circuit
local Circuit = {}
local circuit_mt = { __index = Circuit }

local function pack(moment, level, state)
  return floor(moment * 1000) * UNIT + min(level, LEVEL_MOST) * 4 + state
end

local function unpack_word(word)
  return floor(word / UNIT) / 1000, floor(word / 4) % LEVELS, word % 4
end

-- The circuit of `subject` as these settings see it: several may look at one, each with its own settings. nil: there
-- is no room for its state.
---@param kind string what the subject is: "service", "route", "target"
---@param subject string
---@param settings sluice.circuit.settings
---@return sluice.circuit|nil
function circuit.new(kind, subject, settings)
  local key = PREFIX .. kind .. "\1" .. subject
  local handle = counters.name(key)
  if not handle then return nil end
  local rates = settings.failure_rate or settings.slow_call_rate
  return setmetatable({
    kind = kind, subject = subject, key = key, handle = handle, settings = settings,
    word = -1, closed = false,       -- the stay in CLOSED that was seen last, and the permit of its calls
    width = rates and settings.window / BUCKETS or nil, bucket = -1,
    calls = {}, failures = {}, slow = {}, row = "", -- keys of that stay
    half = -1, places = {},          -- the stay in HALF_OPEN that was seen last, and the keys of its probes
  }, circuit_mt)
end

-- ---- Changes ----

local function change(self, from, to, why, facts)
  if not swap_at(self.handle, from, to) then return false end
  local state = NAMES[to % 4]
  transitions:increment(self.kind, self.subject, state)
  facts = facts or {}
  facts.kind, facts.name, facts.from, facts.to, facts.cause = self.kind, self.subject, NAMES[from % 4], state, why
  local tell = to % 4 == OPEN and log.warn or log.notice
  tell("a circuit changed its state", facts)
  return true
end

local function open(self, from, level, why, now)
  local settings = self.settings
  local seconds = min(settings.wait_most, settings.wait * settings.wait_multiplier ^ level)
  seconds = seconds * (1 + settings.wait_jitter * (2 * random() - 1))
  return change(self, from, pack(now + seconds, level, OPEN), why, { seconds = format("%.3f", seconds) })
end

-- ---- Who may call ----

local function see_closed(self, word)
  self.word, self.bucket = word, -1
  self.closed = { circuit = self, word = word, probe = 0, ends = 0 }
  self.row = format("%s\1%.0f\1row", self.key, word)
  return self.closed
end

local function see_half_open(self, word)
  self.half = word
  for i = 1, self.settings.probes do self.places[i] = format("%s\1%.0f\1%d", self.key, word, i) end
end

-- The first free probe.
local function probe(self, word, now)
  if self.half ~= word then see_half_open(self, word) end
  local seconds = self.settings.probe_seconds
  for i = 1, self.settings.probes do
    if add(self.places[i], 1, seconds) == 1 then
      return { circuit = self, word = word, probe = i, ends = now + seconds }
    end
  end
  refused:increment(self.kind, self.subject)
  return nil, HALF_OPEN_RETRY_S
end

local function admit_unless_closed(self, word, now)
  local moment, level, state = unpack_word(word)
  if state == CLOSED then return see_closed(self, word) end
  if state == OPEN then
    local left, settings = moment - now, self.settings
    -- A clock that was set back must not keep it open for longer than it may be.
    if left > 0 and left <= settings.wait_most * (1 + settings.wait_jitter) then
      refused:increment(self.kind, self.subject)
      return nil, left
    end
    local half = pack(now, level, HALF_OPEN)
    if not change(self, word, half, "its time is over") then return self:admit(now) end
    word = half
  end
  return probe(self, word, now)
end

-- Whether a call may go on. Of a permit the circuit wants to hear, by `record` or `cancel`; nothing is lost when it
-- does not.
---@param now? number
---@return sluice.circuit.permit|nil
---@return number|nil seconds after which it is worth to ask again
function Circuit:admit(now)
  local word = at(self.handle)
  if word == self.word then return self.closed end
  return admit_unless_closed(self, word, now or now_of())
end

-- ---- What came of it ----

local function see_bucket(self, bucket)
  self.bucket = bucket
  for i = 1, BUCKETS do
    local stem = format("%s\1%.0f\1%.0f\1", self.key, self.word, bucket - i + 1)
    self.calls[i], self.failures[i], self.slow[i] = stem .. "calls", stem .. "failures", stem .. "slow"
  end
end

local function sum(keys)
  local total = 0
  for i = 1, BUCKETS do total = total + (get(keys[i]) or 0) end
  return total
end

local function exceeds(count, calls, rate)
  return rate and count > 0 and count * 100 >= calls * rate
end

local function judge_rates(self, now)
  local settings = self.settings
  local calls = sum(self.calls)
  if calls < settings.minimum_calls then return end
  if exceeds(sum(self.failures), calls, settings.failure_rate) then
    open(self, self.word, 0, "failure rate", now)
  elseif exceeds(sum(self.slow), calls, settings.slow_call_rate) then
    open(self, self.word, 0, "slow call rate", now)
  end
end

local function count_rates(self, calls, failed, slow, now)
  local bucket = floor(now / self.width)
  if bucket ~= self.bucket then see_bucket(self, bucket) end
  local ttl = self.width * (BUCKETS + 1)
  if calls > 0 then add(self.calls[1], calls, ttl) end
  if failed then add(self.failures[1], 1, ttl) end
  if slow then add(self.slow[1], 1, ttl) end
  if failed or slow then judge_rates(self, now) end
end

local function count_row(self, failed, now)
  if failed then
    local row = add(self.row, 1, ROW_TTL_S)
    if row and row >= self.settings.consecutive_failures and open(self, self.word, 0, "consecutive failures", now) then
      delete(self.row)
    end
  elseif get(self.row) then
    delete(self.row)
  end
end

local function all_good(self)
  for i = 1, self.settings.probes do
    if (get(self.places[i]) or 0) < GOOD then return false end
  end
  return true
end

local function record_probe(self, permit, failed, now)
  if at(self.handle) ~= permit.word then return end
  probes:increment(self.kind, self.subject, failed and "failed" or "good")
  if failed then
    local _, level = unpack_word(permit.word)
    open(self, permit.word, level + 1, "a probe failed", now)
    return
  end
  if self.half ~= permit.word then see_half_open(self, permit.word) end
  counters.set(self.places[permit.probe], GOOD, GOOD_TTL_S)
  if all_good(self) then change(self, permit.word, pack(now, 0, CLOSED), "the probes went well") end
end

-- What came of the call: whether it failed, and whether it was slow. Each permit once.
---@param permit sluice.circuit.permit
---@param failed boolean
---@param slow? boolean
---@param now? number
function Circuit:record(permit, failed, slow, now)
  now = now or now_of()
  if permit.probe > 0 then
    record_probe(self, permit, failed or (slow and self.settings.slow_call_rate ~= nil), now)
    return
  end
  if permit.word ~= self.word or permit.word ~= at(self.handle) then return end -- it has opened meanwhile
  if self.width then count_rates(self, 1, failed, slow, now) end
  if self.settings.consecutive_failures then count_row(self, failed, now) end
end

-- A call that had been recorded as good failed after all. It opens a closed circuit and tells no other anything.
---@param now? number
function Circuit:fail_late(now)
  if at(self.handle) ~= self.word then return end
  now = now or now_of()
  if self.width then count_rates(self, 0, true, false, now) end
  if self.settings.consecutive_failures then count_row(self, true, now) end
end

-- The call came to nothing that tells of the subject: its client left, or another plugin answered.
---@param permit sluice.circuit.permit
function Circuit:cancel(permit)
  if permit.probe == 0 or self.half ~= permit.word or now_of() >= permit.ends then return end
  probes:increment(self.kind, self.subject, "cancelled")
  delete(self.places[permit.probe])
end

-- ---- Looking at them ----

---@return string "closed", "half-open" or "open"
function Circuit:state()
  return NAMES[at(self.handle) % 4]
end

-- Plugins whose circuits are of that kind, and where the entities that these are named by stand in a generation.
local KINDS = { service = { "circuit-breaker", "services" }, route = { "circuit-breaker", "routes" } }

local function names_in(generation, kind)
  local plugin, collection = unpack(KINDS[kind] or {})
  local names, used = {}, false
  for _, instance in ipairs(generation.entities.plugins or {}) do
    used = used or (instance.name == plugin and instance.enabled ~= false)
  end
  for _, entity in ipairs(used and generation.entities[collection] or {}) do names[entity.name or entity.id] = true end
  return names
end

local function before(a, b)
  if a.kind ~= b.kind then return a.kind < b.kind end
  return a.name < b.name
end

-- The circuits of all workers, as far as the generation still has use for them.
---@param generation sluice.generation
---@return { kind: string, name: string, state: string, number: integer, level: integer, moment: number }[]
function circuit.list(generation)
  local list, names = {}, {}
  for key, word in counters.each(PREFIX) do
    local kind, name = key:match("^circuit\1([^\1]*)\1(.*)$")
    names[kind] = names[kind] or names_in(generation, kind)
    if names[kind][name] then
      local moment, level, state = unpack_word(word)
      list[#list + 1] = { kind = kind, name = name, state = NAMES[state], number = state, level = level,
        moment = moment }
    end
  end
  table.sort(list, before)
  return list
end

return circuit
