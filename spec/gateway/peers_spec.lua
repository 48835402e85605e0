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
    if text == "slow" then sluice.sleep(1) end
    if text == "begin" then peers.serve("late", function() return "late, not never" end) end
    if text == "" then return "" end
    return peers.self() .. " heard " .. text
  end)
end

function asks.access(_, exchange)
  local text = exchange.request:get_raw_body()
  local id = tonumber(exchange.request:get_path():match("%d+"))
  local request = exchange.request
  local seconds = tonumber(request:get_query_arg("seconds")) or 10
  sluice.log.warn("asking " .. text:sub(1, 20))
  local said, err = peers.call(id, request:get_query_arg("name") or "tell", text, seconds)
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
    assert.equal("timeout", ask("/1?seconds=0.2", "slow").err)
    assert.equal("away", ask("/9", "x").err)
    assert.equal("away", ask("/1?name=nothing&seconds=2", "x").err)
    gw:wait_log("on purpose")
  end)

  it("wait for one that does not serve yet", function()
    local waiting = gw:connect()
    waiting:send("POST /2?name=late&seconds=10 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nearly")
    gw:wait_log("asking early")
    ask("/2", "begin")
    assert.equal("late, not never", cjson.decode(waiting:read_response().body).said)
    waiting:close()
  end)

  it("wait for one that takes the place of another", function()
    assert.equal("2 heard x", ask("/2", "x").said)
    posix.kill(gw:workers()[2], posix.SIGKILL)
    local heard
    process.wait_until(function() -- a connection, or a question, may have gone to the one that ends
      heard = select(2, pcall(ask, "/2?seconds=10", "y"))
      return type(heard) == "table" and heard.asked and heard.err ~= "closed"
    end, 20, "an answer")
    assert.same({ "2 heard y" }, { heard.said, heard.err })
  end)

  it("answer nobody who is not one of them", function()
    assert.equal("1 heard x", ask("/1", "x").said)
    local response = http.request(gw.status_port, { method = "POST", path = "/peers/tell", body = "x" })
    assert.equal(404, response.status)
    local _, modes = process.run({ "sh", "-c", "stat -c %a " .. gw.directory .. "/state/worker-*.sock" }, {})
    assert.equal("700\n700\n700\n", modes)
  end)
end)
