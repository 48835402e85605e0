-- SPDX-License-Identifier: Apache-2.0
-- Questions to a cluster about itself, and orders to it. Each waits for the broker's word, up to `timeout` seconds.
--
--   local admin = kafka.admin("main", { timeout = 5 })
--   local brokers, err, code = admin:brokers()
--   admin:create_topic { topic = "orders", partitions = 6, config = { ["retention.ms"] = "3600000" } }
--
-- What fails gives nil, why, and Kafka's name of the error ("UNKNOWN_TOPIC_OR_PART"), or "full", "cluster", "closed".

local ffi = require "ffi"
local check = require "sluice.api.check"
local clusters = require "sluice.kafka.clusters"
local core = require "sluice.api.core"
local json = require "sluice.json"
local lock = require "sluice.lock"
local sleep = require "sluice.sleep"
local time = require "sluice.time"

local C, worker, E = core.C, core.worker, core.E
local ffi_string, tostring, tonumber, type, pairs, ipairs = ffi.string, tostring, tonumber, type, pairs, ipairs
local error, pcall = error, pcall
local yield = coroutine.yield

local OK, AGAIN, NONE, STALE, INVALID, FULL = 0, 1, 2, -1, -2, -3
local LATEST, EARLIEST = -1, -2
local TIMEOUT_S = 10

local administration = {}

---@class sluice.kafka.admin
local Admin = {}
Admin.__index = Admin

local function seconds_of(self)
  return self.timeout > 0 and self.timeout or TIMEOUT_S
end

local question = ffi.new("struct kafka_question")
local answer = ffi.new("struct kafka_answer")

local function refused(status)
  if status == FULL then return nil, core.reason(INVALID), "full" end
  if status == NONE then return nil, core.reason(INVALID), "cluster" end
  return nil, core.reason(INVALID), status == INVALID and "invalid" or "failed"
end

