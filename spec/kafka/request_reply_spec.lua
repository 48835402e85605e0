-- SPDX-License-Identifier: Apache-2.0
-- kafka-request-reply with a real broker: several gateways on one reply topic, and whatever is killed meanwhile, but
-- for the broker itself: see sink_spec.lua.
local ffi = require "ffi"
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = client.C

local CONFIG = [[
_format_version: "3.0"
gateway: { kafka: { main: { bootstrap.servers: "%s", fetch.wait.max.ms: 20, reconnect.backoff.max.ms: 200 } } }
routes:
- { name: ask, paths: [/ask], plugins: [{ name: kafka-request-reply, config: {
    topic: %s, reply_topic: %s, timeout: 30000 } }] }
- { name: hasty, paths: [/hasty], plugins: [{ name: kafka-request-reply, config: {
    topic: %s, reply_topic: %s, timeout: 1500 } }] }
]]

describe("requests and replies over topics", function()
  local kafka, requests, replies, gateways, reader

  local function start(servers, options)
    local gw = gateway.start(CONFIG:format(servers, requests, replies, requests, replies), options)
    gateways[#gateways + 1] = gw
    return gw
  end

  local function stop_all()
    for _, gw in ipairs(gateways) do gw:stop() end
    gateways = {}
  end

  -- The service behind the topics.
  local function serve_from(its_broker)
    requests, replies, gateways = its_broker:topic(2), its_broker:topic(3), {}
    kafka = client.new()
    assert(kafka:cluster("main", { ["bootstrap.servers"] = its_broker.servers, ["fetch.wait.max.ms"] = "20",
      ["reconnect.backoff.max.ms"] = "200" }) == 0)
    reader = kafka:open { topic = requests, from = C.KAFKA_EARLIEST }
  end

  local function close()
    stop_all()
    C.kafka_reader_free(reader)
    kafka:close()
  end

  local function text(bytes)
    return ffi.string(bytes.data, bytes.len)
  end

  -- The next request: value and id.
  local function next_request()
    local record = kafka:record(reader)
    for i = 0, tonumber(record.header_count) - 1 do
      local name, value = text(record.headers[2 * i]), text(record.headers[2 * i + 1])
      if name == "correlation-id" then return text(record.value), value end
    end
  end

  local function reply(id, value)
    kafka:send { topic = replies, value = value, headers = { "correlation-id", id } }
  end

  -- A request whose response is not awaited yet.
  local function ask(gw, body, headers, path)
    local connection = gw:connect { timeout = 40 }
    connection:send((http.format({ method = "POST", path = path or "/ask", body = body, headers = headers }, "gw")))
    return connection
  end

  local function answer_of(connection)
    local response = assert(connection:read_response("POST", 40))
    connection:close()
    return response
  end

  -- 202 from any worker of `gw` until the reply is there.
  local function await_reply(gw, location)
    return process.wait_until(function()
      local response = gw:get(location)
      if response.status == 200 then return response.body end
      assert.is_true(response.status == 202 or response.status == 503, response.status .. " " .. response.body)
    end, 20, "the reply")
  end

  -- No reply is there yet, at any worker of `gw`.
  local function assert_pending(gw, location)
    process.wait_until(function()
      local response = gw:get(location)
      assert.is_true(response.status == 202 or response.status == 503, response.status .. " " .. response.body)
      return response.status == 202
    end, 20, "the word that there is no reply")
  end

  describe("through a broker that stays", function()
    before_each(function() serve_from(broker.shared()) end)
    after_each(close)

    it("gives each client of several gateways the reply to its own request", function()
      local servers = broker.shared().servers
      local waiting = {}
      for _ = 1, 2 do
        local gw = start(servers, { workers = 2 })
        for i = 1, 20 do
          local body = #gateways .. "/" .. i
          waiting[body] = ask(gw, body)
        end
      end
      local got = {}
      for i = 1, 40 do
        local value, id = next_request()
        got[i] = { value, id }
      end
      for i = 40, 1, -1 do reply(got[i][2], "for " .. got[i][1]) end
      for body, connection in pairs(waiting) do
        local response = answer_of(connection)
        assert.same({ 200, "for " .. body }, { response.status, response.body })
      end
    end)

    it("answers a later client at every worker, and at a gateway that is started behind the reply", function()
      local gw = start(broker.shared().servers, { workers = 2 })
      local response = answer_of(ask(gw, "later", { Prefer = "respond-async" }))
      assert.equal(202, response.status)
      local location = response.headers.location
      local _, id = next_request()
      for _ = 1, 6 do assert_pending(gw, location) end
      for i = 1, 50 do reply(("%032x"):format(i), "of others") end
      reply(id, "it was ready")
      for _ = 1, 6 do assert.equal("it was ready", await_reply(gw, location)) end
      stop_all()
      gw = start(broker.shared().servers, { workers = 2 })
      for _ = 1, 4 do assert.equal("it was ready", await_reply(gw, location)) end
    end)

    it("answers behind a kill -9 of the gateway, whether the reply came before, while it was away or after", function()
      local gw, location, ids = start(broker.shared().servers), {}, {}
      for i = 1, 3 do
        local response = answer_of(ask(gw, tostring(i), { Prefer = "respond-async" }))
        assert.equal(202, response.status)
        location[i] = response.headers.location
        local value, id = next_request()
        assert.equal(tostring(i), value) -- 202 was true: the request is in the topic
        ids[i] = id
      end
      reply(ids[1], "before")
      assert.equal("before", await_reply(gw, location[1]))
      gw.process:signal(posix.SIGKILL)
      gw.process:wait(10)
      gateways = {}
      reply(ids[2], "away")
      local again = start(broker.shared().servers)
      assert.equal("before", await_reply(again, location[1]))
      assert.equal("away", await_reply(again, location[2]))
      assert_pending(again, location[3])
      reply(ids[3], "after")
      assert.equal("after", await_reply(again, location[3]))
      gw.process:forget()
    end)

    it("goes on behind a kill -9 of its workers", function()
      local gw = start(broker.shared().servers, { workers = 2 })
      local location = answer_of(ask(gw, "x", { Prefer = "respond-async" })).headers.location
      local _, id = next_request()
      local workers = gw:workers()
      for _, pid in ipairs(workers) do posix.kill(pid, posix.SIGKILL) end
      process.wait_until(function()
        local now = gw:workers()
        return #now == 2 and now[1] ~= workers[1] and now[2] ~= workers[2]
      end, 10, "new workers")
      reply(id, "survived")
      assert.equal("survived", await_reply(gw, location))
    end)

    it("ends what it has begun when it drains", function()
      local gw = start(broker.shared().servers)
      local connection = ask(gw, "x")
      local _, id = next_request()
      gw.process:signal(posix.SIGTERM)
      gw:wait_log("drain", 20)
      reply(id, "in time")
      assert.equal("in time", answer_of(connection).body)
    end)

    it("answers 504 in time, and finds the late reply", function()
      local gw = start(broker.shared().servers)
      -- The gateway's first record of all may take longer than the route's time.
      local first = ask(gw, "first")
      local _, id = next_request()
      reply(id, "done")
      assert.equal("done", answer_of(first).body)
      local response = answer_of(ask(gw, "x", nil, "/hasty"))
      assert.equal(504, response.status)
      _, id = next_request()
      assert.equal(id, cjson.decode(response.body).correlation_id)
      reply(id, "late")
      assert.equal("late", await_reply(gw, response.headers.location))
    end)

    it("reads the reply topic once a worker, however many wait", function()
      local gw, waiting = start(broker.shared().servers), {}
      for i = 1, 30 do waiting[i] = ask(gw, "x") end
      for i = 1, 30 do waiting[i].id = select(2, next_request()) end
      local _, out = gw:command("status", "--json")
      local cluster = cjson.decode(out).worker.kafka[1]
      assert.same({ 1, 1 }, { cluster.readers, cluster.consumers })
      for i = 1, 30 do reply(waiting[i].id, "y") end
      for i = 1, 30 do assert.equal(200, answer_of(waiting[i]).status) end
    end)
  end)
end)
