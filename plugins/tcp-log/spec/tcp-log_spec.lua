-- SPDX-License-Identifier: Apache-2.0
-- Its configuration; what it does to servers is in spec/gateway/tcp_log_spec.lua.
local spec = require "sluice.spec"

describe("tcp-log refuses a configuration", function()
  local function refused(config)
    config.host, config.port = config.host or "logs.example", config.port or 514
    local ok, err = spec.check { plugins = { { name = "tcp-log", config = config } } }
    assert.is_nil(ok)
    return err
  end

  it("that is wrong, and says where", function()
    assert.matches("config.host: expected", refused { host = "not a host" }, 1, true)
    assert.matches("config.port: expected", refused { port = 65536 }, 1, true)
    assert.matches("config.timeout: expected a number", refused { timeout = "x" }, 1, true)
    assert.matches("config.keepalive: expected a number", refused { keepalive = "x" }, 1, true)
    assert.matches("config.tls: expected a boolean", refused { tls = "x" }, 1, true)
    assert.matches("config.tls_sni: expected a string", refused { tls_sni = 1 }, 1, true)
    assert.matches("config.ssl_verify: expected a boolean", refused { ssl_verify = 1 }, 1, true)
    assert.matches("config.queue.max_entries: expected", refused { queue = { max_entries = 0 } }, 1, true)
    assert.matches("config.custom_fields_by_lua.a: expected Lua code",
      refused { custom_fields_by_lua = { a = "return return" } }, 1, true)
  end)

  it("without a host or a port", function()
    local err = select(2, spec.check { plugins = { { name = "tcp-log", config = {} } } })
    assert.matches("config.host: expected", err, 1, true)
    assert.matches("config.port: expected", err, 1, true)
  end)
end)
