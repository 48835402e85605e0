-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local cjson = require "cjson"
local client = require "spec.kafka.client"
local events = require "spec.kafka.events"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = client.C

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s", fetch.wait.max.ms: 20 }
    away: { bootstrap.servers: "127.0.0.1:1" }
routes:
- { name: live, paths: [/live], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: events }], mode: server-sent-events, heartbeat: 100 } }] }
- { name: all, paths: [/all], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: first }], mode: server-sent-events, auto_offset_reset: earliest } }] }
- { name: whole, paths: [/whole], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: whole }], event: record, message_deserializer: json, auto_offset_reset: earliest } }] }
- { name: changed, paths: [/changed], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: changed }], mode: server-sent-events, auto_offset_reset: earliest, message_by_lua_functions: [
      "return function(message) if message.value ~= 'secret' then return message end end",
      "return function(message) message.value = message.value:upper() return message end"] } }] }
- { name: missing, paths: [/missing], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: nobody-made-this }], mode: server-sent-events } }] }
]]

describe("kafka-consume", function()
  local mock, kafka, gw

  setup(function()
    kafka = client.new()
    mock = C.kafka_mock_new(1, kafka.error)
    for topic, partitions in pairs { events = 3, first = 3, whole = 1, changed = 1 } do
      C.kafka_mock_topic(mock, topic, partitions)
    end
    local servers = ffi.string(C.kafka_mock_servers(mock))
    kafka:cluster("main", { ["bootstrap.servers"] = servers })
    gw = gateway.start(CONFIG:format(servers), { workers = 2 })
  end)

  teardown(function()
    gw:stop()
    kafka:close()
    C.kafka_mock_free(mock)
  end)

  local function open(path, headers)
    local stream, response = events.open(gw.port, path, headers)
    assert(stream, response and response.body)
    return stream
  end

  it("sends each record as an event at once, to every client, in order", function()
    local one, two = open("/live"), open("/live")
    for i = 1, 20 do kafka:send { topic = "events", value = "v" .. i, partition = 1 } end
    for _, stream in ipairs { one, two } do
      local event
      repeat event = assert(stream:next()) until event.data:find("^v%d") -- a worker may hear late of those before
      for i = 1, 20 do
        assert.equal("v" .. i, event.data)
        if i < 20 then event = assert(stream:next()) end
      end
      stream:close()
    end
  end)

  it("keeps proxies from storing and buffering the stream", function()
    local stream = open("/live")
    assert.equal("no-store", stream.head.headers["cache-control"])
    assert.equal("no", stream.head.headers["x-accel-buffering"])
    stream:close()
  end)

  it("names partition and offset in the id, and the last of each other partition", function()
    local stream = open("/live")
    local _, offset = kafka:send { topic = "events", value = "a", partition = 2 }
    local event
    repeat event = assert(stream:next()) until event.data == "a"
    assert.equal("2/" .. offset, event.id:match("^[^,]+"))
    local count = select(2, event.id:gsub("%d/", ""))
    assert.equal(3, count)
    stream:close()
  end)

  it("goes on behind Last-Event-ID, in all partitions, with no gap and no duplicate", function()
    local stream = open("/live")
    local last
    -- What was produced just before may still be on its way to a consumer that was there already.
    local function next_seen()
      local event
      repeat event = assert(stream:next()) until event.data:find("^seen")
      return event
    end
    for i = 1, 9 do kafka:send { topic = "events", value = "seen" .. i, partition = i % 3 } end
    for _ = 1, 5 do last = next_seen() end
    local missed = {}
    for _ = 6, 9 do missed[next_seen().data] = true end
    stream:close()
    for i = 1, 6 do
      kafka:send { topic = "events", value = "away" .. i, partition = i % 3 }
      missed["away" .. i] = true
    end
    local again = open("/live", { ["Last-Event-ID"] = last.id })
    for _ = 1, 10 do
      local event = assert(again:next())
      assert.is_true(missed[event.data], event.data)
      missed[event.data] = nil
    end
    kafka:send { topic = "events", value = "live again", partition = 0 }
    assert.equal("live again", assert(again:next()).data)
    again:close()
  end)

  it("begins with the earliest record when it is told to", function()
    for i = 0, 2 do kafka:send { topic = "first", value = "early", partition = i } end
    local stream, seen = open("/all"), 0
    local first = {}
    while seen < 3 do
      local partition, offset = assert(stream:next()).id:match("^(%d+)/(%d+)")
      if not first[partition] then
        first[partition], seen = offset, seen + 1
        assert.equal("0", offset)
      end
    end
    stream:close()
  end)

  it("breaks values with line ends into lines of data", function()
    local stream = open("/live")
    kafka:send { topic = "events", value = "one\ntwo\r\nthree\rfour" }
    local event
    repeat event = assert(stream:next()) until event.data:find("^one")
    assert.equal("one\ntwo\nthree\nfour", event.data)
    stream:close()
  end)

  it("sends whole records as JSON, when Accept asks for events", function()
    kafka:send { topic = "whole", key = "k", value = '{"n":[1,2]}', headers = { "h", "1" }, timestamp = 1700000000123 }
    kafka:send { topic = "whole", value = "no json" }
    kafka:send { topic = "whole", key = "gone" }
    local stream = open("/whole", { Accept = "text/event-stream" })
    local record = cjson.decode(assert(stream:next()).data)
    assert.same({
      topic = "whole", partition = 0, offset = 0, timestamp = 1700000000123, key = "k", value = { n = { 1, 2 } },
      headers = { { name = "h", value = "1" } },
    }, record)
    assert.equal("no json", cjson.decode(assert(stream:next()).data).value)
    assert.equal(cjson.null, cjson.decode(assert(stream:next()).data).value)
    stream:close()
  end)

  it("lets functions of the configuration change and drop records", function()
    for _, value in ipairs { "one", "secret", "two" } do kafka:send { topic = "changed", value = value } end
    local stream = open("/changed")
    assert.equal("ONE", assert(stream:next()).data)
    assert.equal("TWO", assert(stream:next()).data)
    stream:close()
  end)

  it("sends comments while there are no records", function()
    local stream = open("/live")
    process.wait_until(function()
      local event, why = stream:next(0.1) -- one that was sent before may come late to this worker
      assert(event or why == "timeout", why)
      return stream.comments >= 3
    end, 20, "three comments")
    stream:close()
  end)

  it("stops reading the topic when its clients have left", function()
    kafka:send { topic = "first", value = "read", partition = 0 }
    local stream = open("/all")
    assert(stream:next())
    stream:close()
    process.wait_until(function()
      local _, out = gw:command("status", "--json")
      local state = cjson.decode(out)
      return state.worker.kafka[1].readers == 0 and state.worker.kafka[2].readers == 0
    end, 20, "readers to end")
  end)

  it("ends its streams when the gateway drains, for the clients to go on elsewhere", function()
    local other = gateway.start(CONFIG:format(ffi.string(C.kafka_mock_servers(mock))))
    local stream = assert(events.open(other.port, "/live"))
    other.process:signal(posix.SIGTERM)
    assert.same({ nil, "end" }, { stream:next(20) })
    stream:close()
    assert.equal(0, other:stop())
  end)

  it("refuses an id that is not its own", function()
    for _, id in ipairs { "x", "1", "0/", "0/1,", "-1/2", "0/-2", "1e3/0", "99999999999/0" } do
      local stream, response = events.open(gw.port, "/live", { ["Last-Event-ID"] = id })
      assert.is_nil(stream)
      assert.equal(400, response.status, id)
    end
  end)

  it("answers HEAD with the head of the stream, and ends", function()
    local connection = gw:connect()
    local response = assert(connection:request { method = "HEAD", path = "/live" })
    assert.same({ 200, "text/event-stream" }, { response.status, response.headers["content-type"] })
    assert.equal(405, connection:request({ method = "POST", path = "/whole" }).status) -- the connection goes on
    connection:close()
  end)
end)
