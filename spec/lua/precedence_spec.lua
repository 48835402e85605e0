-- SPDX-License-Identifier: Apache-2.0
-- Which instance of a plugin runs, by Kong's documented order of precedence: of all that could, the most specific.
local spec = require "sluice.spec"

-- From the most specific scope to the least.
local ORDER = {
  { "consumer", "route", "service" },
  { "consumer_group", "service", "route" },
  { "consumer", "route" },
  { "consumer", "service" },
  { "consumer_group", "route" },
  { "consumer_group", "service" },
  { "route", "service" },
  { "consumer" },
  { "consumer_group" },
  { "route" },
  { "service" },
  {},
}

local NAMES = { consumer = "alice", consumer_group = "gold", route = "r", service = "s" }

local TELLER = {
  handler = [[
    local teller = { version = "1.0.0", priority = 500 }
    function teller.access(conf, exchange) exchange.response:set_header("X-Runs", conf.text) end
    function teller.header_filter(conf, exchange) exchange.response:set_header("X-Also", conf.text) end
    return teller
  ]],
  schema = 'return { text = { type = "string" } }',
}

local function text_of(scope)
  return scope[1] and table.concat(scope, " + ") or "global"
end

describe("of the instances of a plugin", function()
  -- With the instances of these scopes, in an order that tells nothing.
  local function start(scopes, changes)
    local plugins = { { name = "key-auth" } }
    for i = #scopes, 1, -1 do
      local instance = { name = "teller", config = { text = text_of(scopes[i]) } }
      for _, name in ipairs(scopes[i]) do instance[name] = NAMES[name] end
      for key, value in pairs(changes and changes(scopes[i]) or {}) do instance[key] = value end
      table.insert(plugins, i % 2 == 0 and 1 or #plugins + 1, instance)
    end
    return spec.gateway {
      plugins_code = { teller = TELLER },
      services = { { name = "s", host = "s.example" }, { name = "t", host = "t.example" } },
      routes = { { name = "r", service = { name = "s" }, paths = { "/r" } },
        { name = "q", service = { name = "t" }, paths = { "/q" } } },
      consumer_groups = { { name = "gold" } },
      consumers = {
        { username = "alice", groups = { { name = "gold" } }, keyauth_credentials = { { key = "alice" } } },
        { username = "bob", groups = { { name = "gold" } }, keyauth_credentials = { { key = "bob" } } },
        { username = "carol", keyauth_credentials = { { key = "carol" } } },
      },
      plugins = plugins,
    }
  end

  local function runs(gateway, key, path)
    local headers = gateway:get(path or "/r", { apikey = key }).headers
    assert.equal(headers["x-runs"], headers["x-also"])
    return headers["x-runs"]
  end

  for first = 1, #ORDER do
    it("that of " .. text_of(ORDER[first]) .. " runs where no more specific one is", function()
      assert.equal(text_of(ORDER[first]), runs(start { unpack(ORDER, first) }, "alice"))
    end)

    for second = first + 1, #ORDER do
      it("that of " .. text_of(ORDER[first]) .. " goes before that of " .. text_of(ORDER[second]), function()
        assert.equal(text_of(ORDER[first]), runs(start { ORDER[first], ORDER[second] }, "alice"))
      end)
    end
  end

  it("those run that fit the consumer, its groups, the route and the service", function()
    local gateway = start(ORDER)
    assert.equal("consumer + route + service", runs(gateway, "alice"))
    assert.equal("consumer_group + service + route", runs(gateway, "bob"))
    assert.equal("route + service", runs(gateway, "carol"))
    assert.equal("consumer", runs(gateway, "alice", "/q"))
    assert.equal("consumer_group", runs(gateway, "bob", "/q"))
    assert.equal("global", runs(gateway, "carol", "/q"))
  end)

  it("one that is disabled, or for streams, leaves its place to the next", function()
    assert.equal("consumer + route", runs(start(ORDER, function(scope)
      if #scope == 3 then return scope[1] == "consumer" and { enabled = false } or { protocols = { "tcp" } } end
    end), "alice"))
  end)

  it("tags change nothing", function()
    assert.equal("consumer + route + service", runs(start(ORDER, function() return { tags = { "a" } } end), "alice"))
  end)

  it("none runs for who has none, and the others of the route do", function()
    local gateway = start { { "consumer" }, { "consumer_group", "route" } }
    assert.equal("consumer_group + route", runs(gateway, "alice"))
    assert.equal("consumer_group + route", runs(gateway, "bob"))
    assert.is_nil(runs(gateway, "carol"))
    assert.equal("consumer", runs(gateway, "alice", "/q"))
    assert.is_nil(runs(gateway, "bob", "/q"))
  end)
end)

describe("an order of plugins", function()
  local function problem(plugins, more)
    local options = { plugins = plugins }
    for name, value in pairs(more or {}) do options[name] = value end
    return select(2, spec.check(options))
  end

  it("that leads around in a ring is wrong, whoever asks for it", function()
    assert.matches("plugins order each other in a ring: key%-auth, acl", problem {
      { name = "key-auth", ordering = { after = { access = { "acl" } } } },
      { name = "acl", config = { allow = { "a" } }, ordering = { after = { "key-auth" } } },
    })
    assert.matches('route "r": plugins order each other in a ring: key%-auth, acl', problem({
      { name = "key-auth", ordering = { after = { "acl" } } },
    }, {
      routes = { { name = "q", paths = { "/q" } }, { name = "r", paths = { "/r" }, plugins = {
        { name = "acl", config = { allow = { "a" } }, ordering = { after = { access = { "key-auth" } } } } } } },
    }))
  end)

  it("that does not is good", function()
    assert.is_nil(problem {
      { name = "key-auth", ordering = { after = { access = { "acl" } } } },
      { name = "acl", config = { allow = { "a" } }, ordering = { before = { access = { "key-auth" } } } },
    })
  end)

  it("in the form of Kong is that of one phase", function()
    local function handler(name, priority)
      return { handler = ([[
        local it = { version = "1.0.0", priority = %d }
        function it.access(_, exchange) exchange.response:add_header("X-Access", "%s") end
        function it.header_filter(_, exchange) exchange.response:add_header("X-Filter", "%s") end
        return it]]):format(priority, name, name) }
    end
    local gateway = spec.gateway {
      plugins_code = { high = handler("high", 900), low = handler("low", 100) },
      plugins = { { name = "high" }, { name = "low", ordering = { before = { access = { "high" } } } } },
    }
    local headers = gateway:get("/").headers
    assert.same({ "low, high", "high, low" }, { headers["x-access"], headers["x-filter"] })
  end)
end)
