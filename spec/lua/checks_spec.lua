-- SPDX-License-Identifier: Apache-2.0
-- Active health checks against the real core, with services, DNS and a clock that the spec plays.
local spec = require "sluice.spec"

describe("active checks", function()
  local gateway

  local function upstream(active, targets, more)
    local it = { name = "up", targets = targets or { { target = "10.0.0.1:80" }, { target = "10.0.0.2:80" } },
      healthchecks = { active = active } }
    for key, value in pairs(more or {}) do it[key] = value end
    return it
  end

  local function checking(more)
    local active = { healthy = { interval = 2, successes = 1 },
      unhealthy = { interval = 1, http_failures = 1, tcp_failures = 1, timeouts = 1 } }
    for key, value in pairs(more or {}) do active[key] = value end
    return active
  end

  local function start(active, services, targets, more)
    local upstreams = { upstream(active, targets, more and more.upstream) }
    for name, answer in pairs(services or {}) do upstreams[name] = answer end
    gateway = spec.gateway { upstreams = upstreams, services = { { name = "s", host = "up",
      routes = { { paths = { "/" } } } } }, dns = more and more.dns }
    gateway:advance(0.01)
    return gateway
  end

  local function places(times)
    local found = {}
    for _ = 1, times or 6 do
      local response = gateway:get("/traffic")
      local key = response.status == 200 and response.body or response.status
      found[key] = (found[key] or 0) + 1
    end
    return found
  end

  -- What a service got, but for the spec's own requests.
  local function checks_of(name)
    local list = {}
    for _, request in ipairs(gateway:requests(name)) do
      if request.path ~= "/traffic" then list[#list + 1] = request end
    end
    return list
  end

  local function health()
    return gateway:request({ listener = "status", path = "/upstreams/up/health" }).json.data
  end

  it("take a target out that answers badly, and back when it answers well", function()
    start(checking(), { ["10.0.0.1:80"] = { status = 500 }, ["10.0.0.2:80"] = { body = "2" } })
    assert.same({ ["2"] = 6 }, places())
    gateway:upstream("10.0.0.1:80", { body = "1" })
    gateway:advance(1.2)
    assert.same({ ["1"] = 3, ["2"] = 3 }, places())
  end)

  it("come each interval of the state that the target is in", function()
    start(checking(), { ["10.0.0.1:80"] = { status = 500 }, ["10.0.0.2:80"] = { body = "2" } })
    gateway:advance(10)
    local bad, good = #checks_of("10.0.0.1:80"), #checks_of("10.0.0.2:80")
    assert.is_true(bad >= 9 and bad <= 12, bad)
    assert.is_true(good >= 5 and good <= 6, good)
  end)

  it("leave a target alone whose state has no interval", function()
    start(checking { healthy = { interval = 0, successes = 1 } }, { ["10.0.0.1:80"] = { body = "1" } })
    gateway:advance(10)
    assert.equal(0, #checks_of("10.0.0.1:80"))
  end)

  it("count as many in a row as they are told", function()
    local active = checking { healthy = { interval = 1, successes = 2 },
      unhealthy = { interval = 1, http_failures = 3 } }
    start(active, { ["10.0.0.1:80"] = { status = 500 }, ["10.0.0.2:80"] = { body = "2" } })
    gateway:advance(1)
    assert.equal(3, places()[500])
    gateway:advance(1.2)
    assert.is_nil(places()[500])
    gateway:upstream("10.0.0.1:80", { body = "1" })
    gateway:advance(0.9)
    assert.is_nil(places()["1"])
    gateway:advance(1.2)
    assert.equal(3, places()["1"])
  end)

  it("ask for http_path with headers, by the target's name or the upstream's", function()
    start(checking { http_path = "/ready", headers = { ["X-Check"] = { "a", "b" } } })
    local request = checks_of("10.0.0.1:80")[1]
    assert.same({ "GET", "/ready", "10.0.0.1", "a, b" },
      { request.method, request.path, request.headers.host, request.headers["x-check"] })
    gateway:close()
    start(checking(), nil, nil, { upstream = { host_header = "inner.example" } })
    assert.equal("inner.example", checks_of("10.0.0.1:80")[1].headers.host)
  end)

  it("go by the statuses that are configured, and by no others", function()
    local active = checking { healthy = { interval = 1, successes = 1, http_statuses = { 204 } },
      unhealthy = { interval = 1, http_failures = 1, http_statuses = { 418 } } }
    start(active, { ["10.0.0.1:80"] = { status = 500 }, ["10.0.0.2:80"] = { body = "2" } })
    gateway:advance(3)
    assert.equal(3, places()[500])
    gateway:upstream("10.0.0.1:80", { status = 418 })
    gateway:advance(1.2)
    assert.is_nil(places()[418])
    gateway:upstream("10.0.0.1:80", { status = 200, body = "1" })
    gateway:advance(3)
    assert.is_nil(places()["1"])
    gateway:upstream("10.0.0.1:80", { status = 204 })
    gateway:advance(1.2)
    assert.equal(3, places()[204])
  end)

  it("tell connections that fail from answers that do not come", function()
    start(checking { unhealthy = { interval = 1, tcp_failures = 1 } },
      { ["10.0.0.1:80"] = { refuse = true }, ["10.0.0.2:80"] = { hang = true } })
    gateway:advance(3)
    assert.equal("UNHEALTHY", health()[1].health)
    assert.equal("HEALTHY", health()[2].health)
    gateway:close()
    start(checking { timeout = 0.5, unhealthy = { interval = 1, timeouts = 1 } },
      { ["10.0.0.1:80"] = { refuse = true }, ["10.0.0.2:80"] = { hang = true } })
    gateway:advance(3)
    assert.equal("HEALTHY", health()[1].health)
    assert.equal("UNHEALTHY", health()[2].health)
  end)

  it("of type tcp only connect", function()
    start(checking { type = "tcp" }, { ["10.0.0.1:80"] = { refuse = true }, ["10.0.0.2:80"] = { status = 500 } })
    assert.equal("UNHEALTHY", health()[1].health)
    assert.equal("HEALTHY", health()[2].health)
    assert.same({}, checks_of("10.0.0.2:80"))
  end)

  it("of type https speak TLS, and verify unless told otherwise", function()
    start(checking { type = "https" }, { ["10.0.0.1:80"] = { body = "1" } }, { { target = "10.0.0.1:80" } })
    assert.equal("UNHEALTHY", health()[1].health)
    gateway:close()
    start(checking { type = "https", https_verify_certificate = false, https_sni = "inner.example" },
      { ["10.0.0.1:80"] = { body = "1" } }, { { target = "10.0.0.1:80" } })
    assert.equal("HEALTHY", health()[1].health)
    assert.equal(1, #checks_of("10.0.0.1:80"))
  end)

  it("follow the addresses of a name", function()
    start(checking(), { ["10.1.0.1:80"] = { body = "1" }, ["10.1.0.2:80"] = { status = 500 },
      ["10.1.0.3:80"] = { body = "3" } }, { { target = "name.example:80" } },
      { dns = { ["name.example"] = { "10.1.0.1", "10.1.0.2" } } })
    assert.same({ ["1"] = 6 }, places())
    local target = health()[1]
    assert.equal("HEALTHY", target.health)
    local one, other = unpack(target.data.addresses)
    assert.same({ "10.1.0.1", "HEALTHY", "10.1.0.2", "UNHEALTHY" }, { one.ip, one.health, other.ip, other.health })
    gateway:dns { ["name.example"] = { "10.1.0.3" } }
    gateway:advance(7)
    assert.same({ ["3"] = 6 }, places())
    local before = #checks_of("10.1.0.1:80")
    gateway:advance(10)
    assert.equal(before, #checks_of("10.1.0.1:80"))
  end)

  it("say when a name has no address", function()
    start(checking(), nil, { { target = "gone.example:80" } }, { dns = { ["gone.example"] = false } })
    assert.equal("DNS_ERROR", health()[1].health)
  end)

  it("end with their configuration", function()
    start(checking(), { ["10.0.0.1:80"] = { status = 500 }, ["10.0.0.2:80"] = { body = "2" } })
    assert(gateway:reload { upstreams = { upstream(nil) } })
    gateway:advance(2)
    local before = #checks_of("10.0.0.1:80")
    gateway:advance(10)
    assert.equal(before, #checks_of("10.0.0.1:80"))
    assert.equal("HEALTHCHECKS_OFF", health()[1].health)
    assert.equal(3, places()[500])
  end)

  it("are never more at once than concurrency says", function()
    local targets, services = {}, {}
    for i = 1, 6 do
      targets[i] = { target = "10.0.0." .. i .. ":80" }
      services["10.0.0." .. i .. ":80"] = { hang = true }
    end
    start(checking { concurrency = 2, timeout = 1 }, services, targets)
    local function begun()
      local count = 0
      for i = 1, 6 do count = count + math.min(#checks_of("10.0.0." .. i .. ":80"), 1) end
      return count
    end
    gateway:advance(0.5)
    assert.equal(2, begun())
    gateway:advance(3)
    assert.equal(6, begun())
  end)
end)
