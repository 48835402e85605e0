-- SPDX-License-Identifier: Apache-2.0
local datagrams = require "spec.support.datagrams"
local json = require "sluice.json"
local spec = require "sluice.spec"

describe("udp-log", function()
  local receiver

  before_each(function() receiver = datagrams.open() end)
  after_each(function() receiver:close() end)

  local function with(config)
    config.host, config.port = config.host or "127.0.0.1", config.port or receiver.port
    return spec.gateway { plugins = { { name = "udp-log", config = config } }, upstreams = { ["*"] = { body = "hi" } } }
  end

  it("sends each exchange as JSON in a datagram", function()
    local gateway = with {}
    gateway:get("/a")
    gateway:get("/b")
    gateway:settle()
    assert.equal("/a", json.decode(receiver:receive(5)).request.uri)
    assert.equal("/b", json.decode(receiver:receive(5)).request.uri)
  end)

  it("looks the name of its host up", function()
    local gateway = spec.gateway { plugins = { { name = "udp-log", config = { host = "logs.example",
      port = receiver.port } } }, upstreams = { ["*"] = { body = "hi" } }, dns = { ["logs.example"] = "127.0.0.1" } }
    gateway:get("/a")
    gateway:settle()
    assert.equal("/a", json.decode(receiver:receive(5)).request.uri)
  end)

  it("says that it lost lines when there is no such host, and holds nobody up", function()
    local gateway = spec.gateway { plugins = { { name = "udp-log", config = { host = "none.example", port = 1 } } },
      upstreams = { ["*"] = { body = "hi" } }, dns = { ["none.example"] = false } }
    assert.equal(200, gateway:get("/a").status)
    gateway:settle()
    assert.matches("none.example", gateway:log("log lines dropped")[1], 1, true)
    assert.matches('sluice_log_lost_total{plugin="udp-log"} 1',
      gateway:request({ path = "/metrics", listener = "status" }).body, 1, true)
  end)

  it("says so when a line is too long for a datagram", function()
    local gateway = with { custom_fields_by_lua = { much = "return ('x'):rep(70000)" } }
    gateway:get("/a")
    gateway:settle()
    assert.matches("Message too long", gateway:log("log lines dropped")[1], 1, true)
  end)

  it("adds fields by Lua", function()
    local gateway = with { custom_fields_by_lua = { who = "return 'Ada'" } }
    gateway:get("/a")
    gateway:settle()
    assert.equal("Ada", json.decode(receiver:receive(5)).who)
  end)

  it("refuses a configuration that is wrong, and says where", function()
    local function refused(config)
      return select(2, spec.check { plugins = { { name = "udp-log", config = config } } })
    end
    assert.matches("config.host: expected", refused { port = 1 }, 1, true)
    assert.matches("config.port: expected", refused { host = "a", port = "x" }, 1, true)
    assert.matches("config.timeout: expected", refused { host = "a", port = 1, timeout = "x" }, 1, true)
    assert.matches("config.custom_fields_by_lua.a: expected Lua code",
      refused { host = "a", port = 1, custom_fields_by_lua = { a = "return return" } }, 1, true)
  end)
end)
