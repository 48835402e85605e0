-- SPDX-License-Identifier: Apache-2.0
-- What a check by grpc.health.v1 makes of what a service sends, well behaved or not.
local grpc = require "sluice.balancer.grpc"

local function frame(kind, flags, stream, payload)
  return "\0" .. string.char(math.floor(#payload / 256), #payload % 256, kind, flags, 0, 0, 0, stream) .. payload
end

local SETTINGS, HEAD = frame(4, 0, 0, ""), frame(1, 4, 1, "\136")

-- What the check says when the service sends these bytes and then nothing; and what it has sent itself.
local function check(bytes, at_end)
  local at, sent = 1, {}
  local answer, err = grpc.check({ service = "", authority = "a", tls = false }, function(text)
    sent[#sent + 1] = text
    return true
  end, function(count)
    if at + count - 1 > #bytes then return nil, at_end or "closed" end
    at = at + count
    return bytes:sub(at - count, at - 1)
  end)
  return answer, err, sent
end

local function message(content)
  return string.char(0, 0, 0, 0, #content) .. content
end

describe("a check by grpc.health.v1", function()
  it("knows the statuses", function()
    for number, name in pairs { [0] = "UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", "status 4" } do
      local data = frame(0, 0, 1, message(string.char(8, number)))
      assert.equal(name, (check(SETTINGS .. HEAD .. data)))
    end
    assert.equal("UNKNOWN", (check(SETTINGS .. HEAD .. frame(0, 0, 1, message("")))))
  end)

  it("puts together what comes in pieces, with padding", function()
    local whole = message("\8\1")
    local pieces = {}
    for i = 1, #whole do pieces[i] = frame(0, 8, 1, "\3" .. whole:sub(i, i) .. "\0\0\0") end
    assert.equal("SERVING", (check(SETTINGS .. HEAD .. table.concat(pieces))))
  end)

  it("passes over fields that it does not know", function()
    local content = "\16\255\1" .. "\26\2ab" .. "\33" .. ("x"):rep(8) .. "\45" .. "yyyy" .. "\8\1"
    assert.equal("SERVING", (check(HEAD .. frame(0, 0, 1, message(content)))))
  end)

  it("answers settings and pings", function()
    local _, _, sent = check(SETTINGS .. frame(6, 0, 0, "12345678") .. frame(6, 1, 0, "87654321"))
    assert.same({ frame(4, 1, 0, ""), frame(6, 1, 0, "12345678") }, { sent[2], sent[3] })
    assert.equal(3, #sent)
  end)

  it("says why there is no answer", function()
    for bytes, what in pairs {
      [SETTINGS .. frame(1, 5, 1, "\136")] = "the call failed",
      [SETTINGS .. HEAD .. frame(0, 1, 1, "")] = "the call failed",
      [SETTINGS .. frame(3, 0, 1, "\0\0\0\8")] = "it reset the call",
      [SETTINGS .. frame(7, 0, 0, ("\0"):rep(8))] = "it takes no calls",
      [frame(6, 1, 0, "12345678"):rep(100)] = "it does not come to an answer",
      [HEAD .. frame(0, 0, 1, "\1\0\0\0\2\8\1")] = "an answer that cannot be read",
      [HEAD .. frame(0, 0, 1, "\0\255\255\255\255")] = "an answer that cannot be read",
      [HEAD .. frame(0, 0, 1, message("\8"))] = "an answer that cannot be read",
      [HEAD .. frame(0, 0, 1, message("\11"))] = "an answer that cannot be read",
      [HEAD .. frame(0, 0, 1, message(("\255"):rep(20)))] = "an answer that cannot be read",
      ["\255\255\255" .. ("\0"):rep(20)] = "a frame too large",
      ["HTTP/1.1 400 Bad Request\r\n\r\n"] = "a frame too large",
    } do
      assert.equal(what, (check(bytes)))
    end
  end)

  it("tells a connection that ends from one that is silent", function()
    assert.same({ nil, "closed" }, { (check(SETTINGS)), (select(2, check(SETTINGS))) })
    assert.equal("timeout", (select(2, check(SETTINGS .. HEAD, "timeout"))))
  end)

  it("raises nothing, whatever comes", function()
    math.randomseed(7)
    for _ = 1, 20000 do
      local bytes = {}
      for i = 1, math.random(1, 60) do bytes[i] = string.char(math.random() < 0.5 and math.random(0, 9) or
        math.random(0, 255)) end
      local answer, err = check(HEAD .. frame(0, 0, 1, message(table.concat(bytes))))
      assert.is_true(answer ~= nil or err ~= nil)
      answer, err = check(table.concat(bytes))
      assert.is_true(answer ~= nil or err ~= nil)
    end
  end)

  it("asks for a service, however long its name, with fields of one's own", function()
    local name = ("n"):rep(300)
    local text = grpc.request { service = name, authority = ("a"):rep(200), tls = true, fields = { { "X-A", "b" } } }
    assert.is_true(text:find("\0\3x-a\1b", 1, true) ~= nil)
    assert.is_true(text:find("\127\73" .. ("a"):rep(200), 1, true) ~= nil)
    assert.equal("\0\0\0\1\47\10\172\2" .. name, text:sub(-(300 + 8)))
  end)
end)
