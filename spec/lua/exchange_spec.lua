-- SPDX-License-Identifier: Apache-2.0
local fake = require "spec.lua.support.fake_core"
local ffi = require "ffi"

describe("an exchange", function()
  local api, phases, exchange, E

  setup(function()
    fake.install()
    api = require "sluice.api"
    phases = require "sluice.phases"
    E = ffi.C
  end)

  teardown(fake.remove)

  before_each(function()
    fake.reset()
    exchange = api.new(7)
    exchange.phase, exchange.logged = phases.numbers.access, true
    require("sluice.exchanges").keep(7, exchange)
  end)

  local function run(phase, fn)
    exchange.phase = phases.numbers[phase]
    return fn()
  end

  -- The number of the line it is called in.
  local function here()
    return debug.getinfo(2, "l").currentline
  end

  describe("request", function()
    it("gives texts and numbers of the core", function()
      fake.texts[E.TEXT_METHOD], fake.texts[E.TEXT_RAW_TARGET] = "GET", "/a?b"
      fake.numbers[E.NUMBER_HTTP_VERSION] = 1.1
      assert.equal("GET", exchange.request:get_method())
      assert.equal("/a?b", exchange.request:get_path_with_query())
      assert.equal(1.1, exchange.request:get_http_version())
      assert.equal("", exchange.request:get_raw_query())
    end)

    it("finds a header in any case, and with underscores", function()
      fake.fields[0] = { { "X-Custom-Header", "bla" }, { "X-Another", "foo bar" }, { "X-Another", "baz" } }
      assert.equal("bla", exchange.request:get_header("x-custom-header"))
      assert.equal("bla", exchange.request:get_header("x_custom_header"))
      assert.equal("foo bar", exchange.request:get_header("X-Another"))
      assert.is_nil(exchange.request:get_header("x-none"))
    end)

    it("says whether a field is the only one of its name", function()
      fake.fields[0] = { { "Apikey", "one" }, { "X-Two", "a" }, { "x-two", "b" } }
      assert.same({ "one", false }, { exchange.request:get_only_header("apikey") })
      assert.same({ "a", true }, { exchange.request:get_only_header("X_Two") })
      assert.same({ nil, false }, { exchange.request:get_only_header("x-none") })
    end)

    it("finds each of several headers of one name", function()
      fake.fields[0] = { { "X-Another", "foo bar" }, { "X-Another", "baz" } }
      assert.equal("baz", exchange.request:get_header("x_another", 2))
      assert.is_nil(exchange.request:get_header("x-another", 3))
    end)

    it("does not take a field with underscores for one with dashes", function()
      fake.fields[0] = { { "X_Consumer_Id", "forged" } }
      assert.is_nil(exchange.request:get_header("X-Consumer-Id"))
      assert.is_nil(exchange.request:get_headers()["X-Consumer-Id"])
    end)

    it("gives all headers by lower-case name, repeated ones as arrays", function()
      fake.fields[0] = { { "Host", "foo.com" }, { "X-Another", "foo bar" }, { "X-Another", "baz" } }
      local headers = exchange.request:get_headers()
      assert.equal("foo.com", headers.host)
      assert.equal("foo bar", headers.x_another[1])
      assert.equal("baz", headers["X-Another"][2])
      assert.is_nil(headers.none)
    end)

    it("says when there were more headers than asked for", function()
      fake.fields[0] = { { "A", "1" }, { "B", "2" } }
      local headers, err = exchange.request:get_headers(1)
      assert.same({ "1", nil, "truncated" }, { headers.a, headers.b, err })
    end)

    it("decodes the query", function()
      fake.texts[E.TEXT_QUERY] = "foo=hello%20world&bar=baz&zzz&blo=&bar=bla&bar"
      local args = exchange.request:get_query()
      assert.same({ foo = "hello world", bar = { "baz", "bla", true }, zzz = true, blo = "" }, args)
      assert.equal("hello world", exchange.request:get_query_arg("foo"))
      assert.equal("baz", exchange.request:get_query_arg("bar"))
      assert.is_true(exchange.request:get_query_arg("zzz"))
      assert.equal("", exchange.request:get_query_arg("blo"))
    end)

    it("decodes a body by its content type", function()
      fake.fields[0] = { { "Content-Type", "application/json; charset=utf-8" } }
      fake.bodies[E.MESSAGE_REQUEST] = '{"a":[1,null]}'
      local body, err, mime = exchange.request:get_body()
      assert.is_nil(err)
      assert.same({ 1, "application/json" }, { body.a[1], mime })
      fake.bodies[E.MESSAGE_REQUEST] = "{"
      body, err = exchange.request:get_body()
      assert.is_nil(body)
      assert.matches("^invalid json body", err)
    end)

    it("gives captures of the route by number and name", function()
      fake.captures = { [0] = "/users/7", "7" }
      fake.capture_names = { { "id", 1 } }
      local captures = exchange.request:get_uri_captures()
      assert.same({ "/users/7", "7", "7" }, { captures.unnamed[0], captures.unnamed[1], captures.named.id })
    end)

    it("refuses a wrong argument, at the plugin's line", function()
      local line
      local ok, err = pcall(function()
        line = here() + 1
        local _ = exchange.request:get_header(7)
      end)
      assert.is_false(ok)
      assert.equal("spec/lua/exchange_spec.lua:" .. line
        .. ": exchange.request:get_header: name must be a string, got number 7", err)
    end)

    it("refuses a phase that does not allow it, at the plugin's line", function()
      local line
      exchange.phase = phases.numbers.log
      local ok, err = pcall(function()
        line = here() + 1
        local _ = exchange.request:get_raw_body()
      end)
      assert.is_false(ok)
      assert.equal("spec/lua/exchange_spec.lua:" .. line .. ": exchange.request:get_raw_body cannot be called in "
        .. "phase log; it can in rewrite, access, response, produce, consume", err)
    end)
  end)

  describe("response", function()
    local function answer(...)
      local ok, err = pcall(exchange.response.exit, exchange.response, ...)
      assert.is_false(ok)
      return err
    end

    it("exits with a table as JSON", function()
      assert.equal(phases.EXIT, answer(403, { message = "no" }, { ["X-Why"] = "policy" }))
      assert.same({ status = 403, body = '{"message":"no"}' }, fake.answer)
      assert.same({ { "X-Why", "policy" }, { "Content-Type", "application/json; charset=utf-8" } }, fake.fields[1])
      assert.is_true(exchange.answered)
    end)

    it("leaves the content type to the plugin that gives one", function()
      answer(200, { a = 1 }, { ["content-type"] = "application/hal+json" })
      assert.same({ { "content-type", "application/hal+json" } }, fake.fields[1])
    end)

    it("exits without a body", function()
      answer(204)
      assert.same({ status = 204 }, fake.answer)
    end)

    it("refuses a status that is none", function()
      assert.matches("exchange.response:exit: status must be an integer from 100 to 599, got number 42", answer(42))
      assert.is_nil(fake.answer)
    end)

    it("checks all headers before it sets any", function()
      local err = answer(200, "x", { A = "1", B = print })
      assert.matches('value of header "B" must be a string, number, boolean or an array of them, got function', err)
      assert.same({}, fake.fields[1])
    end)

    it("answers errors in the gateway's form", function()
      pcall(exchange.response.error, exchange.response, 403)
      assert.same({ status = 403, message = "Forbidden" }, fake.answer)
    end)

    it("answers errors in the form that the plugin chose", function()
      fake.texts[E.TEXT_ID] = "abc"
      pcall(exchange.response.error, exchange.response, 403, "go <away>", { ["Content-Type"] = "application/xml" })
      assert.matches("<message>go &lt;away&gt;</message>\n  <requestid>abc</requestid>", fake.answer.body)
      pcall(exchange.response.error, exchange.response, 403, "no", nil, "%s (%s), 100%%")
      assert.equal("no (abc), 100%", fake.answer.body)
    end)

    it("sets several values, trimmed, and does not touch the framing", function()
      exchange.response:set_header("X", { " a ", 2, true })
      exchange.response:add_header("X", "b")
      exchange.response:set_header("transfer-encoding", "chunked")
      assert.same({ { "X", "a" }, { "X", "2" }, { "X", "true" }, { "X", "b" } }, fake.fields[1])
      exchange.response:clear_header("x")
      assert.same({}, fake.fields[1])
    end)

    it("gathers the body over the chunks", function()
      fake.numbers[E.NUMBER_BUFFERED_MOST] = 1000
      local function chunk(text, last)
        exchange.chunk, exchange.last, exchange.taken = text, last, false
        return run("body_filter", function() return exchange.response:get_raw_body() end)
      end
      assert.is_nil(chunk("ab", false))
      assert.equal("", exchange.taken)
      assert.is_nil(chunk("", false))
      assert.equal("abcd", chunk("cd", true))
      assert.equal("abcd", exchange.taken)
    end)
  end)

  describe("service", function()
    it("takes a target, time-outs and retries", function()
      exchange.service:set_target("10.0.0.1", 8080)
      exchange.service:set_timeouts(1, 2, 3)
      exchange.service:set_retries(0)
      assert.same({ host = "10.0.0.1", port = 8080 }, fake.target)
      assert.equal(3, fake.numbers[E.NUMBER_READ_TIMEOUT_MS])
      assert.equal(0, fake.numbers[E.NUMBER_RETRIES])
    end)

    it("tells that an upstream is not there", function()
      local ok, err = exchange.service:set_upstream("none")
      assert.is_nil(ok)
      assert.equal("could not find an upstream named 'none'", err)
    end)

    it("escapes what cannot stand in a path, and nothing twice", function()
      exchange.service.request:set_path("/a b%20c/é?d#e")
      assert.equal("/a%20b%20c/%C3%A9%3Fd%23e", fake.texts[E.TEXT_SERVICE_PATH])
      assert.has_error(function() exchange.service.request:set_path("a") end)
    end)

    it("writes the query in alphabetical order", function()
      exchange.service.request:set_query { foo = "hello world", bar = { "baz", "bla", true }, zzz = true, blo = "" }
      assert.equal("bar=baz&bar=bla&bar&blo=&foo=hello%20world&zzz", fake.texts[E.TEXT_SERVICE_QUERY])
      exchange.service.request:clear_query_arg("bar")
      assert.equal("blo=&foo=hello%20world&zzz", fake.texts[E.TEXT_SERVICE_QUERY])
      assert.equal("blo=&foo=hello%20world&zzz", exchange.service.request:get_raw_query())
    end)

    it("refuses a raw query that could end the line", function()
      assert.has_error(function() exchange.service.request:set_raw_query("a\r\nb") end)
      assert.is_nil(fake.texts[E.TEXT_SERVICE_QUERY])
    end)

    it("encodes a body and sets its type", function()
      assert.is_true(exchange.service.request:set_body({ a = 1 }, "application/json"))
      assert.equal('{"a":1}', fake.bodies[E.MESSAGE_REQUEST])
      assert.same({ { "Content-Type", "application/json" } }, fake.fields[0])
      exchange.service.request:set_body({ a = "x" }, "multipart/form-data")
      local boundary = fake.fields[0][1][2]:match("^multipart/form%-data; boundary=(.+)$")
      assert.equal('--' .. boundary .. '\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--' .. boundary
        .. "--\r\n", fake.bodies[E.MESSAGE_REQUEST])
    end)
  end)

  describe("client", function()
    local function configure(entities)
      require("sluice.runtime").generations[3] = {
        plans = {}, entities = entities, indexes = {}, routes = {}, services = {},
      }
      fake.numbers[E.NUMBER_GENERATION] = 3
    end

    local ALICE = { id = "00000000-0000-4000-8000-000000000001", username = "alice" }

    it("loads a consumer by id, and by name when asked to", function()
      configure { consumers = { ALICE } }
      assert.equal(ALICE, exchange.client:load_consumer(ALICE.id))
      assert.equal(ALICE, exchange.client:load_consumer("alice", true))
      assert.is_nil((exchange.client:load_consumer("bob", true)))
      assert.has_error(function() exchange.client:load_consumer("alice") end)
    end)

    it("authenticates, and tells the consumer's groups", function()
      configure {
        consumers = { ALICE },
        consumer_groups = { { id = "g1", name = "silver" }, { id = "g2", name = "gold" } },
        consumer_group_consumers = {
          { consumer = { id = ALICE.id }, consumer_group = { id = "g1" } },
          { consumer = { id = ALICE.id }, consumer_group = { id = "g2" } },
        },
      }
      assert.is_nil(exchange.client:get_consumer_groups())
      exchange.client:authenticate(ALICE, { id = "c" })
      assert.equal(ALICE, exchange.client:get_consumer())
      assert.equal("c", exchange.client:get_credential().id)
      assert.equal("gold", exchange.client:get_consumer_group().name)
      assert.same({ "g2", "g1" }, exchange.consumer_group_ids)
      assert.equal(ALICE, exchange.consumer)
    end)

    it("tells the service whom it authenticated, and drops what the client said in any spelling", function()
      fake.fields[0] = { { "X_CONSUMER_ID", "forged" }, { "x-consumer.groups", "forged" },
        { "X-Anonymous-Consumer", "forged" }, { "X-Credential_Identifier", "forged" }, { "X-Consumer", "kept" } }
      exchange.client:authenticate({ id = "i", username = "alice" }, { id = "c" })
      exchange.client:forward_identity("c")
      assert.same({ { "X-Consumer", "kept" }, { "X-Consumer-ID", "i" }, { "X-Consumer-Username", "alice" },
        { "X-Credential-Identifier", "c" } }, fake.fields[0])
    end)

    it("tells the service of a consumer without a credential that it is anonymous", function()
      exchange.client:authenticate({ id = "i", custom_id = "7" })
      exchange.client:forward_identity()
      assert.same({ { "X-Consumer-ID", "i" }, { "X-Consumer-Custom-ID", "7" }, { "X-Anonymous-Consumer", "true" } },
        fake.fields[0])
    end)

    it("tells the service numbers that a plugin calls its consumer by", function()
      exchange.client:authenticate({ id = 12, username = "bob" }, { id = "c" })
      exchange.client:forward_identity("c")
      assert.same({ { "X-Consumer-ID", "12" }, { "X-Consumer-Username", "bob" }, { "X-Credential-Identifier", "c" } },
        fake.fields[0])
    end)

    it("refuses to authenticate nobody", function()
      assert.has_error(function() exchange.client:authenticate(nil, nil) end)
    end)
  end)

  it("tells its sizes and how long it took", function()
    fake.numbers = {
      [E.NUMBER_REQUEST_BYTES] = 100, [E.NUMBER_RESPONSE_BYTES] = 2000, [E.NUMBER_ELAPSED_US] = 5500,
      [E.NUMBER_GATEWAY_US] = 500, [E.NUMBER_SERVICE_US] = 4000, [E.NUMBER_RECEIVE_US] = 1000,
    }
    run("log", function()
      assert.same({ 5.5, 0.5, 4, 1 }, { exchange:get_latencies() })
      assert.same({ 100, 2000 }, { exchange.request:get_size(), exchange.response:get_size() })
      fake.numbers[E.NUMBER_SERVICE_US], fake.numbers[E.NUMBER_RECEIVE_US] = 0 / 0, 0 / 0
      assert.same({ 5.5, 0.5 }, { exchange:get_latencies() })
    end)
  end)

  it("tells the connection that it came over", function()
    fake.numbers = { [E.NUMBER_CONNECTION] = 7, [E.NUMBER_CONNECTION_REQUESTS] = 2, [E.NUMBER_PORT] = 8000 }
    fake.texts = { [E.TEXT_LOCAL_IP] = "192.0.2.1" }
    assert.same({ number = 7, requests = 2, local_ip = "192.0.2.1", local_port = 8000 },
      exchange.client:get_connection())
  end)

  describe("serialize", function()
    before_each(function()
      fake.texts = {
        [E.TEXT_ID] = "abc", [E.TEXT_METHOD] = "GET", [E.TEXT_SCHEME] = "http", [E.TEXT_HOST] = "example.com",
        [E.TEXT_RAW_TARGET] = "/a?b=1", [E.TEXT_QUERY] = "b=1", [E.TEXT_FORWARDED_IP] = "1.2.3.4",
        [E.TEXT_SERVICE_PATH] = "/v1/a", [E.TEXT_SERVICE_QUERY] = "b=1", [E.TEXT_TARGET_IP] = "10.0.0.1",
      }
      fake.numbers = {
        [E.NUMBER_PORT] = 8000, [E.NUMBER_STATUS] = 200, [E.NUMBER_SERVICE_STATUS] = 200, [E.NUMBER_TRIES] = 1,
        [E.NUMBER_TARGET_PORT] = 80, [E.NUMBER_GATEWAY_US] = 2500, [E.NUMBER_SERVICE_US] = 30100,
        [E.NUMBER_RECEIVE_US] = 1000, [E.NUMBER_ELAPSED_US] = 35000, [E.NUMBER_STARTED_US] = 1700000000123456,
        [E.NUMBER_REQUEST_BYTES] = 90, [E.NUMBER_RESPONSE_BYTES] = 120, [E.NUMBER_RESPONSE_SOURCE] = 1,
      }
      fake.tries = { { ip = "10.0.0.2", port = 81, status = 502, answered = false, begun_us = 1700000000000999 },
        { ip = "10.0.0.1", port = 80, status = 0, answered = false, begun_us = 1700000000001000 } }
      fake.fields[0] = { { "Authorization", "Bearer secret" }, { "Host", "example.com" } }
      exchange.phase = phases.numbers.log
    end)

    it("gives Kong's log record, without credentials", function()
      local record = exchange:serialize()
      assert.same({
        id = "abc", method = "GET", uri = "/a?b=1", url = "http://example.com:8000/a?b=1", querystring = { b = "1" },
        headers = { authorization = "REDACTED", host = "example.com" }, size = 90,
      }, record.request)
      assert.same({ status = 200, headers = {}, size = 120 }, record.response)
      assert.same({ kong = 3, proxy = 30, request = 35, receive = 1 }, record.latencies)
      assert.same({ { ip = "10.0.0.2", port = 81, state = "failed", code = 502, balancer_start = 1700000000000,
        balancer_start_ns = fake.tries[1].begun_us * 1000 }, { ip = "10.0.0.1", port = 80,
        balancer_start = 1700000000001, balancer_start_ns = fake.tries[2].begun_us * 1000 } }, record.tries)
      assert.equal("/v1/a?b=1", record.upstream_uri)
      assert.equal("200", record.upstream_status)
      assert.equal(1700000000123, record.started_at)
      assert.equal("1.2.3.4", record.client_ip)
      assert.equal("upstream", record.source)
    end)

    it("takes changes of plugins: set, add, replace, remove", function()
      exchange:set_serialize_value("my.new.value", 4)
      exchange:set_serialize_value("request.method", "PUT", { mode = "add" })
      exchange:set_serialize_value("request.none", 1, { mode = "replace" })
      exchange:set_serialize_value("request.size", nil)
      local record = exchange:serialize()
      assert.equal(4, record.my.new.value)
      assert.equal("GET", record.request.method)
      assert.is_nil(record.request.none)
      assert.is_nil(record.request.size)
    end)

    it("refuses a value that cannot be logged", function()
      local cycle = {}
      cycle.itself = cycle
      assert.has_error(function() exchange:set_serialize_value("x", cycle) end)
      assert.has_error(function() exchange:set_serialize_value("x", print) end)
    end)

    it("is for the log phase", function()
      exchange.phase = phases.numbers.access
      assert.has_error(function() exchange:serialize() end)
    end)
  end)
end)
