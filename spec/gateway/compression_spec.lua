-- SPDX-License-Identifier: Apache-2.0
-- Content codings over real connections: what comes in pieces, what is long, clients that leave.
local codings = require "spec.support.codings"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local http2 = require "spec.support.http2"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

describe("compression of responses", function()
  local gw, up

  setup(function()
    up = upstream.start(function(request, connection)
      local what, number = request.target:match("^/(%w+)/?(%d*)")
      if what == "events" then
        connection:begin(200, { ["Content-Type"] = "text/event-stream" })
        connection:chunk("data: first\n\n")
        connection:receive(10) -- nothing more comes before the gateway has gone
      elseif what == "long" then
        connection:respond(200, { ["Content-Type"] = "text/plain" }, ("0123456789abcdef"):rep(tonumber(number)))
      elseif what == "cut" then
        connection:send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 50000\r\n\r\n")
        connection:send(("x"):rep(20000))
        connection:close()
      end
    end)
    gw = gateway.start({ _format_version = "3.0", plugins = { { name = "compression" } },
      services = { { name = "s", url = up:url(), routes = { { name = "r", paths = { "/" } } } } } }, { http2 = true })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  for name, decode in pairs(codings) do
    it("lets an event in " .. name .. " be read before the next one comes", function()
      local client = assert(http.connect(gw.port))
      client:send(http.format({ path = "/events", headers = { ["Accept-Encoding"] = name } }, "x"))
      local head = assert(client:read_head())
      assert.equal(name, head.headers["content-encoding"])
      local coded = ""
      process.wait_until(function()
        local size = tonumber(client.socket:receive_line() or "0", 16)
        coded = coded .. (client.socket:receive_exact(size) or "")
        client.socket:receive_line()
        return (decode(coded)) == "data: first\n\n"
      end, 5, "the event")
      client:close()
    end)

    it("passes a long answer in " .. name .. " over HTTP/1.1, HTTP/1.0 and HTTP/2", function()
      local text, headers = ("0123456789abcdef"):rep(100000), { ["Accept-Encoding"] = name }
      for _, version in ipairs { "1.1", "1.0" } do
        local response = http.request(gw.port, { path = "/long/100000", version = version, headers = headers })
        local got, whole = decode(response.body)
        assert.is_true(whole and got == text, version)
      end
      local client = assert(http2.connect(gw.port))
      local stream = client:wait(client:request { path = "/long/100000", headers = { ["accept-encoding"] = name } })
      assert.equal(name, stream.headers["content-encoding"])
      local got, whole = decode(stream.body)
      assert.is_true(whole and got == text)
      client:close()
    end)
  end

  it("does not end as whole what the service has cut off", function()
    local client = assert(http.connect(gw.port))
    local response, why = client:request { path = "/cut", headers = { ["Accept-Encoding"] = "gzip" } }
    assert.is_nil(response)
    assert.truthy(why)
    client:close()
  end)

  it("outlives clients that leave in the middle", function()
    for _, name in ipairs { "gzip", "br", "zstd" } do
      for _ = 1, 5 do
        local client = assert(http.connect(gw.port))
        client:send(http.format({ path = "/long/100000", headers = { ["Accept-Encoding"] = name } }, "x"))
        client:read_head()
        client:close()
      end
    end
    assert.equal(200, http.get(gw.port, "/long/5").status)
  end)
end)
