-- SPDX-License-Identifier: Apache-2.0
-- Readers while the broker or the gateway fails: who comes back with the id of his last event misses none and gets none
-- twice, and a member of a group gets at least once what it has not committed. Records are produced past the gateway.
local ffi = require "ffi"
local broker = require "spec.support.kafka"
local gateway = require "spec.support.gateway"
local members = require "spec.kafka.members"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local relay = require "spec.support.relay"

local C = members.C

local PARTITIONS, BUFFER, SECONDS = 3, 65536, 60

local CONFIG = [[
_format_version: "3.0"
gateway: { kafka: { main: { bootstrap.servers: "%s" } } }
routes:
- { name: out, paths: [/out], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: %s }], mode: server-sent-events, auto_offset_reset: earliest } }] }
]]

-- ---- One that follows a topic over server-sent events, and comes back when a stream ends ----

local follower = {}
follower.__index = follower

local scratch = ffi.new("char[?]", BUFFER)

local function new_counts()
  return { next = { [0] = 0, 0, 0 }, missed = 0, twice = 0, total = 0 }
end

local function count(counts, partition, number)
  if number > counts.next[partition] then counts.missed = counts.missed + 1 end
  if number < counts.next[partition] then counts.twice = counts.twice + 1 end
  counts.next[partition] = math.max(counts.next[partition], number + 1)
  counts.total = counts.total + 1
end

local function follow(world)
  return setmetatable({ world = world, counts = new_counts(), opened = 0 }, follower)
end

function follower:open()
  local socket = net.connect("127.0.0.1", self.world.gateway.port)
  if not socket then return end
  local resume = self.last_id and ("Last-Event-ID: %s\r\n"):format(self.last_id) or ""
  if not socket:send("GET /out HTTP/1.1\r\nHost: a\r\n" .. resume .. "\r\n") then return socket:close() end
  self.socket, self.raw, self.head, self.opened = socket, "", false, self.opened + 1
  self.text = "\n" -- before the first event
end

-- Of the bytes that came the content of the whole chunks.
local function unchunk(self)
  if not self.head then
    local _, last = self.raw:find("\r\n\r\n", 1, true)
    if not last then return end
    self.head, self.raw = true, self.raw:sub(last + 1)
  end
  local from = 1
  while true do
    local _, last, size = self.raw:find("^(%x+)\r\n", from)
    size = last and tonumber(size, 16)
    if not last or #self.raw < last + size + 2 then break end
    self.text = self.text .. self.raw:sub(last + 1, last + size)
    from = last + size + 3
  end
  self.raw = self.raw:sub(from)
end

-- Whole events only: what a stream that broke off had begun comes again.
local function take(self)
  local from = 1
  while true do
    local _, last, id, partition, number = self.text:find("\nid: ([^\n]*)\ndata: (%d+) (%d+) ?x*\n\n", from)
    if not last then break end
    count(self.counts, tonumber(partition), tonumber(number))
    self.last_id, from = id, last
  end
  self.text = self.text:sub(from)
end

-- What is there now; a stream that has ended is opened again.
function follower:turn()
  if not self.socket then self:open() end
  if not self.socket or self.stands then return end
  local bytes = tonumber(ffi.C.sys_recv(self.socket.fd, scratch, BUFFER, 0))
  if bytes > 0 then
    self.raw = self.raw .. ffi.string(scratch, bytes)
    unchunk(self)
    take(self)
  elseif bytes == 0 or ffi.errno() ~= posix.EAGAIN then
    self:close()
  end
end

function follower:close()
  if self.socket then self.socket:close() end
  self.socket = nil
end

-- ---- The world ----

local function produce(world)
  for partition = 0, PARTITIONS - 1 do
    local number = world.numbers[partition]
    local status = world.kafka:produce { topic = world.topic, partition = partition, forget = true,
      value = ("%d %d %s"):format(partition, number, world.padding) }
    if status == C.BRIDGE_OK then world.numbers[partition] = number + 1 end
  end
end

-- A member of a group reads and commits too. After a rebalance it may get again what it had not committed.
local function consume(world)
  for _ = 1, 50 do
    local ok, value = pcall(world.member.try, world.member)
    if not ok or not value then return end
    local partition, number = value:match("^(%d+) (%d+)")
    if partition then count(world.group_counts, tonumber(partition), tonumber(number)) end
  end
end

local function turn(world)
  world.kafka:turn()
  for _, one in ipairs(world.followers) do one:turn() end
  consume(world)
  posix.pause(0.002)
end

local function run_for(world, seconds)
  local deadline = posix.now() + seconds
  while posix.now() < deadline do
    produce(world)
    turn(world)
  end
end

local function total(world)
  return world.numbers[0] + world.numbers[1] + world.numbers[2]
end

