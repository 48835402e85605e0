-- SPDX-License-Identifier: Apache-2.0
-- kafka.group over topics in memory: shares, commits, rebalances.
local spec = require "sluice.spec"

-- A plugin that runs the Lua code that a request brings, and answers with what it returned. `kept` lasts.
local RUNS = [[
local kept = {}
return { version = "1", priority = 1, access = function(_, exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  exchange.response:exit(200, { said = chunk(require("sluice").kafka, kept) })
end }
]]

describe("kafka.group", function()
  local gateway

  before_each(function()
    gateway = spec.gateway { topics = { orders = 4, bills = 1, refused = { fails = "GROUP_AUTHORIZATION_FAILED" } },
      plugins = { { name = "runs" } }, plugins_code = { runs = RUNS } }
  end)

  local function run(code)
    local response = gateway:post("/", "local kafka, kept = ...\n" .. code)
    assert.equal(200, response.status, gateway:log())
    return response.json.said
  end

  local function produce(topic, count)
    for i = 1, count do gateway:produce(topic, { value = topic .. i, partition = (i - 1) % 4 }) end
  end

  it("gives the records of several topics and goes on behind what was committed", function()
    produce("orders", 4)
    gateway:produce("bills", { key = "k", value = "b1", headers = { a = "1" } })
    assert.same({ "orders1", "orders2", "orders3", "orders4", "b1", "timeout" }, run [[
      local consumer = kafka.group { group = "g", topics = { "orders", "bills" }, from = "earliest" }
      local said = {}
      for i = 1, 6 do
        local record, err = consumer:next(0)
        said[i] = record and record.value or err
        if i == 3 then assert(consumer:commit()) end
        if i == 5 then assert(consumer:commit(record)) end
      end
      consumer:close()
      return said
    ]])
    assert.same({ "orders4", "timeout" }, run [[
      local consumer = kafka.group { group = "g", topics = { "orders", "bills" }, from = "earliest" }
      local said = { consumer:next(0).value, (select(2, consumer:next(0))) }
      consumer:close()
      return said
    ]])
  end)

  it("begins at the end unless told, and waits", function()
    produce("orders", 4)
    run [[kept.consumer = kafka.group { group = "g", topics = { "orders" } }]]
    local waiting = gateway:send({ method = "POST", path = "/", body = [[
      local kafka, kept = ...
      local record = kept.consumer:next(10)
      return { record.topic, record.partition, record.offset, record.value }
    ]] })
    gateway:settle()
    produce("orders", 1)
    assert.same({ "orders", 0, 1, "orders1" }, waiting:receive().json.said)
  end)

  it("says what it has and how far it has come", function()
    produce("orders", 2)
    local said = run [[
      local consumer = kafka.group { group = "g", topics = { "orders" }, from = "earliest" }
      for _ = 1, 2 do consumer:next(0) end
      local positions = consumer:positions().orders
      return { consumer:assignment(), { positions[0], positions[1], positions[2] == nil } }
    ]]
    assert.same({ topic = "orders", partition = 0, offset = 1 }, said[1][1])
    assert.same({ topic = "orders", partition = 3 }, said[1][4])
    assert.same({ 1, 1, true }, said[2])
  end)

  it("shares partitions, tells what goes, and keeps that until it lets go", function()
    produce("orders", 4)
    assert.same({ "rebalance", { 1, 3 }, 0, 2, 2, "orders2", "orders4" }, run [[
      local one = kafka.group { group = "g", topics = { "orders" }, from = "earliest" }
      local two = kafka.group { group = "g", topics = { "orders" }, from = "earliest" }
      local said = { (select(2, one:next(0))), {} }
      for _, lost in ipairs(one:lost()) do table.insert(said[2], lost.partition) end
      said[3] = #two:assignment()
      one:next(0)
      said[4], said[5] = #one:assignment(), #two:assignment()
      said[6], said[7] = two:next(0).value, two:next(0).value
      kept.one, kept.two = one, two
      return said
    ]])
    assert.equal(4, run [[kept.two:close() return #kept.one:assignment()]])
  end)

  it("takes what is not let go of when the hand-over time is over", function()
    assert.equal(0, run [[
      kept.one = kafka.group { group = "g", topics = { "orders" }, handover = 3 }
      kept.two = kafka.group { group = "g", topics = { "orders" } }
      return #kept.two:assignment()
    ]])
    gateway:advance(2.9)
    assert.equal(0, run [[return #kept.two:assignment()]])
    gateway:advance(0.2)
    assert.equal(2, run [[return #kept.two:assignment()]])
  end)

  it("joins topics by a pattern, also those that come later", function()
    assert.same({ "timeout" }, run [[
      kept.consumer = kafka.group { group = "g", pattern = "^audit\\..*", from = "earliest" }
      return { (select(2, kept.consumer:next(0))) }
    ]])
    gateway:produce("audit.login", { value = "x" })
    gateway:produce("orders", { value = "y" })
    assert.same({ "audit.login", "timeout" }, run [[
      return { kept.consumer:next(0).topic, (select(2, kept.consumer:next(0))) }
    ]])
  end)

  it("tells why a commit failed", function()
    assert.same({ "UNKNOWN_TOPIC_OR_PART", "GROUP_AUTHORIZATION_FAILED", "closed" }, run [[
      local consumer = kafka.group { group = "g", topics = { "orders" } }
      local said = { (select(3, consumer:commit { orders = { [9] = 1 } })) }
      said[2] = select(3, consumer:commit { refused = { [0] = 1 } })
      consumer:close()
      consumer:close()
      said[3] = select(3, consumer:commit { orders = { [0] = 1 } })
      return said
    ]])
  end)

  local TAKE = [[
    local function take(consumer, count)
      local said = {}
      for i = 1, count do
        local record, err = consumer:next(0)
        said[i] = record and record.value or err
      end
      return table.concat(said, " ")
    end
  ]]

  it("goes on from other places", function()
    produce("orders", 8)
    assert.same({ "orders1 orders2 orders5 orders6 timeout", "_UNKNOWN_PARTITION" }, run(TAKE .. [[
      local consumer = kafka.group { group = "g", topics = { "orders" }, from = "earliest" }
      take(consumer, 8)
      assert(consumer:seek { orders = { [0] = 0, [1] = "earliest", [2] = "latest" } })
      return { take(consumer, 5), (select(3, consumer:seek { bills = { [0] = 0 } })) }
    ]]))
  end)

  it("stops partitions and goes on with them where they were", function()
    produce("orders", 8)
    local said = run(TAKE .. [[
      local consumer, said = kafka.group { group = "g", topics = { "orders" }, from = "earliest" }, {}
      assert(consumer:pause { { topic = "orders", partition = 1 } })
      said[1], said[2] = take(consumer, 3), take(consumer, 4)
      assert(consumer:pause())
      assert(consumer:resume { { topic = "orders", partition = 1 } })
      said[3] = take(consumer, 3)
      return said
    ]])
    assert.same({ "orders1 orders3 orders4", "orders5 orders7 orders8 timeout", "orders2 orders6 timeout" }, said)
  end)

  it("says what is committed, with what was stored beside it", function()
    local noted = { topic = "orders", partition = 2, offset = 7, metadata = "note" }
    assert.same({ { topic = "orders", partition = 0 }, noted, noted, 4 }, run [[
      local consumer = kafka.group { group = "g", topics = { "orders" } }
      assert(consumer:commit { orders = { [2] = { offset = 7, metadata = "note" } } })
      local all = consumer:committed()
      return { all[1], all[3], consumer:committed({ { topic = "orders", partition = 2 } })[1], #all }
    ]])
  end)

  it("takes other topics, and partitions of its own choice, but not both", function()
    produce("orders", 4)
    gateway:produce("bills", { value = "b1" })
    assert.same({ "rebalance b1 timeout", "_STATE", "rebalance timeout", true, "orders2 orders3 timeout", "_STATE", 2 },
      run(TAKE .. [[
        local consumer, said = kafka.group { group = "g", topics = { "orders" }, from = "earliest" }, {}
        assert(consumer:subscribe { "bills" })
        said[1], said[2] = take(consumer, 3), (select(3, consumer:assign { orders = { [1] = 0 } }))
        assert(consumer:subscribe {})
        said[3] = take(consumer, 2)
        said[4] = consumer:assign { orders = { [1] = "earliest", [2] = "committed", [3] = "latest" } }
        said[5], said[6] = take(consumer, 3), (select(3, consumer:subscribe "^b"))
        local other = kafka.group { group = "g", topics = { "orders" }, from = "earliest" }
        said[7] = #other:assignment() - #consumer:assignment() + 1
        return said
      ]]))
  end)

  it("refuses a cluster that is not there, and says what is wrong with its arguments", function()
    assert.same({ 'no Kafka cluster named "nowhere"', "cluster" }, run [[
      local _, err, code = kafka.group { cluster = "nowhere", group = "g", topics = {} }
      return { err, code }
    ]])
    local said = run [[
      local said = {}
      for i, options in ipairs { { topics = {} }, { group = "g" }, { group = "g", topics = {}, from = "middle" } } do
        said[i] = select(2, pcall(kafka.group, options))
      end
      return said
    ]]
    assert.matches("group", said[1])
    assert.matches("topics", said[2])
    assert.matches("no such start: middle", said[3])
  end)
end)
