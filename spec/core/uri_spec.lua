-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("uri.h")

-- The text stays alive as long as the slice is in the table.
local kept = {}

local function slice(text)
  kept[#kept + 1] = text
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

local function text(s)
  return ffi.string(s.data, s.len)
end

local failure = ffi.new("struct error")

local function normalise(path, room)
  local out, len = ffi.new("char[?]", (room or #path * 3) + 1), ffi.new("uint32_t[1]")
  local status = C.uri_normalise(slice(path), out, room or #path * 3, len, failure)
  if status ~= 0 then return nil, tonumber(status), ffi.string(failure.text) end
  return ffi.string(out, len[0])
end

local function target(method, raw)
  local out = ffi.new("struct uri")
  if C.uri_parse_target(slice(method), slice(raw), out, failure) ~= 0 then return nil, ffi.string(failure.text) end
  return out
end

local function host(field)
  local out = ffi.new("struct uri_host")
  if C.uri_parse_host(slice(field), out, failure) ~= 0 then return nil, ffi.string(failure.text) end
  return text(out.name), out.port, out
end

describe("the canonical path", function()
  before_each(function() kept = {} end)

  local same = {
    ["/"] = "/", ["/a/b"] = "/a/b", ["/.well-known/x"] = "/.well-known/x", ["/a..b/...c"] = "/a..b/...c",
    ["/%41%62%7e"] = "/Ab~", ["/a%2fb"] = "/a%2Fb", ["/%c3%a9"] = "/%C3%A9", ["/\195\169"] = "/%C3%A9",
    ["//a///b//"] = "/a/b/", ["/a/./b/."] = "/a/b/", ["/a/../b/.."] = "/", ["/../../x"] = "/x",
    ["/a/%2e%2E/b"] = "/b", ["/a/.%2e/b"] = "/b", ["/%2e/b"] = "/b", ["/a//../b"] = "/b",
    ["/a;x/../b"] = "/b", ["/public/..;/admin"] = "/admin", ["/public/..;a=b/admin"] = "/admin",
    ["/public/%2e%2e%3b/admin"] = "/admin", ["/p/.;x/q"] = "/p/q", ["/a;v=1/b"] = "/a;v=1/b",
    ["/a\\..\\b"] = "/a%5C..%5Cb", ["/a%5c"] = "/a%5C", ['/"<>[]^`{|}'] = "/%22%3C%3E%5B%5D%5E%60%7B%7C%7D",
    ["/a%20b%0a"] = "/a%20b%0A", ["/:@!$&'()*+,;="] = "/:@!$&'()*+,;=", ["/a%252e"] = "/a%252e",
    ["/..%2f..%2fetc"] = "/..%2F..%2Fetc",
  }
  for raw, canonical in pairs(same) do
    it(("of %q is %q"):format(raw, canonical), function()
      assert.equal(canonical, normalise(raw))
    end)
  end

  for _, raw in ipairs { "", "a", "/%00", "/%", "/%4", "/%zz", "/a b", "/a\tb", "/\0", "/\127", "/a?b", "/a#b" } do
    it(("of %q is refused"):format(raw), function()
      local path, status = normalise(raw)
      assert.is_nil(path)
      assert.equal(-1, status)
    end)
  end

  it("says so when it does not fit, and fits exactly", function()
    assert.equal("/%C3%A9", normalise("/\195\169", 7))
    local path, status = normalise("/\195\169", 6)
    assert.is_nil(path)
    assert.equal(-2, status)
  end)

  it("is its own canonical form, and known as such without a copy", function()
    local alphabet = { "/", "/", ".", ".", ";", "%2e", "%2F", "%2f", "%3B", "a", "B", "%41", "\\", "%C3", "%" }
    math.randomseed(7)
    local canonical, changed = 0, 0
    for _ = 1, 20000 do
      local parts = { "/" }
      for i = 2, math.random(1, 9) do parts[i] = alphabet[math.random(#alphabet)] end
      local raw = table.concat(parts)
      local path = normalise(raw)
      local is_canonical = C.uri_is_canonical(slice(raw))
      assert.equal(path == raw, is_canonical, raw)
      if path then
        assert.equal(path, normalise(path))
        assert.is_true(C.uri_is_canonical(slice(path)), path)
        assert.is_nil(("/" .. path .. "/"):find("/%.%.?[;/]", 2))
        canonical, changed = canonical + (is_canonical and 1 or 0), changed + (is_canonical and 0 or 1)
      end
      kept = {}
    end
    assert.is_true(canonical > 100 and changed > 100)
  end)
end)

describe("a request target", function()
  before_each(function() kept = {} end)

  it("in origin-form has a path and perhaps a query", function()
    local uri = target("GET", "/a/b?c=d?e")
    assert.equal(C.URI_ORIGIN, uri.form)
    assert.equal("/a/b", text(uri.path))
    assert.equal("c=d?e", text(uri.query))
    assert.is_false(target("GET", "/a").has_query)
    assert.is_true(target("GET", "/a?").has_query)
  end)

  it("in absolute-form has scheme and host too, and a path even when none is written", function()
    local uri = target("GET", "HTTP://Example.com:81?x")
    assert.equal(C.URI_ABSOLUTE, uri.form)
    assert.same({ "HTTP", "Example.com:81", "/", "x" },
      { text(uri.scheme), text(uri.host), text(uri.path), text(uri.query) })
    assert.equal("/p", text(target("GET", "https://[::1]:8443/p").path))
  end)

  it("is an authority for CONNECT and an asterisk for OPTIONS, and neither for others", function()
    assert.equal("a.example:443", text(target("CONNECT", "a.example:443").host))
    assert.equal(C.URI_ASTERISK, target("OPTIONS", "*").form)
    assert.is_nil(target("GET", "*"))
    assert.is_nil(target("GET", "a.example:443"))
  end)

  for _, raw in ipairs { "", "/a b", "/a\0", "/a#b", "/a?b\127", "ftp://a/", "http:///x", "http://", "a/b" } do
    it(("like %q is refused"):format(raw), function()
      assert.is_nil(target("GET", raw))
    end)
  end

  it("may hold bytes above ASCII, in path and query", function()
    assert.equal("\195\169", text(target("GET", "/\195\169?\195\169").query))
  end)
end)

describe("a host", function()
  before_each(function() kept = {} end)

  it("is a name, an IPv4 or an IPv6 address, with a port or without", function()
    local cases = {
      ["example.com"] = { "example.com", 0, 0 }, ["example.com:8080"] = { "example.com", 8080, 0 },
      ["my_host"] = { "my_host", 0, 0 }, ["10.0.0.1:80"] = { "10.0.0.1", 80, 1 }, ["[::1]"] = { "[::1]", 0, 2 },
      ["[2001:DB8::1]:443"] = { "[2001:DB8::1]", 443, 2 }, ["a.example."] = { "a.example", 0, 0 },
      ["a:"] = { "a", 0, 0 }, ["12345"] = { "12345", 0, 0 },
    }
    for field, expected in pairs(cases) do
      local name, port, out = host(field)
      assert.same(expected, { name, port, out.kind }, field)
    end
  end)

  for _, field in ipairs { "", ":80", ".", "a..b", ".a", "a b", "a/b", "a@b", "a%62", "a:0", "a:65536", "a:8x",
    "a:80:81", "[::1", "[::1]x", "[fe80::1%25eth0]", "[1.2.3.4]", "256.1.1.1", "127.1", "a\0", "\195\169", "a,b" } do
    it(("like %q is refused"):format(field), function()
      assert.is_nil(host(field))
    end)
  end

  it("longer than a name can be is refused", function()
    assert.is_not_nil(host(("a"):rep(255)))
    assert.is_nil(host(("a"):rep(256)))
  end)

  it("is copied to lower case only where it has upper case", function()
    local buffer = ffi.new("char[256]")
    local _, _, lower = host("abc.example:80")
    assert.is_true(C.uri_lower_host(lower, buffer).data == lower.name.data)
    local _, _, mixed = host("AbC.Example:80")
    assert.equal("abc.example", text(C.uri_lower_host(mixed, buffer)))
    assert.equal("abc.example", ffi.string(buffer))
  end)
end)
