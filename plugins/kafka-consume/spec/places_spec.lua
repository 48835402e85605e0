-- SPDX-License-Identifier: Apache-2.0
-- Answers that end, several topics, WebSockets, and the newest value of a key.
local cjson = require "cjson"
local spec = require "sluice.spec"

describe("kafka-consume", function()
  local gateway

  local function open_gateway(config, topics, more)
    config.topics = config.topics or { { name = "news" } }
    local options = { topics = topics or { news = { partitions = 2 } },
      plugins = { { name = "kafka-consume", config = config } } }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  local function fill(count, from)
    for i = from or 1, (from or 1) + count - 1 do
      gateway:produce("news", { key = "k" .. i, value = "v" .. i, partition = i % 2, timestamp = 1000 * i })
    end
  end

  local function values(response, topic)
    assert.equal(200, response.status, response.body)
    local list = {}
    for _, partition in pairs(cjson.decode(response.body)[topic or "news"].partitions) do
      for _, record in ipairs(partition.records) do list[#list + 1] = record.value end
    end
    table.sort(list)
    return table.concat(list, " ")
  end

  local function next_of(response)
    return response.headers.link:match('^<([^>]+)>; rel="next"$')
  end

  describe("http-get", function()
    it("answers with the records of a partition's range, in Kong's form", function()
      open_gateway { message_deserializer = "json" }
      gateway:produce("news", { key = "k", value = '{"n":1}', partition = 1, timestamp = 5, headers = { h = "x" } })
      gateway:produce("news", { value = "b", partition = 1, timestamp = 6 })
      local response = gateway:get("/?partition=1&offset=0&limit=1")
      assert.equal("application/json; charset=utf-8", response.headers["content-type"])
      assert.same({ news = { partitions = { ["1"] = { errcode = 0, high_watermark = 2, records = { {
        topic = "news", partition = 1, offset = 0, timestamp = 5, key = "k", value = { n = 1 },
        headers = { { name = "h", value = "x" } } } } } } } }, cjson.decode(response.body))
      assert.equal("b", values(gateway:get("/?partition=1&offset=1")))
    end)

    it("answers with what a range has, from its start to its end, and with nothing where nothing is", function()
      open_gateway {}
      fill(10)
      assert.equal("v10 v2 v4 v6 v8", values(gateway:get("/?partition=0")))
      assert.equal("v4 v6", values(gateway:get("/?partition=0&offset=1&to=2")))
      assert.equal("v8", values(gateway:get("/?partition=0&offset=3&limit=1")))
      assert.equal("", values(gateway:get("/?partition=0&offset=5")))
      assert.equal('{"news":{"partitions":{}}}', gateway:get("/?partition=0&offset=5").body)
    end)

    it("answers with lines to who accepts them", function()
      open_gateway {}
      fill(4)
      local response = gateway:get("/?partition=0", { Accept = "application/x-ndjson" })
      assert.equal("application/x-ndjson", response.headers["content-type"])
      local lines = {}
      for line in response.body:gmatch("[^\n]+") do lines[#lines + 1] = cjson.decode(line).value end
      assert.same({ "v2", "v4" }, lines)
    end)

    it("goes on where an answer ended, over all partitions", function()
      open_gateway { max_records = 3 }
      fill(7)
      local response = gateway:get("/?since=0")
      local seen = { values(response) }
      for i = 2, 3 do
        response = gateway:get(next_of(response))
        seen[i] = values(response)
      end
      local all = {}
      for value in table.concat(seen, " "):gmatch("%S+") do all[#all + 1] = value end
      table.sort(all)
      assert.same({ "v1", "v2", "v3", "v4", "v5", "v6", "v7" }, all)
      assert.equal('{"news":{"partitions":{}}}', gateway:get(next_of(response)).body)
    end)

    it("begins at a time", function()
      open_gateway {}
      fill(6)
      assert.equal("v4 v5 v6", values(gateway:get("/?since=4000")))
      assert.equal('{"news":{"partitions":{}}}', gateway:get("/?since=7000").body)
    end)

    it("waits for the next record as long as the client will, and no longer than max_wait", function()
      open_gateway { max_wait = 20000 }
      fill(2)
      local place = next_of(gateway:get("/?since=0"))
      local client = gateway:connect()
      client:send { path = place, headers = { Prefer = "respond-async, wait=10" } }
      gateway:advance(5)
      assert.is_nil(client:received())
      gateway:produce("news", { value = "new", partition = 0 })
      local response = client:receive(1)
      assert.equal("new", values(response))
      assert.equal("wait=10", response.headers["preference-applied"])
      local before = gateway:now()
      assert.equal('{"news":{"partitions":{}}}', gateway:get(next_of(response) .. "&wait=3000").body)
      local waited = gateway:now() - before
      assert.is_true(waited > 19 and waited < 22, tostring(waited))
    end)

    it("waits at the end of a partition's range that goes beyond it", function()
      open_gateway {}
      fill(2)
      local client = gateway:connect()
      client:send "/?partition=1&offset=1&to=5&wait=10"
      gateway:produce("news", { value = "other", partition = 0 })
      gateway:advance(1)
      assert.is_nil(client:received())
      gateway:produce("news", { value = "new", partition = 1 })
      assert.equal("new", values(client:receive(1)))
    end)

    it("refuses what it does not understand", function()
      open_gateway {}
      for query, text in pairs { ["partition=x"] = "whole numbers", ["partition=0&offset=-1"] = "whole numbers",
        ["partition=0&offset=5&to=4"] = "before offset", ["partition=0&topic=other"] = "topic must be",
        ["limit=0&since=1"] = "limit", ["since=x"] = "since", ["after=x"] = "after" } do
        local response = gateway:get("/?" .. query)
        assert.equal(400, response.status, query)
        assert.matches(text, response.body, 1, true)
      end
      assert.equal(404, gateway:get("/?partition=7").status)
      local response = gateway:post("/", "x")
      assert.same({ 405, "GET, HEAD" }, { response.status, response.headers.allow })
      assert.equal(200, gateway:request({ method = "HEAD", path = "/" }).status)
    end)

    it("leaves out what filters and plugins drop", function()
      open_gateway({ filter = { keys = { "k2", "k4" } } }, nil, { plugins_code = { mask = [[
        return { version = "1.0.0", priority = 1, consume = function(conf, exchange, record)
          if record.value == "v4" then return nil end
          record.value = record.value .. "!"
          return record
        end } ]] }, plugins = { { name = "mask" }, { name = "kafka-consume", config = { topics = { { name = "news" } },
          filter = { keys = { "k2", "k4" } } } } } })
      fill(6)
      assert.equal("v2!", values(gateway:get("/?since=0")))
    end)
  end)

  describe("several topics", function()
    local function open_two(mode)
      open_gateway({ mode = mode, topics = { { name = "news" }, { name = "other" } } },
        { news = { partitions = 2 }, other = {} })
    end

    it("are one stream, whose ids tell the places in all of them", function()
      open_two "server-sent-events"
      local client = gateway:connect()
      client:send "/"
      gateway:produce("news", { value = "a", partition = 1 })
      gateway:produce("other", { value = "b" })
      gateway:settle()
      local text = select(2, client:partial())
      assert.equal(":\n\nid: news/1/0,news/0/-1,other/0/-1\ndata: a\n\n"
        .. "id: other/0/0,news/0/-1,news/1/0\ndata: b\n\n", text)
      gateway:produce("other", { value = "c" })
      local again = gateway:connect()
      again:send { path = "/", headers = { ["Last-Event-ID"] = "news/1/0,news/0/-1,other/0/-1" } }
      gateway:run_until(function() return select(2, again:partial()):find("data: c", 1, true) end, 5)
      local seen = {}
      for value in select(2, again:partial()):gmatch("data: (%w+)") do seen[#seen + 1] = value end
      assert.same({ "b", "c" }, seen)
    end)

    it("are polled together", function()
      open_two()
      fill(2)
      gateway:produce("other", { value = "o" })
      local response = gateway:get("/?since=0")
      assert.equal("v1 v2", values(response))
      assert.equal("o", values(response, "other"))
      assert.matches("other/0/0", next_of(response), 1, true)
      assert.equal("o", values(gateway:get("/?topic=other&partition=0"), "other"))
      assert.equal(400, gateway:get("/?partition=0").status)
    end)
  end)

  describe("a stream from a time", function()
    it("begins with the first record not older", function()
      open_gateway { mode = "ndjson" }
      fill(6)
      local client = gateway:connect()
      client:send "/?since=5000"
      -- With a place a client of lines gets an answer that ends.
      assert.equal(2, select(2, client:receive(1).body:gsub('"value"', "")))
      client:send { path = "/?since=5000", headers = { Accept = "text/event-stream" } }
      gateway:run_until(function() return select(2, client:partial()):find("data: v6", 1, true) end, 5)
      assert.is_nil(select(2, client:partial()):find("data: v4", 1, true))
    end)
  end)

  describe("a WebSocket", function()
    local function receive(socket)
      local it = socket:receive()
      return it and it.type == "text" and cjson.decode(it.data) or it
    end

    it("gets records as messages, from now on or from a place on", function()
      open_gateway { mode = "websocket" }
      fill(2)
      local socket, other = gateway:websocket "/", gateway:websocket "/?after=0/-1,1/0"
      gateway:produce("news", { key = "k", value = "new", partition = 0 })
      local record = receive(socket)
      assert.same({ "news", 0, 1, "k", "new" }, { record.topic, record.partition, record.offset, record.key,
        record.value })
      assert.same({ "v2", "new" }, { receive(other).value, receive(other).value })
      socket:close(1000)
      assert.equal(1000, receive(socket).status)
    end)

    it("is asked for by the mode, and answered in others", function()
      open_gateway { mode = "websocket" }
      local response = gateway:get("/")
      assert.same({ 426, "websocket" }, { response.status, response.headers.upgrade })
      open_gateway { mode = "http-get" }
      local socket = gateway:websocket "/"
      fill(1)
      assert.equal("v1", receive(socket).value)
    end)

    it("has pings in place of heartbeats", function()
      open_gateway { mode = "websocket", heartbeat = 3000 }
      local socket = gateway:websocket "/"
      gateway:advance(4)
      assert.equal("ping", socket:receive().type)
    end)

    it("gets no more records than it acknowledges", function()
      open_gateway { mode = "websocket", websocket = { acknowledge = true, max_unacknowledged = 3 } }
      local socket = gateway:websocket "/"
      fill(10)
      for i = 1, 3 do assert.equal("v" .. i, receive(socket).value) end
      gateway:settle()
      assert.is_nil((socket:receive(0.5)))
      socket:send '{"ack":{"partition":1,"offset":0}}' -- v1
      assert.equal("v4", receive(socket).value)
      assert.is_nil((socket:receive(0.5)))
      socket:send '{"ack":[{"topic":"news","partition":1,"offset":1},{"partition":0,"offset":0}]}' -- v3, v2
      for i = 5, 6 do assert.equal("v" .. i, receive(socket).value) end
      socket:send '{"ack":true}'
      for i = 7, 9 do assert.equal("v" .. i, receive(socket).value) end
    end)

    it("is closed when it says what is no acknowledgement", function()
      open_gateway { mode = "websocket" }
      for _, text in ipairs { "hello", '{"ack":7}', '{"ack":{"partition":1}}', '{"ack":[{}]}', "[]" } do
        local socket = gateway:websocket "/"
        socket:send(text)
        local it = socket:receive()
        assert.same({ "close", 1008, "not an acknowledgement" }, { it.type, it.status, it.data }, text)
      end
    end)
  end)

  describe("newest", function()
    local function open_newest(config)
      config = config or {}
      config.mode, config.key_argument = "newest", "key"
      open_gateway(config)
      gateway:produce("news", { key = "a", value = '{"n":1}', partition = 0, timestamp = 784111777000 })
      gateway:produce("news", { key = "b", value = '{"n":2}', partition = 1 })
      gateway:produce("news", { key = "a", value = '{"n":3}', partition = 0, timestamp = 784111777000 })
    end

    it("answers with the last value of a key, with an ETag", function()
      open_newest()
      local response = gateway:get("/?key=a")
      assert.same({ 200, '{"n":3}', '"news-0-1"', "application/json", "Sun, 06 Nov 1994 08:49:37 GMT" },
        { response.status, response.body, response.headers.etag, response.headers["content-type"],
          response.headers["last-modified"] })
      assert.equal('{"n":2}', gateway:get("/?key=b").body)
      assert.equal(404, gateway:get("/?key=c").status)
      assert.equal(400, gateway:get("/").status)
      gateway:produce("news", { key = "b", value = '{"n":4}', partition = 1 })
      assert.equal('{"n":4}', gateway:get("/?key=b").body)
      assert.equal(405, gateway:post("/?key=b", "x").status)
    end)

    it("answers 304 to who has it", function()
      open_newest()
      for _, tag in ipairs { '"news-0-1"', '"x", W/"news-0-1"', "*" } do
        local response = gateway:get("/?key=a", { ["If-None-Match"] = tag })
        assert.same({ 304, "", '"news-0-1"' }, { response.status, response.body, response.headers.etag }, tag)
      end
      assert.equal(200, gateway:get("/?key=a", { ["If-None-Match"] = '"news-0-0"' }).status)
    end)

    it("forgets a key whose value is null", function()
      open_newest()
      assert.equal(200, gateway:get("/?key=a").status)
      gateway:produce("news", { key = "a", partition = 0 })
      assert.equal(404, gateway:get("/?key=a").status)
    end)

    it("has a client wait for the next value, for the first one, and for the end of one", function()
      open_newest()
      local function wait(key, tag)
        local client = gateway:connect()
        client:send { path = "/?key=" .. key, headers = { ["If-None-Match"] = tag, Prefer = "wait=10" } }
        gateway:advance(1)
        assert.is_nil(client:received())
        return client
      end
      local client = wait("a", '"news-0-1"')
      gateway:produce("news", { key = "b", value = "other", partition = 0 })
      gateway:advance(1)
      assert.is_nil(client:received())
      gateway:produce("news", { key = "a", value = "new", partition = 0 })
      assert.equal("new", client:receive(1).body)
      client = wait("c")
      gateway:produce("news", { key = "c", value = "first", partition = 0 })
      assert.equal("first", client:receive(1).body)
      client = wait("c", '"news-0-4"')
      gateway:produce("news", { key = "c", partition = 0 })
      assert.equal(404, client:receive(1).status)
      client = wait("b", '"news-0-2"')
      assert.equal(304, client:receive(12).status)
    end)

    it("says that there are too many keys, rather than forget some", function()
      open_newest { newest = { max_keys = 1 } }
      assert.equal(503, gateway:get("/?key=a").status)
      assert.is_true(#gateway:log "more keys" > 0)
    end)

    it("takes the key from the path", function()
      gateway = spec.gateway { topics = { news = { records = { { key = "42", value = "x" } } } }, config = [[
_format_version: "3.0"
gateway: { kafka: { main: { bootstrap.servers: "127.0.0.1:1" } } }
routes:
- name: one
  paths: ["~/orders/(?<id>[^/]+)$"]
  plugins:
  - { name: kafka-consume, config: { topics: [{ name: news }], mode: newest,
      newest: { key_capture: id, content_type: text/plain } } }
]] }
      local response = gateway:get("/orders/42")
      assert.same({ 200, "x", "text/plain" }, { response.status, response.body, response.headers["content-type"] })
    end)
  end)
end)
