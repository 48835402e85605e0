-- SPDX-License-Identifier: Apache-2.0
local bit = require "bit"
local phases = require "sluice.phases"
local plan = require "sluice.plan"

local ACCESS, LOG, REWRITE = phases.numbers.access, phases.numbers.log, phases.numbers.rewrite

local function plugin(name, priority, names)
  local handler = {}
  for phase in (names or "access"):gmatch("%S+") do handler[phase] = function() end end
  return { name = name, priority = priority, version = "1", handler = handler, place = 1 }
end

describe("a plan", function()
  local loaded

  before_each(function()
    loaded = {
      auth = plugin("auth", 1000, "access"),
      limit = plugin("limit", 900, "access header_filter"),
      early = plugin("early", 5, "rewrite access log"),
      logger = plugin("logger", 10, "log"),
      twin = plugin("twin", 900, "access"),
    }
  end)

  local function planner(instances, previous)
    local made = plan.new(loaded, previous)
    for _, instance in ipairs(instances) do
      instance.config = instance.config or {}
      made:add(instance)
    end
    made:settle()
    return made
  end

  local function names(list)
    local out = {}
    for i, item in ipairs(list or {}) do out[i] = item.name end
    return out
  end

  it("runs plugins by priority, then by name", function()
    local made = planner({ { name = "logger" }, { name = "twin" }, { name = "early" }, { name = "limit" },
      { name = "auth" } }):plan("r1", "s1")
    assert.same({ "auth", "limit", "twin", "early" }, names(made[ACCESS]))
    assert.same({ "logger", "early" }, names(made[LOG]))
  end)

  it("says which phases have plugins", function()
    local made = planner({ { name = "limit" } }):plan("r1", nil)
    assert.equal(bit.bor(2 ^ ACCESS, 2 ^ phases.numbers.header_filter), made.mask)
    assert.equal(0, planner({}):plan("r1", "s1").mask)
  end)

  describe("of a plugin that says what its configuration needs", function()
    local HEADER_FILTER, asked = phases.numbers.header_filter, 0

    before_each(function()
      asked = 0
      loaded.picky = plugin("picky", 50, "access header_filter")
      loaded.picky.handler.needs = function(conf)
        asked = asked + 1
        return conf.needs
      end
    end)

    it("has only the phases needed", function()
      local made = planner({ { name = "picky", config = { needs = { access = true } } } }):plan("r1", nil)
      assert.equal(2 ^ ACCESS, made.mask)
      assert.is_nil(made[HEADER_FILTER])
    end)

    it("has none when nothing is needed", function()
      assert.equal(0, planner({ { name = "picky", config = { needs = {} } } }):plan("r1", nil).mask)
    end)

    it("has a phase that only a consumer's instance needs, without the one that does not", function()
      local made = planner({ { name = "picky", config = { needs = { access = true } } },
        { name = "picky", consumer = "c1", config = { needs = { header_filter = true } } } }):plan("r1", nil)
      assert.is_nil(made[HEADER_FILTER][1].conf)
      assert.is_not_nil(made[HEADER_FILTER][1].levels)
      assert.is_not_nil(made[ACCESS][1].conf)
    end)

    it("asks once a configuration, over generations", function()
      local instances = { { name = "picky", config = { needs = { access = true } } } }
      local first = planner(instances)
      first:plan("r1", nil)
      planner(instances, first):plan("r2", nil)
      assert.equal(1, asked)
    end)
  end)

  it("leaves out what is disabled, or for streams only", function()
    local made = planner({ { name = "auth", enabled = false }, { name = "limit", protocols = { "tcp", "udp" } },
      { name = "twin", protocols = { "grpc", "https" } } }):plan("r1", nil)
    assert.same({ "twin" }, names(made[ACCESS]))
  end)

  it("runs the most specific instance of each plugin", function()
    local made = planner({
      { name = "auth", config = { "global" } }, { name = "auth", route = "r1", config = { "route" } },
      { name = "auth", service = "s1", config = { "service" } },
      { name = "auth", route = "r2", service = "s1", config = { "both" } },
      { name = "auth", route = "r2", config = { "route 2" } },
    })
    local function conf(route, service)
      local list = made:plan(route, service)[ACCESS]
      assert.equal(1, #list)
      return list[1].conf[1]
    end
    assert.equal("route", conf("r1", "s1"))
    assert.equal("both", conf("r2", "s1"))
    assert.equal("route 2", conf("r2", "s2"))
    assert.equal("service", conf("r3", "s1"))
    assert.equal("global", conf("r3", "s2"))
    assert.equal("global", conf(nil, nil))
  end)

  it("takes references as ids or as tables", function()
    local made = planner({ { name = "auth", route = { id = "r1" }, config = { "route" } } })
    assert.equal("route", made:plan("r1", "s1")[ACCESS][1].conf[1])
    assert.is_nil(made:plan("r2", "s1")[ACCESS])
  end)

  it("keeps instances for consumers and groups as levels, in Kong's order", function()
    local made = planner({
      { name = "auth", config = { "global" } },
      { name = "auth", consumer = "c", config = { "consumer" } },
      { name = "auth", consumer_group = "g", config = { "group" } },
      { name = "auth", consumer = "c", route = "r1", config = { "consumer route" } },
      { name = "auth", consumer = "c", service = "s1", config = { "consumer service" } },
      { name = "auth", consumer_group = "g", route = "r1", config = { "group route" } },
      { name = "auth", consumer_group = "g", service = "s1", config = { "group service" } },
      { name = "auth", consumer_group = "g", route = "r1", service = "s1", config = { "group both" } },
      { name = "auth", consumer = "c", route = "r1", service = "s1", config = { "consumer both" } },
    })
    local item = made:plan("r1", "s1")[ACCESS][1]
    local order = {}
    for i, level in ipairs(item.levels) do order[i] = (level.confs.c or level.confs.g)[1] end
    assert.same({ "consumer both", "group both", "consumer route", "consumer service", "group route",
      "group service", "consumer", "group" }, order)
    assert.equal("global", item.conf[1])
    assert.same({ "consumer", "group" }, { made:plan("r2", "s2")[ACCESS][1].levels[1].confs.c[1],
      made:plan("r2", "s2")[ACCESS][1].levels[2].confs.g[1] })
  end)

  it("puts an instance for route and service before one for the consumer alone", function()
    local made = planner({ { name = "auth", consumer = "c", config = { "consumer" } },
      { name = "auth", route = "r1", service = "s1", config = { "both" } } })
    assert.is_nil(made:plan("r1", "s1")[ACCESS][1].levels)
  end)

  it("runs a plugin with levels only although it has no plain instance", function()
    local item = planner({ { name = "auth", consumer = "c" } }):plan("r1", nil)[ACCESS][1]
    assert.is_nil(item.conf)
    assert.equal(1, #item.levels)
  end)

  describe("with an order of its own", function()
    it("runs a plugin before others of higher priority", function()
      local made = planner({ { name = "auth" }, { name = "limit" },
        { name = "early", ordering = { before = { "auth" } } } }):plan("r1", nil)
      assert.same({ "limit", "early", "auth" }, names(made[ACCESS]))
    end)

    it("runs a plugin after others of lower priority", function()
      local made = planner({ { name = "auth", ordering = { after = { "limit", "absent" } } }, { name = "limit" },
        { name = "early" } }):plan("r1", nil)
      assert.same({ "limit", "auth", "early" }, names(made[ACCESS]))
    end)

    it("takes Kong's form, for one phase", function()
      local made = planner({ { name = "early", ordering = { before = { access = { "auth" } } } }, { name = "auth" },
        { name = "logger" } }):plan("r1", nil)
      assert.same({ "early", "auth" }, names(made[ACCESS]))
      assert.same({ "logger", "early" }, names(made[LOG]))
    end)

    it("refuses a ring, and names those in it", function()
      local made, err = planner({ { name = "auth", ordering = { after = { "limit" } } },
        { name = "limit", ordering = { after = { "auth" } } }, { name = "twin" } }):plan("r1", nil)
      assert.is_nil(made)
      assert.matches("order each other in a ring: auth, limit$", err)
    end)
  end)

  it("is shared by routes without plugins of their own", function()
    local made = planner({ { name = "auth" }, { name = "limit", service = "s1" }, { name = "twin", route = "r9" } })
    assert.equal(made:plan("r1", "s1"), made:plan("r2", "s1"))
    assert.equal(made:plan("r3", "s2"), made:plan("r4", nil))
    assert.not_equal(made:plan("r1", "s1"), made:plan("r3", "s2"))
    assert.not_equal(made:plan("r9", "s2"), made:plan("r3", "s2"))
  end)

  it("has rewrite of the global plugins only, and not in a route's mask", function()
    local made = planner({ { name = "early", config = { "global" } },
      { name = "early", route = "r1", config = { "route" } } })
    local its = made:plan("r1", "s1")
    assert.equal("global", its[REWRITE][1].conf[1])
    assert.equal("route", its[ACCESS][1].conf[1])
    assert.equal(0, bit.band(plan.route_mask(its), 2 ^ REWRITE))
    assert.equal(2 ^ REWRITE + 2 ^ LOG, plan.no_route_mask(made:plan(nil, nil)))
  end)

  describe("of the next generation", function()
    local instances

    before_each(function()
      instances = { { name = "limit", config = {} }, { name = "auth", route = "r1", config = {} },
        { name = "auth", route = "r2", config = {} } }
    end)

    it("is the same one when nothing in it has changed", function()
      local before = planner(instances)
      local r1, r2, shared = before:plan("r1", "s1"), before:plan("r2", "s1"), before:plan("r3", "s1")
      local changed = { instances[1], instances[2], { name = "auth", route = "r2", config = {} } }
      local after = planner(changed, before)
      assert.equal(r1, after:plan("r1", "s1"))
      assert.equal(shared, after:plan("r3", "s1"))
      assert.not_equal(r2, after:plan("r2", "s1"))
      assert.not_equal(r1, after:plan("r1", "s2"))
    end)

    it("is new when a global instance has changed", function()
      local before = planner(instances)
      local r1 = before:plan("r1", "s1")
      local after = planner({ { name = "limit", config = {} }, instances[2], instances[3] }, before)
      assert.not_equal(r1, after:plan("r1", "s1"))
    end)

    it("is new when a plugin's code has changed", function()
      local before = planner(instances)
      local r1 = before:plan("r1", "s1")
      local old = loaded
      loaded = { auth = plugin("auth", 1000, "access"), limit = old.limit }
      local after = planner(instances, before)
      assert.not_equal(r1, after:plan("r1", "s1"))
      assert.equal(loaded.auth.handler.access, after:plan("r1", "s1")[ACCESS][1].run)
    end)
  end)
end)
