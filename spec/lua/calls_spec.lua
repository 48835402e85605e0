-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

-- A plugin that calls its service with what a request to its other route says.
local CALLER = [[
  local calls = require "sluice.calls"
  local sluice = require "sluice"
  local confs, at
  return {
    version = "1", priority = 1, calls_service = true,
    configure = function(all) confs = all end,
    access = function(_, exchange)
      if exchange.request:get_path() ~= "/ask" then return end -- it stands at the service, too
      for _, conf in ipairs(confs) do
        if calls.service(conf) then at = conf end
      end
      local request = sluice.json.decode(exchange.request:get_raw_body())
      local response, err, code = calls.call(at, request)
      exchange.response:exit(200, response or { err = err, code = code })
    end,
  }
]]

describe("a plugin's call of its service", function()
  local gateway

  -- The plugin stands at the service; a route without one is where the spec asks for calls.
  local function start(service, more)
    local at = { name = "billing", url = "http://billing.example/base", retries = 0 }
    for name, value in pairs(service or {}) do at[name] = value end
    local options = {
      services = { at },
      routes = { { name = "ask", paths = { "/ask" }, plugins = { { name = "caller" } } } },
      plugins = { { name = "caller", service = "billing" } },
      plugins_code = { caller = CALLER },
    }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  local function call(request)
    return gateway:post("/ask", request or {}).json
  end

  it("is a request behind the service's path, with its host", function()
    start()
    local response = call { method = "PUT", path = "/orders/7?a=b", headers = { { "X-Mine", "1" } }, body = "content" }
    assert.same({ 200, true, false }, { response.status, response.by_service, response.truncated })
    local seen = gateway:requests("billing.example")[1]
    assert.same({ "PUT", "/base/orders/7", "a=b", "billing.example", "1", "content", "7" },
      { seen.method, seen.path, seen.query, seen.headers.host, seen.headers["x-mine"], seen.body,
        seen.headers["content-length"] })
  end)

  it("has no content unless it is given one", function()
    start()
    call()
    local seen = gateway:requests("billing.example")[1]
    assert.same({ "GET", "/base" }, { seen.method, seen.path })
    assert.is_nil(seen.headers["content-length"])
  end)

  it("gives status, fields and content of the response", function()
    start(nil, { upstreams = { ["*"] = { status = 404, headers = { ["X-Why"] = "none" }, body = "no such order" } } })
    local response = call()
    assert.same({ 404, "none", "no such order" }, { response.status, response.headers["x-why"], response.body })
  end)

  it("keeps as much of the content as it is told to", function()
    start(nil, { upstreams = { ["*"] = { body = ("x"):rep(100000) } } })
    assert.equal(100000, #call().body)
    local response = call { max_body = 1000 }
    assert.is_true(response.truncated)
    assert.is_true(#response.body <= 1000)
  end)

  it("goes through the plugins of the service and the global ones, in all phases", function()
    start(nil, { plugins = {
      { name = "caller", service = "billing" },
      { name = "request-transformer", service = "billing", config = { add = { headers = { "x-added:yes" } } } },
      { name = "response-transformer", config = { add = { headers = { "x-back:yes" } } } },
      { name = "correlation-id", config = { header_name = "x-id" } },
    } })
    local response = call()
    local seen = gateway:requests("billing.example")[1]
    assert.equal("yes", seen.headers["x-added"])
    assert.is_string(seen.headers["x-id"])
    assert.equal("yes", response.headers["x-back"])
  end)

  it("may be answered by such a plugin", function()
    start(nil, { plugins = { { name = "caller", service = "billing" },
      { name = "request-termination", service = "billing", config = { status_code = 503, message = "closed" } } } })
    local response = call()
    assert.same({ 503, false }, { response.status, response.by_service })
    assert.equal(0, #gateway:requests("billing.example"))
  end)

  it("is balanced over the upstream's targets, and tried again as often as the service says", function()
    gateway = spec.gateway {
      config = [[
_format_version: "3.0"
services:
- { name: billing, host: pool, retries: 3, plugins: [{ name: caller }] }
routes:
- { name: ask, paths: [/ask], plugins: [{ name: caller }] }
upstreams:
- name: pool
  targets: [{ target: "10.0.0.1:80" }, { target: "10.0.0.2:80" }]
]],
      plugins_code = { caller = CALLER },
      upstreams = { ["10.0.0.1"] = { refuse = true }, ["10.0.0.2"] = "well" },
    }
    for _ = 1, 4 do assert.equal("well", call({ method = "POST", body = "x" }).body) end
  end)

  it("says when the service cannot be reached", function()
    start(nil, { upstreams = { ["*"] = { refuse = true } } })
    local response = call()
    assert.same({ 502, false }, { response.status, response.by_service })
  end)

  it("ends after its time", function()
    start(nil, { upstreams = { ["*"] = { hang = true } } })
    local pending = gateway:send { method = "POST", path = "/ask", body = { timeout = 2 } }
    gateway:advance(1.9)
    assert.is_nil(pending:received())
    assert.equal("timeout", pending:receive(0.2).json.code)
  end)

  it("says when a response breaks off", function()
    local short = { raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", close = true }
    start(nil, { upstreams = { ["*"] = short } })
    assert.equal("failed", call().code)
  end)

  it("is not to be had by a client: the way has no path", function()
    start()
    assert.equal(404, gateway:get("/").status)
    assert.equal(404, gateway:get("/base/").status)
  end)

  it("is that of the running configuration", function()
    start()
    gateway:reload { services = { { name = "billing", url = "http://other.example", retries = 0 } } }
    assert.equal(200, call().status)
    assert.equal(1, #gateway:requests("other.example"))
  end)

  it("is refused to an instance that is gone", function()
    start()
    call()
    gateway:reload { plugins = {} }
    assert.equal("gone", call().code)
  end)
end)
