-- SPDX-License-Identifier: Apache-2.0
-- Workers ask each other, and nobody else can.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local CONFIG = [[
_format_version: "3.0"
plugins: [{ name: asks }]
routes: [{ name: all, paths: [/] }]
]]

local ASKS = [[
local peers = require "sluice.peers"
local sluice = require "sluice"
local asks = { version = "1", priority = 1 }

function asks.configure()
  peers.serve("tell", function(text)
    if text == "raise" then error("on purpose") end
    if text == "slow" then sluice.sleep(30) end
    if text == "" then return "" end
    return peers.self() .. " heard " .. text
  end)
end

function asks.access(_, exchange)
  local text = exchange.request:get_raw_body()
  local id = tonumber(exchange.request:get_path():match("%d+"))
  local said, err = peers.call(id, exchange.request:get_query_arg("name") or "tell", text, 0.5)
  exchange.response:exit(200, { said = said, err = err, owner = peers.owner("x"), asked = peers.self() })
end

return asks
]]

describe("workers that ask each other", function()
  local gw

  setup(function() gw = gateway.start(CONFIG, { workers = 3, plugins = { asks = ASKS } }) end)
  teardown(function() if gw then gw:stop() end end)

  local function ask(path, text)
    local response = gw:request { path = path, body = text }
    assert.equal(200, response.status, gw:log())
    return cjson.decode(response.body)
  end

  it("reach each, from each", function()
    local asked = {}
    for i = 1, 60 do
      local id = i % 3 + 1
      local answer = ask("/" .. id, "text " .. i)
      assert.equal(id .. " heard text " .. i, answer.said)
      asked[answer.asked] = true
    end
    local workers = 0
    for _ in pairs(asked) do workers = workers + 1 end
    assert.is_true(workers > 1) -- the kernel spreads connections
  end)

  it("agree on whose a name is", function()
    local owner = ask("/1", "x").owner
    for _ = 1, 9 do assert.equal(owner, ask("/1", "x").owner) end
  end)

  it("carry long texts and none", function()
    local long = ("0123456789 "):rep(100000)
    assert.equal("2 heard " .. long, ask("/2", long).said)
    assert.equal("", ask("/2", "").said)
  end)

  it("are told what went wrong", function()
    assert.equal("failed", ask("/1", "raise").err)
    assert.equal("timeout", ask("/1", "slow").err)
    assert.equal("away", ask("/9", "x").err)
    assert.equal("away", ask("/1?name=nothing", "x").err)
    assert.matches("on purpose", gw:log())
  end)

  it("ask one that took the place of another", function()
    local before = gw:workers()
    assert.equal("2 heard x", ask("/2", "x").said)
    for _, pid in ipairs(before) do posix.kill(pid, posix.SIGKILL) end
    process.wait_until(function()
      local now = gw:workers()
      return #now == 3 and now[1] ~= before[1] and now[2] ~= before[2] and now[3] ~= before[3]
    end, 10, "new workers")
    process.wait_until(function() return ask("/2", "y").said == "2 heard y" end, 5, "an answer")
  end)

  it("answer nobody who is not one of them", function()
    assert.equal("1 heard x", ask("/1", "x").said)
    local response = http.request(gw.status_port, { method = "POST", path = "/peers/tell", body = "x" })
    assert.equal(404, response.status)
    local _, modes = process.run({ "sh", "-c", "stat -c %a " .. gw.directory .. "/state/worker-*.sock" }, {})
    assert.equal("700\n700\n700\n", modes)
  end)
end)
