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
-- so no number comes twice: a late result of an earlier stay in a state is known by it. A probe is a key that is named
-- by the stay and ends by itself: what a worker that is killed, or a client that leaves, held comes back.
--
-- What calls came to is counted in named counters, so that it costs an addition. A window is a ring of them; each says
-- which part of time it counts:  part * 2^24 + count.

local ffi = require "ffi"
local counters = require "sluice.counters"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local random = require "sluice.random"
local time = require "sluice.time"

local at, add_at, swap_at = counters.at, counters.add_at, counters.swap_at
local add, get, delete = counters.add, counters.get, counters.delete
local floor, format, max, min = math.floor, string.format, math.max, math.min
local now_of = time.now

local circuit = {}

local CLOSED, HALF_OPEN, OPEN = 0, 1, 2
local NAMES = { [CLOSED] = "closed", [HALF_OPEN] = "half-open", [OPEN] = "open" }
local PREFIX = "circuit\1"

local UNIT, LEVELS = 2048, 512
local LEVEL_MOST = LEVELS - 1
local PARTS = 10            -- of a window
local CELLS = PARTS + 1     -- of a ring: one is being left
local COUNTS = 2 ^ 24       -- in a cell
local PART_MOST = 2 ^ 28
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

local function ring(key, name)
  local cells = {}
  for i = 1, CELLS do
    cells[i] = counters.name(("%s\1%s\1%d"):format(key, name, i))
    if not cells[i] then return nil end
  end
  return cells
end

-- The circuit of `subject` as these settings see it: several may look at one, each with its own settings. nil: there
-- is no room for its state.
---@param kind string what the subject is: "service", "route", "target"
---@param subject string
---@param settings sluice.circuit.settings
---@return sluice.circuit|nil
function circuit.new(kind, subject, settings)
  local key = kind .. "\1" .. subject
  local self = setmetatable({
    kind = kind, subject = subject, key = PREFIX .. key, settings = settings,
    handle = counters.name(PREFIX .. key), row = counters.name("circuit-row\1" .. key),
    word = -1, closed = false, -- the stay in CLOSED that was seen last, and the permit of its calls
    half = -1, places = {},    -- the stay in HALF_OPEN that was seen last, and the keys of its probes
    width = false, part = -1, cell = 0, -- of a window: seconds of a part, the part that is, and its place in the rings
  }, circuit_mt)
  if not self.handle or not self.row then return nil end
  if not settings.failure_rate and not settings.slow_call_rate then return self end
  self.width = settings.window / PARTS
  -- Windows of another length are others.
  key = ("circuit-window\1%s\1%.15g"):format(key, settings.window)
  self.calls, self.failures, self.slow = ring(key, "calls"), ring(key, "failures"), ring(key, "slow")
  return self.calls and self.failures and self.slow and self or nil
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
  self.word, self.closed = word, { circuit = self, word = word, probe = 0, ends = 0 }
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

-- The cell begins to count a part, unless another worker has begun.
local function begin_cell(cell, part)
  local held = at(cell)
  while floor(held / COUNTS) ~= part and not swap_at(cell, held, part * COUNTS) do held = at(cell) end
end

local function begin_part(self, part)
  self.part, self.cell = part, part % CELLS + 1
  begin_cell(self.calls[self.cell], part)
  begin_cell(self.failures[self.cell], part)
  begin_cell(self.slow[self.cell], part)
end

local function sum(self, cells)
  local total = 0
  for i = 1, CELLS do
    local held = at(cells[i])
    local age = (self.part - floor(held / COUNTS)) % PART_MOST
    if age < PARTS then total = total + held % COUNTS end
  end
  return total
end

local function exceeds(count, calls, rate)
  return rate and count > 0 and count * 100 >= calls * rate
end

local function judge_rates(self, now)
  local settings = self.settings
  local calls = sum(self, self.calls)
  if calls < settings.minimum_calls then return end
  if exceeds(sum(self, self.failures), calls, settings.failure_rate) then
    open(self, self.word, 0, "failure rate", now)
  elseif exceeds(sum(self, self.slow), calls, settings.slow_call_rate) then
    open(self, self.word, 0, "slow call rate", now)
  end
end

local function count_rates(self, calls, failed, slow, now)
  local part = floor(now / self.width) % PART_MOST
  if part ~= self.part then begin_part(self, part) end
  add_at(self.calls[self.cell], calls)
  if failed then add_at(self.failures[self.cell], 1) end
  if slow then add_at(self.slow[self.cell], 1) end
  if failed or slow then judge_rates(self, now) end
end

local function count_row(self, failed, now)
  if failed then
    add_at(self.row, 1)
    if at(self.row) >= self.settings.consecutive_failures then
      open(self, self.word, 0, "consecutive failures", now)
    end
  else
    local row = at(self.row)
    if row > 0 then swap_at(self.row, row, 0) end
  end
end

local function forget_cells(cells)
  for i = 1, CELLS do
    local held = at(cells[i])
    swap_at(cells[i], held, held - held % COUNTS)
  end
end

-- While it is half-open nobody counts: a circuit that closes begins anew.
local function forget_counts(self)
  local row = at(self.row)
  swap_at(self.row, row, 0)
  if not self.width then return end
  forget_cells(self.calls)
  forget_cells(self.failures)
  forget_cells(self.slow)
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
  if not all_good(self) then return end
  forget_counts(self)
  change(self, permit.word, pack(now, 0, CLOSED), "the probes went well")
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

