-- SPDX-License-Identifier: Apache-2.0
-- sluice.avro beside another implementation (`make peers` fetches it): random schemas with random values, both ways;
-- canonical forms; schema resolution; logical types.
require "spec.lua.support.native"
local avro = require "sluice.avro"
local ffi = require "ffi"
local json = require "sluice.json"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local random = require "spec.support.avro.random"

local HOME = os.getenv("SLUICE_HOME") or "."
local PEER = HOME .. "/.cache/peers/fastavro"
local SEED, SCHEMAS, VALUES = 20260301, 150, 4
local EXACT = { exact = true }

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function unhex(text)
  return (text:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

local function float(number)
  return tonumber(ffi.new("float", number))
end

local function same_number(a, b)
  return a == b or float(a) == float(b) -- a float is shown by the fewest digits that mean it
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    local numbers = type(a) == "number" and type(b) == "number"
    return numbers and same_number(a, b) or a == b
  end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function ask(tasks)
  local directory = posix.temporary_directory()
  local path, lines = directory .. "/tasks", {}
  for i, task in ipairs(tasks) do lines[i] = assert(json.encode(task)) end
  process.write_file(path, table.concat(lines, "\n") .. "\n")
  local status, out, err = process.run({ "env", "PYTHONPATH=" .. PEER, "PYTHONDONTWRITEBYTECODE=1", "python3",
    HOME .. "/spec/support/avro/peer.py", path }, { seconds = 60 })
  assert(status == 0, err)
  local answers = {}
  for line in out:gmatch("[^\n]+") do answers[#answers + 1] = assert(json.decode(line, EXACT)) end
  assert.equal(#tasks, #answers)
  return answers
end

local function told(schema, ...)
  return table.concat({ json.encode(schema), ... }, "\n")
end

describe("avro and another implementation", function()
  it("write what the other reads", function()
    local maker, tasks, values = random(SEED), {}, {}
    for _ = 1, SCHEMAS do
      local given = maker:schema()
      local schema = assert(avro.parse(json.encode(given)))
      for _ = 1, VALUES do
        local value = maker:value_of(given)
        local bytes, err = schema:encode(value, "avro")
        assert(bytes, err and told(given, json.encode(value), err.message))
        values[#values + 1] = value
        tasks[#tasks + 1] = { ["do"] = "read", schema = given, bytes = hex(bytes) }
      end
    end
    for i, answer in ipairs(ask(tasks)) do
      assert(not answer.error, told(tasks[i].schema, answer.error))
      assert(same(values[i], answer.json), told(tasks[i].schema, json.encode(values[i]), json.encode(answer.json)))
    end
  end)

  it("read what the other writes, and write the same bytes", function()
    local maker, tasks = random(SEED + 1), {}
    for i = 1, SCHEMAS do
      tasks[i] = { ["do"] = "write", schema = maker:schema(), count = VALUES, seed = SEED + i }
    end
    local count = 0
    for i, answer in ipairs(ask(tasks)) do
      local given = tasks[i].schema
      local schema = assert(avro.parse(given))
      assert(not answer.error, told(given, answer.error))
      for _, pair in ipairs(answer.pairs) do
        local value, err = schema:decode(unhex(pair.bytes), "avro")
        assert(err == nil, err and told(given, err.message))
        assert(same(pair.json, value), told(given, json.encode(pair.json), json.encode(value)))
        local _, wrong = schema:decode(unhex(pair.bytes), "plain")
        assert.is_nil(wrong)
        local again = assert(schema:encode(value, "avro"))
        if not json.encode(given):find('"map"', 1, true) then assert.equal(pair.bytes, hex(again)) end
        assert.equal(#pair.bytes / 2, #again)
        count = count + 1
      end
    end
    assert.equal(SCHEMAS * VALUES, count)
  end)

  it("write types that hold themselves alike", function()
    local maker, tasks = random(SEED + 3, true), {}
    for _ = 1, SCHEMAS do
      local given = maker:schema()
      local bytes = assert(avro.parse(given):encode(maker:value_of(given), "avro"))
      tasks[#tasks + 1] = { ["do"] = "rewrite", schema = given, bytes = hex(bytes) }
    end
    for i, answer in ipairs(ask(tasks)) do
      assert.equal(tasks[i].bytes, answer.bytes or told(tasks[i].schema, answer.error))
    end
  end)

  it("have one canonical form and its fingerprints", function()
    local maker, tasks = random(SEED + 2, true), {}
    for i = 1, SCHEMAS do tasks[i] = { ["do"] = "form", schema = maker:schema() } end
    for i, answer in ipairs(ask(tasks)) do
      local schema = assert(avro.parse(tasks[i].schema))
      assert.equal(answer.canonical, schema:canonical())
      assert.equal(answer.crc64, hex(schema:fingerprint()))
      assert.equal(answer.sha256, hex(schema:fingerprint("sha256")))
    end
  end)

  local function record(name, fields, more)
    return ('{"type":"record","name":"%s",%s"fields":[%s]}'):format(name, more or "", fields)
  end

  local A, B = '{"name":"a","type":"int"}', '{"name":"b","type":"string"}'
  local ADDED = '{"name":"l","type":{"type":"array","items":"int"},"default":[1,2]},'
    .. '{"name":"u","type":["null","string"],"default":null},{"name":"s","type":"string","default":"ü"}'
  local E = '{"type":"enum","name":"E","symbols":["A","B"]}'

  -- Writer, reader and a value of the writer.
  local CHANGES = {
    { '"int"', '"long"', 7 }, { '"int"', '"float"', -3 }, { '"int"', '"double"', 9 }, { '"long"', '"float"', 2 ^ 24 },
    { '"long"', '"double"', 2 ^ 40 }, { '"float"', '"double"', 0.5 }, { '"string"', '"bytes"', "abc" },
    { '"bytes"', '"string"', "abc" }, { '"int"', '["null","long"]', 5 },
    { '["null","int"]', '["long","null"]', { int = 5 } }, { '["int","string"]', '["string","double"]', { int = 5 } },
    { '{"type":"array","items":"int"}', '{"type":"array","items":"double"}', { 1, 2 } },
    { '{"type":"map","values":"int"}', '{"type":"map","values":["null","long"]}', { a = 1 } },
    { E, '{"type":"enum","name":"E","symbols":["C","A"],"default":"C"}', "B" },
    { E, '{"type":"enum","name":"E","symbols":["B","A"]}', "B" },
    { record("R", A .. "," .. B), record("R", '{"name":"b","type":"string"},{"name":"a","type":"long"}'),
      { a = 1, b = "x" } },
    { record("R", '{"name":"m","type":{"type":"map","values":"string"}},' .. A), record("R", A),
      { m = { k = "v" }, a = 4 } },
    { record("R", A), record("R", A .. "," .. ADDED), { a = 1 } },
    { record("R", '{"name":"old","type":"int"}'), record("R", '{"name":"new","aliases":["old"],"type":"int"}'),
      { old = 3 } },
    { record("Old", A), record("New", A, '"aliases":["Old"],'), { a = 3 } },
    { '{"type":"fixed","name":"F","size":2}', '{"type":"fixed","name":"F","size":2}', "ab" },
    { record("N", '{"name":"v","type":"int"},{"name":"next","type":["null","N"]}'),
      record("N", '{"name":"next","type":["null","N"]},{"name":"v","type":"double"}'),
      { v = 1, next = { N = { v = 2, next = json.null } } } },
  }

  it("resolve schemas alike", function()
    local tasks, mine = {}, {}
    for i, change in ipairs(CHANGES) do
      local writer, reader = assert(avro.parse(change[1])), assert(avro.parse(change[2]))
      local bytes = assert(writer:encode(change[3], "avro"))
      local resolved, why = reader:reader(writer)
      assert(resolved, why and why.message)
      mine[i] = assert(resolved:decode(bytes, "avro"))
      tasks[i] = { ["do"] = "read", schema = json.decode(change[1]), reader = json.decode(change[2]),
        bytes = hex(bytes) }
    end
    for i, answer in ipairs(ask(tasks)) do
      assert(not answer.error, told(CHANGES[i], answer.error))
      assert(same(answer.json, mine[i]), told(CHANGES[i], json.encode(answer.json), json.encode(mine[i])))
    end
  end)

  -- Type, logical type and a value of the type: what the other shows is what we show.
  local function decimal(precision, scale)
    return { type = "bytes", logicalType = "decimal", precision = precision, scale = scale }
  end
  local LOGICAL = {
    { { type = "int", logicalType = "date" }, { 0, 1, -1, 20513, -25567, 11016, 2932896, -719162 } },
    { { type = "int", logicalType = "time-millis" }, { 0, 1, 86399999, 3600000 }, "%.?0*$" },
    { { type = "long", logicalType = "time-micros" }, { 0, 1, 86399999999, 43200000001 } },
    { { type = "long", logicalType = "timestamp-millis" },
      { 0, 1, -1, 1772352900250, -62135596800000, 253402300799999 } },
    { { type = "long", logicalType = "timestamp-micros" }, { 0, -1, 1772352900250001 } },
    { { type = "long", logicalType = "local-timestamp-millis" }, { 0, -1, 1772352900250 } },
    { { type = "long", logicalType = "local-timestamp-micros" }, { 0, -1, 1772352900250001 } },
    { decimal(40, 2), { "\0", "\1", "\255", "\128", "\0\128", "\127\255\255\255", "\128\0\0\0\0\0\0\0\0",
      "\1\2\3\4\5\6\7\8\9\10", "\255\0", "\254\1\2\3\4\5\6\7\8\9\10\11" } },
    { decimal(9, 0), { "\0", "\255", "\4\210" } },
  }

  -- As Python writes it: no fraction that is nothing, +00:00.
  local function as_python(text)
    text = text:gsub("Z$", "+00:00")
    if not text:find("%d:%d") then return text end
    local head, fraction, tail = text:match("^(.*%d%d:%d%d:%d%d)%.(%d+)(.*)$")
    if not head then return text end
    if tonumber(fraction) == 0 then return head .. tail end
    return head .. "." .. (fraction .. "000"):sub(1, 6) .. tail
  end

  it("mean the same by logical types", function()
    local tasks, mine = {}, {}
    for _, case in ipairs(LOGICAL) do
      local schema = assert(avro.parse(case[1]))
      for _, value in ipairs(case[2]) do
        local raw = assert(avro.parse('"' .. case[1].type .. '"'))
        local text = type(value) == "string" and require("sluice.avro.text").from_bytes(value) or value
        local bytes = assert(raw:encode(text, "avro"))
        local shown = assert(schema:decode(bytes))
        local back = assert(schema:encode(shown))
        assert.equal(shown, schema:decode(back))
        if type(value) == "number" then assert.equal(hex(bytes), hex(back)) end
        mine[#mine + 1] = as_python(shown)
        tasks[#tasks + 1] = { ["do"] = "shown", schema = case[1], bytes = hex(bytes) }
      end
    end
    for i, answer in ipairs(ask(tasks)) do
      assert.equal(answer.shown or answer.error, mine[i], json.encode(tasks[i]))
    end
  end)
end)
