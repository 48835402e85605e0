-- SPDX-License-Identifier: Apache-2.0
-- The plugin's options, what it tells, ranges, stale responses, purging. What RFC 9111 demands: rfc9111_spec.lua.
local date = require("proxy-cache.spec.world").date
local new = require("proxy-cache.spec.world").new
local spec = require "sluice.spec"

describe("proxy-cache", function()
  local cache

  local function start(answer, config, more)
    config = config or {}
    if config.cache_control == nil then config.cache_control = false end
    cache = new(answer, config, more)
    return cache
  end

  local function numbered(headers)
    return function(_, number) return { headers = headers or {}, body = "content " .. number } end
  end

  after_each(function()
    if cache then cache:close() end
    cache = nil
  end)

  -- ---- Kong's options ----

  it("answers the second time from what it has stored, and says so", function()
    start(numbered { ["Content-Type"] = "text/plain", ["X-Mine"] = "1" })
    local first = cache:get("/a")
    local second = cache:get("/a")
    assert.equal("Miss", first.headers["x-cache-status"])
    assert.equal("Hit", second.headers["x-cache-status"])
    assert.matches("^%x+$", first.headers["x-cache-key"])
    assert.equal(first.headers["x-cache-key"], second.headers["x-cache-key"])
    assert.is_nil(first.headers.age)
    assert.equal("0", second.headers.age)
    assert.equal("content 1", second.body)
    assert.equal("1", second.headers["x-mine"])
    assert.equal("9", second.headers["content-length"])
  end)

  it("pays no attention to Cache-Control unless told to", function()
    start(numbered { ["Cache-Control"] = "no-store, private, max-age=0" })
    cache:get()
    assert.equal("Hit", select(2, cache:get("/", { ["Cache-Control"] = "no-cache, no-store, max-age=0" })))
  end)

  it("takes what is older than cache_ttl for stale, and 300 seconds for that", function()
    start(numbered(), { cache_ttl = 20 })
    cache:get()
    cache:advance(19)
    assert.equal("Hit", select(2, cache:get()))
    cache:advance(1)
    assert.equal("Miss", select(2, cache:get()))
    cache:close()
    start(numbered())
    cache:get()
    cache:advance(299)
    assert.equal("Hit", select(2, cache:get()))
    cache:advance(1)
    assert.equal("content 2", cache:get().body)
  end)

  it("keeps a response for storage_ttl, to validate it", function()
    start(function(request)
      if request.headers["if-none-match"] then return { status = 304, headers = {} } end
      return { headers = { ETag = '"1"' }, body = "content" }
    end, { cache_ttl = 10, storage_ttl = 100 })
    cache:get()
    cache:advance(20)
    local response, status = cache:get()
    assert.equal("Refresh", status)
    assert.equal("content", response.body)
    assert.equal("Hit", select(2, cache:get()))
    cache:advance(101)
    assert.equal("Miss", select(2, cache:get()))
  end)

  it("stores the statuses of response_code, by default 200, 301 and 404", function()
    start(function(request)
      return { status = tonumber(request.path:sub(2)), headers = { Location = "/" }, body = "x" }
    end)
    for status, label in pairs { [200] = "Hit", [301] = "Hit", [404] = "Hit", [302] = "Bypass", [500] = "Bypass" } do
      cache:get("/" .. status)
      assert.equal(label, select(2, cache:get("/" .. status)), status)
    end
    cache:close()
    start({ status = 418, headers = {}, body = "x" }, { response_code = { 418 } })
    cache:get()
    assert.equal("Hit", select(2, cache:get()))
  end)

  it("stores for the methods of request_method", function()
    start(numbered(), { request_method = { "HEAD" } })
    cache:get()
    assert.equal("Bypass", select(2, cache:get()))
    cache:request { method = "HEAD", path = "/" }
    assert.equal("Hit", select(2, cache:request { method = "HEAD", path = "/" }))
  end)

  it("stores responses to POST by what was posted, where it is told to", function()
    start(function(request) return { headers = {}, body = "got " .. request.body } end,
      { request_method = { "GET", "POST" } })
    local function post(body) return cache:request { method = "POST", path = "/", body = body } end
    assert.equal("got a", post("a").body)
    assert.equal("got b", post("b").body)
    local response = post("a")
    assert.equal("got a", response.body)
    assert.equal("Hit", response.headers["x-cache-status"])
    assert.equal("Miss", select(2, cache:get()))
  end)

  it("stores the media types of content_type, by default text/plain and application/json", function()
    local function label(stored, config)
      start({ headers = { ["Content-Type"] = stored }, body = "x" }, { content_type = config })
      cache:get()
      local _, status = cache:get()
      cache:close()
      cache = nil
      return status
    end
    local default = { "text/plain", "application/json" }
    assert.equal("Hit", label("application/json; charset=utf-8", default))
    assert.equal("Hit", label("Text/Plain", default))
    assert.equal("Bypass", label("text/html", default))
    assert.equal("Bypass", label(nil, default))
    assert.equal("Hit", label("text/html", { "text/*" }))
    assert.equal("Bypass", label("image/png", { "text/*" }))
    assert.equal("Hit", label("image/png", { "*/*" }))
    assert.equal("Hit", label(nil, { "*/*" }))
    assert.equal("Hit", label("a/b; charset=utf-8; x=y", { "a/b; charset=utf-8" }))
    assert.equal("Bypass", label("a/b", { "a/b; charset=utf-8" }))
    assert.equal("Bypass", label("a/b; charset=latin1", { "a/b;charset=utf-8" }))
  end)

  it("takes arguments in any order for the same, and with vary_query_params some alone", function()
    start(numbered())
    cache:get("/?b=2&a=1")
    assert.equal("Hit", select(2, cache:get("/?a=1&b=2")))
    assert.equal("Miss", select(2, cache:get("/?a=1&b=3")))
    assert.equal("Miss", select(2, cache:get("/?a=1&a=2")))
    assert.equal("Miss", select(2, cache:get("/?a=2&a=1")))
    cache:close()
    start(numbered(), { vary_query_params = { "id", "lang" } })
    cache:get("/?id=1&utm=x")
    assert.equal("Hit", select(2, cache:get("/?utm=y&id=1")))
    assert.equal("Hit", select(2, cache:get("/?id=1")))
    assert.equal("Miss", select(2, cache:get("/?id=1&lang=de")))
  end)

  it("tells requests apart by the fields of vary_headers", function()
    start(numbered(), { vary_headers = { "X-Tenant" } })
    cache:get("/", { ["X-Tenant"] = "a" })
    assert.equal("Miss", select(2, cache:get("/", { ["X-Tenant"] = "b" })))
    assert.equal("Miss", select(2, cache:get("/")))
    assert.equal("Hit", select(2, cache:get("/", { ["x-tenant"] = "a" })))
  end)

  it("takes paths in any case for the same with ignore_uri_case", function()
    start(numbered())
    cache:get("/A")
    assert.equal("Miss", select(2, cache:get("/a")))
    cache:close()
    start(numbered(), { ignore_uri_case = true })
    cache:get("/A?X=1")
    assert.equal("Hit", select(2, cache:get("/a?X=1")))
    assert.equal("Miss", select(2, cache:get("/a?x=1")))
  end)

  it("tells what response_headers say, and no more", function()
    start(numbered(), { response_headers = { age = false, ["X-Cache-Status"] = false, ["X-Cache-Key"] = false } })
    for _ = 1, 2 do
      local response = cache:get()
      assert.is_nil(response.headers.age)
      assert.is_nil(response.headers["x-cache-status"])
      assert.is_nil(response.headers["x-cache-key"])
    end
    assert.equal(1, (cache:calls()))
  end)

  it("keeps caches of different dictionary_name apart", function()
    start(numbered())
    cache:get()
    assert.equal("Hit", select(2, cache:get()))
    assert.is_true(cache.gateway:reload { plugins = { { name = "proxy-cache", config = { strategy = "memory",
      content_type = { "*/*" }, memory = { dictionary_name = "another" } } } } })
    assert.equal("Miss", select(2, cache:get()))
  end)

  it("keeps what each consumer gets apart", function()
    start(function(request) return { headers = {}, body = request.headers["x-consumer-username"] } end, {}, {
      consumers = { { username = "ann", keyauth_credentials = { { key = "a" } } },
        { username = "bob", keyauth_credentials = { { key = "b" } } } },
      plugins = { { name = "key-auth" } },
    })
    for _ = 1, 2 do
      assert.equal("ann", cache:get("/", { apikey = "a" }).body)
      assert.equal("bob", cache:get("/", { apikey = "b" }).body)
    end
    assert.equal(401, cache:get("/").status)
    assert.equal(2, (cache:calls()))
  end)

  it("keeps what each Authorization gets apart, where Cache-Control does not count", function()
    start(function(request) return { headers = {}, body = request.headers.authorization or "nobody" } end)
    for _ = 1, 2 do
      assert.equal("Basic a", cache:get("/", { Authorization = "Basic a" }).body)
      assert.equal("Basic b", cache:get("/", { Authorization = "Basic b" }).body)
      assert.equal("nobody", cache:get("/").body)
    end
    assert.equal(3, (cache:calls()))
  end)

  -- ---- Options of our own ----

  it("stores no cookies, unless told to", function()
    start(numbered { ["Set-Cookie"] = "a=b" })
    cache:get()
    assert.equal("Bypass", select(2, cache:get()))
    cache:close()
    start(numbered { ["Set-Cookie"] = { "a=b", "c=d" } }, { store_set_cookie = true })
    cache:get()
    local response, status = cache:get()
    assert.equal("Hit", status)
    assert.equal("a=b, c=d", response.headers["set-cookie"])
  end)

  it("stores nothing larger than max_object_bytes, told or not", function()
    start({ headers = {}, body = ("x"):rep(1001) }, { max_object_bytes = 1000 })
    cache:get()
    assert.equal("Bypass", select(2, cache:get()))
    cache:close()
    start({ headers = {}, chunks = { ("x"):rep(600), ("x"):rep(401) } }, { max_object_bytes = 1000 })
    cache:get()
    assert.equal("Miss", select(2, cache:get()))
    cache.answer = { headers = {}, body = ("x"):rep(1000) }
    cache:get()
    assert.equal("Hit", select(2, cache:get()))
  end)

  it("leaves streams of events alone, and what is to become a WebSocket", function()
    start({ headers = { ["Content-Type"] = "text/event-stream" }, body = "data: 1\n\n" })
    cache:get()
    assert.equal("Bypass", select(2, cache:get()))
    cache:close()
    start(numbered())
    local upgrade = { Connection = "Upgrade", Upgrade = "websocket", ["Sec-WebSocket-Version"] = "13",
      ["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA==" }
    assert.equal("Bypass", select(2, cache:get("/", upgrade)))
    assert.equal("Miss", select(2, cache:get("/")))
    assert.equal("Bypass", select(2, cache:get("/", upgrade)))
  end)

  it("answers HEAD from what GET has stored", function()
    start(numbered { ["Content-Type"] = "text/plain" })
    cache:get()
    local response, status = cache:request { method = "HEAD", path = "/" }
    assert.equal("Hit", status)
    assert.equal("", response.body)
    assert.equal("9", response.headers["content-length"])
    assert.equal(1, (cache:calls()))
  end)

  it("stores large bodies in pieces, and serves them as they were", function()
    local text = {}
    for i = 1, 40000 do text[i] = ("%08d"):format(i) end
    local body = table.concat(text)
    start(function(_, number)
      if number > 1 then return { status = 500 } end
      return { headers = { ["Content-Type"] = "x/y" }, body = body }
    end)
    assert.is_true(cache:get().body == body)
    local response, status = cache:get()
    assert.equal("Hit", status)
    assert.is_true(response.body == body)
    assert.equal(tostring(#body), response.headers["content-length"])
    response = cache:get("/", { Range = "bytes=100000-199999" })
    assert.equal(206, response.status)
    assert.is_true(response.body == body:sub(100001, 200000))
    response = cache:request { method = "HEAD", path = "/" }
    assert.equal(tostring(#body), response.headers["content-length"])
    assert.equal("", response.body)
    assert.equal(1, (cache:calls()))
  end)

  it("stores what comes in chunks, of any size", function()
    for _, size in ipairs { 1, 16384, 16385, 61440, 61441, 122880 } do
      start({ headers = {}, chunks = { ("a"):rep(size), "b" } })
      cache:get()
      local response, status = cache:get()
      assert.equal("Hit", status)
      assert.equal(size + 1, #response.body)
      assert.equal("b", response.body:sub(-1))
      cache:close()
      cache = nil
    end
  end)

  it("has other plugins' filters work on what is stored as on what comes", function()
    start({ headers = { ["Content-Type"] = "application/json", ["X-Gone"] = "1" }, body = '{"a":1}' }, {}, {
      plugins = { { name = "response-transformer",
        config = { add = { headers = { "X-Added:1" }, json = { "b:2" } }, remove = { headers = { "X-Gone" } } } } },
    })
    for _, label in ipairs { "Miss", "Hit" } do
      local response, status = cache:get()
      assert.equal(label, status)
      assert.equal("1", response.headers["x-added"])
      assert.is_nil(response.headers["x-gone"])
      assert.same({ a = 1, b = "2" }, response.json)
    end
  end)

  -- ---- Ranges ----

  local function with_content(headers)
    headers = headers or {}
    headers["Content-Type"] = "text/plain"
    headers.ETag = headers.ETag or '"1"'
    start({ headers = headers, body = "0123456789" })
    cache:get()
  end

  it("answers ranges from what is stored", function()
    with_content()
    for range, expected in pairs {
      ["bytes=0-4"] = { "01234", "bytes 0-4/10" }, ["bytes=5-"] = { "56789", "bytes 5-9/10" },
      ["bytes=-3"] = { "789", "bytes 7-9/10" }, ["bytes=8-100"] = { "89", "bytes 8-9/10" },
      ["bytes=-100"] = { "0123456789", "bytes 0-9/10" }, ["Bytes = 3-3"] = { "3", "bytes 3-3/10" },
      ["bytes=0-1, 20-30"] = { "01", "bytes 0-1/10" },
    } do
      local response, status = cache:get("/", { Range = range })
      assert.equal(206, response.status, range)
      assert.equal("Hit", status)
      assert.equal(expected[1], response.body)
      assert.equal(expected[2], response.headers["content-range"])
      assert.equal(tostring(#expected[1]), response.headers["content-length"])
    end
    assert.equal(1, (cache:calls()))
  end)

  it("answers several ranges at once", function()
    with_content()
    local response = cache:get("/", { Range = "bytes=0-1,4-5,-1" })
    assert.equal(206, response.status)
    local boundary = response.headers["content-type"]:match("^multipart/byteranges; boundary=(%x+)$")
    assert.is_nil(response.headers["content-range"])
    local parts = {}
    for range, text in response.body:gmatch("Content%-Type: text/plain\r\nContent%-Range: (.-)\r\n\r\n(.-)\r\n%-%-"
      .. boundary) do
      parts[#parts + 1] = range .. "=" .. text
    end
    assert.same({ "bytes 0-1/10=01", "bytes 4-5/10=45", "bytes 9-9/10=9" }, parts)
    assert.matches("%-%-\r\n$", response.body)
  end)

  it("answers 416 where no range is within the content", function()
    with_content()
    local response = cache:get("/", { Range = "bytes=10-" })
    assert.equal(416, response.status)
    assert.equal("bytes */10", response.headers["content-range"])
    assert.equal(416, cache:get("/", { Range = "bytes=-0" }).status)
  end)

  it("takes a Range that it cannot read, or that asks for too much, for none", function()
    with_content()
    for _, range in ipairs { "lines=1-2", "bytes=x", "bytes=5-2", "bytes=", "bytes=-", "bytes=0-9,0-9",
      "bytes=" .. ("0-0,"):rep(17) } do
      assert.equal(200, cache:get("/", { Range = range }).status, range)
    end
  end)

  it("answers a range with If-Range only while the content is the same", function()
    with_content { ["Last-Modified"] = date(-100), Date = date(-50) }
    local function status(if_range) return cache:get("/", { Range = "bytes=0-1", ["If-Range"] = if_range }).status end
    assert.equal(206, status '"1"')
    assert.equal(200, status '"2"')
    assert.equal(200, status 'W/"1"')
    assert.equal(206, status(date(-100)))
    assert.equal(200, status(date(-99)))
    cache:close()
    with_content { ["Last-Modified"] = date(-50), Date = date(-50) } -- it may have changed again in that second
    assert.equal(200, status(date(-50)))
  end)

  -- A service that gives parts of its content.
  local function with_parts(content, tag)
    start(function(request)
      local first, last = (request.headers.range or ""):match("^bytes=(%d+)%-(%d+)$")
      if not first then return { headers = { ETag = tag or '"1"' }, body = content } end
      last = math.min(tonumber(last), #content - 1)
      return { status = 206, headers = { ETag = tag or '"1"',
        ["Content-Range"] = ("bytes %d-%d/%d"):format(first, last, #content) },
        body = content:sub(first + 1, last + 1) }
    end)
  end

  local function range(first, last)
    local response, status = cache:get("/", { Range = ("bytes=%d-%d"):format(first, last) })
    assert.equal(206, response.status)
    assert.matches(("^bytes %d%%-%d/"):format(first, last), response.headers["content-range"])
    return response.body, status
  end

  it("stores parts, and serves what is within them", function()
    with_parts "0123456789"
    assert.same({ "2345", "Miss" }, { range(2, 5) })
    assert.same({ "2345", "Hit" }, { range(2, 5) })
    assert.same({ "34", "Hit" }, { range(3, 4) })
    assert.same({ "56", "Miss" }, { range(5, 6) })
    assert.equal(2, (cache:calls()))
  end)

  it("RFC 9111 3.4: joins parts of the same that touch, in any order, until they are the whole", function()
    with_parts "0123456789"
    range(4, 5)
    range(6, 7) -- behind
    assert.same({ "4567", "Hit" }, { range(4, 7) })
    range(2, 4) -- before, over each other
    assert.same({ "234567", "Hit" }, { range(2, 7) })
    range(3, 6) -- is in it
    range(0, 1)
    range(7, 9)
    assert.equal(5, (cache:calls()))
    local response, status = cache:get()
    assert.same({ 200, "0123456789", "Hit" }, { response.status, response.body, status })
    assert.is_nil(response.headers["content-range"])
    assert.equal(5, (cache:calls()))
  end)

  it("RFC 9111 3.4: joins large parts, too", function()
    local text = {}
    for i = 1, 25000 do text[i] = ("%08d"):format(i) end
    local content = table.concat(text)
    with_parts(content)
    range(70000, 129999)
    range(130000, 199999)
    range(0, 80000)
    local response, status = cache:get()
    assert.equal("Hit", status)
    assert.is_true(response.body == content)
    assert.equal(3, (cache:calls()))
  end)

  it("RFC 9111 3.4: joins nothing that is of something else, or not known to be of the same", function()
    with_parts "0123456789"
    range(0, 4)
    cache.answer = { status = 206, headers = { ETag = '"2"', ["Content-Range"] = "bytes 5-9/10" }, body = "FGHIJ" }
    range(5, 9)
    cache.answer = { headers = {}, body = "whole" }
    assert.equal("whole", cache:get().body)
    cache:close()
    with_parts("0123456789", 'W/"1"')
    range(0, 4)
    assert.same({ "01234", "Bypass" }, { range(0, 4) })
  end)

  it("RFC 9111 3.3: does not take a part for the whole", function()
    with_parts "0123456789"
    range(0, 4)
    local response, status = cache:get()
    assert.same({ 200, "0123456789", "Miss" }, { response.status, response.body, status })
    assert.equal("Hit", select(2, cache:get()))
    assert.same({ "56", "Hit" }, { range(5, 6) })
  end)

  it("stores no part that is shorter or longer than it says", function()
    for _, body in ipairs { "012", "0123456" } do
      start { status = 206, headers = { ETag = '"1"', ["Content-Range"] = "bytes 0-4/10" }, body = body }
      cache:get("/", { Range = "bytes=0-4" })
      assert.equal("Miss", select(2, cache:get("/", { Range = "bytes=0-1" })))
      cache:close()
      cache = nil
    end
  end)

  -- ---- Stale responses (RFC 5861) ----

  it("RFC 5861 3: serves stale responses while a fresh one is fetched", function()
    start(numbered { ["Cache-Control"] = "max-age=10, stale-while-revalidate=30" }, { cache_control = true })
    cache:get()
    cache:advance(20)
    local response, status = cache:get()
    assert.equal("content 1", response.body)
    assert.equal("20", response.headers.age)
    assert.equal("Hit", status)
    assert.equal(2, (cache:calls()))
    response, status = cache:get()
    assert.equal("content 2", response.body)
    assert.equal("Hit", status)
    assert.equal(2, (cache:calls()))
    cache:advance(50)
    assert.equal("content 3", cache:get().body)
  end)

  it("RFC 5861 3: validates meanwhile what can be validated", function()
    start(function(request)
      if request.headers["if-none-match"] == '"1"' then
        return { status = 304, headers = { ["Cache-Control"] = "max-age=10" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=10, stale-while-revalidate=30", ETag = '"1"' },
        body = "content" }
    end, { cache_control = true })
    cache:get("/x?a=1", { ["X-Mine"] = "m", Range = "" })
    cache:advance(20)
    assert.equal(304, cache:get("/x?a=1", { ["If-None-Match"] = '"1"', ["X-Mine"] = "n" }).status)
    local count, request = cache:calls()
    assert.equal(2, count)
    assert.equal("/x?a=1", request.target)
    assert.equal("n", request.headers["x-mine"])
    local response = cache:get("/x?a=1")
    assert.equal("content", response.body)
    assert.equal("0", response.headers.age)
    assert.equal(2, (cache:calls()))
  end)

  it("RFC 5861 3: fetches once, however many are served meanwhile, and keeps what it has when that fails", function()
    start(function(_, number)
      if number > 1 then return { delay = 2, close = true } end
      return { headers = { ["Cache-Control"] = "max-age=10, stale-while-revalidate=30" }, body = "content" }
    end, { cache_control = true })
    cache:get()
    cache:advance(20)
    for _ = 1, 5 do assert.equal("content", cache:get().body) end
    assert.equal(2, (cache:calls()))
    cache:advance(5)
    assert.equal("content", cache:get().body)
    assert.is_true(cache:calls() > 2)
  end)

  it("serves stale while it fetches for as long as the configuration says", function()
    start(numbered(), { cache_ttl = 10, stale_while_revalidate = 20 })
    cache:get()
    cache:advance(15)
    assert.equal("content 1", cache:get().body)
    assert.equal("content 2", cache:get().body)
    cache:advance(31)
    assert.equal("content 3", cache:get().body)
  end)

  local function failing(headers, failure)
    return function(_, number)
      if number > 1 then return failure end
      return { headers = headers, body = "content" }
    end
  end

  it("RFC 5861 4: serves stale responses when the service fails", function()
    for _, failure in ipairs { { close = true }, { status = 500 }, { status = 502 }, { status = 503 },
      { status = 504 } } do
      start(failing({ ["Cache-Control"] = "max-age=10, stale-if-error=30" }, failure), { cache_control = true })
      cache:get()
      cache:advance(20)
      local response, status = cache:get()
      assert.equal("content", response.body)
      assert.equal("20", response.headers.age)
      assert.equal("Hit", status)
      cache:advance(30)
      assert.is_true(cache:get().status >= 500)
      cache:close()
      cache = nil
    end
  end)

  it("RFC 5861 4: does so when the request asks for it, but not for other statuses", function()
    start(failing({ ["Cache-Control"] = "max-age=10", ETag = '"1"' }, { status = 503 }), { cache_control = true })
    cache:get()
    cache:advance(20)
    assert.equal(200, cache:get("/", { ["Cache-Control"] = "stale-if-error=60" }).status)
    assert.equal(503, cache:get("/", { ["Cache-Control"] = "stale-if-error=5" }).status)
    cache.answer = { status = 403 }
    assert.equal(403, cache:get("/", { ["Cache-Control"] = "stale-if-error=60" }).status)
  end)

  it("serves stale on errors for as long as the configuration says", function()
    start(failing({}, { status = 500 }), { cache_ttl = 10, stale_if_error = 20 })
    cache:get()
    cache:advance(15)
    assert.equal(200, cache:get().status)
    cache:advance(20)
    assert.equal(500, cache:get().status)
  end)

  -- ---- One for all ----

  it("sends one request for all who want the same at once", function()
    start({ delay = 2, headers = {}, body = "content" })
    local pending = {}
    for i = 1, 50 do pending[i] = cache.gateway:send("/") end
    for i = 1, 50 do assert.equal("content", pending[i]:receive().body) end
    assert.equal(1, (cache:calls()))
    for i = 1, 50 do pending[i]:close() end
  end)

  it("lets others go when what came is not stored, and for some time after", function()
    start({ delay = 2, headers = { ["Set-Cookie"] = "a=b" }, body = "content" })
    local function all(count)
      local pending = {}
      for i = 1, count do pending[i] = cache.gateway:send("/") end
      for i = 1, count do
        assert.equal("content", pending[i]:receive().body)
        pending[i]:close()
      end
    end
    local from = cache.gateway:now()
    all(5)
    assert.equal(5, (cache:calls()))
    assert.near(4, cache.gateway:now() - from, 0.5)
    from = cache.gateway:now()
    all(5)
    assert.near(2, cache.gateway:now() - from, 0.5)
  end)

  it("sends another when the client of the first one leaves", function()
    start({ delay = 2, headers = {}, body = "content" })
    local first = cache.gateway:send("/")
    cache.gateway:settle()
    local others = {}
    for i = 1, 5 do others[i] = cache.gateway:send("/") end
    cache.gateway:settle()
    first:close()
    for i = 1, 5 do
      assert.equal("content", others[i]:receive().body)
      others[i]:close()
    end
    assert.equal(2, (cache:calls()))
  end)

  it("waits for no longer than collapse_timeout, and not at all without collapse", function()
    start({ delay = 8, headers = {}, body = "content" }, { collapse_timeout = 3 })
    local first, second = cache.gateway:send("/"), cache.gateway:send("/")
    cache:advance(4)
    assert.equal(2, (cache:calls()))
    first:receive()
    second:receive()
    first:close()
    second:close()
    cache:close()
    start({ delay = 8, headers = {}, body = "content" }, { collapse = false })
    first, second = cache.gateway:send("/"), cache.gateway:send("/")
    cache:advance(1)
    assert.equal(2, (cache:calls()))
    first:close()
    second:close()
  end)

  it("validates once for all", function()
    start(function(request)
      if request.headers["if-none-match"] then
        return { delay = 2, status = 304, headers = { ["Cache-Control"] = "max-age=10" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=10", ETag = '"1"' }, body = "content" }
    end, { cache_control = true })
    cache:get()
    cache:advance(20)
    local pending = {}
    for i = 1, 10 do pending[i] = cache.gateway:send("/") end
    for i = 1, 10 do
      assert.equal("content", pending[i]:receive().body)
      pending[i]:close()
    end
    assert.equal(2, (cache:calls()))
  end)

  -- ---- Cache-Status (RFC 9211) ----

  it("RFC 9211: tells what became of a request", function()
    start(function(request, number)
      if request.headers["if-none-match"] then
        return { status = 304, headers = { ["Cache-Control"] = "max-age=10" } }
      end
      return { headers = { ["Cache-Control"] = "max-age=" .. (number == 1 and 10 or 0), ETag = '"1"',
        ["Cache-Status"] = "origin; hit" }, body = "x" }
    end, { cache_control = true, response_headers = { ["Cache-Status"] = true } })
    local function member(path, headers) return cache:get(path, headers).headers["cache-status"] end
    assert.equal("origin; hit, sluice; fwd=uri-miss; fwd-status=200; stored", member "/")
    cache:advance(4)
    assert.equal("origin; hit, sluice; hit; ttl=6", member "/")
    assert.equal("origin; hit, sluice; fwd=request; fwd-status=304", member("/", { ["Cache-Control"] = "no-cache" }))
    cache:advance(20)
    assert.equal("origin; hit, sluice; fwd=stale; fwd-status=304", member "/")
    assert.matches("sluice; fwd=method; fwd%-status=200", cache:request({ method = "OPTIONS", path = "/" })
      .headers["cache-status"])
  end)

  -- ---- Purging ----

  local function purge(path, headers)
    return cache:request { method = "PURGE", path = path, headers = headers }
  end

  it("removes what is stored of a URL, or of all that begin so, for who may purge", function()
    start(numbered(), { purge_ips = { "127.0.0.1" } })
    for _, path in ipairs { "/a", "/a?x=1", "/b/1", "/b/2", "/c" } do cache:get(path) end
    assert.same({ purged = 1 }, purge("/a").json)
    assert.same({ purged = 0 }, purge("/a").json)
    assert.same({ purged = 2 }, purge("/b/*").json)
    assert.equal("Miss", select(2, cache:get("/a")))
    assert.equal("Hit", select(2, cache:get("/a?x=1")))
    assert.equal("Miss", select(2, cache:get("/b/2")))
    assert.equal("Hit", select(2, cache:get("/c")))
  end)

  it("removes what has a key, or a tag of the service's", function()
    start(function(request)
      return { headers = { ["Surrogate-Key"] = "all " .. request.path:sub(2), ["Cache-Tag"] = "x,y" }, body = "b" }
    end, { purge_ips = { "127.0.0.0/8" } })
    local key = cache:get("/one").headers["x-cache-key"]
    cache:get("/two")
    assert.equal("Hit", select(2, cache:get("/one")))
    assert.same({ purged = 1 }, purge("/any", { ["X-Cache-Key"] = key }).json)
    assert.equal("Miss", select(2, cache:get("/one")))
    assert.same({ purged = 1 }, purge("/any", { ["Surrogate-Key"] = "two" }).json)
    assert.equal("Miss", select(2, cache:get("/two")))
    assert.same({ purged = 2 }, purge("/any", { ["Cache-Tag"] = "none, y" }).json)
    assert.equal(400, purge("/any", { ["X-Cache-Key"] = "rubbish" }).status)
  end)

  it("tells clients no tags", function()
    start { headers = { ["Surrogate-Key"] = "a b", ["Cache-Tag"] = "c" }, body = "b" }
    for _ = 1, 2 do
      local response = cache:get()
      assert.is_nil(response.headers["surrogate-key"])
      assert.is_nil(response.headers["cache-tag"])
    end
    cache:close()
    start({ headers = { ["Surrogate-Key"] = "a b", ["X-Tags"] = "c" }, body = "b" }, { tag_headers = { "X-Tags" } })
    for _ = 1, 2 do
      local response = cache:get()
      assert.equal("a b", response.headers["surrogate-key"])
      assert.is_nil(response.headers["x-tags"])
    end
  end)

  it("does not store what has more tags than it can keep", function()
    start { headers = { ["Surrogate-Key"] = ("t "):rep(129) }, body = "b" }
    cache:get()
    assert.equal("Bypass", select(2, cache:get()))
  end)

  it("lets nobody purge who may not", function()
    start(function(request) return { headers = {}, body = request.method } end, { purge_ips = { "10.0.0.0/8" } })
    assert.equal(403, purge("/").status)
    assert.equal(0, (cache:calls()))
    cache:close()
    start(function(request) return { headers = {}, body = request.method } end)
    assert.equal("PURGE", purge("/").body) -- the service's business
  end)

  -- ---- Configuration ----

  it("refuses a configuration that is not good", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "proxy-cache", config = config } } })
    end
    assert.matches("config.strategy: expected .*memory.*, found \"redis\"", problem { strategy = "redis" })
    assert.matches("config.strategy: ", problem {})
    assert.matches("config.cache_ttl: ", problem { strategy = "memory", cache_ttl = -1 })
    assert.matches("config.response_code%[0%]: ", problem { strategy = "memory", response_code = { 99 } })
    assert.matches("config.response_code: ", problem { strategy = "memory", response_code = {} })
    assert.matches("config.request_method%[0%]: ", problem { strategy = "memory", request_method = { "DELETE" } })
    assert.matches("config.heuristic_fraction: ", problem { strategy = "memory", heuristic_fraction = 2 })
    assert.matches("config.purge_ips%[0%]: ", problem { strategy = "memory", purge_ips = { "everybody" } })
    assert.is_nil(problem { strategy = "memory" })
  end)
end)
