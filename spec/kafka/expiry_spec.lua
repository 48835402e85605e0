-- SPDX-License-Identifier: Apache-2.0
-- What was not sent within a route's timeout is never sent: a broker that stands still and then goes on.
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"

local C = client.C

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s", max.in.flight.requests.per.connection: 1, batch.num.messages: 10 }
routes:
- { name: lines, paths: [/lines], plugins: [{ name: kafka-upstream, config: {
    topic: %s, value: body, batch: lines, timeout: 5000 } }] }
- { name: other, paths: [/other], plugins: [{ name: kafka-upstream, config: {
    topic: %s, value: body, timeout: 20000 } }] }
- { name: later, paths: [/later], plugins: [{ name: kafka-upstream, config: {
    topic: %s, value: body, wait: false } }] }
]]

local COUNT = 60

describe("records that a broker had no time for", function()
  local own, gw, kafka, topic

  setup(function()
    -- It stands still for seconds, and is not to have lost its place with the controller, itself, when it goes on.
    own = broker.start { properties = "broker.session.timeout.ms=60000\n" }
    topic = own:topic()
    gw = gateway.start(CONFIG:format(own.servers, topic, topic, topic))
    kafka = client.new()
    assert(kafka:cluster("main", { ["bootstrap.servers"] = own.servers }) == 0, kafka:why())
  end)

  teardown(function()
    if gw then gw:stop() end
    if kafka then kafka:close() end
    if own then own:stop() end
  end)

  local function queued()
    local _, out = gw:command("status", "--json")
    local clusters = cjson.decode(out).worker.kafka
    assert.equal(1, #clusters)
    return clusters[1].queued
  end

  -- Answers to records of one stream, by their value.
  local function stream(prefix)
    local texts, told = {}, {}
    for i = 1, COUNT do texts[i] = prefix .. i end
    local response = gw:request { method = "POST", path = "/lines", body = table.concat(texts, "\n") .. "\n" }
    for line in response.body:gmatch("[^\n]+") do
      local entry = cjson.decode(line)
      if entry.line then told[prefix .. entry.line] = entry end
    end
    return told
  end

  it("do not come when it goes on, and their answers say so; those in flight may", function()
    assert.equal(200, gw:request({ path = "/other", body = "first" }).status)
    local tries = 0
    process.wait_until(function() -- a client of that timeout that has come to know the broker, which may take longer
      tries = tries + 1
      for _, entry in pairs(stream("warm " .. tries .. " ")) do
        if entry.error then return nil, entry.error end
      end
      return true
    end, 60)
    for _, entry in pairs(stream("before ")) do assert.is_nil(entry.error) end
    own.process:hold()
    local later = gw:request { path = "/later", body = "nobody waits" }
    assert.equal(202, later.status)
    local told, unsure = stream("stopped "), 0
    for _, entry in pairs(told) do
      assert.equal(504, entry.status)
      assert.is_truthy(entry.code == "expired" or entry.code == "timeout", entry.code)
      if entry.code == "expired" then assert.matches("will not be", entry.error, 1, true) else unsure = unsure + 1 end
    end
    process.wait_until(function() return queued() == 1 end, 20, "the end of what was queued")
    own.process:go_on()
    process.wait_until(function() return queued() == 0 end, 30, "the record of nobody")
    for _, entry in pairs(stream("after ")) do assert.is_nil(entry.error) end
    assert.equal(200, gw:request({ path = "/other", body = "last" }).status)

    local reader, seen, came = kafka:open { topic = topic, from = C.KAFKA_EARLIEST }, {}, 0
    local value
    repeat
      value = kafka:read(reader)
      assert.is_nil(seen[value], value)
      seen[value] = true
      if told[value] then
        came = came + 1
        assert.not_equal("expired", told[value].code, value)
      end
    until value == "last"
    C.kafka_reader_free(reader)
    assert.is_true(seen["nobody waits"])
    assert.is_true(came <= 10, came .. " records of " .. unsure) -- one request of ten records was in flight
    for i = 1, COUNT do assert.is_true(seen["before " .. i] and seen["after " .. i]) end
  end)
end)

describe("a client of librdkafka for each timeout of routes", function()
  local EMBEDDED = [[
_format_version: "3.0"
gateway: { kafka: { main: { embedded: true } } }
routes:
- { name: a, paths: [/a], plugins: [{ name: kafka-upstream, config: { topic: t, value: body, timeout: %d } }] }
- { name: b, paths: [/b], plugins: [{ name: kafka-upstream, config: { topic: t, value: body, timeout: %d } }] }
]]
  local gw

  after_each(function()
    if gw then gw:stop() end
    gw = nil
  end)

  local function clients()
    local count = 0
    for name in io.popen("cat /proc/" .. gw:workers()[1] .. "/task/*/comm"):lines() do
      if name == "rdk:main" then count = count + 1 end
    end
    return count
  end

  local function produce(path)
    local response = gw:request { path = path, body = "v" }
    assert.equal(200, response.status, response.body)
  end

  local function generation()
    local _, out = gw:command("status", "--json")
    return cjson.decode(out).workers[1].generation
  end

  local function reload(a, b)
    local before = generation()
    gw:write_config(EMBEDDED:format(a, b))
    process.wait_until(function() return generation() ~= before end, 10, "a new generation")
  end

  it("is shared by those of the same one, kept over reloads, and let go of when no route has it any more", function()
    gw = gateway.start(EMBEDDED:format(20000, 20000))
    produce "/a"
    local least = clients()
    produce "/b"
    assert.equal(least, clients())
    reload(20000, 30000)
    produce "/a"
    assert.equal(least, clients())
    produce "/b"
    assert.equal(least + 1, clients())
    reload(30000, 30000)
    reload(30000, 30001)
    produce "/a"
    process.wait_until(function() return clients() == least end, 10, "the end of the client of 20 s")
  end)
end)
