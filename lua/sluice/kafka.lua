-- SPDX-License-Identifier: Apache-2.0
-- Kafka for plugins: records in, with the broker's word for where they are; records out, one after the other.
--
--   local at, err, code = kafka.produce { topic = "orders", key = id, value = body }  -- at.partition, at.offset
--   local reader = kafka.reader { topic = "orders", from = "earliest" }
--   local record, err = reader:next(15)
--
-- A cluster is one of gateway.kafka, "main" unless told. Plugins with Kong's `bootstrap_servers` get one by
-- kafka.cluster_of(conf).

local ffi = require "ffi"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local kafka_conf = require "sluice.kafka_conf"

local C, worker, E = core.C, core.worker, core.E
local pairs_of = kafka_conf.pairs_of
local ffi_string, tostring, type, pairs, ipairs = ffi.string, tostring, type, pairs, ipairs
local yield = coroutine.yield

local OK, AGAIN, NONE = 0, 1, 2
local GAP, TIMEOUT, FULL, INVALID, STALE, CLOSED = 3, -5, -3, -2, -1, -4
local LATEST, EARLIEST, ANY_PARTITION = -1, -2, -1
local DEFAULT_CLUSTER = "main"
local HEADERS_MAX = 256

local kafka = {}

-- ---- Clusters -----------------------------------------------------------------------------------------------------

local configured = {} -- names from gateway.kafka
local stage = 0       -- counts generations that went live
local defined = {}    -- of plugins: canonical text to { name, stage }
local numbers = {}    -- by servers: how many clusters have been named so

local function set_cluster(name, properties)
  local array, count, texts = pairs_of(properties)
  if C.bridge_kafka_cluster(worker, name, array, count) == OK and texts then return true end
  return nil, core.reason(INVALID)
end

-- Clusters that plugins define are kept as long as the running generation or the one before defines them.
local function drop_unused()
  for text, cluster in pairs(defined) do
    if cluster.stage < stage - 1 then
      C.bridge_kafka_cluster_drop(worker, cluster.name)
      defined[text] = nil
    end
  end
end

-- The clusters of gateway.kafka, whenever a generation goes live. Raises, with nothing changed, when one is wrong.
---@param clusters table<string, table<string, string|number|boolean>>
function kafka.configure(clusters)
  for name, properties in pairs(clusters) do
    local ok, property, why = kafka_conf.check(properties)
    if not ok then error({ entity = "gateway.kafka." .. name, message = property .. ": " .. why }, 0) end
  end
  for name, properties in pairs(clusters) do
    local ok, err = set_cluster(name, properties)
    if not ok then error({ entity = "gateway.kafka." .. name, message = err }, 0) end
  end
  for name in pairs(configured) do
    if not clusters[name] then C.bridge_kafka_cluster_drop(worker, name) end
  end
  configured = {}
  for name in pairs(clusters) do configured[name] = true end
  drop_unused()
  stage = stage + 1
end

-- A cluster that no name of the configuration stands for; the same properties give the same one.
---@param properties table<string, string|number|boolean>
---@return string|nil name
---@return string|nil err
function kafka.define(properties)
  local _, _, texts = pairs_of(properties)
  local text = table.concat(texts, "\0")
  local cluster = defined[text]
  if not cluster then
    local servers = tostring(properties["bootstrap.servers"]):sub(1, 80)
    numbers[servers] = (numbers[servers] or 0) + 1
    cluster = { name = servers .. "#" .. numbers[servers] }
    local ok, err = set_cluster(cluster.name, properties)
    if not ok then return nil, err end
    defined[text] = cluster
  end
  cluster.stage = stage
  return cluster.name
end

-- The certificate of security.certificate_id, in the generation that is running or being built.
local function certificate(id)
  local generation = require("sluice.generation").current()
  for _, entity in ipairs(generation and generation.entities.certificates or {}) do
    if entity.id == id then return entity end
  end
