-- SPDX-License-Identifier: Apache-2.0
-- Answers that end: what is there from a place on, or the next thing to come. The place is the client's (`after`,
-- `partition` with `offset`, `since`), or the consumer group's that all clients of the route share.
--
--   {"orders":{"partitions":{"0":{"errcode":0,"high_watermark":7,"records":[...]}}}}
local cloudevent = require "kafka-consume.cloudevent"
local forms = require "kafka-consume.forms"
local group = require "kafka-consume.group"
local json = require "sluice.json"
local leases = require "sluice.leases"
local message = require "kafka-consume.message"
local places = require "kafka-consume.places"
local prefer = require "kafka-consume.prefer"
local record_traces = require "sluice.record_traces"
local records = require "sluice.records"
local sleep = require "sluice.sleep"
local source = require "kafka-consume.source"
local time = require "sluice.time"
local timer = require "sluice.timer"

local poll = {}

local BYTES_MOST = 8 * 1024 * 1024 -- of the records of an answer, but for the first
local BATCH = 64     -- records before others get their turn
local KEEP_S = 10    -- a topic that is polled is read on for so long, for the next poll to find its records here
local GROUP_S = 10   -- to wait for others who poll for the same group
local FETCH_S = 10   -- for records that the broker has
local FETCH_LOOK_S = 0.05
local FAILED = "a plugin failed in phase consume"
local GRACE_S = 0.02 -- for more records, once there is one of those that a poll waited for

-- ---- What is asked for ------------------------------------------------------------------------------------------

local function bad(text)
  return nil, 400, text
end

local function whole(exchange, name)
  local text = exchange.request:get_query_arg(name)
  if text == nil then return nil end
  local number = type(text) == "string" and text:match("^%d+$") and tonumber(text)
  return number and number < 2 ^ 53 and number or false
end

-- One partition, from an offset on, as far as `to` where that is told.
local function range_of(state, exchange, partition)
  local from, to = whole(exchange, "offset"), whole(exchange, "to")
  local topic = exchange.request:get_query_arg("topic") or state.only
  if partition == false or from == false or to == false then
    return bad("partition, offset and to must be whole numbers")
  end
  if not topic or not state.topics[topic] then return bad("topic must be one of those that are offered") end
  if to and from and to < from then return bad("to lies before offset") end
  return { topic = topic, partition = partition, from = from, to = to }
end

-- { after | range | since | group, limit, wait } or nil, status and text.
local function wish_of(state, exchange)
  local conf, request = state.conf, exchange.request
  local limit, since = whole(exchange, "limit"), whole(exchange, "since")
  if limit == false or limit == 0 then return bad("limit must be a number from 1") end
  if since == false then return bad("since must be milliseconds since 1970") end
  local wish = { limit = math.min(limit or conf.max_records, conf.max_records), since = since,
    wait = math.min(prefer.wait(exchange) or 0, conf.max_wait / 1000) }
  local after = request:get_query_arg("after") or request:get_header("last-event-id")
  local partition = whole(exchange, "partition")
  if type(after) == "string" and after ~= "" then
    wish.after = forms.positions(after, state.topics, state.only)
    if not wish.after then return bad("after is none of this topic's places") end
  elseif partition ~= nil then
    local range, status, text = range_of(state, exchange, partition)
    if not range then return nil, status, text end
    wish.range = range
  elseif not since then
    wish.group = true
  end
  return wish
end

-- Whether a client that takes lines wants an answer that ends.
function poll.is_asked(exchange)
  local request = exchange.request
  return request:get_query_arg("after") ~= nil or request:get_query_arg("partition") ~= nil
    or request:get_query_arg("since") ~= nil
end

-- ---- Groups ------------------------------------------------------------------------------------------------------

-- One at a time for a group, in all workers: two would get the same records.
local function take_group(exchange, key)
  local deadline = time.monotonic() + GROUP_S
  while not leases.take(exchange, key, 1) do
    if time.monotonic() >= deadline then return false end
    sleep(0.02)
  end
  return true
end

-- ---- Where to read ----------------------------------------------------------------------------------------------

-- The partition, or nil, status and text. Without an offset it begins with the oldest record.
local function range_starts(state, range, ends)
  local last = ends[range.topic][range.partition]
  if not last then return nil, 404, "there is no partition " .. range.partition end
  if not range.from then
    local earliest, err = places.at(state, "earliest")
    if not earliest then return nil, 503, err end
    range.from = earliest[range.topic][range.partition]
  end
  -- What may be waited for: a range that ends beyond the log's end, or nowhere.
  range.stop = math.min((range.to or math.huge) + 1, last)
  range.waits = range.stop == last and (not range.to or range.to >= last)
  return { [range.topic] = { [range.partition] = range.from } }
