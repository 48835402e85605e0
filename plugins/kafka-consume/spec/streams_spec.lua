-- SPDX-License-Identifier: Apache-2.0
-- Streams of records: what each client gets, whoever else reads.
local cjson = require "cjson"
local spec = require "sluice.spec"
local schema_registry = require "spec.support.schema_registry"

describe("kafka-consume, streams", function()
  local gateway

  local function open_gateway(config, records, more)
    config.topics = config.topics or { { name = "news" } }
    config.mode = config.mode or "server-sent-events"
    local options = { topics = { news = { partitions = 2, records = records } },
      plugins = { { name = "kafka-consume", config = config } } }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  local function open(headers)
    local client = gateway:connect()
    client:send { path = "/", headers = headers }
    return client
  end

  local function seen(client)
    return (select(2, client:partial()))
  end

  -- Until the client has got so many bytes that match.
  local function await(client, pattern, plain)
    gateway:run_until(function() return seen(client):find(pattern, 1, plain) end, 10)
    return seen(client)
  end

  it("sends clients lines of JSON when they ask for them, and in mode ndjson", function()
    open_gateway({ mode = "ndjson", message_deserializer = "json" })
    local client, asking = open(), open { Accept = "application/x-ndjson" }
    gateway:produce("news", { key = "k", value = '{"n":[]}', headers = { h = "1" }, partition = 1, timestamp = 5 })
    for _, one in ipairs { client, asking } do
      assert.equal("application/x-ndjson", one:partial().headers["content-type"])
      assert.equal('\n{"topic":"news","partition":1,"offset":0,"timestamp":5,"key":"k","headers":[{"name":"h",'
        .. '"value":"1"}],"value":{"n":[]}}\n', await(one, "}\n", true))
    end
    assert.equal("text/event-stream", open { Accept = "text/event-stream" }:partial().headers["content-type"])
  end)

  it("tells bytes that are no text in base64", function()
    open_gateway { mode = "ndjson" }
    local client = open()
    gateway:produce("news", { key = "\255", value = "a\0\254", partition = 0 })
    local record = cjson.decode(await(client, "}\n", true))
    assert.same({ "/w==", "YQD+" }, { record.key_base64, record.value_base64 })
    assert.is_nil(record.value)
  end)

  it("tells names of headers that are no text in base64, too", function()
    open_gateway { mode = "ndjson" }
    local client = open()
    gateway:produce("news", { value = "v", headers = { { "\255", "\254" } }, partition = 0 })
    assert.same({ { name_base64 = "/w==", value_base64 = "/g==" } }, cjson.decode(await(client, "}\n", true)).headers)
  end)

  it("sends a value that is no text as an event of its own kind", function()
    open_gateway {}
    local client = open()
    gateway:produce("news", { value = "a\0\254", partition = 0 })
    gateway:produce("news", { value = "text", partition = 0 })
    assert.equal(":\n\nid: 0/0,1/-1\nevent: base64\ndata: YQD+\n\nid: 0/1,1/-1\ndata: text\n\n",
      await(client, "data: text", true))
  end)

  it("sends only records that meet the filter, and tells in ids that others have passed", function()
    open_gateway { heartbeat = 500, filter = { keys = { "a", "b" }, headers = { kind = { "x", "y" } } } }
    local client = open()
    gateway:produce("news", { key = "c", value = "1", headers = { kind = "x" }, partition = 0 })
    gateway:produce("news", { key = "a", value = "2", headers = { kind = "z" }, partition = 0 })
    gateway:produce("news", { value = "3", headers = { kind = "x" }, partition = 0 })
    gateway:produce("news", { key = "b", value = "4", headers = { kind = "y" }, partition = 0 })
    assert.equal(":\n\nid: 0/3,1/-1\ndata: 4\n\n", await(client, "data: 4", true))
    gateway:produce("news", { key = "c", value = "5", headers = { kind = "x" }, partition = 1 })
    assert.matches("data: 4\n\nid: 0/3,1/0\n\n$", await(client, "1/0\n\n", true))
    assert.matches("1/0\n\n:\n\n$", await(client, "1/0\n\n:\n\n", true))
  end)

  it("filters by the beginning of keys", function()
    open_gateway { filter = { key_prefix = "order." } }
    local client = open()
    gateway:produce("news", { key = "bill.1", value = "1", partition = 0 })
    gateway:produce("news", { key = "order.1", value = "2", partition = 0 })
    assert.equal(":\n\nid: 0/1,1/-1\ndata: 2\n\n", await(client, "data: 2", true))
  end)

  it("leaves out, and sets aside, a record that a function fails with", function()
    open_gateway({ enable_dlq = true, dlq_topic = "dead", message_by_lua_functions = {
      "return function(message) if message.value == 'bad' then error('no good') end return message end" } })
    local client = open()
    gateway:produce("news", { key = "k", value = "bad", partition = 1, timestamp = 99,
      headers = { h = "1", ["dead-letter-reason"] = "old" } })
    gateway:produce("news", { value = "good", partition = 1 })
    assert.equal(":\n\nid: 1/1,0/-1\ndata: good\n\n", await(client, "data: good", true))
    local dead = gateway:records("dead")
    assert.equal(1, #dead)
    assert.same({ "k", "bad" }, { dead[1].key, dead[1].value })
    local headers = dead[1].headers
    assert.matches("no good", headers["dead-letter-reason"])
    assert.same({ "1", "news", "1", "0", "99", ("%d"):format(gateway:now() * 1000) }, { headers.h,
      headers["dead-letter-topic"], headers["dead-letter-partition"], headers["dead-letter-offset"],
      headers["dead-letter-timestamp"], headers["dead-letter-time"] })
    assert.is_truthy(gateway:log("a record was left out"))
  end)

  it("leaves out a record that takes too long, for all who come to it", function()
    open_gateway({ enable_dlq = true, dlq_topic = "dead", message_by_lua_functions = {
      "return function(message) while message.value == 'endless' do end return message end" } },
      nil, { gateway = { plugin_cpu_budget_ms = 20, kafka = { main = { ["bootstrap.servers"] = "127.0.0.1:1" } } } })
    local client = open()
    gateway:produce("news", { value = "endless", partition = 1 })
    gateway:produce("news", { value = "good", partition = 1 })
    assert.equal(":\n\nid: 1/1,0/-1\ndata: good\n\n", await(client, "data: good", true))
    assert.matches("CPU budget", gateway:records("dead")[1].headers["dead-letter-reason"])
    assert.matches('"value":"good"', gateway:get("/?partition=1&offset=0", { Accept = "application/x-ndjson" }).body)
  end)

  it("goes on behind Last-Event-ID before what is live, without a gap or a duplicate", function()
    open_gateway { }
    local first = open()
    for i = 1, 6 do gateway:produce("news", { value = "v" .. i, partition = i % 2 }) end
    local text = await(first, "data: v6", true)
    local id = text:match("id: ([^\n]+)\ndata: v3")
    assert.equal("1/1,0/0", id)
    local again = open { ["Last-Event-ID"] = id }
    gateway:produce("news", { value = "v7", partition = 1 })
    local got = {}
    for value in await(again, "data: v7", true):gmatch("data: (%w+)") do got[#got + 1] = value end
    assert.same({ "v4", "v5", "v6", "v7" }, got)
    assert.matches("id: 1/3,0/2\ndata: v7", seen(again))
  end)

  it("sends old records, then live ones, where it begins with the earliest", function()
    local records = {}
    for i = 1, 200 do records[i] = { value = "old" .. i, partition = 0 } end
    open_gateway({ auto_offset_reset = "earliest" }, records)
    local client = open()
    await(client, "data: old200\n", true)
    gateway:produce("news", { value = "new", partition = 0 })
    local text = await(client, "data: new\n", true)
    assert.equal(201, select(2, text:gsub("data: ", "")))
    assert.matches("id: 0/200,1/%-1\ndata: new\n\n$", text)
  end)

  local BIG = ("x"):rep(64 * 1024)

  -- More than the window of 4 MB, while the client does not read.
  local function flood()
    for i = 1, 90 do gateway:produce("news", { value = ("%03d"):format(i) .. BIG, partition = 0 }) end
    gateway:settle()
  end

  local function numbers(text)
    local got = {}
    for number in text:gmatch("data: (%d%d%d)x") do got[#got + 1] = tonumber(number) end
    return got
  end

  it("has a slow client catch up, and get everything", function()
    open_gateway {}
    local slow, quick = open(), open()
    slow:pause()
    flood()
    assert.equal(90, #numbers(await(quick, "data: 090", true)))
    slow:resume()
    local got = numbers(await(slow, "data: 090", true))
    for i = 1, 90 do assert.equal(i, got[i]) end
    gateway:produce("news", { value = "end", partition = 1 })
    assert.matches("id: 1/0,0/89\ndata: end\n\n$", await(slow, "data: end\n\n", true))
  end)

  it("has a slow client skip, and tells it so", function()
    open_gateway { slow_clients = "skip" }
    local slow = open()
    slow:pause()
    flood()
    slow:resume()
    local text = await(slow, "event: gap", true)
    assert.same({ positions = { ["0"] = 90, ["1"] = 0 } }, cjson.decode(text:match("event: gap\ndata: ([^\n]+)\n\n")))
    assert.is_true(#numbers(text) < 90)
    gateway:produce("news", { value = "end", partition = 1 })
    assert.matches("id: 1/0,0/89\ndata: end\n\n$", await(slow, "data: end\n\n", true))
  end)

  it("disconnects a slow client, to come back where it was", function()
    open_gateway { slow_clients = "disconnect" }
    local slow = open()
    slow:pause()
    flood()
    slow:resume()
    local body = slow:receive(10).body
    local got = numbers(body)
    assert.is_true(#got < 90)
    assert.equal(got[#got] - 1, tonumber(body:match(".*id: 0/(%d+)")))
  end)

  it("lets a client that is behind and slow keep nobody else from catching up", function()
    local records = {}
    for i = 1, 60 do records[i] = { value = ("%03d"):format(i) .. BIG, partition = 0 } end
    open_gateway({ auto_offset_reset = "earliest" }, records)
    local slow = {}
    for i = 1, 32 do
      slow[i] = gateway:connect()
      slow[i]:pause()
      slow[i]:send "/"
    end
    local client = open()
    gateway:advance(5)
    assert.equal(0, #numbers(seen(client)))
    await(client, "data: 060", true)
    assert.equal(60, #numbers(seen(client)))
    -- Who gave its place away has lost nothing.
    for i = 1, 3 do
      slow[i]:resume()
      local got = numbers(await(slow[i], "data: 060", true))
      for n = 1, 60 do assert.equal(n, got[n]) end
    end
  end)

  it("goes on through a reload, also where it changes what others get", function()
    open_gateway {}
    local client = open()
    assert.is_true(gateway:reload { plugins = { { name = "kafka-consume", config = {
      topics = { { name = "news" } }, mode = "server-sent-events", event = "record" } } } })
    local other = open()
    gateway:produce("news", { value = "a", partition = 0 })
    assert.matches("\ndata: a\n", await(client, "data", true))
    assert.matches('\ndata: {"topic":"news"', await(other, "data", true))
  end)

  it("counts its clients, and those that were read for on their own", function()
    open_gateway({ auto_offset_reset = "earliest" }, { { value = "a", partition = 0 } },
      { plugins = { { name = "prometheus" }, { name = "kafka-consume", config = { topics = { { name = "news" } },
        mode = "server-sent-events", auto_offset_reset = "earliest" } } } })
    local client, other = open(), open()
    await(client, "data: a", true)
    await(other, "data: a", true)
    gateway:advance(3)
    local text = gateway:connect({ listener = "status" }):request("/metrics").body
    assert.matches('sluice_kafka_consume_clients{topic="news",form="server-sent events"', text, 1, true)
    assert.matches('form="server%-sent events"[^\n]*} 2\n', text)
    assert.matches('sluice_kafka_consume_catch_ups_total{topic="news",form="server-sent events"} 2', text, 1, true)
  end)

  it("ends its reader some time after the last client, and begins another for the next", function()
    open_gateway {}
    local client = open()
    client:close()
    gateway:advance(10)
    local again = open()
    gateway:produce("news", { value = "a", partition = 0 })
    assert.matches("data: a", await(again, "data: a", true))
  end)

  it("sends a client records of one key, where the configuration lets it ask for them", function()
    open_gateway({ key_argument = "customer" }, { { key = "b", value = "old", partition = 1 } })
    local client, again = gateway:connect(), gateway:connect()
    client:send "/?customer=b"
    gateway:produce("news", { key = "a", value = "1", partition = 0 })
    gateway:produce("news", { key = "b", value = "2", partition = 0 })
    assert.equal(":\n\nid: 0/1,1/0\ndata: 2\n\n", await(client, "data: 2", true))
    again:send { path = "/?customer=b", headers = { ["Last-Event-ID"] = "0/-1,1/-1" } }
    assert.matches("data: old.*data: 2\n\n$", await(again, "data: 2", true))
    assert.is_nil(seen(again):find("data: 1", 1, true))
  end)

  describe("phase consume", function()
    local MASK = [[
      local mask = { version = "1.0.0", priority = 10 }
      function mask.consume(conf, exchange, record)
        if record.value == "drop" then return nil end
        if record.value == "fail" then error("on purpose") end
        record.value = record.value:gsub("%d", "*") .. " for " .. exchange.request:get_header("x-who")
        return record
      end
      return mask ]]

    local function open_masked(config)
      open_gateway(config, nil, { plugins_code = { mask = MASK },
        plugins = { { name = "mask" }, { name = "kafka-consume", config = config } } })
    end

    it("lets plugins of the route mask and drop records, for each client by itself", function()
      open_masked {}
      local one, two = open { ["X-Who"] = "one" }, open { ["X-Who"] = "two" }
      gateway:produce("news", { value = "card 1234", partition = 0 })
      gateway:produce("news", { value = "drop", partition = 0 })
      gateway:produce("news", { value = "end", partition = 0 })
      assert.equal(":\n\nid: 0/0,1/-1\ndata: card **** for one\n\nid: 0/2,1/-1\ndata: end for one\n\n",
        await(one, "data: end", true))
      assert.matches("data: card **** for two", await(two, "data: end", true), 1, true)
    end)

    it("ends the stream when one of them fails, for what it would have hidden must not be seen", function()
      open_masked { mode = "ndjson", heartbeat = 500 }
      local client = open { ["X-Who"] = "me" }
      await(client, "\n\n\n", true) -- heartbeats
      gateway:produce("news", { value = "fail", partition = 0 })
      local lines = client:receive(5).body
      assert.same({ error = { message = "a plugin failed in phase consume" } }, cjson.decode(lines))
    end)
  end)

  describe("values by schemas of a registry", function()
    local registry, away

    local function open_with(config, topics)
      registry = schema_registry.new()
      registry:add("news-value", { text = '{"type":"record","name":"n","fields":[{"name":"id","type":"int"}]}' })
      away = false
      config.schema_registry = topics and nil or { confluent = { url = "http://registry.test:8081" } }
      config.topics = topics
      open_gateway(config, nil, { dns = { ["registry.test"] = "10.0.0.8" }, upstreams = {
        ["registry.test"] = function(request)
          if away then return { status = 503 } end
          return registry.answer(request)
        end } })
    end

    it("are told as JSON, and those that fit none are set aside", function()
      open_with { event = "record", enable_dlq = true, dlq_topic = "dead" }
      local client = open()
      gateway:produce("news", { value = "no schema", partition = 0 })
      gateway:produce("news", { value = "\0\0\0\0\1\14", partition = 0 })
      gateway:produce("news", { partition = 0 })
      local text = await(client, '"value":null', true)
      assert.matches('"value":{"id":7}', text, 1, true)
      assert.is_nil(text:find("no schema", 1, true))
      assert.equal("no schema", gateway:records("dead")[1].value)
    end)

    it("have keys by their schemas, where they are of one", function()
      open_with { mode = "ndjson", filter = { keys = { "ada", '{"n":3}', "\0raw" } }, key_argument = "key" }
      registry:add("news-key", { text = '"string"' })
      registry:add("other-key", { text = '{"type":"record","name":"k","fields":[{"name":"n","type":"int"}]}' })
      local client, one = open(), gateway:connect()
      one:send { path = "/?key=ada" }
      for _, key in ipairs { "\0\0\0\0\2\6ada", "\0\0\0\0\3\6", "\0raw", "\0\0\0\0\2\6bob" } do
        gateway:produce("news", { key = key, value = "\0\0\0\0\1\14", partition = 0 })
      end
      gateway:produce("news", { key = "ada", value = "\0\0\0\0\1\16", partition = 0 })
      local text = await(client, '"id":8}}\n', true)
      for _, key in ipairs { '"key":"ada"', '"key":"{\\"n\\":3}"', '"key":"\\u0000raw"' } do
        assert(text:find(key, 1, true), key .. " in " .. text)
      end
      assert.is_nil(text:find("bob", 1, true))
      local _, count = await(one, '"id":8}}\n', true):gsub('"key":"ada"', "")
      assert.equal(2, count)
    end)

    it("are Avro's own JSON when that is asked for", function()
      open_with({ mode = "ndjson" }, { { name = "news", schema_registry = { confluent = {
        url = "http://registry.test:8081", avro_form = "avro" } } } })
      registry:add("news-value", { text = '["null","int"]' })
      local client = open()
      gateway:produce("news", { value = "\0\0\0\0\2\2\14", partition = 0 })
      assert.matches('"value":{"int":7}', await(client, "}\n", true), 1, true)
    end)

    it("may have a registry for each topic", function()
      open_with({ mode = "ndjson" }, { { name = "news", schema_registry = { confluent = {
        url = "http://registry.test:8081" } } } })
      local client = open()
      gateway:produce("news", { value = "\0\0\0\0\1\14", partition = 0 })
      assert.matches('"value":{"id":7}', await(client, "}\n", true), 1, true)
    end)

    it("wait for a registry that is away", function()
      open_with {}
      local client = open()
      away = true
      gateway:produce("news", { value = "\0\0\0\0\1\14", partition = 0 })
      gateway:advance(3)
      assert.is_nil(seen(client):find("data", 1, true))
      away = false
      assert.matches('data: {"id":7}', await(client, "data", true), 1, true)
    end)
  end)
end)
