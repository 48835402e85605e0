-- SPDX-License-Identifier: Apache-2.0
local kafka = require "spec.support.kafka"
local redis = require "spec.support.redis"

describe("services of the specs", function()
  it("start Redis, ask it and stop it", function()
    local server = redis.start({ password = "secret" })
    assert.equal("OK", server:command("SET", "a", "1"))
    assert.equal("1", server:command("GET", "a"))
    assert.same({ "a" }, server:command("KEYS", "*"))
    server:stop()
    assert.is_nil(server:command("PING"))
  end)

  it("share one Kafka broker, with topics of each spec's own", function()
    local broker = kafka.shared()
    assert.equal(broker, kafka.shared())
    local topic = broker:topic(3)
    assert.not_equal(topic, broker:topic())
    assert.same({ nil, 36 }, { broker:create_topic(topic) })
  end)
end)
