-- SPDX-License-Identifier: Apache-2.0
-- kafka-rest over a real broker: what it says of the cluster is so, what it is told to do is done.
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local gateway = require "spec.support.gateway"
local net = require "spec.support.net"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local CLUSTER = "c2x1aWNlLXNwZWMta2Fmaw"

local CONFIG = [[
_format_version: "3.0"
gateway:
  trusted_plugins: [late]
  kafka:
    main: { bootstrap.servers: "%s" }
    away: { bootstrap.servers: "127.0.0.1:1" }
routes:
- { name: rest, paths: [/], plugins: [{ name: late },
    { name: kafka-rest, config: { advertised_url: "http://rest.example" } }] }
- { name: below, paths: [/kafka], plugins: [{ name: kafka-rest }] }
- { name: looking, paths: [/looking], plugins: [{ name: kafka-rest, config: { operations: [read] } }] }
- { name: schemas, paths: [/schemas], plugins: [{ name: kafka-rest, config: {
    schema_registry: { confluent: { url: "http://127.0.0.1:%d/registry" } } } }] }
- { name: named, paths: [/named], plugins: [{ name: kafka-rest, config: {
    schema_registry: { confluent: { url: "%s" } } } }] }
- { name: registry, paths: [/registry], plugins: [{ name: request-termination, config: {
    status_code: 200, content_type: application/json,
    body: '{"subject":"any","version":3,"id":5,"schema":"\"int\""}' } }] }
- { name: away, paths: [/away], plugins: [{ name: kafka-rest, config: { cluster: away, timeout: 300 } }] }
]]

local JSON, BINARY = "application/vnd.kafka.json.v2+json", "application/vnd.kafka.binary.v2+json"

-- A schema registry, in a process of its own.
local function serve(request, connection)
  if not _G.schema_registry then
    package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
    dofile "lua/sluice/iterate.lua"
    local registry = require("spec.support.schema_registry").new()
    registry:add("street", { text = '{"type":"enum","name":"Street","symbols":["HIGH"]}' })
    registry:add("address", { text = '{"type":"record","name":"Address","fields":[{"name":"s","type":"Street"}]}',
      references = { { name = "Street", subject = "street", version = 1 } } })
    registry:add("person", { text = '{"type":"record","name":"Person","fields":[{"name":"a","type":"Address"}]}',
      references = { { name = "Address", subject = "address", version = 1 } } })
    _G.schema_registry = registry
  end
  connection:read_body()
  local answer = _G.schema_registry:handle { method = request.method, path = request.target:match("^[^?]*"),
    headers = request.headers, body = request.body }
  connection:respond(answer.status, answer.headers, answer.body)
end

-- A broker that is late to tell of topics whose names begin with "late-": many looks at one see nothing of it, and when
-- it is there many see no more than its first two partitions.
local LATE = [[
local function make_late()
  local Admin = getmetatable(package.loaded["sluice.kafka"].admin("main")).__index
  local topic, looks = Admin.topic, {}
  function Admin:topic(name)
    local found, err, code = topic(self, name)
    if name:sub(1, 5) ~= "late-" then return found, err, code end
    looks[name] = (looks[name] or 0) + 1
    if looks[name] <= 40 then return nil, "not yet", "UNKNOWN_TOPIC_OR_PART" end
    if found and looks[name] <= 80 then found.partitions[3], found.partitions[4] = nil, nil end
    return found, err, code
  end
end
return { version = "1", priority = 2000, init_worker = make_late }
]]

