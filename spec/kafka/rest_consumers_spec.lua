-- SPDX-License-Identifier: Apache-2.0
-- Consumer instances of kafka-rest with a real broker: any worker may be asked, one of them has the instance.
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local CLUSTER = "c2x1aWNlLXNwZWMta2Fmaw"

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s", fetch.wait.max.ms: 20, session.timeout.ms: 6000 }
routes:
- { name: rest, paths: [/], plugins: [{ name: kafka-rest }] }
- { name: few, paths: [/few], plugins: [{ name: kafka-rest, config: {
    consumers_max: 0, prefix: /few } }] }
- { name: short, paths: [/short], plugins: [{ name: kafka-rest, config: {
    consumer_idle_timeout: 1000, prefix: /short } }] }
]]

local V2, JSON = "application/vnd.kafka.v2+json", "application/vnd.kafka.json.v2+json"
local BINARY = "application/vnd.kafka.binary.v2+json"

describe("consumer instances of kafka-rest", function()
  local shared, gw
  local names = 0

  setup(function()
    shared = broker.shared()
    gw = gateway.start(CONFIG:format(shared.servers), { workers = 3 })
  end)

  teardown(function() if gw then gw:stop() end end)

  local function ask(method, path, body, headers)
    headers = headers or {}
    if body then headers["Content-Type"] = headers["Content-Type"] or V2 end
    local response = gw:request { method = method, path = path, headers = headers,
      body = body and (type(body) == "string" and body or cjson.encode(body)) or nil }
    local ok, value = pcall(cjson.decode, response.body ~= "" and response.body or "null")
    return response.status, ok and value or response.body, response
  end

  local function code(method, path, body, headers)
    local status, answer = ask(method, path, body, headers)
    return { status, answer.error_code }
  end

  local function produce(topic, ...)
    local records = {}
    for i, value in ipairs { ... } do records[i] = { value = value, partition = 0 } end
    assert.equal(200, (ask("POST", "/topics/" .. topic, { records = records }, { ["Content-Type"] = JSON })))
  end

  -- A new instance in a group of its own: its path.
  local function create(options, group)
    names = names + 1
    local body = { name = "i" .. names, format = "json", ["auto.offset.reset"] = "earliest" }
    for name, value in pairs(options or {}) do body[name] = value end
    local status, made, response = ask("POST", "/consumers/" .. (group or "group" .. names), body)
    assert.equal(200, status, response.body)
    assert.equal(body.name, made.instance_id)
    local path = made.base_uri:match("^http://127.0.0.1:" .. gw.port .. "(/.*)$")
    return assert(path, made.base_uri)
  end

  local function read(path, query, accept)
    return ask("GET", path .. "/records" .. (query or ""), nil, { Accept = accept or JSON })
  end

  -- Reads until so many records have come.
  local function read_all(path, most, query, seconds)
    local all = {}
    process.wait_until(function()
      local status, list, response = read(path, query)
      assert.equal(200, status, response.body .. gw:log())
      for _, record in ipairs(list) do all[#all + 1] = record end
      return #all >= most
    end, seconds or 20, most .. " records")
    return all
  end

  it("read what they are subscribed to, from any worker", function()
    local topic = shared:topic()
    produce(topic, "a", { b = 1 }, 3)
    local path = create()
    assert.equal(204, (ask("POST", path .. "/subscription", { topics = { topic } })))
    assert.same({ topics = { topic } }, select(2, ask("GET", path .. "/subscription")))
    local all = read_all(path, 3)
    assert.same({ topic = topic, partition = 0, offset = 0, key = cjson.null, value = "a" }, all[1])
    assert.same({ b = 1 }, all[2].value)
    produce(topic, "d")
    assert.equal("d", read_all(path, 1)[1].value)
    assert.same({ partitions = { { topic = topic, partition = 0 } } }, select(2, ask("GET", path .. "/assignments")))
    assert.equal(204, (ask("DELETE", path)))
    assert.same({ 404, 40403 }, code("DELETE", path))
    assert.same({ 404, 40403 }, code("GET", path .. "/records"))
  end)

  it("of v1 read the topic that they are first asked for", function()
    local topic, other = shared:topic(), shared:topic()
    produce(topic, "a", "b")
    local path = create { ["auto.offset.reset"] = "smallest" }
    local all, type_of_answer = {}, nil
    process.wait_until(function()
      local status, list, response = ask("GET", path .. "/topics/" .. topic, nil,
        { Accept = "application/vnd.kafka.json.v1+json" })
      assert.equal(200, status, response.body)
      type_of_answer = response.headers["content-type"]
      for _, record in ipairs(list) do all[#all + 1] = record.value end
      return #all >= 2
    end, 20, "two records")
    assert.same({ "a", "b" }, all)
    assert.equal("application/vnd.kafka.json.v1+json", type_of_answer)
    assert.same({ 409, 40901 }, code("GET", path .. "/topics/" .. other))
    assert.same({ 406, 40601 }, code("GET", path .. "/topics/" .. topic, nil,
      { Accept = "application/vnd.kafka.binary.v1+json" }))
    assert.same({ 404, 40401 }, code("GET", path .. "/topics/no%20name"))
    assert.equal(200, (ask("POST", path .. "/offsets", nil, { Accept = "application/vnd.kafka.v1+json" })))
    assert.equal(204, (ask("DELETE", path, nil, { Accept = "application/vnd.kafka.v1+json" })))
    assert.same({ 404, 40403 }, code("GET", path .. "/topics/" .. topic))
  end)

  it("give bytes, keys, and the format that was asked for", function()
    local topic = shared:topic()
    ask("POST", "/topics/" .. topic, { records = { { key = "AAE=", value = "/w==" } } }, { ["Content-Type"] = BINARY })
    local path = create { format = "BINARY" }
    ask("POST", path .. "/subscription", { topics = { topic } })
    local list
    process.wait_until(function()
      list = select(2, read(path, nil, BINARY))
      return #list == 1
    end, 10, "the record")
    assert.same({ "AAE=", "/w==" }, { list[1].key, list[1].value })
    assert.same({ 406, 40601 }, code("GET", path .. "/records", nil, { Accept = JSON }))
    local _, _, response = read(path, "?timeout=10", "*/*")
    assert.equal(BINARY, response.headers["content-type"])
    ask("DELETE", path)
  end)

  it("tell a record of another format, and give those around it", function()
    local topic = shared:topic()
    produce(topic, "a", "b")
    ask("POST", "/topics/" .. topic, { records = { { value = "/w==" } } }, { ["Content-Type"] = BINARY })
    produce(topic, "c")
    local path, all, failures = create(), {}, {}
    ask("POST", path .. "/subscription", { topics = { topic } })
    process.wait_until(function()
      local status, list = read(path, "?timeout=200")
      if status ~= 200 then failures[#failures + 1] = { status, list.error_code } end
      for _, record in ipairs(status == 200 and list or {}) do all[#all + 1] = record.value end
      return #all >= 3
    end, 20, "three records")
    assert.same({ { "a", "b", "c" }, { { 500, 50002 } } }, { all, failures })
    ask("DELETE", path)
  end)

  it("bound what they give, and lose nothing of it", function()
    local topic = shared:topic()
    produce(topic, ("a"):rep(100), ("b"):rep(100), ("c"):rep(100))
    local path = create()
    ask("POST", path .. "/subscription", { topics = { topic } })
    local all = {}
    process.wait_until(function()
      local _, list = read(path, "?max_bytes=250")
      assert.is_true(#list <= 2)
      for _, record in ipairs(list) do all[#all + 1] = record.value:sub(1, 1) end
      return #all == 3
    end, 10, "three records")
    assert.same({ "a", "b", "c" }, all)
    ask("DELETE", path)
  end)

  it("commit what they gave, or what they are told", function()
    local topic, group = shared:topic(), "commits"
    produce(topic, 1, 2, 3, 4)
    local path = create({ ["auto.commit.enable"] = "false" }, group)
    ask("POST", path .. "/subscription", { topics = { topic } })
    read_all(path, 4)
    local question = { partitions = { { topic = topic, partition = 0 } } }
    assert.same({ offsets = {} }, select(2, ask("GET", path .. "/offsets", question)))
    local status, done, response = ask("POST", path .. "/offsets",
      { offsets = { { topic = topic, partition = 0, offset = 1, metadata = "two" } } })
    assert.same({ 200, {}, "[]" }, { status, done, response.body })
    -- The offset told is that of a record, and the group goes on behind it.
    assert.same({ offsets = { { topic = topic, partition = 0, offset = 2, metadata = "two" } } },
      select(2, ask("GET", path .. "/offsets", question)))
    assert.same({ 404, 40402 }, code("GET", path .. "/offsets"))
    assert.equal(200, (ask("POST", path .. "/offsets")))
    assert.equal(4, select(2, ask("GET", path .. "/offsets", question)).offsets[1].offset)
    ask("DELETE", path)
    produce(topic, 5)
    path = create(nil, group)
    ask("POST", path .. "/subscription", { topics = { topic } })
    assert.equal(5, read_all(path, 1)[1].value)
    ask("DELETE", path)
    assert.equal(5, select(2, ask("GET", create(nil, group) .. "/offsets", question)).offsets[1].offset)
  end)

  it("go to other places", function()
    local topic = shared:topic()
    produce(topic, 1, 2, 3)
    local path = create()
    ask("POST", path .. "/subscription", { topics = { topic } })
    read_all(path, 3)
    local partitions = { partitions = { { topic = topic, partition = 0 } } }
    assert.equal(204,
      (ask("POST", path .. "/positions", { offsets = { { topic = topic, partition = 0, offset = 1 } } })))
    assert.equal(2, read_all(path, 2)[1].value)
    assert.equal(204, (ask("POST", path .. "/positions/beginning", partitions)))
    assert.equal(1, read_all(path, 3)[1].value)
    assert.equal(204, (ask("POST", path .. "/positions/beginning", partitions)))
    assert.equal(204, (ask("POST", path .. "/positions/end", partitions)))
    produce(topic, 4)
    assert.equal(4, read_all(path, 1)[1].value)
    assert.same({ 409, 40903 },
      code("POST", path .. "/positions", { offsets = { { topic = topic, partition = 7, offset = 1 } } }))
    ask("DELETE", path)
  end)

  it("read partitions that they were assigned", function()
    local topic = shared:topic(2)
    produce(topic, "in 0")
    local path = create()
    local partitions = { partitions = { { topic = topic, partition = 0 } } }
    assert.equal(204, (ask("POST", path .. "/assignments", partitions)))
    assert.same(partitions, select(2, ask("GET", path .. "/assignments")))
    assert.equal("in 0", read_all(path, 1)[1].value)
    assert.same({ 409, 40903 }, code("POST", path .. "/subscription", { topics = { topic } }))
    ask("DELETE", path)
  end)

  it("read topics of a pattern, and stop reading", function()
    local topic = shared:topic()
    produce(topic, "x")
    local path = create()
    assert.equal(204, (ask("POST", path .. "/subscription", { topic_pattern = topic:gsub("%p", "[%0]") .. "$" })))
    assert.equal("x", read_all(path, 1)[1].value)
    assert.same({ topics = { topic } }, select(2, ask("GET", path .. "/subscription")))
    assert.same({ 409, 40903 }, code("POST", path .. "/subscription", { topics = { topic } }))
    assert.equal(204, (ask("DELETE", path .. "/subscription")))
    assert.same({ 409, 40903 }, code("GET", path .. "/records"))
    assert.equal(204, (ask("POST", path .. "/subscription", { topics = { topic } })))
    assert.same({ 409, 40903 }, code("POST", path .. "/subscription", { topics = { topic }, topic_pattern = "x" }))
    ask("DELETE", path)
  end)

  it("share a group's partitions, which v3 shows with their lags", function()
    local topic, group = shared:topic(2), "shown"
    produce(topic, 1, 2, 3)
    local path = create({ ["auto.commit.enable"] = "false" }, group)
    ask("POST", path .. "/subscription", { topics = { topic } })
    read_all(path, 3)
    ask("POST", path .. "/offsets", { offsets = { { topic = topic, partition = 0, offset = 0 } } })
    local base = "/v3/clusters/" .. CLUSTER .. "/consumer-groups/" .. group
    local _, shown = ask("GET", base)
    assert.same({ "KafkaConsumerGroup", group, "STABLE", false },
      { shown.kind, shown.consumer_group_id, shown.state, shown.is_simple })
    local listed = false
    for _, one in ipairs(select(2, ask("GET", "/v3/clusters/" .. CLUSTER .. "/consumer-groups")).data) do
      listed = listed or one.consumer_group_id == group
    end
    assert.is_true(listed)
    local consumer = select(2, ask("GET", base .. "/consumers")).data[1]
    assert.equal("KafkaConsumer", consumer.kind)
    local one = base .. "/consumers/" .. consumer.consumer_id
    assert.same(consumer, select(2, ask("GET", one)))
    local assignments = select(2, ask("GET", one .. "/assignments")).data
    assert.same({ 2, "KafkaConsumerAssignment", topic }, { #assignments, assignments[1].kind,
      assignments[1].topic_name })
    assert.same(assignments[2], select(2, ask("GET", one .. "/assignments/" .. topic .. "/partitions/1")))
    local lags = select(2, ask("GET", base .. "/lags")).data
    assert.same({ 1, "KafkaConsumerLag", 1, 3, 2, consumer.consumer_id },
      { #lags, lags[1].kind, lags[1].current_offset, lags[1].log_end_offset, lags[1].lag, lags[1].consumer_id })
    assert.same(lags[1], select(2, ask("GET", base .. "/lags/" .. topic .. "/partitions/0")))
    local _, summary = ask("GET", base .. "/lag-summary")
    assert.same({ 2, 2, topic, 0 }, { summary.max_lag, summary.total_lag, summary.max_lag_topic_name,
      summary.max_lag_partition_id })
    assert.same({ 404, 404 }, code("GET", "/v3/clusters/" .. CLUSTER .. "/consumer-groups/nobody-made-this"))
    assert.equal(404, (ask("GET", base .. "/consumers/nobody")))
    ask("DELETE", path)
  end)

  it("are known by their names, once in a group", function()
    local path = create({ name = "same" }, "named")
    assert.same({ 409, 40902 }, code("POST", "/consumers/named", { name = "same" }))
    local status, made = ask("POST", "/consumers/named", {})
    assert.same({ 200, "rest-consumer-" }, { status, made.instance_id:sub(1, 14) })
    ask("DELETE", path)
    assert.equal(200, (ask("POST", "/consumers/named", { name = "same" })))
    made = select(2, ask("POST", "/consumers/named", { id = "first", name = "second" }))
    assert.equal("first", made.instance_id)
  end)

  it("are refused with options that are none", function()
    local function refused(body) return code("POST", "/consumers/wrong", body) end
    assert.same({ 422, 42204 }, refused { format = "xml" })
    assert.same({ 422, 42204 }, refused { ["auto.offset.reset"] = "soon" })
    assert.same({ 422, 42204 }, refused { ["fetch.min.bytes"] = "many" })
    assert.same({ 422, 42204 }, refused { ["no.such"] = 1 })
    assert.same({ 422, 42204 }, refused { name = "a/b" })
    assert.same({ 422, 422 }, code("POST", create() .. "/subscription", { topics = {} }))
    assert.same({ 422, 422 }, code("POST", create() .. "/assignments", { partitions = { { topic = "x" } } }))
    assert.same({ 409, 40903 }, code("GET", create() .. "/records"))
  end)

  it("are bounded in number", function()
    local status, body, response = ask("POST", "/few/consumers/group", {})
    assert.same({ 429, 429, "1" }, { status, body.error_code, response.headers["retry-after"] })
  end)

  it("are made again when their worker was killed, and go on behind what was committed", function()
    local topic, group = shared:topic(), "killed"
    produce(topic, 1, 2)
    local path = create({ ["auto.commit.enable"] = "false" }, group)
    ask("POST", path .. "/subscription", { topics = { topic } })
    read_all(path, 2)
    assert.equal(200, (ask("POST", path .. "/offsets", { offsets = { { topic = topic, partition = 0, offset = 0 } } })))
    local before = gw:workers()
    for _, pid in ipairs(before) do posix.kill(pid, posix.SIGKILL) end
    process.wait_until(function()
      local now = gw:workers()
      return #now == 3 and now[1] ~= before[1] and now[2] ~= before[2] and now[3] ~= before[3]
    end, 10, "new workers")
    assert.same({ 404, 40403 }, code("GET", path .. "/subscription"))
    path = create(nil, group)
    ask("POST", path .. "/subscription", { topics = { topic } })
    -- The broker keeps the place of the member that died for its session.
    local all = read_all(path, 1, nil, 60)
    assert.equal(2, all[1].value)
    ask("DELETE", path)
  end)

  it("end when nobody uses them", function()
    assert.equal(200, (ask("POST", "/short/consumers/group", { name = "short" })))
    process.wait_until(function() -- until then the name is taken
      return ask("POST", "/short/consumers/group", { name = "short" }) == 200
    end, 10, "its end")
  end)
end)
