-- SPDX-License-Identifier: Apache-2.0
local datagrams = require "spec.support.datagrams"
local spec = require "sluice.spec"

local WHO = { who = [[
  return { version = "1", priority = 1000, access = function(_, exchange)
    exchange.client:authenticate(exchange.client:load_consumer("alice", true))
  end }
]] }

describe("statsd", function()
  local receiver, gateway

  before_each(function() receiver = datagrams.open() end)
  after_each(function() receiver:close() end)

  local function start(config, more)
    config.host, config.port = "127.0.0.1", receiver.port
    local options = { plugins = { { name = "statsd", config = config } }, upstreams = { ["*"] = { body = "hello" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
    return gateway
  end

  -- What one request makes, in order.
  local function lines_of(config, more, count)
    start(config, more)
    for _ = 1, count or 1 do gateway:get("/a") end
    gateway:advance(2)
    local list = receiver:all()
    gateway:close()
    return list
  end

  local function one(metric, config, more)
    config = config or {}
    config.metrics = { metric }
    return lines_of(config, more)[1]
  end

  local function counter(name, more)
    local metric = { name = name, stat_type = "counter", sample_rate = 1 }
    for key, value in pairs(more or {}) do metric[key] = value end
    return metric
  end

  local function with_alice(config)
    config.host, config.port = "127.0.0.1", receiver.port
    return { consumers = { { username = "alice", custom_id = "42", id = "3c2a3b3e-4bb5-4d2c-8a6a-2f0fb2ea3a0c" } },
      plugins = { { name = "statsd", config = config }, { name = "who" } }, plugins_code = WHO }
  end

  it("sends everything unless told, a metric a datagram", function()
    local text = "\n" .. table.concat(lines_of {}, "\n") .. "\n"
    for _, expected in ipairs { "kong%.service%.service%.request%.count:1|c", "kong%.service%.service%.latency:%d+|ms",
      "kong%.service%.service%.request%.size:%d+|c", "kong%.service%.service%.status%.200:1|c",
      "kong%.service%.service%.response%.size:%d+|c", "kong%.service%.service%.upstream_latency:%d+|ms",
      "kong%.service%.service%.kong_latency:%d+|ms", "kong%.workspace%.default%.status%.200:1|c",
      "kong%.node%.[%w_-]+%.shdict%.counters%.free_space:%d+|g",
      "kong%.node%.[%w_-]+%.shdict%.counters%.capacity:%d+|g" } do
      assert.matches("\n" .. expected .. "\n", text)
    end
    assert.is_nil(text:find("user", 1, true))
  end)

  it("names consumers, and counts what they do", function()
    local config = {}
    local text = "\n" .. table.concat(lines_of(config, with_alice(config)), "\n") .. "\n"
    for _, expected in ipairs { "kong%.service%.service%.user%.uniques:42|s",
      "kong%.service%.service%.user%.42%.request%.count:1|c", "kong%.service%.service%.user%.42%.status%.200:1|c",
      "kong%.route%.[%x-]+%.user%.42%.status%.200:1|c" } do
      assert.matches("\n" .. expected .. "\n", text)
    end
  end)

  it("by the identifiers that it is told", function()
    local config = { consumer_identifier_default = "username", metrics = { counter("request_per_user") } }
    assert.equal("kong.service.service.user.alice.request.count:1|c", lines_of(config, with_alice(config))[1])
    config = { metrics = { counter("request_per_user", { consumer_identifier = "consumer_id" }) } }
    assert.equal("kong.service.service.user.3c2a3b3e-4bb5-4d2c-8a6a-2f0fb2ea3a0c.request.count:1|c",
      lines_of(config, with_alice(config))[1])
    assert.equal("kong.service.service_example.request.count:1|c",
      one(counter "request_count", { service_identifier_default = "service_host" }))
    assert.matches("^kong%.service%.%x+%-[%x-]+%.request%.count:1|c$",
      one(counter("request_count", { service_identifier = "service_id" })))
    assert.equal("kong.service.service.request.count:1|c",
      one(counter("request_count", { service_identifier = "service_name" })))
    assert.equal("kong.workspace.default.status.200:1|c", one(counter("status_count_per_workspace",
      { workspace_identifier = "workspace_name" })))
  end)

  it("calls requests without a service unmatched", function()
    assert.equal("kong.global.unmatched.request.count:1|c", one(counter "request_count", {}, { routes = {} }))
  end)

  it("has the prefix that it is told, and the host's name in it", function()
    assert.equal("edge.service.service.request.count:1|c", one(counter "request_count", { prefix = "edge" }))
    assert.matches("^kong%.node%.[%w_-]+%.service%.service%.request%.count:1|c$",
      one(counter "request_count", { hostname_in_prefix = true }))
  end)

  it("knows every type", function()
    for stat_type, sign in pairs { counter = "c", gauge = "g", histogram = "h", meter = "m", timer = "ms",
      set = "s" } do
      assert.matches("|" .. sign .. "$", one { name = "latency", stat_type = stat_type, sample_rate = 1 })
    end
  end)

  it("samples", function()
    local metric = { name = "request_count", stat_type = "counter", sample_rate = 0.5 }
    local list = lines_of({ metrics = { metric } }, nil, 100)
    assert.is_true(#list > 20 and #list < 80, #list)
    assert.equal("kong.service.service.request.count:1|c|@0.5", list[1])
  end)

  it("sends status metrics for the statuses that it is told", function()
    assert.is_nil(one(counter "status_count", { allow_status_codes = { "300-399", "500-599" } }))
    assert.equal("kong.service.service.status.200:1|c", one(counter "status_count",
      { allow_status_codes = { "500-599", "200-204" } }))
  end)

  it("puts metrics together into datagrams up to udp_packet_size", function()
    local config = { udp_packet_size = 90, metrics = { counter "request_count", counter "status_count",
      counter "request_size" } }
    local list = lines_of(config)
    assert.equal(2, #list)
    assert.equal("kong.service.service.request.count:1|c\nkong.service.service.status.200:1|c", list[1])
  end)

  it("says service and so on in tags, in each style", function()
    local function tagged(style) return one(counter "status_count", { tag_style = style }) end
    assert.equal("kong.status:1|c|#service:service,route:route,status:200", tagged "dogstatsd")
    assert.equal("kong.status,service=service,route=route,status=200:1|c", tagged "influxdb")
    assert.equal("kong.status#service=service,route=route,status=200:1|c", tagged "librato")
    assert.equal("kong.status[service=service,route=route,status=200]:1|c", tagged "signalfx")
    local config = { tag_style = "dogstatsd", metrics = { counter "request_per_user" } }
    assert.equal("kong.user.request.count:1|c|#service:service,route:route,consumer:42",
      lines_of(config, with_alice(config))[1])
  end)

  it("gathers batches", function()
    start { metrics = { counter "request_count" }, queue = { max_batch_size = 10, max_coalescing_delay = 5 },
      udp_packet_size = 1000 }
    gateway:get("/1")
    gateway:get("/2")
    gateway:advance(4)
    assert.equal(0, #receiver:all())
    gateway:advance(2)
    assert.equal("kong.service.service.request.count:1|c\nkong.service.service.request.count:1|c", receiver:all()[1])
  end)

  it("refuses a configuration that is wrong, and says where", function()
    local function refused(config)
      return select(2, spec.check { plugins = { { name = "statsd", config = config } } })
    end
    for field, value in pairs { host = "a b", port = 70000, prefix = 1, udp_packet_size = 70000, use_tcp = 1,
      hostname_in_prefix = 1, consumer_identifier_default = "x", service_identifier_default = "x",
      workspace_identifier_default = "x", tag_style = "x" } do
      assert.matches("config." .. field .. ": expected", refused { [field] = value }, 1, true)
    end
    assert.matches("config.allow_status_codes[0]: expected", refused { allow_status_codes = { "2xx" } }, 1, true)
    assert.matches("config.metrics[0].name: expected one of", refused { metrics = { { name = "x",
      stat_type = "timer" } } }, 1, true)
    assert.matches("sample_rate", refused { metrics = { { name = "latency", stat_type = "counter" } } }, 1, true)
    assert.matches("stat_type", refused { metrics = { { name = "unique_users", stat_type = "timer" } } }, 1, true)
    assert.matches("stat_type", refused { metrics = { { name = "status_count", stat_type = "timer" } } }, 1, true)
  end)
end)