-- ---- Circuits that others keep calls from ----

-- A target that is broken takes no calls, but for probes one at a time (endpoint_admit of the core): what begins behind
-- the time that it is open for is one.
local EARLY_S = 0.01 -- by which moments differ that two clocks have rounded

local function open_for(self, from, level, why, now)
  if not open(self, from, level, why, now) then return nil end
  return max(0.001, unpack_word(at(self.handle)) - now)
end

local function observe_probe(self, word, failed, now)
  local settings = self.settings
  local _, level, state = unpack_word(word)
  probes:increment(self.kind, self.subject, failed and "failed" or "good")
  if state == OPEN then
    local half = pack(now, level, HALF_OPEN)
    local row = at(self.row)
    swap_at(self.row, row, 0)
    if not change(self, word, half, "its time is over") then return nil end
    word = half
  end
  if failed then
    local seconds = open_for(self, word, level + 1, "a probe failed", now)
    return seconds and "again", seconds
  end
  add_at(self.row, 1)
  return at(self.row) < settings.probes and "probe" or "close"
end

-- What came of a call that began at that moment. What is to be done is for who asks: keep calls away for so many
-- seconds ("open", or "again" when a probe failed), let another "probe" through, or "close" it and say so by
-- `Circuit:close`; nil: nothing.
---@param failed boolean
---@param slow boolean
---@param began number|nil of no interest while it is closed
---@param now number
---@return "open"|"again"|"probe"|"close"|nil
---@return number|nil seconds
function Circuit:observe(failed, slow, began, now)
  local word = at(self.handle)
  local moment, _, state = unpack_word(word)
  if state ~= CLOSED then
    if not began or (state == OPEN and began < moment - EARLY_S) then return nil end -- of before
    return observe_probe(self, word, failed or (slow and self.settings.slow_call_rate ~= nil), now)
  end
  if word ~= self.word then see_closed(self, word) end
  if self.width then count_rates(self, 1, failed, slow, now) end
  if self.settings.consecutive_failures then count_row(self, failed, now) end
  word = at(self.handle)
  moment, _, state = unpack_word(word)
  if word == self.word or state ~= OPEN then return nil end
  return "open", max(0.001, moment - now)
end

---@return boolean
function Circuit:is_closed()
  return at(self.handle) % 4 == CLOSED
end

---@param now number
---@param why string
function Circuit:close(now, why)
  local word = at(self.handle)
  if word % 4 == CLOSED then return end
  forget_counts(self)
  change(self, word, pack(now, 0, CLOSED), why)
end

-- Opens a closed one for what has been found out about it elsewhere.
---@param now number
---@param why string
---@return number|nil seconds
function Circuit:open(now, why)
  local word = at(self.handle)
  return word % 4 == CLOSED and open_for(self, word, 0, why, now) or nil
end

-- What the window holds.
---@param now number
---@return integer calls
---@return integer failures
function Circuit:sums(now)
  local part = floor(now / self.width) % PART_MOST
  if part ~= self.part then begin_part(self, part) end
  return sum(self, self.calls), sum(self, self.failures)
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
local KINDS = { service = { "circuit-breaker", "services" }, route = { "circuit-breaker", "routes" },
  target = { "outlier-detection" } }

-- Targets' circuits are named "upstream address", and end with the address.
local function names_of_targets()
  local names = {}
  for _, endpoint in ipairs(require("sluice.balancer.health").endpoints()) do
    names[endpoint.upstream .. " " .. endpoint.address] = true
  end
  return names
end

local function names_in(generation, kind)
  local plugin, collection = unpack(KINDS[kind] or {})
  local names, used = {}, false
  for _, instance in ipairs(generation.entities.plugins or {}) do
    used = used or (instance.name == plugin and instance.enabled ~= false)
  end
  if not used then return names end
  if kind == "target" then return names_of_targets() end
  for _, entity in ipairs(generation.entities[collection] or {}) do names[entity.name or entity.id] = true end
  return names
end

local function before(a, b)
  if a.kind ~= b.kind then return a.kind < b.kind end
  return a.name < b.name
end

local listed = {} -- { handle, kind, name } of every circuit there ever was

local look_for_circuits = counters.watch(PREFIX, function(handle, key, len)
  local kind, name = ffi.string(key, len):match("^circuit\1([^\1]*)\1(.*)$")
  listed[#listed + 1] = { handle = handle, kind = kind, name = name }
end)

-- The circuits of all workers, as far as the generation still has use for them.
---@param generation sluice.generation
---@return { kind: string, name: string, state: string, number: integer, level: integer, moment: number }[]
function circuit.list(generation, pause)
  local list, names = {}, {}
  look_for_circuits(pause)
  for _, one in ipairs(listed) do
    local kind, name = one.kind, one.name
    names[kind] = names[kind] or names_in(generation, kind)
    if names[kind][name] then
      local moment, level, state = unpack_word(counters.at(one.handle))
      list[#list + 1] = { kind = kind, name = name, state = NAMES[state], number = state, level = level,
        moment = moment }
    end
  end
  table.sort(list, before)
  return list
end

return circuit
