-- SPDX-License-Identifier: Apache-2.0
-- sluice.avro by itself; avro_peer_spec.lua compares it with another implementation.
require "spec.lua.support.native"
local avro = require "sluice.avro"
local json = require "sluice.json"
local random = require "spec.support.avro.random"

local null = json.null

local function record(fields, name)
  return ('{"type":"record","name":"%s","fields":[%s]}'):format(name or "R", fields)
end

local function field(name, kind, more)
  return ('{"name":"%s","type":%s%s}'):format(name, kind, more or "")
end

local function parse(text, options)
  return assert(avro.parse(text, options))
end

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function message_of(schema, value, form)
  local bytes, err = schema:encode(value, form)
  assert.is_nil(bytes)
  return err.message, err.path
end

describe("avro schemas", function()
  local WRONG = {
    { "{", "no JSON: " }, { '"strin"', 'there is no type "strin"' }, { "7", "expected a type, found 7" },
    { "{}", ".type: expected a type, found nothing" }, { '{"type":"array"}', ".items: expected a type, found nothing" },
    { '{"type":"map","values":"x.Y"}', '.values: there is no type "x.Y"' },
    { '{"type":"record","name":"R"}', ".fields: expected a list of fields, found nothing" },
    { '{"type":"record","name":"1R","fields":[]}', '.name: expected a name, found "1R"' },
    { '{"type":"record","name":"int","fields":[]}', ".name: int is the name of a primitive type" },
    { record(field("a", '"int"') .. "," .. field("a", '"int"')), ".fields[2].name: there is a field a already" },
    { record(field("a-b", '"int"')), '.fields[1].name: expected a name, found "a-b"' },
    { record('{"name":"a"}'), ".fields[1].type: expected a type, found nothing" },
    { record(field("a", '"int"', ',"default":"x"')), '.fields[1].default: expected an int, found "x"' },
    { record(field("a", '["null","string"]', ',"default":1')),
      ".fields[1].default: expected one of null, string, found 1" },
    { record(field("a", record(field("b", '"int"'), "Q"), ',"default":{"b":"x"}')),
      '.fields[1].default: /b: expected an int, found "x"' },
    { record(field("a", '"int"', ',"order":"up"')),
      '.fields[1].order: expected ascending, descending or ignore, found "up"' },
    { '{"type":"enum","name":"E","symbols":["A","A"]}', ".symbols[2]: there is a symbol A already" },
    { '{"type":"enum","name":"E","symbols":["A"],"default":"B"}', '.default: expected one of the symbols, found "B"' },
    { '{"type":"fixed","name":"F","size":-1}', ".size: expected a number of bytes, found -1" },
    { '["int","int"]', "[2]: there is a int in this union already" },
    { '["int",["null"]]', "[2]: a union may not hold a union" },
    { record(field("a", '{"type":"fixed","name":"R","size":1}')), ".fields[1].type.name: there is a type R already" },
    { ('{"type":"array","items":'):rep(100) .. '"int"' .. ("}"):rep(100), "nested too deeply" },
  }

  it("say what is wrong with them, and where", function()
    for _, case in ipairs(WRONG) do
      local schema, err = avro.parse(case[1])
      assert.is_nil(schema, case[1])
      assert(err:find(case[2], 1, true), case[1] .. "\n" .. err)
    end
  end)

  it("name types as namespaces say", function()
    local schema = parse [[{"type":"record","name":"a.b.R","fields":[
      {"name":"x","type":{"type":"enum","name":"E","symbols":["A"]}},
      {"name":"y","type":"E"}, {"name":"z","type":"a.b.E"},
      {"name":"o","type":{"type":"record","name":"Q","namespace":"other","fields":[
        {"name":"p","type":{"type":"fixed","name":"F","size":1}}]}},
      {"name":"f","type":"other.F"}, {"name":"none","type":{"type":"fixed","name":"G","namespace":"","size":1}},
      {"name":"g","type":"G"}]}]]
    assert.equal("a.b.R", schema:name())
    for _, name in ipairs { "a.b.E", "other.Q", "other.F", '"G"' } do
      assert(schema:canonical():find(name, 1, true), name)
    end
  end)

  it("use the named types of others", function()
    local line = '{"type":"record","name":"shop.Line","fields":[{"name":"price","type":"shop.Money"}]}'
    local money = '{"type":"fixed","name":"shop.Money","size":1}'
    local schema = parse('{"type":"array","items":"shop.Line"}', { references = { money, line } })
    assert.equal("027800", hex(schema:encode { { price = "x" } }))
    local _, err = avro.parse('"shop.Line"', { references = { line, money } })
    assert.matches('references[1].fields[1].type: there is no type "shop.Money"', err, 1, true)
  end)

  it("are read with names and defaults that do not fit, when that is asked for", function()
    local text = record(field("a-b", '"int"', ',"default":"x"') .. ","
      .. field("c", '"int"', ',"default":1'), "my-record")
    assert.is_nil(avro.parse(text))
    local schema = parse(text, { lenient = true })
    assert.equal("0602", hex(schema:encode { ["a-b"] = 3 }))
    assert.equal("/a-b: is missing", (message_of(schema, {})))
  end)

  it("give the specification's fingerprints", function()
    local int = parse '{"type":"int","doc":"x"}'
    assert.equal('"int"', int:canonical())
    assert.equal("8f5c393f1ad57572", hex(int:fingerprint()))
    assert.equal("ef524ea1b91e73173d938ade36c1db32", hex(int:fingerprint("md5")))
  end)

  it("mark single objects by their fingerprint", function()
    local int = parse '"int"'
    local bytes = int:encode_single(5)
    assert.equal("c3018f5c393f1ad575720a", hex(bytes))
    assert.equal(int:fingerprint(), avro.fingerprint_of(bytes))
    assert.equal(5, int:decode(bytes, "plain", 10))
    assert.is_nil(avro.fingerprint_of("\195\1abc"))
  end)
end)

