-- SPDX-License-Identifier: Apache-2.0
require "sluice.spec" -- whose core it is
local cloudevents = require "sluice.cloudevents"
local json = require "sluice.json"

local function event(more)
  local it = { specversion = "1.0", id = "A234-1234-1234", source = "/mycontext", type = "com.example.made" }
  for name, value in pairs(more or {}) do it[name] = value end
  return it
end

local function header(record, wanted)
  for _, one in ipairs(record.headers) do
    if one[1] == wanted then return one[2] end
  end
end

describe("sluice.cloudevents", function()
  describe("over HTTP", function()
    it("reads the binary mode", function()
      local list, _, _, mode = cloudevents.from_http({
        ["content-type"] = "text/xml", ["ce-specversion"] = "1.0", ["ce-type"] = "com.example.made",
        ["ce-time"] = "2018-04-05T03:56:24Z", ["ce-id"] = "1", ["ce-source"] = "/mycontext/subcontext",
        ["ce-subject"] = "Euro%20%E2%82%AC%20%F0%9F%98%80", ["ce-quoted"] = '"a \\"b\\""', host = "h",
      }, "<much/>")
      assert.equal("binary", mode)
      assert.same({ { specversion = "1.0", type = "com.example.made", time = "2018-04-05T03:56:24Z", id = "1",
        source = "/mycontext/subcontext", subject = "Euro € 😀", quoted = 'a "b"', datacontenttype = "text/xml",
        data = "<much/>" } }, list)
    end)

    it("reads the structured mode, data as it is written", function()
      local kind = "application/cloudevents+json; charset=utf-8"
      local list, _, _, mode = cloudevents.from_http({ ["content-type"] = kind },
        '{"specversion":"1.0","id":"1","source":"/s","type":"t","count":5,"flag":true,"none":null,'
        .. '"data": {"b":1.0, "a":[]} }')
      assert.equal("structured", mode)
      assert.same({ { specversion = "1.0", id = "1", source = "/s", type = "t", count = 5, flag = true,
        datacontenttype = "application/json", data = '{"b":1.0, "a":[]}' } }, list)
    end)

    it("reads a batch", function()
      local one = '{"specversion":"1.0","id":"%d","source":"/s","type":"t"}'
      local list, _, _, mode = cloudevents.from_http({ ["content-type"] = "application/cloudevents-batch+json" },
        "[" .. one:format(1) .. "," .. one:format(2) .. "]")
      assert.equal("batched", mode)
      assert.same({ "1", "2" }, { list[1].id, list[2].id })
      assert.same({}, (cloudevents.from_http({ ["content-type"] = "application/cloudevents-batch+json" }, "[]")))
    end)

    it("says what is no event", function()
      local _, err, attribute = cloudevents.from_http({ ["content-type"] = "application/json" }, "{}")
      assert.equal("none", attribute)
      assert.is_string(err)
      _, err = cloudevents.from_http({ ["content-type"] = "application/cloudevents+avro" }, "")
      assert.matches("JSON event format", err)
      _, err = cloudevents.from_http({ ["content-type"] = "application/cloudevents+json" }, "[1]")
      assert.matches("expected a JSON object", err)
      _, err, attribute = cloudevents.from_http({ ["content-type"] = "application/cloudevents-batch+json" },
        '[{"specversion":"1.0","id":"1","source":"/s"}]')
      assert.same({ "event 1: attribute type: expected a text that is not empty", "type" }, { err, attribute })
      _, err = cloudevents.from_http({ ["content-type"] = "application/cloudevents-batch+json" }, "{}")
      assert.matches("expected an array", err)
    end)

    it("writes the binary mode", function()
      local headers, body = cloudevents.to_http(event { subject = "Euro € 😀", n = 5, datacontenttype = "text/plain",
        quote = 'a"b%', data = "plain" })
      assert.same({ ["ce-specversion"] = "1.0", ["ce-id"] = "A234-1234-1234", ["ce-source"] = "/mycontext",
        ["ce-type"] = "com.example.made", ["ce-subject"] = "Euro%20%E2%82%AC%20%F0%9F%98%80", ["ce-n"] = "5",
        ["ce-quote"] = "a%22b%25", ["content-type"] = "text/plain" }, headers)
      assert.equal("plain", body)
    end)

    it("writes the structured mode and batches", function()
      local headers, body = cloudevents.to_http(event { data = '{"b":1.0}' }, "structured")
      assert.equal("application/cloudevents+json; charset=utf-8", headers["content-type"])
      assert.equal('{"specversion":"1.0","id":"A234-1234-1234","source":"/mycontext","type":"com.example.made",'
        .. '"data":{"b":1.0}}', body)
      headers, body = cloudevents.to_http({ event(), event { id = "2" } }, "batched")
      assert.equal("application/cloudevents-batch+json; charset=utf-8", headers["content-type"])
      assert.equal("2", json.decode(body)[2].id)
    end)
  end)

  describe("in records", function()
    it("writes and reads the binary mode", function()
      local it = event { datacontenttype = "application/json", data = '{"a":1}', partitionkey = "ada",
        subject = "Euro €" }
      local record = cloudevents.to_record(it)
      assert.same({ "ada", '{"a":1}' }, { record.key, record.value })
      assert.equal("application/json", header(record, "content-type"))
      assert.equal("Euro €", header(record, "ce_subject"))
      assert.equal("1.0", header(record, "ce_specversion"))
      assert.is_nil(header(record, "ce_datacontenttype"))
      assert.same(it, (cloudevents.from_record(record)))
    end)

    it("writes and reads the structured mode", function()
      local it = event { data = '{"b":1.0}', n = 5 }
      local record = cloudevents.to_record(it, "structured")
      assert.equal("application/cloudevents+json; charset=utf-8", header(record, "content-type"))
      assert.is_nil(record.key)
      it.datacontenttype = "application/json" -- which the JSON format implies
      assert.same(it, (cloudevents.from_record(record)))
    end)

    it("takes an event without data for one: Kafka's null", function()
      local record = cloudevents.to_record(event())
      assert.is_nil(record.value)
      assert.same(event(), (cloudevents.from_record(record)))
    end)

    it("says what is no event", function()
      local _, _, attribute = cloudevents.from_record { value = "{}", headers = { { "content-type", "text/plain" } } }
      assert.equal("none", attribute)
      _, _, attribute = cloudevents.from_record { headers = { { "ce_specversion", "1.0" }, { "ce_id", "1" } } }
      assert.equal("source", attribute)
    end)
  end)

  describe("as JSON", function()
    it("keeps bytes in base64, and texts as texts", function()
      local text = cloudevents.encode(event { datacontenttype = "application/octet-stream", data = "\0\255" })
      assert.equal("AP8=", json.decode(text).data_base64)
      assert.equal("\0\255", cloudevents.decode(text).data)
      text = cloudevents.encode(event { datacontenttype = "text/plain", data = 'say "ä"' })
      assert.equal('say "ä"', json.decode(text).data)
      assert.equal('say "ä"', cloudevents.decode(text).data)
      text = cloudevents.encode(event { datacontenttype = "text/plain", data = "\255" })
      assert.equal("/w==", json.decode(text).data_base64)
    end)

    it("refuses data that is not what its type says", function()
      local text, err = cloudevents.encode(event { datacontenttype = "application/json", data = "{" })
      assert.is_nil(text)
      assert.matches("data: no JSON", err)
    end)

    it("goes through every mode and back unchanged", function()
      local it = event { datacontenttype = "application/vnd.order+json", time = "2026-01-01T00:00:00Z", data = "[1.50]",
        dataschema = "https://example.com/s", subject = "x y" }
      for _, mode in ipairs { "binary", "structured" } do
        local headers, body = cloudevents.to_http(it, mode)
        local there = cloudevents.from_http(headers, body)[1]
        for _, other in ipairs { "binary", "structured" } do
          assert.same(it, (cloudevents.from_record(cloudevents.to_record(there, other))))
        end
      end
    end)
  end)

  it("knows what an event must be", function()
    local cases = {
      { "specversion", { specversion = "0.3" } }, { "id", { id = "" } }, { "source", { source = 5 } },
      { "time", { time = "yesterday" } }, { "datacontenttype", { datacontenttype = "json" } },
      { "Upper", { Upper = "x" } }, { "a_b", { a_b = "x" } }, { "n", { n = 1.5 } }, { "n", { n = 2 ^ 31 } },
      { "t", { t = {} } }, { "subject", { subject = "a\nb" } }, { "data", { data = {} } },
    }
    for _, case in ipairs(cases) do
      local fine, err, attribute = cloudevents.check(event(case[2]))
      assert.is_nil(fine)
      assert.is_string(err)
      assert.equal(case[1], attribute)
    end
    assert.is_true(cloudevents.check(event { n = -2147483648, flag = false }))
  end)

  it("refuses data twice, and base64 that is none", function()
    local head = '{"specversion":"1.0","id":"1","source":"/s","type":"t",'
    assert.is_nil(cloudevents.decode(head .. '"data":1,"data_base64":"AA=="}'))
    assert.is_nil(cloudevents.decode(head .. '"data_base64":"?"}'))
    assert.is_nil(cloudevents.decode("{"))
  end)
end)
