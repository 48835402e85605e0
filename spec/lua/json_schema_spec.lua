-- SPDX-License-Identifier: Apache-2.0
-- What the suite of JSON Schema does not test: errors, bounds, schemas that are none. See json_schema_suite_spec.lua.
require "spec.lua.support.native"
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"

describe("json_schema", function()
  local function compile(text, options)
    return json_schema.compile(assert(json.decode(text)), options)
  end

  -- The errors as texts.
  local function errors(schema, value, options)
    local _, list = assert(compile(schema, options)):validate(assert(json.decode(value)))
    for i, one in ipairs(list or {}) do list[i] = json_schema.text(one) end
    return list
  end

  it("says where the value is wrong, what was expected there, and what was found", function()
    assert.same({
      '/items/1/price: expected a number of at least 0, found -1',
      "/items/2: expected a member named \"price\"",
      '/name: expected a string whose length is at most 3, found 4',
      '/tags: expected items that differ, found the same at 0 and 2',
    }, errors([[{ "properties": {
      "name": { "maxLength": 3 }, "tags": { "uniqueItems": true },
      "items": { "items": { "required": ["price"], "properties": { "price": { "minimum": 0 } } } } } }]],
      [[{ "name": "äöüß", "tags": ["a", "b", "a"], "items": [{ "price": 1 }, { "price": -1 }, {}] }]]))
  end)

  it("says so of every keyword", function()
    local function one(schema, value, expected)
      assert.same({ expected }, errors(schema, value))
    end
    one('{"type":"string"}', "7", "expected a string, found 7")
    one('{"type":["integer","null"]}', "1.5", "expected an integer or null, found 1.5")
    one('{"enum":["a",1,null]}', '"b"', 'expected one of "a", 1, null, found "b"')
    one('{"const":{"a":1}}', '{"a":2}', "expected an object, found an object")
    one('{"multipleOf":0.01}', "0.075", "expected a number that is a multiple of 0.01, found 0.075")
    one('{"exclusiveMaximum":5}', "5", "expected a number below 5, found 5")
    one('{"pattern":"^a+$"}', '"b"', 'expected a string that matches ^a+$, found "b"')
    one('{"format":"date"}', '"2026-02-30"', 'expected a string of format date, found "2026-02-30"')
    one('{"minItems":1}', "[]", "expected an array whose length is at least 1, found 0")
    one('{"maxProperties":0}', '{"a":1}', "expected an object whose number of members is at most 0, found 1")
    one('{"anyOf":[{"type":"null"},{"minimum":3}]}', "2", "expected a value that fits one of 2 schemas, found 2")
    one('{"oneOf":[true,{"minimum":1}]}', "2",
      "expected a value that fits just one of 2 schemas, found one that fits several")
    one('{"not":{"type":"null"}}', "null", "expected a value that does not fit the schema, found null")
    one('{"contains":{"type":"null"},"maxContains":1}', "[null,null]",
      "expected an array with at least 1 and at most 1 of a kind, found 2")
    one('{"additionalProperties":false}', '{"a/b":1}', "/a~1b: expected nothing, found 1")
    one('{"propertyNames":{"maxLength":1}}', '{"ab":1}', "/ab: expected a string whose length is at most 1, found 2")
    one('{"dependentRequired":{"a":["b"]}}', '{"a":1}', 'expected a member named "b"')
    one('{"unevaluatedProperties":false}', '{"a":1}', "/a: expected nothing, found 1")
    one('{"unevaluatedItems":false}', "[1]", "/0: expected nothing, found 1")
  end)

  it("tells an empty array from an empty object, null from nothing, and knows what numbers are worth", function()
    assert.is_nil(errors('{"type":"array"}', "[]"))
    assert.same({ "expected an array, found an object" }, errors('{"type":"array"}', "{}"))
    assert.is_nil(errors('{"required":["a"]}', '{"a":null}'))
    assert.is_nil(errors('{"type":"integer"}', "1.0"))
    assert.is_nil(errors('{"type":"integer","minimum":98249283749234923498293171823948729348710298301928331}',
      "98249283749234923498293171823948729348710298301928331"))
    assert.is_nil(errors('{"enum":[[],{"a":[1,{}]}]}', '{"a":[1.0,{}]}'))
    assert.same(1, #errors('{"enum":[{}]}', "[]"))
  end)

  it("refuses a schema that is none, and says where", function()
    local function refused(schema, pattern, options)
      local validator, err = compile(schema, options)
      assert.is_nil(validator)
      assert.matches(pattern, err, 1, true)
    end
    refused('{"properties":{"a":{"type":"text"}}}', "#/properties/a/type: expected the name of a type")
    refused('{"properties":[]}', "#/properties: expected an object, found an array")
    refused('{"items":[{}]}', "#/items: expected a schema, found an array")
    refused('{"allOf":[]}', "#/allOf: expected at least one schema")
    refused('{"minLength":-1}', "#/minLength: expected a whole number of at least 0")
    refused('{"pattern":"a(b"}', "#/pattern: expected a regular expression: ")
    refused('{"pattern":"(*UCP)a"}', "#/pattern: expected a regular expression: nothing that * repeats")
    refused('{"multipleOf":0}', "#/multipleOf: expected a number above 0")
    refused('{"required":["a",1]}', "#/required: expected a list of names")
    refused('{"$ref":"#/nowhere"}', '#/$ref: expected a schema that is here (nothing is fetched), found "#/nowhere"')
    refused('{"$ref":"http://elsewhere.example/a.json"}', "nothing is fetched")
    refused('{"$schema":"http://elsewhere.example/"}', "#/$schema: expected the URI of draft 4, 6, 7")
    refused('[1]', "#: expected a schema, found an array")
    refused('{}', "there is no draft 5", { draft = "5" })
  end)

  it("takes other documents that references name", function()
    local documents = { ["http://x.example/a.json"] = json.decode('{"$defs":{"n":{"type":"number"}}}') }
    assert.same({ "expected a number, found \"a\"" },
      errors('{"$ref":"http://x.example/a.json#/$defs/n"}', '"a"', { documents = documents }))
  end)

  it("reads each draft by its own rules", function()
    local schema = '{"exclusiveMinimum":true,"minimum":1,"const":5}'
    assert.is_nil(compile(schema))
    local validator = assert(compile(schema, { draft = "4" }))
    assert.same({ false, true }, { validator:test(1), validator:test(2) })
    validator = assert(compile('{"$schema":"http://json-schema.org/draft-04/schema#","const":5}'))
    assert.is_true(validator:test(6))
    validator = assert(compile('{"format":"date"}', { formats = false }))
    assert.is_true(validator:test("x"))
  end)

  it("ends with a schema that goes round in circles", function()
    assert.same({ "expected a value that is nested less deeply" }, errors('{"$ref":"#"}', "1"))
    assert.same({ "expected a value that is nested less deeply" },
      errors('{"not":{"$ref":"#/$defs/a"},"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"}]}}}', "1"))
  end)

  it("takes values as deep as JSON may be", function()
    local deep = ("["):rep(500) .. ("]"):rep(500)
    assert.is_nil(errors('{"type":"array","items":{"$ref":"#"}}', deep))
  end)

  it("bounds the work that one value may be", function()
    local items = {}
    for i = 1, 100 do items[i] = "[1,2,3,4,5,6,7,8,9,10]" end
    local value = "[" .. table.concat(items, ",") .. "]"
    local schema = '{"items":{"items":{"anyOf":[{"type":"null"},{"type":"number"}]}}}'
    assert.is_nil(errors(schema, value))
    assert.matches("expected a value that takes less work", errors(schema, value, { most_work = 500 })[1], 1, true)
  end)

  it("names fifty errors at most", function()
    assert.equal(50, #errors('{"items":{"type":"null"}}', "[" .. ("1,"):rep(99) .. "1]"))
  end)

  it("reads patterns as ECMA-262 does", function()
    local function matches(pattern, text)
      return (assert(json_schema.compile { pattern = pattern }):test(text))
    end
    for _, case in ipairs {
      { [[^\d$]], "\217\161", false }, { [[^\w$]], "é", false }, { [[^\s$]], "\194\160", true }, { "^.$", "é", true },
      { "^.$", "\226\128\168", false }, { "a$", "a\n", false }, { [[^\u00e9$]], "é", true },
      { [[^\ud83d\ude00$]], "😀", true }, { [[^[é-ü]$]], "ö", true }, { "^[]$", "", false }, { "^[^]$", "\n", true },
      { [[^\p{Letter}$]], "é", true }, { [[^\cA$]], "\1", true }, { "^[[:alpha:]]$", "b", false },
      { [[^(a)\1$]], "aa", true }, { [[^(?<x>a)\k<x>$]], "aa", true }, { [[^[\b]$]], "\b", true },
      { [[^[\s\S]$]], "\n", true },
    } do
      assert.equal(case[3], matches(case[1], case[2]), case[1])
    end
  end)
end)
