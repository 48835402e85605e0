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
    assert.equal(2, #first:assigned())
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
    local number = C.kafka_group_handle(member.raw)
    assert.is_true(C.kafka_group_find(kafka.kafka, number) == member.raw)
    member:leave()
    assert.is_true(C.kafka_group_find(kafka.kafka, number) == nil)
  end)

  it("ends while it starts, and with the worker", function()
    local wait = ffi.new("struct kafka_group_wait")
    local options = ffi.new("struct kafka_group_options", { cluster = "main", group = group })
    local topics = ffi.new("const char *[1]", { topic })
    options.topics, options.topic_count = topics, 1
    local status = ffi.new("int[1]")
    C.kafka_group_leave(C.kafka_group_join(kafka.kafka, options, wait, status, kafka.error))
    join() -- not left: kafka:close() ends it
    kafka:await("the other's end", function() return kafka:status().consumers == 1 end)
  end)
end)