end

-- The cluster that a plugin's configuration in Kong's form means: `cluster`, or `bootstrap_servers` with what belongs
-- to them. To be called in the plugin's `configure` for each of its configurations, so that the cluster stays.
---@param conf table
---@return string|nil name
---@return string|nil err
function kafka.cluster_of(conf)
  if conf.cluster then return conf.cluster end
  if not conf.bootstrap_servers then return DEFAULT_CLUSTER end
  local properties, err = kafka_conf.properties(conf, certificate)
  if not properties then return nil, err end
  return kafka.define(properties)
end

-- Fields of Kong's Kafka plugins for a schema; `kafka.schema { producer = true }` with those of a producer.
kafka.schema = kafka_conf.schema

local cluster_status = ffi.new("struct kafka_cluster_status")

-- One entry a cluster, for `sluice status` and metrics.
---@return table[]
function kafka.status()
  local list, index = {}, 0
  while C.bridge_kafka_cluster_at(worker, index, cluster_status) == OK do
    local it = cluster_status
    local error_text = ffi_string(it.error)
    list[#list + 1] = {
      name = ffi_string(it.name), brokers = ffi_string(it.servers), state = ffi_string(it.state),
      embedded = it.embedded, last_error = error_text ~= "" and error_text or nil,
      produced = it.produced, delivered = it.delivered, failed = it.failed, refused = it.refused,
      consumed = it.consumed, consumed_bytes = it.consumed_bytes,
      queued = it.queued, readers = it.readers, consumers = it.consumers,
    }
    index = index + 1
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- ---- Produce ------------------------------------------------------------------------------------------------------

local message = ffi.new("struct kafka_message")
local header_cells = ffi.new("struct bytes[?]", HEADERS_MAX * 2)
local result = ffi.new("struct kafka_result")

local function lay(cell, text)
  if text == nil then
    cell.data, cell.len = nil, 0
  else
    cell.data, cell.len = text, #text
  end
end

local function text_of(name, argument, value)
  if type(value) == "number" then return tostring(value) end
  if value ~= nil and type(value) ~= "string" then
    check.fail(name, argument .. " must be a string, got a " .. type(value), 5)
  end
  return value
end

local function lay_header(name, count, key, value)
  if count == HEADERS_MAX then check.fail(name, "headers: more than " .. HEADERS_MAX, 6) end
  if type(key) ~= "string" or (value ~= nil and type(value) ~= "string") then
    check.fail(name, "headers must be names with strings", 6)
  end
  lay(header_cells[2 * count], key)
  lay(header_cells[2 * count + 1], value)
  return count + 1
end

-- { name = value }, { name = { value, value } } or a list of { name, value }. Texts only: one made here could be
-- collected before C reads it.
local function lay_headers(name, headers)
  local count = 0
  for key, value in pairs(headers) do
    if type(value) ~= "table" then
      count = lay_header(name, count, key, value)
    elseif type(key) == "number" then
      count = lay_header(name, count, value[1], value[2])
    else
      for _, one in ipairs(value) do count = lay_header(name, count, key, one) end
    end
  end
  return count
end

-- `key` and `value` are held by the caller while C reads them.
local function lay_message(name, options, key, value)
  check.table(name, "options", options)
  check.string(name, "topic", options.topic)
  message.cluster = options.cluster or DEFAULT_CLUSTER
  message.topic = options.topic
  lay(message.key, key)
  lay(message.value, value)
  message.headers = header_cells
  message.header_count = options.headers and lay_headers(name, options.headers) or 0
  message.partition = options.partition or ANY_PARTITION
  message.timestamp_ms = options.timestamp or 0
  message.timeout_s = options.timeout or 0
end

local function refused(status)
  if status == FULL then return nil, "the queue to the cluster is full", "full" end
  if status == NONE then return nil, core.reason(INVALID), "cluster" end
  return nil, core.reason(INVALID), status == INVALID and "invalid" or "failed"
