-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local BODY = "request body doesn't conform to schema"
local PARAMETER = "request param doesn't conform to schema"
local TYPE = "specified Content-Type is not allowed"
local JSON = { ["Content-Type"] = "application/json" }

describe("request-validator", function()
  local gateway

  local function start(config, routes)
    gateway = spec.gateway { plugins = { { name = "request-validator", config = config } }, routes = routes,
      services = routes and { { name = "s", url = "http://service.example" } } }
  end

  -- 200, or the message of the refusal.
  local function result(response)
    if response.status == 200 then return 200 end
    assert.equal(400, response.status)
    return response.json.message
  end

  local function post(body, headers)
    return result(gateway:post("/", body, headers or JSON))
  end

  describe("checks bodies", function()
    local SCHEMA = '{"type":"object","required":["a"],"properties":{"a":{"type":"integer","minimum":1}}}'

    for _, version in ipairs { "draft4", "draft6", "draft7", "draft201909", "draft202012" } do
      it("by " .. version, function()
        start { version = version, body_schema = SCHEMA }
        assert.same({ 200, BODY, BODY, BODY, BODY },
          { post '{"a":1}', post '{"a":0}', post '{"a":1.5}', post "{}", post "[]" })
        assert.equal(1, #gateway:requests())
        assert.equal('{"a":1}', gateway:requests()[1].body)
      end)
    end

    it("each draft by its own rules", function()
      local schema = '{"prefixItems":[{"type":"integer"}],"minimum":1,"exclusiveMinimum":true}'
      start { version = "draft4", body_schema = schema }
      assert.same({ 200, BODY }, { post '["a"]', post "1" })
      start { version = "draft202012", body_schema = '{"prefixItems":[{"type":"integer"}],"exclusiveMinimum":1}' }
      assert.same({ BODY, BODY }, { post '["a"]', post "1" })
    end)

    it("in Kong's own form", function()
      start { body_schema = [[ [ { "name": { "type": "string", "required": true } },
        { "tags": { "type": "array", "elements": { "type": "string" } } },
        { "inner": { "type": "record", "fields": [ { "n": { "type": "integer", "between": [1, 3] } } ] } } ] ]] }
      assert.same({ 200, 200, BODY, BODY, BODY, BODY }, { post '{"name":"a"}',
        post '{"name":"a","tags":["b"],"inner":{"n":3}}', post "{}", post '{"name":7}',
        post '{"name":"a","inner":{"n":4}}', post '{"name":"a","other":1}' })
    end)

    it("in Kong's own form, lists by their strings", function()
      start { verbose_response = true, body_schema = [[ [
        { "all": { "type": "array", "elements": { "type": "string" }, "match_all": "^a", "len_min": 1 } },
        { "none": { "type": "array", "elements": { "type": "string" }, "match_none": "^b" } },
        { "any": { "type": "array", "elements": { "type": "string" }, "match_any": "^c" } } ] ]] }
      assert.equal(200, post '{"all":["a","ab"],"none":["a"],"any":["a","c"]}')
      assert.same({ all = 'expected a list of strings matching ^a, found a list' }, post '{"all":["a","b"]}')
      assert.same({ all = 'expected a list of at least 1 item, found an empty list' }, post '{"all":[]}')
      assert.same({ none = 'expected a list of strings not matching ^b, found a list' }, post '{"none":["b"]}')
      assert.same({ any = 'expected a list with a string matching one of the patterns, found a list' },
        post '{"any":["a"]}')
    end)

    it("that are no JSON, or say a thing twice", function()
      start { version = "draft4", body_schema = "{}" }
      assert.same({ BODY, BODY, BODY }, { post "{", post '{"a":1,"a":2}', post "1 2" })
    end)

    it("that are not there as objects without members", function()
      start { version = "draft4", body_schema = SCHEMA }
      assert.equal(BODY, post "")
      start { version = "draft4", body_schema = '{"type":"object"}' }
      assert.equal(200, result(gateway:get("/", JSON)))
    end)

    it("and tells empty arrays from empty objects", function()
      start { version = "draft4", body_schema = '{"properties":{"a":{"type":"array"}}}' }
      assert.same({ 200, BODY }, { post '{"a":[]}', post '{"a":{}}' })
    end)
  end)

  describe("tells what is wrong with verbose_response", function()
    it("of a body", function()
      start { version = "draft202012", verbose_response = true,
        body_schema = '{"properties":{"a":{"items":{"type":"integer"}}}}' }
      assert.equal('/a/1: expected an integer, found "x"', post '{"a":[1,"x"]}')
      assert.matches("^request body is not valid JSON: ", post "{")
    end)

    it("of a body in Kong's form, field by field", function()
      start { verbose_response = true, body_schema =
        '[{"name":{"type":"string","required":true}},{"inner":{"type":"record","fields":[{"n":{"type":"integer"}}]}}]' }
      assert.same({ name = "required field missing", inner = { n = "expected an integer, found a string" } },
        post '{"inner":{"n":"x"}}')
    end)

    it("of a parameter", function()
      start { verbose_response = true, parameter_schema = {
        { ["in"] = "header", name = "X-Count", required = true, style = "simple", explode = false,
          schema = '{"type":"array","items":{"type":"integer"}}' } } }
      assert.equal("header 'X-Count' validation failed, [error] /0: expected an integer, found \"a\"",
        result(gateway:get("/", { ["X-Count"] = "a,b" })))
      assert.equal("header 'X-Count' validation failed, [error] required parameter value not found in request",
        result(gateway:get("/")))
    end)
  end)

  describe("lets in content types", function()
    local function types(list, more)
      local config = { version = "draft4", body_schema = '{"type":"object"}', allowed_content_types = list }
      for name, value in pairs(more or {}) do config[name] = value end
      start(config)
    end

    local function sent(content_type, body)
      return post(body or "{}", { ["Content-Type"] = content_type })
    end

    it("that are listed, parameters and all", function()
      types { "application/json", "application/json; charset=UTF-8" }
      assert.same({ 200, 200, 200, TYPE, TYPE, TYPE }, { sent "application/json", sent "Application/JSON",
        sent "application/json;charset=utf-8", sent "application/json; charset=latin1", sent "text/plain",
        sent "application/json; version=1" })
    end)

    it("whatever their parameters, without content_type_parameter_validation", function()
      types({ "application/json" }, { content_type_parameter_validation = false })
      assert.same({ 200, TYPE }, { sent 'application/json; version="1; 2"', sent "text/plain" })
    end)

    it("by parts", function()
      types { "application/*", "text/*" }
      assert.same({ 200, TYPE }, { sent "application/xml", sent "image/png" })
    end)

    it("and checks those that are JSON only", function()
      types { "application/json", "application/xml", "application/problem+json" }
      assert.same({ BODY, 200, BODY }, { sent("application/json", "[]"), sent("application/xml", "<a/>"),
        sent("application/problem+json", "[]") })
    end)

    it("and no request that names none, or two", function()
      types { "application/json" }
      assert.equal(TYPE, post("{}", {}))
      assert.equal(TYPE, post("{}", { ["Content-Type"] = { "application/json", "text/plain" } }))
      assert.equal(TYPE, sent "json")
    end)

    it("of any kind when there is no body_schema", function()
      start { parameter_schema = { { ["in"] = "query", name = "q", required = false } } }
      assert.equal(200, sent("text/plain", "x"))
    end)
  end)

  describe("checks parameters", function()
    local ROUTES = { { name = "r", paths = { "~/items/(?<id>[^/]+)$" }, service = { name = "s" } },
      { name = "other", paths = { "/" }, service = { name = "s" } } }

    local function parameter(place, style, explode, schema, more)
      local one = { ["in"] = place, name = "id", required = true, style = style, explode = explode, schema = schema }
      for name, value in pairs(more or {}) do one[name] = value end
      start({ parameter_schema = { one } }, ROUTES)
    end

    local function get(path, headers)
      return result(gateway:get(path, headers))
    end

    it("that have to be there", function()
      parameter "query"
      assert.same({ 200, 200, PARAMETER }, { get "/?id=", get "/?id=1&id=2", get "/?other=1" })
      parameter("header", nil, nil, nil, { name = "X-Id" })
      assert.same({ 200, PARAMETER }, { get("/", { ["x-id"] = "1" }), get "/" })
      parameter("query", "form", false, '{"type":"integer"}', { required = false })
      assert.same({ 200, 200, PARAMETER }, { get "/", get "/?id=1", get "/?id=a" })
    end)

    it("as numbers, booleans and texts", function()
      parameter("query", "form", false, '{"type":"number","maximum":10}')
      assert.same({ 200, 200, PARAMETER, PARAMETER, PARAMETER, PARAMETER },
        { get "/?id=9.5", get "/?id=-1e1", get "/?id=11", get "/?id=0x5", get "/?id=", get "/?id=1&id=2" })
      parameter("query", "form", false, '{"type":"boolean"}')
      assert.same({ 200, PARAMETER, PARAMETER }, { get "/?id=true", get "/?id=1", get "/?id=True" })
      parameter("query", "form", false, '{"type":"string","maxLength":2}')
      assert.same({ 200, 200, PARAMETER }, { get "/?id=12", get "/?id=%C3%A4", get "/?id=123" })
    end)

    local PAIR = '{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2}'
    local POINT = '{"type":"object","properties":{"x":{"type":"integer"},"y":{"type":"integer"}},"required":["x","y"],'
      .. '"additionalProperties":false}'

    local function all(place, style, explode, schema, good, bad)
      parameter(place, style, explode, schema)
      for _, text in ipairs(good) do assert.equal(200, get(text), text) end
      for _, text in ipairs(bad) do assert.equal(PARAMETER, get(text), text) end
    end

    it("in queries, in every style", function()
      all("query", "form", true, PAIR, { "/?id=1&id=2" }, { "/?id=1,2", "/?id=1", "/?id=1&id=a" })
      all("query", "form", false, PAIR, { "/?id=1,2" }, { "/?id=1&id=2", "/?id=1" })
      all("query", "spaceDelimited", false, PAIR, { "/?id=1%202", "/?id=1+2" }, { "/?id=1,2" })
      all("query", "pipeDelimited", false, PAIR, { "/?id=1|2", "/?id=1%7C2" }, { "/?id=1,2" })
      all("query", "form", true, POINT, { "/?x=1&y=2&other=3" }, { "/?x=1", "/?x=1&y=a", "/?id=x,1,y,2" })
      all("query", "form", false, POINT, { "/?id=x,1,y,2" }, { "/?id=x,1,y", "/?id=x,1", "/?x=1&y=2" })
      all("query", "deepObject", true, POINT, { "/?id[x]=1&id[y]=2", "/?id%5Bx%5D=1&id%5By%5D=2" },
        { "/?id[x]=1", "/?id[x]=1&id[y]=2&id[z]=3", "/?id=1" })
    end)

    it("in paths, in every style", function()
      all("path", "simple", false, '{"type":"integer"}', { "/items/5" }, { "/items/a", "/elsewhere" })
      all("path", "simple", false, PAIR, { "/items/1,2" }, { "/items/1" })
      all("path", "simple", false, POINT, { "/items/x,1,y,2" }, { "/items/x=1,y=2" })
      all("path", "simple", true, POINT, { "/items/x=1,y=2" }, { "/items/x,1,y,2" })
      all("path", "label", false, '{"type":"integer"}', { "/items/.5" }, { "/items/5" })
      all("path", "label", false, PAIR, { "/items/.1,2" }, { "/items/.1.2" })
      all("path", "label", true, PAIR, { "/items/.1.2" }, { "/items/.1,2" })
      all("path", "label", true, POINT, { "/items/.x=1.y=2" }, { "/items/.x,1,y,2" })
      all("path", "matrix", false, '{"type":"integer"}', { "/items/;id=5" }, { "/items/5", "/items/;other=5" })
      all("path", "matrix", false, PAIR, { "/items/;id=1,2" }, { "/items/;id=1;id=2" })
      all("path", "matrix", true, PAIR, { "/items/;id=1;id=2" }, { "/items/;id=1,2", "/items/;id=1;no=2" })
      all("path", "matrix", false, POINT, { "/items/;id=x,1,y,2" }, { "/items/;x=1;y=2" })
      all("path", "matrix", true, POINT, { "/items/;x=1;y=2" }, { "/items/;id=x,1,y,2" })
    end)

    it("in headers, as one list or several fields", function()
      parameter("header", "simple", false, PAIR)
      assert.same({ 200, 200, 200, PARAMETER }, { get("/", { id = "1,2" }), get("/", { id = "1, 2" }),
        get("/", { id = { "1", "2" } }), get("/", { id = "1" }) })
      parameter("header", "simple", true, POINT)
      assert.same({ 200, PARAMETER }, { get("/", { id = "x=1,y=2" }), get("/", { id = "x,1,y,2" }) })
    end)

    it("before the body", function()
      start { version = "draft4", body_schema = '{"type":"object"}',
        parameter_schema = { { ["in"] = "query", name = "q", required = true } } }
      assert.same({ PARAMETER, BODY, 200 }, { result(gateway:post("/", "[]", JSON)),
        result(gateway:post("/?q=1", "[]", JSON)), result(gateway:post("/?q=1", "{}", JSON)) })
    end)
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "request-validator", config = config } } })
    end

    local function refused(pattern, config)
      assert.matches(pattern, problem(config), 1, true)
    end

    it("without a schema", function()
      refused("expected at least one of body_schema or parameter_schema", {})
    end)

    it("whose schema is none", function()
      refused("config.body_schema: expected JSON: ", { version = "draft4", body_schema = "{" })
      refused("config.body_schema: #/properties/a/type: expected the name of a type",
        { version = "draft4", body_schema = '{"properties":{"a":{"type":"text"}}}' })
      refused("config.body_schema: #/$ref: expected a schema that is here (nothing is fetched)",
        { version = "draft7", body_schema = '{"$ref":"http://elsewhere.example/a.json"}' })
      refused("config.body_schema: expected a list of fields", { body_schema = '{"a":1}' })
      refused("config.body_schema: ", { body_schema = '[{"a":{"type":"nonsense"}}]' })
    end)

    for field, message in pairs {
      ['"type":"string","match":5'] = "a.match: expected a Lua pattern, found 5",
      ['"type":"string","match":"("'] = "a.match: expected a Lua pattern (unfinished capture), found \"(\"",
      ['"type":"string","match_all":["a","["]'] = "a.match_all: expected a Lua pattern (malformed pattern",
      ['"type":"string","match_any":true'] = "a.match_any: expected a Lua pattern, found true",
      ['"type":"string","one_of":"x"'] = "a.one_of: expected a list, found \"x\"",
      ['"type":"string","between":[1,2]'] = "a.between: expected nothing at type string, found a list",
      ['"type":"integer","between":"x"'] = "a.between: expected a list of two numbers, found \"x\"",
      ['"type":"integer","match":"x"'] = "a.match: expected nothing at type integer, found \"x\"",
      ['"type":"array","len_min":"1"'] = "a.len_min: expected a number, found \"1\"",
      ['"type":"array","elements":{"type":"string","uuid":1}'] = "a.elements.uuid: expected a boolean, found 1",
      ['"type":"record","fields":[{"b":{"type":"string","starts_with":1}}]'] = "a.b.starts_with: expected a string",
    } do
      it("whose schema asks what cannot be asked: " .. field, function()
        refused("config.body_schema: " .. message, { body_schema = "[{\"a\":{" .. field .. "}}]" })
      end)
    end

    it("whose parameter is described in part", function()
      local function one(more)
        local list = { ["in"] = "query", name = "q", required = true }
        for name, value in pairs(more) do list[name] = value end
        return { parameter_schema = { list } }
      end
      refused("config.parameter_schema.0: expected `schema`, `style` and `explode` together", one { style = "form" })
      refused("config.parameter_schema.0.style: expected a style of query parameters: deepObject, form",
        one { style = "simple", explode = true, schema = '{"type":"string"}' })
      refused("config.parameter_schema.0.schema: expected a schema with `type` at its top",
        one { style = "form", explode = true, schema = "{}" })
    end)

    it("with a content type that is none", function()
      refused("expected a media type", { version = "draft4", body_schema = "{}", allowed_content_types = { "json" } })
    end)
  end)
end)
