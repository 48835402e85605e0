-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local schema = require "sluice.schema"
local typedefs = require "sluice.schema.typedefs"

local function of(fields)
  return assert(schema.normalise(fields))
end

-- What is said about a configuration, in one text.
local function faults(fields, config)
  local result, errors = schema.process(of(fields), config)
  assert.is_nil(result)
  local lines = {}
  for i, err in ipairs(errors) do lines[i] = err.text end
  return table.concat(lines, "\n")
end

local function passes(field, value)
  return (schema.process(of { x = field }, { x = value })) ~= nil
end

describe("a schema", function()
  it("fills in defaults, in records too", function()
    local fields = { a = { type = "string", default = "x" }, r = { type = "record", required = true, fields = {
      port = { type = "integer", default = 80 }, list = { type = "array", elements = { type = "string" },
        default = { "one" } } } }, o = { type = "record", fields = { b = { type = "string", default = "no" } } } }
    assert.same({ a = "x", r = { port = 80, list = { "one" } } }, schema.process(of(fields), {}))
    assert.same({ a = "x", r = { port = 80, list = { "one" } } }, schema.process(of(fields), nil))
  end)

  it("gives each configuration its own copy of a default", function()
    local normal = of { list = { type = "array", elements = { type = "string" }, default = { "one" } } }
    local first = schema.process(normal, {})
    first.list[1] = "changed"
    assert.same({ "one" }, schema.process(normal, {}).list)
  end)

  it("does not fill in where null was written", function()
    assert.same({}, schema.process(of { a = { type = "string", default = "x" } }, { a = cjson.null }))
  end)

  it("never changes what it is given", function()
    local given = { r = { list = { "a", "a" } } }
    schema.process(of { r = { type = "record", fields = { list = { type = "set", elements = { type = "string" } },
      n = { type = "number", default = 1 } } } }, given)
    assert.same({ r = { list = { "a", "a" } } }, given)
  end)

  it("says the field, what was expected and what was found", function()
    local fields = { greeting = { type = "string" } }
    assert.equal("config.greeting: expected a string, found a number", faults(fields, { greeting = 7 }))
    local _, errors = schema.process(of(fields), { greeting = 7 })
    assert.same({ "config.greeting", "a string", "a number" },
      { errors[1].field, errors[1].expected, errors[1].found })
  end)

  it("tells every fault at once", function()
    local text = faults({ a = { type = "string", required = true }, b = { type = "integer" }, c = { type = "array",
      elements = { type = "string", one_of = { "x", "y" } } } }, { b = 1.5, c = { "x", "z" }, d = 1 })
    assert.equal(table.concat({
      "config.a: expected a string, found nothing", "config.b: expected an integer, found 1.5",
      'config.c[1]: expected one of x or y, found "z"', "config.d: unknown field",
    }, "\n"), text)
  end)

  it("offers the field that was probably meant", function()
    assert.matches('config.hour_limt: unknown field, did you mean "hour_limit"?',
      faults({ hour_limit = { type = "number" } }, { hour_limt = 1 }), 1, true)
  end)

  it("takes lists, maps and sets for what they are", function()
    local fields = { l = { type = "array", elements = { type = "number" } }, s = { type = "set", elements =
      { type = "string" } }, m = { type = "map", keys = { type = "string", match = "^%l" }, values =
      { type = "number" } } }
    assert.same({ l = {}, s = { "a", "b" }, m = { x = 1 } },
      schema.process(of(fields), { l = {}, s = { "a", "b", "a" }, m = { x = 1 } }))
    assert.matches("config.l: expected a list, found a map", faults(fields, { l = { a = 1 } }))
    assert.matches("config.m: expected a map, found a list", faults(fields, { m = { 1 } }))
    assert.matches("config.m.x: expected a number, found a string", faults(fields, { m = { x = "1" } }))
    assert.matches("config.m.X: expected a string matching", faults(fields, { m = { X = 1 } }))
  end)

  it("says in words what a pattern means that many schemas have", function()
    assert.equal([[config.x: expected letters, digits, '.', '_' and '-', found "a b"]],
      faults({ x = { type = "string", match = "^[%w._-]+$" } }, { x = "a b" }))
    assert.equal('config.x: expected a string matching ^a+$, found "b"',
      faults({ x = { type = "string", match = "^a+$" } }, { x = "b" }))
  end)

  it("refuses an empty text unless its length may be zero", function()
    assert.equal("config.x: expected a string, found an empty one", faults({ x = { type = "string" } }, { x = "" }))
    assert.is_true(passes({ type = "string", len_min = 0 }, ""))
  end)

  it("does not show what is secret", function()
    assert.equal("config.x: expected a string of at least 8 characters, found a string",
      faults({ x = { type = "string", encrypted = true, len_min = 8 } }, { x = "hunter2" }))
  end)

  local constraints = {
    { { type = "number", between = { 1, 5 } }, { 1, 5, 2.5 }, { 0, 6, 5.1 } },
    { { type = "number", gt = 0 }, { 0.1 }, { 0, -1 } },
    { { type = "string", one_of = { "a", "b" } }, { "a" }, { "c" } },
    { { type = "string", not_one_of = { "a" } }, { "b" }, { "a" } },
    { { type = "string", len_min = 2, len_max = 3 }, { "ab", "abc" }, { "a", "abcd" } },
    { { type = "array", elements = { type = "number" }, len_eq = 2 }, { { 1, 2 } }, { { 1 }, { 1, 2, 3 } } },
    { { type = "map", values = { type = "number" }, len_min = 1 }, { { a = 1 } }, { {} } },
    { { type = "string", match = "^a+$" }, { "aa" }, { "ab" } },
    { { type = "string", not_match = "x" }, { "a" }, { "axb" } },
    { { type = "string", match_none = { { pattern = "x", err = "no x" } } }, { "a" }, { "x" } },
    { { type = "string", match_all = { { pattern = "x" }, { pattern = "y" } } }, { "xy" }, { "x" } },
    { { type = "string", match_any = { patterns = { "x", "y" }, err = "x or y" } }, { "x", "y" }, { "z" } },
    { { type = "string", match_all = "x" }, { "xy" }, { "y" } },
    { { type = "array", elements = { type = "string" }, match_all = "^a" }, { {}, { "a", "ab" } }, { { "a", "b" } } },
    { { type = "array", elements = { type = "string" }, match_none = { "^b", "^c" } }, { { "a" } }, { { "a", "c" } } },
    { { type = "array", elements = { type = "string" }, match_any = "^c" }, { { "a", "c" } }, { { "a" }, {} } },
    { { type = "string", starts_with = "/" }, { "/a" }, { "a/" } },
    { { type = "string", is_regex = true }, { "a(b)" }, { "a(b" } },
    { { type = "string", uuid = true }, { "5b1f0c7e-3d52-4a0b-9c61-2e8f47a0d319" }, { "5b1f" } },
    { { type = "string", eq = "x" }, { "x" }, { "y" } },
    { { type = "string", ne = "x" }, { "y" }, { "x" } },
    { { type = "set", elements = { type = "string" }, contains = "x" }, { { "x", "y" } }, { { "y" } } },
    { { type = "set", elements = { type = "string" }, mutually_exclusive_subsets = { { "a" }, { "b", "c" } } },
      { { "a" }, { "b", "c" } }, { { "a", "b" } } },
    { { type = "string", custom_validator = function(v) return v == "x" or nil, "not x" end }, { "x" }, { "y" } },
    { { type = "boolean" }, { true, false }, { "true", 1 } },
    { { type = "integer" }, { 1, -5 }, { 1.5, "1" } },
    { { type = "foreign", reference = "consumers" }, { "bob", { id = "x" } }, { 1 } },
    { { type = "any" }, { 1, "x", { a = { 1 } } }, {} },
    { { type = "map", keys = { type = "integer" }, values = { type = "string" } }, { { ["200"] = "x" } },
      { { x = "y" } } },
    { typedefs.port, { 0, 65535 }, { -1, 65536, 1.5, "80" } },
    { typedefs.host, { "a.example.com", "10.0.0.1", "::1", "a_b" }, { "a b", "10.0.0.256", "a:80", "-a", "1.2.3" } },
    { typedefs.url, { "http://a", "https://a:1/b?c" }, { "a", "http://", "http://a:99999" } },
    { typedefs.router_path, { "/", "/a-b", "/a%20b", "~/x$", "~/(?<n>a)" }, { "a", "//", "/a b", "/%zz", "~/(" } },
    { typedefs.ip_or_cidr, { "10.0.0.1", "10.0.0.0/8", "fd00::/8", "::ffff:1.2.3.4" },
      { "10.0.0.0/33", "x", "1::2::3", "fd00::/129" } },
    { typedefs.wildcard_host, { "*.a.com", "a.*", "a.com:80", "*.a.com:8443" }, { "a.*.com", "*.*.com", "a.com:" } },
    { typedefs.header_name, { "X-A_b" }, { "a b", "a:b" } }, { typedefs.http_method, { "GET", "PURGE" }, { "get" } },
    { typedefs.lua_code, { "return 1" }, { "return return" } },
    { typedefs.tags, { { "a", "b c" } }, { { "a,b" }, { "a/b" } } },
  }

  it("holds each constraint at its bounds", function()
    for i, case in ipairs(constraints) do
      for _, good in ipairs(case[2]) do
        assert.message(("case %d takes %s"):format(i, cjson.encode(good))).is_true(passes(case[1], good))
      end
      for _, bad in ipairs(case[3]) do
        assert.message(("case %d refuses %s"):format(i, cjson.encode(bad))).is_false(passes(case[1], bad))
      end
    end
  end)

  it("uses the words of a check of its own", function()
    local fields = { x = { type = "string", custom_validator = function() return nil, "must rhyme" end } }
    assert.equal('config.x: must rhyme, found "y"', faults(fields, { x = "y" }))
  end)

  it("survives a check of its own that breaks", function()
    local fields = { x = { type = "string", custom_validator = function(v) return v.a.b end } }
    assert.matches("config.x: the schema's own check failed", faults(fields, { x = "y" }))
  end)
end)

