-- SPDX-License-Identifier: Apache-2.0
-- What becomes of queued log entries when the gateway ends, and while their server is away: see sluice.queue.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

describe("queued log entries", function()
  local sink, gw

  before_each(function() sink = upstream.start() end)
  after_each(function()
    if gw then gw:stop() end
    sink:stop()
    gw = nil
  end)

  local function start(queue, port)
    gw = gateway.start {
      _format_version = "3.0",
      gateway = { workers = 1 },
      routes = { { name = "all", paths = { "/" }, plugins = {
        { name = "request-termination", config = { status_code = 200, message = "hello" } },
        { name = "http-log", config = { http_endpoint = "http://127.0.0.1:" .. (port or sink.port) .. "/log",
          queue = queue } },
      } } },
    }
  end

  local function logged()
    local count = 0
    for _, entry in ipairs(sink:stats("log").log) do
      if entry.target == "/log" then count = count + 1 end
    end
    return count
  end

  it("are sent at once when the gateway drains", function()
    start { max_batch_size = 100, max_coalescing_delay = 3600 }
    for i = 1, 3 do assert.equal(200, gw:get("/" .. i).status) end
    assert.equal(0, logged())
    gw.process:signal(15)
    assert.equal(0, gw.process:wait(10))
    assert.equal(1, logged())
  end)

  it("do not hold a gateway up that ends while their server is away, and are told of", function()
    start({ max_batch_size = 1 }, process.free_port())
    for i = 1, 20 do assert.equal(200, gw:get("/" .. i).status) end
    gw.process:signal(15)
    assert.equal(0, gw.process:wait(10))
    assert.matches("log entries dropped", gw:log(), 1, true)
  end)

  it("are bounded in memory while their server is away under load, slow nobody, and come when it is back", function()
    local port = process.free_port()
    start({ max_batch_size = 100, max_coalescing_delay = 0.01, max_entries = 500, max_retry_delay = 0.05 }, port)
    local client = assert(http.connect(gw.port))
    for i = 1, 2000 do assert.equal(200, assert(client:request { path = "/" .. i }).status) end
    client:close()
    local back = upstream.start(function(request, connection)
      connection:read_body()
      _G.got = (_G.got or 0) + (request.method == "POST" and select(2, request.body:gsub('"started_at"', "")) or 0)
      connection:respond(200, {}, tostring(_G.got))
    end, { port = port })
    local asked = assert(http.connect(port))
    process.wait_until(function()
      local response = assert(asked:request { path = "/count" })
      return tonumber(response.body) == 500, response.body
    end, 10, "500 entries at the server that came back")
    asked:close()
    back:stop()
  end)
end)
