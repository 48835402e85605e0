-- SPDX-License-Identifier: Apache-2.0
-- The document, by AsyncAPI's own definition of documents (`make peers`), and what is in it.
local spec = require "sluice.spec"
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"
local process = require "spec.support.process"

local DEFINITION = ".cache/peers/asyncapi/schemas/3.0.0.json"

describe("asyncapi", function()
  local gateway, definition

  setup(function()
    definition = assert(json_schema.compile(json.decode(process.read_file(DEFINITION)), { draft = "7" }))
  end)

  local DOCUMENT = { name = "document", paths = { "/asyncapi.json" } }

  local function event_route(name, plugin, config, more)
    local route = { name = name, paths = { "/" .. name }, plugins = { { name = plugin, config = config } } }
    for key, value in pairs(more or {}) do route[key] = value end
    return route
  end

  local function start(routes, config, more)
    local list = { { name = "document", paths = DOCUMENT.paths, plugins = { { name = "asyncapi", config = config } } } }
    for _, route in ipairs(routes) do list[#list + 1] = route end
    local options = { routes = list, topics = { orders = 1 } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
    return gateway
  end

  -- The document, which must be one by AsyncAPI's definition; the text is decoded by the decoder that keeps arrays.
  local function document(headers)
    local response = gateway:get("/asyncapi.json", headers)
    assert.equal(200, response.status, response.body)
    local value = assert(json.decode(response.body))
    local ok, errors = definition:validate(value)
    local first = errors and errors[1]
    assert.is_true(ok, first and ("%s: expected %s, found %s"):format(first.instance, first.expected, first.found))
    return value, response
  end

  local function refused(config)
    local ok, err = spec.check { routes = { { name = "d", paths = { "/d" },
      plugins = { { name = "asyncapi", config = config } } } } }
    assert.is_nil(ok)
    return err
  end

  local PRODUCE = event_route("orders", "kafka-upstream", { topic = "orders", value = "body" },
    { methods = { "POST" } })
  local CONSUME = event_route("order-events", "kafka-consume", { topics = { { name = "orders" } },
    mode = "server-sent-events" })

  it("is a document even where no route carries events", function()
    start {}
    local value, response = document()
    assert.equal("3.0.0", value.asyncapi)
    assert.same({ title = "Events", version = "1.0.0" }, value.info)
    assert.is_nil(value.channels)
    assert.equal("application/vnd.aai.asyncapi+json;version=3.0.0", response.headers["content-type"])
  end)

  it("tells of requests that become records, and how they are answered", function()
    start { PRODUCE }
    local value = document()
    local channel, operation = value.channels.orders, value.operations["orders.post"]
    assert.equal("/orders", channel.address)
    assert.same({ "receive", "#/channels/orders", "POST" }, { operation.action, operation.channel["$ref"],
      operation.bindings.http.method })
    assert.equal("#/channels/orders/messages/orders.message", operation.messages[1]["$ref"])
    assert.equal("orders", value.components.messages["orders.message"].name)
    assert.equal("#/channels/orders/messages/acknowledgement", operation.reply.messages[1]["$ref"])
    assert.equal(200, value.components.messages.acknowledgement.bindings.http.statusCode)
  end)

  it("tells of records that are only queued, and of batches", function()
    start { event_route("orders", "kafka-upstream", { topic = "orders", wait = false, batch = "array" }) }
    local value = document()
    local operation = value.operations["orders.post"]
    assert.equal("#/channels/orders/messages/accepted", operation.reply.messages[1]["$ref"])
    assert.matches("batch", operation.description)
  end)

  it("tells of records that clients read, whole or as they are", function()
    start { CONSUME, event_route("whole", "kafka-consume", { topics = { { name = "orders" } }, mode = "ndjson",
      event = "record" }) }
    local value = document()
    local operation = value.operations["order-events.get"]
    assert.same({ "send", "GET" }, { operation.action, operation.bindings.http.method })
    assert.matches("Last-Event-ID", operation.description, 1, true)
    assert.equal("#/channels/whole/messages/orders.message.record", value.operations["whole.get"].messages[1]["$ref"])
    assert.equal("orders", value.components.messages["orders.message.record"].payload.properties.topic.const)
  end)

  it("tells of records as CloudEvents, and of the newest value of a key", function()
    start { event_route("told", "kafka-consume", { topics = { { name = "orders" } }, event = "cloudevent" }),
      event_route("newest", "kafka-consume", { topics = { { name = "orders" } }, mode = "newest",
        key_argument = "key" }) }
    local value = document()
    assert.equal("#/channels/told/messages/orders.message.cloudevent", value.operations["told.get"].messages[1]["$ref"])
    assert.equal("application/cloudevents+json", value.components.messages["orders.message.cloudevent"].contentType)
    assert.matches("newest value", value.operations["newest.get"].description, 1, true)
  end)

  it("tells of WebSockets", function()
    start { event_route("live", "kafka-consume", { topics = { { name = "orders" } }, mode = "websocket" }) }
    assert.equal("GET", document().channels.live.bindings.ws.method)
  end)

  it("tells of requests that are answered by records", function()
    start { event_route("prices", "kafka-request-reply", { topic = "asked", reply_topic = "told" }) }
    local operation = document().operations["prices.post"]
    assert.equal("#/channels/prices/messages/asked.message", operation.messages[1]["$ref"])
    assert.equal("#/channels/prices/messages/told.message", operation.reply.messages[1]["$ref"])
  end)

  it("tells of the REST Proxy API, below its prefix and as far as it is offered", function()
    start { event_route("kafka", "kafka-rest"), event_route("reading", "kafka-rest", { operations = { "read" } }),
      event_route("cloud", "confluent", { topic = "orders", cluster_api_key = "a", cluster_api_secret = "b" }),
      event_route("own", "kafka-rest", { prefix = "/proxy/", operations = { "consume" } }) }
    local value = document()
    assert.equal("/kafka/topics/{topic}", value.channels["kafka.topics"].address)
    assert.equal("/kafka/v3/clusters/{cluster}/topics/{topic}/records", value.channels["kafka.records"].address)
    assert.equal("/proxy/consumers/{group}/instances/{instance}/records", value.channels["own.instances"].address)
    assert.same({ "receive", "receive", "send" }, { value.operations["kafka.topics.post"].action,
      value.operations["kafka.records.post"].action, value.operations["own.instances.get"].action })
    assert.equal("#/channels/kafka.topics/messages/rest.offsets",
      value.operations["kafka.topics.post"].reply.messages[1]["$ref"])
    assert.is_nil(value.channels["own.topics"])
    for name in pairs(value.channels) do assert.is_nil(name:find("reading", 1, true)) end
    assert.equal("receive", value.operations["cloud.post"].action)
  end)

  it("shows topics and brokers only when told to", function()
    local more = { gateway = { kafka = { main = { ["bootstrap.servers"] = "broker.example:9093",
      ["security.protocol"] = "ssl" } } } }
    start({ PRODUCE, CONSUME }, {}, more)
    assert.not_matches("broker.example", gateway:get("/asyncapi.json").body, 1, true)
    gateway:close()
    start({ PRODUCE, CONSUME }, { topics = true }, more)
    local value = document()
    assert.same({ host = "broker.example:9093", protocol = "kafka-secure", description = "the cluster main" },
      value.servers["kafka-main"])
    local channel = value.channels["kafka.main.orders"]
    assert.same({ "orders", "orders" }, { channel.address, channel.bindings.kafka.topic })
    assert.equal("send", value.operations["orders.send.orders"].action)
    assert.equal("receive", value.operations["order-events.receive.orders"].action)
  end)

  it("names topics that a request may choose", function()
    start { event_route("any", "kafka-upstream", { topic = "$(query.topic)", allowed_topics = { "a", "b" } }) }
    local messages = document().operations["any.post"].messages
    assert.equal("#/channels/any/messages/a.message", messages[1]["$ref"])
    assert.equal("#/channels/any/messages/b.message", messages[2]["$ref"])
  end)

  it("has a channel for each path, with parameters where a regular expression names them", function()
    start { event_route("orders", "kafka-upstream", { topic = "orders" }, {
      paths = { "/orders", "~/shops/(?<shop>\\d+)/orders$" } }) }
    local value = document()
    assert.equal("/orders", value.channels.orders.address)
    assert.equal("/shops/{shop}/orders", value.channels["orders.2"].address)
    assert.matches("\\d+", value.channels["orders.2"].parameters.shop.description, 1, true)
  end)

  describe("says where the gateway is", function()
    it("as the client sees it", function()
      start { PRODUCE }
      assert.same({ host = "events.example:8443", protocol = "http" },
        document({ Host = "events.example:8443" }).servers.gateway)
    end)

    it("as the proxy before it is seen", function()
      start({ PRODUCE }, {}, { gateway = { trusted_ips = { "0.0.0.0/0" } } })
      assert.same({ host = "events.example", protocol = "https" }, document({ ["X-Forwarded-Proto"] = "https",
        ["X-Forwarded-Host"] = "events.example", ["X-Forwarded-Port"] = "443" }).servers.gateway)
    end)

    it("as it is told, and for routes of certain hosts by these", function()
      start({ PRODUCE, event_route("other", "kafka-upstream", { topic = "orders" }, { hosts = { "other.example" } }) },
        { servers = { "https://events.example/api", "wss://events.example" } })
      local value = document()
      assert.same({ host = "events.example", protocol = "https", pathname = "/api" }, value.servers.gateway)
      assert.equal("wss", value.servers["gateway-2"].protocol)
      assert.same({ { ["$ref"] = "#/servers/host-other.example" } }, value.channels.other.servers)
    end)
  end)

  describe("tells what is in messages", function()
    it("as it is told", function()
      start({ PRODUCE }, { messages = { { topic = "orders", name = "OrderPlaced", title = "An order", summary = "s",
        description = "d", content_type = "application/vnd.order+json", examples = { '{"item":"book"}', "plain" },
        schema = '{"type":"object","required":["item"]}' } } })
      local message = document().components.messages["orders.message"]
      assert.same({ "OrderPlaced", "An order", "s", "d", "application/vnd.order+json" }, { message.name, message.title,
        message.summary, message.description, message.contentType })
      assert.same({ type = "object", required = { "item" } }, message.payload)
      assert.same({ payload = { item = "book" } }, message.examples[1])
    end)

    it("as request-validator demands it", function()
      local route = event_route("orders", "kafka-upstream", { topic = "orders" })
      route.plugins[2] = { name = "request-validator", config = { version = "draft202012",
        body_schema = '{"type":"object"}' } }
      start { route }
      assert.same({ schemaFormat = "application/schema+json;version=draft-2020-12", schema = { type = "object" } },
        document().components.messages["orders.message"].payload)
    end)
  end)

  it("tells how clients show who they are", function()
    local route = event_route("orders", "kafka-upstream", { topic = "orders" })
    route.plugins[2] = { name = "key-auth", config = { key_in_query = false } }
    route.plugins[3] = { name = "basic-auth" }
    start({ route, CONSUME }, {}, { plugins = { { name = "jwt" } } })
    gateway:close()
    start({ route, CONSUME })
    local value = document()
    assert.same({ { ["$ref"] = "#/components/securitySchemes/basic" },
      { ["$ref"] = "#/components/securitySchemes/key-in-header-apikey" } }, value.operations["orders.post"].security)
    assert.same({ type = "httpApiKey", name = "apikey", ["in"] = "header" },
      value.components.securitySchemes["key-in-header-apikey"])
    assert.is_nil(value.operations["order-events.get"].security)
  end)

  it("tells of every other way to show who one is", function()
    for plugin, scheme in pairs { jwt = "bearer-token", ["hmac-auth"] = "hmac" } do
      local route = event_route("orders", "kafka-upstream", { topic = "orders" })
      route.plugins[2] = { name = plugin }
      start { route }
      assert.is_table(document().components.securitySchemes[scheme])
      gateway:close()
    end
  end)

  it("leaves out routes without one of the tags, and instances for some consumers", function()
    start({ event_route("orders", "kafka-upstream", { topic = "orders" }, { tags = { "public" } }),
      event_route("inner", "kafka-upstream", { topic = "orders" }, { tags = { "inner" } }) },
      { route_tags = { "public", "partner" } })
    local value = document()
    assert.is_table(value.channels.orders)
    assert.is_nil(value.channels.inner)
    assert.same({ { name = "public" } }, value.operations["orders.post"].tags)
  end)

  it("has what it is told in its info", function()
    start({}, { title = "Shop", version = "2.1", description = "All that happens.", id = "urn:example:shop",
      terms_of_service = "https://example.com/terms", contact = { name = "Ada", email = "ada@example.com" },
      license = { name = "Apache 2.0", url = "https://www.apache.org/licenses/LICENSE-2.0" } })
    local value = document()
    assert.equal("urn:example:shop", value.id)
    assert.same({ title = "Shop", version = "2.1", description = "All that happens.",
      termsOfService = "https://example.com/terms", contact = { name = "Ada", email = "ada@example.com" },
      license = { name = "Apache 2.0", url = "https://www.apache.org/licenses/LICENSE-2.0" } }, value.info)
  end)

  it("follows the configuration", function()
    start { PRODUCE }
    document()
    local routes = { { name = "document", paths = DOCUMENT.paths, plugins = { { name = "asyncapi" } } },
      event_route("more", "kafka-upstream", { topic = "orders" }) }
    assert.is_true(gateway:reload { routes = routes })
    local value = document()
    assert.is_table(value.channels.more)
    assert.is_nil(value.channels.orders)
  end)

  it("is the same text each time, and need not be sent to who has it", function()
    start({ PRODUCE, CONSUME }, { cache = 7 })
    local _, first = document()
    assert.same({ "max-age=7", "Host" }, { first.headers["cache-control"], first.headers.vary })
    assert.equal(304, gateway:get("/asyncapi.json", { ["If-None-Match"] = first.headers.etag }).status)
    assert.equal(200, gateway:get("/asyncapi.json", { ["If-None-Match"] = '"other"' }).status)
    assert.equal(200, gateway:head("/asyncapi.json").status)
    for i = 1, 70 do document { Host = "h" .. i .. ".example" } end
    assert.equal(first.body, gateway:get("/asyncapi.json").body)
  end)

  it("refuses other methods", function()
    start {}
    local response = gateway:post("/asyncapi.json", "x")
    assert.same({ 405, "GET, HEAD" }, { response.status, response.headers.allow })
  end)

  it("refuses a configuration that makes no document", function()
    assert.matches("schema: expected a JSON Schema", refused { messages = { { topic = "a", schema = "{" } } }, 1, true)
    assert.matches("schema: expected a JSON Schema",
      refused { messages = { { topic = "a", schema = "[1]" } } }, 1, true)
    assert.matches("schema: expected a JSON Schema",
      refused { messages = { { topic = "a", schema = '{"type":7}' } } }, 1, true)
    assert.matches("expected a URL with http", refused { servers = { "ftp://a" } }, 1, true)
    assert.matches("config.id", refused { id = "no uri" }, 1, true)
    assert.matches("config.cache", refused { cache = -1 }, 1, true)
  end)
end)
