-- SPDX-License-Identifier: Apache-2.0
-- kafka-sink with a real broker, while one after the other of those around it is killed: every record arrives, those of
-- a key in their order, and twice only where that is said.
local ffi = require "ffi"
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local http = require "spec.support.http"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s", fetch.wait.max.ms: 20, reconnect.backoff.max.ms: 200, session.timeout.ms: %d,
      heartbeat.interval.ms: 200, message.timeout.ms: 200000 }
services:
- name: billing
  url: http://127.0.0.1:%d
  retries: 0
  plugins:
  - name: kafka-sink
    config: { topics: [%s], group: %s, headers: { X-Log: "%s" }, commit_interval: 100, backoff_initial: 50,
      backoff_max: 500, dead_letter_topic: %s-dead, max_tries: 5 }
]]

-- Requests over a topic and back, for the one spec that kills a broker. Whatever time that takes to come back, a minute
-- of a busy machine, the first is patient enough.
local ASK = [[
routes:
- { name: ask, paths: [/ask], plugins: [{ name: kafka-request-reply, config: {
    topic: %s, reply_topic: %s, timeout: 200000 } }] }
- { name: hasty, paths: [/hasty], plugins: [{ name: kafka-request-reply, config: {
    topic: %s, reply_topic: %s, timeout: 1500 } }] }
]]

local KEYS = 12

