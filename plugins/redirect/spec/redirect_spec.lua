-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

describe("redirect", function()
  local gateway

  local function answer(config, path, extra)
    local options = { plugins = { { name = "redirect", config = config } } }
    for name, value in pairs(extra or {}) do options[name] = value end
    gateway = spec.gateway(options)
    return gateway:get(path or "/")
  end

  local function location(config, path)
    return answer(config, path).headers.location
  end

  it("answers 301 with the location and calls no service", function()
    local response = answer({ location = "https://new.example/here?x=1#top" }, "/a?b=2")
    assert.same({ 301, "https://new.example/here?x=1#top", "redirecting" },
      { response.status, response.headers.location, response.body })
    assert.equal(0, #gateway:requests())
  end)

  it("answers with the status that it is told", function()
    assert.equal(308, answer({ location = "https://new.example", status_code = 308 }).status)
  end)

  it("redirects to a path of the same host", function()
    assert.equal("/new", location({ location = "/new" }))
  end)

  it("answers HEAD without a body", function()
    answer { location = "/new" }
    local response = gateway:head("/")
    assert.same({ 301, "", "/new" }, { response.status, response.body, response.headers.location })
  end)

  describe("that keeps the path", function()
    local CASES = {
      { "https://new.example", "/demo?foo=bar", "https://new.example/demo?foo=bar" },
      { "https://new.example/", "/demo", "https://new.example/demo" },
      { "https://new.example/some-path", "/demo?foo=bar", "https://new.example/some-path/demo?foo=bar" },
      { "https://new.example:8443/?old=1#part", "/a%20b?x", "https://new.example:8443/a%20b?x#part" },
      { "https://new.example", "/a/../b", "https://new.example/b" },
      { "https://new.example?old=1", "/", "https://new.example/" },
      { "/new", "/demo", "/new/demo" },
      { "/", "//evil.example/x", "/evil.example/x" },
    }
    for _, case in ipairs(CASES) do
      it(("from %s to %s"):format(case[2], case[3]), function()
        assert.equal(case[3], location({ location = case[1], keep_incoming_path = true }, case[2]))
      end)
    end
  end)

  describe("refuses", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "redirect", config = config } } })
    end

    it("a location that is none", function()
      assert.matches("config.location: expected a URL", problem { location = "new.example" }, 1, true)
      assert.matches("config.location: expected a URL", problem { location = "//new.example" }, 1, true)
      assert.matches("config.location: expected a URL without spaces", problem { location = "/a b" }, 1, true)
      assert.matches("config.location: expected a string, found nothing", problem {}, 1, true)
    end)

    it("a status that is none", function()
      assert.matches("config.status_code: expected an integer from 100 to 599, found 600",
        problem { location = "/", status_code = 600 }, 1, true)
    end)
  end)
end)
