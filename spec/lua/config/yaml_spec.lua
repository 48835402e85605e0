-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local yaml = require "sluice.config.yaml"

local function value_of(text)
  local value, _, err = yaml.decode(text)
  assert.is_nil(err and err.message)
  return value
end

local function error_of(text)
  local value, _, err = yaml.decode(text)
  assert.is_nil(value)
  return err
end

describe("YAML", function()
  it("reads scalars as YAML 1.1, the way Kong does", function()
    local list = value_of "[yes, No, on, OFF, true, 010, 0x1f, 0b101, 1_000, -3, +7, 1.5e3, 1:30, .inf]"
    assert.same({ true, false, true, false, true, 8, 31, 5, 1000, -3, 7, 1500, 90, math.huge }, list)
  end)

  it("leaves texts that only look like numbers alone", function()
    local texts = { "1.2.3", "v1", "08", "10.0.0.1:80", "1e", "-a", ".", "0x", "+a", "12abc", "e5", "2026-11-23" }
    for _, text in ipairs(texts) do assert.equal(text, value_of("a: " .. text).a) end
  end)

  it("keeps quoted scalars texts", function()
    assert.same({ "5", "yes", "~", "" }, value_of [=[["5", 'yes', "~", ""]]=])
  end)

  it("reads ~, null and nothing as null", function()
    assert.same({ a = cjson.null, b = cjson.null, c = cjson.null }, value_of "a: ~\nb: null\nc:")
  end)

  it("reads block texts", function()
    assert.same({ a = "one\ntwo\n", b = "one two" }, value_of "a: |\n  one\n  two\nb: >-\n  one\n  two\n")
  end)

  it("honours tags", function()
    assert.same({ "5", 7, true }, value_of '[!!str 5, !!int "7", !!bool yes]')
    assert.matches("no value of tag", error_of("!!int x").message)
    assert.matches("unknown tag", error_of("!mine x").message)
  end)

  it("makes keys texts, whatever they look like", function()
    assert.same({ ["200"] = 1, yes = 2 }, value_of "200: 1\nyes: 2")
  end)

  it("resolves aliases", function()
    assert.same({ a = { x = 1 }, b = { x = 1 } }, value_of "a: &one {x: 1}\nb: *one")
  end)

  it("merges maps under << without replacing what stands there", function()
    local value = value_of "base: &base {x: 1, y: 2}\nmore: &more {z: 3}\nall: {<<: [*base, *more], y: 5}"
    assert.same({ x = 1, y = 5, z = 3 }, value.all)
  end)

  it("refuses a key that stands twice, naming the second one's place", function()
    local err = error_of "a: 1\nb:\n  c: 1\n  c: 2\n"
    assert.same({ 4, 3, 'duplicate key "c"' }, { err.line, err.column, err.message })
  end)

  it("refuses an alias without an anchor", function()
    local err = error_of "a: 1\nb: *nothing"
    assert.same({ 2, "alias *nothing has no anchor before it" }, { err.line, err.message })
  end)

  it("ends a file whose aliases stand for more than could be wanted", function()
    local lines = { "a0: &a0 [x, x, x, x, x, x, x, x, x, x]" }
    for i = 1, 12 do
      local alias = ("*a%d, "):format(i - 1):rep(10):sub(1, -3)
      lines[#lines + 1] = ("a%d: &a%d [%s]"):format(i, i, alias)
    end
    assert.matches("aliases stand for too many nodes", error_of(table.concat(lines, "\n")).message)
  end)

  it("refuses an alias within what it stands for", function()
    assert.matches("has no anchor before it", error_of("a: &a\n  b: *a").message)
  end)

  it("refuses a second document", function()
    local err = error_of "a: 1\n---\nb: 2"
    assert.same({ 2, "expected one document a file, found a second" }, { err.line, err.message })
  end)

  it("refuses nesting without end", function()
    assert.matches("nested too deeply", error_of(("["):rep(500)).message)
  end)

  it("says where a syntax error is", function()
    local err = error_of "a: 1\nb: [1, 2\nc: 3\n"
    assert.equal(3, err.line)
    assert.matches("^YAML: ", err.message)
  end)

  it("gives the place of every node", function()
    local root = yaml.positions "a: 1\nlist:\n  - x: 1\n    y: [2, 3]\n  - z\n"
    local item = root.children.list.children[1]
    assert.same({ line = 4, column = 5 }, item.keys.y)
    assert.equal(12, item.children.y.children[2].column)
    assert.equal(5, root.children.list.children[2].line)
  end)

  it("gives what was merged the place where it was written", function()
    local root = yaml.positions "base: &base\n  x: 1\nuse:\n  <<: *base\n  y: 2\n"
    assert.equal(2, root.children.use.keys.x.line)
  end)

  it("notices texts that may be references to secrets", function()
    assert.is_true((select(2, yaml.decode 'a: "{vault://env/X}"')))
    assert.is_true((select(2, yaml.decode "a: {vault://env/X}")))
    assert.is_false((select(2, yaml.decode "a: plain")))
  end)
end)