describe("entity checks", function()
  local function check(list, config)
    local fields = { config = { type = "record", fields = { { a = { type = "number" } }, { b = { type = "number" } },
      { c = { type = "string" } } }, entity_checks = list } }
    local result, errors = schema.process(of { name = "x", fields = { fields } }, config)
    return result and "good" or errors[1].text
  end

  local cases = {
    { { at_least_one_of = { "a", "b" } }, { a = 1 }, {}, "config: expected at least one of a or b, found none" },
    { { only_one_of = { "a", "b" } }, { b = 1 }, { a = 1, b = 2 }, "exactly one of a or b, found a and b" },
    { { mutually_exclusive = { "a", "b" } }, {}, { a = 1, b = 2 }, "at most one of a or b" },
    { { mutually_required = { "a", "b" } }, { a = 1, b = 1 }, { a = 1 }, "all of a and b or none, found a" },
    { { mutually_exclusive_sets = { set1 = { "a" }, set2 = { "b", "c" } } }, { b = 1, c = "x" }, { a = 1, b = 1 },
      "found a beside b" },
    { { distinct = { "a", "b" } }, { a = 1, b = 2 }, { a = 1, b = 1 }, "config.b: expected a value different from a" },
    { { conditional = { if_field = "c", if_match = { one_of = { "x" } }, then_field = "a", then_match =
      { required = true } } }, { c = "y" }, { c = "x" }, "config.a: expected a value %(because of c%)" },
    { { conditional = { if_field = "c", if_match = { eq = "x" }, then_field = "a", then_match = { gt = 5 } } },
      { c = "x", a = 6 }, { c = "x", a = 5 }, "config.a: expected a number above 5" },
    { { conditional_at_least_one_of = { if_field = "c", if_match = { eq = "x" },
      then_at_least_one_of = { "a", "b" } } },
      { c = "y" }, { c = "x" }, "at least one of a or b" },
    { { custom_entity_check = { field_sources = { "a", "b" }, fn = function(entity)
      return entity.a < (entity.b or 9) or nil, "a must be below b"
    end } }, { a = 1, b = 2 }, { a = 2, b = 1 }, "a must be below b" },
  }

  it("hold between the fields of a record", function()
    for _, case in ipairs(cases) do
      local name = next(case[1])
      assert.message(name).equal("good", check({ case[1] }, case[2]))
      assert.message(name).matches(case[4], check({ case[1] }, case[3]))
    end
  end)

  it("count an empty list, map or text as none, as Kong's do", function()
    local function good(list, config)
      local fields = { config = { type = "record", fields = {
        { a = { type = "array", elements = { type = "string" } } }, { b = { type = "map" } },
        { c = { type = "string", len_min = 0 } },
      }, entity_checks = list } }
      return schema.process(of { name = "x", fields = { fields } }, config) ~= nil
    end
    local empty = { a = {}, b = {}, c = "" }
    for _, name in ipairs { "at_least_one_of", "only_one_of" } do
      assert.message(name).is_false(good({ { [name] = { "a", "b", "c" } } }, empty))
      assert.message(name).is_true(good({ { [name] = { "a", "b", "c" } } }, { a = { "x" }, b = {}, c = "" }))
    end
    assert.is_true(good({ { mutually_exclusive = { "a", "b" } } }, { a = { "x" }, b = {} }))
    assert.is_true(good({ { mutually_required = { "a", "c" } } }, empty))
    assert.is_false(good({ { mutually_required = { "a", "c" } } }, { a = { "x" }, c = "" }))
  end)

  it("wait until the fields themselves are good", function()
    assert.equal("config.a: expected a number, found a string",
      check({ { at_least_one_of = { "b" } } }, { a = "x" }))
  end)

  it("may reach into the configuration from the top of Kong's form", function()
    local normal = of { name = "x", fields = { { config = { type = "record", fields = { { a = { type = "number" } },
      { b = { type = "number" } } } } } }, entity_checks = { { at_least_one_of = { "config.a", "config.b" } } } }
    assert.same({ a = 1 }, schema.process(normal, { a = 1 }))
    assert.is_nil((schema.process(normal, {})))
  end)
end)