describe("records on their way to a service", function()
  local kafka, topic, log, up, gateways, servers
  -- Ms until the broker takes a member for dead: long where none is, so that a stop of the machine kills none.
  local LIVES, DIES = 30000, 2000

  -- Notes what came, takes its time, and takes no "poison". While there is a gate beside the log, it
  -- takes a hundred and no more, whichever come first: what happens then happens in the middle.
  local function launch_service(port)
    up = upstream.start(function(request, connection)
      local headers = request.headers
      local body = connection:read_body()
      local state = require "spec.support.posix" -- of that process, whose handler has no upvalues
      local gate = (state.taken or 0) >= 100 and io.open(headers["x-log"] .. ".gate")
      while gate do
        gate:close()
        connection:sleep(0.01)
        gate = io.open(headers["x-log"] .. ".gate")
      end
      state.taken = (state.taken or 0) + 1
      local file = io.open(headers["x-log"], "a")
      file:write(headers["kafka-key"], " ", headers["kafka-partition"], " ", headers["kafka-offset"], " ", body, "\n")
      file:close()
      state.pause(0.003)
      connection:respond(body == "poison" and 422 or 200, {}, "")
    end, { port = port })
  end

  local function start_gateway(workers, session_ms, more)
    local config = CONFIG:format(servers, session_ms, up.port, topic, topic, log, topic) .. (more or "")
    local gw = gateway.start(config, { workers = workers or 1 })
    gateways[#gateways + 1] = gw
    return gw
  end

  local function begin(its_broker)
    servers, topic, gateways = its_broker.servers, its_broker:topic(3), {}
    its_broker:create_topic(topic .. "-dead", 1)
    log = posix.temporary_directory() .. "/log"
    kafka = client.new()
    assert(kafka:cluster("main", { ["bootstrap.servers"] = servers, ["reconnect.backoff.max.ms"] = "200" }) == 0)
    launch_service()
  end

  local function close()
    for _, gw in ipairs(gateways) do gw:stop() end
    up:stop()
    kafka:close()
    process.remove(log:match("^(.*)/"))
  end

  -- So many records, in turns of the keys; each value is its number.
  local function produce(from, to)
    local waiting = {}
    for i = from, to do
      waiting[#waiting + 1] = select(2, kafka:produce { topic = topic, key = "k" .. i % KEYS, value = tostring(i) })
    end
    for _, delivery in ipairs(waiting) do
      kafka:await("an acknowledgement", function() return delivery.done end)
      assert.equal(client.C.BRIDGE_OK, delivery.result.status)
    end
  end

  -- Requests in the order of their coming: { key, number }.
  local function seen()
    local file, list = io.open(log), {}
    for line in file and file:lines() or function() end do
      local key, number = line:match("^(%S+) %d+ %d+ (%d+)$")
      if key then list[#list + 1] = { key, tonumber(number) } end
    end
    if file then file:close() end
    return list
  end

  local function distinct(list)
    local known, count = {}, 0
    for _, one in ipairs(list) do
      if not known[one[2]] then known[one[2]], count = true, count + 1 end
    end
    return count
  end

  local function await(count, seconds)
    process.wait_until(function() return distinct(seen()) >= count end, seconds or 60, function()
      return count .. " records; there are " .. distinct(seen()) .. ": " .. gateways[#gateways]:log()
    end)
  end

  -- Until the service takes no more.
  local function await_gate()
    process.wait_until(function() return #seen() >= 100 end, 30, function()
      return "a hundred records; there are " .. #seen() .. ": " .. gateways[#gateways]:log()
    end)
  end

  -- The numbers of a key never skip one: each comes behind those before it, or again.
  local function assert_in_order(list)
    local last = {}
    for _, one in ipairs(list) do
      local key, number = one[1], one[2]
      if not last[key] then
        assert.is_true(number <= KEYS, key .. " begins with " .. number)
        last[key] = number
      else
        assert.is_true(number <= last[key] + KEYS, ("%s: %d behind %d"):format(key, number, last[key]))
        last[key] = math.max(last[key], number)
      end
    end
  end

  describe("through a broker that stays", function()
    before_each(function() begin(broker.shared()) end)
    after_each(close)

    it("arrive once and in order, shared by the workers of two gateways", function()
      start_gateway(2, LIVES)
      produce(1, 150)
      start_gateway(1, LIVES) -- the group shares anew while they are on their way
      produce(151, 300)
      await(300)
      local list = seen()
      assert.equal(300, #list)
      assert_in_order(list)
    end)

    it("arrive once although the gateway is asked to end in the middle", function()
      process.write_file(log .. ".gate", "")
      local gw = start_gateway(2, LIVES)
      produce(1, 360)
      await_gate()
      gw.process:signal(posix.SIGTERM)
      gw:wait_log("draining", 20)
      os.remove(log .. ".gate")
      gw.process:wait(20)
      assert.equal(0, gw:stop())
      gateways = {}
      local before = #seen()
      assert.is_true(before < 360, "it was not in the middle")
      start_gateway(2, LIVES)
      await(360)
      assert.equal(360, #seen())
      assert_in_order(seen())
    end)

    it("all arrive although the gateway is killed, twice at most what had not been committed", function()
      process.write_file(log .. ".gate", "")
      local gw = start_gateway(2, DIES)
      produce(1, 360)
      await_gate()
      gw.process:signal(posix.SIGKILL)
      gw.process:wait(10)
      gw.process:forget()
      gateways = {}
      os.remove(log .. ".gate")
      start_gateway(2, DIES)
      await(360)
      local list = seen()
      assert_in_order(list)
      assert.is_true(#list < 600, "sent again: " .. #list - 360)
    end)

    it("all arrive although a worker is killed: the other one takes over", function()
      process.write_file(log .. ".gate", "")
      local gw = start_gateway(2, DIES)
      produce(1, 360)
      await_gate()
      posix.kill(gw:workers()[1], posix.SIGKILL)
      os.remove(log .. ".gate")
      await(360)
      assert_in_order(seen())
    end)

    it("all arrive although the service is killed, none becomes a dead letter", function()
      process.write_file(log .. ".gate", "")
      local gw, port = start_gateway(2, LIVES), up.port
      produce(1, 300)
      await_gate()
      up:kill()
      gw:wait_log("the service is away", 20)
      os.remove(log .. ".gate")
      posix.pause(0.3)
      launch_service(port)
      await(300)
      assert_in_order(seen())
      local reader = kafka:open { topic = topic .. "-dead", from = client.C.KAFKA_EARLIEST }
      kafka:produce { topic = topic .. "-dead", value = "the first" }
      assert.equal("the first", kafka:read(reader))
      client.C.kafka_reader_free(reader)
    end)

    it("become dead letters one by one, and the rest goes on", function()
      start_gateway(1, LIVES)
      produce(1, 24)
      kafka:send { topic = topic, key = "k1", value = "poison" }
      produce(25, 48)
      await(48)
      local reader = kafka:open { topic = topic .. "-dead", from = client.C.KAFKA_EARLIEST }
      assert.equal("poison", kafka:read(reader))
      client.C.kafka_reader_free(reader)
    end)

    it("are counted, and what is left of them is known", function()
      local gw = start_gateway(1, LIVES)
      produce(1, 30)
      await(30)
      local line = "sluice_kafka_sink_records_total{group=\"" .. topic
        .. "\",service=\"billing\",outcome=\"delivered\"} 30"
      process.wait_until(function() return http.get(gw.status_port, "/metrics").body:find(line, 1, true) end, 20, line)
      process.wait_until(function()
        local text = http.get(gw.status_port, "/metrics").body
        return select(2, text:gsub('sluice_kafka_sink_lag{group="' .. topic:gsub("%-", "%%-") .. '"[^\n]* 0\n', "")) > 0
      end, 20, "the lag")
      local _, out = gw:command("status", "--json")
      assert.equal(1, cjson.decode(out).worker.kafka[1].consumers)
    end)
  end)

  local function ask(gw, body, path)
    local connection = gw:connect { timeout = 220 }
    connection:send((http.format({ method = "POST", path = path or "/ask", body = body }, "gw")))
    return connection
  end

  local function answer_of(connection)
    local response = assert(connection:read_response("POST", 220))
    connection:close()
    return response
  end

  -- The correlation id of the next request over the topic with that value.
  local function id_of(reader, value)
    while true do
      local record = kafka:record(reader)
      local is_it = ffi.string(record.value.data, record.value.len) == value
      for i = 0, is_it and tonumber(record.header_count) - 1 or -1 do
        local name, text = record.headers[2 * i], record.headers[2 * i + 1]
        if ffi.string(name.data, name.len) == "correlation-id" then return ffi.string(text.data, text.len) end
      end
    end
  end

  it("all arrive although the broker is killed and comes back; requests over topics are answered", function()
    local own = broker.start()
    begin(own)
    local requests, replies = own:topic(1), own:topic(1)
    local gw = start_gateway(2, LIVES, ASK:format(requests, replies, requests, replies))
    local reader = kafka:open { topic = requests, from = client.C.KAFKA_EARLIEST }
    local before = ask(gw, "before")
    local ids = { id_of(reader, "before") }
    produce(1, 400)
    await(50)
    own:kill()
    local during = ask(gw, "during")
    assert.equal(504, answer_of(ask(gw, "given up", "/hasty")).status)
    own:restart()
    ids[2] = id_of(reader, "during")
    for i, value in ipairs { "for before", "for during" } do
      kafka:send { topic = replies, value = value, headers = { "correlation-id", ids[i] } }
    end
    assert.equal("for before", answer_of(before).body)
    assert.equal("for during", answer_of(during).body)
    produce(401, 500)
    await(500)
    assert_in_order(seen())
    client.C.kafka_reader_free(reader)
    close()
    own:stop()
  end)
end)
