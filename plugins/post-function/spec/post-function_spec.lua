-- SPDX-License-Identifier: Apache-2.0
-- What the two have in common is shown in pre-function's spec.
local spec = require "sluice.spec"

describe("post-function", function()
  local function with(config, more)
    local options = { plugins = { { name = "post-function", config = config } } }
    for key, value in pairs(more or {}) do options[key] = value end
    return spec.gateway(options)
  end

  it("runs after the plugins", function()
    local gateway = with({}, {
      plugins = {
        { name = "first" },
        { name = "post-function", config = {
          access = { 'exchange.service.request:set_header("X-Trail", exchange.ctx.trail .. " post")' },
          header_filter = { [[
            exchange.response:set_header("X-Trail", exchange.response:get_header("X-Trail") .. " post")
          ]] },
        } },
      },
      plugins_code = { first = [[
        local first = { version = "1", priority = -999 }
        function first.access(_, exchange) exchange.ctx.trail = "first" end
        function first.header_filter(_, exchange) exchange.response:set_header("X-Trail", "first") end
        return first
      ]] },
    })
    local response = gateway:get("/")
    assert.equal("first post", response.json.headers["x-trail"])
    assert.equal("first post", response.headers["x-trail"])
  end)

  it("takes code for access by its name of before Kong 3", function()
    assert.equal("here", with({ functions = { "kong.response.exit(200, 'here')" } }):get("/").body)
  end)

  it("runs in every phase that there is code for", function()
    local note = 'require("sluice").log.notice("ran", { phase = "%s" })'
    local config = {}
    for _, phase in ipairs { "rewrite", "access", "header_filter", "body_filter", "log" } do
      config[phase] = { note:format(phase) }
    end
    local gateway = with(config)
    gateway:get("/")
    for phase in pairs(config) do assert.is_true(#gateway:log("ran.*phase=" .. phase) >= 1, phase) end
  end)

  it("does not run when a plugin has answered, but for the response", function()
    local gateway = with({}, { plugins = {
      { name = "pre-function", config = { access = { "exchange.response:exit(204)" } } },
      { name = "post-function", config = {
        access = { 'require("sluice").log.notice("in access")' },
        header_filter = { 'exchange.response:set_header("X-Late", "1")' },
      } },
    } })
    local response = gateway:get("/")
    assert.equal(204, response.status)
    assert.equal("1", response.headers["x-late"])
    assert.equal(0, #gateway:log("in access"))
  end)

  it("refuses code that is no Lua, with its line", function()
    local ok, err = spec.check { plugins = { { name = "post-function", config = { log = { "local =" } } } } }
    assert.is_nil(ok)
    assert.matches("config.log%[0%]: expected Lua code %(line 1: .*near", err)
  end)
end)
