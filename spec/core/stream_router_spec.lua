-- SPDX-License-Identifier: Apache-2.0
-- Which route takes a stream.
local ffi = require "ffi"
local core = require "spec.support.core"

require("spec.support.system").declare_addresses()
local C = core.load("stream_router.h", "bridge.h", "target.h")

local KINDS = { snis = "MATCH_SNI", sources = "MATCH_SOURCE", destinations = "MATCH_DESTINATION" }
local PROTOCOLS = { tcp = 64, tls = 128, tls_passthrough = 256 }

local function slice(text)
  return ffi.new("struct slice", { text, #text })
end

-- The number of the route that takes the stream, or nil and why the routes are refused.
local function build(routes)
  local router, failure = ffi.gc(C.stream_router_new(), C.stream_router_free), ffi.new("struct error")
  for number, route in ipairs(routes) do
    local bits = 0
    for _, name in ipairs(route.protocols or { "tcp" }) do bits = bits + PROTOCOLS[name] end
    assert.equal(0, C.stream_router_add(router, number, bits, route.created_at or 0))
    for field, kind in pairs(KINDS) do
      for _, value in ipairs(route[field] or {}) do
        if C.stream_router_add_match(router, C[kind], slice(value), failure) < 0 then
          return nil, ffi.string(failure.text)
        end
      end
    end
  end
  return router
end

local function address(text)
  local host, port = text:match("^(.*) (%d+)$")
  local out = ffi.new("struct address")
  assert.is_true(C.address_parse(slice(host), tonumber(port), out))
  return out
end

local function taken(routes, stream)
  local router = assert(build(routes))
  local source = address(stream.source or "10.1.2.3 40000")
  local destination = address(stream.destination or "127.0.0.1 9000")
  local bits = 0
  for _, name in ipairs(stream.protocols or { "tcp" }) do bits = bits + PROTOCOLS[name] end
  local sni = stream.sni or ""
  local request = ffi.new("struct stream_request", { protocols = bits, sni = slice(sni),
    source = source.socket.base, destination = destination.socket.base })
  local protocol = ffi.new("uint32_t[1]")
  return C.stream_router_find(router, request, protocol), tonumber(protocol[0])
end

describe("a route of streams", function()
  it("takes by port of the destination", function()
    local routes = { { destinations = { "* 9000" } }, { destinations = { "* 9001", "* 9002" } } }
    assert.equal(1, (taken(routes, {})))
    assert.equal(2, (taken(routes, { destination = "127.0.0.1 9002" })))
    assert.equal(0, (taken(routes, { destination = "127.0.0.1 9003" })))
  end)

  it("takes by address of either end, IPv4 and IPv6", function()
    local routes = { { sources = { "10.0.0.0/8 0" } }, { sources = { "2001:db8::/32 0" } },
      { destinations = { "192.168.1.1 0" } } }
    assert.equal(1, (taken(routes, {})))
    assert.equal(2, (taken(routes, { source = "2001:db8:1::5 1" })))
    assert.equal(3, (taken(routes, { source = "11.0.0.1 1", destination = "192.168.1.1 5" })))
    assert.equal(0, (taken(routes, { source = "11.0.0.1 1" })))
    assert.equal(1, (taken(routes, { source = "::ffff:10.9.9.9 1" })))
  end)

  it("takes by server name, whole or with a star at either end", function()
    local routes = { { protocols = { "tls" }, snis = { "*.example" } },
      { protocols = { "tls" }, snis = { "A.example." } }, { protocols = { "tls" }, snis = { "mail.*" } } }
    local function by(name) return (taken(routes, { protocols = { "tls" }, sni = name })) end
    assert.same({ 2, 1, 3, 0, 0, 1 },
      { by "a.example", by "b.example", by "mail.test", by "example", by "", by "x.y.example" })
  end)

  it("takes only what it is for, and says as what", function()
    local routes = { { protocols = { "tls" }, destinations = { "* 9000" } },
      { protocols = { "tls_passthrough" }, snis = { "p.test" } } }
    assert.equal(0, (taken(routes, { protocols = { "tcp" } })))
    assert.same({ 1, 128 }, { taken(routes, { protocols = { "tls", "tls_passthrough" }, sni = "q.test" }) })
    assert.same({ 1, 256 }, { taken({ routes[2] }, { protocols = { "tls", "tls_passthrough" }, sni = "p.test" }) })
  end)

  it("has to fit in all that it asks for", function()
    local routes = { { sources = { "10.0.0.0/8 0" }, destinations = { "* 9000" } } }
    assert.equal(1, (taken(routes, {})))
    assert.equal(0, (taken(routes, { source = "11.0.0.1 1" })))
    assert.equal(0, (taken(routes, { destination = "127.0.0.1 1" })))
  end)
end)

describe("the order of routes of streams", function()
  it("prefers the one that asks for more", function()
    local routes = { { destinations = { "127.0.0.1 9000" } }, { sources = { "* 40000" }, destinations = { "* 9000" } } }
    assert.equal(2, (taken(routes, {})))
  end)

  it("prefers server names to sources, and sources to destinations", function()
    local tls = { "tls" }
    local routes = { { protocols = tls, destinations = { "127.0.0.1 9000" } },
      { protocols = tls, sources = { "* 40000" } }, { protocols = tls, snis = { "*.test" } } }
    assert.equal(3, (taken(routes, { protocols = tls, sni = "a.test" })))
    assert.equal(2, (taken(routes, { protocols = tls, sni = "a.other" })))
  end)

  it("prefers whole names to wildcards, and longer wildcards to shorter ones", function()
    local routes = {}
    for i, name in ipairs { "*.test", "*.b.test", "a.*", "a.b.test" } do
      routes[i] = { protocols = { "tls" }, snis = { name } }
    end
    local function by(name) return (taken(routes, { protocols = { "tls" }, sni = name })) end
    assert.same({ 4, 2, 1, 1 }, { by "a.b.test", by "x.b.test", by "x.test", by "a.test" })
  end)

  it("prefers an address with a port, and a longer prefix", function()
    local routes = { { sources = { "10.0.0.0/8 0" } }, { sources = { "10.1.0.0/16 0" } }, { sources = { "* 40000" } },
      { sources = { "10.0.0.0/8 40000" } } }
    assert.equal(4, (taken(routes, {})))
    assert.equal(3, (taken({ routes[1], routes[2], routes[3] }, {})))
    assert.equal(2, (taken({ routes[1], routes[2] }, {})))
  end)

  it("prefers the older one, then the first", function()
    local one = { destinations = { "* 9000" }, created_at = 5 }
    assert.equal(2, (taken({ one, { destinations = { "* 9000" }, created_at = 3 } }, {})))
    assert.equal(1, (taken({ one, one }, {})))
  end)
end)

describe("a route of streams is refused", function()
  local function why(route)
    return select(2, build { route })
  end

  it("with what is no address, prefix or port", function()
    assert.matches("'10.0.0' is no address", why { sources = { "10.0.0 0" } }, 1, true)
    assert.matches("no valid prefix length", why { sources = { "10.0.0.0/33 0" } }, 1, true)
    assert.matches("no valid prefix length", why { sources = { "10.0.0.0/ 0" } }, 1, true)
    assert.matches("invalid port", why { sources = { "10.0.0.1 65536" } }, 1, true)
    assert.matches("invalid port", why { sources = { "10.0.0.1 9x" } }, 1, true)
    assert.matches("invalid port", why { destinations = { "10.0.0.1" } }, 1, true)
  end)

  it("with a name that is too long", function()
    assert.matches("invalid length", why { snis = { ("x"):rep(300) } }, 1, true)
  end)
end)
