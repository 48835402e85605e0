-- SPDX-License-Identifier: Apache-2.0
-- kafka-upstream under another name: what differs is the login. See also spec/kafka/secure_spec.lua.
local spec = require "sluice.spec"

describe("confluent", function()
  local function config(more)
    local all = { cluster_api_key = "key", cluster_api_secret = "secret", topic = "orders" }
    for name, value in pairs(more or {}) do all[name] = value end
    return { plugins = { { name = "confluent", config = all } }, topics = { orders = 1 } }
  end

  it("makes a record of a request, as kafka-upstream does", function()
    local gateway = spec.gateway(config())
    local response = gateway:post("/x", "text", { ["Content-Type"] = "text/plain" })
    assert.same({ 200, "orders", 0 }, { response.status, response.json.topic, response.json.offset })
    assert.matches('"body":"text"', gateway:records("orders")[1].value, 1, true)
  end)

  it("has the options of kafka-upstream", function()
    local gateway = spec.gateway(config { value = "body", key_header = "x-key" })
    gateway:post("/x", "text", { ["X-Key"] = "k" })
    assert.same({ "k", "text" }, { gateway:records("orders")[1].key, gateway:records("orders")[1].value })
  end)

  it("wants a key and its secret, and no other login", function()
    local function wrong(more, without)
      local wanted = config(more)
      if without then wanted.plugins[1].config[without] = nil end
      return select(2, spec.check(wanted))
    end
    assert.matches("config.cluster_api_key: ", wrong(nil, "cluster_api_key"), 1, true)
    assert.matches("config.cluster_api_secret: ", wrong(nil, "cluster_api_secret"), 1, true)
    assert.matches("config.authentication: ", wrong { authentication = { strategy = "sasl" } }, 1, true)
    assert.is_nil(wrong { bootstrap_servers = { { host = "pkc.example", port = 9092 } }, confluent_cloud_api_key = "a",
      confluent_cloud_api_secret = "b", keepalive = 60000, keepalive_enabled = true })
  end)
end)
