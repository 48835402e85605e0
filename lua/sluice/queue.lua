-- SPDX-License-Identifier: Apache-2.0
-- What log plugins put between an exchange and a sink that may be slow or away: entries (texts) wait in memory, go out
-- in batches, and are sent again, later and later, while the sink does not take them. One queue a plugin instance and
-- worker; its parameters are Kong's.
--
--   add -> spool of entries, bounded -> gather (a whole batch, or long enough) -> handler -> gone
--            full: the oldest goes        ^ senders: 1, or as many as there are batches    not taken: wait, again
--
-- A queue belongs to an instance's configuration: while that is the same, a reload (of plugin code, too) keeps what
-- waits in it. One whose instance changed or went sends what it has and ends. A worker that drains waits for its
-- queues, and gives up on a sink that does not take entries then.

local ffi = require "ffi"
local cjson = require "cjson"
local core = require "sluice.api.core"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local native = require "sluice.ffi"
local time = require "sluice.time"
local timer = require "sluice.timer"

local C, worker = core.C, core.worker
local on_error = native.on_error -- not pcall, which would swallow the end of the CPU budget
local ffi_string = ffi.string
local min, tostring, type, xpcall = math.min, tostring, type, xpcall

---@class sluice.queue
local queue = {}

local DEFAULT_MAX_BYTES = 64 * 1024 * 1024 -- where the instance names no bound
local MOST_SENDERS = 64                    -- of a queue with concurrency_limit -1
local TRIES_WHEN_DRAINING = 3
local SAY_EVERY_S = 10
local PUBLISH_EVERY_S = 1
local RESOLUTION_S = 1e-6 -- of the core's timers: what is left of a wait may be less, and would never end

local LABELS = { "plugin", "instance" }
local length = metrics.gauge("sluice_queue_length", "Entries that wait to be sent, those under way included", LABELS)
local bytes_held = metrics.gauge("sluice_queue_bytes", "Bytes of the entries that wait to be sent", LABELS)
local sent = metrics.counter("sluice_queue_sent_total", "Entries that the sink took", LABELS)
local dropped = metrics.counter("sluice_queue_dropped_total",
  "Entries that were lost: no room, or given up on", LABELS)
local retries = metrics.counter("sluice_queue_retries_total", "Batches that had to be sent again", LABELS)

-- By identity: plugin, instance and configuration. Whoever uses a queue holds it, and so does its sender.
local known = setmetatable({}, { __mode = "v" })
local draining = false

---@class sluice.queue.params Kong's fields, see sluice.typedefs' queue
---@field max_batch_size integer
---@field max_coalescing_delay number
---@field max_entries integer
---@field max_bytes? integer
---@field max_retry_time number
---@field initial_retry_delay number
---@field max_retry_delay number
---@field concurrency_limit integer 1, or -1 for any number

---@class sluice.queue.one
local Queue = {}
Queue.__index = Queue

-- ---- Numbers for metrics ----

local function publish(self)
  local waiting, size = self.count + self.under_way, self.bytes + self.bytes_under_way
  if waiting ~= self.said_length then length:set(waiting, self.plugin, self.instance) end
  if size ~= self.said_bytes then bytes_held:set(size, self.plugin, self.instance) end
  self.said_length, self.said_bytes = waiting, size
end

local function publish_all()
  for _, one in pairs(known) do publish(one) end
end

-- ---- Losses, told at a bounded rate ----

local function lose(self, count, why)
  dropped:add(count, self.plugin, self.instance)
  self.untold = self.untold + count
  local now = time.monotonic()
  if now - self.told_at < SAY_EVERY_S then return end
  self.log.warn("log entries dropped", { instance = self.instance, entries = self.untold, error = why })
  self.untold, self.told_at = 0, now
end

-- ---- What waits: in the core's memory, for a full queue would make the collector's several times as large ----

local function free_spool(cell)
  C.bridge_spool_free(worker, cell[0])
end

local function new_spool()
  local number = C.bridge_spool_new(worker)
  if number < 0 then error("no memory for a queue") end
  return ffi.gc(ffi.new("double[1]", number), free_spool)
end

local oldest = ffi.new("struct bytes")

-- Into `oldest`, good until the spool's next call.
local function take_oldest(self)
  assert(C.bridge_spool_take(worker, self.spool[0], oldest) == 0)
  self.count, self.bytes = self.count - 1, self.bytes - oldest.len
end

local function has_room(self, size)
  return self.count + self.under_way < self.max_entries and self.bytes + self.bytes_under_way + size <= self.max_bytes
end

