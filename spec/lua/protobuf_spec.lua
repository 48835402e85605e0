-- SPDX-License-Identifier: Apache-2.0
require "sluice.spec"
local json = require "sluice.json"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local protobuf = require "sluice.protobuf"

local BANK = [[
syntax = "proto3";
package bank;
import "google/api/annotations.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Kind { PLAIN = 0; SAVINGS = 3; }

message Account {
  string owner = 1;
  int64 balance = 2;
  Kind kind = 3;
  repeated string tags = 4;
  map<string, int32> limits = 5;
  Account parent = 6;
  google.protobuf.Timestamp opened = 7;
  google.protobuf.Any note = 8;
  bytes seal = 9;
  double rate = 10;
  uint32 branch_number = 11;
  bool open = 12;
  google.protobuf.Struct free = 13;
  google.protobuf.StringValue nick = 14;
  google.protobuf.Duration age = 15;
  google.protobuf.FieldMask mask = 16;
  float ratio = 17;
  oneof contact { string phone = 18; string mail = 19; }
  optional int32 score = 20;
  repeated google.protobuf.Any notes = 21;
  fixed64 serial = 22;
}

message Empty {}

service Accounts {
  rpc Open(Account) returns (Account) {
    option (google.api.http) = {
      post: "/v1/accounts" body: "*"
      additional_bindings { put: "/v1/{owner=people/*}/account" body: "parent" response_body: "tags" }
      additional_bindings { custom { kind: "COPY" path: "/v1/copy" } }
    };
  }
  rpc List(Empty) returns (stream Account) { option (google.api.http).get = "/v1/accounts"; }
  rpc Upload(stream Account) returns (Empty);
}
]]

local function schema_of(text)
  return assert(protobuf.load(assert(protobuf.compile("x.proto", { ["x.proto"] = text }))))
end

local function varint(n)
  local out = ""
  while n > 127 do
    out = out .. string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return out .. string.char(n)
end

