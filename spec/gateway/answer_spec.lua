-- SPDX-License-Identifier: Apache-2.0
-- Answers that a plugin gives at once, at the end of a connection.
local gateway = require "spec.support.gateway"

describe("an answer at once", function()
  local gw

  setup(function()
    gw = gateway.start({ _format_version = "3.0", routes = { { name = "all", paths = { "/" } } },
      plugins = { { name = "request-termination", config = { status_code = 200, message = "done" } } } })
  end)
  teardown(function() gw:stop() end)

  local function ask(head, rest)
    local client = gw:connect()
    client:send(head .. "\r\nHost: a\r\nConnection: close\r\n" .. (rest or "\r\n"))
    local response = client:read_response("GET")
    local closed = client:closes_within(5)
    client:close()
    return response and response.status, closed
  end

  it("to a request that is the last of its connection costs no worker", function()
    local worker = gw:workers()[1]
    for _ = 1, 20 do assert.same({ 200, true }, { ask("GET / HTTP/1.1") }) end
    assert.equal(worker, gw:workers()[1])
  end)

  it("costs none when content or another request came with it", function()
    local worker = gw:workers()[1]
    for _ = 1, 20 do
      assert.same({ 200, true }, { ask("POST / HTTP/1.1", "Content-Length: 5\r\n\r\nhello") })
      assert.same({ 200, true }, { ask("GET / HTTP/1.1", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") })
    end
    assert.equal(worker, gw:workers()[1])
  end)
end)
