-- SPDX-License-Identifier: Apache-2.0
-- The newest value of a key, as a resource with an ETag: the topic, compacted as a rule, is read once from its start
-- into a table, and followed from there on. A client that has the value may wait for the next one (`Prefer: wait`).
local bell = require "sluice.bell"
local log = require "sluice.log"
local prefer = require "kafka-consume.prefer"
local places = require "kafka-consume.places"
local records = require "sluice.records"
local sleep = require "sluice.sleep"
local source = require "kafka-consume.source"
local time = require "sluice.time"
local timer = require "sluice.timer"

local newest = {}

local IDLE_S = 300  -- a table that nobody asks is given up after that
local READY_S = 10  -- a client waits so long for the table to be complete
local BATCH = 256   -- records before others get their turn
local ENTRY_BYTES = 256 -- of an entry beside its key and value, about

-- ---- The table ---------------------------------------------------------------------------------------------------

local function drop(self, key)
  local old = self.entries[key]
  if not old then return end
  self.entries[key] = nil
  self.count, self.bytes = self.count - 1, self.bytes - old.size
end

local function wake(self, key)
  local waiting = self.waiting[key]
  if waiting then waiting:ring() end
end

-- False: there is no room for it.
local function put(self, record)
  local key = record.key
  if not key then return true end
  drop(self, key)
  local made = record.value ~= nil and self.state.prepare(record) or nil
  if made and made.value ~= nil then
    local size = #key + #tostring(made.value) + ENTRY_BYTES
    local conf = self.state.conf.newest
    if self.count >= conf.max_keys or self.bytes + size > conf.max_bytes then return false end
    self.entries[key] = { record = made, size = size, tag = ('"%s-%d-%d"'):format(record.topic, record.partition,
      record.offset) }
    self.count, self.bytes = self.count + 1, self.bytes + size
  end
  wake(self, key)
  return true
end

local function fail(self, err)
  self.err = err
  self.state.table = nil
  for key in pairs(self.waiting) do wake(self, key) end
end

local function fill(self)
  local count = 0
  while self.waiters > 0 or time.monotonic() - self.used < IDLE_S do
    if not self.ready then self.ready = places.reached(self.reader:places(), self.ends) end
    local record, err = self.reader:next(self.ready and 1 or 0.1)
    if record then
      if not put(self, record) then
        log.err("the topic has more keys than newest.max_keys or newest.max_bytes allow",
          { topic = self.state.topic, keys = self.count, bytes = self.bytes })
        return "the topic has too many keys"
      end
      count = count + 1
      if count % BATCH == 0 then sleep(0) end
    elseif err ~= "timeout" and err ~= "gap" then
      return err
    end
  end
  return "idle"
end

local function run(self)
  local err, code
  self.ends, err, code = places.at(self.state, "latest")
  if self.ends then self.reader, err, code = source.open(self.state, "earliest") end
  if not self.reader then
    self.code = code
    fail(self, err)
    return
  end
  local ok, why = pcall(fill, self)
  self.reader:close()
  fail(self, ok and why or "the table broke")
  if not ok then error(why, 0) end
end

local function table_of(state)
  local self = state.table
  if not self then
    self = { state = state, entries = {}, count = 0, bytes = 0, waiting = {}, waiters = 0, used = time.monotonic(),
      ready = false }
    state.table = self
    timer.at(0, run, self)
  end
  self.used = time.monotonic()
  return self
end

-- The table once it is complete; nil and why.
local function complete(state)
  local self = table_of(state)
  local deadline = time.monotonic() + READY_S
  while not self.ready and not self.err and time.monotonic() < deadline do sleep(0.01) end
  if self.err then return nil, self.err, self.code end
  if not self.ready then return nil, "the topic is still being read" end
  return self
end

-- ---- Requests ----------------------------------------------------------------------------------------------------

local function key_of(conf, exchange)
  local text
  if conf.newest.key_capture then text = exchange.request:get_uri_captures().named[conf.newest.key_capture] end
  if not text and conf.key_argument then text = exchange.request:get_query_arg(conf.key_argument) end
  return type(text) == "string" and text ~= "" and text or nil
end

local function matches(field, tag)
  if not field then return false end
  if field:match("^%s*%*%s*$") then return tag ~= nil end
  for one in field:gmatch('"[^"]*"') do
    if one == tag then return true end
  end
  return false
end

-- Whether the client has nothing new to get: its value is the newest, or there is none, as it expects.
local function is_known(entry, field)
  if entry then return matches(field, entry.tag) end
  return field == nil
end

-- Waits until there is something that the client does not have.
local function await(self, key, field, seconds)
  local deadline = time.monotonic() + seconds
  local waiting = self.waiting[key]
  if not waiting then
    waiting = bell.new()
    waiting.users = 0
    self.waiting[key] = waiting
  end
  waiting.users = waiting.users + 1
  self.waiters = self.waiters + 1
  while is_known(self.entries[key], field) and not self.err do
    local left = deadline - time.monotonic()
    if left <= 0 then break end
    waiting:wait(left)
  end
  waiting.users = waiting.users - 1
  self.waiters = self.waiters - 1
  self.used = time.monotonic()
  if waiting.users == 0 then self.waiting[key] = nil end
end

local function answer(state, exchange, entry, field)
  local conf = state.conf
  if not entry then exchange.response:exit(404, { message = "There is no value of this key" }) end
  local made, err = records.run(exchange, "consume", entry.record)
  if err then exchange.response:exit(500, { message = err }) end
  if not made then exchange.response:exit(404, { message = "There is no value of this key" }) end
  local headers = { ETag = entry.tag, ["Cache-Control"] = "no-cache", ["Content-Type"] = conf.newest.content_type }
  if entry.record.timestamp and entry.record.timestamp > 0 then
    headers["Last-Modified"] = time.http_date(math.floor(entry.record.timestamp / 1000))
  end
  if matches(field, entry.tag) then exchange.response:exit(304, nil, headers) end
  exchange.response:exit(200, made.value, headers)
end

-- Answers GET and HEAD; `refuse(status, text)` does so with an error.
function newest.answer(state, exchange, method, refuse)
  if method ~= "GET" and method ~= "HEAD" then
    exchange.response:exit(405, { message = "Method not allowed" }, { Allow = "GET, HEAD" })
  end
  local key = key_of(state.conf, exchange)
  if not key then refuse(400, "the request names no key") end
  local self, err, code = complete(state)
  if not self then refuse(code == "topic" and 404 or 503, err) end
  local field = exchange.request:get_header("if-none-match")
  local seconds = math.min(prefer.wait(exchange) or 0, state.conf.max_wait / 1000)
  if seconds > 0 and is_known(self.entries[key], field) then await(self, key, field, seconds) end
  if self.err then refuse(503, self.err) end
  answer(state, exchange, self.entries[key], field)
end

return newest
