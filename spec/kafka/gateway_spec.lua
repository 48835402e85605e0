-- SPDX-License-Identifier: Apache-2.0
-- Out of a request into a topic and back as events, through the whole gateway: a real broker that is killed, workers
-- that are killed, and the embedded cluster that needs no broker.
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local events = require "spec.kafka.events"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local ROUTES = [[
routes:
- { name: in, paths: [/in], plugins: [{ name: kafka-upstream, config: {
    topic: %s, value: body, key_header: X-Key, timeout: 30000 } }] }
- { name: hasty, paths: [/hasty], plugins: [{ name: kafka-upstream, config: {
    topic: %s, value: body, timeout: 300 } }] }
- { name: out, paths: [/out], plugins: [{ name: kafka-consume, config: {
    topics: [{ name: %s }], mode: server-sent-events } }] }
]]

local function config(cluster, topic)
  local head = '_format_version: "3.0"\ngateway: { kafka: { main: ' .. cluster .. " } }\n"
  return head .. ROUTES:format(topic, topic, topic)
end

local function post(gw, path, body, key)
  local response = gw:request { path = path, body = body, headers = { ["X-Key"] = key } }
  return response.status, cjson.decode(response.body)
end

describe("a topic behind the gateway", function()
  local gw

  after_each(function()
    if gw then gw:stop() end
    gw = nil
  end)

  it("needs no broker: the workers share one embedded cluster, which outlives them", function()
    gw = gateway.start(config("{ embedded: true }", "events"), { workers = 3 })
    local streams = {}
    for i = 1, 9 do streams[i] = assert(events.open(gw.port, "/out")) end
    for i = 1, 30 do assert.equal(200, (post(gw, "/in", "v" .. i, "same"))) end
    for _, stream in ipairs(streams) do
      for i = 1, 30 do assert.equal("v" .. i, assert(stream:next()).data) end
      stream:close()
    end
    local workers = gw:workers()
    local stream = assert(events.open(gw.port, "/out"))
    assert.equal(200, (post(gw, "/in", "before", "same")))
    local last = assert(stream:next())
    stream:close()
    for _, pid in ipairs(workers) do posix.kill(pid, posix.SIGKILL) end
    process.wait_until(function()
      local now = gw:workers()
      return #now == 3 and now[1] ~= workers[1] and now[2] ~= workers[2] and now[3] ~= workers[3]
    end, 10, "new workers")
    assert.equal(200, (post(gw, "/in", "after", "same")))
    stream = assert(events.open(gw.port, "/out", { ["Last-Event-ID"] = last.id }))
    assert.equal("after", assert(stream:next()).data)
    stream:close()
  end)

  it("shows its clusters in status", function()
    gw = gateway.start(config("{ embedded: true }", "events"))
    post(gw, "/in", "x")
    local _, out = gw:command("status", "--json")
    local cluster = cjson.decode(out).worker.kafka[1]
    assert.same({ "main", "up", true, 1, 0 },
      { cluster.name, cluster.state, cluster.embedded, cluster.delivered, cluster.queued })
    local _, screen = gw:command("status")
    assert.matches("main%s+embedded%s+up", screen)
  end)

  -- A topic that is not there is reported again and again, for as long as somebody would read it.
  it("writes the same trouble of a cluster to the log once, and not each time that it comes", function()
    local own = broker.shared()
    gw = gateway.start(([[
_format_version: "3.0"
gateway: { kafka: { main: { bootstrap.servers: "%s" } } }
routes:
- { name: ask, paths: [/ask], plugins: [{ name: kafka-request-reply, config: {
    topic: %s, reply_topic: no-such-replies } }] }
]]):format(own.servers, own:topic()))
    local times, count = {}, 0
    process.wait_until(function()
      local _, out = gw:command("status", "--json")
      local at = cjson.decode(out).worker.kafka[1].last_error_at
      if type(at) == "number" and not times[at] then times[at], count = true, count + 1 end
      return count >= 4
    end, 60, "trouble four times")
    -- Once before the cluster is known to be up, and once since.
    local _, lines = gw:log():gsub("Kafka reports trouble[^\n]*no%-such%-replies", "")
    assert.is_true(lines == 1 or lines == 2, lines .. " lines")
  end)

  it("refuses a property that librdkafka does not know, and says where it stands", function()
    local path = posix.temporary_directory() .. "/wrong.yml"
    process.write_file(path, config('{ bootstrap.servers: "127.0.0.1:1", linger.mss: 5 }', "events"))
    local status, out, err = process.run({ gateway.binary, "check", path }, {})
    assert.equal(1, status)
    assert.matches("wrong.yml:2", out .. err, 1, true)
    assert.matches("linger.mss", out .. err, 1, true)
  end)

  describe("in a real broker", function()
    local own

    setup(function() own = broker.start() end)
    teardown(function() if own then own:stop() end end)

    it("gives true answers and complete, ordered events while the broker is killed and comes back", function()
      local topic = own:topic(2)
      gw = gateway.start(config(('{ bootstrap.servers: "%s" }'):format(own.servers), topic), { workers = 2 })
      local stream = assert(events.open(gw.port, "/out"))
      local offsets = {}
      for i = 1, 10 do
        local status, answer = post(gw, "/in", "v" .. i, "one key")
        assert.equal(200, status)
        offsets[i] = answer.partition .. "/" .. answer.offset
      end
      own:kill()
      local status, answer = post(gw, "/hasty", "given up")
      assert.equal(504, status)
      assert.is_truthy(answer.code == "timeout" or answer.code == "expired", answer.code)
      own:restart()
      for i = 11, 20 do
        status, answer = post(gw, "/in", "v" .. i, "one key")
        assert.equal(200, status, answer.error)
        offsets[i] = answer.partition .. "/" .. answer.offset
      end
      local at = 0
      while at < 20 do
        local event = assert(stream:next())
        if event.data ~= "given up" then -- which the answer left open
          at = at + 1
          assert.equal("v" .. at, event.data)
          assert.equal(offsets[at], event.id:match("^[^,]+"))
        end
      end
      stream:close()
    end)

    it("lets clients resume at another gateway", function()
      local topic = own:topic(3)
      local text = config(('{ bootstrap.servers: "%s" }'):format(own.servers), topic)
      gw = gateway.start(text)
      local stream, seen = assert(events.open(gw.port, "/out")), {}
      for i = 1, 30 do post(gw, "/in", "v" .. i, "k" .. i) end
      local last
      for _ = 1, 17 do
        last = assert(stream:next())
        seen[last.data] = true
      end
      stream:close()
      gw:stop()
      gw = gateway.start(text)
      post(gw, "/in", "v31", "k31")
      stream = assert(events.open(gw.port, "/out", { ["Last-Event-ID"] = last.id }))
      for _ = 18, 31 do
        local data = assert(stream:next()).data
        assert.is_nil(seen[data], data)
        seen[data] = true
      end
      for i = 1, 31 do assert.is_true(seen["v" .. i]) end
      stream:close()
    end)
  end)
end)
