-- SPDX-License-Identifier: Apache-2.0
-- Consumer instances of this worker: members of consumer groups that clients made, and use by their names. One that
-- nobody has used for a while is ended. What is asked of one, and what it says, are plain tables (see remote.lua); an
-- answer that failed is { error = code, text = why }, with a name of Kafka's, or one of ours:
--   "none" no such instance, "exists", "many" too many of them, "state" not in this state, "config", "busy"
local bell = require "sluice.bell"
local kafka = require "sluice.kafka"
local sluice = require "sluice"

local time = sluice.time

local instances = {}

local SWEEP_S = 1
local COMMIT_S = 5       -- how often what was given is committed, for those that want it so
local LOCK_S = 30        -- how long a question waits for the one before it
local RECORDS_MAX = 10000 -- of one answer

local all, count = {}, 0
local sweeping = false

local function failed(code, text)
  return { error = code, text = text }
end

-- ---- Life ----------------------------------------------------------------------------------------------------------

local function close(it)
  if all[it.key] ~= it then return end
  all[it.key], count = nil, count - 1
  it.closed = true
  if it.consumer then it.consumer:close() end
  it.consumer = nil
  it.bell:ring()
end

local function sweep()
  local now = time.monotonic()
  for _, it in pairs(all) do
    if not it.busy and now - it.used > it.idle_s then close(it) end
  end
end

local function start_sweeping()
  if sweeping then return end
  sweeping = true
  sluice.timer.every(SWEEP_S, sweep)
end

-- The consumer, made when it is first needed: one that was only created costs nothing.
local function consumer_of(it)
  if it.consumer then return it.consumer end
  local consumer, err, code = kafka.group { cluster = it.cluster, group = it.group, topics = {}, from = it.from,
    properties = it.properties }
  if not consumer then return nil, failed(code == "full" and "many" or code, err) end
  it.consumer = consumer
  return consumer
end

-- One question of an instance at a time. A result of `run`, or of a failed one.
local function alone(it, run, ...)
  local deadline = time.monotonic() + LOCK_S
  while it.busy do
    if not it.bell:wait(math.max(0, deadline - time.monotonic())) then
      return failed("busy", "the instance answers another request")
    end
    if it.closed then return failed("none", "there is no such instance any more") end
  end
  it.busy = true
  local ok, result = pcall(run, it, ...)
  it.busy, it.used = false, time.monotonic()
  it.bell:ring()
  if not ok then error(result, 0) end
  return result
end

-- ---- Positions -----------------------------------------------------------------------------------------------------

local function set_position(it, topic, partition, offset)
  it.given[topic] = it.given[topic] or {}
  it.given[topic][partition] = offset
end