describe("avro values", function()
  it("are the bytes of the specification", function()
    local longs = { [0] = "00", [-1] = "01", [1] = "02", [-2] = "03", [-64] = "7f", [64] = "8001" }
    local long = parse '"long"'
    for value, bytes in pairs(longs) do assert.equal(bytes, hex(long:encode(value))) end
    assert.equal("06666f6f", hex(parse('"string"'):encode("foo")))
    assert.equal("3606666f6f", hex(parse(record(field("a", '"long"') .. "," .. field("b", '"string"')))
      :encode { a = 27, b = "foo" }))
    assert.equal("04063600", hex(parse('{"type":"array","items":"long"}'):encode { 3, 27 }))
    assert.equal("020261", hex(parse('["null","string"]'):encode("a")))
  end)

  it("say which of them do not fit, and where", function()
    local schema = parse(record(table.concat({
      field("i", '"int"', ',"default":0'), field("l", '"long"', ',"default":0'),
      field("f", '"float"', ',"default":0'),
      field("s", '"string"', ',"default":""'), field("y", '"bytes"', ',"default":""'),
      field("e", '{"type":"enum","name":"E","symbols":["A","B"]}', ',"default":"A"'),
      field("x", '{"type":"fixed","name":"F","size":2}', ',"default":"ab"'),
      field("a", '{"type":"array","items":"int"}', ',"default":[]'),
      field("m", '{"type":"map","values":"int"}', ',"default":{}'), field("b", '"boolean"', ',"default":true'),
    }, ",")))
    local cases = {
      { { i = 1.5 }, "/i: expected an int, found 1.5" },
      { { i = 2147483648 }, "/i: expected an int, found 2147483648" },
      { { l = 2 ^ 60 }, "/l: expected a long, found 1.1529215046068e+18" },
      { { f = 1e39 }, "/f: expected a float, found 1e+39" },
      { { s = "\255" }, "/s: expected a text of UTF-8, found \"\255\"" },
      { { s = 7 }, "/s: expected a text of UTF-8, found 7" },
      { { y = "€" }, "/y: expected bytes (a text of characters up to U+00FF), found \"€\"" },
      { { e = "C" }, '/e: expected one of A, B, found "C"' },
      { { x = "abc" }, '/x: expected 2 bytes (a text of so many characters up to U+00FF), found "abc"' },
      { { a = { 1, "x" } }, '/a/1: expected an int, found "x"' },
      { { a = { b = 1 } }, "/a: expected an array, found an object" },
      { { m = { ["a/b"] = null } }, "/m/a~1b: expected an int, found null" },
      { { m = { 1 } }, "/m: expected an object, found an array" }, { { b = 1 }, "/b: expected a boolean, found 1" },
      { { z = 1 }, "/z: there is no such field" }, { "x", 'expected an object, found "x"' },
    }
    for _, case in ipairs(cases) do assert.equal(case[2], (message_of(schema, case[1]))) end
    assert(schema:encode {})
  end)

  it("of a union stand alone in the plain form, and are named where that does not say it", function()
    local schema = parse(('["null","int","string",{"type":"array","items":"int"},%s,%s]'):format(
      record(field("a", '"int"'), "A"), record(field("a", '"string"'), "B")))
    local cases = { { null, "00" }, { 5, "020a" }, { "x", "040278" }, { { 1 }, "06020200" }, { { a = 1 }, "0802" },
      { { a = "x" }, "0a0278" }, { { int = 7 }, "020e" }, { { B = { a = "y" } }, "0a0279" } }
    for _, case in ipairs(cases) do
      local bytes, err = schema:encode(case[1])
      assert(bytes, err and err.message)
      assert.equal(case[2], hex(bytes))
    end
    assert.same({ a = "x" }, schema:decode("\10\2x"))
    assert.same({ B = { a = "x" } }, schema:decode("\10\2x", "avro"))
    assert.equal("expected one of null, int, string, array, A, B, found true", (message_of(schema, true)))
    assert.equal("expected one of null, int, string, array, A, B, found an object", (message_of(schema, { a = true })))
    assert.equal("/A/a: expected an int, found true", (message_of(schema, { A = { a = true } })))
    local one = parse('["null",' .. record(field("a", '"int"'), "A") .. "]")
    assert.equal("/a: expected an int, found true", (message_of(one, { a = true })))
    assert.matches("as an object with that name, found 5", message_of(schema, 5, "avro"), 1, true)
  end)

  it("take the numbers that JSON has no names for as texts", function()
    local double = parse '"double"'
    for _, text in ipairs { "NaN", "Infinity", "-Infinity" } do
      assert.equal(text, double:decode(double:encode(text)))
    end
    assert.is_nil(double:encode("nan"))
  end)

  it("of logical types are what people write, and raw numbers too", function()
    local cases = {
      { '"int","logicalType":"date"', "2024-02-29", 19782 },
      { '"int","logicalType":"time-millis"', "08:15:00.250", 29700250 },
      { '"long","logicalType":"timestamp-millis"', "2026-03-01T08:15:00.250Z", 1772352900250 },
      { '"long","logicalType":"timestamp-nanos"', "2026-03-01T08:15:00.000000001Z", 1772352900000000001LL },
      { '"long","logicalType":"local-timestamp-micros"', "1969-12-31T23:59:59.999999", -1 },
      { '"string","logicalType":"uuid"', "0b64c9a4-0000-4000-8000-00000000000f",
        "0b64c9a4-0000-4000-8000-00000000000f" },
    }
    for _, case in ipairs(cases) do
      local schema = parse('{"type":' .. case[1] .. "}")
      local bytes = assert(schema:encode(case[2]))
      assert.equal(case[2], schema:decode(bytes))
      assert.is_true(case[3] == schema:decode(bytes, "avro"))
      assert.equal(bytes, schema:encode(case[3]))
    end
    local at = parse '{"type":"long","logicalType":"timestamp-millis"}'
    assert.equal(at:encode("2026-03-01T08:15:00Z"), at:encode("2026-03-01T10:15:00+02:00"))
    for _, text in ipairs { "2026-02-29T00:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01", "2026-03-01T08:15:00", "now",
      "2026-03-01T08:15:00.0001Z" } do
      assert.equal(('expected a time such as 2026-03-01T08:15:00.25Z, found "%s"'):format(text), (message_of(at, text)))
    end
  end)

  it("of decimals are exact", function()
    local schema = parse '{"type":"bytes","logicalType":"decimal","precision":30,"scale":3}'
    local small = parse '{"type":"fixed","name":"D","size":2,"logicalType":"decimal","precision":4,"scale":2}'
    for _, text in ipairs { "0.000", "-0.001", "1.280", "-1.280", "123456789012345678901234567.125", "-0.128", "0.127",
      "-32.768", "32.767", "32.768" } do
      assert.equal(text, schema:decode(schema:encode(text)))
    end
    assert.equal("12.500", schema:decode(schema:encode(12.5)))
    assert.equal("9007199254740993.000", schema:decode(schema:encode(9007199254740993LL)))
    assert.equal("-1.50", small:decode(small:encode("-1.5")))
    assert.equal("\255\106", small:encode("-1.5"))
    for _, wrong in ipairs { "1.2345", "12.", "x", "", "1e3", ("1"):rep(28) } do assert.is_nil(schema:encode(wrong)) end
    assert.is_nil(small:encode("100"))
  end)

  it("of a duration are its parts", function()
    local schema = parse '{"type":"fixed","name":"D","size":12,"logicalType":"duration"}'
    local value = { months = 1, days = 2, millis = 4294967295 }
    assert.equal("0100000002000000ffffffff", hex(schema:encode(value)))
    assert.same(value, schema:decode(schema:encode(value)))
    assert.is_nil(schema:encode { months = 1, days = 2 })
  end)

  it("have no logical type where it cannot be", function()
    for _, text in ipairs { '{"type":"string","logicalType":"date"}', '{"type":"string","logicalType":"nothing"}' } do
      assert.equal("x", parse(text):decode(parse(text):encode("x")))
    end
    local decimal = parse '{"type":"bytes","logicalType":"decimal","precision":0}'
    assert.equal("\2x", decimal:encode("x"))
  end)

  it("are equal bytes when they are equal", function()
    local schema = parse '{"type":"map","values":"int"}'
    local one, other = {}, {}
    for i = 1, 50 do one["k" .. i], other["k" .. 51 - i] = i, 51 - i end
    assert.equal(schema:encode(one), schema:encode(other))
  end)
end)

