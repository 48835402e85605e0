-- SPDX-License-Identifier: Apache-2.0
-- A real Kafka broker (KRaft, one node) on free ports, from the jars that `make kafka` fetches.
-- One serves all specs of a run; each spec takes topics of its own.
local ffi = require "ffi"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local kafka = {}

local broker = {}
broker.__index = broker

local JARS = ".cache/kafka/jars"
local CLUSTER_ID = "c2x1aWNlLXNwZWMta2Fmaw" -- any 16 bytes in base64
local START_SECONDS = 180
local ANSWER_SECONDS = 30 -- more than a busy broker takes, or is told to take
local METADATA, METADATA_VERSION = 3, 4
local CREATE_TOPICS, CREATE_TOPICS_VERSION = 19, 4
local DELETE_TOPICS, DELETE_TOPICS_VERSION = 20, 1
local DELETE_RECORDS, DELETE_RECORDS_VERSION = 21, 1
local CREATE_PARTITIONS, CREATE_PARTITIONS_VERSION = 37, 0
local TOPIC_ALREADY_EXISTS = 36

-- Specs write records of 1970, which stay: by default those older than a week go 30 seconds after its start, and then
-- each five minutes.
local properties = [[
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%d
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d
advertised.listeners=PLAINTEXT://127.0.0.1:%d
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%s/data
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
log.retention.ms=-1
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
num.network.threads=2
num.io.threads=2
]]

