-- SPDX-License-Identifier: Apache-2.0
local indexes = require "sluice.indexes"

describe("indexes of a generation's entities", function()
  local alice, bob, key_a, key_b

  before_each(function()
    alice, bob = { id = "1", username = "alice" }, { id = "2", username = "bob" }
    key_a, key_b = { id = "k1", key = "open", consumer = "1" }, { id = "k2", key = "sesame", consumer = { id = "1" } }
  end)

  local function generation(entities)
    return { entities = entities, indexes = {} }
  end

  it("find an entity by any field", function()
    local held = generation { consumers = { alice, bob } }
    assert.equal(bob, indexes.find(held, "consumers", "username", "bob"))
    assert.equal(alice, indexes.find(held, "consumers", "id", "1"))
    assert.is_nil(indexes.find(held, "consumers", "username", "eve"))
    assert.is_nil(indexes.find(held, "consumers", "custom_id", "x"))
    assert.is_nil(indexes.find(held, "acls", "group", "x"))
  end)

  it("find all that refer to another, in order", function()
    local held = generation { keyauth_credentials = { key_a, key_b } }
    assert.same({ key_a, key_b }, indexes.all(held, "keyauth_credentials", "consumer", "1"))
    assert.same({}, indexes.all(held, "keyauth_credentials", "consumer", "2"))
    assert.same({}, indexes.all(held, "acls", "consumer", "1"))
  end)

  describe("of the next generation", function()
    local old

    before_each(function()
      old = generation { consumers = { alice, bob }, keyauth_credentials = { key_a, key_b } }
      indexes.find(old, "keyauth_credentials", "key", "open")
      indexes.all(old, "keyauth_credentials", "consumer", "1")
      indexes.find(old, "consumers", "id", "1")
    end)

    it("are ready before it is asked", function()
      local key_c = { id = "k3", key = "new", consumer = "2" }
      local held = generation { consumers = { alice, bob }, keyauth_credentials = { key_a, key_c } }
      local paces = 0
      indexes.carry(old, held, function() paces = paces + 1 end)
      held.entities = {} -- whatever is found now had been made before
      assert.equal(key_c, indexes.find(held, "keyauth_credentials", "key", "new"))
      assert.is_nil(indexes.find(held, "keyauth_credentials", "key", "sesame"))
      assert.same({ key_c }, indexes.all(held, "keyauth_credentials", "consumer", "2"))
      assert.equal(4, paces)
    end)

    it("are the same ones where the entities are", function()
      local held = generation { consumers = { alice, bob }, keyauth_credentials = { key_a } }
      indexes.carry(old, held, function() end)
      assert.equal(old.indexes.consumers.id.one, held.indexes.consumers.id.one)
      assert.not_equal(old.indexes.keyauth_credentials.key.one, held.indexes.keyauth_credentials.key.one)
    end)

    it("do not outlive the entities of a kind", function()
      local held = generation {}
      indexes.carry(old, held, function() end)
      assert.is_nil(indexes.find(held, "consumers", "id", "1"))
    end)
  end)
end)
