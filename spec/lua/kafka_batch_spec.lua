-- SPDX-License-Identifier: Apache-2.0
-- kafka.batch over topics in memory: indexes, fates, places, waits.
local spec = require "sluice.spec"

-- A plugin that runs the Lua code that a request brings, and answers with what it returned.
local RUNS = [[
return { version = "1", priority = 1, access = function(_, exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  exchange.response:exit(200, { said = chunk(require("sluice").kafka, require("sluice")) })
end }
]]

describe("kafka.batch", function()
  local gateway

  before_each(function()
    gateway = spec.gateway { topics = { orders = 2, refused = { fails = "MSG_SIZE_TOO_LARGE" } },
      plugins = { { name = "runs" } }, plugins_code = { runs = RUNS } }
  end)

  local function run(code)
    local response = gateway:post("/", "local kafka, sluice = ...\n" .. code)
    assert.equal(200, response.status, gateway:log())
    return response.json.said
  end

  it("tells where each record is, by its index", function()
    local said = run [[
      local batch, said = kafka.batch { timeout = 5 }, {}
      for i = 1, 20 do assert(batch:add { topic = "orders", key = "k", value = "v" .. i, partition = i % 2 } == i) end
      assert(batch:wait())
      for i = 1, 20 do said[i] = assert(batch:result(i)) end
      return said
    ]]
    local records = gateway:records "orders"
    assert.equal(20, #records)
    for i, record in ipairs(records) do
      assert.equal("v" .. i, record.value)
      assert.same({ topic = "orders", partition = record.partition, offset = record.offset }, said[i])
    end
  end)

  it("carries headers, numbers and null", function()
    run [[
      local batch = kafka.batch()
      batch:add { topic = "orders", key = 7, value = 1.5, headers = { a = { "1", "2" } }, timestamp = 1700000000123 }
      batch:add { topic = "orders", key = "gone" }
      return batch:wait()
    ]]
    local records = gateway:records "orders"
    assert.same({ "7", "1.5", 1700000000123 }, { records[1].key, records[1].value, records[1].timestamp })
    assert.same({ { "a", "1" }, { "a", "2" } }, records[1].fields)
    assert.is_nil(records[2].value)
  end)

  it("tells the error of one record among good ones", function()
    assert.same({ { offset = 0 }, { "the record was refused", "MSG_SIZE_TOO_LARGE" }, { offset = 1 } }, run [[
      local batch, said = kafka.batch(), {}
      for _, topic in ipairs { "orders", "refused", "orders" } do
        batch:add { topic = topic, value = "x", partition = 0 }
      end
      batch:wait()
      for i = 1, 3 do
        local at, err, code = batch:result(i)
        said[i] = at and { offset = at.offset } or { err, code }
      end
      return said
    ]])
  end)

  it("gives no index to a record that cannot be queued, and goes on", function()
    gateway:fail_topic("refused", "full")
    assert.same({ "full", "cluster", 1, true }, run [[
      local batch = kafka.batch()
      local full = select(3, batch:add { topic = "refused", value = "x" })
      local nowhere = select(3, kafka.batch({ cluster = "nowhere" }):add { topic = "orders", value = "x" })
      return { full, nowhere, batch:add { topic = "orders", value = "x" }, batch:wait() }
    ]])
  end)

  it("gives up on a record after its time, and says that it may yet arrive", function()
    gateway:fail_topic("refused", "timeout")
    local pending = gateway:send { method = "POST", path = "/", body = [[
      local kafka, sluice = ...
      local batch, said = kafka.batch { timeout = 5 }, {}
      batch:add { topic = "orders", value = "x" }
      batch:add { topic = "refused", value = "x" }
      sluice.sleep(2)
      batch:add { topic = "refused", value = "x" }
      local from = sluice.time.now()
      said[1] = select(2, batch:wait(1))
      said[2] = { batch:wait() }
      said[3] = math.floor(sluice.time.now() - from + 0.5)
      for i = 1, 3 do said[#said + 1] = select(3, batch:result(i)) or "ok" end
      return said
    ]] }
    gateway:advance(2)
    gateway:advance(1)
    gateway:advance(2)
    gateway:advance(2)
    local said = pending:receive(1).json.said
    assert.same({ "timeout", { true }, 5, "ok", "timeout", "timeout" }, said)
  end)

  it("gives what was told one by one, and says when there will be no more", function()
    assert.same({ { 1, 2, 3 }, "empty" }, run [[
      local batch, list = kafka.batch(), {}
      for _ = 1, 3 do batch:add { topic = "orders", value = "x" } end
      while true do
        local index, err = batch:next(1)
        if not index then return { list, err } end
        list[#list + 1] = index
        assert(batch:result(index))
      end
    ]])
  end)

  it("ends a wait for one after its time", function()
    gateway:fail_topic("refused", "timeout")
    local pending = gateway:send { method = "POST", path = "/", body = [[
      local batch = (...).batch()
      batch:add { topic = "refused", value = "x" }
      return { select(2, batch:next(0)), select(2, batch:next(3)), (select(3, batch:result(1))) }
    ]] }
    gateway:advance(3)
    assert.same({ "timeout", "timeout", "waiting" }, pending:receive(1).json.said)
  end)

  it("has 1024 places, each free once its result was asked for", function()
    assert.same({ 1024, "full", 1025, "full", "unknown" }, run [[
      local batch, said = kafka.batch(), {}
      local record = { topic = "orders", value = "x" }
      local index, code, _
      repeat
        said[1] = index
        index, _, code = batch:add(record)
      until not index
      said[2] = code
      batch:result(2)
      assert(not batch:add(record)) -- the oldest has it still
      batch:result(1)
      said[3] = batch:add(record)
      assert(batch:add(record) == 1026)
      said[4] = select(3, batch:add(record))
      said[5] = select(3, batch:result(1))
      return said
    ]])
  end)

  it("lets a stream of any length through its places", function()
    assert.equal(5000, run [[
      local batch, told, last = kafka.batch(), 0, 0
      local record = { topic = "orders", value = "x", partition = 1 }
      local function take(seconds)
        local index = batch:next(seconds)
        if not index then return false end
        local at = assert(batch:result(index))
        assert(at.offset == index - 1 and at.topic == "orders")
        told = told + 1
        return true
      end
      for i = 1, 5000 do
        local index, err, code = batch:add(record)
        while code == "full" and take(1) do index, err, code = batch:add(record) end
        assert(index == i, err)
      end
      while take(1) do end
      return told
    ]])
  end)

  it("has one user: a second wait ends the first; closing ends both", function()
    gateway:fail_topic("refused", "timeout")
    local said = run [[
      local batch, said = kafka.batch(), {}
      batch:add { topic = "refused", value = "x" }
      local function note()
        local _, err = batch:wait(60)
        said[#said + 1] = err
      end
      local function turns() for _ = 1, 5 do sluice.sleep(0) end end
      sluice.timer.at(0, note)
      turns()
      sluice.timer.at(0, note)
      turns()
      assert(#said == 1)
      batch:close()
      batch:close()
      turns()
      said[3] = select(3, batch:add { topic = "orders", value = "x" })
      said[4] = select(3, batch:result(1))
      said[5] = select(2, batch:next(1))
      return said
    ]]
    assert.same({ "closed", "closed", "closed", "closed", "closed" }, said)
  end)

  it("closes what its plugin forgot", function()
    assert.is_true(run [[
      for _ = 1, 200 do kafka.batch():add { topic = "orders", value = "x" } end
      local waste
      for i = 1, 1e5 do waste = { waste and i } end
      return true
    ]])
  end)

  it("names a wrong argument at the plugin's line", function()
    local code = { 'kafka.batch { cluster = 5 }', 'kafka.batch { timeout = "x" }', 'kafka.batch():add(7)',
      'kafka.batch():add { topic = 5 }', 'kafka.batch():add { topic = "t", value = {} }',
      'kafka.batch():add { topic = "t", headers = { a = 5 } }', 'kafka.batch():add { topic = "t", headers = 5 }',
      'kafka.batch():add { topic = "t", partition = "x" }', 'kafka.batch():wait("x")', 'kafka.batch():next(-1)',
      'kafka.batch():result("x")', 'kafka.produce { topic = 5 }', 'kafka.send { topic = "t", key = {} }' }
    local wanted = { "kafka.batch: cluster must be a string or nil, got number 5",
      'kafka.batch: timeout must be a number, got string "x"', "batch:add: record must be a table, got number 7",
      "batch:add: topic must be a string, got a number", "batch:add: value must be a string, got a table",
      "batch:add: headers must be names with strings", "batch:add: headers must be a table, got a number",
      "batch:add: partition must be a number from -1 to 2147483647, got x",
      "batch:wait: seconds must be a number from 0",
      "batch:next: seconds must be a number from 0",
      'batch:result: index must be a number, got string "x"',
      "kafka.produce: topic must be a string, got a number", "kafka.send: key must be a string, got a table" }
    for i, line in ipairs(code) do
      local said = run('local ok, err = pcall(function()\n' .. line .. '\nend) return err')
      assert.equal('3: ' .. wanted[i], said:match(':(%d+: .*)$'))
    end
  end)
end)
