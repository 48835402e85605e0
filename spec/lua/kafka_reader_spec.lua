-- SPDX-License-Identifier: Apache-2.0
-- kafka.reader and kafka.offsets over topics in memory: places to begin and to end, several topics.
local spec = require "sluice.spec"

-- A plugin that runs the Lua code that a request brings, and answers with what it returned. `kept` lasts.
local RUNS = [[
local kept = {}
return { version = "1", priority = 1, access = function(_, exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  exchange.response:exit(200, { said = chunk(require("sluice").kafka, kept) })
end }
]]

describe("kafka.reader", function()
  local gateway

  before_each(function()
    gateway = spec.gateway { topics = { a = 2, b = 2 }, plugins = { { name = "runs" } },
      plugins_code = { runs = RUNS } }
    for i = 1, 6 do
      gateway:produce("a", { value = "a" .. i, partition = (i - 1) % 2, timestamp = i * 1000 }) -- 0: a1 a3 a5
      gateway:produce("b", { value = "b" .. i, partition = (i - 1) % 2, timestamp = i * 1000 })
    end
  end)

  local function body(code)
    return [[
      local kafka, kept = ...
      local function all(options, seconds)
        local reader, said = assert(kafka.reader(options)), {}
        while true do
          local record, err = reader:next(seconds or 0)
          said[#said + 1] = record and record.value or err
          if not record then break end
        end
        reader:close()
        return said
      end
    ]] .. code
  end

  local function run(code)
    local response = gateway:post("/", body(code))
    assert.equal(200, response.status, gateway:log())
    return response.json.said
  end

  it("reads several topics in one, each record with its topic", function()
    local said = run [[
      local reader, said = kafka.reader { topics = { "a", "b" }, from = "earliest" }, {}
      for i = 1, 12 do
        local record = reader:next(0)
        said[i] = record.topic .. record.partition
        assert(record.value:sub(1, 1) == record.topic)
      end
      said[13] = select(2, reader:next(0))
      return { said, { reader:positions().a[0], reader:positions().b[1] } }
    ]]
    assert.equal("timeout", table.remove(said[1]))
    table.sort(said[1])
    assert.same({ "a0", "a0", "a0", "a1", "a1", "a1", "b0", "b0", "b0", "b1", "b1", "b1" }, said[1])
    assert.same({ 3, 3 }, said[2])
  end)

  it("wakes for any of its topics, and ends for whoever waits when it is closed", function()
    run [[kept.reader = kafka.reader { topics = { "a", "b" } }]]
    for _, topic in ipairs { "b", "a" } do
      local waiting = gateway:send { method = "POST", path = "/",
        body = body "local record = kept.reader:next(10) return record.value" }
      gateway:settle()
      gateway:produce(topic, { value = "to " .. topic })
      assert.equal("to " .. topic, waiting:receive().json.said)
    end
    local waiting = gateway:send { method = "POST", path = "/", body = body "return (select(2, kept.reader:next(10)))" }
    gateway:settle()
    run [[kept.reader:close()]]
    assert.equal("closed", waiting:receive().json.said)
    assert.equal("closed", run [[return (select(2, kept.reader:next(0)))]])
  end)

  it("waits as long as it was told", function()
    run [[kept.reader = kafka.reader { topics = { "a", "b" } }]]
    local waiting = gateway:send { method = "POST", path = "/", body = body "return (select(2, kept.reader:next(10)))" }
    gateway:settle()
    gateway:advance(9.9)
    assert.is_nil(waiting:received())
    gateway:advance(0.2)
    assert.equal("timeout", waiting:receive().json.said)
  end)

  it("begins at a time, in each partition at the first record that is not older", function()
    assert.same({ "a3", "a4", "a5", "a6", "timeout" }, run [[
      return all { topic = "a", from = { timestamp = 2500 } }
    ]])
    assert.same({ "timeout" }, run [[return all { topic = "a", from = { timestamp = 7000 } }]])
  end)

  it("ends at what was there, at a time, or at offsets", function()
    assert.same({ "a1", "a2", "a3", "a4", "a5", "a6", "end" }, run [[
      return all { topic = "a", from = "earliest", to = "latest" }
    ]])
    assert.same({ "a1", "a2", "end" }, run [[
      return all { topic = "a", from = "earliest", to = { timestamp = 3000 } }
    ]])
    assert.same({ "a1", "a2", "a3", "end" }, run [[
      return all { topic = "a", from = "earliest", to = { [0] = 2, [1] = 1 } }
    ]])
    assert.same({ "end" }, run [[return all { topic = "a", from = { [0] = 2, [1] = 2 }, to = { [0] = 2, [1] = 1 } }]])
  end)

  it("does not give what comes while it reads up to what was there", function()
    run [[kept.reader = kafka.reader { topic = "a", from = { [0] = 2, [1] = 3 }, to = "latest" }]]
    gateway:produce("a", { value = "later", partition = 0 })
    assert.same({ "a5", "end", "end" }, run [[
      local reader = kept.reader
      return { reader:next(1).value, (select(2, reader:next(1))), (select(2, reader:next(1))) }
    ]])
  end)

  it("waits for an end that is still to come", function()
    local waiting = gateway:send { method = "POST", path = "/",
      body = body [[return all({ topic = "a", partitions = { 0 }, from = { [0] = 2 }, to = { [0] = 5 } }, 10)]] }
    gateway:settle()
    gateway:produce("a", { value = "other", partition = 1 })
    for i = 4, 7 do gateway:produce("a", { value = "later" .. i, partition = 0 }) end
    assert.same({ "a5", "later4", "later5", "end" }, waiting:receive().json.said)
  end)

  it("reads only the partitions that are wanted", function()
    assert.same({ "a2", "a4", "a6", "timeout" }, run [[
      return all { topic = "a", from = "earliest", partitions = { 1 } }
    ]])
    assert.same({ "a4", "end" }, run [[
      return all { topic = "a", partitions = { 1 }, from = { [1] = 1 }, to = { [1] = 2 } }
    ]])
    assert.same({ "nil", "1" }, run [[
      local positions = kafka.reader { topic = "a", from = { [1] = 1 }, partitions = { 1 } }:positions()
      return { tostring(positions[0]), tostring(positions[1]) }
    ]])
  end)

  it("takes places by topic", function()
    assert.same({ "a6", "b2", "b3", "end" }, run [[
      local said = all { topics = { "a", "b" }, from = { a = { [0] = 3, [1] = 2 }, b = { [0] = 1, [1] = 0 } },
        to = { a = { [0] = 3, [1] = 3 }, b = { [0] = 2, [1] = 1 } } }
      table.remove(said)
      table.sort(said)
      said[#said + 1] = "end"
      return said
    ]])
  end)

  it("says what is wrong with its arguments", function()
    local said = run [[
      local said = {}
      for i, options in ipairs { {}, { topic = "a", from = "middle" }, { topic = "a", from = { x = 1 } } } do
        said[i] = select(2, pcall(kafka.reader, options))
      end
      return said
    ]]
    assert.matches("topic", said[1])
    assert.matches("no such start: middle", said[2])
    assert.matches("positions must be", said[3])
  end)
end)

describe("kafka.offsets", function()
  it("tells where partitions begin, end, and stood at a time", function()
    local gateway = spec.gateway { topics = { a = 2 }, plugins = { { name = "runs" } }, plugins_code = { runs = RUNS } }
    for i = 1, 3 do gateway:produce("a", { value = "x", partition = 0, timestamp = i * 1000 }) end
    assert.same({ { 0, 0 }, { 3, 0 }, { 1, 0 }, { 3, 0 } }, gateway:post("/", [[
      local kafka, said = ..., {}
      for i, at in ipairs { "earliest", "latest", 1500, 9000 } do
        local offsets = kafka.offsets { topic = "a", at = at }
        said[i] = { offsets[0], offsets[1] }
      end
      return said
    ]]).json.said)
  end)
end)
