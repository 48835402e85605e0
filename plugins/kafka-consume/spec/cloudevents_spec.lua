-- SPDX-License-Identifier: Apache-2.0
-- Records told as CloudEvents.
local cjson = require "cjson"
local spec = require "sluice.spec"

describe("kafka-consume with event: cloudevent", function()
  local BINARY = { { "ce_specversion", "1.0" }, { "ce_id", "1" }, { "ce_source", "/s" }, { "ce_type", "made" },
    { "content-type", "application/json" } }
  local RECORDS = {
    { key = "k", value = '{\n"n":1.0}', headers = BINARY, partition = 0 },
    { value = '{"specversion":"1.0","id":"2","source":"/s","type":"made","data":[]}', partition = 0,
      headers = { { "content-type", "application/cloudevents+json; charset=utf-8" } } },
    { key = "ada", value = '{"plain":true}', timestamp = 1700000000500, partition = 0 },
    { value = "text", partition = 0 }, { value = "\255", partition = 0 }, { partition = 0 },
    { value = "{", headers = { { "content-type", "application/json" } }, partition = 0 },
  }

  local function open_gateway(config)
    config.topics, config.event = { { name = "news" } }, "cloudevent"
    return spec.gateway { topics = { news = { partitions = 1, records = RECORDS } },
      plugins = { { name = "kafka-consume", config = config } } }
  end

  it("tells those that are events as what they are, others as what they are in", function()
    local response = open_gateway({}):get("/?partition=0&offset=0")
    assert.equal("application/cloudevents-batch+json; charset=utf-8", response.headers["content-type"])
    assert.matches('"id":"1","source":"/s","type":"made","datacontenttype":"application/json","data":{ "n":1.0}',
      response.body, 1, true)
    local events = cjson.decode(response.body)
    assert.same({ "1", "2" }, { events[1].id, events[2].id })
    assert.same({ specversion = "1.0", id = "news/0/2", source = "/topics/news", type = "kafka.record",
      time = "2023-11-14T22:13:20.500Z", datacontenttype = "application/json", partitionkey = "ada",
      data = { plain = true } }, events[3])
    assert.same({ "text", "text/plain; charset=utf-8" }, { events[4].data, events[4].datacontenttype })
    assert.same({ "/w==", "application/octet-stream" }, { events[5].data_base64, events[5].datacontenttype })
    assert.is_nil(events[6].data)
    assert.same({ "{", "text/plain; charset=utf-8" }, { events[7].data, events[7].datacontenttype })
  end)

  it("does so in lines and server-sent events, each in one line", function()
    for mode, prefix in pairs { ndjson = "", ["server-sent-events"] = "data: " } do
      local gateway = open_gateway { mode = mode, auto_offset_reset = "earliest" }
      local client = gateway:connect()
      client:send { path = "/" }
      local function seen() return (select(2, client:partial())) end
      gateway:run_until(function() return seen():find("news/0/6", 1, true) end, 10)
      assert.matches("\n" .. prefix .. '{"specversion":"1.0","id":"1"', seen(), 1, true)
      assert.matches('"data":{ "n":1.0}}\n', seen(), 1, true)
      gateway:close()
    end
  end)
end)