local function java(self, class, ...)
  local command = { "java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1" }
  for _, word in ipairs(self.more.java or {}) do command[#command + 1] = word end
  for _, word in ipairs({ "-cp", JARS .. "/*", class, ... }) do command[#command + 1] = word end
  return command
end

local function prepare(self)
  local path = self.directory .. "/server.properties"
  local ours = properties:format(self.controller_port, self.port, self.controller_port, self.port, self.directory)
  for name, port in pairs(self.ports) do
    local listener, kind = ("%s://127.0.0.1:%d"):format(name, port), self.more.listeners[name]
    local told = ("%s://127.0.0.1:%d"):format(name, (self.more.advertised or {})[name] or port)
    ours = ours:gsub("\n(listeners=[^\n]*)", "\n%1," .. listener)
      :gsub("\n(advertised.listeners=[^\n]*)", "\n%1," .. told)
      :gsub("\n(listener.security.protocol.map=[^\n]*)", "\n%1," .. name .. ":" .. kind)
  end
  process.write_file(path, ours .. (self.more.properties or ""))
  local command = java(self, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", path,
    unpack(self.more.format or {}))
  local status, out, err = process.run(command, { seconds = START_SECONDS })
  assert(status == 0, out .. err)
  return path
end

-- Who comes back is let in once the session of who was killed is over; the default is 9 seconds.
local AGAIN = { "--override", "broker.session.timeout.ms=1500", "--override", "broker.heartbeat.interval.ms=200" }

local function launch(self, more)
  local command = java(self, "kafka.Kafka", self.properties, unpack(more or {}))
  self.process = process.start(command, { directory = self.directory })
  process.wait_until(function()
    if not self.process:is_running() then error("Kafka ended: " .. self:log()) end
    local ok, why = self:create_topic("spec-ready")
    -- One that comes back answers before it leads again.
    return (ok or why == TOPIC_ALREADY_EXISTS) and self:known_partitions("spec-ready") == 1
  end, START_SECONDS, "Kafka on port " .. self.port)
end

-- A broker of the spec's own, for those that stop it. Most want kafka.shared().
-- more: listeners (name to protocol; broker.ports has where they are), properties (text), format (words for the storage
-- tool), java (words for java), advertised (name to the port that clients are told, when a relay stands between).
function kafka.start(more)
  local jars = io.open(JARS .. "/../fetched")
  assert(jars, "no Kafka here yet: run `make kafka`")
  jars:close()
  local self = setmetatable({ directory = posix.temporary_directory(), more = more or {}, ports = {} }, broker)
  self.port, self.controller_port = process.free_port(), process.free_port()
  for name in pairs(self.more.listeners or {}) do self.ports[name] = process.free_port() end
  self.servers = "127.0.0.1:" .. self.port
  self.properties = prepare(self)
  launch(self)
  return self
end

-- The broker that all specs of this process share; it ends with the process.
function kafka.shared()
  local registry = debug.getregistry()
  if not registry["sluice.spec.kafka"] then
    local shared = kafka.start()
    process.at_exit(function() shared:stop() end)
    registry["sluice.spec.kafka"] = shared
  end
  return registry["sluice.spec.kafka"]
end

-- ---- Kafka's protocol, as far as topics need it ----

local function int(size, value)
  local bytes = {}
  for index = size, 1, -1 do
    bytes[index] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(bytes)
end

local function text(value)
  return int(2, #value) .. value
end

local function signed16(data, at)
  return tonumber(ffi.cast("int16_t", data:byte(at) * 256 + data:byte(at + 1)))
end

local function framed(body)
  return int(4, #body) .. body
end

local function header(kind, version)
  return int(2, kind) .. int(2, version) .. int(4, 1) .. text("spec")
end

local function create_topic_request(name, partitions, configs)
  local entries, count = "", 0
  for key, value in pairs(configs or {}) do
    entries = entries .. text(key) .. text(tostring(value))
    count = count + 1
  end
  local topic = text(name) .. int(4, partitions or 1) .. int(2, 1) .. int(4, 0) .. int(4, count) .. entries
  return framed(header(CREATE_TOPICS, CREATE_TOPICS_VERSION) .. int(4, 1) .. topic .. int(4, 10000) .. "\0")
end

local function metadata_request(name)
  return framed(header(METADATA, METADATA_VERSION) .. int(4, 1) .. text(name) .. "\0")
end

-- The answer behind its length, or nil and why there is none.
local function ask(self, request)
  local socket, why = net.connect("127.0.0.1", self.port, { timeout = ANSWER_SECONDS })
  if not socket then return nil, why end
  socket:send(request)
  local head, answer
  head, why = socket:receive_exact(4)
  if head then answer, why = socket:receive_exact(head:byte(3) * 256 + head:byte(4)) end
  socket:close()
  return answer, why
end

-- True, or nil and Kafka's error code (or why there was no answer).
function broker:create_topic(name, partitions, configs)
  local answer, why = ask(self, create_topic_request(name, partitions, configs))
  if not answer then return nil, why end
  -- correlation id, throttle time, number of topics, name, error code
  local code = signed16(answer, 4 + 4 + 4 + 2 + #name + 1)
  if code ~= 0 then return nil, code end
  return true
end

function broker:delete_topic(name)
  local body = int(2, DELETE_TOPICS) .. int(2, DELETE_TOPICS_VERSION) .. int(4, 1) .. text("spec")
    .. int(4, 1) .. text(name) .. int(4, 10000)
  local answer = assert(ask(self, int(4, #body) .. body))
  -- correlation id, throttle time, number of topics, name, error code
  assert(signed16(answer, 4 + 4 + 4 + 2 + #name + 1) == 0, "the topic was not deleted")
end

-- Gives a topic more partitions: so many in all.
function broker:grow_topic(name, partitions)
  local body = int(2, CREATE_PARTITIONS) .. int(2, CREATE_PARTITIONS_VERSION) .. int(4, 1) .. text("spec")
    .. int(4, 1) .. text(name) .. int(4, partitions) .. "\255\255\255\255" .. int(4, 10000) .. "\0"
  local answer = assert(ask(self, int(4, #body) .. body))
  -- as above
  assert(signed16(answer, 4 + 4 + 4 + 2 + #name + 1) == 0, "the topic did not grow")
end

-- Deletes the records of a partition before an offset.
function broker:delete_records(topic, partition, offset)
  local answer = assert(ask(self, framed(header(DELETE_RECORDS, DELETE_RECORDS_VERSION)
    .. int(4, 1) .. text(topic) .. int(4, 1) .. int(4, partition) .. int(8, offset) .. int(4, 10000))))
  -- correlation id, throttle time, number of topics, name, number of partitions, partition, low watermark, error code
  assert(signed16(answer, 4 + 4 + 4 + 2 + #topic + 4 + 4 + 8 + 1) == 0, "records were not deleted")
end

-- How many partitions of a topic the broker itself knows and leads: the controller, which makes it, tells it a moment
-- later.
function broker:known_partitions(name)
  local answer, why = ask(self, metadata_request(name))
  if not answer then return nil, why end
  -- error code, name, whether it is internal, number of partitions
  local _, at = answer:find("\0\0" .. text(name) .. "\0", 9, true)
  if not at then return 0 end
  local count, led = answer:byte(at + 3) * 256 + answer:byte(at + 4), 0
  at = at + 5
  for _ = 1, count do
    if signed16(answer, at) == 0 then led = led + 1 end
    -- error code, number, leader, replicas, replicas that are in sync
    at = at + 2 + 4 + 4
    for _ = 1, 2 do at = at + 4 + 4 * answer:byte(at + 3) end
  end
  return led
end

local topics = 0

-- A new topic that no other spec uses.
function broker:topic(partitions, configs)
  topics = topics + 1
  local name = ("spec-%d-%d"):format(posix.getpid(), topics)
  local ok, why = self:create_topic(name, partitions, configs)
  assert(ok, why)
  process.wait_until(function() return self:known_partitions(name) == (partitions or 1) end, 30, "topic " .. name)
  return name
end

function broker:log()
  return self.process:stdout() .. self.process:stderr()
end

-- Ends it at once, as a crash would, or in order; `restart` brings it back with its data on the same port.
function broker:kill()
  self.process:signal(posix.SIGKILL)
  self.process:wait(10)
end

function broker:shut_down()
  self.process:stop(30)
end

function broker:restart()
  launch(self, AGAIN)
end

function broker:stop()
  self:kill()
  process.remove(self.directory)
end

return kafka
