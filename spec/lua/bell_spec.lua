-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

describe("a bell", function()
  -- Requests wait for it or ring it.
  local function start()
    return spec.gateway { plugins = { { name = "bells" } }, plugins_code = { bells = [[
      local bell = require("sluice.bell").new()
      return { version = "1", priority = 1, access = function(_, exchange)
        local seconds = exchange.request:get_query_arg("wait")
        if not seconds then
          bell:ring()
          exchange.response:exit(204)
        end
        exchange.response:exit(200, tostring(bell:wait(tonumber(seconds))))
      end }
    ]] } }
  end

  it("lets all go on that wait for it", function()
    local gateway = start()
    local one, two = gateway:send "/?wait=10", gateway:send "/?wait=10"
    assert.is_nil(one:received())
    gateway:get "/"
    assert.same({ "true", "true" }, { one:receive(0.1).body, two:receive(0.1).body })
  end)

  it("keeps a ring for the next one, once", function()
    local gateway = start()
    gateway:get "/"
    gateway:get "/"
    assert.equal("true", gateway:send("/?wait=10"):receive(0.1).body)
    assert.equal("false", gateway:send("/?wait=10"):receive(10.1).body)
  end)

  it("is not rung by time", function()
    local gateway = start()
    assert.equal("false", gateway:get("/?wait=0").body)
    local pending = gateway:send "/?wait=3"
    gateway:advance(2.9)
    assert.is_nil(pending:received())
    assert.equal("false", pending:receive(0.2).body)
  end)
end)
