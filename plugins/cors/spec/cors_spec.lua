-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local APP = "https://app.example"

describe("cors", function()
  local gateway

  local function start(config, answer)
    gateway = spec.gateway { plugins = { { name = "cors", config = config } }, upstreams = { ["*"] = answer or {} } }
  end

  local function get(origin)
    return gateway:get("/", { Origin = origin }).headers
  end

  local function preflight(origin, more)
    local headers = { Origin = origin, ["Access-Control-Request-Method"] = "PUT" }
    for name, value in pairs(more or {}) do headers[name] = value end
    return gateway:request { method = "OPTIONS", path = "/", headers = headers }
  end

  -- What Access-Control-Allow-Origin says, to a request and to its preflight alike; and Vary.
  local function told(origin)
    local headers, before = get(origin), preflight(origin).headers
    assert.equal(headers["access-control-allow-origin"], before["access-control-allow-origin"])
    assert.equal(headers.vary, before.vary)
    return headers["access-control-allow-origin"], headers.vary
  end

  describe("answers a preflight request", function()
    it("itself, with what is allowed", function()
      start {}
      local response = preflight(APP, { ["Access-Control-Request-Headers"] = "x-one, x-two" })
      assert.same({ 200, "", "0" }, { response.status, response.body, response.headers["content-length"] })
      assert.same({ "*", "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT", "x-one, x-two" },
        { response.headers["access-control-allow-origin"], response.headers["access-control-allow-methods"],
          response.headers["access-control-allow-headers"] })
      assert.is_nil(response.headers["access-control-max-age"])
      assert.equal("Origin", response.headers.vary)
      assert.equal(0, #gateway:requests())
    end)

    it("with methods, headers and max_age of the configuration", function()
      start { methods = { "PUT", "DELETE" }, headers = { "x-a", "x-b" }, max_age = 600 }
      local headers = preflight(APP, { ["Access-Control-Request-Headers"] = "x-one" }).headers
      assert.same({ "PUT,DELETE", "x-a,x-b", "600" }, { headers["access-control-allow-methods"],
        headers["access-control-allow-headers"], headers["access-control-max-age"] })
    end)

    it("without allowing headers when none are asked for", function()
      start {}
      assert.is_nil(preflight(APP).headers["access-control-allow-headers"])
    end)

    it("but not OPTIONS of another kind", function()
      start({}, { status = 202 })
      assert.equal(202, preflight(nil).status)
      assert.equal(202, gateway:request { method = "OPTIONS", path = "/", headers = { Origin = APP } }.status)
      local other = { Origin = APP, ["Access-Control-Request-Method"] = "PUT" }
      assert.equal(202, gateway:get("/", other).status)
    end)

    it("not with preflight_continue: the service does, and its answer stays as it is", function()
      start({ preflight_continue = true, credentials = true }, { status = 204,
        headers = { ["Access-Control-Allow-Origin"] = "https://theirs.example" } })
      local response = preflight(APP)
      assert.equal(204, response.status)
      assert.equal("https://theirs.example", response.headers["access-control-allow-origin"])
      assert.is_nil(response.headers["access-control-allow-credentials"])
      assert.equal(APP, get(APP)["access-control-allow-origin"])
    end)
  end)

  describe("tells which origin is allowed:", function()
    it("every one, when there is no list, an empty one, or * in it", function()
      for _, origins in ipairs { false, {}, { "*" }, { "https://a.example", "*" } } do
        start { origins = origins or nil }
        assert.same({ "*", "Origin" }, { told(APP) })
        assert.same({ "*" }, { get(nil)["access-control-allow-origin"] })
      end
    end)

    it("the only one of a list, whoever asks", function()
      start { origins = { "https://a.example" } }
      assert.same({ "https://a.example", "Origin" }, { told(APP) })
      assert.equal("https://a.example", get(nil)["access-control-allow-origin"])
    end)

    it("the client's own when it is in the list, else none", function()
      start { origins = { "https://a.example", "http://b.example:8080", "https://[2001:db8::1]" } }
      for _, origin in ipairs { "https://a.example", "http://b.example:8080", "https://[2001:db8::1]" } do
        assert.same({ origin, "Origin" }, { told(origin) })
      end
      for _, origin in ipairs { "http://a.example", "https://a.example:8443", "https://b.example", "null",
        "https://a.example.evil.example", "https://evil.example/https://a.example" } do
        assert.same({ nil, "Origin" }, { told(origin) })
      end
      assert.is_nil(get(nil)["access-control-allow-origin"])
    end)

    it("with default ports and without them alike", function()
      start { origins = { "https://a.example:443", "http://b.example", "http://c.example" } }
      assert.equal("https://a.example", (told("https://a.example")))
      assert.equal("http://b.example", (told("http://b.example:80")))
      assert.is_nil((told("http://c.example:443")))
    end)

    it("those whose host is in the list, when it says no scheme", function()
      start { origins = { "a.example", "b.example" } }
      assert.equal("https://a.example", (told("https://a.example")))
      assert.equal("http://b.example:81", (told("http://b.example:81")))
      assert.is_nil((told("https://c.example")))
    end)

    it("those that a regular expression matches as a whole", function()
      start { origins = { [[https://.*\.a\.example]], [[(.*[./])?b\.example]], [[^https?://c\.example(:[0-9]+)?$]] } }
      for _, origin in ipairs { "https://x.a.example", "http://y.b.example:99", "https://b.example",
        "https://c.example", "http://c.example:8080" } do
        assert.same({ origin, "Origin" }, { told(origin) })
      end
      for _, origin in ipairs { "http://x.a.example", "https://x.a.example.evil", "https://xb.example",
        "https://c.example.evil", "https://evil/?https://c.example" } do
        assert.same({ nil, "Origin" }, { told(origin) })
      end
    end)

    it("no origin that only begins like an alternative", function()
      start { origins = { [[https://a\.example|https://b\.example]] } }
      assert.equal("https://a.example", (told("https://a.example")))
      assert.equal("https://b.example", (told("https://b.example")))
      assert.is_nil((told("https://a.example.evil")))
    end)

    it("in place of what the service says", function()
      start({ origins = { "https://a.example", "https://b.example" } },
        { headers = { ["Access-Control-Allow-Origin"] = "*" } })
      assert.is_nil(get("https://c.example")["access-control-allow-origin"])
      assert.equal("https://a.example", get("https://a.example")["access-control-allow-origin"])
    end)
  end)

  describe("with credentials", function()
    it("allows them, and names the client's origin in place of *", function()
      start { credentials = true }
      for _, headers in ipairs { get(APP), preflight(APP).headers } do
        assert.same({ APP, "true", "Origin" }, { headers["access-control-allow-origin"],
          headers["access-control-allow-credentials"], headers.vary })
      end
      local headers = get(nil)
      assert.equal("*", headers["access-control-allow-origin"])
      assert.is_nil(headers["access-control-allow-credentials"])
    end)

    it("allows them to none but allowed origins", function()
      start { credentials = true, origins = { "https://a.example", "https://b.example" } }
      assert.equal("true", get("https://a.example")["access-control-allow-credentials"])
      assert.is_nil(get("https://c.example")["access-control-allow-credentials"])
    end)
  end)

  it("exposes headers to requests, not to preflights", function()
    start { exposed_headers = { "x-a", "x-b" } }
    assert.equal("x-a,x-b", get(APP)["access-control-expose-headers"])
    assert.is_nil(preflight(APP).headers["access-control-expose-headers"])
  end)

  it("allows private networks to who asks, when told to", function()
    local asks = { ["Access-Control-Request-Private-Network"] = "true" }
    start { private_network = true }
    assert.equal("true", preflight(APP, asks).headers["access-control-allow-private-network"])
    assert.is_nil(preflight(APP).headers["access-control-allow-private-network"])
    start {}
    assert.is_nil(preflight(APP, asks).headers["access-control-allow-private-network"])
  end)

  it("adds Origin to what the service's answer varies by, once", function()
    local two = { origins = { "https://a.example", "https://b.example" } }
    start(two, { headers = { Vary = "Accept-Encoding" } })
    assert.equal("Accept-Encoding, Origin", get(APP).vary)
    for _, vary in ipairs { "Accept, origin", "Origin , Accept", "*" } do
      start(two, { headers = { Vary = vary } })
      assert.equal(vary, get(APP).vary)
    end
  end)

  it("tells nothing to requests without an origin when allow_origin_absent is off", function()
    start { allow_origin_absent = false, exposed_headers = { "x-a" } }
    local headers = get(nil)
    assert.is_nil(headers["access-control-allow-origin"])
    assert.is_nil(headers["access-control-expose-headers"])
    assert.equal("Origin", headers.vary) -- a cache must not give it to who has an origin
    assert.equal("*", get(APP)["access-control-allow-origin"])
  end)

  it("tells browsers of answers that are not the service's, too", function()
    gateway = spec.gateway { plugins = { { name = "cors" }, { name = "key-auth" } } }
    local response = gateway:get("/", { Origin = APP })
    assert.same({ 401, "*" }, { response.status, response.headers["access-control-allow-origin"] })
    assert.equal(200, preflight(APP).status)
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "cors", config = config } } })
    end

    it("with an origin that is no regular expression", function()
      assert.matches('config.origins[0]: expected "*", an origin or a regular expression (', problem {
        origins = { "*.example.com" } }, 1, true)
    end)

    it("with a method that is none", function()
      assert.matches("config.methods[0]: expected one of GET, HEAD", problem { methods = { "get" } }, 1, true)
    end)
  end)
end)
