-- SPDX-License-Identifier: Apache-2.0
-- Its configuration; what it does to streams is in spec/gateway/stream_plugins_spec.lua.
local spec = require "sluice.spec"

describe("connection-limiting refuses a configuration", function()
  local function problem(config, more)
    local plugin = { name = "connection-limiting", config = config }
    for key, value in pairs(more or {}) do plugin[key] = value end
    return select(2, spec.check { plugins = { plugin } })
  end

  it("without a limit", function()
    assert.matches("at least one of connections, second, minute or hour", problem {}, 1, true)
  end)

  it("with a limit that lets nobody in", function()
    assert.matches("config.connections: expected", problem { connections = 0 }, 1, true)
    assert.matches("config.second: expected an integer", problem { second = 1.5 }, 1, true)
  end)

  it("for something that streams do not have", function()
    assert.matches("config.limit_by: expected one of ip, service or route",
      problem { second = 1, limit_by = "header" }, 1, true)
  end)

  it("for requests", function()
    assert.matches("protocols[0]: expected one of tcp, tls or tls_passthrough",
      problem({ second = 1 }, { protocols = { "http" } }), 1, true)
  end)
end)
