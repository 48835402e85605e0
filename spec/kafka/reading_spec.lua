-- SPDX-License-Identifier: Apache-2.0
-- sluice.kafka's readers and groups in Lua, through the whole gateway, against a real broker.
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

-- Runs the Lua code that a request brings.
local RUN = [[
local kept = {}
return function(exchange)
  local chunk = assert(loadstring(exchange.request:get_raw_body()))
  return { said = chunk(require("sluice").kafka, kept, require("sluice")) }
end
]]

describe("sluice.kafka with a real broker", function()
  local shared, gw, directory

  setup(function()
    shared = broker.shared()
    directory = posix.temporary_directory()
    process.write_file(directory .. "/run.lua", RUN)
    gw = gateway.start(([[
_format_version: "3.0"
gateway: { kafka: { main: { bootstrap.servers: "%s", session.timeout.ms: 10000 } } }
routes:
- { name: run, paths: [/run], plugins: [{ name: function, config: { file: "%s/run.lua", timeout: 30000 } }] }
]]):format(shared.servers, directory), { workers = 1 })
  end)

  teardown(function()
    if gw then gw:stop() end
    process.remove(directory)
  end)

  local function run(code, ...)
    local names = { ... }
    local response = gw:request { path = "/run", timeout = 35,
      body = "local kafka, kept, sluice = ...\n" .. code:gsub("%$(%d)", function(i) return names[tonumber(i)] end) }
    assert.equal(200, response.status, response.body)
    return cjson.decode(response.body).said
  end

  local FILL = [[
    for i = 1, 6 do
      for _, topic in ipairs { "$1", "$2" } do
        assert(kafka.produce { topic = topic, value = i, partition = (i - 1) % 2, timestamp = i * 1000 })
      end
    end
  ]]
  local ALL = [[
    local function all(options)
      local reader, said = assert(kafka.reader(options)), {}
      while true do
        local record, err = reader:next(10)
        said[#said + 1] = record and (record.topic == "$1" and "a" or "b") .. record.value or err
        if not record then break end
      end
      reader:close()
      local last = table.remove(said)
      table.sort(said)
      return table.concat(said, " ") .. " " .. last
    end
  ]]

  it("reads topics, partitions, from a time, up to an end", function()
    local a, b = shared:topic(2), shared:topic(2)
    run(FILL, a, b)
    local said = run(ALL .. [[
      return {
        all { topics = { "$1", "$2" }, from = "earliest", to = "latest" },
        all { topic = "$1", from = { timestamp = 2500 }, to = "latest" },
        all { topic = "$1", from = "earliest", to = { timestamp = 5000 } },
        all { topic = "$1", from = "earliest", partitions = { 1 }, to = "latest" },
        all { topic = "$1", from = { [1] = 1 }, partitions = { 1 }, to = { [1] = 2 } },
        all { topic = "$1", from = "latest", to = "latest" },
        all { topics = { "$1", "$2" }, from = { ["$1"] = { [0] = 3, [1] = 2 }, ["$2"] = { [0] = 3, [1] = 3 } },
          to = "latest" },
      }
    ]], a, b)
    assert.same({ "a1 a2 a3 a4 a5 a6 b1 b2 b3 b4 b5 b6 end", "a3 a4 a5 a6 end", "a1 a2 a3 a4 end", "a2 a4 a6 end",
      "a4 end", " end", "a6 end" }, said)
  end)

  it("tells offsets at a time", function()
    local a, b = shared:topic(2), shared:topic(2)
    run(FILL, a, b)
    local said = run([[
      local said = {}
      for i, at in ipairs { "earliest", "latest", 2500, 9000 } do
        local offsets = assert(kafka.offsets { topic = "$1", at = at })
        said[i] = { offsets[0], offsets[1] }
      end
      local _, _, code = kafka.offsets { topic = "nobody-made-this", at = "latest" }
      said[5] = code
      _, _, said[6] = kafka.reader { topic = "nobody-made-this", from = { timestamp = 1 } }
      return said
    ]], a)
    assert.same({ { 0, 0 }, { 3, 3 }, { 1, 1 }, { 3, 3 }, "UNKNOWN_TOPIC_OR_PART", "topic" }, said)
  end)

  it("wakes for any of several topics, in order", function()
    local a, b = shared:topic(2), shared:topic(2)
    local said = run([[
      local reader, said = assert(kafka.reader { topics = { "$1", "$2" } }), {}
      for i = 1, 6 do
        local topic = i % 2 == 0 and "$1" or "$2"
        assert(kafka.produce { topic = topic, value = i, partition = 0 })
        local record, err = reader:next(10)
        said[i] = record and record.topic == topic and record.value or err
      end
      said[7] = select(2, reader:next(0.05))
      reader:close()
      return said
    ]], a, b)
    assert.same({ "1", "2", "3", "4", "5", "6", "timeout" }, said)
  end)

  it("shares a topic between members of a group, which go on where the last one committed", function()
    local a, b = shared:topic(2), shared:topic(2)
    run(FILL, a, b)
    local said = run([[
      local function consumer() return assert(kafka.group { group = "g-$1", topics = { "$1" }, from = "earliest" }) end
      local one, said = consumer(), {}
      for i = 1, 6 do said[i] = assert(one:next(20)).value end
      table.sort(said)
      said[7] = one:commit()
      said[8] = one:positions()["$1"][0]
      one:close()
      assert(kafka.produce { topic = "$1", value = "new", partition = 1 })
      local two = consumer()
      local record = assert(two:next(20))
      said[9], said[10] = record.value, record.offset
      local ok, err, code = two:commit({ ["$1"] = { [7] = 1 } }, 10)
      said[11] = code
      two:close()
      said[12] = select(3, two:commit())
      return said
    ]], a, b)
    assert.same({ "1", "2", "3", "4", "5", "6", true, 3, "new", 3, "UNKNOWN_TOPIC_OR_PART", "closed" }, said)
  end)
end)