local function make_room(self, size)
  local lost = 0
  while self.count > 0 and not has_room(self, size) do
    take_oldest(self)
    lost = lost + 1
  end
  if lost > 0 then lose(self, lost, "the queue is full: the oldest were dropped") end
  return has_room(self, size)
end

local function take_batch(self)
  local batch, size = {}, 0
  local count = min(self.count, self.max_batch_size)
  for i = 1, count do
    take_oldest(self)
    batch[i], size = ffi_string(oldest.data, oldest.len), size + oldest.len
  end
  self.under_way, self.bytes_under_way = self.under_way + count, self.bytes_under_way + size
  return batch, count, size
end

-- ---- Sending ----

-- Waits that long, or until the queue has a batch or the worker drains.
local function wait(self, seconds)
  self.waiting = C.bridge_self(worker)
  core.wait(C.bridge_wait(worker, seconds))
  self.waiting = false
end

local function is_whole(self)
  return self.count >= self.max_batch_size or draining
end

local function gather(self)
  self.gathering = true
  local deadline = time.monotonic() + self.params.max_coalescing_delay
  while not is_whole(self) do
    local left = deadline - time.monotonic()
    if left < RESOLUTION_S then break end
    wait(self, left)
  end
  self.gathering = false
end

local function without_traceback(err)
  return (tostring(err):gsub("\nstack traceback:.*$", ""))
end

local function try(self, batch)
  local ok, taken, err, lost = xpcall(self.handler, on_error, self.context, batch)
  if not ok then return nil, without_traceback(taken), 0 end
  return taken, err, lost or 0
end

-- Whether it is worth while to send the batch again; waits until it is time to.
local function try_later(self, began, tries, why)
  local params = self.params
  local now = time.monotonic()
  if now - began > params.max_retry_time then return false end
  if draining and tries >= TRIES_WHEN_DRAINING then
    self.hopeless = true
    return false
  end
  if now - self.warned_at >= SAY_EVERY_S then
    self.warned_at = now
    self.log.warn("log entries cannot be sent, trying again", { instance = self.instance, error = why, tries = tries,
      waiting = self.count + self.under_way })
  end
  retries:add(1, self.plugin, self.instance)
  -- A wait that a drain cut short is not taken up again.
  core.wait(C.bridge_wait(worker, draining and params.initial_retry_delay
    or min(params.max_retry_delay, params.initial_retry_delay * 2 ^ (tries - 1))))
  return true
end

