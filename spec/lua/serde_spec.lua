-- SPDX-License-Identifier: Apache-2.0
-- Values in records by the schemas of a registry, through a plugin of the specs' own.
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"
local schema_registry = require "spec.support.schema_registry"

local HANDLER = [[
local sluice = require "sluice"
local serde = sluice.serde
local plugin = { version = "1", priority = 1 }
local codecs = setmetatable({}, { __mode = "k" })

function plugin.configure(confs)
  for _, conf in ipairs(confs or {}) do codecs[conf] = serde.new(conf.schema_registry) end
end

function plugin.access(conf, exchange)
  local ask = exchange.request:get_body()
  local codec = codecs[conf]
  local result, err, schema
  if ask.encode_json then
    result, err = codec:encode_json(ask.target, ask.encode_json)
    result = result and sluice.crypto.base64_encode(result)
  elseif ask.encode ~= nil then
    result, err = codec:encode(ask.target, ask.encode)
    result = result and sluice.crypto.base64_encode(result)
  elseif ask.decode then
    result, err, schema = codec:decode(sluice.crypto.base64_decode(ask.decode), ask.how)
  else
    result, err, schema = codec:decode_json(sluice.crypto.base64_decode(ask.decode_json), ask.how)
  end
  if result ~= nil then return exchange.response:exit(200, { result = result, type = schema and schema.type }) end
  exchange.response:exit(serde.status(err), { code = err.code, message = err.message, path = err.path })
end

return plugin
]]
local SCHEMA = [[
local schema_registry = require "sluice.schema_registry"
return { schema_registry = schema_registry.fields.record { schemas = true } }
]]

