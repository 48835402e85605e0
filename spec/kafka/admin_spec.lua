-- SPDX-License-Identifier: Apache-2.0
-- kafka.admin in a gateway with a real broker: what it says of the cluster is so, and what it orders is done.
local cjson = require "cjson"
local ffi = require "ffi"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s" }
    away: { bootstrap.servers: "127.0.0.1:1" }
    silent: { bootstrap.servers: "127.0.0.1:%d" }
plugins: [{ name: runs }]
routes: [{ name: all, paths: [/] }]
]]

-- Runs the Lua code that a request brings, and answers with what it returned.
local RUNS = [[
return { version = "1", priority = 1, access = function(_, exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  exchange.response:exit(200, { said = { chunk(require("sluice").kafka, require("sluice")) } })
end }
]]

local UNREACHED = { _TIMED_OUT = true, _TRANSPORT = true, _ALL_BROKERS_DOWN = true }

describe("kafka.admin", function()
  local shared, gw, silent, silent_port

  setup(function()
    shared = broker.shared()
    silent, silent_port = posix.listen("127.0.0.1", 0)
    gw = gateway.start(CONFIG:format(shared.servers, silent_port), { plugins = { runs = RUNS } })
  end)

  teardown(function()
    if gw then gw:stop() end
    if silent then posix.C.sys_close_fd(silent) end
  end)

  -- What the code returned.
  local function run(code, ...)
    local response = gw:request { path = "/",
      body = "local kafka, sluice = ...\nlocal admin = kafka.admin()\n" .. code:format(...) }
    assert.equal(200, response.status, gw:log())
    return unpack(cjson.decode(response.body).said)
  end

  it("tells the cluster's brokers, and a topic's partitions", function()
    local topic = shared:topic(3)
    local found = run("return admin:metadata { %q }", topic)
    assert.equal("c2x1aWNlLXNwZWMta2Fmaw", found.id)
    assert.equal(1, found.controller)
    assert.same({ { id = 1, host = "127.0.0.1", port = shared.port } }, found.brokers)
    assert.equal(topic, found.topics[1].name)
    assert.equal(3, #found.topics[1].partitions)
    assert.same({ id = 2, leader = 1, replicas = { 1 }, isr = { 1 } }, found.topics[1].partitions[3])
  end)

  it("names all topics, and several", function()
    local one, two = shared:topic(), shared:topic(2)
    local names = {}
    for _, topic in ipairs(run("return admin:metadata()").topics) do names[topic.name] = #topic.partitions end
    assert.same({ 1, 2 }, { names[one], names[two] })
    local several = run("return admin:metadata { %q, 'nobody-made-this', %q }", two, one).topics
    assert.same({ two, "nobody-made-this", one }, { several[1].name, several[2].name, several[3].name })
    assert.equal("UNKNOWN_TOPIC_OR_PART", several[2].error.code)
  end)

  it("does not create a topic by asking for it", function()
    for _ = 1, 2 do
      assert.equal("UNKNOWN_TOPIC_OR_PART", run("return select(3, admin:topic 'nobody-asked-this')"))
    end
  end)

  it("creates and deletes topics, and adds partitions", function()
    assert.is_true((run [[return admin:create_topic { topic = "made", partitions = 2, replicas = 1,
      config = { ["retention.ms"] = 60000 } }]]))
    assert.equal("TOPIC_ALREADY_EXISTS", run [[return select(3, admin:create_topic { topic = "made" })]])
    assert.is_true((run [[return admin:create_partitions("made", 5)]]))
    process.wait_until(function()
      return run("return #(admin:topic 'made' or { partitions = {} }).partitions") == 5
    end, 20, "five partitions")
    assert.equal("INVALID_PARTITIONS", run [[return select(3, admin:create_partitions("made", 3))]])
    assert.is_true((run [[return admin:delete_topic "made"]]))
    process.wait_until(function() return run("return (admin:topic 'made') == nil") end, 20, "its end")
    assert.equal("UNKNOWN_TOPIC_OR_PART", run [[return select(3, admin:delete_topic "made")]])
  end)

  it("creates with brokers given, and only looks when told to", function()
    assert.is_true((run [[return admin:create_topic { topic = "looked", partitions = 1, validate_only = true }]]))
    assert.equal("UNKNOWN_TOPIC_OR_PART", run [[return select(3, admin:topic "looked")]])
    assert.is_true((run [[return admin:create_topic { topic = "given", assignment = { { 1 }, { 1 }, { 1 } } }]]))
    process.wait_until(function()
      return run("return #(admin:topic 'given' or { partitions = {} }).partitions") == 3
    end, 20, "three partitions")
    local _, err, code = run [[return false, select(2, admin:create_topic { topic = "odd", assignment = { { 7 } } })]]
    assert.equal("INVALID_REPLICA_ASSIGNMENT", code, err)
    _, err, code = run [[return false, select(2, admin:create_topic { topic = "wrong", partitions = 1,
      config = { ["no.such"] = 1 } })]]
    assert.equal("INVALID_CONFIG", code)
    assert.matches("no.such", err, 1, true)
  end)

  it("tells where logs start and end, and where a time is", function()
    local topic = shared:topic(2)
    run([[for i = 1, 5 do kafka.produce { topic = %q, partition = 1, value = "v", timestamp = i * 1000 } end]], topic)
    local found = run([[
      local ends = admin:offsets { { topic = %q, partition = 0 }, { topic = %q, partition = 1 } }
      local starts = admin:offsets { { topic = %q, partition = 1, at = "earliest" } }
      local at = admin:offsets { { topic = %q, partition = 1, at = 2500 } }
      return { ends[1].offset, ends[2].offset, starts[1].offset, at[1].offset }
    ]], topic, topic, topic, topic)
    assert.same({ 0, 5, 0, 2 }, found)
    assert.equal(3,
      run([[return admin:delete_records({ { topic = %q, partition = 1, offset = 3 } })[1].offset]], topic))
    assert.equal(3, run([[return admin:offsets({ { topic = %q, partition = 1, at = "earliest" } })[1].offset]], topic))
  end)

  it("tells the error of one partition beside the others", function()
    local topic = shared:topic()
    local found = run([[return admin:offsets { { topic = %q, partition = 0 }, { topic = %q, partition = 9 } }]],
      topic, topic)
    assert.same({ topic = topic, partition = 0, offset = 0 }, found[1])
    assert.is_truthy(found[2].error)
  end)

  it("reads and changes configurations, and leaves the others as they are", function()
    local topic = shared:topic(1, { ["delete.retention.ms"] = 1000, ["cleanup.policy"] = "compact" })
    local function value(name)
      for _, entry in ipairs(run("return admin:configs('topic', %q)", topic)) do
        if entry.name == name then return entry.value, entry.source, entry.default, entry.synonyms end
      end
    end
    assert.same({ "1000", "DYNAMIC_TOPIC_CONFIG", false }, { unpack({ value("delete.retention.ms") }, 1, 3) })
    assert.is_true((run([[return admin:alter_configs('topic', %q,
      { ['delete.retention.ms'] = '2000', ['segment.ms'] = 5000 })]], topic)))
    assert.equal("2000", (value("delete.retention.ms")))
    assert.equal("5000", (value("segment.ms")))
    assert.equal("compact", (value("cleanup.policy")))
    assert.is_true((run("return admin:alter_configs('topic', %q, { ['delete.retention.ms'] = false })", topic)))
    assert.same({ "86400000", "DEFAULT_CONFIG", true, { { name = "log.cleaner.delete.retention.ms", value = "86400000",
      source = "DEFAULT_CONFIG" } } }, { value("delete.retention.ms") })
    assert.equal("INVALID_CONFIG", run("return select(3, admin:alter_configs('topic', %q, { nonsense = '1' }))", topic))
    assert.equal("INVALID_CONFIG",
      run("return select(3, admin:alter_configs('topic', %q, { ['delete.retention.ms'] = 'x' }))", topic))
    assert.equal("UNKNOWN_TOPIC_OR_PART", run("return select(3, admin:configs('topic', 'nobody-made-this'))"))
  end)

  it("ends a change of them when brokers show it, however long that takes", function()
    local topic = shared:topic()
    -- They tell the controller's word later than they do: so many looks after it.
    local looks = run([==[
      local looks, configs, old = 0, admin.configs, assert(admin:configs("topic", %q))
      admin.configs = function(self, kind, name)
        looks = looks + 1
        if looks <= 60 then return old end
        return configs(self, kind, name)
      end
      assert(admin:alter_configs("topic", %q, { ["retention.ms"] = " 01000 ", ["cleanup.policy"] = "delete, compact" }))
      return looks
    ]==], topic, topic)
    assert.is_true(looks > 60, looks)
    -- What was so before ends it at once, however it is written.
    looks = run([==[
      local looks, configs = 0, admin.configs
      admin.configs = function(...)
        looks = looks + 1
        return configs(...)
      end
      assert(admin:alter_configs("topic", %q, { ["retention.ms"] = "01000", ["cleanup.policy"] = "delete, compact" }))
      return looks
    ]==], topic)
    assert.equal(2, looks)
  end)

  it("loses none of its own changes, one after the other or all at once", function()
    local topic = shared:topic()
    local set = run([==[
      local names = { "retention.ms", "segment.ms", "max.message.bytes", "min.cleanable.dirty.ratio", "flush.ms" }
      local values = { "1001", "1002", "1003", "0.25", "1004" }
      for i = 1, 3 do assert(admin:alter_configs("topic", %q, { [names[i]] = values[i] })) end
      local left = 2
      for i = 4, 5 do
        sluice.timer.at(0, function()
          assert(kafka.admin():alter_configs("topic", %q, { [names[i]] = values[i] }))
          left = left - 1
        end)
      end
      while left > 0 do sluice.sleep(0.01) end
      local found = {}
      for _, entry in ipairs(admin:configs("topic", %q)) do found[entry.name] = entry.value end
      for i = 1, 5 do values[i] = found[names[i]] end
      return values
    ]==], topic, topic, topic)
    assert.same({ "1001", "1002", "1003", "0.25", "1004" }, set)
  end)

  it("reads and changes a broker's", function()
    assert.is_true((run "return admin:alter_configs('broker', 1, { ['log.cleaner.threads'] = '2' })"))
    local found
    process.wait_until(function()
      for _, entry in ipairs(run "return admin:configs('broker', 1)") do
        if entry.name == "log.cleaner.threads" then found = entry end
      end
      return found.value == "2"
    end, 20, "the change")
    assert.equal("DYNAMIC_BROKER_CONFIG", found.source)
    assert.is_true((run "return admin:alter_configs('broker', 1, { ['log.cleaner.threads'] = false })"))
  end)

  it("lists groups, what they have committed, and commits and deletes", function()
    local topic = shared:topic(2)
    assert.same({ topic = topic, partition = 1, offset = 7 },
      run([[return admin:commit("set", { { topic = %q, partition = 1, offset = 7 } })]], topic)[1])
    local groups = {}
    for _, group in ipairs(run "return admin:groups()") do groups[group.id] = group.state end
    assert.equal("Empty", groups.set)
    local group = run [[return admin:group "set"]]
    assert.same({ "set", "Empty", 1, 0 }, { group.id, group.state, group.coordinator, #group.members })
    assert.same({ { topic = topic, partition = 1, offset = 7 } }, run [[return admin:committed "set"]])
    local both = run([[
      return admin:committed("set", { { topic = %q, partition = 0 }, { topic = %q, partition = 1 } })
    ]], topic, topic)
    assert.same({ 7 }, { both[2].offset })
    assert.is_true(both[1].offset < 0)
    run([[return admin:forget("set", { { topic = %q, partition = 1 } })]], topic)
    assert.same({}, run [[return admin:committed "set"]])
    assert.is_true((run [[return admin:delete_group "set"]]))
    assert.equal("GROUP_ID_NOT_FOUND", run [[return select(3, admin:delete_group "set")]])
  end)

  it("waits for a coordinator that has just become one", function()
    local OFFSET_COMMIT, OFFSET_FETCH, LOADING, NOT_COORDINATOR = 8, 9, 14, 16
    local mock = client.C.kafka_mock_new(1, ffi.new("struct error"))
    client.C.kafka_mock_topic(mock, "t", 1)
    local own = gateway.start(CONFIG:format(ffi.string(client.C.kafka_mock_servers(mock)), silent_port),
      { plugins = { runs = RUNS } })
    local function said(code)
      local response = own:request { path = "/", body = "local kafka = ...\n" .. code }
      return cjson.decode(response.body).said[1]
    end
    client.C.kafka_mock_fail(mock, OFFSET_COMMIT, NOT_COORDINATOR, 3)
    assert.same({ { topic = "t", partition = 0, offset = 7 } },
      said [[return kafka.admin():commit("new", { { topic = "t", partition = 0, offset = 7 } })]])
    client.C.kafka_mock_fail(mock, OFFSET_FETCH, LOADING, 1)
    client.C.kafka_mock_fail(mock, OFFSET_FETCH, NOT_COORDINATOR, 2)
    assert.equal(7, said([[return kafka.admin():committed("new", { { topic = "t", partition = 0 } })]])[1].offset)
    client.C.kafka_mock_fail(mock, OFFSET_COMMIT, NOT_COORDINATOR, 1000)
    assert.equal("NOT_COORDINATOR", said([[return kafka.admin("main", { timeout = 0.5 }):commit("new",
      { { topic = "t", partition = 0, offset = 8 } })]])[1].error.code)
    own:stop()
    client.C.kafka_mock_free(mock)
  end)

  it("creates, finds and deletes access control lists", function()
    local acl = { resource_type = "TOPIC", resource_name = "guarded", pattern_type = "PREFIXED", principal = "User:ann",
      host = "*", operation = "READ", permission = "ALLOW" }
    assert.equal(1, #run [[return admin:create_acls { { resource_type = "TOPIC", resource_name = "guarded",
      pattern_type = "PREFIXED", principal = "User:ann", host = "*", operation = "READ", permission = "ALLOW" } }]])
    local found
    process.wait_until(function()
      found = run [[return admin:acls { principal = "User:ann" }]]
      return #found == 1
    end, 20, "the list")
    assert.same({ acl }, found)
    assert.same({ acl }, run [[return admin:delete_acls { { resource_type = "TOPIC", operation = "READ" } }]])
    process.wait_until(function() return #run [[return admin:acls()]] == 0 end, 20, "its end")
    assert.equal("invalid", run [[return select(3, admin:acls { operation = "DANCE" })]])
    assert.is_nil(acl.error)
  end)

  it("ends in time when no broker is there, or one that says nothing", function()
    for _, name in ipairs { "away", "silent" } do
      for _, call in ipairs { "metadata()", "groups()", "offsets { { topic = 't', partition = 0 } }" } do
        local err, code = run("return select(2, kafka.admin(%q, { timeout = 0.3 }):%s)", name, call)
        assert.is_truthy(UNREACHED[code], tostring(err) .. " " .. tostring(code))
      end
    end
  end)

  it("goes with its cluster, and with its worker, whatever is still asked", function()
    local own = gateway.start(CONFIG:format(shared.servers, silent_port), { plugins = { runs = RUNS } })
    local response = own:request { path = "/", body = [[
      local kafka, sluice = ...
      local silent, told = kafka.admin("silent", { timeout = 120 }), {}
      for i, ask in ipairs { "groups", "metadata", "metadata", "metadata", "groups" } do
        sluice.timer.at(0, function() told[i] = select(3, silent[ask](silent)) or "none" end)
      end
      sluice.sleep(0.3)
      GONE = told
      return #told
    ]] }
    assert.same({ 0 }, cjson.decode(response.body).said)
    own:write_config((CONFIG:format(shared.servers, silent_port):gsub("    silent:[^\n]+\n", "")))
    process.wait_until(function()
      local told = own:request { path = "/",
        body = "local n = 0 for i = 1, 5 do if GONE[i] then n = n + 1 end end return n" }
      return told.status == 200 and cjson.decode(told.body).said[1] == 5
    end, 20, "the end of what was asked of a cluster that left")
    local codes = cjson.decode(own:request({ path = "/", body = "return GONE" }).body).said[1]
    assert.same({ "closed", "closed", "closed", "closed", "closed" }, codes)
    own:request { path = "/", body = [[
      local kafka, sluice = ...
      local away = kafka.admin("away", { timeout = 120 })
      for _ = 1, 5 do sluice.timer.at(0, function() away:metadata() away:groups() end) end
      sluice.sleep(0.2)
    ]] }
    assert.equal(0, (own:stop()))
  end)

  it("refuses clusters that there are not, and names with a zero", function()
    assert.equal("cluster", run [[return select(3, kafka.admin("nowhere"):groups())]])
    assert.equal("invalid", run [[return select(3, admin:topic("a\0b"))]])
  end)

  it("bounds what is asked at one time", function()
    assert.equal("full", run [[
      local away, codes = kafka.admin("away", { timeout = 1 }), {}
      for i = 1, 300 do
        sluice.timer.at(0, function() codes[i] = select(3, away:groups()) or "none" end)
      end
      sluice.sleep(0.2)
      for _, code in pairs(codes) do if code == "full" then return code end end
      return "never"
    ]])
  end)
end)