-- A handler may take out of the batch what needs not be sent again.
local function deliver(self, batch)
  local began, tries = time.monotonic(), 0
  while true do
    local count = #batch
    local taken, why, lost = try(self, batch)
    tries = tries + 1
    local arrived = count - lost - (taken and 0 or #batch)
    if arrived > 0 then sent:add(arrived, self.plugin, self.instance) end
    if taken then return end
    why = tostring(why or "no reason given")
    self.retrying[batch] = C.bridge_self(worker)
    local again = try_later(self, began, tries, why)
    self.retrying[batch] = nil
    if not again then
      lose(self, #batch, "given up on after " .. tries .. " tries: " .. why)
      return
    end
  end
end

local start

local function send_all(self)
  while self.count > 0 do
    gather(self)
    local batch, count, size = take_batch(self)
    if count > 0 then
      start(self)
      if self.hopeless then
        lose(self, count, "the worker ends, and the sink does not take entries")
      else
        deliver(self, batch)
      end
      self.under_way, self.bytes_under_way = self.under_way - count, self.bytes_under_way - size
    end
  end
end

local function run(self)
  C.bridge_hold(worker, 1)
  local ok, err = xpcall(send_all, on_error, self)
  C.bridge_hold(worker, -1)
  self.senders = self.senders - 1
  if not ok then
    self.gathering, self.waiting = false, false
    self.log.err("the queue's sender failed", { instance = self.instance, error = without_traceback(err) })
  end
  publish(self)
end

-- Another sender, when there is work for one and one may be.
function start(self)
  if self.count == 0 or self.gathering or self.senders >= self.most_senders then return end
  self.senders = self.senders + 1
  self.gathering = true -- from now on, although it runs in a moment only
  if not self.timer.at(0, run, self) then
    self.senders, self.gathering = self.senders - 1, false
  end
end

-- ---- For plugins ----

-- Puts an entry at the end; never waits.
---@param entry string
---@return boolean|nil true
---@return string|nil err it had no room, which is counted and told in the log
function Queue:add(entry)
  local size = #entry
  if not has_room(self, size) and not make_room(self, size)
    or C.bridge_spool_put(worker, self.spool[0], entry, size) ~= 0 then
    lose(self, 1, "no room in the queue")
    return nil, "no room in the queue"
  end
  self.count, self.bytes = self.count + 1, self.bytes + size
  if not self.gathering then
    start(self)
  elseif self.waiting and self.count >= self.max_batch_size then
    C.bridge_wake(worker, self.waiting, 0, 0)
    self.waiting = false
  end
  return true
end

---@return integer entries, those under way included
---@return integer bytes of them
function Queue:size()
  return self.count + self.under_way, self.bytes + self.bytes_under_way
end

-- A table as one text, the same for equal tables.
local function canonical(value, out)
  if type(value) ~= "table" then
    out[#out + 1] = type(value) .. ":" .. tostring(value)
    return
  end
  local names = {}
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  out[#out + 1] = "{"
  for _, name in ipairs(names) do
    out[#out + 1] = tostring(name) .. "="
    canonical(value[name], out)
  end
  out[#out + 1] = "}"
end

local function identity_of(owner, conf, name)
  local out = { owner.name, "\1", name, "\1" }
  canonical(conf, out)
  return table.concat(out, "\2")
end

local function new_queue(owner, conf, params)
  return setmetatable({
    plugin = owner.name, instance = conf.__plugin_id or "", params = params,
    spool = new_spool(), count = 0, bytes = 0, under_way = 0, bytes_under_way = 0,
    senders = 0, gathering = false, waiting = false, retrying = {},
    max_entries = params.max_entries, max_bytes = params.max_bytes or DEFAULT_MAX_BYTES,
    max_batch_size = min(params.max_batch_size, params.max_entries),
    most_senders = params.concurrency_limit == 1 and 1 or MOST_SENDERS,
    hopeless = false, untold = 0, told_at = -SAY_EVERY_S, warned_at = -SAY_EVERY_S, said_length = 0, said_bytes = 0,
    log = log.bind(owner.name),
  }, Queue)
end

-- Kong's older fields for the same, where an instance gives them; see queue.params.
local LEGACY = {
  { "queue_size", "max_batch_size", 1 }, { "flush_timeout", "max_coalescing_delay", 2 },
  { "batch_span_count", "max_batch_size", 200 }, { "batch_flush_delay", "max_coalescing_delay", 3 },
  { "producer_request_limits_messages_per_request", "max_batch_size", 200 },
  { "producer_async_flush_timeout", "max_coalescing_delay", 1000, 1000 }, -- milliseconds
  { "producer_async_buffering_limits_messages_in_memory", "max_entries", 50000 },
}

local function is_given(value)
  return value ~= nil and value ~= cjson.null
end

-- The parameters of an instance: its `queue`, with what Kong's older fields (queue_size, flush_timeout,
-- batch_span_count, batch_flush_delay, kafka-log's producer_*) say where they differ from what was their default;
-- retry_count does nothing.
---@param conf table
---@return sluice.queue.params
function queue.params(conf)
  local params = {}
  for name, value in pairs(conf.queue or {}) do
    if is_given(value) then params[name] = value end
  end
  for _, one in ipairs(LEGACY) do
    local value = conf[one[1]]
    if is_given(value) and value ~= one[3] then params[one[2]] = value / (one[4] or 1) end
  end
  return params
end

---@param owner? { name: string }
---@return sluice.queue
function queue.bind(owner)
  local bound = { params = queue.params }

  -- The queue of an instance; to be called for each of them in `configure`, each time. `handler(context, batch)` sends
  -- a list of entries: it may wait, and gives true when they have arrived, else nil and why; what it takes out of the
  -- list before that is not sent again. A third result is how many of those will never arrive, which it has told of.
  -- Neither `context` nor anything it leads to may be `conf` itself, or old configurations would be kept.
  ---@param conf table of the instance
  ---@param handler fun(context: any, batch: string[]): boolean|nil, string|nil
  ---@param context any
  ---@param name? string tells several queues of one instance apart
  ---@return sluice.queue.one
  function bound.open(conf, handler, context, name)
    local identity = identity_of(owner, conf, name or "")
    local self = known[identity]
    if not self then
      self = new_queue(owner, conf, queue.params(conf))
      known[identity] = self
    end
    self.handler, self.context, self.timer = handler, context, timer.bind(owner)
    return self
  end

  return bound
end

-- ---- The worker ----

-- Whoever waits goes on at once.
local function hurry()
  draining = true
  for _, one in pairs(known) do
    if one.waiting then
      C.bridge_wake(worker, one.waiting, 0, 0)
      one.waiting = false
    end
    for _, coroutine_number in pairs(one.retrying) do C.bridge_wake(worker, coroutine_number, 0, 0) end
  end
end

if worker ~= nil then
  require("sluice.runtime").on("stop", hurry)
  timer.every(PUBLISH_EVERY_S, publish_all)
end

return queue
