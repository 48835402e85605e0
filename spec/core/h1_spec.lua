-- SPDX-License-Identifier: Apache-2.0
-- The codec by itself: bytes in, events out, however the bytes are cut.
local core = require "spec.support.core"
local ffi = require "ffi"

require("spec.support.system").declare_llhttp()
local C = core.load("h1.h", "error.h")

local NAMES = { [0] = "more", "head", "body", "end", "error" }
local ROOM = 65536

describe("the HTTP/1.1 codec", function()
  local arena, h1, message, input, given

  -- options: client (reads responses), max_head, max_headers, head (the response is to HEAD)
  local function begin(options)
    C.h1_begin(h1, message, arena, options.max_headers or 100, options.head or false)
  end

  local function new(options)
    options = options or {}
    arena, h1, message = ffi.new("struct arena"), ffi.new("struct h1"), ffi.new("struct h1_message")
    input, given = ffi.new("char[?]", ROOM), 0
    C.arena_init(arena, 1000000)
    C.h1_init(h1, options.client and C.H1_CLIENT or C.H1_SERVER, options.max_head or 4096)
    begin(options)
  end

  after_each(function() C.arena_close(arena) end)

  local function text(slice)
    return slice.data ~= nil and ffi.string(slice.data, slice.len) or nil
  end

  -- Feeds bytes (a head's lie behind each other, as the codec asks) and lists the events; bodies by their text.
  -- Stops at the end of a message; the second result is what was not used.
  local function feed(bytes)
    local from, events, used = given, {}, ffi.new("uint32_t[1]")
    ffi.copy(input + given, bytes, #bytes)
    given = given + #bytes
    while true do
      local slice = ffi.new("struct slice", input + from, given - from)
      local event = NAMES[tonumber(C.h1_next(h1, slice, used))]
      from = from + used[0]
      if event == "more" then break end
      events[#events + 1] = event == "body" and text(h1.body) or event
      if event == "end" or event == "error" then break end
    end
    local rest = ffi.string(input + from, given - from)
    given = from
    return events, rest
  end

  local function problem()
    return tonumber(h1.problem), h1.reason ~= nil and ffi.string(h1.reason) or nil
  end

  local function fields(headers)
    local list = {}
    for index = 0, headers.count - 1 do
      list[#list + 1] = text(headers.fields[index].name) .. "=" .. text(headers.fields[index].value)
    end
    return list
  end

  describe("of requests", function()
    local GET = "GET /a?b HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\n\r\n"

    it("gives the head with its parts", function()
      new()
      assert.same({ "head", "end" }, (feed(GET)))
      assert.same({ "GET", "/a?b", 1, 1 },
        { text(message.method), text(message.target), message.major, message.minor })
      assert.same({ "Host=h", "X-A=1" }, fields(message.headers))
      assert.is_true(message.keep_alive)
      assert.equal(-1, tonumber(message.content_length))
    end)

    it("gives the same whatever pieces it comes in", function()
      for size = 1, #GET do
        new()
        local events = {}
        for at = 1, #GET, size do
          for _, event in ipairs((feed(GET:sub(at, at + size - 1)))) do events[#events + 1] = event end
        end
        assert.same({ "head", "end" }, events)
        assert.same({ "Host=h", "X-A=1" }, fields(message.headers))
        C.arena_close(arena)
      end
      new()
    end)

    it("gives content with a length, and leaves what is behind it", function()
      new()
      local events, rest = feed("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbodyGET")
      assert.same({ "head", "body", "end" }, events)
      assert.equal(4, tonumber(message.content_length))
      assert.equal("GET", rest)
    end)

    it("gives content in chunks without their framing, and trailers apart", function()
      new()
      assert.same({ "head", "abc", "de", "end" }, (feed("POST / HTTP/1.1\r\nHost: h\r\n"
        .. "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n")))
      assert.is_true(message.chunked)
      assert.same({ "X-T=1", "X-U=2" }, fields(message.trailers))
      assert.same({ "Host=h", "Transfer-Encoding=chunked" }, fields(message.headers))
    end)

    it("gathers trailers that come a byte at a time", function()
      new()
      feed("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
      local last
      for byte in ("X-Long: some value\r\n\r\n"):gmatch(".") do last = feed(byte) end
      assert.same({ "end" }, last)
      assert.same({ "X-Long=some value" }, fields(message.trailers))
    end)

    it("follow each other on one connection", function()
      new()
      local events, rest = feed("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
        .. "GET /2 HTTP/1.1\r\nHost: i\r\n\r\n")
      assert.same({ "head", "x", "end" }, events)
      begin({})
      assert.same({ "head", "end" }, (feed(rest)))
      assert.equal("/2", text(message.target))
    end)

    it("after one whose upgrade was not granted goes on as HTTP", function()
      new()
      local _, rest = feed("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
        .. "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
      assert.is_true(message.upgrade)
      begin({})
      assert.same({ "head", "end" }, (feed(rest)))
      assert.equal("/2", text(message.target))
    end)

    it("keeps nothing of a message that was abandoned, but finds its end", function()
      new()
      feed("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
      C.h1_abandon(h1)
      local before = tonumber(arena.used)
      assert.same({ "x", "end" }, (feed("1\r\nx\r\n0\r\nX-T: 1\r\n\r\n")))
      assert.equal(before, tonumber(arena.used))
      assert.same({}, fields(message.trailers))
    end)

    it("says whether the connection may go on", function()
      local keeps = { ["1.1\r\nHost: h"] = true, ["1.1\r\nHost: h\r\nConnection: close"] = false,
        ["1.1\r\nHost: h\r\nConnection: x, Close"] = false, ["1.0"] = false, ["1.0\r\nConnection: keep-alive"] = true }
      for rest, expected in pairs(keeps) do
        new()
        feed("GET / HTTP/" .. rest .. "\r\n\r\n")
        assert.equal(expected, message.keep_alive, rest)
        C.arena_close(arena)
      end
      new()
    end)

    local HEAD = "POST / HTTP/1.1\r\nHost: h\r\n"
    local refused = {
      ["a length past 2^63"] = { HEAD .. "Content-Length: 9223372036854775808\r\n\r\n", C.H1_PROBLEM_SYNTAX },
      ["a length past 2^64"] = { HEAD .. "Content-Length: 18446744073709551616\r\n\r\n", C.H1_PROBLEM_SYNTAX },
      ["two codings"] = { HEAD .. "Transfer-Encoding: gzip, chunked\r\n\r\n", C.H1_PROBLEM_CODING },
      ["two fields of coding"] = { HEAD .. "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        C.H1_PROBLEM_SYNTAX },
      ["coding and length"] = { HEAD .. "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        C.H1_PROBLEM_SYNTAX },
      ["two spaces"] = { "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", C.H1_PROBLEM_SYNTAX },
      ["a folded line"] = { "GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n 2\r\n\r\n", C.H1_PROBLEM_SYNTAX },
      ["an unknown method"] = { "FROB / HTTP/1.1\r\nHost: h\r\n\r\n", C.H1_PROBLEM_METHOD },
      ["another version"] = { "GET / HTTP/3.1\r\nHost: h\r\n\r\n", C.H1_PROBLEM_VERSION },
      ["a chunk size without end"] = { HEAD .. "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        C.H1_PROBLEM_SYNTAX },
    }
    for what, case in pairs(refused) do
      it("refuses " .. what, function()
        new()
        local events = feed(case[1])
        assert.equal("error", events[#events])
        assert.equal(tonumber(case[2]), (problem()))
        assert.same({ "error" }, (feed("GET / HTTP/1.1\r\n\r\n"))) -- and everything after it
      end)
    end

    it("bounds the head, in one piece or many", function()
      new({ max_head = 200 })
      assert.same({ "error" }, (feed("GET / HTTP/1.1\r\nHost: h\r\nX: " .. ("x"):rep(200) .. "\r\n\r\n")))
      assert.equal(tonumber(C.H1_PROBLEM_HEAD_LARGE), (problem()))
      C.arena_close(arena)
      new({ max_head = 200 })
      local events
      for _ = 1, 201 do events = feed("G") end
      assert.same({ "error" }, events)
      C.arena_close(arena)
      new({ max_head = 200 })
      assert.same({ "error" }, (feed("GET /" .. ("x"):rep(200))))
      assert.equal(tonumber(C.H1_PROBLEM_TARGET_LONG), (problem()))
    end)

    it("bounds the fields, and the trailers with the same measure", function()
      new({ max_headers = 2 })
      assert.same({ "error" }, (feed("GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n")))
      assert.equal(tonumber(C.H1_PROBLEM_HEAD_LARGE), (problem()))
      C.arena_close(arena)
      new({ max_head = 300 })
      feed("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
      assert.same({ "error" }, (feed("X: " .. ("x"):rep(300))))
    end)
  end)

  describe("of responses", function()
    local function response(bytes, options)
      options = options or {}
      options.client = true
      new(options)
      return feed(bytes)
    end

    it("gives status, reason and content", function()
      assert.same({ "head", "hi", "end" }, (response("HTTP/1.1 404 Not There\r\nContent-Length: 2\r\n\r\nhi")))
      assert.same({ 404, "Not There" }, { message.status, text(message.reason) })
      assert.is_false(message.until_close)
    end)

    it("without length ends with the connection", function()
      assert.same({ "head", "so far" }, (response("HTTP/1.1 200 OK\r\n\r\nso far")))
      assert.is_true(message.until_close)
      assert.equal("end", NAMES[tonumber(C.h1_finish(h1))])
    end)

    it("with a length does not", function()
      response("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nso far")
      assert.equal("error", NAMES[tonumber(C.h1_finish(h1))])
    end)

    it("may be missing when the connection ends between two", function()
      response("")
      assert.equal("more", NAMES[tonumber(C.h1_finish(h1))])
    end)

    it("to HEAD, and with 204 or 304, have no content whatever their fields say", function()
      local events, rest = response("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nHTTP", { head = true })
      assert.same({ "head", "end" }, events)
      assert.equal("HTTP", rest)
      assert.equal(10, tonumber(message.content_length))
      assert.is_true(message.keep_alive)
      for _, status in ipairs { 204, 304 } do
        C.arena_close(arena)
        assert.same({ "head", "end" }, (response("HTTP/1.1 " .. status .. " X\r\nContent-Length: 10\r\n\r\n")))
      end
    end)

    it("that are interim end with their head", function()
      local events, rest = response("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        .. "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
      assert.same({ "head", "end" }, events)
      assert.equal(103, message.status)
      begin({})
      assert.same({ "head", "end" }, (feed(rest)))
      assert.equal(200, message.status)
    end)

    it("in another coding than chunked are refused", function()
      for _, coding in ipairs { "gzip", "gzip, chunked", "identity" } do
        assert.same({ "error" }, (response("HTTP/1.1 200 OK\r\nTransfer-Encoding: " .. coding .. "\r\n\r\n")), coding)
        C.arena_close(arena)
      end
      new()
    end)
  end)
end)
