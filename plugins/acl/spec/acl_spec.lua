-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

-- Leaves groups behind as a plugin does that asks a directory.
local FINDER = { handler = [[
  local finder = { version = "1.0.0", priority = 1000 }
  function finder.access(_, exchange)
    local groups = exchange.request:get_header("X-Found")
    if not groups then return end
    local list = {}
    for name in groups:gmatch("[^,]+") do list[#list + 1] = name end
    exchange.ctx.authenticated_groups = groups ~= "wrong" and list or "wrong"
  end
  return finder
]] }

describe("acl", function()
  local gateway

  local function consumer(name, groups, more)
    local made = { username = name, keyauth_credentials = { { key = name } }, acls = {} }
    for i, group in ipairs(groups) do made.acls[i] = { group = group } end
    for key, value in pairs(more or {}) do made[key] = value end
    return made
  end

  local function start(config, auth)
    gateway = spec.gateway {
      consumers = {
        consumer("alice", { "friends", "admins" }), consumer("bob", { "foes" }), consumer("carol", {}),
        consumer("dora", {}, { groups = { { name = "gold" } } }),
        consumer("eve", { "friends" }, { groups = { { name = "gold" }, { name = "black" } } }),
        consumer("nobody", {}), consumer("guest", { "guests" }),
      },
      consumer_groups = { { name = "gold" }, { name = "black" } },
      plugins_code = { finder = FINDER },
      plugins = { { name = "finder" }, { name = "acl", config = config },
        { name = "key-auth", config = auth or nil, enabled = auth ~= false } },
    }
  end

  local function send(key, headers)
    local fields = { apikey = key }
    for name, value in pairs(headers or {}) do fields[name] = value end
    return gateway:get("/", fields)
  end

  local function statuses(...)
    local list = {}
    for i, key in ipairs { ... } do list[i] = send(key).status end
    return list
  end

  local function seen()
    local requests = gateway:requests()
    return requests[#requests].headers
  end

  it("lets pass with allow who is in a group of it", function()
    start { allow = { "admins", "foes" } }
    assert.same({ 200, 200, 403, 403 }, statuses("alice", "bob", "carol", "dora"))
    local response = send "eve"
    assert.same({ 403, "You cannot consume this service" }, { response.status, response.json.message })
  end)

  it("lets pass with deny who is in none of it", function()
    start { deny = { "admins", "foes" } }
    assert.same({ 403, 403, 200, 200, 200 }, statuses("alice", "bob", "carol", "dora", "eve"))
  end)

  it("takes an empty list as none", function()
    start { allow = {}, deny = { "admins", "foes" } }
    assert.same({ 403, 403, 200 }, statuses("alice", "bob", "carol"))
    start { allow = { "admins", "foes" }, deny = {} }
    assert.same({ 200, 200, 403 }, statuses("alice", "bob", "carol"))
  end)

  it("takes the lists by their names of before Kong 3", function()
    start { whitelist = { "admins", "foes" }, blacklist = require("cjson").null }
    assert.same({ 200, 200, 403 }, statuses("alice", "bob", "carol"))
    start { blacklist = { "admins" } }
    assert.same({ 403, 200 }, statuses("alice", "bob"))
  end)

  it("takes groups by their exact names", function()
    start { allow = { "Friends", "friend", "friends " } }
    assert.equal(403, send("alice").status)
  end)

  it("tells the service all groups, and takes away what the client said", function()
    start { allow = { "friends" } }
    local headers = { ["X-Consumer-Groups"] = "root", x_consumer_groups = "root", ["X-Authenticated-Groups"] = "root",
      ["X.Authenticated_Groups"] = "root" }
    assert.equal(200, send("alice", headers).status)
    assert.equal("friends, admins", seen()["x-consumer-groups"])
    for _, name in ipairs { "x_consumer_groups", "x-authenticated-groups", "x.authenticated_groups" } do
      assert.is_nil(seen()[name])
    end
    start { deny = { "foes" } }
    assert.equal(200, send("carol", headers).status)
    assert.is_nil(seen()["x-consumer-groups"])
  end)

  it("tells it nothing with hide_groups_header", function()
    start { allow = { "friends" }, hide_groups_header = true }
    assert.equal(200, send("alice", { ["X-Consumer-Groups"] = "root" }).status)
    assert.is_nil(seen()["x-consumer-groups"])
  end)

  it("counts consumer groups with include_consumer_groups, and not without", function()
    start { allow = { "gold" } }
    assert.same({ 403, 403 }, statuses("dora", "eve"))
    start { allow = { "gold" }, include_consumer_groups = true }
    assert.same({ 200, 200, 403, 403 }, statuses("dora", "eve", "alice", "carol"))
    assert.equal(2, #gateway:requests())
    assert.equal("friends, black, gold", seen()["x-consumer-groups"])
    start { deny = { "gold" }, include_consumer_groups = true }
    assert.same({ 403, 403, 200 }, statuses("dora", "eve", "alice"))
  end)

  it("answers 401 when nobody knows who it is", function()
    start({ deny = { "foes" } }, false)
    local response = send "alice"
    assert.same({ 401, "Unauthorized" }, { response.status, response.json.message })
  end)

  describe("with an anonymous consumer", function()
    it("answers 401 with allow when it has no groups", function()
      start({ allow = { "friends" } }, { anonymous = "nobody" })
      local response = send "nobody's"
      assert.same({ 401, "Unauthorized" }, { response.status, response.json.message })
      assert.equal(403, send("carol").status)
    end)

    it("judges it by the groups that it has", function()
      start({ allow = { "guests" } }, { anonymous = "guest" })
      assert.equal(200, send("nobody's").status)
      assert.equal("guests", seen()["x-consumer-groups"])
      start({ deny = { "guests" } }, { anonymous = "guest" })
      assert.equal(403, send("nobody's").status)
      start({ deny = { "guests" } }, { anonymous = "nobody" })
      assert.equal(200, send("nobody's").status)
    end)
  end)

  describe("uses groups found elsewhere", function()
    local FOUND = { ["X-Found"] = "staff,friends" }

    it("when there is no consumer", function()
      start({ allow = { "friends" } }, false)
      assert.equal(200, send(nil, FOUND).status)
      assert.equal("staff, friends", seen()["x-authenticated-groups"])
      assert.is_nil(seen()["x-consumer-groups"])
      start({ deny = { "friends" } }, false)
      assert.equal(403, gateway:get("/", FOUND).status)
      start({ allow = { "friends" } }, false)
      assert.equal(401, gateway:get("/", { ["X-Found"] = "wrong" }).status)
      assert.equal(1, #gateway:log("authenticated_groups is no list"))
    end)

    it("in place of those of the anonymous consumer", function()
      start({ allow = { "staff" } }, { anonymous = "guest" })
      assert.equal(200, send("none", FOUND).status)
      assert.equal("staff, friends", seen()["x-authenticated-groups"])
    end)

    it("of a known consumer only with always_use_authenticated_groups", function()
      start { allow = { "staff" } }
      assert.equal(403, send("alice", FOUND).status)
      start { allow = { "staff" }, always_use_authenticated_groups = true }
      assert.equal(200, send("alice", FOUND).status)
      assert.equal(403, send("alice").status)
      start { allow = { "admins" }, always_use_authenticated_groups = true }
      assert.equal(200, send("alice").status)
      assert.equal(403, send("alice", FOUND).status)
    end)
  end)

  it("knows a new configuration's groups at once", function()
    start { allow = { "friends" } }
    assert.same({ 200, 403 }, statuses("alice", "carol"))
    assert(gateway:reload { consumers = { consumer("alice", {}), consumer("carol", { "friends" }) } })
    assert.same({ 403, 200 }, statuses("alice", "carol"))
  end)

  describe("refuses a configuration", function()
    local function problem(plugin)
      plugin.name = "acl"
      return select(2, spec.check { consumers = { { username = "alice" } }, plugins = { plugin } })
    end

    it("with both lists, or none", function()
      assert.matches("expected exactly one of config.allow or config.deny, found none of them",
        problem { config = {} }, 1, true)
      assert.matches("found none of them", problem { config = { allow = {}, deny = {} } }, 1, true)
      assert.matches("expected exactly one of config.allow or config.deny, found config.allow and config.deny",
        problem { config = { allow = { "a" }, deny = { "b" } } }, 1, true)
    end)

    it("for one consumer", function()
      assert.matches("consumer: expected nothing", problem { consumer = "alice", config = { allow = { "a" } } }, 1,
        true)
    end)
  end)
end)