end

---@class sluice.kafka.message
---@field cluster? string "main" unless told
---@field topic string
---@field key? string
---@field value? string nil is Kafka's null
---@field headers? table { name = value }, { name = { value, value } } or a list of { name, value }
---@field partition? integer by key, as Java's clients choose, unless told
---@field timestamp? number milliseconds since 1970, now unless told
---@field timeout? number seconds to wait

-- Produces a record and waits for the broker's acknowledgement.
---@param options sluice.kafka.message
---@return { topic: string, partition: integer, offset: integer }|nil
---@return string|nil err
---@return string|nil code "full": queue full, at once; "timeout": it may yet arrive; "cluster": there is none of that
--- name; "invalid"; else Kafka's name of the error, such as "MSG_SIZE_TOO_LARGE"
function kafka.produce(options)
  local key = text_of("kafka.produce", "key", options.key)
  local value = text_of("kafka.produce", "value", options.value)
  lay_message("kafka.produce", options, key, value)
  local topic = options.topic
  local status = C.bridge_kafka_produce(worker, message, true)
  if status ~= AGAIN then return refused(status) end
  status = yield()
  C.bridge_kafka_result(worker, result)
  if status == OK then return { topic = topic, partition = result.partition, offset = result.offset } end
  if status == TIMEOUT then return nil, ffi_string(result.text), "timeout" end
  return nil, ffi_string(result.text), ffi_string(result.name)
end

-- Queues a record and does not wait; failures are counted in kafka.status().
---@param options sluice.kafka.message
---@return boolean|nil queued
---@return string|nil err
---@return string|nil code
function kafka.send(options)
  local key = text_of("kafka.send", "key", options.key)
  local value = text_of("kafka.send", "value", options.value)
  lay_message("kafka.send", options, key, value)
  local status = C.bridge_kafka_produce(worker, message, false)
  if status == OK then return true end
  return refused(status)
end

-- ---- Read ---------------------------------------------------------------------------------------------------------

---@class sluice.kafka.record shared by all readers of the topic: not to be changed
---@field topic string
---@field partition integer
---@field offset integer
---@field timestamp number milliseconds since 1970, -1: none
---@field key string|nil
---@field value string|nil
---@field headers table[] list of { name, value }

-- Readers of a topic get one record after the other nearly at the same time: the table is made once.
local shared = setmetatable({}, { __mode = "v" })

local function text_in(bytes)
  if bytes.data == nil then return nil end
  return ffi_string(bytes.data, bytes.len)
end

local function record_of(view, topic)
  local serial = tonumber(view.serial)
  local record = shared[serial]
  if record then return record end
  local headers = {}
  for i = 0, tonumber(view.header_count) - 1 do
    headers[i + 1] = { text_in(view.headers[2 * i]), text_in(view.headers[2 * i + 1]) }
  end
  record = {
    topic = topic, partition = view.partition, offset = view.offset, timestamp = view.timestamp_ms,
    key = text_in(view.key), value = text_in(view.value), headers = headers,
  }
  shared[serial] = record
  return record
end

---@class sluice.kafka.reader
local Reader = {}
Reader.__index = Reader

local view = ffi.new("const struct kafka_record *[1]")
local position = ffi.new("struct kafka_position")

local ENDS = { [GAP] = "gap", [TIMEOUT] = "timeout", [NONE] = "timeout", [STALE] = "closed", [CLOSED] = "closed" }

-- The next record. "gap": records were lost to this reader, and the next call goes on behind them.
---@param timeout? number seconds; without end unless told; 0: only what is there already
---@return sluice.kafka.record|nil
---@return "timeout"|"gap"|"closed"|string|nil err
function Reader:next(timeout)
  local deadline = timeout and C.bridge_mono(worker) + timeout or math.huge
  local left = timeout or math.huge
  while true do
    local status = C.bridge_kafka_reader_next(worker, self.handle, left, view)
    if status == OK then return record_of(view[0], self.topic) end
    if status == AGAIN then
      status = yield()
      if status == OK then
        left = deadline - C.bridge_mono(worker)
        if left <= 0 then left = 0 end
      end
    end
    if status ~= OK then return nil, ENDS[status] or core.reason(status) end
  end