describe("avro bytes", function()
  it("that are malformed are told", function()
    local cases = {
      { '"long"', "", "the bytes end too early" }, { '"long"', "\128", "the bytes end too early" },
      { '"long"', ("\255"):rep(9) .. "\2", "an integer of more than 64 bits" },
      { '"int"', "\255\255\255\255\31", "an int of more than 32 bits" },
      { '"string"', "\9", "a negative length" }, { '"string"', "\8ab", "the bytes end too early" },
      { '"string"', "\2\255", "a text that is not UTF-8" }, { '"boolean"', "\2", "a boolean that is neither 0 nor 1" },
      { '"boolean"', "\1\1", "1 bytes too many" }, { '["null"]', "\2", "a union of 1 has no branch 1" },
      { '["null"]', "\1", "a union of 1 has no branch -1" },
      { '{"type":"enum","name":"E","symbols":["A"]}', "\2", "the enum has no symbol 1" },
      { '{"type":"array","items":"int"}', "\4\2", "/1: the bytes end too early" },
      { '{"type":"fixed","name":"F","size":3}', "ab", "the bytes end too early" },
      { record(field("a", '{"type":"array","items":"boolean"}')), "\4\1\3", "/a/1: a boolean that is neither 0 nor 1" },
    }
    for _, case in ipairs(cases) do
      local value, err = parse(case[1]):decode(case[2])
      assert.is_nil(value)
      assert.equal(case[3], err.message)
    end
  end)

  it("in blocks with their sizes are read", function()
    local schema = parse '{"type":"array","items":"long"}'
    assert.same({ 1, 2, 3 }, schema:decode("\3\4\2\4\2\6\0"))
  end)

  it("of nothing cannot fill the memory", function()
    local schema = parse '{"type":"array","items":"null"}'
    local value, err = schema:decode(parse('"long"'):encode(2 ^ 40) .. "\0")
    assert.is_nil(value)
    assert.equal("more elements than the bytes hold", err.message)
    assert.equal(1000, #schema:decode(parse('"long"'):encode(1000) .. "\0"))
  end)

  it("that nest without end are told", function()
    local list = parse '{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}'
    local _, err = list:decode(("\2"):rep(100000) .. "\0")
    assert.matches("nested too deeply", err.message)
    local value = { next = null }
    for _ = 1, 1000 do value = { next = value } end
    assert.matches("nested too deeply", (message_of(list, value)))
    local itself = parse '{"type":"record","name":"S","fields":[{"name":"s","type":"S"}]}'
    assert.matches("nested too deeply", select(2, itself:decode("")).message)
  end)

  it("take bounded work, whatever union the value tries", function()
    local schema = parse([[{"type":"record","name":"A","fields":[{"name":"n","type":["null","A",
      {"type":"record","name":"B","fields":[{"name":"n","type":["null","A","B"]}]}]}]}]])
    local value = { n = { n = "x" } }
    for _ = 1, 60 do value = { n = value } end
    assert.matches("takes too much work", (message_of(schema, value)))
  end)

  it("that are random are values or told", function()
    local maker = random(7)
    for _ = 1, 300 do
      local given = maker:schema()
      local schema = parse(given)
      local bytes = schema:encode(maker:value_of(given), "avro")
      for _ = 1, 10 do
        local at = maker:below(#bytes + 1)
        local changed = bytes:sub(1, at) .. string.char(maker:below(256)) .. bytes:sub(at + 2)
        for _, text in ipairs { changed, bytes:sub(1, at) } do
          local value, err = schema:decode(text)
          assert.is_true(err == nil or type(err.message) == "string")
          if err == nil then assert(json.encode(value)) end
        end
      end
    end
  end)
end)

describe("avro schemas that differ", function()
  local function reader(of, from)
    return parse(of):reader(parse(from))
  end

  it("that cannot be resolved say why, and where", function()
    local cases = {
      { '"int"', '"string"', "a string cannot be read as an int" },
      { '"int"', '"long"', "a long cannot be read as an int" },
      { record(field("a", '"int"')), record(field("a", '"string"')), "/a: a string cannot be read as an int" },
      { record(field("a", '"int"')), record(""), "the writer has no field a, and it has no default" },
      { record("", "R"), record("", "Q"), "record Q cannot be read as record R" },
      { '{"type":"fixed","name":"F","size":1}', '{"type":"fixed","name":"F","size":2}',
        "fixed F cannot be read as fixed F" },
      { '["null","int"]', '"string"', "a string cannot be read as one of null, int" },
    }
    for _, case in ipairs(cases) do
      local resolved, err = reader(case[1], case[2])
      assert.is_nil(resolved, case[1])
      assert.equal(case[3], err.message)
    end
  end)

  it("fail at the value whose branch the reader does not have", function()
    local resolved = assert(reader('"int"', '["int","string"]'))
    assert.equal(5, resolved:decode("\0\10"))
    local _, err = resolved:decode("\2\2a")
    assert.equal("a string cannot be read as an int", err.message)
    resolved = assert(reader('{"type":"enum","name":"E","symbols":["A"]}',
      '{"type":"enum","name":"E","symbols":["A","B"]}'))
    assert.equal("the reader's enum has no B", select(2, resolved:decode("\2")).message)
  end)

  it("give defaults that nobody shares", function()
    local resolved = assert(reader(record(field("l", '{"type":"array","items":"int"}', ',"default":[1]')), record("")))
    local one = resolved:decode("")
    one.l[1] = 9
    assert.same({ l = { 1 } }, resolved:decode(""))
  end)

  it("read defaults of bytes and of any branch", function()
    local fields = field("b", '"bytes"', [[,"default":"\u00ff"]]) .. "," .. field("u", '["null","int"]', ',"default":3')
    local resolved = assert(reader(record(fields), record("")))
    assert.same({ b = "ÿ", u = { int = 3 } }, resolved:decode("", "avro"))
  end)
end)
