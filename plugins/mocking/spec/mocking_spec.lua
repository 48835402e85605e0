-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local spec = require "sluice.spec"

local PETS = [[
openapi: 3.0.3
info: { title: pets, version: "1" }
servers: [{ url: "https://{zone}.example/v{n}/api", variables: { zone: { default: eu }, n: { default: "2" } } }]
paths:
  /pets:
    get:
      responses:
        "200":
          description: pets
          headers: { X-Total: { schema: { type: integer, example: 2 } } }
          content:
            application/json:
              examples:
                one: { value: [{ id: 1, name: Rex }] }
                none: { value: [], summary: no pets }
                two: { $ref: "#/components/examples/Two" }
              schema: { type: array, items: { $ref: "#/components/schemas/Pet" } }
            text/plain: { example: "Rex" }
            application/xml: { example: "<pets/>" }
        "404": { description: none, content: { application/json: { example: { message: no pets } } } }
        "500": { description: broken }
    post:
      responses: { "201": { description: made }, default: { description: error } }
  /pets/mine:
    get: { responses: { "200": { content: { text/plain: { example: mine } } } } }
  /pets/{id}:
    get:
      responses:
        2XX: { content: { application/json: { schema: { $ref: "#/components/schemas/Pet" } } } }
  /only-default:
    get: { responses: { default: { content: { application/json: { example: { a: 1 } } } } } }
components:
  examples: { Two: { value: [{ id: 1 }, { id: 2 }] } }
  schemas:
    Pet:
      allOf:
      - { type: object, properties: { id: { type: integer, minimum: 5 }, name: { type: string, example: Tom } } }
      - type: object
        properties:
          born: { type: string, format: date }
          kind: { type: string, enum: [cat, dog] }
          secret: { type: string, writeOnly: true }
          tags: { type: array, minItems: 2, items: { type: string, minLength: 8 } }
          none: { type: array, items: { type: string }, example: [] }
          weight: { type: number, exclusiveMinimum: 1 }
          alive: { type: boolean }
          parent: { $ref: "#/components/schemas/Pet" }
]]

