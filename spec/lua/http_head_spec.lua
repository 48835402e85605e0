-- SPDX-License-Identifier: Apache-2.0
local fake = require "spec.lua.support.fake_core"

describe("the HTTP client's parser", function()
  local head, Reader

  setup(function()
    fake.install()
    head = require "sluice.http.head"
    Reader = require "sluice.http.body"
  end)

  teardown(fake.remove)

  it("takes URLs apart", function()
    local url = assert(head.parse_url("HTTPS://user:p%40ss@[::1]:8443/a?b=c#d"))
    assert.same({ scheme = "https", host = "::1", port = 8443, target = "/a?b=c", authority = "[::1]:8443",
      user = "user", password = "p%40ss" }, url)
    assert.same({ scheme = "http", host = "a.b", port = 80, target = "/", authority = "a.b" },
      head.parse_url("http://a.b"))
    assert.equal("/?x", head.parse_url("http://a.b?x").target)
  end)

  it("refuses URLs that could say something else", function()
    for _, url in ipairs { "ftp://a/", "http://", "http:///x", "http://a b/", "http://a/\r\nX: y", "http://a:0/",
      "http://a:99999/", "http://a:b/", "http://[::1/", "a.b/c" } do
      assert.is_nil((head.parse_url(url)), url)
    end
  end)

  it("reads status lines, with and without a reason", function()
    assert.same({ 200, 1.1 }, { head.status_line("HTTP/1.1 200 OK") })
    assert.same({ 404, 1.0 }, { head.status_line("HTTP/1.0 404") })
    for _, line in ipairs { "HTTP/1.1 20 OK", "HTTP/2 200", "HTTP/1.1 2000", "http/1.1 200 OK", "", "HTTP/1.1  200" } do
      assert.is_nil((head.status_line(line)), line)
    end
  end)

  it("refuses fields that are folded, unnamed or spaced", function()
    assert.same({ "x-a", "b c" }, { head.field("X-A:  b c \t") })
    for _, line in ipairs { " folded", "a : b", ": b", "nothing", "a b: c", "a: b\rc", "a: b\0c" } do
      assert.is_nil((head.field(line)), line)
    end
  end)

  it("knows how a body ends", function()
    local cases = {
      { "HEAD", 200, { ["content-length"] = "5" }, "none" },
      { "GET", 204, {}, "none" },
      { "GET", 304, { ["content-length"] = "5" }, "none" },
      { "GET", 200, { ["transfer-encoding"] = "Chunked" }, "chunked" },
      { "GET", 200, { ["content-length"] = { "5", "5" } }, "length", 5 },
      { "GET", 200, {}, "close" },
    }
    for _, case in ipairs(cases) do
      assert.same({ case[4], case[5] }, { head.framing(case[1], case[2], case[3]) })
    end
  end)

  it("refuses framing that is ambiguous", function()
    for _, headers in ipairs {
      { ["transfer-encoding"] = "chunked", ["content-length"] = "5" },
      { ["transfer-encoding"] = "gzip, chunked" },
      { ["transfer-encoding"] = { "chunked", "chunked" } },
      { ["content-length"] = { "5", "6" } },
      { ["content-length"] = "+5" },
      { ["content-length"] = "5, 6" },
      { ["content-length"] = "" },
    } do
      assert.is_nil((head.framing("GET", 200, headers)))
    end
  end)

  it("keeps a connection when both sides mean to", function()
    assert.is_true(head.keeps_alive(1.1, {}))
    assert.is_false(head.keeps_alive(1.1, { connection = "foo, Close" }))
    assert.is_false(head.keeps_alive(1.0, {}))
    assert.is_true(head.keeps_alive(1.0, { connection = "Keep-Alive" }))
  end)

  -- A connection that has all of `text` to give, then ends.
  local function source(text)
    local at = 1
    local function take(count)
      local piece = text:sub(at, at + count - 1)
      at = at + #piece
      return piece
    end
    return {
      receive_some = function(_, limit)
        local piece = take(limit)
        if piece == "" then return nil, "closed" end
        return piece
      end,
      receive_line = function(_, limit)
        local line, past = text:match("^([^\n]*)\n()", at)
        if not line then return nil, "closed" end
        at = past
        line = line:gsub("\r$", "")
        if #line > limit then return nil, "too long" end
        return line
      end,
      rest = function() return text:sub(at) end,
    }
  end

  it("reads chunked bodies with extensions and trailers, and nothing after", function()
    local from = source("5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-T: 1\r\n\r\nHTTP/1.1")
    assert.equal("hello world", Reader.new(from, "chunked"):read_all(100))
    assert.equal("HTTP/1.1", from.rest())
  end)

  it("refuses bad chunks", function()
    for _, text in ipairs { "z\r\n", "-1\r\n", "5\r\nhelloX\r\n", "5\r\nhel", "fffffffff\r\n", "5 5\r\nhello\r\n",
      "\r\n" } do
      local body, err = Reader.new(source(text), "chunked"):read_all(100)
      assert.is_nil(body, text)
      assert.is_string(err)
    end
  end)

  it("bounds a body before and while it reads", function()
    assert.equal("the body is larger than 4 bytes", select(2, Reader.new(source("hello"), "length", 5):read_all(4)))
    assert.equal("the body is larger than 4 bytes", select(2, Reader.new(source("hello"), "close"):read_all(4)))
  end)

  it("tells a body cut short", function()
    local reader = Reader.new(source("hel"), "length", 5)
    assert.equal("hel", reader:read())
    assert.same({ n = 2, nil, "closed before the end of the body" }, { n = 2, reader:read() })
  end)

  it("writes a request that cannot be split", function()
    local http = require "sluice.http"
    local url = head.parse_url("http://a.b/x?y=1")
    assert.equal("POST /x?y=1&z=2 HTTP/1.1\r\nX-A: 1\r\nHost: a.b\r\nUser-Agent: sluice\r\nContent-Length: 3\r\n\r\n",
      http.head_of(url, { method = "POST", query = { z = 2 }, headers = { ["X-A"] = 1 }, body = "abc" }))
    for _, options in ipairs { { headers = { ["X-A"] = "1\r\nX-B: 2" } }, { headers = { ["X A"] = "1" } },
      { method = "GET /" }, { headers = { x = {} , y = print } } } do
      assert.is_nil((http.head_of(url, options)))
    end
  end)

  it("does not let a caller set the framing", function()
    local http = require "sluice.http"
    local text = http.head_of(head.parse_url("http://a/"), {
      headers = { ["Content-Length"] = 9, ["Transfer-Encoding"] = "x" },
    })
    assert.is_nil(text:find("9", 1, true))
    assert.is_nil(text:lower():find("transfer-encoding", 1, true))
  end)
end)
