-- SPDX-License-Identifier: Apache-2.0
-- What cannot go where it should, and what plugins of phase produce do to records.
local spec = require "sluice.spec"

local POLICE = [[
local police = { version = "1.0.0", priority = 5 }
function police.produce(_, exchange, record)
  if record.value == "drop" then return nil end
  if record.value == "fail" then error("not this one") end
  if record.value == "exit" then exchange.response:exit(451, { message = "not here" }) end
  if record.value == "move" then record.topic = "elsewhere" end
  record.headers[#record.headers + 1] = { "seen", exchange.request:get_method() }
  return record
end
return police
]]

describe("kafka-upstream", function()
  local gateway

  local function with(config, plugins)
    config.topic, config.value = config.topic or "orders", config.value or "body"
    local list = { { name = "kafka-upstream", config = config } }
    if plugins then list[2] = { name = "police" } end
    gateway = spec.gateway {
      topics = { orders = 4, dead = 1, elsewhere = 1 }, plugins_code = { police = POLICE },
      routes = { { name = "in", paths = { "/in" }, plugins = list } },
    }
  end

  local function dead()
    return gateway:records("dead")
  end

  describe("with a dead-letter topic", function()
    it("sets aside what Kafka does not take, and says where", function()
      with { dead_letter_topic = "dead", key = "$(body.id)", headers = { kind = "order" } }
      gateway:fail_topic("orders", "MSG_SIZE_TOO_LARGE")
      local response = gateway:post("/in", '{"id":1}')
      assert.same({ 413, { topic = "dead", partition = 0, offset = 0 } },
        { response.status, response.json.dead_letter })
      local record = dead()[1]
      assert.same({ '{"id":1}', "1", "order" }, { record.value, record.key, record.headers.kind })
      local headers = record.headers
      assert.same({ "orders", "MSG_SIZE_TOO_LARGE", "413", "in", response.json.request_id },
        { headers["dead-letter-topic"], headers["dead-letter-code"], headers["dead-letter-status"],
          headers["dead-letter-route"], headers["dead-letter-request-id"] })
      assert.is_string(headers["dead-letter-reason"])
      assert.equal(("%d"):format(gateway:now() * 1000), headers["dead-letter-time"])
    end)

    it("sets aside what cannot be a record", function()
      with { dead_letter_topic = "dead", key = "$(body.order.id)" }
      local response = gateway:post("/in", '{"id":1}')
      assert.same({ 422, 0 }, { response.status, response.json.dead_letter.offset })
      assert.same({ '{"id":1}', "key", "422" },
        { dead()[1].value, dead()[1].headers["dead-letter-field"], dead()[1].headers["dead-letter-status"] })
    end)

    it("answers as it is told to", function()
      with { dead_letter_topic = "dead", dead_letter_status = 202, key = "$(body.order.id)" }
      assert.equal(202, gateway:post("/in", '{"id":1}').status)
      gateway:fail_topic("orders", "INVALID_RECORD")
      assert.equal(202, gateway:post("/in", '{"order":{"id":1}}').status)
      gateway:fail_topic("dead", "full")
      assert.equal(422, gateway:post("/in", '{"order":{"id":1}}').status)
      assert.equal(2, #dead())
    end)

    it("does not while Kafka is away: the client is to come again", function()
      with { dead_letter_topic = "dead" }
      for _, code in ipairs { "full", "timeout", "_TRANSPORT" } do
        gateway:fail_topic("orders", code)
        assert.is_nil(gateway:post("/in", "v").json.dead_letter)
      end
      assert.equal(0, #dead())
    end)

    it("does so for each of a batch, and of a stream", function()
      with { dead_letter_topic = "dead", batch = "auto", key = "$(body.order.id)" }
      local response = gateway:post("/in", '[{"order":{"id":1}},{"n":2},{"n":3}]',
        { ["Content-Type"] = "application/json" })
      assert.equal(207, response.status)
      local entries = response.json.records
      assert.same({ "orders", 0, 1 },
        { entries[1].topic, entries[2].dead_letter.offset, entries[3].dead_letter.offset })
      gateway:fail_topic("orders", "MSG_SIZE_TOO_LARGE")
      response = gateway:post("/in", '{"order":{"id":4}}\n{"n":5}\n', { ["Content-Type"] = "application/x-ndjson" })
      assert.matches('"failed":2', response.body, 1, true)
      local values = {}
      for i, record in ipairs(dead()) do values[i] = record.value end
      table.sort(values)
      assert.same({ '{"n":2}', '{"n":3}', '{"n":5}', '{"order":{"id":4}}' }, values)
    end)

    it("does so for more of a stream than are on their way at once", function()
      with { dead_letter_topic = "dead", batch = "lines" }
      gateway:fail_topic("orders", "MSG_SIZE_TOO_LARGE")
      local response = gateway:post("/in", ("x\n"):rep(1500))
      assert.matches('"failed":1500', response.body, 1, true)
      assert.equal(1500, select(2, response.body:gsub('"dead_letter"', "")))
      assert.equal(1500, #dead())
    end)

    it("does so without waiting, too", function()
      with { dead_letter_topic = "dead", wait = false, batch = "array", key = "$(body.order.id)" }
      local response = gateway:post("/in", '[{"n":2}]')
      assert.same({ 422, "dead" }, { response.status, response.json.records[1].dead_letter.topic })
      assert.equal(1, #dead())
    end)
  end)

  describe("lets plugins of phase produce", function()
    it("change a record", function()
      with({}, true)
      assert.equal(200, gateway:post("/in", "v").status)
      assert.equal("POST", gateway:records("orders")[1].headers.seen)
      assert.equal("elsewhere", gateway:post("/in", "move").json.topic)
    end)

    it("drop it", function()
      with({}, true)
      local response = gateway:post("/in", "drop")
      assert.same({ 200, "message dropped" }, { response.status, response.json.message })
      assert.equal(0, #gateway:records("orders"))
    end)

    it("fail, and then it does not go out", function()
      with({ dead_letter_topic = "dead" }, true)
      local response = gateway:post("/in", "fail")
      assert.same({ 500, "a plugin failed in phase produce" }, { response.status, response.json.message })
      assert.equal(0, #gateway:records("orders"))
      assert.equal("fail", dead()[1].value)
    end)

    it("answer in place of the record, and of a whole batch", function()
      with({ batch = "auto", value = "$(body)" }, true)
      local response = gateway:post("/in", '"exit"', { ["Content-Type"] = "application/json" })
      assert.same({ 451, "not here" }, { response.status, response.json.message })
      response = gateway:post("/in", '["a","b","exit","c"]', { ["Content-Type"] = "application/json" })
      assert.same({ 451, "not here" }, { response.status, response.json.message })
      assert.equal(0, #gateway:records("orders"))
    end)

    it("fail a line by an answer that comes too late", function()
      with({ batch = "lines", value = "$(body)" }, true)
      local response = gateway:post("/in", '"a"\n"exit"\n"b"\n')
      assert.same({ 200, 2 }, { response.status, #gateway:records("orders") })
      assert.matches('"failed":1', response.body, 1, true)
    end)

    it("see each record of a batch, and each line", function()
      with({ batch = "auto", value = "$(body)" }, true)
      local response = gateway:post("/in", '["a","drop","fail"]', { ["Content-Type"] = "application/json" })
      assert.same({ 207, 1, 1, true },
        { response.status, response.json.sent, response.json.failed, response.json.records[2].dropped })
      response = gateway:post("/in", '"b"\n"drop"\n', { ["Content-Type"] = "application/x-ndjson" })
      assert.matches('"dropped":1', response.body, 1, true)
      assert.same({ "a", "b" }, { gateway:records("orders")[1].value, gateway:records("orders")[2].value })
    end)
  end)
end)