local OLD = [[
{"swagger": "2.0", "basePath": "/old", "produces": ["application/json"], "paths": {
  "/a": {"get": {"responses": {"200": {"examples": {"application/json": {"old": true}, "text/plain": "old"}}}}},
  "/b": {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/B"}}}}}},
 "definitions": {"B": {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}}}}
]]

describe("mocking", function()
  local gateway

  local function start(config, extra)
    local options = { plugins = { { name = "mocking", config = config } } }
    for name, value in pairs(extra or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  local function pets(config)
    config = config or {}
    config.api_specification = PETS
    start(config)
  end

  describe("from a document", function()
    it("answers with the first example of the lowest status, and calls no service", function()
      pets()
      local response = gateway:get("/pets")
      assert.same({ 200, "application/json", "true", "2" }, { response.status, response.headers["content-type"],
        response.headers["x-kong-mocking-plugin"], response.headers["x-total"] })
      assert.equal("[]", response.body)
      assert.equal(0, #gateway:requests())
    end)

    it("answers with the example and the status that a request asks for", function()
      pets()
      assert.same({ { id = 1, name = "Rex" } }, gateway:get("/pets", { ["X-Kong-Mocking-Example-Id"] = "one" }).json)
      assert.same({ { id = 1 }, { id = 2 } }, gateway:get("/pets", { ["X-Kong-Mocking-Example-Id"] = "two" }).json)
      local response = gateway:get("/pets", { ["X-Kong-Mocking-Status-Code"] = "404" })
      assert.same({ 404, "no pets" }, { response.status, response.json.message })
      assert.same({ 500, "" }, { gateway:get("/pets", { ["X-Kong-Mocking-Status-Code"] = "500" }).status, "" })
      assert.equal(400, gateway:get("/pets", { ["X-Kong-Mocking-Status-Code"] = "418" }).status)
      assert.equal(400, gateway:get("/pets", { ["X-Kong-Mocking-Example-Id"] = "nine" }).status)
    end)

    it("answers with the type that the client accepts most", function()
      pets()
      local response = gateway:get("/pets", { Accept = "application/xml;q=0.5, text/plain" })
      assert.same({ "text/plain", "Rex" }, { response.headers["content-type"], response.body })
      assert.equal("<pets/>", gateway:get("/pets", { Accept = "text/html, application/xml" }).body)
      assert.equal("Rex", gateway:get("/pets", { Accept = "text/*" }).body)
      assert.equal("[]", gateway:get("/pets", { Accept = "image/png" }).body)
      assert.equal("[]", gateway:get("/pets", { Accept = "*/*" }).body)
    end)

    it("makes an answer of the schema where there is no example", function()
      pets()
      local pet = gateway:get("/pets/7").json
      pet.parent = nil
      assert.same({ id = 5, name = "Tom", born = "2020-01-01", kind = "cat", tags = { "stringxx", "stringxx" },
        none = {}, weight = 1.5, alive = true }, pet)
      assert.matches('"none":[]', gateway:get("/pets/7").body, 1, true)
    end)

    it("prefers a path without names", function()
      pets()
      assert.equal("mine", gateway:get("/pets/mine").body)
    end)

    it("knows methods", function()
      pets()
      assert.same({ 201, "" }, { gateway:post("/pets", {}).status, gateway:post("/pets", {}).body })
      assert.equal(404, gateway:delete("/pets").status)
      assert.equal(200, gateway:head("/pets").status)
    end)

    it("answers 404 where there is nothing", function()
      pets()
      local response = gateway:get("/dogs")
      assert.same({ 404, "Corresponding path and method spec does not exist in API Specification" },
        { response.status, response.json.message })
    end)

    it("takes a default response for 200 where it is the only one", function()
      pets()
      assert.same({ 200, { a = 1 } }, { gateway:get("/only-default").status, gateway:get("/only-default").json })
    end)

    it("answers with statuses that are included only", function()
      pets { included_status_codes = { 404, 500 } }
      assert.equal(404, gateway:get("/pets").status)
      assert.equal(404, gateway:post("/pets", {}).status)
      assert.equal("No response is defined for this operation", gateway:post("/pets", {}).json.message)
    end)

    it("answers with any status, with any example", function()
      pets { random_status_code = true, random_examples = true }
      local statuses, bodies = {}, {}
      for _ = 1, 60 do
        local response = gateway:get("/pets")
        statuses[response.status] = true
        if response.status == 200 then bodies[#response.json] = true end
      end
      assert.same({ [200] = true, [404] = true, [500] = true }, statuses)
      assert.same({ [0] = true, true, true }, bodies)
    end)

    it("takes the base path of its server, or another one", function()
      pets { include_base_path = true }
      assert.same({ 200, 404 }, { gateway:get("/v2/api/pets").status, gateway:get("/pets").status })
      pets { include_base_path = true, custom_base_path = "/other" }
      assert.same({ 200, 404 }, { gateway:get("/other/pets").status, gateway:get("/v2/api/pets").status })
      pets { custom_base_path = "/other" }
      assert.equal(200, gateway:get("/pets").status)
    end)

    it("may be of version 2.0, in JSON", function()
      start { api_specification = OLD, include_base_path = true }
      assert.same({ old = true }, gateway:get("/old/a").json)
      assert.equal("old", gateway:get("/old/a", { Accept = "text/plain" }).body)
      assert.same({ n = 7 }, gateway:get("/old/b").json)
    end)

    it("may stand in a file, whose change is a change of the configuration", function()
      local folder = posix.temporary_directory()
      process.write_file(folder .. "/api.yml", PETS)
      local config = { api_specification_filename = folder .. "/api.yml" }
      start(config)
      assert.equal("mine", gateway:get("/pets/mine").body)
      process.write_file(folder .. "/api.yml", (PETS:gsub("example: mine", "example: yours")))
      assert(gateway:reload { plugins = { { name = "mocking", config = config } } })
      assert.equal("yours", gateway:get("/pets/mine").body)
      process.remove(folder)
    end)

    it("lets through what it does not know, when it is told", function()
      pets { pass_unmatched = true }
      assert.equal(200, gateway:get("/dogs").status)
      assert.equal(1, #gateway:requests())
    end)
  end)

  describe("comes late", function()
    it("at random", function()
      pets { random_delay = true, min_delay_time = 1, max_delay_time = 3 }
      local least, most = math.huge, 0
      for _ = 1, 30 do
        local began = gateway:now()
        gateway:get("/pets")
        least, most = math.min(least, gateway:now() - began), math.max(most, gateway:now() - began)
      end
      assert.is_true(least >= 1 and least < 1.7 and most > 2.3 and most < 3.1, least .. " " .. most)
    end)

    it("as a request asks for", function()
      pets()
      local began = gateway:now()
      assert.equal(200, gateway:get("/pets", { ["X-Kong-Mocking-Delay"] = "2500" }).status)
      assert.is_true(gateway:now() - began >= 2.5)
      for _, wrong in ipairs { "-1", "10001", "soon" } do
        assert.equal(400, gateway:get("/pets", { ["X-Kong-Mocking-Delay"] = wrong }).status)
      end
    end)
  end)

  describe("from the configuration", function()
    before_each(function()
      start { responses = {
        { path = "/users/{id}", methods = { "GET" }, match = 'http.headers.x_role == "admin"',
          json = { id = "$(tonumber(params.id))", role = "admin", list = { "$(query.a)", 2 } } },
        { path = "/users/{id}", methods = { "GET", "HEAD" }, headers = { ["X-Who"] = "$(params.id)",
          ["Content-Type"] = "text/plain" }, body = "user $(params.id) by $(method) at $(path)" },
        { path = "/users", methods = { "POST" }, status = 201, json = { made = "$(body.name)" }, delay = 1500 },
        { path = "/gone", status = 410 },
      } }
    end)

    it("answers by path, method and expression, with templates", function()
      local response = gateway:get("/users/a%20b")
      assert.same({ 200, "user a b by GET at /users/a%20b", "a b", "text/plain" }, { response.status, response.body,
        response.headers["x-who"], response.headers["content-type"] })
      assert.same({ id = 7, role = "admin", list = { "x", 2 } }, gateway:get("/users/7?a=x", { ["X-Role"] =
        "admin" }).json)
    end)

    it("answers with what the body says, late", function()
      local began = gateway:now()
      local response = gateway:post("/users", { name = "Ada" })
      assert.same({ 201, { made = "Ada" } }, { response.status, response.json })
      assert.is_true(gateway:now() - began >= 1.5)
    end)

    it("answers without a body", function()
      assert.same({ 410, "" }, { gateway:get("/gone").status, gateway:get("/gone").body })
    end)

    it("answers 404 to the rest", function()
      assert.equal("No mock for this path and method", gateway:get("/users/1/x").json.message)
      assert.equal(404, gateway:delete("/users/1").status)
    end)

    it("comes before the document", function()
      start { api_specification = PETS, responses = { { path = "/pets/mine", body = "first" } } }
      assert.equal("first", gateway:get("/pets/mine").body)
      assert.equal(200, gateway:get("/pets").status)
    end)
  end)

  describe("refuses", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "mocking", config = config } } })
    end

    local function of_document(text)
      return problem { api_specification = text }
    end

    it("nothing to answer with, and two documents", function()
      assert.matches("expected at least one of api_specification, api_specification_filename or responses", problem {},
        1, true)
      assert.matches("expected at most one of api_specification or api_specification_filename",
        problem { api_specification = PETS, api_specification_filename = "a" }, 1, true)
    end)

    it("what is no document", function()
      assert.matches("config.api_specification: expected a document in YAML or JSON", of_document("a: [1"), 1, true)
      assert.matches("expected an OpenAPI document, found it has neither openapi nor swagger at its top",
        of_document("a: 1"), 1, true)
      assert.matches("found it has no paths", of_document("openapi: 3.0.0"), 1, true)
    end)

    it("references that lead nowhere, elsewhere, or round in a ring", function()
      local function with(reference, more)
        return of_document("openapi: 3.0.0\npaths: { /a: { $ref: \"" .. reference .. "\" } }\n" .. (more or ""))
      end
      assert.matches("found there is nothing at #/x/y", with "#/x/y", 1, true)
      assert.matches("only references within the document can be followed, found other.yml", with "other.yml", 1, true)
      assert.matches("references go round in a ring", with("#/x", 'x: { $ref: "#/x" }'), 1, true)
    end)

    it("a file that there is not", function()
      assert.matches("config.api_specification_filename: .*No such file",
        problem { api_specification_filename = "/none.yml" })
    end)

    it("delays that are none", function()
      assert.matches("config.max_delay_time: expected more than min_delay_time", problem { api_specification = PETS,
        random_delay = true, min_delay_time = 2, max_delay_time = 1 }, 1, true)
      assert.matches("config.min_delay_time: expected a number of seconds from 0", problem { api_specification = PETS,
        min_delay_time = -1 }, 1, true)
    end)

    it("responses that are none", function()
      assert.matches("config.responses[0]: expected at most one of body or json", problem { responses = { {
        body = "a", json = {} } } }, 1, true)
      assert.matches("config.responses[0].body: expected Lua expressions in $(...)", problem { responses = { {
        body = "$(1 +)" } } }, 1, true)
      assert.matches("config.responses[0].match: expected an expression", problem { responses = { {
        match = "response.status == 200" } } }, 1, true)
      assert.matches("config.responses[0].path: expected a path that starts with /", problem { responses = { {
        path = "a" } } }, 1, true)
    end)
  end)

  it("holds a document that refers to itself", function()
    pets()
    local depth, pet = 0, gateway:get("/pets/1").json
    while pet do
      depth, pet = depth + 1, pet.parent
    end
    assert.is_true(depth > 1 and depth < 20, depth)
    assert.is_string(json.encode(gateway:get("/pets/1").json))
  end)
end)
