-- SPDX-License-Identifier: Apache-2.0
-- Phase service_head: the service has answered, or failed to.
local spec = require "sluice.spec"

local function gateway_of(body, answer)
  return spec.gateway { plugins = { { name = "early" }, { name = "late" } }, plugins_code = {
    early = "local early = { version = '1.0.0', priority = 1 }\nfunction early.service_head(_, exchange)\n" .. body
      .. "\nend\nreturn early",
    late = [[
      local late = { version = "1.0.0", priority = 2 }
      function late.header_filter(_, exchange)
        local response = exchange.response
        response:set_header("X-Late", response:get_source() .. (response:get_header("X-Early") or ""))
      end
      return late
    ]],
  }, upstreams = { ["service.example"] = answer } }
end

describe("service_head", function()
  it("sees what the service said, and sets fields that header_filter sees", function()
    local gateway = gateway_of([[
      local response = exchange.service.response
      exchange.response:set_header("X-Early", response:get_status() .. response:get_header("X-From"))
      exchange.response:add_header("X-From", exchange.request:get_method())
    ]], { status = 404, headers = { ["X-From"] = "service" }, body = "none" })
    local response = gateway:get("/")
    assert.equal(404, response.status)
    assert.equal("none", response.body)
    assert.equal("service404service", response.headers["x-late"])
    assert.equal("service, GET", response.headers["x-from"])
    gateway:close()
  end)

  it("answers in the service's place", function()
    local gateway = gateway_of([[
      if exchange.service.response:get_status() == 500 then
        exchange.response:exit(200, "mended", { ["X-Early"] = "!" })
      end
      exchange.response:error(503)
    ]], { status = 500, headers = { ["X-From"] = "service" }, body = "broken" })
    local response = gateway:get("/")
    assert.equal(200, response.status)
    assert.equal("mended", response.body)
    assert.equal("exit!", response.headers["x-late"])
    assert.is_nil(response.headers["x-from"])
    gateway:upstream("service.example", { body = "fine" })
    assert.equal(503, gateway:get("/").status)
    gateway:close()
  end)

  it("runs when there is no answer, and may give one", function()
    local gateway = gateway_of([[
      if exchange.service.response:get_status() then return end
      if exchange.request:get_path() == "/mend" then exchange.response:exit(200, "mended") end
      exchange.response:set_header("X-Early", "seen")
    ]], { close = true })
    assert.equal("mended", gateway:get("/mend").body)
    local response = gateway:get("/")
    assert.equal(502, response.status)
    assert.equal("errorseen", response.headers["x-late"])
    gateway:close()
  end)

  it("answers 500 when it fails, or waits", function()
    for _, body in ipairs { 'error("no")', 'require "sluice".sleep(1)' } do
      local gateway = gateway_of(body, { body = "fine" })
      local response = gateway:get("/")
      assert.equal(500, response.status)
      assert.is_true(#gateway:log("plugin failed plugin=early.*phase=service_head") == 1)
      gateway:close()
    end
  end)
end)
