-- SPDX-License-Identifier: Apache-2.0
-- What only a real broker knows: groups, times, compacted logs; and gateways that end and come back.
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local events = require "spec.kafka.events"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local transactions = require "spec.support.kafka_transactions"
local websocket = require "spec.support.websocket"

-- More than a member's session (45 s): that somebody leaves is told to the broker once, and a busy one may not hear it.
local NEXT_MEMBER_S = 60

local CONFIG = [[
_format_version: "3.0"
gateway: { kafka: { main: { bootstrap.servers: "%s", fetch.wait.max.ms: 20,
  topic.metadata.refresh.interval.ms: 200 } } }
routes:
- { name: events, paths: [/events], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: %s }], mode: server-sent-events } }] }
- { name: poll, paths: [/poll], plugins: [{ name: kafka-consume, config: { topics: [{ name: %s }] } }] }
- { name: kept, paths: [/kept], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: %s }], commit_strategy: "off" } }] }
- { name: late, paths: [/late], plugins: [{ name: kafka-consume, config: { topics: [{ name: %s }],
    enforce_latest_offset_reset: true } }] }
- { name: work, paths: [/work], plugins: [{ name: kafka-consume, config: { topics: [{ name: %s }], mode: websocket,
    consumer_group: { mode: manual, consumer_group_id: "%s-workers" }, websocket: { acknowledge: true } } }] }
- { name: shared, paths: [/shared], plugins: [{ name: kafka-consume, config: { topics: [{ name: %s }], mode: ndjson,
    consumer_group: { mode: manual, consumer_group_id: "%s-shared" } } }] }
- { name: newest, paths: [/newest], plugins: [{ name: kafka-consume, config: { topics: [{ name: %s }], mode: newest,
    key_argument: key } }] }
]]

