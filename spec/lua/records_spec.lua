-- SPDX-License-Identifier: Apache-2.0
-- Phases produce and consume: plugins of a route see each record that another plugin carries.
local cjson = require "cjson"
local spec = require "sluice.spec"

-- Carries one record made of the request, and answers with what is left of it.
local CARRIER = [[
  local records = require "sluice.records"
  local json = require "sluice".json
  local carrier = { version = "1.0.0", priority = 1 }
  function carrier.access(_, exchange)
    local phase = exchange.request:get_header("X-Phase")
    local record = { topic = "t", key = "k", value = exchange.request:get_raw_body(), headers = { { "a", "b" } } }
    local any = records.any(phase)
    local out, err = records.run(exchange, phase, record)
    exchange.response:exit(200, json.encode({ any = any, err = err, dropped = out == nil and not err,
      value = out and out.value, same = out == record, before = record.value, header = record.headers[1][2] }))
  end
  return carrier
]]

local function gateway_of(codes)
  local plugins, plugins_code = { { name = "carrier" } }, { carrier = CARRIER }
  for name, code in pairs(codes) do
    plugins[#plugins + 1] = { name = name }
    plugins_code[name] = code
  end
  return spec.gateway { plugins = plugins, plugins_code = plugins_code, upstreams = {} }
end

local function plugin(priority, phase, body)
  return ("local it = { version = '1.0.0', priority = %d }\nfunction it.%s(conf, exchange, record)\n%s\nend\nreturn it")
    :format(priority, phase, body)
end

local function carry(gateway, phase, value, headers)
  headers = headers or {}
  headers["X-Phase"] = phase
  local response = gateway:request { method = "POST", path = "/", body = value, headers = headers }
  return response.status == 200 and cjson.decode(response.body) or response
end

describe("records", function()
  local gateway
  after_each(function() gateway:close() end)

  it("go on as they are where no plugin has the phase", function()
    gateway = gateway_of { other = plugin(5, "consume", "return nil") }
    assert.same({ any = false, dropped = false, value = "v", same = true, before = "v", header = "b" },
      carry(gateway, "produce", "v"))
  end)

  it("pass the plugins by priority, which change or replace them", function()
    gateway = gateway_of {
      first = plugin(9, "produce", "record.value = record.value .. ' first'\nreturn record"),
      second = plugin(8, "produce", "return { value = record.value .. ' second', topic = record.topic }"),
    }
    local answer = carry(gateway, "produce", "v")
    assert.is_true(answer.any)
    assert.equal("v first second", answer.value)
  end)

  it("are dropped by nil, and later plugins do not see them", function()
    gateway = gateway_of {
      first = plugin(9, "produce", "if record.value == 'bad' then return nil end\nreturn record"),
      second = plugin(8, "produce", "assert(record.value ~= 'bad')\nreturn record"),
    }
    assert.is_true(carry(gateway, "produce", "bad").dropped)
    assert.is_false(carry(gateway, "produce", "good").dropped)
  end)

  it("that were read are copied: other readers have the same ones", function()
    gateway = gateway_of {
      mask = plugin(9, "consume", "record.value, record.headers[1][2] = '***', '*'\nreturn record"),
    }
    local answer = carry(gateway, "consume", "secret")
    assert.equal("***", answer.value)
    assert.equal("secret", answer.before)
    assert.equal("b", answer.header)
  end)

  it("do not go on when a plugin fails, which the log tells", function()
    gateway = gateway_of {
      first = plugin(9, "produce", [[
        if record.value == "raise" then error("no") end
        return record.value == "text" and "x" or record
      ]]),
    }
    assert.equal("a plugin failed in phase produce", carry(gateway, "produce", "raise").err)
    assert.equal(1, #gateway:log("plugin failed plugin=first.*phase=produce.*error=no"))
    assert.equal("a plugin failed in phase produce", carry(gateway, "produce", "text").err)
    assert.equal(1, #gateway:log("plugin failed plugin=first.*expected the record or nil, returned a string"))
    assert.equal("v", carry(gateway, "produce", "v").value)
  end)

  it("may be answered for, waited for, and looked at beside the request", function()
    gateway = gateway_of { first = plugin(9, "produce", [[
      if exchange.request:get_header("X-No") then exchange.response:exit(403, "not this one") end
      require "sluice".sleep(0.01)
      record.value = exchange.request:get_method() .. record.value
      return record
    ]]) }
    assert.equal("POSTv", carry(gateway, "produce", "v").value)
    local refused = carry(gateway, "produce", "v", { ["X-No"] = "1" })
    assert.equal(403, refused.status)
    assert.equal("not this one", refused.body)
    assert.equal(0, #gateway:log("plugin failed"))
  end)

  it("of a phase that is none are an error of the caller", function()
    gateway = gateway_of {}
    assert.equal(500, carry(gateway, "access", "v").status)
    assert.equal(1, #gateway:log("no phase of records: access"))
  end)
end)
