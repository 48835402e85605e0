-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

describe("proxy-mirror", function()
  local gateway

  local function start(config, extra)
    config = config or {}
    config.host = config.host or "http://mirror.example:8080"
    local options = { plugins = { { name = "proxy-mirror", config = config } },
      upstreams = { ["service.example"] = { body = "service" }, ["mirror.example"] = { body = "mirror" } } }
    for name, value in pairs(extra or {}) do
      if name == "plugins" then
        for _, plugin in ipairs(value) do table.insert(options.plugins, plugin) end
      elseif name == "upstreams" then
        for key, upstream in pairs(value) do options.upstreams[key] = upstream end
      else
        options[name] = value
      end
    end
    gateway = spec.gateway(options)
  end

  local function copies()
    gateway:advance(0.01)
    return gateway:requests("mirror.example")
  end

  local function counted(outcome)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match('sluice_mirror_copies_total{host="[^"]*",outcome="' .. outcome .. '"} (%d+)'))
  end

  it("sends a copy and gives the client the service's answer", function()
    start()
    local response = gateway:get("/a/b?x=1", { ["X-Own"] = "1" })
    assert.equal("service", response.body)
    local copy = copies()[1]
    assert.same({ "GET", "/a/b", "x=1", "1", 8080, "mirror.example:8080" },
      { copy.method, copy.path, copy.query, copy.headers["x-own"], copy.port, copy.headers.host })
    assert.equal(1, #copies())
  end)

  it("marks copies with the id of the request, and tells who the client is", function()
    start()
    gateway:request { path = "/", client_ip = "10.1.1.1", headers = { ["X-Forwarded-For"] = "1.1.1.1" } }
    local copy = copies()[1]
    assert.matches("^%x+$", copy.headers["x-mirrored"])
    assert.equal("1.1.1.1, 10.1.1.1", copy.headers["x-forwarded-for"])
    assert.is_nil(gateway:requests("service.example")[1].headers["x-mirrored"])
    start { mark = "X-Shadow" }
    gateway:get("/")
    assert.is_string(copies()[1].headers["x-shadow"])
    start { mark = "" }
    gateway:get("/")
    assert.is_nil(copies()[1].headers["x-mirrored"])
  end)

  describe("with a body", function()
    it("sends a copy of it", function()
      start()
      gateway:post("/", { a = 1 })
      assert.same({ "POST", { a = 1 } }, { copies()[1].method, copies()[1].json })
      assert.same({ a = 1 }, gateway:requests("service.example")[1].json)
    end)

    it("sends one that came in pieces", function()
      start()
      gateway:request { method = "PUT", path = "/", chunks = { "abc", "def", "ghi" } }
      assert.equal("abcdefghi", copies()[1].body)
      assert.equal("abcdefghi", gateway:requests("service.example")[1].body)
    end)

    it("sends what another plugin has made of it", function()
      start(nil, { plugins = { { name = "request-transformer", config = { add = { body = { "b:2" } } } } } })
      gateway:request { method = "POST", path = "/", body = '{"a":1}', headers = { ["Content-Type"] =
        "application/json" } }
      assert.equal("2", copies()[1].json.b)
    end)

    it("does not wait for it: the service gets what has come", function()
      start(nil, { upstreams = { ["service.example"] = { body = "early" } } })
      local connection = gateway:connect()
      connection:send_bytes("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
      assert.equal(0, #copies())
      connection:send_bytes("def")
      assert.equal(200, connection:receive().status)
      assert.equal("abcdef", copies()[1].body)
    end)

    it("sends none of a request that was never whole", function()
      start(nil, { plugins = { { name = "prometheus" } } })
      local connection = gateway:connect()
      connection:send_bytes("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
      connection:close()
      assert.equal(0, #copies())
      assert.equal(1, counted("incomplete"))
    end)

    it("sends none that is too long, told or not", function()
      start({ max_body = 5 }, { plugins = { { name = "prometheus" } } })
      assert.equal(200, gateway:post("/", "123456").status)
      assert.equal(200, gateway:request { method = "PUT", path = "/", chunks = { "123", "456" } }.status)
      assert.equal(0, #copies())
      assert.equal(2, counted("too_large"))
      gateway:post("/", "12345")
      assert.equal(1, #copies())
      assert.equal("123456", gateway:requests("service.example")[1].body)
    end)
  end)

  describe("changes the path:", function()
    it("another one", function()
      start { path = "/shadow" }
      gateway:get("/a?x=1")
      assert.same({ "/shadow", "x=1" }, { copies()[1].path, copies()[1].query })
    end)

    it("one in front", function()
      start { path = "/shadow/", path_concat_mode = "prefix" }
      gateway:get("/a")
      assert.equal("/shadow/a", copies()[1].path)
    end)

    it("one in the host", function()
      start { host = "http://mirror.example/base/" }
      gateway:get("/a")
      assert.equal("/base/a", copies()[1].path)
    end)
  end)

  it("goes where the service's request goes, as other plugins have made it", function()
    start(nil, { plugins = { { name = "request-transformer", config = { replace = { uri = "/else" },
      add = { headers = { "X-New:1" }, querystring = { "q:2" } } } } } })
    gateway:get("/a")
    assert.same({ "/else", "1", "q=2" }, { copies()[1].path, copies()[1].headers["x-new"], copies()[1].query })
  end)

  it("speaks TLS, and sends the client's Host when it is told", function()
    start { host = "https://mirror.example", tls_verify = false, preserve_host = true }
    gateway:request { path = "/", headers = { Host = "shop.example" } }
    assert.same({ 443, "shop.example" }, { copies()[1].port, copies()[1].headers.host })
  end)

  it("copies a share", function()
    start { sample_ratio = 0.25 }
    for _ = 1, 200 do gateway:get("/") end
    local found = #copies()
    assert.is_true(found > 25 and found < 80, found)
    start { sample_ratio = 0 }
    gateway:get("/")
    assert.equal(0, #copies())
  end)

  it("goes with a condition", function()
    local plugin = { name = "proxy-mirror", config = { host = "http://mirror.example" }, when = 'http.path == "/a"' }
    gateway = spec.gateway { plugins = { plugin } }
    gateway:get("/b")
    gateway:get("/a")
    assert.equal(1, #copies())
  end)

  describe("with a mirror that", function()
    it("hangs: no request waits, and no more copies are held than may be", function()
      start({ max_in_flight = 3, timeout = 5000 }, { upstreams = { ["mirror.example"] = { hang = true } },
        plugins = { { name = "prometheus" } } })
      local began = gateway:now()
      for _ = 1, 10 do assert.equal("service", gateway:get("/").body) end
      assert.is_true(gateway:now() - began < 1)
      assert.equal(3, #copies())
      assert.equal(7, counted("dropped"))
      gateway:advance(6)
      assert.equal(3, counted("failed"))
      gateway:get("/")
      assert.equal(4, #copies())
    end)

    it("refuses", function()
      start(nil, { upstreams = { ["mirror.example"] = { refuse = true } }, plugins = { { name = "prometheus" } } })
      assert.equal("service", gateway:get("/").body)
      gateway:advance(1)
      assert.equal(1, counted("failed"))
    end)

    it("fails", function()
      start(nil, { upstreams = { ["mirror.example"] = { status = 500 } }, plugins = { { name = "prometheus" } } })
      assert.equal(200, gateway:get("/").status)
      gateway:advance(1)
      assert.equal(1, counted("sent"))
    end)
  end)

  it("holds no more bytes of bodies than may be", function()
    start({ max_memory = 10 }, { upstreams = { ["mirror.example"] = { hang = true } },
      plugins = { { name = "prometheus" } } })
    for _ = 1, 3 do assert.equal(200, gateway:post("/", "12345").status) end
    assert.equal(2, #copies())
    assert.equal(1, counted("dropped"))
  end)

  it("has room again for each copy that has ended", function()
    start { max_in_flight = 1, max_memory = 10 }
    for n = 1, 5 do
      gateway:post("/", "1234567890")
      assert.equal(n, #copies())
    end
  end)

  it("leaves conversations alone", function()
    start(nil, { upstreams = { ["service.example"] = { websocket = true } } })
    local socket = gateway:websocket("/")
    socket:send("hello")
    assert.equal("hello", socket:receive().data)
    assert.equal(0, #copies())
  end)

  describe("refuses", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "proxy-mirror", config = config } } })
    end

    it("a host that is none", function()
      assert.matches("config.host: expected a URL", problem { host = "mirror.example" }, 1, true)
      assert.matches("config.host: expected a URL of http or https without a query",
        problem { host = "ftp://mirror.example" }, 1, true)
      assert.matches("config.host: expected a string, found nothing", problem {}, 1, true)
    end)

    it("shares and bounds that are none", function()
      assert.matches("config.sample_ratio: expected a number from 0 to 1", problem { host = "http://a",
        sample_ratio = 2 }, 1, true)
      assert.matches("config.max_in_flight: expected an integer from 1", problem { host = "http://a",
        max_in_flight = 0 }, 1, true)
      assert.matches("config.path: expected a path", problem { host = "http://a", path = "a" }, 1, true)
    end)
  end)
end)