end

local function starts_of(state, wish, ends)
  if wish.after then return wish.after end
  if wish.range then
    local starts, status, text = range_starts(state, wish.range, ends)
    return starts, status, text
  end
  if wish.since then return { timestamp = wish.since } end
  local starts, err, _, fresh = places.of_group(state, wish.group, ends, group.first(state.conf))
  if not starts then return nil, 503, err end
  wish.fresh = fresh
  return starts
end

-- ---- Reading -----------------------------------------------------------------------------------------------------

-- While a topic is polled its records are kept in memory, for the next poll to begin with.
local function keep_reading(state)
  local keeper = state.keeper
  if keeper then
    keeper.used = time.monotonic()
    return
  end
  keeper = { used = time.monotonic() }
  state.keeper = keeper
  timer.at(0, function()
    local reader = source.open(state, "latest")
    while reader and time.monotonic() - keeper.used < KEEP_S do sleep(1) end
    if reader then reader:close() end
    state.keeper = nil
  end)
end

local function is_past(range, record)
  return range and range.to and record.topic == range.topic and record.partition == range.partition
    and record.offset > range.to
end

-- What a client gets of a record; nil: nothing, or false: a plugin failed.
local function made_of(state, exchange, record, err)
  local made = state.prepare(record)
  if made and records.any("consume") then made, err = records.run(exchange, "consume", made) end
  if err then return false end
  return made
end

