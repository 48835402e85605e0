-- SPDX-License-Identifier: Apache-2.0
-- What RFC 9111 demands of a shared cache, by its sections.
local date = require("proxy-cache.spec.world").date
local new = require("proxy-cache.spec.world").new

describe("RFC 9111", function()
  local cache

  -- `answer`: of the service; its headers alone will do.
  local function start(answer, config, more)
    if type(answer) == "table" and not answer.headers and not answer.status then
      answer = { headers = answer, body = "content" }
    end
    cache = new(answer, config, more)
    return cache
  end

  after_each(function()
    if cache then cache:close() end
    cache = nil
  end)

  -- The service's answer to the first request is stored: the second is a hit.
  local function is_stored(answer, request_headers, config)
    start(answer, config)
    cache:get("/", request_headers)
    cache:get("/", request_headers)
    local stored = cache:calls() == 1
    cache:close()
    cache = nil
    return stored
  end

  local function numbered(headers)
    return function(_, number) return { headers = headers, body = "content " .. number } end
  end

  -- ---- 2 Overview of Cache Operation, 3 Storing Responses in Caches ----

  it("2 uses the method and the target URI as the key", function()
    start(numbered { ["Cache-Control"] = "max-age=60" })
    assert.equal("content 1", cache:get("/a").body)
    assert.equal("content 2", cache:get("/b").body)
    assert.equal("content 3", cache:get("/a?x=1").body)
    assert.equal("content 4", cache:request({ path = "/a", host = "other.example" }).body)
    assert.equal("content 1", cache:get("/a").body)
    assert.equal("content 3", cache:get("/a?x=1").body)
    assert.equal(4, (cache:calls()))
  end)

  it("3 stores what has an explicit lifetime", function()
    assert.is_true(is_stored { ["Cache-Control"] = "max-age=60" })
    assert.is_true(is_stored { ["Cache-Control"] = "s-maxage=60" })
    assert.is_true(is_stored { Expires = date(60), Date = date() })
    assert.is_true(is_stored { ["Cache-Control"] = "public", ["Last-Modified"] = date(-3600), Date = date() })
  end)

  it("3 stores no response to a method that it does not understand", function()
    start { ["Cache-Control"] = "max-age=60" }
    assert.equal("Bypass", select(2, cache:request { method = "OPTIONS", path = "/" }))
    cache:request { method = "OPTIONS", path = "/" }
    assert.equal(2, (cache:calls()))
  end)

  it("3 stores no status that it was not told to store", function()
    assert.is_false(is_stored { status = 302, headers = { ["Cache-Control"] = "max-age=60", Location = "/x" } })
    assert.is_true(is_stored({ status = 302, headers = { ["Cache-Control"] = "max-age=60", Location = "/x" } }, nil,
      { response_code = { 302 } }))
  end)

  it("3 stores nothing whose directives or status do not allow it", function()
    assert.is_false(is_stored { ["Cache-Control"] = "no-store" })
    assert.is_false(is_stored { ["Cache-Control"] = "max-age=60, no-store" })
    assert.is_false(is_stored { ["Cache-Control"] = "private, max-age=60" })
    assert.is_false(is_stored { status = 499, headers = {}, body = "x" })
    assert.is_false(is_stored({ status = 418, headers = { ["Last-Modified"] = date(-3600) } }, nil,
      { response_code = { 418 } }))
  end)

  it("3 stores nothing that would be of no use: stale at once, and not to be validated", function()
    assert.is_false(is_stored { ["Content-Type"] = "text/plain" })
    assert.is_false(is_stored { ["Cache-Control"] = "max-age=0" })
  end)

  it("3.1 keeps all fields, unknown ones too", function()
    start { ["Cache-Control"] = "max-age=60", ["X-Unknown"] = "kept", ["Set-Cookie2"] = "a",
      ["Content-Language"] = "de" }
    cache:get()
    local response = cache:get()
    assert.equal("kept", response.headers["x-unknown"])
    assert.equal("a", response.headers["set-cookie2"])
    assert.equal("de", response.headers["content-language"])
  end)

  it("3.1 keeps when a response without Date came (RFC 9110 6.6.1)", function()
    start(function()
      return { raw = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\nx" }
    end)
    cache:get()
    cache:advance(10)
    assert.equal(date(), cache:get().headers.date)
  end)

  it("3.1 stores no Connection, nor what it names, nor what is between proxies", function()
    start { ["Cache-Control"] = "max-age=60", Connection = "X-Hop, keep-alive", ["X-Hop"] = "1", ["Keep-Alive"] = "5",
      ["Proxy-Authenticate"] = "Basic", ["Proxy-Authentication-Info"] = "x", ["Proxy-Authorization"] = "y" }
    cache:get()
    local response = cache:get()
    for _, name in ipairs { "x-hop", "keep-alive", "proxy-authenticate", "proxy-authentication-info",
      "proxy-authorization" } do
      assert.is_nil(response.headers[name], name)
    end
  end)

  it("3.2 replaces stored fields by those of a 304, and keeps what describes the content", function()
    start(function(request)
      if request.headers["if-none-match"] then
        return { status = 304, headers = { ["Cache-Control"] = "max-age=60", ETag = '"1"', ["X-Old"] = "new",
          ["X-Added"] = "yes", ["Content-Encoding"] = "br", ["Content-Type"] = "x/y", ["Content-Length"] = "7" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"', ["X-Old"] = { "a", "b" }, ["X-Kept"] = "k",
        ["Content-Type"] = "text/plain" }, body = "content" }
    end)
    cache:get()
    cache:advance(20)
    for _ = 1, 2 do
      local response = cache:get()
      assert.equal(200, response.status)
      assert.equal("content", response.body)
      assert.equal("new", response.headers["x-old"])
      assert.equal("yes", response.headers["x-added"])
      assert.equal("k", response.headers["x-kept"])
      assert.equal("text/plain", response.headers["content-type"])
      assert.is_nil(response.headers["content-encoding"])
      assert.equal("7", response.headers["content-length"])
    end
    assert.equal(2, (cache:calls()))
  end)

  it("3.3 stores nothing that breaks off", function()
    start(function(_, number)
      if number == 1 then
        return { raw = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nhalf", close = true }
      end
      return { headers = { ["Cache-Control"] = "max-age=60" }, body = "whole" }
    end)
    local one = cache.gateway:send("/")
    one:receive(1)
    one:close()
    assert.equal("whole", cache:get().body)
    assert.equal("Hit", select(2, cache:get()))
    assert.equal(2, (cache:calls()))
  end)

  it("3.5 stores a response to Authorization only where that is allowed", function()
    local who = { Authorization = "Basic YTpi" }
    assert.is_false(is_stored({ ["Cache-Control"] = "max-age=60" }, who))
    assert.is_false(is_stored({ ["Cache-Control"] = "max-age=60, proxy-revalidate" }, who))
    assert.is_true(is_stored({ ["Cache-Control"] = "max-age=60, public" }, who))
    assert.is_true(is_stored({ ["Cache-Control"] = "max-age=60, must-revalidate" }, who))
    assert.is_true(is_stored({ ["Cache-Control"] = "s-maxage=60" }, who))
  end)

  -- ---- 4 Constructing Responses from Caches ----

  it("4 tells the age of what it serves", function()
    start { ["Cache-Control"] = "max-age=60" }
    assert.is_nil(cache:get().headers.age)
    cache:advance(7.5)
    assert.equal("7", cache:get().headers.age)
  end)

  it("4 writes unsafe methods through", function()
    start(numbered { ["Cache-Control"] = "max-age=60" })
    cache:get("/x")
    assert.equal("content 2", cache:request({ method = "POST", path = "/x", body = "a" }).body)
    assert.equal("content 3", cache:request({ method = "DELETE", path = "/x" }).body)
    assert.equal("content 4", cache:request({ method = "PUT", path = "/x", body = "a" }).body)
  end)

  it("4 uses the most recent of several responses that fit", function()
    start(function(request, number)
      local vary = number == 1 and "X-One" or "X-Two"
      return { headers = { ["Cache-Control"] = "max-age=60", Vary = vary },
        body = vary .. (request.headers["x-one"] or "") }
    end)
    cache:get("/", { ["X-One"] = "1" })
    cache:advance(1)
    cache:get("/", { ["X-One"] = "2" })
    assert.equal("X-Two2", cache:get("/", { ["X-One"] = "1" }).body)
    assert.equal(2, (cache:calls()))
  end)

  it("4.1 serves only who sends what Vary names as it was", function()
    start(function(request)
      return { headers = { ["Cache-Control"] = "max-age=60", Vary = "Accept-Language, X-Kind" },
        body = (request.headers["accept-language"] or "none") .. (request.headers["x-kind"] or "none") }
    end)
    for _ = 1, 2 do
      assert.equal("dea", cache:get("/", { ["Accept-Language"] = "de", ["X-Kind"] = "a" }).body)
      assert.equal("ena", cache:get("/", { ["Accept-Language"] = "en", ["X-Kind"] = "a" }).body)
      assert.equal("enb", cache:get("/", { ["Accept-Language"] = "en", ["X-Kind"] = "b" }).body)
      assert.equal("nonea", cache:get("/", { ["X-Kind"] = "a" }).body)
      assert.equal("nonenone", cache:get("/").body)
    end
    assert.equal(5, (cache:calls()))
  end)

  it("4.1 takes lists that differ in white space, or in how many lines they have, for the same", function()
    start { ["Cache-Control"] = "max-age=60", Vary = "Accept-Encoding" }
    cache:get("/", { ["Accept-Encoding"] = "gzip, br" })
    assert.equal("Hit", select(2, cache:get("/", { ["Accept-Encoding"] = "gzip,br" })))
    assert.equal("Hit", select(2, cache:request { path = "/",
      headers = { { "Accept-Encoding", "gzip" }, { "accept-encoding", "br" } } }))
    assert.equal("Miss", select(2, cache:get("/", { ["Accept-Encoding"] = "br, gzip" })))
  end)

  it("4.1 takes Vary: * for a match with nothing", function()
    assert.is_false(is_stored { ["Cache-Control"] = "max-age=60", Vary = "*" })
    assert.is_false(is_stored { ["Cache-Control"] = "max-age=60", Vary = "Accept, *" })
  end)

  it("4.2 serves nothing stale without asking", function()
    start(numbered { ["Cache-Control"] = "max-age=10" })
    cache:get()
    cache:advance(9)
    assert.equal("content 1", cache:get().body)
    cache:advance(1)
    assert.equal("content 2", cache:get().body)
  end)

  -- Seconds that a response is served for without another request.
  local function lifetime(headers, config)
    start({ headers = headers, body = "x" }, config)
    cache:get()
    local seconds = 0
    while seconds < 400 do
      cache:advance(5)
      seconds = seconds + 5
      local before = cache:calls()
      cache:get()
      if cache:calls() > before then break end
    end
    cache:close()
    cache = nil
    return seconds
  end

  it("4.2.1 takes s-maxage before max-age, max-age before Expires, all before a guess", function()
    local modified = date(-100000)
    assert.equal(30, lifetime { ["Cache-Control"] = "s-maxage=30, max-age=60", Expires = date(90), Date = date() })
    assert.equal(60, lifetime { ["Cache-Control"] = "max-age=60", Expires = date(90), Date = date(),
      ["Last-Modified"] = modified })
    assert.equal(90, lifetime { Expires = date(90), Date = date(), ["Last-Modified"] = modified })
    assert.equal(10, lifetime { ["Cache-Control"] = "max-age=10, s-maxage=10" })
  end)

  it("4.2.1 takes Expires without Date from when the response came", function()
    assert.equal(20, lifetime { Expires = date(20) })
  end)

  it("4.2.1 takes what contradicts itself, or is no number, for stale", function()
    local validator = { ETag = '"1"' }
    local function of(value)
      validator["Cache-Control"] = value
      return lifetime(validator)
    end
    assert.equal(5, of "max-age=60, max-age=90")
    assert.equal(5, of "max-age=soon")
    assert.equal(5, of "max-age=-60")
    assert.equal(5, of "max-age=1.5e3")
    assert.equal(5, of "max-age")
    assert.equal(60, of "max-age=60, max-age=60")
  end)

  it("4.2.2 guesses where it is told nothing: a tenth of how long it has not changed", function()
    assert.equal(100, lifetime { ["Last-Modified"] = date(-1000), Date = date() })
    assert.equal(50, lifetime({ ["Last-Modified"] = date(-1000), Date = date() }, { heuristic_fraction = 0.05 }))
    assert.equal(20, lifetime({ ["Last-Modified"] = date(-1000), Date = date() }, { heuristic_max = 20 }))
  end)

  it("4.2.2 guesses for no status that is not cacheable by itself, unless it is public", function()
    local headers = { ["Last-Modified"] = date(-1000), Date = date() }
    assert.is_false(is_stored({ status = 302, headers = headers }, nil, { response_code = { 302 } }))
    headers["Cache-Control"] = "public"
    assert.is_true(is_stored({ status = 302, headers = headers }, nil, { response_code = { 302 } }))
  end)

  it("4.2.3 counts the age that a response came with", function()
    start { ["Cache-Control"] = "max-age=60", Age = "40" }
    cache:get()
    cache:advance(15)
    assert.equal("55", cache:get().headers.age)
    cache:advance(5)
    cache:get()
    assert.equal(2, (cache:calls()))
  end)

  it("4.2.3 counts what Date says, and the time that the response took", function()
    start { ["Cache-Control"] = "max-age=600", Date = date(-30) }
    cache:get()
    cache:advance(10)
    assert.equal("40", cache:get().headers.age)
    cache:close()
    start { delay = 4, headers = { ["Cache-Control"] = "max-age=600", Age = "10" } }
    cache:get()
    assert.equal("14", cache:get().headers.age)
  end)

  it("4.2.3 takes an Age that is no number for none", function()
    start { ["Cache-Control"] = "max-age=60", Age = "old" }
    cache:get()
    assert.equal("0", cache:get().headers.age)
  end)

  it("4.2.4 serves nothing stale that forbids it", function()
    for _, directive in ipairs { "must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache" } do
      start(function(_, number)
        if number > 1 then return { close = true } end
        return { headers = { ["Cache-Control"] = "max-age=10, stale-if-error=100, " .. directive, ETag = '"1"' },
          body = "x" }
      end)
      cache:get()
      cache:advance(20)
      assert.is_true(cache:get("/", { ["Cache-Control"] = "max-stale" }).status >= 500, directive)
      cache:close()
      cache = nil
    end
  end)

  it("4.2.4 serves nothing stale when the service fails, unless it may", function()
    start(function(_, number)
      if number > 1 then return { status = 503, headers = {}, body = "down" } end
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"' }, body = "x" }
    end)
    cache:get()
    cache:advance(20)
    assert.equal(503, cache:get().status)
  end)

  it("4.3.1 sends both validators of what is stored, and asks for the whole", function()
    start { ["Cache-Control"] = "max-age=10", ETag = 'W/"1"', ["Last-Modified"] = date(-500) }
    cache:get()
    cache:advance(20)
    local _, status = cache:get("/", { ["If-None-Match"] = '"other"', Range = "bytes=0-1", ["If-Range"] = '"other"' })
    local _, request = cache:calls()
    assert.equal("Refresh", status)
    assert.equal('W/"1"', request.headers["if-none-match"])
    assert.equal(date(-500), request.headers["if-modified-since"])
    assert.is_nil(request.headers.range)
    assert.is_nil(request.headers["if-range"])
  end)

  it("4.3.1 sends no condition for what has no validator", function()
    start { ["Cache-Control"] = "max-age=10, stale-if-error=100" }
    cache:get()
    cache:advance(20)
    cache:get()
    local count, request = cache:calls()
    assert.equal(2, count)
    assert.is_nil(request.headers["if-none-match"])
    assert.is_nil(request.headers["if-modified-since"])
  end)

  it("4.3.2 answers If-None-Match from what is stored, by weak comparison", function()
    start { ["Cache-Control"] = "max-age=60", ETag = '"1"', Vary = "X", ["Content-Type"] = "text/plain",
      Expires = date(60), ["Content-Location"] = "/y" }
    cache:get()
    for _, value in ipairs { '"1"', 'W/"1"', '"0", W/"1"', "*" } do
      local response, status = cache:get("/", { ["If-None-Match"] = value })
      assert.equal(304, response.status, value)
      assert.equal("Hit", status)
      assert.equal("", response.body)
      assert.equal('"1"', response.headers.etag)
      assert.equal("X", response.headers.vary)
      assert.equal("/y", response.headers["content-location"])
      assert.equal(date(60), response.headers.expires)
      assert.truthy(response.headers.date)
      assert.is_nil(response.headers["content-type"])
    end
    assert.equal(200, cache:get("/", { ["If-None-Match"] = '"2"' }).status)
    assert.equal(1, (cache:calls()))
  end)

  it("4.3.2 answers If-Modified-Since by Last-Modified, or by Date where there is none", function()
    start { ["Cache-Control"] = "max-age=60", ["Last-Modified"] = date(-100), Date = date() }
    cache:get()
    assert.equal(304, cache:get("/", { ["If-Modified-Since"] = date(-100) }).status)
    assert.equal(304, cache:get("/", { ["If-Modified-Since"] = date(-50) }).status)
    assert.equal(200, cache:get("/", { ["If-Modified-Since"] = date(-200) }).status)
    assert.equal(200, cache:get("/", { ["If-Modified-Since"] = "yesterday" }).status)
    cache:close()
    start { ["Cache-Control"] = "max-age=60", Date = date(-10) }
    cache:get()
    assert.equal(304, cache:get("/", { ["If-Modified-Since"] = date(-5) }).status)
    assert.equal(200, cache:get("/", { ["If-Modified-Since"] = date(-15) }).status)
  end)

  it("4.3.2 does not look at If-Modified-Since beside If-None-Match", function()
    start { ["Cache-Control"] = "max-age=60", ETag = '"1"', ["Last-Modified"] = date(-100) }
    cache:get()
    assert.equal(200, cache:get("/", { ["If-None-Match"] = '"2"', ["If-Modified-Since"] = date(-50) }).status)
  end)

  it("4.3.2 leaves If-Match and If-Unmodified-Since to the service", function()
    start { ["Cache-Control"] = "max-age=60", ETag = '"1"' }
    cache:get()
    assert.equal("Bypass", select(2, cache:get("/", { ["If-Match"] = '"9"' })))
    assert.equal('"9"', cache.requests[2].headers["if-match"])
    cache:get("/", { ["If-Unmodified-Since"] = date() })
    assert.equal(3, (cache:calls()))
  end)

  it("4.3.2 forwards conditions about what is not stored", function()
    start { status = 304, headers = { ETag = '"1"' } }
    assert.equal(304, cache:get("/", { ["If-None-Match"] = '"1"' }).status)
    assert.equal('"1"', cache.requests[1].headers["if-none-match"])
    assert.equal(304, cache:get("/", { ["If-None-Match"] = '"1"' }).status)
    assert.equal(2, (cache:calls()))
  end)

  it("4.3.2 answers the client's condition when what is stored turns out to be good", function()
    start(function(request)
      if request.headers["if-none-match"] == '"1"' then
        return { status = 304, headers = { ["Cache-Control"] = "max-age=9" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"' }, body = "x" }
    end)
    cache:get()
    cache:advance(20)
    assert.equal(304, cache:get("/", { ["If-None-Match"] = '"1"' }).status)
    cache:advance(20)
    assert.equal(200, cache:get("/", { ["If-None-Match"] = '"other"' }).status)
  end)

  it("4.3.3 replaces what is stored by a full response", function()
    start(numbered { ["Cache-Control"] = "max-age=10", ETag = '"1"' })
    cache:get()
    cache:advance(20)
    local response, status = cache:get()
    assert.equal("content 2", response.body)
    assert.equal("Refresh", status)
    assert.equal("content 2", cache:get().body)
    assert.equal("Hit", select(2, cache:get()))
  end)

  it("4.3.3 forwards an error, and keeps what is stored", function()
    start(function(request, number)
      if number == 2 then return { status = 500, headers = {}, body = "oops" } end
      if request.headers["if-none-match"] then return { status = 304, headers = {} } end
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"' }, body = "content" }
    end)
    cache:get()
    cache:advance(20)
    assert.equal(500, cache:get().status)
    assert.equal("content", cache:get().body)
    assert.equal(3, (cache:calls()))
  end)

  it("4.3.4 makes what is stored fresh again by a 304", function()
    start(function(request)
      if request.headers["if-none-match"] then
        return { status = 304, headers = { ["Cache-Control"] = "max-age=30", Date = date(20) } }
      end
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"', Date = date() }, body = "content" }
    end)
    cache:get()
    cache:advance(20)
    assert.equal("Refresh", select(2, cache:get()))
    cache:advance(25)
    local response, status = cache:get()
    assert.equal("Hit", status)
    assert.equal("25", response.headers.age)
    assert.equal("max-age=30", response.headers["cache-control"])
  end)

  it("4.3.4 takes no fields of a 304 that is about something else", function()
    start(function(request)
      if request.headers["if-none-match"] then
        return { status = 304, headers = { ["Cache-Control"] = "max-age=30", ETag = '"2"', ["X-New"] = "1" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"' }, body = "content" }
    end)
    cache:get()
    cache:advance(20)
    assert.is_nil(cache:get().headers["x-new"])
    cache:get()
    assert.equal(3, (cache:calls()))
  end)

  it("4.3.5 makes what is stored fresh by a response to HEAD that says the same", function()
    start(function(_, number)
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"', ["X-Number"] = number }, body = "content" }
    end)
    cache:get()
    cache:advance(20)
    cache:request { method = "HEAD", path = "/" }
    local response, status = cache:get()
    assert.equal("Hit", status)
    assert.equal("content", response.body)
    assert.equal("2", response.headers["x-number"])
  end)

  it("4.3.5 drops what is stored when a response to HEAD says otherwise", function()
    for _, changes in ipairs { { etag = '"2"', body = "content" }, { etag = '"1"', body = "longer content" } } do
      start(function(_, number)
        return { headers = { ["Cache-Control"] = "max-age=10", ETag = number == 1 and '"1"' or changes.etag },
          body = number == 1 and "content" or changes.body }
      end)
      cache:get()
      cache:advance(20)
      cache:request { method = "HEAD", path = "/" }
      assert.equal("Miss", select(2, cache:get()))
      cache:close()
      cache = nil
    end
  end)

  it("4.4 forgets what an unsafe request has changed", function()
    for _, method in ipairs { "POST", "PUT", "DELETE", "PATCH" } do
      start(numbered { ["Cache-Control"] = "max-age=60" })
      cache:get("/x?a=1")
      cache:get("/y")
      cache:request { method = method, path = "/x?a=1", body = method ~= "DELETE" and "b" or nil }
      assert.equal("Hit", select(2, cache:get("/y")))
      assert.equal("Miss", select(2, cache:get("/x?a=1")))
      cache:close()
      cache = nil
    end
  end)

  it("4.4 forgets what Location and Content-Location name on the same host, and nowhere else", function()
    start(function(request)
      if request.method == "POST" then
        return { status = 201,
          headers = { Location = "/made", ["Content-Location"] = "http://gateway.example/list?p=1" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=60" }, body = "x" }
    end)
    for _, path in ipairs { "/made", "/list?p=1", "/other" } do cache:get(path) end
    cache:request { path = "/made", host = "elsewhere.example" }
    cache:request { method = "POST", path = "/new", body = "b" }
    assert.equal("Miss", select(2, cache:get("/made")))
    assert.equal("Miss", select(2, cache:get("/list?p=1")))
    assert.equal("Hit", select(2, cache:get("/other")))
    assert.equal("Hit", select(2, cache:request { path = "/made", host = "elsewhere.example" }))
  end)

  it("4.4 forgets nothing when the request fails, nor on another host's word", function()
    start(function(request)
      if request.method == "POST" then
        return { status = request.path == "/bad" and 400 or 200, headers = { Location = "http://elsewhere.example/x" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=60" }, body = "x" }
    end)
    cache:get("/bad")
    cache:request { path = "/x", host = "elsewhere.example" }
    cache:request { method = "POST", path = "/bad", body = "b" }
    cache:request { method = "POST", path = "/good", body = "b" }
    assert.equal("Hit", select(2, cache:get("/bad")))
    assert.equal("Hit", select(2, cache:request { path = "/x", host = "elsewhere.example" }))
  end)

  it("4.4 forgets nothing because of a safe method", function()
    start { ["Cache-Control"] = "max-age=60" }
    cache:get("/x")
    cache:request { method = "OPTIONS", path = "/x" }
    assert.equal("Hit", select(2, cache:get("/x")))
  end)

  -- ---- 5 Field Definitions ----

  it("5.1 tells Age in whole seconds, once", function()
    start { ["Cache-Control"] = "max-age=600", Age = "100" }
    cache:get()
    cache:advance(1.9)
    assert.equal("101", cache:get().headers.age)
  end)

  it("5.2 reads directives in any case, in several fields, quoted or not; and not those it does not know", function()
    assert.is_false(is_stored { ["Cache-Control"] = "Max-Age=60, NO-STORE" })
    assert.is_false(is_stored { ["Cache-Control"] = { "max-age=60", "no-store" } })
    assert.equal(60, lifetime { ["Cache-Control"] = 'max-age="60"' })
    assert.equal(60, lifetime { ["Cache-Control"] = 'community="UCI, no-store", max-age=60, x=y' })
    assert.equal(60, lifetime { ["Cache-Control"] = ", ,max-age=60 ,," })
  end)

  it("5.2.1.1 max-age: takes nothing older", function()
    start { ["Cache-Control"] = "max-age=60" }
    cache:get()
    cache:advance(10)
    assert.equal("Hit", select(2, cache:get("/", { ["Cache-Control"] = "max-age=10" })))
    assert.equal("Refresh", select(2, cache:get("/", { ["Cache-Control"] = "max-age=9" })))
    assert.equal(2, (cache:calls()))
  end)

  it("5.2.1.2 max-stale: takes what has been stale for no longer", function()
    start(numbered { ["Cache-Control"] = "max-age=10", ETag = '"1"' })
    cache:get()
    cache:advance(20)
    assert.equal("content 1", cache:get("/", { ["Cache-Control"] = "max-stale" }).body)
    assert.equal("content 1", cache:get("/", { ["Cache-Control"] = "max-stale=10" }).body)
    assert.equal("content 2", cache:get("/", { ["Cache-Control"] = "max-stale=9" }).body)
  end)

  it("5.2.1.3 min-fresh: takes what stays fresh for that long", function()
    start { ["Cache-Control"] = "max-age=60" }
    cache:get()
    cache:advance(20)
    assert.equal("Hit", select(2, cache:get("/", { ["Cache-Control"] = "min-fresh=40" })))
    assert.equal("Refresh", select(2, cache:get("/", { ["Cache-Control"] = "min-fresh=41" })))
  end)

  it("5.2.1.4 no-cache: takes nothing that was not validated", function()
    start { ["Cache-Control"] = "max-age=60", ETag = '"1"' }
    cache:get()
    assert.equal("Refresh", select(2, cache:get("/", { ["Cache-Control"] = "no-cache" })))
    assert.equal('"1"', select(2, cache:calls()).headers["if-none-match"])
  end)

  it("5.2.1.5 no-store: nothing of request or response is stored", function()
    start { ["Cache-Control"] = "max-age=60" }
    cache:get("/", { ["Cache-Control"] = "no-store" })
    assert.equal("Miss", select(2, cache:get()))
    assert.equal("Hit", select(2, cache:get("/", { ["Cache-Control"] = "no-store" }))) -- of what was stored before
  end)

  it("5.2.1.7 only-if-cached: 504 where nothing stored will do", function()
    start { ["Cache-Control"] = "max-age=10", ETag = '"1"' }
    local refused = cache:get("/", { ["Cache-Control"] = "only-if-cached" })
    assert.same({ 504, "Nothing that is cached will do" }, { refused.status, refused.json.message })
    assert.equal(0, (cache:calls()))
    cache:get()
    assert.equal(200, cache:get("/", { ["Cache-Control"] = "only-if-cached" }).status)
    cache:advance(20)
    assert.equal(504, cache:get("/", { ["Cache-Control"] = "only-if-cached" }).status)
    assert.equal(1, (cache:calls()))
  end)

  it("5.2.2.2 must-revalidate: 504 when what is stale cannot be validated", function()
    start(function(_, number)
      if number > 1 then return { close = true } end
      return { headers = { ["Cache-Control"] = "max-age=10, must-revalidate", ETag = '"1"' }, body = "x" }
    end)
    cache:get()
    assert.equal("Hit", select(2, cache:get()))
    cache:advance(20)
    assert.equal(504, cache:get().status)
  end)

  it("5.2.2.3 must-understand: no-store does not count for a status that is understood", function()
    assert.is_true(is_stored { ["Cache-Control"] = "max-age=60, must-understand, no-store" })
    assert.is_false(is_stored({ status = 299,
      headers = { ["Cache-Control"] = "max-age=60, must-understand, no-store" } }, nil, { response_code = { 299 } }))
  end)

  it("5.2.2.3 must-understand: a status that is not understood is not stored", function()
    assert.is_false(is_stored({ status = 299, headers = { ["Cache-Control"] = "max-age=60, must-understand" } }, nil,
      { response_code = { 299 } }))
  end)

  it("5.2.2.4 no-cache: is stored, and validated each time", function()
    start(function(request)
      if request.headers["if-none-match"] then return { status = 304, headers = { ["Cache-Control"] = "no-cache" } } end
      return { headers = { ["Cache-Control"] = "no-cache, max-age=60", ETag = '"1"' }, body = "content" }
    end)
    cache:get()
    for count = 2, 3 do
      local response, status = cache:get()
      assert.equal("content", response.body)
      assert.equal("Refresh", status)
      assert.equal(count, (cache:calls()))
    end
  end)

  it("5.2.2.4 no-cache with fields: those are not served without being asked for", function()
    start { ["Cache-Control"] = 'max-age=60, no-cache="X-Secret, set-cookie"', ["X-Secret"] = "s",
      ["Set-Cookie"] = "a=b", ["X-Open"] = "o" }
    assert.equal("s", cache:get().headers["x-secret"])
    local response, status = cache:get()
    assert.equal("Hit", status)
    assert.is_nil(response.headers["x-secret"])
    assert.is_nil(response.headers["set-cookie"])
    assert.equal("o", response.headers["x-open"])
  end)

  it("5.2.2.7 private: is not stored; with fields, without those", function()
    assert.is_false(is_stored { ["Cache-Control"] = "private" })
    start { ["Cache-Control"] = 'max-age=60, private="X-Mine"', ["X-Mine"] = "m" }
    assert.equal("m", cache:get().headers["x-mine"])
    local response, status = cache:get()
    assert.equal("Hit", status)
    assert.is_nil(response.headers["x-mine"])
  end)

  it("5.2.2.9 public: is stored although nothing else would allow it", function()
    assert.is_false(is_stored({ status = 302, headers = { ETag = '"1"' } }, nil, { response_code = { 302 } }))
    start({ status = 302, headers = { ["Cache-Control"] = "public", ETag = '"1"' } }, { response_code = { 302 } })
    cache:get()
    cache:get()
    assert.equal('"1"', select(2, cache:calls()).headers["if-none-match"])
  end)

  it("5.2.2.10 s-maxage: also forbids to serve it stale", function()
    start(numbered { ["Cache-Control"] = "s-maxage=10, max-age=100", ETag = '"1"' })
    cache:get()
    cache:advance(20)
    assert.equal("content 2", cache:get("/", { ["Cache-Control"] = "max-stale=100" }).body)
  end)

  it("5.3 Expires: what is no date is in the past", function()
    assert.equal(5, lifetime { Expires = "0", ETag = '"1"' })
    assert.equal(5, lifetime { Expires = "soon", ETag = '"1"' })
    assert.equal(5, lifetime { Expires = date(-5), Date = date(), ETag = '"1"' })
    assert.equal(40, lifetime { Expires = "Thursday, 01-Jan-26 00:00:40 GMT", Date = date() })
  end)

  it("5.4 Pragma: no-cache counts where there is no Cache-Control", function()
    start { ["Cache-Control"] = "max-age=60", ETag = '"1"' }
    cache:get()
    assert.equal("Refresh", select(2, cache:get("/", { Pragma = "no-cache" })))
    assert.equal("Hit", select(2, cache:get("/", { Pragma = "no-cache", ["Cache-Control"] = "max-stale=1" })))
  end)

  it("5.4 Pragma: of a response means nothing", function()
    assert.is_true(is_stored { ["Cache-Control"] = "max-age=60", Pragma = "no-cache" })
  end)
end)
