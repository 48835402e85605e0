-- SPDX-License-Identifier: Apache-2.0
-- Requests that HTTP/2 forbids (RFC 9113 8) and what else could mean one thing to the gateway and another to a service
-- that speaks HTTP/1.1: refused, whatever the connection, and the service hears nothing of them.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local http2 = require "spec.support.http2"
local upstream = require "spec.support.upstream"

describe("over HTTP/2", function()
  local up, gw

  setup(function()
    up = upstream.start()
    gw = gateway.start({
      _format_version = "3.0",
      services = { { name = "up", url = up:url(), routes = { { name = "all", paths = { "/" } } } } },
    }, { http2 = true })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  before_each(function() up:forget() end)

  local METHOD, SCHEME, PATH = { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/forbidden" }
  local AUTHORITY = { ":authority", "a.test" }
  local USUAL = { METHOD, SCHEME, AUTHORITY, PATH }

  -- The usual pseudo-fields without the one named, with more behind them.
  local function fields(without, ...)
    local list = {}
    for _, field in ipairs(USUAL) do
      if field[1] ~= without then list[#list + 1] = field end
    end
    for _, field in ipairs { ... } do list[#list + 1] = field end
    return list
  end

  local function with(name, value) return fields(nil, { name, value }) end

  local function instead(name, value) return fields(name, { name, value }) end

  -- What became of a request: "answered 200", "reset", "the connection ended".
  local function outcome(list, body, trailers)
    local client = assert(http2.connect(gw.port))
    local stream = client:headers(list, body or trailers)
    if body then client:data(stream, body, trailers) end
    if trailers then
      client:send(http2.frame(http2.HEADERS, http2.END_HEADERS + http2.END_STREAM, stream, http2.block(trailers)))
    end
    local answer = client:wait(stream)
    client:close()
    if answer.status then return "answered " .. answer.status, answer end
    if answer.reset then return "reset", answer end
    return (answer.goaway or answer.why ~= "timeout") and "the connection ended" or "nothing"
  end

  local function is_refusal(what)
    return what == "reset" or what == "the connection ended" or what == "answered 400" or what == "answered 405"
      or what == "answered 431" or what == "answered 501"
  end

  -- The whole of this spec: refused, and no byte of it is heard by the service.
  local function refused(list, body, trailers)
    local what = outcome(list, body, trailers)
    assert(is_refusal(what), what)
    local seen = up:stats()
    assert.equal(0, seen.requests)
    assert.equal(0, seen.aborted)
  end

  -- Refused once its head has gone on: the service never has it whole.
  local function cut_short(list, body, trailers)
    local what = outcome(list, body, trailers)
    assert(is_refusal(what), what)
    local seen = up:stats()
    assert(seen.requests <= 1, "a second request came out of one")
    for _, request in ipairs(seen.log) do assert.is_nil(request.body) end
  end

  -- The request as the service had it, when it was answered 200.
  local function passed(list, body, trailers)
    local what, answer = outcome(list, body, trailers)
    assert.equal("answered 200", what)
    local seen = up:stats()
    assert.equal(1, seen.requests)
    return seen.log[1], answer
  end

  local function each(cases, check)
    for _, case in ipairs(cases) do
      it(case[1], function() check(unpack(case, 2, 4)) end)
    end
  end

  describe("a connection's own field is refused:", function()
    each({
      { "connection: keep-alive", with("connection", "keep-alive") },
      { "connection: close", with("connection", "close") },
      { "connection that names another field", with("connection", "x-secret") },
      { "an empty connection", with("connection", "") },
      { "keep-alive", with("keep-alive", "timeout=5") },
      { "proxy-connection", with("proxy-connection", "keep-alive") },
      { "upgrade to another protocol", with("upgrade", "websocket") },
      { "upgrade to h2c", with("upgrade", "h2c") },
      { "transfer-encoding: chunked", with("transfer-encoding", "chunked") },
      { "transfer-encoding: identity", with("transfer-encoding", "identity") },
      { "transfer-encoding with a body that is a request",
        fields(":method", { ":method", "POST" }, { "transfer-encoding", "chunked" }),
        "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" },
      { "transfer-encoding beside content-length",
        fields(":method", { ":method", "POST" }, { "content-length", "6" }, { "transfer-encoding", "chunked" }),
        "0\r\n\r\nG" },
      { "te: gzip", with("te", "gzip") },
      { "te: trailers, gzip", with("te", "trailers, gzip") },
      { "te: chunked", with("te", "chunked") },
    }, refused)
  end)

  describe("a request is refused that has", function()
    each({
      { "no :method", fields(":method") },
      { "no :scheme", fields(":scheme") },
      { "no :path", fields(":path") },
      { "neither :authority nor host", fields(":authority") },
      { "no field at all", {} },
      { "no pseudo-field", { { "host", "a.test" } } },
      { ":method twice", with(":method", "POST") },
      { ":scheme twice", with(":scheme", "http") },
      { ":authority twice", with(":authority", "b.test") },
      { ":path twice", with(":path", "/other") },
      { "a pseudo-field behind another field", { METHOD, SCHEME, AUTHORITY, { "x-a", "b" }, PATH } },
      { ":authority behind host", { METHOD, SCHEME, PATH, { "host", "a.test" }, AUTHORITY } },
      { "a pseudo-field that nobody knows", fields(nil, { ":extra", "1" }) },
      { "a pseudo-field without a name", fields(nil, { ":", "1" }) },
      { "the pseudo-field of responses", with(":status", "200") },
      { ":protocol without CONNECT", with(":protocol", "websocket") },
      { "an upper-case pseudo-field", fields(":path", { ":Path", "/forbidden" }) },
      { "host behind it twice", fields(nil, { "host", "a.test" }, { "host", "a.test" }) },
      { "a host that differs from :authority", with("host", "b.test") },
      { "a host with another port than :authority", with("host", "a.test:81") },
      { "a host that is empty", with("host", "") },
    }, refused)
  end)

  describe(":method is refused that is", function()
    each({
      { "empty", instead(":method", "") },
      { "two words", instead(":method", "GET /smuggled") },
      { "a request line", instead(":method", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET") },
      { "with a space in front", instead(":method", " GET") },
      { "with a space behind", instead(":method", "GET ") },
      { "with NUL", instead(":method", "G\0T") },
      { "no token", instead(":method", "GE(T") },
      { "above 127", instead(":method", "GE\200T") },
      { "longer than a head may be", instead(":method", ("M"):rep(40000)) },
      { "CONNECT without :authority", { { ":method", "CONNECT" } } },
      { "CONNECT with :path", instead(":method", "CONNECT") },
      { "CONNECT to a port", { { ":method", "CONNECT" }, { ":authority", "a.test:80" } } },
      { "CONNECT for a protocol that nobody knows", fields(":method", { ":method", "CONNECT" },
        { ":protocol", "a b" }) },
      { "PRI", instead(":method", "PRI *") },
    }, refused)
  end)

  describe(":scheme is refused that is", function()
    each({
      { "empty", instead(":scheme", "") },
      { "no scheme", instead(":scheme", "ht tp") },
      { "more lines", instead(":scheme", "http\r\nx-a: b") },
      { "with NUL", instead(":scheme", "http\0") },
      { "an address", instead(":scheme", "http://other.test/?") },
    }, refused)
  end)

  describe(":path is refused that", function()
    each({
      { "is empty", instead(":path", "") },
      { "does not begin with /", instead(":path", "forbidden") },
      { "is * without OPTIONS", instead(":path", "*") },
      { "is an address", instead(":path", "http://other.test/forbidden") },
      { "is an authority", instead(":path", "other.test:80") },
      { "has a space", instead(":path", "/forbidden HTTP/1.1") },
      { "has a space in front", instead(":path", " /forbidden") },
      { "has a space behind", instead(":path", "/forbidden ") },
      { "has a tab", instead(":path", "/forbid\tden") },
      { "has CR", instead(":path", "/forbid\rden") },
      { "has LF", instead(":path", "/forbid\nden") },
      { "has NUL", instead(":path", "/forbid\0den") },
      { "has DEL", instead(":path", "/forbid\127den") },
      { "is a request", instead(":path", "/ HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled") },
      { "has a fragment", instead(":path", "/forbidden#part") },
    }, refused)
  end)

  describe(":authority is refused that", function()
    each({
      { "is empty", instead(":authority", "") },
      { "has a user", instead(":authority", "user@a.test") },
      { "has a user and a password", instead(":authority", "user:word@a.test") },
      { "has a space", instead(":authority", "a.test b.test") },
      { "has a space in front", instead(":authority", " a.test") },
      { "has a comma", instead(":authority", "a.test,b.test") },
      { "has a path", instead(":authority", "a.test/path") },
      { "has a query", instead(":authority", "a.test?x") },
      { "has a fragment", instead(":authority", "a.test#x") },
      { "has a backslash", instead(":authority", "a.test\\b") },
      { "has CR LF", instead(":authority", "a.test\r\nx-a: b") },
      { "has LF", instead(":authority", "a.test\nx-a: b") },
      { "has NUL", instead(":authority", "a.test\0") },
      { "has a port that is none", instead(":authority", "a.test:http") },
      { "has a port too large", instead(":authority", "a.test:65536") },
      { "has two ports", instead(":authority", "a.test:80:81") },
      { "has a bracket that does not close", instead(":authority", "[::1") },
      { "is in a host field, with a user", fields(":authority", { "host", "user@a.test" }) },
      { "is in a host field, with a path", fields(":authority", { "host", "a.test/path" }) },
    }, refused)
  end)

  describe("a field is refused whose", function()
    each({
      { "name is empty", with("", "a") },
      { "name has upper case", with("X-Upper", "a") },
      { "name is content-length in upper case", with("Content-Length", "0") },
      { "name ends with a colon", with("x-a:", "a") },
      { "name is a whole line", with("x-a: b\r\nx-c", "d") },
      { "name is a request", with("x: a\r\n\r\nGET /smuggled HTTP/1.1\r\nhost", "a") },
      { "name begins with a space", with(" x-a", "b") },
      { "name ends with a space", with("x-a ", "b") },
      { "name is transfer-encoding with a space", with("transfer-encoding ", "chunked") },
      { "name is transfer-encoding with a tab", with("transfer-encoding\t", "chunked") },
      { "value begins with a space", with("x-a", " b") },
      { "value ends with a space", with("x-a", "b ") },
      { "value begins with a tab", with("x-a", "\tb") },
      { "value ends with a tab", with("x-a", "b\t") },
      { "value is a space", with("x-a", " ") },
      { "value is another field", with("x-a", "b\r\ntransfer-encoding: chunked") },
      { "value is another field behind LF", with("x-a", "b\ntransfer-encoding: chunked") },
      { "value is another field behind CR", with("x-a", "b\rtransfer-encoding: chunked") },
      { "value is a request", with("x-a", "b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n") },
      { "value is folded", with("x-a", "b\r\n c") },
    }, refused)
  end)

  -- Every byte, in the middle of a name and of a value.
  it("names are tokens in lower case", function()
    for byte = 0, 255 do
      local char = string.char(byte)
      local what = outcome(with("x" .. char .. "a", "b"))
      if char:find("[a-z0-9!#$%%&'*+.^_`|~-]") then
        assert.same({ byte, "answered 200" }, { byte, what })
      else
        assert(is_refusal(what), byte .. " " .. what)
      end
    end
    for _, request in ipairs(up:stats().log) do
      for _, field in ipairs(request.fields) do assert.is_truthy(field[1]:find("^[A-Za-z0-9!#$%%&'*+.^_`|~-]+$")) end
    end
  end)

  it("values hold no control character but a tab", function()
    for byte = 0, 255 do
      local what = outcome(with("x-a", "b" .. string.char(byte) .. "c"))
      if byte == 9 or (byte >= 32 and byte ~= 127) then
        assert.same({ byte, "answered 200" }, { byte, what })
      else
        assert(is_refusal(what), byte .. " " .. what)
      end
    end
    assert.equal(256 - 32, up:stats().requests)
  end)

  describe("content-length is refused that", function()
    local function post(...)
      return fields(":method", { ":method", "POST" }, ...)
    end

    local function length(value) return post({ "content-length", value }) end

    each({
      { "is empty", length(""), "hello" },
      { "is negative", length("-5"), "hello" },
      { "has a plus", length("+5"), "hello" },
      { "is hexadecimal", length("0x5"), "hello" },
      { "has a fraction", length("5.0"), "hello" },
      { "is a list", length("5, 5"), "hello" },
      { "is a list of two", length("5, 6"), "hello" },
      { "has a space in front", length(" 5"), "hello" },
      { "has a letter behind", length("5a"), "hello" },
      { "fits in no number", length("18446744073709551621"), "hello" },
      { "fits in no 64 bits", length("99999999999999999999999"), "hello" },
      { "comes twice", post({ "content-length", "5" }, { "content-length", "5" }), "hello" },
      { "comes twice and differs", post({ "content-length", "5" }, { "content-length", "50" }), "hello" },
      { "announces a body that HEADERS end", length("5") },
    }, refused)

    each({
      { "is less than what comes", length("5"), "hello, world" },
      { "is more than what comes", length("50"), "hello" },
      { "is more than what comes before trailers", length("50"), "hello", { { "x-sum", "1" } } },
      { "is more than nothing", length("50"), "" },
    }, cut_short)

    -- What the service then has is whole: a request without a body.
    it("is 0, and what comes all the same goes nowhere", function()
      local what = outcome(length("0"), "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
      assert(is_refusal(what) or what == "answered 200", what)
      local seen = up:stats()
      assert(seen.requests <= 1 and seen.aborted == 0)
      for _, request in ipairs(seen.log) do assert.equal("/forbidden", request.target) end
    end)

    it("lies on one stream, and the others go on", function()
      local client = assert(http2.connect(gw.port))
      local good = client:request({ method = "POST", path = "/good", headers = { ["content-length"] = "10" },
        open = true })
      client:data(good, "01234", true)
      local bad = client:headers(length("5"), true)
      client:data(bad, "0123456789")
      local what = client:wait(bad)
      assert(what.reset or what.status == 400)
      client:data(good, "56789")
      assert.equal(200, client:wait(good).status)
      client:close()
      for _, request in ipairs(up:stats().log) do
        if request.body then assert.equal("/good", request.target) end
      end
    end)
  end)

  describe("a trailer is refused, or stays behind, that is", function()
    local POST = fields(":method", { ":method", "POST" })

    -- The service may have the request without it.
    local function kept_back(trailer)
      local what = outcome(POST, "hello", { trailer, { "x-sum", "1" } })
      assert(is_refusal(what) or what == "answered 200", what)
      for _, request in ipairs(up:stats().log) do
        for _, field in ipairs(request.trailers or {}) do assert.equal("x-sum", field[1]:lower()) end
        assert(not request.trailers or what == "answered 200")
      end
    end

    each({
      { "a pseudo-field", { ":path", "/smuggled" } },
      { "content-length", { "content-length", "5" } },
      { "transfer-encoding", { "transfer-encoding", "chunked" } },
      { "host", { "host", "b.test" } },
      { "connection", { "connection", "close" } },
      { "te", { "te", "trailers" } },
      { "in upper case", { "X-Upper", "a" } },
      { "with CR LF in its value", { "x-a", "b\r\nx-c: d" } },
      { "with CR LF in its name", { "x-a\r\nx-b", "c" } },
      { "without a name", { "", "a" } },
    }, kept_back)
  end)

  it("trailers that do not end the stream end it all the same", function()
    local client = assert(http2.connect(gw.port))
    local stream = client:headers(fields(":method", { ":method", "POST" }), true)
    client:data(stream, "hello", true)
    client:send(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.block { { "x-a", "b" } }))
    local answer = client:wait(stream)
    client:close()
    assert(answer.reset or answer.goaway)
    for _, request in ipairs(up:stats().log) do assert.is_nil(request.body) end
  end)

  it("the connection lives on behind a request that was refused", function()
    local client = assert(http2.connect(gw.port))
    local bad = client:headers(with("connection", "close"))
    local good = client:headers(USUAL)
    assert.equal("PROTOCOL_ERROR", client:wait(bad).reset)
    assert.equal(200, client:wait(good).status)
    client:close()
  end)

  it("a body that reads like a request is a body", function()
    local body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    local request, answer = passed(fields(":method", { ":method", "POST" }), body)
    assert.equal(#body, request.body)
    assert.is_truthy(answer.body:find("smuggled", 1, true))
    up:forget()
    request = passed(fields(":method", { ":method", "POST" }, { "content-length", #body }), body)
    assert.equal(#body, request.body)
  end)

  describe("what is allowed arrives as HTTP/1.1 says it:", function()
    it(":authority becomes the one Host field, and no pseudo-field is left", function()
      local request = passed(fields(nil, { "x-a", "b" }))
      assert.equal("/forbidden", request.target)
      assert.same({ "b" }, http.values(request.fields, "x-a"))
      assert.equal(1, #http.values(request.fields, "host"))
      for _, field in ipairs(request.fields) do assert.is_nil(field[1]:find("^:")) end
    end)

    it("host stands for :authority, or beside it when both say the same", function()
      assert.equal(1, #http.values(passed(fields(":authority", { "host", "a.test" })).fields, "host"))
      up:forget()
      assert.equal(1, #http.values(passed(with("host", "a.test")).fields, "host"))
    end)

    it("crumbs of a cookie are one field", function()
      local request = passed(fields(nil, { "cookie", "a=1" }, { "x-a", "b" }, { "cookie", "b=2" },
        { "cookie", "c=3" }))
      assert.same({ "a=1; b=2; c=3" }, http.values(request.fields, "cookie"))
    end)

    it("te: trailers", function()
      passed(with("te", "trailers"))
    end)

    it("bytes above 127 in values", function()
      assert.same({ "gr\195\188n\255" }, http.values(passed(with("x-a", "gr\195\188n\255")).fields, "x-a"))
    end)

    it("a body without content-length is chunked, one with it is not", function()
      local request = passed(fields(":method", { ":method", "POST" }), "hello")
      assert.same({ "chunked" }, http.values(request.fields, "transfer-encoding"))
      assert.equal(5, request.body)
      up:forget()
      request = passed(fields(":method", { ":method", "POST" }, { "content-length", "5" }), "hello")
      assert.same({ "5" }, http.values(request.fields, "content-length"))
      assert.same({}, http.values(request.fields, "transfer-encoding"))
    end)

    it("a request without a body has neither", function()
      local request = passed(USUAL)
      assert.same({}, http.values(request.fields, "transfer-encoding"))
      assert.same({}, http.values(request.fields, "content-length"))
    end)
  end)
end)

describe("a service's answer over HTTP/2", function()
  local up, gw

  setup(function()
    up = upstream.start(function(request, connection)
      connection:send("HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n" ..
        "X-Hop: secret\r\n" ..
        "Proxy-Connection: close\r\nUpgrade: h2c\r\nX-Mixed-Case: kept\r\nTrailer: X-Sum\r\n" ..
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nConnection: close\r\n\r\n")
      request.body = ""
    end)
    gw = gateway.start({
      _format_version = "3.0",
      services = { { name = "up", url = up:url(), routes = { { name = "all", paths = { "/" } } } } },
    }, { http2 = true })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  it("has no field of the connection and no upper-case name", function()
    local answer = http2.request(gw.port, {})
    assert.equal(200, answer.status)
    assert.equal("hello", answer.body)
    assert.equal("kept", answer.headers["x-mixed-case"])
    assert.equal("1", answer.trailers["x-sum"])
    local own = { connection = true, ["keep-alive"] = true, ["proxy-connection"] = true, upgrade = true,
      ["transfer-encoding"] = true, ["x-hop"] = true }
    for _, list in ipairs { answer.headers, answer.trailers } do
      for _, field in ipairs(list) do
        assert.equal(field[1]:lower(), field[1])
        assert.is_nil(own[field[1]], field[1])
      end
    end
  end)
end)
