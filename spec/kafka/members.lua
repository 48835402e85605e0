-- SPDX-License-Identifier: Apache-2.0
-- Members of groups in a spec, in this process, over spec/kafka/client.lua.
local ffi = require "ffi"
local client = require "spec.kafka.client"
local core = require "spec.support.core"

local C = core.load("kafka_group.h")

local members = { C = C }

local member = {}
member.__index = member

-- Callbacks from C are few in a process: one serves all waits, by number.
local told, last_number = {}, 0
local on_done = ffi.cast("void (*)(struct kafka_member *, const struct kafka_group_wait *, int)",
  function(_, wait, status) told[tonumber(wait.number)] = status end)

local function new_wait()
  last_number = last_number + 1
  return ffi.new("struct kafka_group_wait", { on_done = on_done, number = last_number }), last_number
end

local function texts(list)
  return ffi.new("const char *[?]", #list + 1, list), #list
end

-- Fields: cluster, group, topics, from, properties, handover. Nil, status and why: it could not.
function members.join(kafka, fields)
  local options = ffi.new("struct kafka_group_options")
  local flat = {}
  for key, value in pairs(fields.properties or {}) do
    flat[#flat + 1] = key
    flat[#flat + 1] = value
  end
  local topics, topic_count = texts(fields.topics)
  local array = texts(flat)
  options.cluster, options.group = fields.cluster or "main", fields.group
  options.topics, options.topic_count = topics, topic_count
  options.pairs, options.pair_count = array, #flat / 2
  options.from = fields.from or C.KAFKA_EARLIEST
  options.handover_s = fields.handover or 0
  local wait, number = new_wait()
  local status = ffi.new("int[1]")
  local raw = C.kafka_group_join(kafka.kafka, options, wait, status, kafka.error)
  if raw == nil then return nil, status[0], kafka:why() end
  local self = setmetatable({ raw = raw, kafka = kafka }, member)
  kafka:await("a member's start", function() return told[number] end)
  return self
end

local view = ffi.new("const struct kafka_record *[1]")

-- One try: "value", record; or "rebalance", "gap"; nil: nothing there.
function member:try()
  local status = C.kafka_group_next(self.raw, view)
  if status == C.BRIDGE_OK then
    return ffi.string(view[0].value.data, view[0].value.len), { topic = ffi.string(view[0].topic),
      partition = view[0].partition, offset = tonumber(view[0].offset) }
  end
  if status == C.KAFKA_REBALANCE then return "rebalance" end
  if status == C.KAFKA_GAP then return "gap" end
  if status == C.BRIDGE_FAILED then error(ffi.string(C.kafka_group_result(self.raw).text), 2) end
end

-- Is told when something comes, or after that time; nobody asks for what.
function member:wait(seconds)
  assert(C.kafka_group_wait_next(self.raw, seconds * 1e6, (new_wait())) == C.BRIDGE_OK)
end

function member:read(seconds)
  local value, record
  self.kafka:await("a record of a group", function()
    value, record = self:try()
    return value
  end, seconds)
  return value, record
end

-- Acts and waits: true, or nil, Kafka's name of the error and the status.
function member:act(kind, places, timeout)
  local cells = ffi.new("struct kafka_place[?]", #places + 1)
  for i, place in ipairs(places) do
    cells[i - 1] = { topic = place[1], partition = place[2] or 0, offset = place[3] or -1, metadata = place[4] }
  end
  local request = ffi.new("struct kafka_group_request", { act = kind, count = #places, places = cells,
    timeout_s = timeout or 0 })
  local wait, number = new_wait()
  local status = C.kafka_group_act(self.raw, request, wait)
  if status == C.BRIDGE_AGAIN then
    status = self.kafka:await("an act's end", function() return told[number] end, 30)
  end
  if status == C.BRIDGE_OK then return true end
  return nil, ffi.string(C.kafka_group_result(self.raw).name), status
end

function member:commit(places, timeout)
  return self:act(C.KAFKA_COMMIT, places or {}, timeout)
end

-- A list's entries as "topic/partition" in order, and their offsets and metadata.
function member:list(which)
  local out, names, offsets, metadata = ffi.new("struct kafka_place"), {}, {}, {}
  while C.kafka_group_place(self.raw, which, #names, out) == C.BRIDGE_OK do
    names[#names + 1] = ffi.string(out.topic) .. "/" .. out.partition
    offsets[names[#names]] = tonumber(out.offset)
    metadata[names[#names]] = out.metadata ~= nil and ffi.string(out.metadata) or nil
  end
  return names, offsets, metadata
end

function member:assigned()
  return (self:list(C.KAFKA_ASSIGNED))
end

function member:await_assigned(count)
  self.kafka:await(count .. " partitions", function() return #self:assigned() == count end, 30)
end

function member:leave()
  C.kafka_group_leave(self.raw)
end

members.client = client

return members