-- The record as the client gets it, unless it cannot be told.
local function add(state, got, record, made)
  local text = message.told(state, record, message.encode, made)
  if not text then return end
  local list = got.list
  list[#list + 1] = { topic = record.topic, partition = record.partition, text = text }
  got.bytes = got.bytes + #text
  if #list % BATCH == 0 then sleep(0) end
end

-- Whether what the client asked for is complete.
local function is_done(wish, got, reader)
  if #got.list >= wish.limit or got.bytes >= BYTES_MOST or got.past then return true end
  local range = wish.range
  if range then
    local at = reader:places()[range.topic][range.partition]
    return at >= range.stop and (not range.waits or #got.list > 0)
  end
  return false
end

-- How long to wait for the next record: for one that the broker has, for the first one to come, for its companions.
-- The first in pieces, for what lies before the end may be no record: marks of transactions, or compacted ones.
local function patience(got, reader, ends, deadline)
  local now = time.monotonic()
  if not places.reached(reader:places(), got.stops or ends) then
    local left = math.max(got.begun + FETCH_S - now, 0)
    return math.min(left, FETCH_LOOK_S), left > FETCH_LOOK_S
  end
  if #got.list > 0 then return got.waited and GRACE_S or 0 end
  got.waited = true
  return math.max(deadline - now, 0)
end

local function collect(state, exchange, wish, reader, ends, polling)
  local got = { list = {}, bytes = 0, begun = time.monotonic() }
  if wish.range then got.stops = { [wish.range.topic] = { [wish.range.partition] = wish.range.stop } } end
  local deadline = got.begun + wish.wait
  while not is_done(wish, got, reader) do
    local seconds, goes_on = patience(got, reader, ends, deadline)
    local record, err = reader:next(seconds)
    if record and is_past(wish.range, record) then
      got.past = true
    elseif record then
      local made = made_of(state, exchange, record)
      if made == false then return nil, FAILED end
      if made then
        add(state, got, record, made)
        polling:add(record)
      end
    elseif err ~= "gap" and not (err == "timeout" and goes_on) then
      -- "closed": this worker drains, and the client comes back elsewhere.
      if err ~= "timeout" and err ~= "closed" and #got.list == 0 then return nil, err end
      break
    end
  end
  got.places, got.at = reader:places(), forms.place(reader:positions(), reader.labels)
  return got
end

-- The same, told to tracers; closes the reader.
local function collect_in_span(state, exchange, wish, reader, ends)
  local polling = record_traces.poll(exchange, { topic = state.only or state.topic, cluster = state.cluster,
    group = wish.group or nil })
  local ok, got, failed = pcall(collect, state, exchange, wish, reader, ends, polling)
  reader:close()
  polling:done(nil, not ok and got or failed)
  if not ok then error(got, 0) end
  return got, failed
end

-- ---- Answering ---------------------------------------------------------------------------------------------------

local function texts_of(list)
  local texts = {}
  for i, one in ipairs(list) do texts[i] = one.text end
  return texts
end

local function partition_text(list, mark)
  local texts = texts_of(list)
  return ('{"errcode":0,"high_watermark":%d,"records":[%s]}'):format(mark, table.concat(texts, ","))
end

local function body_of(conf, got, ends)
  local by_topic, topics = {}, {}
  for _, one in ipairs(got.list) do
    local topic = by_topic[one.topic] or {}
    by_topic[one.topic] = topic
    topic[one.partition] = topic[one.partition] or {}
    table.insert(topic[one.partition], one)
  end
  for _, topic in ipairs(conf.topics) do
    local name, partitions = topic.name, {}
    for partition, list in pairs(by_topic[name] or {}) do
      partitions[#partitions + 1] = { partition, ('"%d":%s'):format(partition,
        partition_text(list, ends[name] and ends[name][partition] or -1)) }
    end
    table.sort(partitions, function(a, b) return a[1] < b[1] end)
    for i, one in ipairs(partitions) do partitions[i] = one[2] end
    topics[#topics + 1] = ('%s:{"partitions":{%s}}'):format(json.encode(name), table.concat(partitions, ","))
  end
  return "{" .. table.concat(topics, ",") .. "}"
end

-- The answer, and its type.
local function content_of(conf, got, ends, as_lines)
  if as_lines then
    local lines = table.concat(texts_of(got.list), "\n")
    return lines == "" and "" or lines .. "\n", "application/x-ndjson"
  end
  if conf.event == "cloudevent" then
    return "[" .. table.concat(texts_of(got.list), ",") .. "]", cloudevent.BATCHED
  end
  return body_of(conf, got, ends), "application/json; charset=utf-8"
end

-- Where to go on: behind all that the client has been given. A range goes on as one.
local function next_link(exchange, wish, got)
  local path, range = exchange.request:get_forwarded_path(), wish.range
  if not range then return ("<%s?after=%s>; rel=\"next\""):format(path, got.at) end
  local text = ("%s?topic=%s&partition=%d&offset=%d"):format(path, range.topic, range.partition,
    got.places[range.topic][range.partition])
  if range.to then
    if got.places[range.topic][range.partition] > range.to then return nil end -- there is no more of it
    text = text .. ("&to=%d"):format(range.to)
  end
  return "<" .. text .. ">; rel=\"next\""
end

local function read(state, exchange, wish)
  local ends, err, code = places.at(state, "latest")
  if not ends then return nil, code == "topic" and 404 or 503, err end
  local starts, status, text = starts_of(state, wish, ends)
  if not starts then return nil, status, text end
  keep_reading(state)
  local reader
  reader, err = source.open(state, starts, wish.range)
  if not reader then return nil, 503, err end
  local got, failed = collect_in_span(state, exchange, wish, reader, ends)
  if not got then return nil, failed == FAILED and 500 or 503, failed end
  if wish.group and state.conf.commit_strategy == "auto" and (#got.list > 0 or wish.fresh) then
    local done, why = places.commit(state, wish.group, got.places)
    if not done then return nil, 503, why end
  end
  return got, ends
end

-- Answers a request for records; `refuse(status, text)` does so with an error.
---@param as_lines boolean
function poll.answer(state, exchange, as_lines, refuse)
  local wish, status, text = wish_of(state, exchange)
  if not wish then refuse(status, text) end
  local key
  if wish.group then
    wish.group = group.of_poll(state.conf, exchange)
    key = "kafka-consume:" .. state.cluster .. ":" .. wish.group
    if not take_group(exchange, key) then refuse(503, "others poll for the same group") end
  end
  local ok, got, ends, why = pcall(read, state, exchange, wish)
  if key then leases.give_back(exchange, key) end
  if not ok then error(got, 0) end
  if not got then refuse(ends, why) end
  local body, kind = content_of(state.conf, got, ends, as_lines)
  local headers = { ["Content-Type"] = kind,
    ["Cache-Control"] = "no-store", Link = not wish.group and next_link(exchange, wish, got) or nil }
  if wish.wait > 0 and exchange.request:get_header("prefer") then
    headers["Preference-Applied"] = ("wait=%d"):format(wish.wait)
  end
  exchange.response:exit(200, body, headers)
end

return poll