describe("kafka-rest with a real broker", function()
  local shared, gw, registry

  setup(function()
    shared = broker.shared()
    registry = upstream.start(serve)
    gw = gateway.start(function(self) return CONFIG:format(shared.servers, self.port, registry:url()) end,
      { plugins = { late = LATE } })
  end)

  teardown(function()
    if gw then gw:stop() end
    if registry then registry:stop() end
  end)

  local function ask(method, path, body, headers)
    headers = headers or {}
    if body then headers["Content-Type"] = headers["Content-Type"] or "application/json" end
    local response = gw:request { method = method, path = path, headers = headers,
      body = body and (type(body) == "string" and body or cjson.encode(body)) or nil }
    local text = response.body
    local ok, value = pcall(cjson.decode, text ~= "" and text or "null")
    return response.status, ok and value or text, response
  end

  local function v3(method, path, body)
    return ask(method, "/v3/clusters/" .. CLUSTER .. path, body)
  end

  -- The JSON objects of a text, one a line.
  local function lines_of(text)
    local list = {}
    for line in text:gmatch("[^\n]+") do list[#list + 1] = cjson.decode(line) end
    return list
  end

  describe("v3", function()
    it("lists the one cluster, and shows it", function()
      local status, list = ask("GET", "/v3/clusters")
      assert.equal(200, status)
      assert.equal("KafkaClusterList", list.kind)
      local self = "http://rest.example/v3/clusters/" .. CLUSTER
      assert.same({ kind = "KafkaCluster", cluster_id = CLUSTER,
        metadata = { self = self, resource_name = "crn:///kafka=" .. CLUSTER },
        controller = { related = self .. "/brokers/1" }, acls = { related = self .. "/acls" },
        brokers = { related = self .. "/brokers" }, broker_configs = { related = self .. "/broker-configs" },
        consumer_groups = { related = self .. "/consumer-groups" }, topics = { related = self .. "/topics" },
        partition_reassignments = { related = self .. "/topics/-/partitions/-/reassignment" },
      }, list.data[1])
      local _, one = v3("GET", "")
      assert.same(list.data[1], one)
    end)

    it("knows no other cluster", function()
      local status, body = ask("GET", "/v3/clusters/other/topics")
      assert.same({ 404, 404 }, { status, body.error_code })
    end)

    it("shows brokers and what they hold", function()
      local _, list = v3("GET", "/brokers")
      assert.same({ "KafkaBrokerList", 1, "127.0.0.1", shared.port },
        { list.kind, list.data[1].broker_id, list.data[1].host, list.data[1].port })
      local _, one = v3("GET", "/brokers/1")
      assert.same(list.data[1], one)
      assert.same({ 404, 404 }, { v3("GET", "/brokers/7"), select(2, v3("GET", "/brokers/7")).error_code })
      local topic = shared:topic(2)
      local held = 0
      for _, replica in ipairs(select(2, v3("GET", "/brokers/1/partition-replicas")).data) do
        if replica.topic_name == topic then held = held + 1 end
      end
      assert.equal(2, held)
    end)

    it("creates, shows, enlarges and deletes a topic", function()
      local status, made, response = v3("POST", "/topics", { topic_name = "rest-made", partitions_count = 2,
        replication_factor = 1, configs = { { name = "cleanup.policy", value = "compact" } } })
      assert.equal(201, status, response.body)
      assert.same({ "KafkaTopic", "rest-made", 2, 1, false },
        { made.kind, made.topic_name, made.partitions_count, made.replication_factor, made.is_internal })
      assert.equal(made.metadata.self, response.headers.location)
      local _, shown = v3("GET", "/topics/rest-made")
      assert.same(made, shown)
      local listed
      for _, topic in ipairs(select(2, v3("GET", "/topics")).data) do
        if topic.topic_name == "rest-made" then listed = topic end
      end
      assert.same(made, listed)
      local _, larger = v3("PATCH", "/topics/rest-made", { partitions_count = 4 })
      assert.equal(4, larger.partitions_count)
      status = v3("DELETE", "/topics/rest-made")
      assert.equal(204, status)
      process.wait_until(function() return v3("GET", "/topics/rest-made") == 404 end, 20, "its end")
      local _, gone = v3("GET", "/topics/rest-made")
      assert.equal(40403, gone.error_code)
    end)

    it("shows what was made or enlarged as it is, however late the broker tells of it", function()
      local name = "late-" .. shared:topic()
      local _, made = v3("POST", "/topics", { topic_name = name, partitions_count = 2, replication_factor = 1 })
      assert.equal(2, made.partitions_count)
      local _, larger = v3("PATCH", "/topics/" .. name, { partitions_count = 4 })
      assert.equal(4, larger.partitions_count)
    end)

    it("says why a topic cannot be made", function()
      local topic = shared:topic()
      local function code(body)
        local status, answer = v3("POST", "/topics", body)
        return { status, answer.error_code }
      end
      assert.same({ 400, 40002 }, code { topic_name = topic })
      assert.same({ 400, 40002 }, code { topic_name = "new-one", replication_factor = 5 })
      assert.same({ 400, 40002 }, code { topic_name = "new-one", configs = { { name = "no.such", value = "1" } } })
      assert.same({ 400, 400 }, code { partitions_count = 1 })
      assert.same({ 400, 400 }, code { topic_name = "new-one", partitions_count = "many" })
      assert.same({ 400, 400 }, code "{")
      local status, made = v3("POST", "/topics", { topic_name = "only-looked", partitions_count = 3,
        validate_only = true })
      assert.same({ 200, 3 }, { status, made.partitions_count })
      assert.equal(404, (v3("GET", "/topics/only-looked")))
    end)

    it("shows partitions and replicas", function()
      local topic = shared:topic(2)
      local path = "/topics/" .. topic .. "/partitions"
      local _, list = v3("GET", path)
      assert.same({ "KafkaPartitionList", 2, 1 }, { list.kind, #list.data, list.data[2].partition_id })
      local _, one = v3("GET", path .. "/1")
      assert.same(list.data[2], one)
      local _, replicas = v3("GET", path .. "/1/replicas")
      assert.same({ 1, true, true }, { replicas.data[1].broker_id, replicas.data[1].is_leader,
        replicas.data[1].is_in_sync })
      local _, replica = v3("GET", path .. "/1/replicas/1")
      assert.same(replicas.data[1], replica)
      assert.same({ 404, 40403 }, { v3("GET", path .. "/2"), select(2, v3("GET", path .. "/2")).error_code })
      assert.equal(404, (v3("GET", path .. "/1/replicas/2")))
    end)

    it("reads and changes configurations", function()
      local topic = shared:topic(1, { ["cleanup.policy"] = "compact" })
      local path = "/topics/" .. topic .. "/configs"
      local status, policy = v3("GET", path .. "/cleanup.policy")
      assert.equal(200, status)
      assert.same({ "KafkaTopicConfig", topic, "compact", false, "DYNAMIC_TOPIC_CONFIG", "compact" },
        { policy.kind, policy.topic_name, policy.value, policy.is_default, policy.source, policy.synonyms[1].value })
      assert.equal(204, (v3("PUT", path .. "/delete.retention.ms", { value = "1234" })))
      assert.equal("1234", select(2, v3("GET", path .. "/delete.retention.ms")).value)
      assert.equal("compact", select(2, v3("GET", path .. "/cleanup.policy")).value)
      assert.equal(204, (v3("DELETE", path .. "/delete.retention.ms")))
      assert.is_true(select(2, v3("GET", path .. "/delete.retention.ms")).is_default)
      assert.equal(204, (v3("POST", path .. ":alter", { data = { { name = "segment.ms", value = "9000" },
        { name = "cleanup.policy", operation = "DELETE" } } })))
      assert.equal("9000", select(2, v3("GET", path .. "/segment.ms")).value)
      assert.equal("delete", select(2, v3("GET", path .. "/cleanup.policy")).value)
      assert.equal(204, (v3("POST", path .. ":alter", { data = { { name = "segment.ms", value = "1" } },
        validate_only = true })))
      assert.equal("9000", select(2, v3("GET", path .. "/segment.ms")).value)
      local _, list = v3("GET", path)
      assert.is_true(list.kind == "KafkaTopicConfigList" and #list.data > 20)
      local _, bad = v3("PUT", path .. "/delete.retention.ms", { value = "soon" })
      assert.equal(40002, bad.error_code)
      assert.equal(404, (v3("GET", path .. "/no.such")))
      assert.equal(404, (v3("GET", "/topics/nobody-asked-this/configs")))
    end)

    it("reads and changes a broker's configuration, and shows what was set", function()
      local path = "/brokers/1/configs"
      assert.equal(204, (v3("PUT", path .. "/log.cleaner.threads", { value = "2" })))
      local entry
      process.wait_until(function()
        entry = select(2, v3("GET", path .. "/log.cleaner.threads"))
        return entry.value == "2"
      end, 20, "the change")
      assert.same({ "KafkaBrokerConfig", 1, "DYNAMIC_BROKER_CONFIG" }, { entry.kind, entry.broker_id, entry.source })
      local _, all = v3("GET", "/brokers/-/configs")
      local found = false
      for _, one in ipairs(all.data) do found = found or one.name == "log.cleaner.threads" end
      assert.is_true(found)
      assert.equal(204, (v3("DELETE", path .. "/log.cleaner.threads")))
      local status, list = v3("GET", "/broker-configs")
      assert.same({ 200, "KafkaClusterConfigList" }, { status, list.kind })
    end)

    it("says what it cannot ask a cluster", function()
      local topic = shared:topic()
      for _, path in ipairs { "/topics/-/partitions/-", "/topics/" .. topic .. "/partitions/-",
        "/topics/" .. topic .. "/partitions/0" } do
        local status, body = v3("GET", path .. "/reassignment")
        assert.same({ 400, 40002 }, { status, body.error_code })
        assert.matches("cannot ask for reassignments", body.message, 1, true)
      end
      local change = { data = { { name = "log.cleaner.threads", value = "2" } } }
      for _, request in ipairs { { "POST", ":alter" }, { "PUT", "/log.cleaner.threads" },
        { "DELETE", "/log.cleaner.threads" } } do
        local status, body = v3(request[1], "/broker-configs" .. request[2], change)
        assert.same({ 400, 40002 }, { status, body.error_code })
      end
    end)

    it("creates, finds and deletes access control lists", function()
      local acl = { resource_type = "TOPIC", resource_name = "rest-guarded", pattern_type = "LITERAL",
        principal = "User:bob", host = "*", operation = "WRITE", permission = "DENY" }
      assert.equal(201, (v3("POST", "/acls", acl)))
      local list
      process.wait_until(function()
        list = select(2, v3("GET", "/acls?principal=User%3Abob"))
        return #list.data == 1
      end, 20, "the list")
      assert.same({ "KafkaAclList", "KafkaAcl", "User:bob", "DENY" },
        { list.kind, list.data[1].kind, list.data[1].principal, list.data[1].permission })
      local query = "?resource_type=TOPIC&pattern_type=ANY&operation=ANY&permission=ANY&principal=User%3Abob"
      local status, gone = v3("DELETE", "/acls" .. query)
      assert.same({ 200, "rest-guarded" }, { status, gone.data[1].resource_name })
      assert.equal(400, (v3("DELETE", "/acls?principal=User%3Abob")))
      assert.equal(400, (v3("GET", "/acls?operation=DANCE")))
      acl.operation = "DANCE"
      assert.equal(400, (v3("POST", "/acls", acl)))
      acl.operation = "READ"
      assert.equal(201, (v3("POST", "/acls:batch", { data = { acl } })))
      process.wait_until(function()
        return #select(2, v3("DELETE", "/acls" .. query)).data == 1
      end, 20, "the batch")
    end)

    local function produce(topic, body, headers)
      return ask("POST", "/v3/clusters/" .. CLUSTER .. "/topics/" .. topic .. "/records", body, headers)
    end

    it("produces a record of bytes, and says where it is", function()
      local topic = shared:topic(2)
      local status, entry = produce(topic, { partition_id = 1, headers = { { name = "h", value = "aGVhZA==" } },
        key = { type = "BINARY", data = "a2V5" }, value = { type = "BINARY", data = "dmFsdWU=" },
        timestamp = "2021-02-05T19:14:42Z" })
      assert.equal(200, status)
      assert.same({ error_code = 200, cluster_id = CLUSTER, topic_name = topic, partition_id = 1, offset = 0,
        timestamp = "2021-02-05T19:14:42.000Z", key = { type = "BINARY", size = 3 },
        value = { type = "BINARY", size = 5 } }, entry)
    end)

    it("produces many records of one request, and tells each in its order, with what is wrong with some", function()
      local topic = shared:topic(1, { ["max.message.bytes"] = 2000 })
      local texts = {}
      for i = 1, 30 do texts[i] = cjson.encode { value = { type = "JSON", data = { number = i } } } end
      texts[7] = '{ "value": { "type": "BINARY", "data": "%%%" } }'
      texts[9] = cjson.encode { partition_id = 5, value = { type = "STRING", data = "x" } }
      texts[11] = cjson.encode { value = { type = "STRING", data = ("x"):rep(5000) } }
      texts[13] = cjson.encode { value = { data = "x" } }
      local status, _, response = produce(topic, table.concat(texts, "\n"))
      assert.equal(200, status)
      local entries = lines_of(response.body)
      assert.equal(30, #entries)
      local codes, offsets = {}, {}
      for i, entry in ipairs(entries) do
        if entry.error_code == 200 then offsets[#offsets + 1] = entry.offset else codes[i] = entry.error_code end
      end
      assert.same({ [7] = 40002, [9] = 40403, [11] = 40002, [13] = 42205 }, codes)
      table.sort(offsets) -- those that were sent once more may stand behind later ones
      for i = 1, 26 do assert.equal(i - 1, offsets[i]) end
    end)

    it("keeps the order of records", function()
      local topic, texts = shared:topic(), {}
      for i = 1, 2000 do texts[i] = cjson.encode { value = { type = "JSON", data = i } } end
      local _, _, response = produce(topic, table.concat(texts))
      local entries = lines_of(response.body)
      assert.equal(2000, #entries)
      for i, entry in ipairs(entries) do assert.equal(i - 1, entry.offset) end
    end)

    it("tells entries while the body is still being sent", function()
      local topic = shared:topic()
      local client = assert(net.connect("127.0.0.1", gw.port, { timeout = gw.timeout }))
      client:send("POST /v3/clusters/" .. CLUSTER .. "/topics/" .. topic .. "/records HTTP/1.1\r\nHost: x\r\n"
        .. "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
      local function send(text)
        client:send(("%x\r\n%s\r\n"):format(#text, text))
      end
      for i = 0, 2 do
        send('{"value":{"type":"JS')
        send('ON","data":' .. i .. "}}")
        local seen = client:receive_until('"offset":' .. i)
        assert.is_truthy(seen)
      end
      send("nonsense")
      assert.is_truthy(client:receive_until('"error_code":400'))
      client:close()
    end)

    it("produces by schemas of a registry, and says which", function()
      local topic = shared:topic()
      local function entry(value)
        return select(2, ask("POST", "/schemas/v3/clusters/" .. CLUSTER .. "/topics/" .. topic .. "/records",
          { value = value }))
      end
      local datum = { type = "AVRO", subject = topic .. "-value", schema_id = 5, schema_version = 3, size = 6 }
      local said = entry({ data = 7 })
      assert.same(datum, said.value, said.message)
      assert.same(datum, entry({ schema_version = 3, data = 7 }).value)
      assert.same(datum, entry({ schema_id = 5, data = 7 }).value)
      assert.same(datum, entry({ type = "AVRO", schema = '"int"', data = 7 }).value)
      datum.subject = "mine"
      assert.same(datum, entry({ subject = "mine", data = 7 }).value)
      assert.equal(42203, entry({ data = "text" }).error_code)
      assert.equal(400, entry({ schema = '"int"', data = 7 }).error_code)
      assert.equal(400, entry({ type = "XML", data = 7 }).error_code)
      assert.equal(400, entry({ subject_name_strategy = "RECORD_NAME", data = 7 }).error_code)
      datum.subject = topic .. "-shop.Order"
      local record = '{"type":"record","name":"Order","namespace":"shop","fields":[]}'
      assert.equal(datum.subject, entry({ type = "AVRO", schema = record, data = 7,
        subject_name_strategy = "TOPIC_RECORD_NAME" }).value.subject)
    end)

    describe("with the name of a record as its subject", function()
      local function entry(value)
        local topic = shared:topic()
        local _, said = ask("POST", "/named/v3/clusters/" .. CLUSTER .. "/topics/" .. topic .. "/records",
          { value = value })
        return said, topic
      end

      local KINDS = {
        AVRO = { '{"type":"record","name":"Order","namespace":"shop","fields":[]}', "shop.Order" },
        JSONSCHEMA = { '{"title":"Order","type":"object"}', "Order" },
        PROTOBUF = { 'syntax = "proto3"; package shop.v1; message Order {} message Other {}', "shop.v1.Order" },
      }
      for kind, schema in pairs(KINDS) do
        it("produces by " .. kind, function()
          local said = entry { type = kind, schema = schema[1], subject_name_strategy = "RECORD_NAME", data = {} }
          assert.equal(200, said.error_code, said.message)
          assert.same({ schema[2], 1 }, { said.value.subject, said.value.schema_version })
          local id = said.value.schema_id
          local again, topic = entry { schema_id = id, subject_name_strategy = "TOPIC_RECORD_NAME", data = {} }
          assert.equal(200, again.error_code, again.message)
          assert.same({ topic .. "-" .. schema[2], id }, { again.value.subject, again.value.schema_id })
        end)
      end

      it("says what has none", function()
        local said = entry { type = "JSONSCHEMA", schema = "{}", subject_name_strategy = "RECORD_NAME", data = {} }
        assert.same({ 42205, "value: the schema has no name" }, { said.error_code, said.message })
        said = entry { type = "PROTOBUF", schema = "nonsense", subject_name_strategy = "RECORD_NAME", data = {} }
        assert.equal(42205, said.error_code)
        assert.equal(400, entry({ subject_name_strategy = "RECORD_NAME", data = {} }).error_code)
        said = entry { schema_id = 999, subject_name_strategy = "RECORD_NAME", data = {} }
        assert.same({ 42205, "value: schema 999: Schema 999 not found" }, { said.error_code, said.message })
      end)

      it("tells the version of a schema whose types come from others in turn", function()
        local said = entry { schema_id = 3, subject = "person", data = { a = { s = "HIGH" } } }
        assert.same({ 200, 1 }, { said.error_code, (said.value or {}).schema_version }, said.message)
      end)

      it("tells once where data do not fit", function()
        local said = entry { schema_id = 3, subject = "person", data = { a = { s = "LOW" } } }
        assert.equal(42203, said.error_code)
        assert.truthy(said.message:find("^value: /a/s: [^/]*$"), said.message)
      end)
    end)

    it("produces batches with ids", function()
      local topic = shared:topic()
      local path = "/topics/" .. topic .. "/records:batch"
      local status, body = v3("POST", path, { entries = {
        { id = "a", value = { type = "STRING", data = "one" } }, { id = "b", value = { type = "BINARY", data = "!" } },
        { id = "c", value = { type = "STRING", data = "two" } } } })
      assert.equal(207, status)
      assert.same({ "a", 0, "c", 1 }, { body.successes[1].id, body.successes[1].offset, body.successes[2].id,
        body.successes[2].offset })
      assert.same({ "b", 40002 }, { body.failures[1].id, body.failures[1].error_code })
      assert.equal(422, (v3("POST", path, { entries = { { id = "a" }, { id = "a" } } })))
      assert.equal(422, (v3("POST", path, {})))
    end)

    it("says what is wrong with names that can be no topic, and with bodies that are none", function()
      local status, entry = produce("no%20topic", { value = { type = "STRING", data = "x" } })
      assert.same({ 200, 40002 }, { status, entry.error_code })
      status, entry = produce(shared:topic(), "nonsense")
      assert.same({ 400, 400 }, { status, entry.error_code })
      status, entry = produce(shared:topic(), "")
      assert.same({ 400, 400 }, { status, entry.error_code })
      status, entry = produce(shared:topic(), '{"value":')
      assert.same({ 400, 400 }, { status, entry.error_code })
    end)
  end)

  describe("v2", function()
    it("shows brokers, topics, partitions and offsets", function()
      local topic = shared:topic(2)
      local _, brokers, response = ask("GET", "/brokers")
      assert.same({ brokers = { 1 } }, brokers)
      assert.equal("application/vnd.kafka.v2+json", response.headers["content-type"])
      local _, names = ask("GET", "/topics")
      local found = false
      for _, name in ipairs(names) do found = found or name == topic end
      assert.is_true(found)
      local _, one = ask("GET", "/topics/" .. topic)
      local view = { partition = 1, leader = 1, replicas = { { broker = 1, leader = true, in_sync = true } } }
      assert.same({ topic, "delete", view }, { one.name, one.configs["cleanup.policy"], one.partitions[2] })
      local _, list = ask("GET", "/topics/" .. topic .. "/partitions")
      assert.same(one.partitions, list)
      assert.same(view, select(2, ask("GET", "/topics/" .. topic .. "/partitions/1")))
      local _, offsets = ask("GET", "/topics/" .. topic .. "/partitions/1/offsets")
      assert.same({ beginning_offset = 0, end_offset = 0 }, offsets)
      assert.equal(40401, select(2, ask("GET", "/topics/nobody-asked-this")).error_code)
      assert.equal(40402, select(2, ask("GET", "/topics/" .. topic .. "/partitions/2")).error_code)
    end)

    it("produces JSON and bytes, with keys and partitions", function()
      local topic = shared:topic(2)
      local status, body, response = ask("POST", "/topics/" .. topic,
        '{"records":[{"key":"k","value":{"b": 1.50, "a":[ ]},"partition":1},{"value":"text","partition":0}]}',
        { ["Content-Type"] = JSON })
      assert.equal(200, status, response.body)
      assert.same({ 1, 0 }, { body.offsets[1].partition, body.offsets[1].offset })
      assert.same({ 0, 0, cjson.null }, { body.offsets[2].partition, body.offsets[2].offset,
        body.offsets[2].error_code })
      assert.equal(cjson.null, body.key_schema_id)
      status, body = ask("POST", "/topics/" .. topic .. "/partitions/1", { records = { { value = "AAEC" } } },
        { ["Content-Type"] = BINARY })
      assert.same({ 200, 1, 1 }, { status, body.offsets[1].partition, body.offsets[1].offset })
    end)

    it("tells a bad record among good ones", function()
      local topic = shared:topic(1, { ["max.message.bytes"] = 2000 })
      local status, body = ask("POST", "/topics/" .. topic,
        { records = { { value = "a" }, { value = ("x"):rep(5000) }, { value = "b", partition = 9 }, { value = "c" } } },
        { ["Content-Type"] = JSON })
      assert.equal(200, status)
      local offsets = { body.offsets[1].offset, body.offsets[4].offset }
      table.sort(offsets) -- of what the broker refused with another the good one may be sent again later
      assert.same({ 0, 1 }, offsets)
      assert.same({ 50002, 50002, cjson.null }, { body.offsets[2].error_code, body.offsets[3].error_code,
        body.offsets[2].offset })
      assert.is_string(body.offsets[2].error)
    end)

    it("tells a partition that does not exist, known or not", function()
      local topic = shared:topic()
      for _ = 1, 2 do
        local status, body = ask("POST", "/topics/" .. topic, { records = { { value = "b", partition = 9 } } },
          { ["Content-Type"] = JSON })
        assert.same({ 200, 50002 }, { status, body.offsets[1].error_code })
        local _, entry = ask("POST", "/v3/clusters/" .. CLUSTER .. "/topics/" .. topic .. "/records",
          { partition_id = 9, value = { type = "STRING", data = "x" } })
        assert.equal(40403, entry.error_code)
        ask("POST", "/topics/" .. topic, { records = { { value = "a" } } }, { ["Content-Type"] = JSON })
      end
    end)

    it("refuses bodies that say nothing, formats that there are not, names that can be no topic", function()
      local topic = shared:topic()
      local function code(path, body, headers)
        local status, answer = ask("POST", path, body, headers)
        return { status, answer.error_code }
      end
      assert.same({ 422, 422 }, code("/topics/" .. topic, { records = {} }, { ["Content-Type"] = JSON }))
      assert.same({ 422, 422 }, code("/topics/" .. topic, "{", { ["Content-Type"] = JSON }))
      assert.same({ 422, 422 },
        code("/topics/" .. topic, { records = { { value = "%" } } }, { ["Content-Type"] = BINARY }))
      assert.same({ 415, 415 }, code("/topics/" .. topic, "x", { ["Content-Type"] = "text/plain" }))
      assert.same({ 400, 40002 }, code("/topics/no%20topic", { records = { { value = "x" } } },
        { ["Content-Type"] = JSON }))
      assert.same({ 404, 40402 }, code("/topics/" .. topic .. "/partitions/3", { records = { { value = "x" } } },
        { ["Content-Type"] = JSON }))
      assert.same({ 422, 42202 }, code("/topics/" .. topic, { records = { { value = "x" } } },
        { ["Content-Type"] = "application/vnd.kafka.avro.v2+json" }))
      assert.equal(406, (ask("GET", "/brokers", nil, { Accept = "text/html" })))
    end)
  end)

  it("stands below a prefix, and its links too", function()
    local _, list = ask("GET", "/kafka/v3/clusters")
    assert.equal("http://127.0.0.1:" .. gw.port .. "/kafka/v3/clusters", list.metadata.self)
    assert.same({ brokers = { 1 } }, select(2, ask("GET", "/kafka/brokers")))
  end)

  it("offers what its operations say", function()
    assert.equal(200, (ask("GET", "/looking/brokers")))
    assert.equal(403,
      (ask("POST", "/looking/topics/x", { records = { { value = "x" } } }, { ["Content-Type"] = JSON })))
    assert.equal(403, (ask("DELETE", "/looking/v3/clusters/" .. CLUSTER .. "/topics/x")))
  end)

  it("knows no other paths and methods", function()
    assert.equal(404, select(2, ask("GET", "/v3/nothing")).error_code)
    local status, body, response = ask("DELETE", "/v3/clusters")
    assert.same({ 405, 405, "GET" }, { status, body.error_code, response.headers.allow })
  end)

  it("says in time that no broker is there", function()
    local status, body = ask("GET", "/away/brokers")
    assert.same({ 500, 50003 }, { status, body.error_code })
    status, body = ask("POST", "/away/topics/x", { records = { { value = "x" } } }, { ["Content-Type"] = JSON })
    assert.same({ 200, 50003 }, { status, body.offsets[1].error_code })
  end)
end)
