-- SPDX-License-Identifier: Apache-2.0
-- Consumer groups in one worker, against a real broker.
local ffi = require "ffi"
local broker = require "spec.support.kafka"
local members = require "spec.kafka.members"

local C = members.C

describe("a member of a consumer group", function()
  local shared, kafka, topic, group

  setup(function() shared = broker.shared() end)

  local function cluster(properties)
    properties = properties or {}
    properties["bootstrap.servers"] = shared.servers
    assert(kafka:cluster("main", properties) == 0, kafka:why())
  end

  before_each(function()
    kafka = members.client.new()
    cluster()
    topic = shared:topic(4)
    group = "group-of-" .. topic
  end)

  after_each(function() kafka:close() end)

  local function join(fields)
    fields = fields or {}
    fields.group, fields.topics = fields.group or group, fields.topics or { topic }
    fields.properties = fields.properties or {}
    fields.properties["heartbeat.interval.ms"] = "200" -- rebalances are heard of by these
    -- Less than one waits for partitions: that a member leaves is told once, and a busy broker may not hear it.
    fields.properties["session.timeout.ms"] = fields.properties["session.timeout.ms"] or "10000"
    return assert(members.join(kafka, fields))
  end

  local function send(record)
    record.topic = record.topic or topic
    return kafka:send(record)
  end

  it("gets the records of its topics, in order within a partition", function()
    local other = shared:topic(2)
    for i = 1, 20 do send { topic = i % 2 == 0 and topic or other, value = tostring(i), partition = 1 } end
    local member = join { topics = { topic, other } }
    local last = { [topic] = 0, [other] = 0 }
    for _ = 1, 20 do
      local value, record = member:read()
      assert.is_true(tonumber(value) > last[record.topic])
      last[record.topic] = tonumber(value)
    end
    assert.same({ [topic] = 20, [other] = 19 }, last)
    member:leave()
  end)

  it("goes on behind what was committed", function()
    for i = 0, 9 do send { value = tostring(i), partition = 2 } end
    local member = join()
    for i = 0, 5 do assert.equal(tostring(i), (member:read())) end
    assert.is_true(member:commit { { topic, 2, 4 } })
    member:leave()
    member = join()
    for i = 4, 9 do assert.equal(tostring(i), (member:read())) end
    assert.is_true(member:commit()) -- all of it
    member:leave()
    send { value = "10", partition = 2 }
    member = join()
    assert.equal("10", (member:read()))
    member:leave()
  end)

  it("says which partitions it has, and how far it has come", function()
    local member = join()
    member:await_assigned(4)
    assert.same({ topic .. "/0", topic .. "/1", topic .. "/2", topic .. "/3" }, member:assigned())
    send { value = "x", partition = 3 }
    member:read()
    assert.same({ [topic .. "/0"] = -1, [topic .. "/1"] = -1, [topic .. "/2"] = -1, [topic .. "/3"] = 1 },
      (select(2, member:list(C.KAFKA_ASSIGNED))))
    member:leave()
  end)

  it("is told which partitions go to another, and keeps them until it lets go", function()
    local first = join { handover = 30 }
    first:await_assigned(4)
    for partition = 0, 3 do send { value = "before", partition = partition } end
    for _ = 1, 4 do assert.equal("before", (first:read())) end
    local second = join { handover = 30 }
    local value = first:read()
    assert.equal("rebalance", value)
    local lost, offsets = first:list(C.KAFKA_LOST)
    assert.same({ topic .. "/0", topic .. "/1", topic .. "/2", topic .. "/3" }, lost) -- all, and half of them come back
    assert.equal(1, offsets[topic .. "/2"])
    assert.is_true(first:commit { { topic, 0, 1 }, { topic, 1, 1 }, { topic, 2, 1 }, { topic, 3, 1 } })
    assert.equal(0, #second:assigned())
    assert.is_nil(first:try()) -- lets go
    first:await_assigned(2)
    second:await_assigned(2)
    for partition = 0, 3 do send { value = "after", partition = partition } end
    for _ = 1, 2 do
      assert.equal("after", (first:read()))
      assert.equal("after", (second:read()))
    end
    first:leave()
    second:leave()
  end)

  it("loses what it does not let go of when the hand-over time is over", function()
    local first = join { handover = 0.2 }
    first:await_assigned(4)
    local second = join()
    second:await_assigned(2) -- although nobody asks `first` for anything
    assert.equal("rebalance", (first:read()))
    assert.is_nil(first:try())
    first:await_assigned(2)
    first:leave()
    second:await_assigned(4)
    second:leave()
  end)

  it("fetches no more than it may hold while nobody asks, stays a member, and then gives everything", function()
    local value, count = ("x"):rep(20000), 200 -- 4 MB
    for i = 1, count do kafka:produce { topic = topic, value = i .. " " .. value, partition = 0, forget = true } end
    kafka:await("all acknowledged", function() return kafka:status().delivered == count end)
    local member = join { properties = { ["session.timeout.ms"] = "6000", ["max.poll.interval.ms"] = "6000" } }
    member:await_assigned(4)
    kafka:await("the pause", function() return C.kafka_group_stalled(member.raw) end)
    assert.is_true(tonumber(kafka:status().consumed) < 80)
    for i = 1, count do
      assert.equal(tostring(i), (member:read():match("^%d+")))
    end
    assert.is_nil(member:try())
    send { value = "next", partition = 0 }
    assert.equal("next", (member:read()))
    member:leave()
  end)

  local function fill(count, partition, size)
    local before, value = tonumber(kafka:status().delivered), ("x"):rep(size or 1)
    for i = 1, count do
      kafka:produce { topic = topic, value = i .. " " .. value, partition = partition or 0, forget = true }
    end
    kafka:await("all acknowledged", function() return kafka:status().delivered == before + count end)
  end

  local function number(text)
    return tonumber(text:match("^%d+"))
  end

  it("says what is committed, with what was stored beside it", function()
    local member = join()
    member:await_assigned(4)
    assert.is_true(member:commit { { topic, 2, 7, "note" } })
    assert.is_true(member:act(C.KAFKA_COMMITTED, {}, 10))
    local _, offsets, metadata = member:list(C.KAFKA_ANSWER)
    assert.same({ [topic .. "/0"] = -1, [topic .. "/1"] = -1, [topic .. "/2"] = 7, [topic .. "/3"] = -1 }, offsets)
    assert.same({ [topic .. "/2"] = "note" }, metadata)
    assert.is_true(member:act(C.KAFKA_COMMITTED, { { topic, 2 } }, 10))
    assert.same({ topic .. "/2" }, (member:list(C.KAFKA_ANSWER)))
    member:leave()
  end)

  it("goes on from other places, whatever was fetched", function()
    fill(300, 0)
    local member = join()
    for i = 1, 10 do assert.equal(i, number((member:read()))) end
    for _, at in ipairs { 250, 3, 120, 0 } do
      assert.is_true(member:act(C.KAFKA_SEEK, { { topic, 0, at } }, 10))
      for i = 1, 20 do assert.equal(at + i, number((member:read()))) end
    end
    assert.is_true(member:act(C.KAFKA_SEEK, { { topic, 0, C.KAFKA_LATEST } }, 10))
    fill(1, 0)
    assert.equal(1, number((member:read())))
    assert.is_true(member:act(C.KAFKA_SEEK, { { topic, 0, C.KAFKA_EARLIEST } }, 10))
    assert.equal(1, number((member:read())))
    assert.equal(2, number((member:read())))
    assert.is_nil((member:act(C.KAFKA_SEEK, { { topic, 99, 0 } }, 1)))
    for i = 3, 20 do assert.equal(i, number((member:read()))) end
    member:leave()
  end)

  it("stops partitions and goes on with them without loss or repetition", function()
    fill(1000, 0, 2000)
    fill(1000, 1, 2000)
    local member, at = join(), { [0] = 0, [1] = 0 }
    local function take(count)
      for _ = 1, count do
        local value, record = member:read()
        at[record.partition] = at[record.partition] + 1
        assert.equal(at[record.partition], number(value))
      end
    end
    take(300)
    for turn = 1, 6 do
      local paused = turn % 2
      assert.is_true(member:act(C.KAFKA_PAUSE, { { topic, paused } }, 10))
      local before = at[paused]
      take(math.min(100, 1000 - at[1 - paused]))
      assert.equal(before, at[paused])
      assert.is_true(member:act(C.KAFKA_RESUME, { { topic, paused } }, 10))
      take(100)
    end
    take(2000 - at[0] - at[1])
    assert.same({ [0] = 1000, [1] = 1000 }, at)
    assert.is_nil(member:try())
    member:leave()
  end)

  it("stays stopped where its user said so when it goes on by itself", function()
    fill(100, 0, 20000)
    fill(100, 1, 20000)
    local member = join()
    kafka:await("the pause", function() return C.kafka_group_stalled(member.raw) end)
    assert.is_true(member:act(C.KAFKA_PAUSE, { { topic, 1 } }, 10))
    for i = 1, 100 do
      local value, record = member:read()
      assert.same({ 0, i }, { record.partition, number(value) })
    end
    assert.is_true(member:act(C.KAFKA_RESUME, { { topic, 1 } }, 10))
    for i = 1, 100 do
      local value, record = member:read()
      assert.same({ 1, i }, { record.partition, number(value) })
    end
    member:leave()
  end)

  it("takes other topics, a pattern, or none", function()
    local other = shared:topic(2)
    local member = join()
    member:await_assigned(4)
    assert.is_true(member:act(C.KAFKA_SUBSCRIBE, { { other } }, 10))
    kafka:await("the other", function()
      member:try()
      return #member:assigned() == 2 and member:assigned()[1] == other .. "/0"
    end, 30)
    send { topic = other, value = "x", partition = 1 }
    assert.equal("x", (member:read()))
    assert.is_true(member:act(C.KAFKA_SUBSCRIBE, {}, 10))
    kafka:await("nothing", function()
      member:try()
      return #member:assigned() == 0
    end, 30)
    assert.is_true(member:act(C.KAFKA_SUBSCRIBE, { { "^" .. topic:gsub("%-", "[-]") .. "$" } }, 10))
    member:await_assigned(4)
    member:leave()
  end)

  it("has partitions of its own choice, from places of its own choice, and commits for the group", function()
    fill(10, 0)
    fill(10, 3)
    local member = join { topics = {} }
    assert.is_true(member:act(C.KAFKA_ASSIGN, { { topic, 0, 6 }, { topic, 3, C.KAFKA_STORED } }, 10))
    assert.same({ topic .. "/0", topic .. "/3" }, member:assigned())
    local at = { [0] = 6, [3] = 0 }
    for _ = 1, 14 do
      local value, record = member:read()
      at[record.partition] = at[record.partition] + 1
      assert.equal(at[record.partition], number(value))
    end
    assert.is_true(member:commit())
    local _, name = member:act(C.KAFKA_SUBSCRIBE, { { topic } }, 10)
    assert.equal("_STATE", name)
    assert.is_true(member:act(C.KAFKA_ASSIGN, {}, 10))
    assert.same({}, member:assigned())
    member:leave()
    member = join()
    _, name = member:act(C.KAFKA_ASSIGN, { { topic, 0, 0 } }, 10)
    assert.equal("_STATE", name)
    send { value = "11", partition = 3 }
    assert.equal("11", (member:read(30)))
    member:leave()
  end)

  it("is told when records went before it could read them", function()
    fill(200, 0, 20000)
    local member = join { properties = { ["queued.max.messages.kbytes"] = "64",
      ["fetch.message.max.bytes"] = "20000" } }
    assert.equal(1, number((member:read())))
    kafka:await("the pause", function() return C.kafka_group_stalled(member.raw) end)
    shared:delete_records(topic, 0, 150)
    local at, gaps = 1, 0
    while at < 200 do
      local value = member:read()
      if value == "gap" then
        gaps = gaps + 1
      else
        assert.is_true(number(value) == at + 1 or gaps == 1)
        at = number(value)
      end
    end
    assert.equal(1, gaps)
    member:leave()
  end)

  it("does not begin beyond the limit of its cluster", function()
    cluster { consumers_max = "1" }
    local member = join()
    local none, status, why = members.join(kafka, { group = group, topics = { topic } })
    assert.is_nil(none)
    assert.equal(C.BRIDGE_FULL, status)
    assert.matches("main: 1 consumers already", why)
    assert.equal(1, kafka:status().consumers)
    member:leave()
    kafka:await("its end", function() return kafka:status().consumers == 0 end)
    join():leave()
  end)

  it("refuses what it could not keep: properties, topics, clusters", function()
    local function refused(fields)
      fields.group, fields.topics = group, fields.topics or { topic }
      local none, status, why = members.join(kafka, fields)
      assert.is_nil(none)
      return status, why
    end
    local status, why = refused { properties = { ["enable.auto.commit"] = "true" } }
    assert.equal(C.BRIDGE_INVALID, status)
    assert.matches("enable.auto.commit: not to be set", why, 1, true)
    assert.matches("no.such", select(2, refused { properties = { ["no.such"] = "1" } }), 1, true)
    assert.matches("topic: expected", select(2, refused { topics = { "a b" } }), 1, true)
    assert.equal(C.BRIDGE_NONE, (refused { cluster = "nowhere" }))
  end)

  it("fails when its cluster leaves the configuration", function()
    local member = join()
    member:await_assigned(4)
    C.kafka_cluster_drop(kafka.kafka, "main")
    assert.has_error(function() member:read() end, "the cluster left the configuration")
    assert.is_nil((member:commit { { topic, 0, 1 } }))
    member:leave()
  end)

  it("is found by its number while it lives, and not after", function()
    local member = join()
    local handle = C.kafka_group_handle(member.raw)
    assert.is_true(C.kafka_group_find(kafka.kafka, handle) == member.raw)
    member:leave()
    assert.is_true(C.kafka_group_find(kafka.kafka, handle) == nil)
  end)

  it("ends while it starts, and with the worker", function()
    local wait = ffi.new("struct kafka_group_wait")
    local options = ffi.new("struct kafka_group_options", { cluster = "main", group = group })
    local topics = ffi.new("const char *[1]", { topic })
    options.topics, options.topic_count = topics, 1
    local status = ffi.new("int[1]")
    C.kafka_group_leave(C.kafka_group_join(kafka.kafka, options, wait, status, kafka.error))
    join():wait(60) -- not left: kafka:close() ends it, and its timers
    kafka:await("the other's end", function() return kafka:status().consumers == 1 end)
  end)
end)