local ORDER = [[{"type":"record","name":"Order","namespace":"shop","fields":[
  {"name":"id","type":"long"},
  {"name":"note","type":["null","string"],"default":null},
  {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}]]
local ORDER_JSON = [[{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","required":["id"],
  "properties":{"id":{"type":"integer"},"lines":{"type":"array","items":{"$ref":"line.json"}}}}]]
local LINE_JSON = [[{"type":"object","properties":{"price":{"type":"number","minimum":0}}}]]
local ORDER_PROTO = [[syntax = "proto3"; package shop;
  import "common/money.proto";
  message Unused { string a = 1; message Within { int32 b = 1; } }
  message Order { int64 id = 1; repeated Line lines = 2; message Line { Money price = 1; string sku = 2; } }]]
local MONEY_PROTO = [[syntax = "proto3"; package shop; message Money { int32 cents = 1; }]]

local NOW = 1700000000

describe("serde", function()
  local registry, gateway

  local function start(confluent, upstreams)
    confluent = confluent or {}
    confluent.url = confluent.url or "http://registry.test:8081/api/"
    upstreams = upstreams or {}
    upstreams["registry.test"] = function(request)
      request.path = request.path:gsub("^/api", "")
      return registry.answer(request)
    end
    gateway = spec.gateway { time = NOW, plugins = { { name = "prometheus" }, { name = "codec", config = {
      schema_registry = { confluent = confluent } } } },
      plugins_code = { codec = { handler = HANDLER, schema = SCHEMA } },
      upstreams = upstreams, dns = { ["registry.test"] = "10.0.0.8", ["idp.test"] = "10.0.0.7" } }
  end

  before_each(function()
    registry = schema_registry.new()
  end)

  local function ask(what)
    local response = gateway:post("/", what)
    return response.json, response.status
  end

  local function bytes_of(answer)
    assert.is_string(answer.result, answer.message)
    return crypto.base64_decode(answer.result)
  end

  local function encode(target, value)
    return bytes_of((ask { target = target, encode = value }))
  end

  -- Bytes to a value of JSON.
  local function decode(bytes, how)
    return ask { decode = crypto.base64_encode(bytes), how = how }
  end

  local AT = "2026-03-01T08:15:00.250Z"

  describe("with Avro", function()
    before_each(function()
      registry:add("other", { text = '"string"' })
      registry:add("orders-value", { text = ORDER })
      start()
    end)

    it("encodes by the latest schema of a subject, with its id before the value", function()
      local bytes = encode("orders-value", { id = 7, at = AT })
      assert.equal("\0\0\0\0\2\14\0", bytes:sub(1, 7))
      local answer = decode(bytes)
      assert.same({ id = 7, at = AT, note = require("sluice.json").null }, answer.result)
      assert.equal("AVRO", answer.type)
    end)

    it("encodes by a version, an id, and what is to be registered", function()
      registry:add("orders-value", { text = '"long"' })
      assert.equal("\0\0\0\0\2", encode({ subject = "orders-value", version = 1 }, { id = 7, at = 0 }):sub(1, 5))
      assert.equal("\0\0\0\0\3\14", encode({ id = 3 }, 7))
      local new = { subject = "fresh/with space", register = { text = '"boolean"' } }
      assert.equal("\0\0\0\0\4\1", encode(new, true))
      assert.equal("\0\0\0\0\4\1", encode(new, true))
      local posts = 0
      for _, line in ipairs(registry.asked) do posts = posts + (line:find("^POST") and 1 or 0) end
      assert.equal(1, posts)
    end)

    it("says where a value does not fit", function()
      local answer, status = ask { target = "orders-value", encode = { id = "x", at = AT } }
      assert.equal(422, status)
      assert.same({ code = "value", path = "/id", message = '/id: expected a long, found "x"' }, answer)
      answer = ask { target = "orders-value", encode_json = '{"id":' }
      assert.equal("value", answer.code)
      assert.matches("^no JSON: ", answer.message)
    end)

    it("keeps integers beyond 2^53 as they are, from text to text", function()
      local text = '{"id":9007199254740993,"at":"' .. AT .. '","note":"a"}'
      local bytes = bytes_of((ask { target = "orders-value", encode_json = text }))
      local answer = ask { decode_json = crypto.base64_encode(bytes) }
      assert.matches('"id":9007199254740993', answer.result, 1, true)
    end)

    it("decodes to Avro's own JSON when asked", function()
      local answer = decode(encode("orders-value", { id = 7, at = 0, note = "soon" }), "avro")
      assert.same({ id = 7, at = 0, note = { string = "soon" } }, answer.result)
    end)

    it("gives values as another version has them", function()
      local old = encode("orders-value", { id = 7, at = 0, note = "a" })
      registry:add("orders-value", { text = [[{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"id","type":"double"},{"name":"state","type":"string","default":"new"}]}]] })
      registry:add("bad", { text = '{"type":"record","name":"Order","fields":[{"name":"x","type":"int"}]}' })
      local newest = { as = { subject = "orders-value", version = 2 } }
      assert.same({ id = 7, state = "new" }, decode(old, newest).result)
      local text = ask({ decode_json = crypto.base64_encode(old), how = newest }).result
      assert.same({ id = 7, state = "new" }, require("sluice.json").decode(text))
      assert.same({ id = 7, at = 0, note = { string = "a" } }, decode(old, { form = "avro", as = { id = 2 } }).result)
      local answer, status = decode(old, { as = "bad" })
      assert.same({ "schema", 502 }, { answer.code, status })
      assert.matches("the writer has no field x", answer.message, 1, true)
      assert.equal("not_found", decode(old, { as = "nothing" }).code)
    end)

    it("uses the types of other subjects that a schema refers to", function()
      registry:add("line-value",
        { text = '{"type":"record","name":"shop.Line","fields":[{"name":"price","type":"int"}]}' })
      registry:add("basket-value", { text = [[{"type":"record","name":"Basket","namespace":"shop","fields":[
        {"name":"lines","type":{"type":"array","items":"Line"}}]}]],
        references = { { name = "shop.Line", subject = "line-value", version = 1 } } })
      local bytes = encode("basket-value", { lines = { { price = 3 } } })
      assert.same({ lines = { { price = 3 } } }, decode(bytes).result)
    end)

    it("says of bytes what is wrong with them", function()
      assert.same({ "framing", 422 }, { decode("ab").code, select(2, decode("ab")) })
      assert.equal("framing", decode("{\"id\":7}").code)
      local answer, status = decode("\0\0\0\0\99x")
      assert.same({ "not_found", 502, "schema 99: Schema 99 not found" }, { answer.code, status, answer.message })
      answer = decode("\0\0\0\0\2\14")
      assert.same({ "value", "/note" }, { answer.code, answer.path })
    end)
  end)

  describe("with JSON Schema", function()
    before_each(function()
      registry:add("line", { text = LINE_JSON, type = "JSON" })
      registry:add("orders-value", { text = ORDER_JSON, type = "JSON",
        references = { { name = "line.json", subject = "line", version = 1 } } })
      start()
    end)

    it("lets values through that fit, as they are", function()
      local text = '{ "id": 7, "lines": [ ] }'
      local bytes = bytes_of((ask { target = "orders-value", encode_json = text }))
      assert.equal("\0\0\0\0\2" .. text, bytes)
      assert.equal(text, ask({ decode_json = crypto.base64_encode(bytes) }).result)
      assert.equal(7, decode(bytes).result.id)
    end)

    it("says where others do not, in what it refers to as well", function()
      local answer, status = ask { target = "orders-value", encode = { id = 7, lines = { { price = -1 } } } }
      assert.equal(422, status)
      assert.equal("/lines/0/price", answer.path)
      assert.matches("a number of at least 0", answer.message, 1, true)
    end)
  end)

  describe("with Protobuf", function()
    before_each(function()
      registry:add("money", { text = MONEY_PROTO, type = "PROTOBUF" })
      registry:add("orders-value", { text = ORDER_PROTO, type = "PROTOBUF",
        references = { { name = "common/money.proto", subject = "money", version = 1 } } })
      start()
    end)

    it("names the message by its place in the file", function()
      assert.equal("\0\0\0\0\2\0\10\1x", encode("orders-value", { a = "x" }))
      local order = { subject = "orders-value", message = "shop.Order" }
      local bytes = encode(order, { id = "7", lines = { { sku = "a", price = { cents = 3 } } } })
      assert.equal("\0\0\0\0\2\2\2\8\7", bytes:sub(1, 9))
      assert.same({ id = "7", lines = { { sku = "a", price = { cents = 3 } } } }, decode(bytes).result)
      local within = encode({ subject = "orders-value", message = "shop.Order.Line" }, { sku = "b" })
      assert.equal("\0\0\0\0\2\4\2\0\18\1b", within)
      assert.same({ sku = "b" }, decode(within).result)
    end)

    it("says where a value does not fit", function()
      local order = { subject = "orders-value", message = "shop.Order" }
      local answer, status = ask { target = order, encode = { lines = { {}, { price = { cents = "x" } } } } }
      assert.equal(422, status)
      assert.equal("/lines/1/price/cents", answer.path)
      answer = ask { target = order, encode = { colour = 1 } }
      assert.equal("value", answer.code)
      assert.matches("colour", answer.message)
    end)

    it("says it of all that JSON can get wrong", function()
      registry:add("all", { type = "PROTOBUF", text = [[syntax = "proto3"; import "google/protobuf/timestamp.proto";
        message O { int64 id = 1; repeated L lines = 2; map<string, int32> m = 3; E e = 4; bytes b = 5; L one = 6;
          google.protobuf.Timestamp t = 7; repeated int32 ns = 8; oneof w { int32 x = 9; int32 y = 10; } }
        message L { int32 n = 1; L l = 2; string sku_name = 3; } enum E { A = 0; B = 1; }]] })
      local cases = {
        { '{"id":{}}', "/id: expected a single value, found an object" },
        { '{"id":[1]}', "/id: expected a single value, found an array" },
        { '{"id":1.5}', "/id: expected int64, found 1.5" }, { '{"e":"C"}', '/e: expected E, found "C"' },
        { '{"lines":[{},{"n":{}}]}', "/lines/1/n: expected a single value, found an object" },
        { '{"lines":[{"l":{"l":{"n":"z"}}}]}', '/lines/0/l/l/n: expected int32, found "z"' },
        { '{"one":5}', "/one: expected L, found 5" }, { '{"one":{"colour":1}}', "/one/colour: there is no such field" },
        { '{"one":{"sku_name":{}}}', "/one/sku_name: expected a single value, found an object" },
        { '{"m":{"a":"x"}}', '/m: expected int32, found "x"' },
         { '{"m":[]}', "/m: expected an object, found an array" },
        { '{"m":{"a":{}}}', "an object where a single value is expected" },
        { '{"t":"now"}', "/t: invalid time format: now" }, { '{"ns":[1,"x"]}', '/ns/1: expected int32, found "x"' },
        { '{"ns":[{}]}', "/ns: expected a single value, found an object" }, { "[]", "expected an object" },
        { '{"x":1,"y":2}', "oneof field 'w' is already set, which excludes 'y'" },
        { '{"b":"*"}', '/b: expected bytes, found "*"' },
      }
      for _, case in ipairs(cases) do
        local answer, status = ask { target = "all", encode_json = case[1] }
        assert.same({ 422, case[2] }, { status, answer.message })
        assert.equal(case[2]:match("^/[^:]*") or "", answer.path)
      end
    end)

    it("knows a message that the file does not have", function()
      local answer, status = ask { target = { subject = "orders-value", message = "shop.Money" }, encode = {} }
      assert.same({ "schema", 502 }, { answer.code, status })
      for _, steps in ipairs { "\4\2", "\6\2\2\2", "\1", "\255\255\255\255\255\255", "" } do
        assert.equal("value", decode("\0\0\0\0\2" .. steps).code)
      end
    end)

    it("takes descriptors in base64", function()
      local protobuf = require "sluice.protobuf"
      local texts = { ["own.proto"] = 'syntax = "proto3"; message Own { int32 n = 1; }' }
      local set = assert(protobuf.compile("own.proto", texts))
      registry:add("own-value", { text = crypto.base64_encode(set:sub(3)), type = "PROTOBUF" })
      assert.same({ n = 5 }, decode(encode("own-value", { n = 5 })).result)
    end)
  end)

  describe("and the registry", function()
    local function asked(pattern)
      local count = 0
      for _, line in ipairs(registry.asked) do count = count + (line:find(pattern) and 1 or 0) end
      return count
    end

    before_each(function() registry:add("s", { text = '"long"' }) end)

    it("asks once for what is kept, and again behind the scenes when it is old", function()
      start { ttl = 10 }
      for _ = 1, 3 do encode("s", 1) end
      assert.equal(1, #registry.asked)
      registry:add("s", { text = '"string"' })
      gateway:advance(11)
      assert.equal("\0\0\0\0\1\2", encode("s", 1))
      gateway:settle()
      assert.equal("\0\0\0\0\2\2a", encode("s", "a"))
      assert.equal(2, asked("latest"))
    end)

    it("asks once for all who want the same meanwhile, even when who asked first has left", function()
      start()
      local slow = function(request)
        request.path = request.path:gsub("^/api", "")
        local answer = registry.answer(request)
        answer.delay = 2
        return answer
      end
      gateway:upstream("registry.test", slow)
      local clients = {}
      for i = 1, 20 do
        clients[i] = gateway:connect()
        clients[i]:send { method = "POST", path = "/", json = { target = "s", encode = i } }
      end
      clients[1]:close()
      for i = 2, 20 do assert.equal(200, clients[i]:receive(5).status) end
      assert.equal(1, #registry.asked)
    end)

    it("tells the metrics what became of its questions", function()
      start()
      for _ = 1, 3 do encode("s", 1) end
      ask { target = "nothing", encode = 1 }
      local text = gateway:request({ path = "/metrics", listener = "status" }).body
      assert.matches('sluice_schema_registry_requests_total{result="ok"} 1\n', text, 1, true)
      assert.matches('sluice_schema_registry_requests_total{result="not_found"} 1\n', text, 1, true)
    end)

    it("goes on with what it knows while the registry is away, and asks again after a while", function()
      start { ttl = 10 }
      encode("s", 1)
      registry.away = { status = 503, body = "no" }
      gateway:advance(11)
      encode("s", 1)
      gateway:settle()
      assert.equal("\0\0\0\0\1\2", encode("s", 1))
      local answer, status = ask { target = "t", encode = 1 }
      assert.same({ "unavailable", 503 }, { answer.code, status })
      assert.equal(2, #registry.asked)
      registry.away = nil
      gateway:advance(2)
      assert.equal(502, select(2, ask { target = "t", encode = 1 }))
      assert.equal(3, #registry.asked)
    end)

    it("believes for a while that there is no such subject", function()
      start()
      for _ = 1, 2 do
        local answer, status = ask { target = "t", encode = 1 }
        assert.same({ "not_found", 502, "subject t: Subject 't' not found." }, { answer.code, status, answer.message })
      end
      assert.equal(1, #registry.asked)
      registry:add("t", { text = '"long"' })
      gateway:advance(11)
      encode("t", 1)
    end)

    it("logs in by name and password", function()
      registry.basic = "user:secret"
      start { authentication = { mode = "basic", basic = { username = "user", password = "secret" } } }
      encode("s", 1)
      start { authentication = { mode = "basic", basic = { username = "user", password = "wrong" } } }
      local answer, status = ask { target = "s", encode = 1 }
      assert.same({ "unauthorized", 502 }, { answer.code, status })
    end)

    it("logs in by a token, which it gets anew when the old one is refused", function()
      local tokens, forms = 0, {}
      registry.bearer = "t1"
      start({ ttl = 0, authentication = { mode = "oauth2", oauth2 = { token_endpoint = "http://idp.test/token",
        client_id = "gateway", client_secret = "s/", audience = { "a" }, token_post_args = { extra = "1" } } } },
        { ["idp.test"] = function(request)
          tokens = tokens + 1
          forms[tokens] = request.body
          return { json = { access_token = "t" .. tokens, expires_in = 3600 } }
        end })
      encode("s", 1)
      encode({ subject = "s", version = 1 }, 1)
      assert.equal(1, tokens)
      local form = require("sluice.query").decode(forms[1])
      assert.same({ grant_type = "client_credentials", scope = "openid", audience = "a", client_id = "gateway",
        client_secret = "s/", extra = "1" }, form)
      registry.bearer = "t2"
      registry:add("u", { text = '"long"' })
      encode("u", 1)
      assert.equal(2, tokens)
    end)

    it("asks for a token by a proxy, unless it is not to", function()
      registry.bearer = "t"
      local function got(scheme, client)
        local by
        client.http_proxy, client.http_proxy_authorization = "http://proxy.test:3128", "Basic eA=="
        client.https_proxy, client.https_proxy_authorization = "http://proxy.test:3128", "Basic eQ=="
        start({ authentication = { mode = "oauth2", oauth2 = { token_endpoint = scheme .. "://idp.test/token" },
          oauth2_client = client } }, {
          ["idp.test"] = { json = { access_token = "t" } },
          ["proxy.test:3128"] = function(request)
            by = { request.method, request.target, request.headers["proxy-authorization"] }
            if request.method == "CONNECT" then return { status = 403 } end
            return { json = { access_token = "t" } }
          end,
        })
        local _, status = ask { target = "s", encode = 1 }
        return status, by
      end
      assert.same({ 200, { "POST", "http://idp.test/token", "Basic eA==" } }, { got("http", {}) })
      assert.same({ 503, { "CONNECT", "idp.test:443", "Basic eQ==" } }, { got("https", {}) })
      for _, list in ipairs { "idp.test", "a.test, .test", "*", "test" } do
        assert.same({ list, 200 }, { list, got("http", { no_proxy = list }) })
      end
      assert.same("POST", select(2, got("http", { no_proxy = "p.test" }))[1])
    end)

    it("tells why a schema is not taken", function()
      registry.incompatible.s = true
      start()
      local answer, status = ask { target = { subject = "s", register = { text = '"int"' } }, encode = 1 }
      assert.same({ "refused", 422 }, { answer.code, status })
      assert.matches("incompatible", answer.message)
    end)

    it("tells of a schema that cannot be used", function()
      registry:add("bad", { text = '{"type":"record","name":"A","fields":7}' })
      registry:add("bad2", { text = "message {", type = "PROTOBUF" })
      registry:add("bad3", { text = "{", type = "JSON" })
      registry:add("bad4", { text = "x", type = "THRIFT" })
      start()
      for _, subject in ipairs { "bad", "bad2", "bad3", "bad4" } do
        local answer, status = ask { target = subject, encode = {} }
        assert.same({ "schema", 502 }, { answer.code, status })
      end
    end)
  end)

  it("refuses fields that mean nothing", function()
    local function check(confluent)
      return spec.check { plugins = { { name = "codec", config = { schema_registry = { confluent = confluent } } } },
        plugins_code = { codec = { handler = HANDLER, schema = SCHEMA } } }
    end
    assert.is_true(check { url = "http://r.test", ttl = 3600, value_schema = { subject_name = "a" } })
    local _, err = check { url = "r.test" }
    assert.matches("config.schema_registry.confluent.url", err, 1, true)
    _, err = check { url = "http://r.test", value_schema = { schema_version = "newest" } }
    assert.matches("schema_version: expected latest or a number from 1", err, 1, true)
  end)
end)
