-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local GATEWAY = { kafka = { main = { ["bootstrap.servers"] = "127.0.0.1:1" } } }

describe("kafka-request-reply", function()
  local gateway

  local function start(config, more)
    local conf = { topic = "orders", reply_topic = "replies" }
    for name, value in pairs(config or {}) do conf[name] = value end
    local options = { gateway = GATEWAY, topics = { orders = 1, replies = 3 },
      plugins = { { name = "kafka-request-reply", config = conf } } }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  local function asked(nth)
    return assert(gateway:records("orders")[nth or 1], "no request in the topic")
  end

  -- What a service behind the topic does: the id comes back.
  local function reply(value, headers, request)
    local all = { ["correlation-id"] = (request or asked()).headers["correlation-id"] }
    for name, text in pairs(headers or {}) do all[name] = text end
    gateway:produce("replies", { value = value, headers = all })
  end

  local function post(headers, path, body)
    return gateway:send { method = "POST", path = path or "/orders", body = body or "one tea", headers = headers }
  end

  local function metric(line)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match("\n" .. line:gsub("%p", "%%%0") .. " (%S+)"))
  end

  describe("sends a record", function()
    it("with the body, an id that nobody can guess and where the reply is to go", function()
      start()
      post()
      post()
      local one, two = asked(1), asked(2)
      assert.equal("one tea", one.value)
      assert.equal("replies", one.headers["reply-topic"])
      assert.matches("^%x+$", one.headers["correlation-id"])
      assert.equal(32, #one.headers["correlation-id"])
      assert.not_equal(one.headers["correlation-id"], two.headers["correlation-id"])
      assert.is_nil(one.key)
    end)

    it("with method, path and Content-Type in its headers, unless told otherwise", function()
      start()
      post { ["Content-Type"] = "text/plain" }
      assert.same({ "POST", "/orders", "text/plain" },
        { asked().headers.method, asked().headers.path, asked().headers["content-type"] })
    end)

    it("with the trace of the request", function()
      start()
      local context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      post { traceparent = context, tracestate = "a=1" }
      assert.same({ context, "a=1" }, { asked().headers.traceparent, asked().headers.tracestate })
    end)

    it("with header names of the configuration, as other clients of the topics have them", function()
      start { correlation_id_header = "kafka_correlationId", reply_topic_header = "kafka_replyTopic" }
      local pending = post()
      local headers = asked().headers
      assert.equal("replies", headers.kafka_replyTopic)
      gateway:produce("replies", { value = "{}", headers = { kafka_correlationId = headers.kafka_correlationId } })
      assert.equal(200, pending:receive().status)
    end)

    it("with key, value and headers out of expressions", function()
      start {
        key = "$(headers.x_order)", value = "$(method) $(query.size) $(body.n)",
        record_headers = { ["x-who"] = "<$(headers.x_who)>", ["x-none"] = "$(headers.x_none)", ["x-id"] = "$(id)" },
        forward_headers = { "X-Who" },
      }
      post({ ["X-Order"] = "7", ["X-Who"] = "me", ["Content-Type"] = "application/json" }, "/orders?size=2", '{"n":5}')
      local record = asked()
      assert.same({ "7", "POST 2 5" }, { record.key, record.value })
      assert.same({ "<me>", "me" }, { record.headers["x-who"], record.headers["X-Who"] })
      assert.is_nil(record.headers["x-none"])
      assert.is_nil(record.headers["content-type"])
      assert.equal(record.headers["correlation-id"], record.headers["x-id"])
    end)
  end)

  describe("lets other plugins", function()
    local function with(code)
      start(nil, { plugins_code = { guard = code }, plugins = { { name = "guard" },
        { name = "kafka-request-reply", config = { topic = "orders", reply_topic = "replies" } } } })
    end

    it("change the request and the reply", function()
      with [[return { version = "1", priority = 1,
        produce = function(_, _, record) record.value = record.value:upper() return record end,
        consume = function(_, _, record) record.value = record.value:lower() return record end }]]
      local pending = post()
      assert.equal("ONE TEA", asked().value)
      reply("DONE")
      assert.equal("done", pending:receive().body)
    end)

    it("keep the request from the topic, or the reply from the client", function()
      with [[return { version = "1", priority = 1,
        produce = function(_, _, record) return record.value ~= "secret" and record or nil end,
        consume = function() end }]]
      assert.equal(403, post(nil, nil, "secret"):receive().status)
      assert.equal(0, #gateway:records("orders"))
      local pending = post()
      reply("DONE")
      assert.equal(502, pending:receive().status)
    end)

    it("fail, which the client is told", function()
      with [[return { version = "1", priority = 1, produce = function() error("broken") end }]]
      assert.equal(500, post():receive().status)
      assert.equal(0, #gateway:records("orders"))
    end)
  end)

  describe("answers", function()
    it("with the reply whose id is the request's, whatever came between", function()
      start()
      local first, second = post(), post()
      gateway:produce("replies", { value = "of nobody", headers = { ["correlation-id"] = ("0"):rep(32) } })
      gateway:produce("replies", { value = "without an id" })
      reply('{"for":2}', nil, asked(2))
      reply('{"for":1}', nil, asked(1))
      assert.equal(1, first:receive().json["for"])
      assert.equal(2, second:receive().json["for"])
      assert.equal(1, metric 'sluice_kafka_replies_total{topic="replies",what="other"}')
      assert.equal(1, metric 'sluice_kafka_replies_total{topic="replies",what="unmarked"}')
    end)

    it("with the status and the fields that the reply has in its headers", function()
      start { response_headers = { "Content-Type", "X-Cups" } }
      local pending = post()
      reply("short and stout", { status = "418", ["content-type"] = "text/plain", ["x-cups"] = "2", ["x-own"] = "1" })
      local response = pending:receive()
      assert.same({ 418, "short and stout", "text/plain", "2" },
        { response.status, response.body, response.headers["content-type"], response.headers["x-cups"] })
      assert.is_nil(response.headers["x-own"])
    end)

    it("with the names and the type of the configuration", function()
      start { status_header = ":status", content_type = "text/csv" }
      local pending = post()
      reply("a,b", { [":status"] = "201" })
      local response = pending:receive()
      assert.same({ 201, "text/csv" }, { response.status, response.headers["content-type"] })
    end)

    it("with 204 to a reply without a value", function()
      start()
      local pending = post()
      reply(nil)
      local response = pending:receive()
      assert.same({ 204, "" }, { response.status, response.body })
    end)

    it("with 502 to a reply whose status is none, and leaves out a field that is none", function()
      start { response_headers = { "x-a" } }
      local pending = post()
      reply("x", { status = "fine" })
      local response = pending:receive()
      assert.equal(502, response.status)
      assert.matches("status is no status", response.json.message, 1, true)
      pending = post()
      reply("x", { ["x-a"] = "1\r\nX-Evil: 2" }, asked(2))
      response = pending:receive()
      assert.equal(200, response.status)
      assert.is_nil(response.headers["x-a"])
      assert.is_nil(response.headers["x-evil"])
    end)

    it("with 504 when no reply comes in time, and says where a late one will be", function()
      start { timeout = 2000 }
      local pending = post()
      gateway:advance(1.9)
      assert.is_nil(pending:received())
      local response = pending:receive(1)
      assert.equal(504, response.status)
      assert.equal("timeout", response.json.code)
      assert.equal(asked().headers["correlation-id"], response.json.correlation_id)
      local location = response.headers.location
      reply('{"late":true}')
      assert.equal(1, metric 'sluice_kafka_replies_total{topic="replies",what="late"}')
      local late = gateway:get(location)
      assert.same({ 200, true }, { late.status, late.json.late })
    end)

    it("as soon as its client wants, by Prefer: wait", function()
      start()
      local pending = post { Prefer = "wait=1" }
      assert.equal(504, pending:receive(1.1).status)
      pending = post { Prefer = "wait=3600" }
      assert.equal(504, pending:receive(10.1).status) -- but no later than the configuration has it
    end)

    it("503 or 504 when the request cannot be passed on", function()
      start()
      gateway:fail_topic("orders", "full")
      local response = post():receive()
      assert.same({ 503, "1", "full" }, { response.status, response.headers["retry-after"], response.json.code })
      gateway:fail_topic("orders", "MSG_SIZE_TOO_LARGE")
      assert.equal(413, post():receive().status)
      gateway:fail_topic("orders", "TOPIC_AUTHORIZATION_FAILED")
      response = post():receive()
      assert.same({ 502, "TOPIC_AUTHORIZATION_FAILED" }, { response.status, response.json.code })
      gateway:fail_topic("orders", "timeout")
      response = post():receive()
      assert.same({ 504, "timeout" }, { response.status, response.json.code })
    end)

    it("503 where there is no cluster", function()
      start({}, { gateway = { kafka = { other = { ["bootstrap.servers"] = "kafka.example:9092" } } } })
      local response = post():receive()
      assert.equal(503, response.status)
      assert.matches("main", response.json.error, 1, true)
    end)

    it("the first reply, and counts what comes twice", function()
      start()
      local pending = post()
      reply("1")
      reply("2")
      assert.equal("1", pending:receive().body)
      assert.equal(1, metric 'sluice_kafka_replies_total{topic="replies",what="duplicate"}')
    end)

    it("nobody, and goes on, when the client has left", function()
      start()
      post():close()
      gateway:settle()
      assert.equal(1, metric 'sluice_kafka_replies_awaited{topic="replies"}')
      reply("1")
      assert.equal(0, metric 'sluice_kafka_replies_awaited{topic="replies"}')
    end)
  end)

  describe("to a client that prefers to hear later", function()
    local function accepted(headers)
      local response = post(headers or { Prefer = "respond-async" }):receive()
      assert.equal(202, response.status)
      return response
    end

    it("answers 202 with the place of the reply, once the request is in the topic", function()
      start()
      local response = accepted()
      assert.equal("respond-async", response.headers["preference-applied"])
      assert.equal("1", response.headers["retry-after"])
      assert.matches("^/orders/replies/%x+%-[%w_-]+$", response.headers.location)
      assert.same({ "pending", asked().headers["correlation-id"] },
        { response.json.status, response.json.correlation_id })
    end)

    it("answers 202 there until the reply has come, then the reply, as often as it is asked for", function()
      start()
      local location = accepted().headers.location
      local response = gateway:get(location)
      assert.same({ 202, "pending", "no-store" },
        { response.status, response.json.status, response.headers["cache-control"] })
      reply("done", { status = "201", ["content-type"] = "text/plain" })
      for _ = 1, 2 do
        response = gateway:get(location)
        assert.same({ 201, "done", "text/plain" }, { response.status, response.body, response.headers["content-type"] })
      end
      assert.equal(201, gateway:head(location).status)
    end)

    it("waits there as long as the client prefers", function()
      start()
      local location = accepted().headers.location
      local pending = gateway:send { path = location, headers = { Prefer = "wait=5" } }
      gateway:advance(3)
      assert.is_nil(pending:received())
      reply("done")
      assert.equal("done", pending:receive(0.1).body)
      pending = gateway:send { path = accepted().headers.location, headers = { Prefer = "wait=5" } }
      assert.equal(202, pending:receive(5.1).status)
    end)

    it("answers at once when the reply comes within the time that it would wait", function()
      start()
      local pending = post { Prefer = 'respond-async, wait="5"' }
      gateway:advance(4)
      reply("quick")
      assert.equal("quick", pending:receive(0.1).body)
      assert.equal(202, post({ Prefer = "wait=5; x=1, respond-async" }):receive(5.1).status)
    end)

    it("finds a reply that came while nobody read the topic", function()
      start()
      local location = accepted().headers.location
      local request = asked()
      gateway:close()
      local crowd = {}
      for i = 1, 20 do crowd[i] = { value = "other", headers = { ["correlation-id"] = ("%032x"):format(i) } } end
      table.insert(crowd, 7, { value = "found", headers = { ["correlation-id"] = request.headers["correlation-id"] } })
      start(nil, { topics = { orders = 1, replies = { partitions = 3, records = crowd } } })
      assert.equal("found", gateway:get(location).body)
    end)

    it("finds a reply that has left the worker's memory", function()
      start { keep_replies = 65536 }
      local location = accepted().headers.location
      reply("found")
      for i = 1, 40 do
        gateway:produce("replies", { value = ("x"):rep(5000), headers = { ["correlation-id"] = ("%032x"):format(i) } })
      end
      assert.equal("found", gateway:get(location).body)
    end)

    it("answers 202 while the topic has no reply, and looks it through once", function()
      local crowd = {}
      for i = 1, 20 do crowd[i] = { value = "other", headers = { ["correlation-id"] = ("%032x"):format(i) } } end
      start(nil, { topics = { orders = 1, replies = { partitions = 3, records = crowd } } })
      local location = ("/orders/replies/%s-%s"):format(("a"):rep(32), "gJrb0AYAAAA") -- of January 2026, from 0, 0, 0
      assert.equal(202, gateway:get(location).status)
      assert.equal(202, gateway:get(location).status)
      gateway:produce("replies", { value = "at last", headers = { ["correlation-id"] = ("a"):rep(32) } })
      assert.equal("at last", gateway:get(location).body)
    end)

    it("answers 410 once no reply is expected any more", function()
      start { expire = 60 }
      local location = accepted().headers.location
      gateway:advance(61)
      assert.equal(410, gateway:get(location).status)
    end)

    it("names another place, where the configuration does", function()
      start { location = "https://api.example/replies/" }
      assert.matches("^https://api%.example/replies/%x+%-[%w_-]+$", accepted().headers.location)
    end)

    it("knows its own places from others with a secret", function()
      start { secret = "sixteen or more bytes" }
      local location = accepted().headers.location
      assert.equal(202, gateway:get(location).status)
      local other = location:gsub("%x%-", function(digits) return (digits == "0-" and "1-" or "0-") end)
      assert.equal(404, gateway:get(other).status)
      assert.equal(404, gateway:get(("/orders/replies/%s-%s"):format(("a"):rep(32), "gJrb0AYAAAA")).status)
      reply("done")
      assert.equal("done", gateway:get(location).body)
    end)

    it("takes what is no place of a reply for a request", function()
      start()
      local pending = gateway:send("/orders/replies/" .. ("g"):rep(32) .. "-AAAA")
      reply("a request")
      assert.equal("a request", pending:receive().body)
    end)
  end)

  it("answers 202 to all with respond_async: always", function()
    start { respond_async = "always" }
    assert.equal(202, post():receive().status)
  end)

  it("answers nobody later with respond_async: never", function()
    start { respond_async = "never", timeout = 1000 }
    local response = post({ Prefer = "respond-async" }):receive()
    assert.equal(504, response.status)
    assert.is_nil(response.headers.location)
  end)

  it("serves the replies of any gateway on the topic", function()
    start()
    local pending = post { Prefer = "respond-async" }
    local location = pending:receive().headers.location
    -- To this gateway, the id could as well be another's: nobody here waits for it.
    reply("for all")
    assert.equal("for all", gateway:get(location).body)
  end)

  it("reads the replies before the first request needs one", function()
    start()
    gateway:advance(1)
    gateway:produce("replies", { value = "x", headers = { ["correlation-id"] = ("0"):rep(32) } })
    assert.equal(1, metric 'sluice_kafka_replies_total{topic="replies",what="other"}')
  end)

  it("lets a reload pass while requests wait", function()
    start()
    local pending = post()
    gateway:reload { routes = { { name = "more", paths = { "/more" } } } }
    reply("after the reload")
    assert.equal("after the reload", pending:receive().body)
  end)

  describe("refuses", function()
    local function refused(config)
      local conf = { topic = "orders", reply_topic = "replies" }
      for name, value in pairs(config) do conf[name] = value end
      local _, err = spec.check { gateway = GATEWAY, plugins = { { name = "kafka-request-reply", config = conf } } }
      return assert(err, "it was not refused")
    end

    it("what is no topic, no time, no expression, no name of a field", function()
      assert.matches("config.topic", refused { topic = "a b" }, 1, true)
      assert.matches("config.reply_topic", refused { reply_topic = "" }, 1, true)
      assert.matches("config.timeout", refused { timeout = 0 }, 1, true)
      assert.matches("config.expire", refused { expire = 0 }, 1, true)
      assert.matches("config.secret", refused { secret = "short" }, 1, true)
      assert.matches("config.key", refused { key = "$(1 +)" }, 1, true)
      assert.matches("config.value", refused { value = "$(1 +)" }, 1, true)
      assert.matches("config.record_headers", refused { record_headers = { a = "$(1 +)" } }, 1, true)
      assert.matches("config.forward_headers", refused { forward_headers = { "a b" } }, 1, true)
      assert.matches("config.response_headers", refused { response_headers = { "a:b" } }, 1, true)
      assert.matches("config.respond_async", refused { respond_async = "sometimes" }, 1, true)
      assert.matches("config.location", refused { location = "a b" }, 1, true)
      assert.matches("config.keep_replies", refused { keep_replies = 1 }, 1, true)
      assert.matches("config.correlation_id_header", refused { correlation_id_header = "" }, 1, true)
      assert.matches("config.status_header", refused { status_header = "" }, 1, true)
      assert.matches("config.reply_topic_header", refused { reply_topic_header = "" }, 1, true)
      assert.matches("config.content_type", refused { content_type = 7 }, 1, true)
    end)
  end)
end)