-- A text of C ends at its first zero: Kafka would be asked something else.
local function lay(texts)
  local cells = ffi.new("const char *[?]", #texts + 1)
  for i, text in ipairs(texts) do
    if text:find("%z") then return nil end
    cells[i - 1] = text
  end
  return cells
end

-- The decoded answer, or nil, why, code. `seconds`: the admin's own unless told.
local function ask(self, what, texts, seconds)
  local cells = lay(texts)
  if not cells then return nil, "a name with a zero in it", "invalid" end
  question.cluster, question.what, question.count = self.cluster, what, #texts
  question.texts, question.timeout_s = cells, seconds or self.timeout
  local status = C.bridge_kafka_ask(worker, question)
  cells = nil -- luacheck: ignore 311 (held until here, while C read it)
  if status ~= AGAIN then return refused(status) end
  status = yield()
  if status == STALE then return nil, "the cluster left the configuration", "closed" end
  C.bridge_kafka_answer(worker, answer)
  local text = answer.text.len > 0 and ffi_string(answer.text.data, answer.text.len) or ""
  if status ~= OK then return nil, text, ffi_string(answer.name) end
  return json.decode(text)
end

local function flag(value)
  return value and "1" or ""
end

-- What passes by itself: a broker that has just become the group's coordinator, above all that of a cluster's first.
local PASSING = { COORDINATOR_LOAD_IN_PROGRESS = true, COORDINATOR_NOT_AVAILABLE = true, NOT_COORDINATOR = true,
  NOT_COORDINATOR_FOR_GROUP = true, _WAIT_COORD = true }
local PASSING_PAUSE_S = 0.05

-- It may be said of the whole question, or of each entry of the answer.
local function passes(found, err, code)
  if not found then return PASSING[code] or tostring(err):find("oordinator", 1, true) end
  for _, one in ipairs(found.positions or found.groups or {}) do
    if one.error and PASSING[one.error.code] then return true end
  end
end

-- Asks a group's coordinator, within the admin's time until it is one.
local function ask_coordinator(self, what, texts)
  local seconds = seconds_of(self)
  local deadline = time.monotonic() + seconds
  while true do
    local found, err, code = ask(self, what, texts, seconds)
    seconds = deadline - time.monotonic() - PASSING_PAUSE_S
    if seconds <= 0 or not passes(found, err, code) then return found, err, code end
    sleep(PASSING_PAUSE_S)
  end
end

-- ---- The cluster and its topics ----

---@class sluice.kafka.metadata
---@field id string|nil of the cluster
---@field controller integer -1: unknown
---@field brokers { id: integer, host: string, port: integer }[]
---@field topics { name: string, error: sluice.kafka.failure|nil, partitions: sluice.kafka.partition[] }[]

---@class sluice.kafka.partition
---@field id integer
---@field leader integer -1: none
---@field replicas integer[]
---@field isr integer[]
---@field error sluice.kafka.failure|nil

---@alias sluice.kafka.failure { code: string, text: string }

-- The cluster with these topics, or with all.
---@param topics? string[]
---@return sluice.kafka.metadata|nil
---@return string|nil err
---@return string|nil code
function Admin:metadata(topics)
  check.table_or_nil("admin:metadata", "topics", topics)
  return ask(self, E.KAFKA_ASK_METADATA, topics or {})
end

-- One topic.
---@param name string
---@return { name: string, partitions: sluice.kafka.partition[] }|nil
---@return string|nil err
---@return string|nil code
function Admin:topic(name)
  check.string("admin:topic", "name", name)
  local found, err, code = ask(self, E.KAFKA_ASK_METADATA, { name })
  if not found then return nil, err, code end
  local topic = found.topics[1]
  if topic.error then return nil, topic.error.text, topic.error.code end
  return topic
end

---@param options { topic: string, partitions?: integer, replicas?: integer, config?: table<string, string>,
---  assignment?: integer[][], validate_only?: boolean } the broker's own numbers unless told; assignment: the brokers
---  of each partition
---@return boolean|nil
---@return string|nil err
---@return string|nil code
function Admin:create_topic(options)
  check.table("admin:create_topic", "options", options)
  check.string("admin:create_topic", "topic", options.topic)
  local assignment = options.assignment or {}
  local partitions = #assignment > 0 and #assignment or options.partitions or -1
  -- The replicas of an assignment are its own: librdkafka wants -1 beside it.
  local replicas = #assignment > 0 and -1 or options.replicas or -1
  local texts = { options.topic, tostring(partitions), tostring(replicas), flag(options.validate_only),
    tostring(#assignment) }
  for _, brokers in ipairs(assignment) do texts[#texts + 1] = table.concat(brokers, ",") end
  for name, value in pairs(options.config or {}) do
    texts[#texts + 1] = name
    texts[#texts + 1] = tostring(value)
  end
  local done, err, code = ask(self, E.KAFKA_ASK_CREATE_TOPIC, texts)
  return done and true, err, code
end

---@param topic string
function Admin:delete_topic(topic)
  check.string("admin:delete_topic", "topic", topic)
  local done, err, code = ask(self, E.KAFKA_ASK_DELETE_TOPIC, { topic })
  return done and true, err, code
end

---@param topic string
---@param count integer that it shall have, more than now
function Admin:create_partitions(topic, count)
  check.string("admin:create_partitions", "topic", topic)
  check.integer("admin:create_partitions", "count", count, 1, 2 ^ 31 - 1)
  local done, err, code = ask(self, E.KAFKA_ASK_CREATE_PARTITIONS, { topic, tostring(count) })
  return done and true, err, code
end

-- ---- Positions ----

---@class sluice.kafka.position
---@field topic string
---@field partition integer
---@field offset integer -1: none
---@field error sluice.kafka.failure|nil

local function add_position(texts, position)
  texts[#texts + 1] = position.topic
  texts[#texts + 1] = ("%d"):format(position.partition)
end

local TIMES = { latest = LATEST, earliest = EARLIEST }

-- Offsets of partitions at a time: the first record not older than it. "latest" is the log's end, "earliest" its start.
---@param positions { topic: string, partition: integer, at?: "latest"|"earliest"|number }[] "latest" unless told
---@return sluice.kafka.position[]|nil
---@return string|nil err
---@return string|nil code
function Admin:offsets(positions)
  check.table("admin:offsets", "positions", positions)
  local texts = {}
  for _, position in ipairs(positions) do
    add_position(texts, position)
    local at = position.at or "latest"
    texts[#texts + 1] = ("%.0f"):format(TIMES[at] or at)
  end
  if #texts == 0 then return {} end
  local found, err, code = ask(self, E.KAFKA_ASK_OFFSETS, texts)
  return found and found.positions, err, code
end

local function with_offsets(texts, positions)
  for _, position in ipairs(positions) do
    add_position(texts, position)
    texts[#texts + 1] = ("%.0f"):format(position.offset)
  end
  return texts
end

-- Deletes the records of partitions before an offset (-1: all that are there), and gives where they now start.
---@param positions sluice.kafka.position[]
---@return sluice.kafka.position[]|nil
function Admin:delete_records(positions)
  check.table("admin:delete_records", "positions", positions)
  local found, err, code = ask(self, E.KAFKA_ASK_DELETE_RECORDS, with_offsets({}, positions))
  return found and found.positions, err, code
end

-- ---- Configurations ----

---@class sluice.kafka.config
---@field name string
---@field value string|nil nil: sensitive, or not set
---@field source string such as "DYNAMIC_TOPIC_CONFIG"
---@field default boolean
---@field read_only boolean
---@field sensitive boolean
---@field synonyms { name: string, value: string|nil, source: string }[]

---@param kind "topic"|"broker"
---@param name string|integer
---@return sluice.kafka.config[]|nil
---@return string|nil err
---@return string|nil code
function Admin:configs(kind, name)
  local found, err, code = ask(self, E.KAFKA_ASK_CONFIGS, { kind, tostring(name) })
  return found and found.entries, err, code
end

-- Sets what it names and takes back to their defaults all others: the broker knows no less to librdkafka 2.0.
---@param kind "topic"|"broker"
---@param name string|integer
---@param values table<string, string>
---@param validate_only? boolean
function Admin:replace_configs(kind, name, values, validate_only)
  local texts = { kind, tostring(name), flag(validate_only) }
  for key, value in pairs(values) do
    texts[#texts + 1] = key
    texts[#texts + 1] = tostring(value)
  end
  local done, err, code = ask(self, E.KAFKA_ASK_ALTER_CONFIGS, texts)
  return done and true, err, code
end

local DYNAMIC = { topic = "DYNAMIC_TOPIC_CONFIG", broker = "DYNAMIC_BROKER_CONFIG" }

-- What it shall have after some changes: all that is set now, and these.
local function merged(entries, kind, changes)
  local values, known = {}, {}
  for _, entry in ipairs(entries) do
    known[entry.name] = true
    if entry.source == DYNAMIC[kind] and changes[entry.name] == nil then
      if entry.value == nil then
        return nil, entry.name .. " is set and secret: it cannot be kept while others change", "INVALID_CONFIG"
      end
      values[entry.name] = entry.value
    end
  end
  for key, value in pairs(changes) do
    if not known[key] then return nil, "there is no property " .. key .. " of a " .. kind, "INVALID_CONFIG" end
    if value then values[key] = tostring(value) end
  end
  return values
end

-- Brokers show a value as they understood it: a number without leading zeros, a list without spaces.
local function same(shown, wanted)
  if shown == wanted or tonumber(shown) and tonumber(shown) == tonumber(wanted) then return true end
  return shown:gsub("%s", ""):lower() == wanted:gsub("%s", ""):lower()
end

-- Whether an entry is as wanted (false: unset), or at least not as it was.
local function is_changed(entry, was, kind, wanted)
  local set = entry.source == DYNAMIC[kind]
  if set == (wanted ~= false) and (not wanted or entry.value == nil or same(entry.value, tostring(wanted))) then
    return true
  end
  return was ~= nil and (was.source ~= entry.source or was.value ~= entry.value)
end

local function shows(entries, before, kind, changes)
  for _, entry in ipairs(entries) do
    local wanted = changes[entry.name]
    if wanted ~= nil and not is_changed(entry, before[entry.name], kind, wanted) then return false end
  end
  return true
end

local LOOK_S = 0.025

-- Whoever reads next is to see it, and above all the next change, which writes back what it reads: brokers learn of a
-- change some time after the controller has taken it, a busy one seconds.
local function await(self, kind, name, changes, before)
  local by_name, deadline = {}, time.monotonic() + seconds_of(self)
  for _, entry in ipairs(before) do by_name[entry.name] = entry end
  repeat
    local entries = self:configs(kind, name)
    if not entries or shows(entries, by_name, kind, changes) then return end
    sleep(LOOK_S)
  until time.monotonic() >= deadline
end

local function alter(self, kind, name, changes, validate_only)
  local entries, err, code = self:configs(kind, name)
  if not entries then return nil, err, code end
  local values, why, kind_of_error = merged(entries, kind, changes)
  if not values then return nil, why, kind_of_error end
  local done
  done, err, code = self:replace_configs(kind, name, values, validate_only)
  if done and not validate_only then await(self, kind, name, changes, entries) end
  return done, err, code
end

-- Sets and unsets some of them. Read, changed and written back, one after the other within a worker: a change that
-- somebody else makes in between is lost. Refused where a value that must stay is not shown to us.
---@param kind "topic"|"broker"
---@param name string|integer
---@param changes table<string, string|false> false: back to its default
---@param validate_only? boolean
---@return boolean|nil
---@return string|nil err
---@return string|nil code
function Admin:alter_configs(kind, name, changes, validate_only)
  local key = "kafka.configs\0" .. self.cluster .. "\0" .. kind .. "\0" .. name
  local held = lock.acquire(key, seconds_of(self))
  if not held then return nil, "other changes of it take too long", "timeout" end
  local ok, done, err, code = pcall(alter, self, kind, name, changes, validate_only)
  held:release()
  if not ok then error(done, 0) end
  return done, err, code
end

-- ---- Consumer groups ----

-- A broker that does not say which groups it has makes the list no list.
---@return { id: string, state: string, simple: boolean }[]|nil
---@return string|nil err
---@return string|nil code
function Admin:groups()
  local found, err, code = ask(self, E.KAFKA_ASK_GROUPS, {})
  if not found then return nil, err, code end
  if found.error then return nil, found.error.text, found.error.code end
  return found.groups
end

---@class sluice.kafka.group
---@field id string
---@field state string "Stable", "Empty", "Dead", "PreparingRebalance", "CompletingRebalance", "Unknown"
---@field simple boolean
---@field assignor string|nil
---@field coordinator integer|nil broker
---@field members { id: string, client_id: string, instance_id: string|nil, host: string,
---  assignment: sluice.kafka.position[] }[]
---@field error sluice.kafka.failure|nil

---@param ids string[]
---@return sluice.kafka.group[]|nil
function Admin:describe_groups(ids)
  check.table("admin:describe_groups", "ids", ids)
  if #ids == 0 then return {} end
  local found, err, code = ask_coordinator(self, E.KAFKA_ASK_DESCRIBE_GROUPS, ids)
  return found and found.groups, err, code
end

---@param id string
---@return sluice.kafka.group|nil
function Admin:group(id)
  check.string("admin:group", "id", id)
  local groups, err, code = self:describe_groups { id }
  if not groups then return nil, err, code end
  local group = groups[1]
  if group.error then return nil, group.error.text, group.error.code end
  return group
end

---@param id string
function Admin:delete_group(id)
  check.string("admin:delete_group", "id", id)
  local done, err, code = ask_coordinator(self, E.KAFKA_ASK_DELETE_GROUP, { id })
  return done and true, err, code
end

-- What a group has committed, for these partitions or for all that it has.
---@param id string
---@param positions? { topic: string, partition: integer }[]
---@return sluice.kafka.position[]|nil
function Admin:committed(id, positions)
  check.string("admin:committed", "id", id)
  local texts = { id }
  for _, position in ipairs(positions or {}) do add_position(texts, position) end
  local found, err, code = ask_coordinator(self, E.KAFKA_ASK_COMMITTED, texts)
  return found and found.positions, err, code
end

-- Commits for a group that has no members.
---@param id string
---@param positions sluice.kafka.position[]
---@return sluice.kafka.position[]|nil each with its error
function Admin:commit(id, positions)
  check.string("admin:commit", "id", id)
  check.table("admin:commit", "positions", positions)
  local found, err, code = ask_coordinator(self, E.KAFKA_ASK_COMMIT, with_offsets({ id }, positions))
  return found and found.positions, err, code
end

-- Deletes what a group has committed of these partitions.
---@param id string
---@param positions { topic: string, partition: integer }[]
---@return sluice.kafka.position[]|nil each with its error
function Admin:forget(id, positions)
  check.string("admin:forget", "id", id)
  check.table("admin:forget", "positions", positions)
  local texts = { id }
  for _, position in ipairs(positions) do add_position(texts, position) end
  local found, err, code = ask_coordinator(self, E.KAFKA_ASK_FORGET, texts)
  return found and found.positions, err, code
end

-- ---- Access control ----

---@class sluice.kafka.acl in Kafka's names; a filter's fields may be absent, which is "ANY" or any text
---@field resource_type "TOPIC"|"GROUP"|"CLUSTER"|"ANY"
---@field resource_name string
---@field pattern_type "LITERAL"|"PREFIXED"|"ANY"|"MATCH" the last two in filters
---@field principal string
---@field host string
---@field operation string such as "READ"
---@field permission "ALLOW"|"DENY"|"ANY"

local ANY = "ANY"

local function add_acl(texts, acl)
  local count = #texts
  texts[count + 1], texts[count + 2] = acl.resource_type or ANY, acl.resource_name or ""
  texts[count + 3], texts[count + 4] = acl.pattern_type or ANY, acl.principal or ""
  texts[count + 5], texts[count + 6] = acl.host or "", acl.operation or ANY
  texts[count + 7] = acl.permission or ANY
end

local function acl_texts(acls)
  local texts = {}
  for _, acl in ipairs(acls) do add_acl(texts, acl) end
  return texts
end

---@param filter sluice.kafka.acl
---@return sluice.kafka.acl[]|nil
function Admin:acls(filter)
  local found, err, code = ask(self, E.KAFKA_ASK_ACLS, acl_texts { filter or {} })
  return found and found.acls, err, code
end

---@param acls sluice.kafka.acl[]
---@return { error: sluice.kafka.failure|nil }[]|nil one for each
function Admin:create_acls(acls)
  check.table("admin:create_acls", "acls", acls)
  local found, err, code = ask(self, E.KAFKA_ASK_CREATE_ACLS, acl_texts(acls))
  return found and found.results, err, code
end

-- Deletes what the filters match, and gives it.
---@param filters sluice.kafka.acl[]
---@return sluice.kafka.acl[]|nil
function Admin:delete_acls(filters)
  check.table("admin:delete_acls", "filters", filters)
  local found, err, code = ask(self, E.KAFKA_ASK_DELETE_ACLS, acl_texts(filters))
  return found and found.acls, err, code
end

-- Costs nothing before it is asked something: the cluster's client is made for the first question, and ends a minute
-- after the last.
---@param cluster? string "main" unless told
---@param options? { timeout?: number } seconds, 10 unless told
---@return sluice.kafka.admin
function administration.admin(cluster, options)
  check.string_or_nil("kafka.admin", "cluster", cluster)
  check.table_or_nil("kafka.admin", "options", options)
  local timeout = options and options.timeout or 0
  if type(timeout) ~= "number" then check.number("kafka.admin", "timeout", timeout) end
  return setmetatable({ cluster = cluster or clusters.DEFAULT, timeout = timeout }, Admin)
end

assert(E.KAFKA_LATEST == LATEST and E.KAFKA_EARLIEST == EARLIEST)

return administration
