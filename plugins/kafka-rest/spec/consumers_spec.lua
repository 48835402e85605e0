-- SPDX-License-Identifier: Apache-2.0
-- Consumer instances over topics in memory: phases of records, formats, the clock. See also
-- spec/kafka/rest_consumers_spec.lua.
local spec = require "sluice.spec"
local json = require "sluice.json"

local V2, JSON = "application/vnd.kafka.v2+json", "application/vnd.kafka.json.v2+json"

local MASKS = [[
return { version = "1", priority = 1, consume = function(_, _, record)
  if record.value == '"drop"' then return nil end
  if record.value == '"raise"' then error("no") end
  record.value = record.value:gsub("secret", "***")
  return record
end }
]]

describe("consumer instances", function()
  local gateway

  local function start(config, plugin)
    local plugins = { { name = "kafka-rest", config = config } }
    if plugin then plugins[2] = { name = "own" } end
    gateway = spec.gateway { topics = { orders = 1 }, plugins = plugins, plugins_code = plugin and { own = plugin } }
  end

  local function ask(method, path, body, headers)
    headers = headers or { Accept = V2 }
    headers["Content-Type"] = V2
    local response = gateway:request { method = method, path = path, headers = headers,
      body = body and json.encode(body) }
    return response.status, response.json, response
  end

  -- An instance that reads the topic: its path.
  local function reading(options)
    options = options or {}
    options.format, options["auto.offset.reset"] = options.format or "json", "earliest"
    local status, made = ask("POST", "/consumers/group", options)
    assert.equal(200, status)
    local path = "/consumers/group/instances/" .. made.instance_id
    assert.equal(204, (ask("POST", path .. "/subscription", { topics = { "orders" } })))
    return path
  end

  local function values_of(path, query)
    local status, list, response = ask("GET", path .. "/records" .. (query or ""), nil, { Accept = JSON })
    assert.equal(200, status, response.body)
    local values = {}
    for i, record in ipairs(list) do values[i] = record.value end
    return values
  end

  it("give records as they were written", function()
    start()
    gateway:produce("orders", { key = '"k"', value = '{"a":1.50,"b":[ ]}' })
    gateway:produce("orders", { key = "12345678901234567890" })
    local path = reading()
    local _, _, response = ask("GET", path .. "/records", nil, { Accept = JSON })
    assert.equal('[{"topic":"orders","key":"k","value":{"a":1.50,"b":[ ]},"partition":0,"offset":0},'
      .. '{"topic":"orders","key":12345678901234567890,"value":null,"partition":0,"offset":1}]', response.body)
    assert.equal(JSON, response.headers["content-type"])
  end)

  it("run the phase of records in other plugins", function()
    start(nil, MASKS)
    for _, value in ipairs { '"a secret"', '"drop"', '"open"' } do gateway:produce("orders", { value = value }) end
    local path = reading()
    assert.same({ "a ***", "open" }, values_of(path))
    gateway:produce("orders", { value = '"raise"' })
    gateway:produce("orders", { value = '"behind"' })
    assert.equal(500, (ask("GET", path .. "/records", nil, { Accept = JSON })))
    assert.same({ "behind" }, values_of(path))
  end)

  it("tell which record is none of their format", function()
    start()
    gateway:produce("orders", { value = "no JSON" })
    local status, body = ask("GET", reading() .. "/records", nil, { Accept = JSON })
    assert.same({ 500, 50002 }, { status, body.error_code })
    assert.matches("orders/0 at 0", body.message, 1, true)
  end)

  it("lose nothing of what stands around such a record", function()
    start()
    for _, value in ipairs { "1", "2", "no JSON", "3", "4" } do gateway:produce("orders", { value = value }) end
    local path = reading()
    assert.same({ 1, 2 }, values_of(path))
    local status, body = ask("GET", path .. "/records", nil, { Accept = JSON })
    assert.equal(500, status)
    assert.matches("orders/0 at 2", body.message, 1, true)
    assert.same({ 3, 4 }, values_of(path))
  end)

  it("wait for records as long as they are told", function()
    start()
    local path = reading { ["consumer.request.timeout.ms"] = 5000 }
    local waiting = gateway:send { method = "GET", path = path .. "/records", headers = { Accept = JSON } }
    gateway:advance(4)
    gateway:produce("orders", { value = "1" })
    local response = waiting:receive()
    assert.equal(1, response.json[1].value)
    waiting = gateway:send { method = "GET", path = path .. "/records?timeout=2000", headers = { Accept = JSON } }
    gateway:advance(2.1)
    assert.equal("[]", waiting:receive().body)
  end)

  it("wait until there is as much as fetch.min.bytes says", function()
    start()
    local path = reading { ["fetch.min.bytes"] = 3, ["consumer.request.timeout.ms"] = 5000 }
    gateway:produce("orders", { value = "1" })
    local waiting = gateway:send { method = "GET", path = path .. "/records", headers = { Accept = JSON } }
    gateway:advance(1)
    gateway:produce("orders", { value = "22" })
    assert.equal(2, #waiting:receive().json)
  end)

  it("give no more bytes than may be", function()
    start { consumer_bytes_max = 1024 }
    for i = 1, 4 do gateway:produce("orders", { value = '"' .. i .. ("x"):rep(400) .. '"' }) end
    local path = reading()
    assert.equal(2, #values_of(path))
    assert.equal(1, #values_of(path, "?max_bytes=500"))
    assert.equal(1, #values_of(path, "?max_bytes=1000000"))
  end)

  it("end when nobody has used them for a while, and not before", function()
    start { consumer_idle_timeout = 60000 }
    local path = reading()
    gateway:advance(59)
    assert.same({}, values_of(path, "?timeout=0"))
    gateway:advance(59)
    assert.equal(200, (ask("GET", path .. "/subscription")))
    gateway:advance(62)
    local status, body = ask("GET", path .. "/subscription")
    assert.same({ 404, 40403 }, { status, body.error_code })
  end)

  it("are as many as may be", function()
    start { consumers_max = 2 }
    local path = reading()
    reading()
    local status, body, response = ask("POST", "/consumers/group", {})
    assert.same({ 429, 429, "1" }, { status, body.error_code, response.headers["retry-after"] })
    ask("DELETE", path)
    assert.equal(200, (ask("POST", "/consumers/group", {})))
  end)

  it("are not offered where the operations say so", function()
    start { operations = { "read", "produce" } }
    assert.equal(403, (ask("POST", "/consumers/group", {})))
  end)
end)