end

-- Where it stands: the offset of the next record, by partition.
---@return table<integer, integer>
function Reader:positions()
  local positions, index = {}, 0
  while C.bridge_kafka_reader_position(worker, self.handle, index, position) == OK do
    positions[position.partition] = tonumber(position.offset)
    index = index + 1
  end
  return positions
end

-- Ends it; the topic's consumer ends with its last reader. Closing twice is no error.
function Reader:close()
  C.bridge_kafka_reader_close(worker, self.handle)
end

-- A reader whose plugin forgot it is closed when it is collected.
local function keep(handle)
  return ffi.gc(ffi.new("double[1]", handle), function(cell) C.bridge_kafka_reader_close(worker, cell[0]) end)
end

local open_readers = setmetatable({}, { __mode = "k" })
local draining = false

-- A worker that drains ends its readers: their clients go on elsewhere, instead of holding it to the last moment.
if worker ~= nil then
  require("sluice.runtime").on("stop", function()
    draining = true
    for reader in pairs(open_readers) do reader:close() end
  end)
end

local STARTS = { latest = LATEST, earliest = EARLIEST }

local function lay_positions(name, from)
  local cells, count = ffi.new("struct kafka_position[?]", 1024), 0
  for partition, offset in pairs(from) do
    if type(partition) ~= "number" or type(offset) ~= "number" or count == 1024 then
      check.fail(name, "from must be \"latest\", \"earliest\" or offsets by partition", 4)
    end
    cells[count].partition, cells[count].offset = partition, offset
    count = count + 1
  end
  return cells, count
end

-- Opens a reader; waits until its place in the topic is known.
---@param options { cluster?: string, topic: string, from?: "latest"|"earliest"|table<integer, integer>,
--- otherwise?: "latest"|"earliest", behind?: "catch up"|"skip" } `from`: offsets by partition, and where to start in
--- partitions that it does not name is `otherwise`, "earliest" unless told. `behind`: what a reader does that falls
--- behind what is kept in memory
---@return sluice.kafka.reader|nil
---@return string|nil err
---@return "topic"|"failed"|nil code "topic": there is none of that name
function kafka.reader(options)
  check.table("kafka.reader", "options", options)
  check.string("kafka.reader", "topic", options.topic)
  if draining then return nil, "this worker ends", "failed" end
  local from = options.from or "latest"
  local wanted = ffi.new("struct kafka_reader_options")
  wanted.cluster, wanted.topic = options.cluster or DEFAULT_CLUSTER, options.topic
  wanted.skip_when_behind = options.behind == "skip"
  local cells, count
  if type(from) == "table" then
    cells, count = lay_positions("kafka.reader", from)
    wanted.positions, wanted.position_count = cells, count
    from = options.otherwise or "earliest"
  end
  if not STARTS[from] then check.fail("kafka.reader", "no such start: " .. tostring(from), 3) end
  wanted.from = STARTS[from]
  local status, handle = C.bridge_kafka_reader_open(worker, wanted), nil
  cells = nil -- luacheck: ignore 311 (held until here, while C read it)
  if status == AGAIN then status, handle = yield() end
  if status ~= OK then
    local err = core.reason(status)
    return nil, err, err:find("Unknown topic", 1, true) and "topic" or "failed"
  end
  local reader = setmetatable({ handle = handle, topic = options.topic, held = keep(handle) }, Reader)
  open_readers[reader] = true
  return reader
end

assert(E.KAFKA_GAP == GAP and E.KAFKA_LATEST == LATEST and E.KAFKA_EARLIEST == EARLIEST)

return kafka