describe("kafka-consume, at a broker", function()
  local kafka, shared, gw, topic

  setup(function()
    shared = broker.shared()
    kafka = client.new()
    kafka:cluster("main", { ["bootstrap.servers"] = shared.servers })
  end)
  teardown(function() kafka:close() end)

  local function start(options)
    return gateway.start(CONFIG:format(shared.servers, topic, topic, topic, topic, topic, topic, topic, topic, topic),
      options)
  end

  before_each(function() topic = shared:topic(3) end)
  after_each(function()
    if gw then gw:stop() end
    gw = nil
  end)

  local function produce(from, to)
    for i = from, to do
      kafka:send { topic = topic, key = "k" .. i, value = "v" .. i, partition = i % 3, timestamp = 1000 * i }
    end
  end

  local function values(response)
    assert.equal(200, response.status, gw:log())
    local list = {}
    for _, partition in pairs(cjson.decode(response.body)[topic].partitions) do
      for _, record in ipairs(partition.records) do list[#list + 1] = record.value end
    end
    table.sort(list)
    return list
  end

  it("hands out each record of a group once, whatever worker is asked", function()
    gw = start { workers = 2 }
    produce(1, 9)
    local seen = {}
    local function take(count)
      for _ = 1, count do
        for _, value in ipairs(values(gw:get("/poll?limit=2"))) do
          assert.is_nil(seen[value], value)
          seen[value] = true
        end
      end
    end
    take(6)
    produce(10, 12)
    take(3)
    for i = 1, 12 do assert.is_true(seen["v" .. i], "v" .. i) end
    -- What is not committed comes again.
    assert.equal(12, #values(gw:get("/kept")))
    assert.equal(12, #values(gw:get("/kept")))
    -- The group begins at the end, and stays where that was.
    assert.same({}, values(gw:get("/late")))
    produce(13, 14)
    assert.same({ "v13", "v14" }, values(gw:get("/late")))
  end)

  it("has a group's client wait for a record", function()
    gw = start()
    values(gw:get("/poll"))
    local connection = gw:connect { timeout = 20 }
    connection:send("GET /poll?wait=15 HTTP/1.1\r\nHost: x\r\n\r\n")
    posix.pause(0.3)
    produce(1, 1)
    assert.same({ "v1" }, values(assert(connection:read_response("GET"))))
    connection:close()
  end)

  it("finds times, ends and ranges", function()
    gw = start()
    produce(1, 9)
    assert.same({ "v7", "v8", "v9" }, values(gw:get("/poll?since=7000")))
    assert.same({ "v3", "v6" }, values(gw:get("/poll?partition=0&to=1")))
    local response = gw:get("/poll?partition=2&offset=1")
    assert.equal(3, cjson.decode(response.body)[topic].partitions["2"].high_watermark)
    assert.same({ "v5", "v8" }, values(response))
    local place = response.headers.link:match("<([^>]+)>")
    kafka:send { topic = topic, value = "new", partition = 2 }
    assert.same({ "new" }, values(gw:get(place .. "&wait=10")))
  end)

  it("gives a WebSocket's unacknowledged records to the next one of the group", function()
    gw = start()
    produce(1, 6)
    local peer = assert(websocket.connect(gw.port, "/work"))
    local seen, last = {}, {}
    for _ = 1, 6 do
      local _, text
      repeat _, text = assert(peer:receive(20)) until text ~= "" -- a ping
      local record = cjson.decode(text)
      seen[record.value] = true
      last[record.partition] = record.offset
    end
    for i = 1, 6 do assert.is_true(seen["v" .. i]) end
    peer:send(cjson.encode { ack = { { partition = 0, offset = last[0] }, { partition = 1, offset = 0 } } })
    peer:close(1000)
    assert.equal("close", (peer:receive(20))) -- what was told is committed first
    peer:hang_up()
    peer = assert(websocket.connect(gw.port, "/work"))
    seen = {}
    for _ = 1, 3 do
      local _, text
      repeat _, text = assert(peer:receive(NEXT_MEMBER_S)) until text ~= "" -- a ping
      seen[cjson.decode(text).value] = true
    end
    assert.same({ v4 = true, v2 = true, v5 = true }, seen)
    peer:hang_up()
  end)

  it("shares a topic among the streams of a group, and goes on where they ended", function()
    gw = start()
    local function open()
      local stream = gw:connect { timeout = 20 }
      stream:send("GET /shared HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.equal(200, stream:read_head().status)
      return stream
    end
    local stream = open()
    produce(1, 3)
    local text = ""
    while select(2, text:gsub("value", "")) < 3 do text = text .. assert(stream.socket:receive_some(20)) end
    stream:close()
    process.wait_until(function() -- the member has left, and told how far it came
      local _, out = gw:command("status", "--json")
      return cjson.decode(out).worker.kafka[1].consumers == 0
    end, 20, "the member to leave")
    produce(4, 4)
    stream = open()
    text = ""
    while not text:find("\n{", 1, true) or not text:find("}\n", 1, true) do
      text = text .. assert(stream.socket:receive_some(NEXT_MEMBER_S))
    end
    assert.matches('"value":"v4"', text, 1, true)
    assert.is_nil(text:find('"value":"v1"', 1, true))
    stream:close()
  end)

  it("keeps the newest value of each key, and has clients wait for the next", function()
    gw = start()
    for _, value in ipairs { "one", "two" } do kafka:send { topic = topic, key = "a", value = value, partition = 0 } end
    local response = gw:get("/newest?key=a")
    assert.same({ 200, "two" }, { response.status, response.body })
    local connection = gw:connect { timeout = 20 }
    connection:send(("GET /newest?key=a HTTP/1.1\r\nHost: x\r\nIf-None-Match: %s\r\nPrefer: wait=15\r\n\r\n")
      :format(response.headers.etag))
    posix.pause(0.2)
    kafka:send { topic = topic, key = "a", value = "three", partition = 0 }
    assert.equal("three", assert(connection:read_response("GET")).body)
    connection:close()
  end)

  it("has many clients go on behind what they had when a gateway was killed, without a gap or a duplicate", function()
    gw = start()
    local streams, had, ids = {}, {}, {}
    for i = 1, 40 do streams[i], had[i] = assert(events.open(gw.port, "/events")), {} end
    local function read(i, count)
      for _ = 1, count do
        local event = assert(streams[i]:next(20))
        assert.is_nil(had[i][event.data], event.data)
        had[i][event.data], ids[i] = true, event.id
      end
    end
    produce(1, 9)
    for i = 1, 40 do read(i, i % 9 + 1) end -- each has read as far as it got
    gw.process:signal(posix.SIGKILL)
    gw.process:wait(5)
    produce(10, 15)
    gw:stop()
    gw = start()
    for i = 1, 40 do
      streams[i]:close()
      streams[i] = assert(events.open(gw.port, "/events", { ["Last-Event-ID"] = ids[i] }))
    end
    produce(16, 18)
    for i = 1, 40 do
      read(i, 18 - (i % 9 + 1))
      for n = 1, 18 do assert.is_true(had[i]["v" .. n], n) end
      streams[i]:close()
    end
  end)

  it("ends its streams when the topic gets a partition: clients come back, and miss nothing of it", function()
    gw = start()
    local stream = assert(events.open(gw.port, "/events"))
    produce(1, 1)
    local id = assert(stream:next(20)).id
    shared:grow_topic(topic, 4)
    local _, why = stream:next(20)
    assert.equal("end", why)
    stream:close()
    local producer = client.new() -- the other one has not heard of the partition
    producer:cluster("main", { ["bootstrap.servers"] = shared.servers })
    producer:send { topic = topic, value = "of the new one", partition = 3 }
    producer:close()
    stream = assert(events.open(gw.port, "/events", { ["Last-Event-ID"] = id }))
    local event = assert(stream:next(20))
    assert.same({ "of the new one", "3/0,0/-1,1/0,2/-1" }, { event.data, event.id })
    stream:close()
  end)

  it("says that a topic was made anew, and shows nothing of the old one any more", function()
    gw = start()
    local stream = assert(events.open(gw.port, "/events"))
    produce(1, 9)
    for _ = 1, 9 do assert(stream:next(20)) end
    shared:delete_topic(topic)
    process.wait_until(function() return shared:create_topic(topic, 3) end, 20, "the topic")
    process.wait_until(function()
      return pcall(kafka.send, kafka, { topic = topic, value = "new", partition = 1 })
    end, 20, "the new topic")
    assert.equal("gap", assert(stream:next(20)).event)
    local event = assert(stream:next(20))
    while event.event == "gap" do event = assert(stream:next(20)) end
    assert.equal("new", event.data)
    assert.same({ "new" }, values(gw:get("/poll?partition=1&offset=0")))
    stream:close()
  end)

  it("tells what transactions have committed, and knows the end behind their marks", function()
    gw = start()
    assert.same({}, values(gw:get("/poll?partition=0&offset=0"))) -- from now on the topic is read
    transactions.write(shared.servers, topic, 0, { "one", "two" }, "commit")
    transactions.write(shared.servers, topic, 0, { "never" }, "abort")
    -- Not at once, for the broker writes the marks behind the producer's back; without waiting for a record at the end,
    -- which each answer would do for ten seconds.
    local response
    process.wait_until(function()
      local began = posix.now()
      response = gw:get("/poll?partition=0&offset=0")
      return response.headers.link:find("offset=5", 1, true) and posix.now() - began < 9
    end, 30, function() return "the end: " .. response.headers.link .. " " .. response.body end)
    assert.same({ "one", "two" }, values(response))
  end)
end)
