-- SPDX-License-Identifier: Apache-2.0
local bit = require "bit"
local handshakes = require "sluice.handshakes"
local phases = require "sluice.phases"

local CERTIFICATE, ACCESS = phases.numbers.certificate, phases.numbers.access

describe("handshakes", function()
  local called

  local function plugin(name, priority)
    return { name = name, version = "1", priority = priority, place = 1,
      handler = { certificate = function(conf) called[#called + 1] = name .. ":" .. conf.id end } }
  end

  local PLUGINS = { late = plugin("late", 1), early = plugin("early", 9), without = { handler = {}, priority = 5 } }
  local ROUTES = {
    { id = "plain", service = "s", snis = { "plain.test" }, protocols = { "http" } },
    { id = "named", service = "s", snis = { "a.test", "B.test" }, protocols = { "https" } },
    { id = "wild", service = { id = "t" }, snis = { "*.wild.test", "any.*" }, protocols = { "http", "https" } },
    { id = "open", service = "u", protocols = { "https" } },
  }

  local function instance(name, id, scope)
    local it = { name = name, config = { id = id } }
    for key, value in pairs(scope) do it[key] = value end
    return it
  end

  -- What a handshake with that server name calls.
  local function run(made, name)
    called = {}
    local exchange = { client = { tls = { get_server_name = function() return name end } } }
    for _, item in ipairs(made[CERTIFICATE]) do item.run(item.conf, exchange) end
    return table.concat(called, " ")
  end

  local function extend(instances, globals)
    return handshakes.extend({ plugins = PLUGINS, entities = { plugins = instances, routes = ROUTES } },
      globals or { mask = 0 })
  end

  it("are none of a plan without such plugins", function()
    local globals = { mask = 5 }
    assert.equal(globals, extend({ instance("without", 1, { route = "named" }), instance("late", 2, {}),
      instance("late", 3, { route = "named", enabled = false }), instance("late", 4, { route = "plain" }) }, globals))
  end)

  it("run the instances of routes that the server name leaves possible", function()
    local made = extend { instance("late", 1, { route = "named" }), instance("late", 2, { route = { id = "wild" } }) }
    assert.same({ "late:1", "late:1", "late:2", "late:2", "", "", "", "" }, { run(made, "a.test"), run(made, "b.test"),
      run(made, "x.wild.test"), run(made, "any.org"), run(made, "wild.test"), run(made, "x.y.wild.test"),
      run(made, "plain.test"), run(made, nil) })
    assert.equal(bit.lshift(1, CERTIFICATE), made.mask)
  end)

  it("run those of services by the names of all their routes, and of routes without names by any", function()
    local made = extend { instance("late", 1, { service = "s" }), instance("late", 2, { service = "u" }),
      instance("late", 3, { service = "s", route = "named" }), instance("late", 4, { service = "t", route = "named" }) }
    assert.same({ "late:2 late:1 late:3", "late:2", "late:2" },
      { run(made, "a.test"), run(made, "other.test"), run(made, nil) })
  end)

  it("run each plugin in its turn, and the global instances too, whose plan stays as it was", function()
    local own = { run = function() called[#called + 1] = "own" end, name = "without", conf = {} }
    local globals = { mask = bit.lshift(1, ACCESS), [CERTIFICATE] = { own }, [ACCESS] = { "x" } }
    local made = extend({ instance("late", 1, { route = "open" }), instance("early", 2, { route = "open" }) }, globals)
    assert.equal("early:2 own late:1", run(made, "x"))
    assert.same({ own }, globals[CERTIFICATE])
    assert.equal(globals[ACCESS], made[ACCESS])
    assert.equal(bit.bor(bit.lshift(1, ACCESS), bit.lshift(1, CERTIFICATE)), made.mask)
  end)
end)
