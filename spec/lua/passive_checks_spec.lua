-- SPDX-License-Identifier: Apache-2.0
-- What tries say of their targets: passive health checks, against the real core with services that the spec plays.
local spec = require "sluice.spec"

describe("passive checks", function()
  local gateway

  local function start(passive, answers, more)
    local upstream = { name = "up", targets = {}, healthchecks = { passive = passive } }
    local upstreams = { upstream }
    for i, answer in ipairs(answers) do
      local address = "10.0.0." .. i .. ":80"
      upstream.targets[i] = { target = address }
      upstreams[address] = answer
    end
    local service = { name = "s", host = "up", retries = 0, read_timeout = 2000, connect_timeout = 1000,
      routes = { { name = "r", paths = { "/" } } } }
    for key, value in pairs(more and more.service or {}) do service[key] = value end
    for key, value in pairs(more and more.upstream or {}) do upstream[key] = value end
    gateway = spec.gateway { upstreams = upstreams, services = { service }, dns = more and more.dns }
    return gateway
  end

  local function health()
    local words = {}
    local data = gateway:request({ listener = "status", path = "/upstreams/up/health" }).json.data
    for i, target in ipairs(data) do words[i] = target.health end
    return words
  end

  local function ask(times, request)
    for _ = 1, times do pcall(gateway.request, gateway, request or { path = "/" }) end -- some break off
  end

  it("count answers that do not come", function()
    start({ unhealthy = { timeouts = 2 } }, { { hang = true }, { body = "2" } })
    ask(2)
    assert.same({ "HEALTHY", "HEALTHY" }, health())
    ask(2)
    assert.same({ "UNHEALTHY", "HEALTHY" }, health())
  end)

  it("count connections that come to nothing", function()
    start({ unhealthy = { timeouts = 1 } }, { { silent = true }, { body = "2" } })
    ask(2)
    assert.same({ "UNHEALTHY", "HEALTHY" }, health())
    gateway:close()
    start({ unhealthy = { tcp_failures = 2 } }, { { close = true }, { body = "2" } })
    ask(4)
    assert.same({ "UNHEALTHY", "HEALTHY" }, health())
  end)

  it("count responses that are none, or break off", function()
    for _, text in ipairs { "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" } do
      start({ unhealthy = { tcp_failures = 1 } }, { { raw = text }, { body = "2" } })
      ask(2)
      assert.same({ "UNHEALTHY", "HEALTHY" }, health())
      gateway:close()
    end
  end)

  it("do not count a connection that had been idle", function()
    start({ unhealthy = { tcp_failures = 1 } }, { { { body = "1" }, { close = true }, { body = "1" } } },
      { service = { retries = 1 } })
    ask(1)
    ask(1) -- the kept connection is closed under it; a new one serves
    assert.same({ "HEALTHY" }, health())
  end)

  it("do not count what clients or the gateway do", function()
    start({ unhealthy = { tcp_failures = 1, timeouts = 1, http_failures = 1 } }, { { delay = 1, body = "1" } })
    local client = gateway:connect()
    client:send_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    gateway:advance(0.1)
    client:close()
    gateway:advance(2)
    assert.same({ "HEALTHY" }, health())
  end)

  it("go by statuses in the two lists, and by no others", function()
    local passive = { healthy = { successes = 1, http_statuses = { 200 } },
      unhealthy = { http_failures = 2, http_statuses = { 500 } } }
    start(passive, { { { status = 500 }, { status = 404 }, { status = 500 }, { body = "fine" } } })
    ask(3) -- 404 neither counts nor ends the row
    assert.same({ "UNHEALTHY" }, health())
    gateway:close()
    start(passive, { { { status = 500 }, { status = 200 }, { status = 500 }, { body = "fine" } } })
    ask(3)
    assert.same({ "HEALTHY" }, health())
  end)

  it("of type tcp take any answer for a success", function()
    start({ type = "tcp", unhealthy = { http_failures = 1, tcp_failures = 1 } },
      { { status = 500 }, { refuse = true } })
    ask(4)
    assert.same({ "HEALTHY", "UNHEALTHY" }, health())
  end)

  it("take out one address of a name, and not the others", function()
    gateway = spec.gateway { upstreams = { { name = "up", targets = { { target = "name.example:80" } },
      healthchecks = { passive = { unhealthy = { http_failures = 1 } } } }, ["10.1.0.1:80"] = { status = 500 },
      ["10.1.0.2:80"] = { body = "2" } }, services = { { name = "s", host = "up", routes = { { paths = { "/" } } } } },
      dns = { ["name.example"] = { "10.1.0.1", "10.1.0.2" } } }
    ask(2)
    for _ = 1, 6 do assert.equal("2", gateway:get("/").body) end
    local data = gateway:request({ listener = "status", path = "/upstreams/up/health" }).json.data[1]
    assert.equal("HEALTHY", data.health)
    assert.same({ "UNHEALTHY", "HEALTHY" }, { data.data.addresses[1].health, data.data.addresses[2].health })
    gateway:upstream("10.1.0.2:80", { status = 500 })
    ask(1)
    assert.equal(503, gateway:get("/").status)
  end)

  describe("of gRPC", function()
    local function call(times)
      ask(times, { path = "/a.B/C", method = "POST", body = "\0\0\0\0\0",
        headers = { ["Content-Type"] = "application/grpc" } })
    end

    local function answering(status, in_trailers)
      local fields = { ["Content-Type"] = "application/grpc" }
      if not in_trailers then
        fields["grpc-status"] = status
        return { headers = fields }
      end
      return { headers = fields, chunks = { "\0\0\0\0\0" }, trailers = { ["grpc-status"] = status } }
    end

    for _, where in ipairs { "head", "trailers" } do
      for status, counts in pairs { ["0"] = false, ["2"] = true, ["5"] = false, ["13"] = true, ["14"] = true,
        ["16"] = false } do
        local what = counts and "count a call" or "do not count a call"
        it(("%s with %s in its %s"):format(what, status, where), function()
          start({ unhealthy = { http_failures = 1 } }, { answering(status, where == "trailers") })
          call(1)
          assert.same({ counts and "UNHEALTHY" or "HEALTHY" }, health())
        end)
      end
    end

    it("count a call that ends without any", function()
      start({ unhealthy = { http_failures = 1 } }, { { headers = { ["Content-Type"] = "application/grpc" },
        body = "\0\0\0\0\0" } })
      call(1)
      assert.same({ "UNHEALTHY" }, health())
    end)
  end)
end)