describe("shorthand fields", function()
  local normal = of { name = "x", fields = { { config = { type = "record", fields = { { redis = { type = "record",
    required = true, fields = { { host = { type = "string" } }, { port = typedefs.port { default = 6379 } } } } } },
    shorthand_fields = { { redis_host = { type = "string", func = function(value)
      return { redis = { host = value } }
    end } } } } } } }

  it("stand for the longer spelling", function()
    assert.same({ redis = { host = "a", port = 6379 } }, schema.process(normal, { redis_host = "a" }))
  end)

  it("give way to a field that is given beside them", function()
    assert.same({ redis = { host = "b", port = 6379 } },
      schema.process(normal, { redis_host = "a", redis = { host = "b" } }))
  end)

  it("are checked under their own name", function()
    local _, errors = schema.process(normal, { redis_host = 5 })
    assert.equal("config.redis_host: expected a string, found a number", errors[1].text)
  end)
end)

describe("the forms of a schema", function()
  it("are one: the short form becomes Kong's", function()
    local short = of { b = { type = "string", about = "what b is" }, a = { type = "number", default = 1 } }
    assert.same({ fields = { { config = { type = "record", required = true, fields = {
      { a = { type = "number", default = 1 } }, { b = { type = "string", description = "what b is" } },
    } } } } }, short)
  end)

  it("name what is wrong with a schema", function()
    local function why(fields) return select(2, schema.normalise(fields)) end
    assert.matches('config.a: expected a known type, found "strin"', why { a = { type = "strin" } })
    assert.matches('config.a: unknown attribute "lenmax", did you mean "len_max"', why { a = { type = "string",
      lenmax = 1 } })
    assert.matches("config.a: its default: expected an integer, found a string", why { a = { type = "integer",
      default = "x" } })
    assert.matches("config.r.a: expected a field's description", why { r = { type = "record", fields = { a = 1 } } })
    assert.matches("unknown entity check", tostring(why { name = "x", fields = { { config = { type = "record",
      fields = {}, entity_checks = { { at_leest_one_of = { "a" } } } } } } }))
    assert.matches("expected a table", why(7))
  end)
end)
