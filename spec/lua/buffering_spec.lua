-- SPDX-License-Identifier: Apache-2.0
-- exchange.service.request:enable_buffering(): header_filter sees the whole response.
local spec = require "sluice.spec"

local function gateway_of(handler, answer)
  return spec.gateway { plugins = { { name = "whole" } }, plugins_code = { whole = handler },
    upstreams = { ["service.example"] = answer } }
end

local UPPER = [[
  local whole = { version = "1.0.0", priority = 1 }
  function whole.access(_, exchange) exchange.service.request:enable_buffering() end
  function whole.header_filter(_, exchange)
    if exchange.response:get_source() ~= "service" then return end
    local body = exchange.response:get_raw_body()
    exchange.response:set_status(body == "bad" and 502 or 200)
    exchange.response:set_header("X-Seen", exchange.service.response:get_raw_body() .. ":"
      .. (exchange.service.response:get_trailer("x-sum") or "none"))
    exchange.response:set_raw_body(body:upper() .. "!")
  end
  return whole
]]

describe("a buffered response", function()
  it("is whole, with its trailers, when header_filter runs, which may change status, fields and body", function()
    local gateway = gateway_of(UPPER, { chunks = { "he", "llo" }, trailers = { ["X-Sum"] = "5" } })
    local response = gateway:get("/")
    assert.equal(200, response.status)
    assert.equal("hello:5", response.headers["x-seen"])
    assert.equal("HELLO!", response.body)
    gateway:upstream("service.example", { body = "bad" })
    response = gateway:get("/")
    assert.equal(502, response.status)
    assert.equal("bad:none", response.headers["x-seen"])
    assert.equal("4", response.headers["content-length"])
    assert.equal("BAD!", response.body)
  end)

  it("passes through body_filter as one piece", function()
    local gateway = gateway_of(UPPER:gsub("return whole", [[
      function whole.body_filter(_, _, chunk, last) return ("[%%s %%s]"):format(chunk, tostring(last)) end
      return whole]]), { chunks = { "a", "b" } })
    assert.equal("[AB! true]", gateway:get("/").body)
  end)

  it("is an error once it passes the limit", function()
    local half = ("x"):rep(4 * 1024 * 1024 + 1) -- of 8 MB
    local gateway = gateway_of(UPPER, { chunks = { half, half } })
    local response = gateway:get("/")
    assert.equal(502, response.status)
    assert.equal("The response is too large to be buffered for a plugin", response.json.message)
  end)

  it("has to be asked for before the service answers", function()
    local gateway = gateway_of([[
      local whole = { version = "1.0.0", priority = 1 }
      function whole.header_filter(_, exchange)
        local body, err = exchange.response:get_raw_body()
        exchange.response:set_header("X-Found", tostring(body) .. ":" .. err)
        exchange.response:set_header("X-Late", select(2, pcall(exchange.service.request.enable_buffering,
          exchange.service.request)))
      end
      return whole
    ]], { body = "hello" })
    local response = gateway:get("/")
    assert.equal("hello", response.body)
    assert.equal("nil:the response is not buffered: see exchange.service.request:enable_buffering",
      response.headers["x-found"])
    assert.matches("cannot be called in phase header_filter", response.headers["x-late"])
  end)
end)