-- Records that were fetched and not given are of use only while the partition is read on from there.
local function forget(it, places)
  local gone = {}
  for _, place in ipairs(places) do
    gone[place.topic .. "/" .. place.partition] = true
    if it.given[place.topic] then it.given[place.topic][place.partition] = nil end
  end
  local kept = {}
  for _, record in ipairs(it.pending) do
    if not gone[record.topic .. "/" .. record.partition] then kept[#kept + 1] = record end
  end
  it.pending = kept
end

local function commit_given(it)
  it.committed = time.monotonic()
  if not it.consumer then return true end
  return it.consumer:commit(it.given, it.timeout)
end

-- ---- Records -------------------------------------------------------------------------------------------------------

local function size_of(record)
  return #(record.key or "") + #(record.value or "")
end

-- Partitions go to another member: what was given of them has been dealt with, as far as can be known.
local function on_rebalance(it)
  local lost = it.consumer:lost()
  if it.auto_commit then
    local positions = {}
    for _, place in ipairs(lost) do
      local offset = it.given[place.topic] and it.given[place.topic][place.partition]
      if offset then
        positions[place.topic] = positions[place.topic] or {}
        positions[place.topic][place.partition] = offset
      end
    end
    it.consumer:commit(positions, it.timeout)
  end
  forget(it, lost)
end

-- What does not pass by itself. All else is tried again by the client library; of what it tells meanwhile only brokers
-- that cannot be reached are worth telling, where no record came.
local LASTING = {
  _FATAL = true, TOPIC_AUTHORIZATION_FAILED = true, GROUP_AUTHORIZATION_FAILED = true, _AUTHENTICATION = true,
  SASL_AUTHENTICATION_FAILED = true, FENCED_INSTANCE_ID = true, INVALID_GROUP_ID = true,
}
local AWAY = { _ALL_BROKERS_DOWN = true, _TRANSPORT = true, _RESOLVE = true }

-- The next record, or nil, whether to go on, and what was wrong.
local function next_record(it, seconds)
  local record = table.remove(it.pending, 1)
  if record then return record end
  local err, code
  record, err, code = it.consumer:next(seconds)
  if record then return record end
  if err == "rebalance" then
    on_rebalance(it)
    return nil, true
  end
  if err == "gap" then return nil, true end
  if err == "timeout" or err == "closed" then return nil, false end
  return nil, not LASTING[code], code, err
end

local function take(it, record, taken)
  taken[#taken + 1] = record
  set_position(it, record.topic, record.partition, record.offset + 1)
end

-- Up to `most` bytes of records: all that are there, once there is one, or so many as fetch.min.bytes demands.
local function collect(it, seconds, most)
  local taken, bytes, deadline = {}, 0, time.monotonic() + seconds
  local away, why
  while #taken < RECORDS_MAX do
    local enough = bytes > 0 and bytes >= it.min_bytes
    local left = enough and 0 or math.max(0, deadline - time.monotonic())
    local record, go_on, code, err = next_record(it, left)
    if record then
      local size = size_of(record)
      if #taken > 0 and bytes + size > most then
        table.insert(it.pending, 1, record)
        break
      end
      bytes = bytes + math.max(size, 1)
      take(it, record, taken)
    elseif not go_on then
      if err and #taken == 0 then return nil, code, err end
      break
    elseif AWAY[code] then
      away, why = code, err
    end
    if it.closed then break end
  end
  if away and #taken == 0 then return nil, away, why end
  return taken
end

local function fetch(it, args)
  if not it.mode then return failed("state", "the instance is neither subscribed nor assigned to anything") end
  if it.auto_commit and time.monotonic() - it.committed >= COMMIT_S then commit_given(it) end
  local seconds = math.min(args.seconds or it.request_s, it.request_most_s)
  local records, code, err = collect(it, seconds, math.min(args.bytes or it.bytes_most, it.bytes_most))
  if it.closed then return failed("none", "there is no such instance any more") end
  if not records then return failed(code, err) end
  return { records = records }
end

-- ---- What it reads -------------------------------------------------------------------------------------------------

local function subscribe(it, args)
  local mode = args.pattern and "pattern" or "topics"
  if it.mode and it.mode ~= mode then
    return failed("state", "subscriptions to topics, to a pattern, and assignments exclude each other")
  end
  local consumer, refused = consumer_of(it)
  if not consumer then return refused end
  local pattern = args.pattern and (args.pattern:sub(1, 1) == "^" and args.pattern or "^" .. args.pattern)
  local ok, err, code = consumer:subscribe(pattern and { pattern } or args.topics)
  if not ok then return failed(code, err) end
  it.mode, it.topics, it.pending, it.given = mode, args.topics, {}, {}
  return {}
end

local function unsubscribe(it)
  if it.consumer and it.mode then
    if it.auto_commit then commit_given(it) end
    it.consumer:close()
  end
  it.consumer, it.mode, it.topics, it.pending, it.given = nil, nil, nil, {}, {}
  return {}
end

local function assign(it, args)
  if it.mode and it.mode ~= "assigned" then
    return failed("state", "subscriptions to topics, to a pattern, and assignments exclude each other")
  end
  local consumer, refused = consumer_of(it)
  if not consumer then return refused end
  local positions = {}
  for _, place in ipairs(args.places) do
    positions[place.topic] = positions[place.topic] or {}
    positions[place.topic][place.partition] = "committed"
  end
  local ok, err, code = consumer:assign(positions)
  if not ok then return failed(code, err) end
  it.mode, it.pending, it.given = "assigned", {}, {}
  return {}
end

local function places_of(it)
  local places = {}
  for i, place in ipairs(it.consumer and it.consumer:assignment() or {}) do
    places[i] = { topic = place.topic, partition = place.partition }
  end
  return places
end

local function seek(it, args)
  local has = {}
  for _, place in ipairs(places_of(it)) do has[place.topic .. "/" .. place.partition] = true end
  local positions = {}
  for _, place in ipairs(args.places) do
    local name = place.topic .. "/" .. place.partition
    if not has[name] then return failed("state", "the instance has no partition " .. name) end
    positions[place.topic] = positions[place.topic] or {}
    positions[place.topic][place.partition] = place.offset
  end
  local ok, err, code = it.consumer:seek(positions)
  if not ok then return failed(code, err) end
  forget(it, args.places)
  for _, place in ipairs(args.places) do
    if type(place.offset) == "number" then set_position(it, place.topic, place.partition, place.offset) end
  end
  return {}
end

-- ---- Offsets -------------------------------------------------------------------------------------------------------

local function commit(it, args)
  local consumer, refused = consumer_of(it)
  if not consumer then return refused end
  local positions = it.given
  if args.places then
    positions = {}
    for _, place in ipairs(args.places) do
      positions[place.topic] = positions[place.topic] or {}
      positions[place.topic][place.partition] = { offset = place.offset, metadata = place.metadata }
    end
  end
  local ok, err, code = consumer:commit(positions, it.timeout)
  if not ok then return failed(code, err) end
  return {}
end

local function committed(it, args)
  local consumer, refused = consumer_of(it)
  if not consumer then return refused end
  local places, err, code = consumer:committed(args.places, it.timeout)
  if not places then return failed(code, err) end
  return { places = places }
end

-- ---- Questions -----------------------------------------------------------------------------------------------------

-- Of a pattern: the topics that it has brought.
local function subscription(it)
  if it.mode ~= "pattern" then return { topics = it.mode == "topics" and it.topics or {} } end
  local topics, seen = {}, {}
  for _, place in ipairs(places_of(it)) do
    if not seen[place.topic] then topics[#topics + 1] = place.topic end
    seen[place.topic] = true
  end
  table.sort(topics)
  return { topics = topics }
end

local OPERATIONS = {
  subscribe = subscribe, unsubscribe = unsubscribe, assign = assign, seek = seek, commit = commit,
  committed = committed, fetch = fetch,
  subscription = subscription,
  assignment = function(it) return { places = places_of(it) } end,
  format = function(it) return { format = it.format } end,
}

local function create(key, args)
  if all[key] then return failed("exists", "the group has an instance of this name") end
  if count >= args.most then
    return failed("many", "there are " .. count .. " consumer instances, as many as this gateway takes")
  end
  count = count + 1
  local now = time.monotonic()
  all[key] = {
    key = key, cluster = args.cluster, group = args.group, format = args.format, from = args.from,
    properties = args.properties, auto_commit = args.auto_commit, min_bytes = args.min_bytes,
    request_s = args.request_s, request_most_s = args.request_most_s, bytes_most = args.bytes_most,
    idle_s = args.idle_s, timeout = args.timeout,
    used = now, committed = now, pending = {}, given = {}, bell = bell.new(), busy = false, closed = false,
  }
  start_sweeping()
  return {}
end

local function delete(it)
  if it.auto_commit and it.consumer and it.mode then commit_given(it) end
  close(it)
  return {}
end

---@param operation string
---@param key string which instance
---@param args table
---@return table
function instances.run(operation, key, args)
  if operation == "create" then return create(key, args) end
  local it = all[key]
  if not it then return failed("none", "there is no such instance") end
  it.used = time.monotonic()
  if operation == "delete" then return delete(it) end
  if operation == "format" then return OPERATIONS.format(it) end
  return alone(it, OPERATIONS[operation], args)
end

return instances
