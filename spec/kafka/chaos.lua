-- SPDX-License-Identifier: Apache-2.0
-- Producers under load while something is broken, and what became of every record: what was acknowledged is read back
-- from the broker and compared with what each client was told.
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local relay = require "spec.support.relay"

local ffi = require "ffi"
local C = client.C

local chaos = {}

local world = {}
world.__index = world

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "127.0.0.1:%d", socket.timeout.ms: 3000%s }
routes:
- { name: in, paths: [/in], plugins: [{ name: kafka-upstream, config: {
    topic: %s, value: body, key_header: X-Key, timeout: %d } }] }
plugins: [{ name: prometheus }]
]]

-- A broker, a relay in front of it, a gateway of two workers. options: timeout (ms, of the route), message_timeout
-- (ms, of the cluster: how long records may go on; as long as the route's timeout unless told), clients.
function chaos.start(options)
  local self = setmetatable({ options = options, runs = 0, directory = posix.temporary_directory() }, world)
  local relay_port = process.free_port()
  self.broker = broker.start { listeners = { RELAYED = "PLAINTEXT" }, advertised = { RELAYED = relay_port } }
  self.relay = relay.start(self.broker.ports.RELAYED, relay_port)
  self.topic = self.broker:topic(4)
  local more = options.message_timeout and ", message.timeout.ms: " .. options.message_timeout or ""
  self.gateway = gateway.start(CONFIG:format(relay_port, more, self.topic, options.timeout), { workers = 2 })
  return self
end

function world:stop()
  self.gateway:stop()
  self.relay:stop()
  self.broker:stop()
  process.remove(self.directory)
end

-- ---- Load ----

local function start_clients(self)
  self.runs = self.runs + 1
  local run = { stop_file = ("%s/stop-%d"):format(self.directory, self.runs), clients = {} }
  for i = 1, self.options.clients do
    local key, out = ("r%dk%d"):format(self.runs, i), ("%s/out-%d-%d"):format(self.directory, self.runs, i)
    run.clients[i] = { key = key, out = out, process = process.start({ "luajit", "spec/kafka/chaos_client.lua",
      self.gateway.port, "/in", key, run.stop_file, out }) }
  end
  return run
end

-- Until each client has been told that a record arrived: programs take their time to start, and the gateway to find a
-- broker that was away.
local function await_load(run)
  for _, it in ipairs(run.clients) do
    process.wait_until(function() return ("\n" .. process.read_file(it.out)):find("\n%d+ 200 ") end, 60,
      "the first acknowledgement")
  end
end

local function stop_clients(run)
  process.write_file(run.stop_file, "")
  for _, it in ipairs(run.clients) do
    it.process:wait(90)
    it.process:forget()
  end
end

-- Until nothing is queued any more: what may yet arrive has arrived, or been given up.
local function settle(self)
  local since
  process.wait_until(function()
    posix.pause(0.1)
    local text = (http.get(self.gateway.status_port, "/metrics") or { body = "" }).body
    local empty = text:match('\nsluice_kafka_queued_records{cluster="main"} (%d+)') == "0"
    since = empty and (since or posix.now()) or nil
    return since and posix.now() - since > 2.5 -- what workers count is told each second
  end, (self.options.message_timeout or self.options.timeout) / 1000 + 30, "an empty queue")
end

-- ---- What became of it ----

local function ends_of(kafka, topic)
  local reader, position = kafka:open { topic = topic, from = C.KAFKA_LATEST }, ffi.new("struct kafka_position")
  local ends, count, index = {}, 0, 0
  while C.kafka_reader_position(reader, index, position) == C.BRIDGE_OK do
    ends[position.partition] = tonumber(position.offset)
    count = count + ends[position.partition]
    index = index + 1
  end
  C.kafka_reader_free(reader)
  return count
end

-- Every record of the topic: by key the numbers in the order of their offsets, and by place the text.
local function read_all(self)
  local kafka = client.new()
  assert(kafka:cluster("main", { ["bootstrap.servers"] = self.broker.servers }) == 0, kafka:why())
  local left = ends_of(kafka, self.topic)
  local reader, keys, places = kafka:open { topic = self.topic, from = C.KAFKA_EARLIEST }, {}, {}
  for _ = 1, left do
    local record = kafka:record(reader)
    local text = ffi.string(record.value.data, record.value.len)
    local key, number = text:match("^(%S+) (%d+)$")
    keys[key] = keys[key] or {}
    table.insert(keys[key], tonumber(number))
    places[record.partition .. " " .. tonumber(record.offset)] = text
  end
  C.kafka_reader_free(reader)
  kafka:close()
  return keys, places
end

local function count_order(report, numbers)
  local seen, highest = {}, 0
  for _, number in ipairs(numbers or {}) do
    if seen[number] then
      report.twice = report.twice + 1
    elseif number < highest then
      report.out_of_order = report.out_of_order + 1
    end
    seen[number] = true
    highest = math.max(highest, number)
  end
  return seen
end

local function count_answer(report, it, seen, places, number, status, place, code)
  report.sent = report.sent + 1
  if status == 200 then
    report.acknowledged = report.acknowledged + 1
    if not seen[number] then report.lost = report.lost + 1 end
    if places[place] ~= it.key .. " " .. number then report.untrue = report.untrue + 1 end
  elseif status == 0 or (status == 504 and code ~= "expired") then
    report.unknown = report.unknown + 1
  else
    report.refused = report.refused + 1
    report.codes[status .. " " .. code] = (report.codes[status .. " " .. code] or 0) + 1
    if seen[number] then report.untrue = report.untrue + 1 end
  end
end

-- Of all clients of a run: sent; acknowledged (200), refused (an answer says that it was not produced, nor will be),
-- unknown (another 504, or no answer); lost (acknowledged and not in the topic), untrue (acknowledged elsewhere than
-- the answer says, or refused and yet there), twice, out_of_order (behind a later one of its key); codes (of those
-- refused).
local function judge(run, keys, places)
  local report = { sent = 0, acknowledged = 0, refused = 0, unknown = 0, lost = 0, untrue = 0, twice = 0,
    out_of_order = 0, codes = {} }
  for _, it in ipairs(run.clients) do
    local seen = count_order(report, keys[it.key])
    for line in io.lines(it.out) do
      local number, status, partition, offset, code = line:match("^(%d+) (%d+) (%S+) (%S+) (%S+)$")
      count_answer(report, it, seen, places, tonumber(number), tonumber(status), partition .. " " .. offset, code)
    end
  end
  return report
end

-- Load, `disturb(world)` in the middle of it, load again for `seconds`: a run, to be judged.
function world:load(seconds, disturb)
  local run = start_clients(self)
  await_load(run)
  posix.pause(seconds)
  disturb(self)
  posix.pause(seconds)
  stop_clients(run)
  return run
end

-- The reports of these runs, once nothing is under way any more.
function world:judge(runs)
  settle(self)
  local reports, keys, places = {}, read_all(self)
  for i, run in ipairs(runs) do reports[i] = judge(run, keys, places) end
  return reports
end

-- ---- What can go wrong ----

chaos.disturbances = {
  { "broker killed (-9) and started again", function(it)
    it.broker:kill()
    it.broker:restart()
  end },
  { "broker stopped for a while", function(it, seconds)
    it.broker.process:hold()
    posix.pause(seconds)
    it.broker.process:go_on()
  end },
  { "network cut (connections reset)", function(it, seconds)
    it.relay:cut()
    posix.pause(seconds)
    it.relay:mend()
  end },
  { "network silent (nothing comes through)", function(it, seconds)
    it.relay:silence()
    posix.pause(seconds)
    it.relay:go_on()
  end },
  { "workers killed (-9)", function(it)
    for _, pid in ipairs(it.gateway:workers()) do posix.kill(pid, posix.SIGKILL) end
  end },
  { "gateway killed (-9) and started again", function(it)
    it.gateway:kill()
    it.gateway:launch()
    it.gateway:wait_ready()
  end },
}

return chaos