-- A length-delimited field.
local function field(number, content)
  return varint(number * 8 + 2) .. varint(#content) .. content
end

describe("protobuf", function()
  local schema = schema_of(BANK)

  -- Of fields by name, as tables.
  local function there_and_back(value, options)
    local bytes = assert(schema:to_binary("bank.Account", json.encode(value)))
    return json.decode((assert(schema:to_json("bank.Account", bytes, protobuf.flags(options)))))
  end

  it("turns JSON into a message and back", function()
    local account = {
      owner = "Änn \0", balance = "9007199254740993", kind = "SAVINGS", tags = { "a", "b" }, limits = { day = 5 },
      parent = { owner = "Bob", parent = {} }, opened = "2026-01-02T03:04:05.500Z", seal = "AP8=", rate = 1.5,
      branchNumber = 4294967295, open = true, free = { list = { 1, json.null, { deep = "x" } } }, nick = "A.",
      age = "3.000000001s", mask = "owner,branchNumber", phone = "1", score = 0, serial = "18446744073709551615",
      note = { ["@type"] = "type.googleapis.com/bank.Account", owner = "in an Any" },
    }
    assert.same(account, there_and_back(account))
  end)

  it("writes the bytes that the encoding asks for", function()
    assert.equal("\10\3Ann\16\172\2\34\1a\34\1b",
      schema:to_binary("bank.Account", '{"owner":"Ann","balance":300,"tags":["a","b"]}'))
  end)

  it("takes either spelling of a field, numbers as texts, enums as numbers", function()
    assert.same({ branchNumber = 7, kind = "SAVINGS", open = true, rate = 0.5, balance = "-1" },
      there_and_back { branch_number = "7", kind = 3, open = "true", rate = "0.5", balance = -1 })
    assert.same({ rate = "NaN", ratio = "-Infinity" }, there_and_back { rate = "NaN", ratio = "-Infinity" })
  end)

  it("names fields as the file does, writes defaults and enums as numbers when told", function()
    assert.same({ branch_number = 7 }, there_and_back({ branchNumber = 7 }, { proto_names = true }))
    assert.same({ kind = 3 }, there_and_back({ kind = "SAVINGS" }, { enum_numbers = true }))
    local all = there_and_back({}, { defaults = true })
    assert.same({ owner = "", balance = "0", kind = "PLAIN", open = false, rate = 0, branchNumber = 0, seal = "",
      ratio = 0, serial = "0" }, { owner = all.owner, balance = all.balance, kind = all.kind, open = all.open,
      rate = all.rate, branchNumber = all.branchNumber, seal = all.seal, ratio = all.ratio, serial = all.serial })
    assert.is_true(json.is_array(all.tags))
    assert.same({}, all.limits)
    assert.is_nil(all.phone) -- nothing of a oneof, nor an optional field, has a default
    assert.is_nil(all.score)
  end)

  it("passes over fields that a message has not, unless told otherwise", function()
    assert.equal("", schema:to_binary("bank.Account", '{"no":{"such":[1]}}'))
    local bytes, err = schema:to_binary("bank.Account", '{"no":1}', protobuf.flags { known_only = true })
    assert.is_nil(bytes)
    assert.equal("bank.Account: no: Cannot find field.", err)
    assert.equal("", schema:to_binary("bank.Account", '{"kind":"NONE"}'))
    bytes, err = schema:to_binary("bank.Account", '{"kind":"NONE"}', protobuf.flags { known_only = true })
    assert.is_nil(bytes)
    assert.matches('invalid value "NONE"', err)
    assert.equal('{"owner":"x"}', schema:to_json("bank.Account", field(500, "zzz") .. field(1, "x")))
  end)

  it("takes the value of one field", function()
    local function bytes_of(name, text)
      local bytes, err = schema:to_binary("bank.Account", text, 0, name)
      return bytes or err
    end
    assert.equal("\34\1a\34\1b", bytes_of("tags", '["a","b"]'))
    assert.equal("\50\5\10\3Ann", bytes_of("parent", '{"owner":"Ann"}'))
    assert.equal("something follows the value at byte 3", bytes_of("parent", '{},"balance":5'))
    assert.equal("there is no field none", bytes_of("none", "1"))
  end)

  for text, expected in pairs {
    ['{"balance":"x"}'] = 'invalid value "x" for type TYPE_INT64',
    ['{"balance":1.5}'] = "invalid value 1.5",
    ['{"balance":"9223372036854775808"}'] = "invalid value",
    ['{"branchNumber":-1}'] = "invalid value %-1",
    ['{"seal":"!"}'] = "invalid value",
    ['{"opened":"yesterday"}'] = "invalid value",
    ['{"age":"3"}'] = "[Ii]llegal duration",
    ['{"owner":{}}'] = "object on a scalar field",
    ['{"parent":7}'] = "Account",
    ['{"note":{"@type":"type.googleapis.com/no.Such"}}'] = "no.Such",
    ["[]"] = "Root element must be a message",
    ["{owner:1}"] = "expected a name at byte 2",
    ["{'owner':'a'}"] = "expected a name at byte 2",
    ['{"owner":"a",}'] = "expected a name at byte 14",
    ['{"owner":"\255"}'] = "invalid UTF%-8 at byte 11",
    [""] = "expected a value at byte 1",
  } do
    it("refuses " .. ("%q"):format(text), function()
      local bytes, err = schema:to_binary("bank.Account", text)
      assert.is_nil(bytes)
      assert.matches(expected, err)
    end)
  end

  it("gives an error or bytes for any text at all", function()
    math.randomseed(17)
    local good = '{"owner":"\\u00e4","balance":"5","tags":["a"],"limits":{"d":1},'
      .. '"parent":{"opened":"2026-01-02T03:04:05Z"},'
      .. '"note":{"@type":"type.googleapis.com/bank.Account","owner":"x"},"free":{"x":[1,null]},"rate":1.5e3}'
    for _ = 1, 5000 do
      local text = good
      for _ = 1, math.random(3) do
        local at = math.random(#text)
        local byte = ('{}[]":,\\0-e.n\0\255'):sub(math.random(15)):sub(1, 1)
        text = text:sub(1, at - 1) .. byte .. text:sub(at + math.random(0, 3))
      end
      local bytes, err = schema:to_binary("bank.Account", text)
      assert.is_string(bytes or err)
      if bytes then assert.is_truthy(schema:to_json("bank.Account", bytes)) end
    end
  end)

  it("bounds the depth of JSON", function()
    local function nested(depth) return ('{"parent":'):rep(depth) .. "{}" .. ("}"):rep(depth) end
    assert.is_truthy(schema:to_binary("bank.Account", nested(50)))
    for _, text in ipairs { nested(101), nested(100000), ('{"parent":'):rep(100000), '{"free":' .. ("["):rep(100000),
      '{"x":' .. ("["):rep(100000), '{"note":{"@type":"type.googleapis.com/bank.Account","note":' .. nested(99) .. "}}",
    } do
      local bytes, err = schema:to_binary("bank.Account", text)
      assert.is_nil(bytes)
      assert.matches("deep", err)
    end
    local any = '{"@type":"type.googleapis.com/bank.Account","note":'
    assert.is_nil((schema:to_binary("bank.Account", '{"note":' .. any:rep(10000))))
  end)

  it("takes fields that come in parts for one", function()
    assert.equal('{"owner":"b","parent":{"owner":"x","balance":"5"}}',
      schema:to_json("bank.Account", "\10\1a" .. field(6, "\10\1x") .. "\10\1b" .. field(6, "\16\5")))
  end)

  describe("given bytes that are no message", function()
    local function refused(bytes, expected)
      local text, err = schema:to_json("bank.Account", bytes)
      assert.is_nil(text)
      assert.matches(expected or "bank.Account: malformed", err)
    end

    it("refuses what is cut short, whatever length it tells", function()
      refused "\10"
      refused "\10\5Ann"
      refused "\10\255\255\255\255\15"
      refused "\10\255\255\255\255\7zzz"
      refused "\10\255\255\255\255\255\255\255\255\255\1"
      refused "\16\255\255\255\255\255\255\255\255\255\255\255"
      refused(field(6, "\10\5Ann"))
      refused "\255"
      refused "\7"
      refused "\0\0"
    end)

    it("refuses texts that are not UTF-8", function()
      refused(field(1, "\255"))
      refused(field(6, field(1, "a\192\128")))
    end)

    it("refuses what is nested too deeply", function()
      local deep = ""
      for _ = 1, 5000 do deep = field(6, deep) end
      refused(deep)
      refused(("\107"):rep(200000)) -- groups that nobody knows
      local list = ""
      for _ = 1, 5000 do list = field(6, field(1, list)) end
      refused(field(13, field(1, field(1, "k") .. field(2, list))))
    end)

    it("refuses Anys within Anys without an end", function()
      local function nest(number, depth)
        local bytes = ""
        for _ = 1, depth do bytes = field(number, field(1, "type.googleapis.com/bank.Account") .. field(2, bytes)) end
        return bytes
      end
      assert.is_truthy(schema:to_json("bank.Account", nest(8, 8)))
      refused(nest(8, 9), "too many google.protobuf.Any within each other")
      refused(nest(21, 9), "too many google.protobuf.Any within each other")
      refused(nest(8, 2000), "too many google.protobuf.Any within each other")
      refused(field(8, field(1, "type.googleapis.com/bank.Account") .. field(2, "\10\5")), "malformed content")
      refused(field(8, field(1, "type.googleapis.com/no.Such") .. field(2, "\10\5")), "no.Such")
    end)

    it("gives an error or JSON for any bytes at all", function()
      math.randomseed(7)
      local good = assert(schema:to_binary("bank.Account", json.encode { owner = "Ann", tags = { "a" },
        free = { x = { 1 } }, limits = { d = 1 }, parent = { opened = "2026-01-02T03:04:05Z" }, note = {
          ["@type"] = "type.googleapis.com/bank.Account", owner = "x" } }))
      for _ = 1, 5000 do
        local at, bytes = math.random(#good), good
        for _ = 1, math.random(3) do
          bytes = bytes:sub(1, at - 1) .. string.char(math.random(0, 255)) .. bytes:sub(at + math.random(0, 2))
          at = math.random(#bytes)
        end
        local text = schema:to_json("bank.Account", bytes)
        if text then assert.is_truthy(json.decode(text)) end
      end
    end)
  end)

  it("says which messages and fields there are", function()
    assert.is_true(schema:has("bank.Account"))
    assert.is_false(schema:has("bank.Nobody"))
    assert.same({ name = "branch_number", json = "branchNumber", repeated = false, map = false },
      schema:field("bank.Account", "branch_number"))
    assert.equal("branch_number", schema:field("bank.Account", "branchNumber").name)
    assert.equal("bank.Account", schema:field("bank.Account", "parent").message)
    assert.is_true(schema:field("bank.Account", "tags").repeated)
    assert.is_true(schema:field("bank.Account", "limits").map)
    assert.is_nil(schema:field("bank.Account", "none"))
    assert.is_nil(schema:field("bank.Nobody", "owner"))
    local _, err = schema:to_json("bank.Nobody", "")
    assert.equal("there is no message bank.Nobody", err)
    _, err = schema:to_binary("bank.Nobody", "{}")
    assert.equal("there is no message bank.Nobody", err)
  end)

  it("lists methods with their HTTP rules", function()
    local methods = schema:methods()
    assert.equal(3, #methods)
    assert.same({ path = "/bank.Accounts/Open", input = "bank.Account", output = "bank.Account",
      client_streaming = false, server_streaming = false, rules = {
        { verb = "POST", pattern = "/v1/accounts", body = "*", response_body = "" },
        { verb = "PUT", pattern = "/v1/{owner=people/*}/account", body = "parent", response_body = "tags" },
        { verb = "COPY", pattern = "/v1/copy", body = "", response_body = "" },
      } }, methods[1])
    assert.same({ path = "/bank.Accounts/List", input = "bank.Empty", output = "bank.Account", client_streaming = false,
      server_streaming = true, rules = { { verb = "GET", pattern = "/v1/accounts", body = "", response_body = "" } } },
      methods[2])
    assert.is_true(methods[3].client_streaming)
  end)

  describe("compiling", function()
    local function fault(texts)
      local set, err = protobuf.compile("a.proto", texts)
      assert.is_nil(set)
      return err
    end

    it("names file, line and column of what is wrong", function()
      assert.equal('a.proto:3:13: "Missing" is not defined.',
        fault { ["a.proto"] = 'syntax = "proto3";\npackage p;\nmessage M { Missing m = 1; }' })
      assert.matches("^a.proto:2:9: Expected", fault { ["a.proto"] = 'syntax = "proto3";\nmessage { }' })
    end)

    it("tells every fault", function()
      local err = fault { ["a.proto"] = 'syntax = "proto3";\nmessage M { A a = 1; B b = 2; }' }
      assert.equal('a.proto:2:13: "A" is not defined.\na.proto:2:22: "B" is not defined.', err)
    end)

    it("tells an import that is missing at its line", function()
      assert.matches('^a.proto:2:1: Import "b.proto" was not found', fault {
        ["a.proto"] = 'syntax = "proto3";\nimport "b.proto";' })
    end)

    it("tells files that import each other", function()
      assert.matches("recursively imports itself", fault { ["a.proto"] = 'syntax = "proto3"; import "b.proto";',
        ["b.proto"] = 'syntax = "proto3"; import "a.proto";' })
    end)

    it("bounds what is nested", function()
      local head = 'syntax = "proto3"; import "google/api/annotations.proto"; message M {} '
      local function rule(brackets) return head .. "service S { rpc R(M) returns (M) { option (google.api.http) = {"
        .. brackets .. "} } }"
      end
      for _, text in ipairs {
        head .. ("message M {"):rep(100000), head .. ("message M {"):rep(100000) .. ("}"):rep(100000),
        head .. ("/* } */ message M { // }\n"):rep(1000), head .. ("option x = '}' ; message M {"):rep(1000),
        rule(("additional_bindings {"):rep(100000) .. ("}"):rep(100000)),
        rule(("additional_bindings <"):rep(100000) .. (">"):rep(100000)),
        rule("x:" .. ("["):rep(100000) .. ("]"):rep(100000)),
      } do
        assert.equal("a.proto: Nested too deeply.", fault { ["a.proto"] = text })
      end
      assert.is_truthy(protobuf.compile("a.proto", { ["a.proto"] = head .. ("/* { */ // {\n"):rep(200) }))
    end)

    it("gives an error or a set for any text at all", function()
      math.randomseed(11)
      for _ = 1, 1500 do
        local text = BANK
        for _ = 1, math.random(4) do
          local at = math.random(#text)
          local piece = ("{}[]<>;=\"/*1a\0\255"):sub(math.random(14))
          text = text:sub(1, at - 1) .. piece .. text:sub(at + math.random(0, 30))
        end
        local set, err = protobuf.compile("a.proto", { ["a.proto"] = text })
        assert.is_string(set or err)
        if set then assert.is_truthy(protobuf.load(set)) end
      end
    end)

    it("bounds how many files import each other", function()
      local texts = {}
      for i = 1, 3000 do
        texts[("f%d.proto"):format(i)] = ('syntax = "proto3"; import "f%d.proto"; message M%d {}'):format(i + 1, i)
      end
      texts["a.proto"] = 'syntax = "proto3"; import "f1.proto";'
      assert.matches("Too many files", fault(texts))
      texts["f1900.proto"] = 'syntax = "proto3"; message M {}'
      assert.is_truthy(protobuf.compile("a.proto", texts))
    end)

    it("follows imports among the texts, and speaks proto2 as well", function()
      local set = assert(protobuf.compile("a.proto", { ["a.proto"] = 'syntax = "proto3"; import public "b.proto";',
        ["b.proto"] = 'syntax = "proto2"; message B { required int32 n = 1; optional string s = 2 [default = "x"]; }',
      }))
      assert.equal('{"n":1}', (assert(protobuf.load(set)):to_json("B", "\8\1")))
    end)

    it("of files finds imports beside them and in folders, and says what it read", function()
      local directory = posix.temporary_directory()
      for _, folder in ipairs { "/own", "/shared/deep" } do os.execute("mkdir -p " .. directory .. folder) end
      process.write_file(directory .. "/own/main.proto", [[syntax = "proto3"; package m;
        import "beside.proto"; import "deep/there.proto"; message M { Beside b = 1; There t = 2; }]])
      process.write_file(directory .. "/own/beside.proto", 'syntax = "proto3"; package m; message Beside {}')
      process.write_file(directory .. "/shared/deep/there.proto", 'syntax = "proto3"; package m; message There {}')
      local bound = protobuf.bind { dir = "", trusted = true }
      local set, err, files = bound.compile_file(directory .. "/own/main.proto", { directory .. "/shared" })
      assert.is_nil(err)
      assert.is_true(protobuf.load(set):has("m.There"))
      table.sort(files)
      assert.same({ directory .. "/own/beside.proto", directory .. "/own/main.proto",
        directory .. "/shared/deep/there.proto" }, files)
      set = bound.compile_file(directory .. "/shared/deep/there.proto", { directory .. "/shared" })
      assert.matches("deep/there.proto", set, 1, true)
      process.write_file(directory .. "/own/beside.proto", "nonsense")
      set, err, files = bound.compile_file(directory .. "/own/main.proto", { directory .. "/shared" })
      assert.is_nil(set)
      assert.matches(directory .. "/own/beside.proto:1:1: Expected top-level statement", err, 1, true)
      assert.equal(3, #files) -- a change to any of them may mend it
      set, err = bound.compile_file(directory .. "/none.proto")
      assert.is_nil(set)
      assert.matches("none.proto: No such file", err, 1, true)
      os.execute("rm -r " .. directory)
    end)

    it("reads no file outside of its folders, and none for a plugin that is not trusted", function()
      local directory = posix.temporary_directory()
      os.execute("mkdir " .. directory .. "/own")
      process.write_file(directory .. "/own/a.proto", 'syntax = "proto3"; import "../b.proto";')
      process.write_file(directory .. "/b.proto", 'syntax = "proto3";')
      local set = protobuf.bind { dir = "", trusted = true }.compile_file(directory .. "/own/a.proto")
      assert.is_nil(set)
      assert.has_error(function() protobuf.bind { dir = "elsewhere" }.compile_file(directory .. "/b.proto") end,
        "sluice.protobuf.compile_file: for plugins under gateway.trusted_plugins")
      os.execute("rm -r " .. directory)
    end)
  end)

  describe("loading", function()
    it("gives an error or a schema for any bytes at all", function()
      math.randomseed(13)
      local good = assert(protobuf.compile("x.proto", { ["x.proto"] = BANK }))
      for _ = 1, 1000 do
        local bytes = good
        for _ = 1, math.random(4) do
          local at = math.random(#bytes)
          bytes = bytes:sub(1, at - 1) .. string.char(math.random(0, 255)) .. bytes:sub(at + math.random(0, 2))
        end
        local loaded, err = protobuf.load(bytes)
        assert.is_truthy(loaded or err)
        if loaded then assert.is_table(loaded:methods()) end
      end
    end)

    it("refuses what is no descriptor set", function()
      for _, bytes in ipairs { "", "nonsense", "\10\5", ("\10"):rep(1000) } do
        local loaded, err = protobuf.load(bytes)
        assert.is_nil(loaded)
        assert.equal("not a FileDescriptorSet", err)
      end
    end)

    it("takes files in any order, and finds well-known types itself", function()
      local function file(name, import, body) -- a FileDescriptorProto
        return field(1, field(1, name) .. field(3, import) .. body)
      end
      local message = field(4, field(1, "M"))
      local schema_there = assert(protobuf.load(file("a", "b", "") .. file("b", "google/protobuf/any.proto", message)))
      assert.equal("{}", schema_there:to_json("M", ""))
      local _, err = protobuf.load(file("a", "b", ""))
      assert.equal("a imports b, which is not in the descriptor set", err)
      _, err = protobuf.load(file("a", "b", "") .. file("b", "a", ""))
      assert.matches("imports itself", err)
    end)

    it("bounds options that are still text", function()
      local text = field(8, ("a{"):rep(100000))
      local _, err = protobuf.load(field(1, field(1, "a") .. field(8, varint(999 * 8 + 2) .. varint(#text) .. text)))
      assert.equal("its options nest too deeply", err)
    end)

    it("tells where a message stands in the file that was compiled, and which stands there", function()
      local nested = schema_of([[syntax = "proto3"; package p; message A { message B { message C {} } message D {} }
        message E { int32 n = 1; map<string, int32> m = 2; }]])
      local places = { ["p.A"] = { 0 }, ["p.A.B.C"] = { 0, 0, 0 }, ["p.A.D"] = { 0, 1 }, ["p.E"] = { 1 } }
      for name, steps in pairs(places) do
        assert.same(steps, nested:place(name))
        assert.equal(name, nested:message_at(steps))
      end
      assert.is_nil(nested:place("p.F"))
      for _, steps in ipairs { {}, { 2 }, { -1 }, { 1, 1 }, { 0, 2 } } do assert.is_nil(nested:message_at(steps)) end
      local flags = protobuf.flags { ordered = true }
      local one = assert(nested:to_binary("p.E", '{"m":{"b":1,"a":2},"n":3}', flags))
      assert.equal("\8\3\18\5\10\1a\16\2\18\5\10\1b\16\1", one)
      assert.equal(one, nested:to_binary("p.E", '{"n":3,"m":{"a":2,"b":1}}', flags))
    end)

    it("tells what a file gets wrong", function()
      local _, err = protobuf.load(field(1, field(1, "a") .. field(4, field(1, "M")) .. field(4, field(1, "M"))))
      assert.matches('a: M: "M" is already defined', err, 1, true)
    end)
  end)
end)