-- Until everybody has everything that was produced.
local function settle(world)
  local deadline = posix.now() + SECONDS
  local function missing()
    if tonumber(world.kafka:status().delivered) < total(world) then return "acknowledgements" end
    for i, one in ipairs(world.followers) do
      if one.counts.total < total(world) and not one.stands then
        return ("follower %d has %d of %d"):format(i, one.counts.total, total(world))
      end
    end
    if world.group_counts.total < total(world) then return "the group" end
  end
  while missing() do
    if posix.now() > deadline then error("not in time: " .. missing(), 2) end
    turn(world)
  end
end

describe("a reader", function()
  local world

  setup(function()
    world = { numbers = { [0] = 0, 0, 0 }, padding = "", followers = {}, group_counts = new_counts() }
    local port = process.free_port()
    world.broker = broker.start { listeners = { RELAYED = "PLAINTEXT" }, advertised = { RELAYED = port } }
    world.relay = relay.start(world.broker.ports.RELAYED, port)
    world.topic = world.broker:topic(PARTITIONS)
    local relayed = "127.0.0.1:" .. port
    world.config = CONFIG:format(relayed, world.topic)
    world.gateway = gateway.start(world.config, { workers = 2 })
    world.kafka = members.client.new()
    assert(world.kafka:cluster("relayed", { ["bootstrap.servers"] = relayed }) == 0, world.kafka:why())
    -- Whatever time the broker takes to come back, no record is given up: all are counted.
    assert(world.kafka:cluster("main", { ["bootstrap.servers"] = world.broker.servers,
      ["message.timeout.ms"] = "300000" }) == 0, world.kafka:why())
    world.member = members.join(world.kafka, { cluster = "relayed", group = "chaos", topics = { world.topic },
      handover = 1 })
    for i = 1, 4 do world.followers[i] = follow(world) end
  end)

  teardown(function()
    for _, one in ipairs(world.followers) do one:close() end
    if world.member then world.member:leave() end
    if world.kafka then world.kafka:close() end
    if world.gateway then world.gateway:stop() end
    if world.relay then world.relay:stop() end
    if world.broker then world.broker:stop() end
  end)

  local function comes_through(disturb)
    run_for(world, 0.5)
    disturb()
    run_for(world, 0.5)
    settle(world)
    for _, one in ipairs(world.followers) do
      assert.same({ missed = 0, twice = 0, total = total(world) },
        { missed = one.counts.missed, twice = one.counts.twice, total = one.counts.total })
    end
    assert.equal(0, world.group_counts.missed)
    assert.is_true(world.member:commit({}, 20))
  end

  it("gets all when the broker is killed and comes back", function()
    comes_through(function()
      world.broker:kill()
      run_for(world, 1)
      world.broker:restart()
    end)
  end)

  it("gets all when the broker stands still for a time", function()
    comes_through(function()
      world.broker.process:hold()
      run_for(world, 3)
      world.broker.process:go_on()
    end)
  end)

  it("gets all when the network breaks off", function()
    comes_through(function()
      world.relay:cut()
      run_for(world, 1)
      world.relay:mend()
    end)
  end)

  it("gets all when the network is silent for a time", function()
    comes_through(function()
      world.relay:silence()
      run_for(world, 2)
      world.relay:go_on()
    end)
  end)

  it("gets all when workers are killed", function()
    comes_through(function()
      for _, pid in ipairs(world.gateway:workers()) do posix.kill(pid, posix.SIGKILL) end
    end)
  end)

  it("gets all from another gateway when its own is killed", function()
    local before = {}
    for i, one in ipairs(world.followers) do before[i] = one.opened end
    comes_through(function()
      local workers = world.gateway:workers()
      world.gateway.process:signal(posix.SIGKILL)
      for _, pid in ipairs(workers) do posix.kill(pid, posix.SIGKILL) end
      world.gateway.process:wait(10)
      world.gateway.process:forget()
      world.gateway = gateway.start(world.config, { workers = 2 })
    end)
    for i, one in ipairs(world.followers) do assert.is_true(one.opened > before[i]) end
  end)

  it("gets all when its own client breaks off and comes back, again and again", function()
    comes_through(function()
      for i = 1, 12 do
        world.followers[i % #world.followers + 1]:close()
        run_for(world, 0.1)
      end
    end)
  end)

  it("gets all beside one that takes nothing, which has all too when it goes on", function()
    world.padding = ("x"):rep(20000)
    local idle, before, opened = world.followers[1], total(world), world.followers[2].opened
    idle.stands = true
    comes_through(function()
      local deadline = posix.now() + 30
      -- More than sockets and the window of the topic hold: 40 MB.
      while total(world) - before < 2000 and posix.now() < deadline do run_for(world, 0.1) end
      settle(world)
      assert.is_true(idle.counts.total < total(world))
      world.padding, idle.stands = "", nil
    end)
    assert.equal(opened, world.followers[2].opened)
  end)
end)
