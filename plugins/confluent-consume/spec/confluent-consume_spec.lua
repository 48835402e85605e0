-- SPDX-License-Identifier: Apache-2.0
-- kafka-consume under another name: what differs is the login. See also spec/kafka/secure_spec.lua.
local spec = require "sluice.spec"

describe("confluent-consume", function()
  local function config(more)
    local all = { topics = { { name = "orders" } } }
    for name, value in pairs(more or {}) do all[name] = value end
    return { plugins = { { name = "confluent-consume", config = all } }, topics = { orders = 1 } }
  end

  it("gives records, from the earliest", function()
    local gateway = spec.gateway(config { mode = "server-sent-events" })
    gateway:produce("orders", { value = "one" })
    local client = gateway:connect()
    client:send { path = "/x" }
    gateway:produce("orders", { value = "two" })
    local seen
    gateway:run_until(function()
      seen = select(2, client:partial())
      return seen:find("data: two", 1, true)
    end, 10)
    assert.matches("data: one.*data: two", seen)
  end)

  it("wants a key with its secret, and no other login", function()
    local function wrong(more) return select(2, spec.check(config(more))) end
    assert.matches("cluster_api_secret", wrong { cluster_api_key = "key" }, 1, true)
    assert.matches("config.authentication: ", wrong { authentication = { strategy = "sasl" } }, 1, true)
    assert.is_nil(wrong { bootstrap_servers = { { host = "pkc.example", port = 9092 } }, cluster_api_key = "key",
      cluster_api_secret = "secret", confluent_cloud_api_key = "a", confluent_cloud_api_secret = "b", timeout = 5000,
      keepalive = 60000, keepalive_enabled = true, security = { ssl_verify = false },
      oauthbearer = { client_id = "a", client_secret = "b", token_endpoint_url = "https://login.example" } })
  end)
end)
