-- SPDX-License-Identifier: Apache-2.0
-- Streams of records through a whole gateway: over real sockets, while brokers come and go and clients misbehave.
local ffi = require "ffi"
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"

local C = client.C

local CONFIG = [[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s" }
routes:
- name: lines
  paths: [/lines]
  plugins: [{ name: kafka-upstream, config: {
    topic: lines, value: body, key: "$(body.key)", batch: lines, timeout: 20000 } }]
- name: raw
  paths: [/raw]
  plugins: [{ name: kafka-upstream, config: { topic: lines, value: body, batch: lines } }]
]]

local HEAD = "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"

-- What a process holds that is in no file.
local function memory(pid)
  return tonumber(process.read_file("/proc/" .. pid .. "/smaps_rollup"):match("Anonymous:%s*(%d+) kB")) * 1024
end

local function chunk(text)
  return ("%x\r\n%s\r\n"):format(#text, text)
end

describe("a stream of records", function()
  local mock, kafka, gw

  setup(function()
    kafka = client.new()
    mock = C.kafka_mock_new(1, kafka.error)
    C.kafka_mock_topic(mock, "lines", 3)
    local servers = ffi.string(C.kafka_mock_servers(mock))
    kafka:cluster("main", { ["bootstrap.servers"] = servers })
    gw = gateway.start(CONFIG:format(servers))
  end)

  teardown(function()
    gw:stop()
    kafka:close()
    C.kafka_mock_free(mock)
  end)

  -- A client that has begun a stream.
  local function open(path)
    local it = gw:connect()
    it:send(HEAD:format(path))
    return it
  end

  -- The lines of an answer, out of the chunks that `read` gives.
  local function line_reader(it)
    it:read_head()
    local text = ""
    return function(seconds)
      while true do
        local line, rest = text:match("^([^\n]*)\n(.*)$")
        if line then
          text = rest
          return cjson.decode(line)
        end
        local size = tonumber(assert(it.socket:receive_line(seconds)), 16)
        if size == 0 then return nil end
        text = text .. assert(it.socket:receive_exact(size, seconds))
        it.socket:receive_exact(2, seconds)
      end
    end
  end

  it("loses and reorders nothing while the broker is away for a time", function()
    local it, offsets = open("/lines"), {}
    local next_line
    for i = 1, 60 do
      if i == 20 then C.kafka_mock_down(mock, true) end
      if i == 40 then C.kafka_mock_down(mock, false) end
      it:send(chunk(('{"key":"k%d","n":%d}\n'):format(i % 5, i)))
      if i == 1 then
        next_line = line_reader(it)
        assert.equal(1, next_line().line)
      end
    end
    it:send("0\r\n\r\n")
    for i = 2, 60 do
      local answer = next_line(20)
      assert.equal(i, answer.line)
      assert.is_nil(answer.error)
      local key = i % 5
      assert.is_true(answer.offset > (offsets[key] or -1))
      offsets[key] = answer.offset
    end
    assert.same({ message = "done", sent = 60, failed = 0, dropped = 0 }, next_line())
    it:close()
  end)

  it("takes nothing from a client that does not read its answers, and holds little", function()
    local before = memory(gw:workers()[1])
    local it = open("/raw")
    local text = chunk(("x\n"):rep(16384))
    local pieces, total, at = 0, 400, nil
    -- Until nothing goes out any more: buffers of sockets are the system's, and differ.
    repeat
      local sent, _, part = it.socket:send(text:sub(at or 1), 0.5)
      if sent then pieces, at = pieces + 1, nil elseif part then at = (at or 1) + part end
    until not sent or pieces == total
    assert.is_true(pieces < total, "13 MB went in without an answer being read")
    -- A sanitizer keeps what was freed.
    assert.is_true(process.slowness > 1 or memory(gw:workers()[1]) - before < 24 * 1024 * 1024)
    assert.equal(200, gw:request({ method = "POST", path = "/raw", body = "other\n" }).status)
    it:close()
  end)

  it("ends with its client", function()
    local it = open("/raw")
    it:send(chunk("x\n"))
    it:read_head()
    it.socket:reset()
    for _ = 1, 20 do assert.equal(200, gw:request({ method = "POST", path = "/raw", body = "y\n" }).status) end
    assert.is_nil(gw:log():find(" error worker", 1, true), gw:log())
  end)

  it("says that a body broke off, and sends no half line", function()
    local it = open("/raw")
    it:send(chunk("whole\nhal"))
    local next_line = line_reader(it)
    assert.equal(1, next_line().line)
    it:send("no chunk\r\n")
    local last = next_line()
    assert.same({ "the body broke off", 1 }, { last.message, last.sent })
    assert.is_string(last.error)
    it:close()
  end)

  it("says that the framing of its body is broken", function()
    local it = open "/raw"
    it:send("zz\r\n")
    local last = cjson.decode(it:read_response().body)
    assert.same({ "the body broke off", "the framing of the body is broken" }, { last.message, last.error })
    it:close()
  end)

  it("begins when its client has been invited", function()
    local it = gw:connect()
    it:send("POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert.matches("^HTTP/1.1 100", it.socket:receive_until("\r\n\r\n"))
    it:send("x\n")
    assert.matches('"sent":1', it:read_response().body, 1, true)
    it:close()
  end)
end)

describe("records in one batch of a real broker", function()
  it("fail alone", function()
    local shared = broker.shared()
    local topic = shared:topic(1, { ["max.message.bytes"] = 200 })
    local gw = gateway.start(([[
_format_version: "3.0"
gateway:
  kafka:
    main: { bootstrap.servers: "%s" }
routes:
- { name: lines, paths: [/], plugins: [{ name: kafka-upstream, config: { topic: %s, value: body, batch: lines } }] }
]]):format(shared.servers, topic))
    local response = gw:request { method = "POST", path = "/", body = "a\n" .. ("x"):rep(400) .. "\nb\n" }
    gw:stop()
    local answers = {}
    for line in response.body:gmatch("[^\n]+") do answers[#answers + 1] = cjson.decode(line) end
    assert.same({ "MSG_SIZE_TOO_LARGE", 413 }, { answers[2].code, answers[2].status })
    local offsets = { answers[1].offset, answers[3].offset }
    table.sort(offsets) -- of what the broker refused with another the good one may be sent again later
    assert.same({ 0, 1 }, offsets)
  end)
end)
