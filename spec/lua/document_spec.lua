-- SPDX-License-Identifier: Apache-2.0
local document = require "sluice.document"

describe("document", function()
  local function made(text, values, output)
    local names = values and { "a", "b", "c", "d", "e", "v", "x" } or {}
    local make = assert(document.compile(text, output or "plain", names))
    return make(values or {})
  end

  it("passes text as it is", function()
    for _, text in ipairs { "", "a", "{ } % * {", "line\nline\r\n\\ \"q\" ]] %q \0", "{a{b}}" } do
      assert.equal(text, made(text))
    end
  end)

  it("writes values, and nothing for nil in plain texts", function()
    assert.equal("1 x true [1,2]  !", made("{{a}} {{ b }} {{c}} {{d}} {{e}} {* '!' *}",
      { a = 1, b = "x", c = true, d = { 1, 2 } }))
  end)

  it("writes for the format", function()
    local value = { v = 'a"<&\n' }
    assert.equal('"a\\"<&\\n"', made("{{ v }}", value, "json"))
    assert.equal("a&quot;&lt;&amp;\n", made("{{ v }}", value, "xml"))
    assert.equal("a%22%3C%26%0A", made("{{ v }}", value, "form"))
    assert.equal('a"<&\n', made("{* v *}", value, "json"))
    assert.equal("null", made("{{ a }}", value, "json"))
  end)

  it("runs statements around text", function()
    assert.equal("1,2,3", made("{% for i = 1, 3 do %}{{ i }}{% if i < 3 then %},{% end %}{% end %}"))
  end)

  it("is the same for each use, whatever the one before did", function()
    local make = document.compile("{% local n = (n or 0) + 1 %}{{ n }}", "plain", { "n" })
    assert.equal("1", make {})
    assert.equal("1", make {})
    assert.equal("6", make { n = 5 })
  end)

  it("tells the line of what fails", function()
    local _, err = made("a\nb\n{{ x.y.z }}", { x = {} })
    assert.matches("^line 3: ", err)
    _, err = made("{% error('gone', 0) %}")
    assert.equal("gone", err)
  end)

  it("refuses what is no template, and tells the line", function()
    local function why(text) return select(2, document.compile(text, "plain", {})) end
    assert.equal("line 2: expected }} behind {{", why "a\n{{ b")
    assert.equal("line 1: expected %} behind {%", why "{% if x then }}")
    assert.matches("^line 2: ", why "\n{{ }}")
    assert.matches("^line 1: .*end", why "{% if true then %}x")
    assert.matches("^line 1: ", why "{{ 1); os.exit( }}")
  end)

  it("sees nothing but pure libraries", function()
    for _, name in ipairs { "io", "require", "ffi", "debug", "load", "getfenv", "setmetatable", "rawset", "_G" } do
      assert.matches("undefined name '" .. name .. "'", select(2, made("{{ " .. name .. " }}")))
    end
    assert.matches("undefined name 'x'", select(2, made "{{ x }}"))
    assert.equal("", made "{{ os.execute }}")
    assert.matches("cannot set 'x'; use local", select(2, made "{% x = 1 %}"))
  end)

  it("does not grow without end", function()
    local text = "{% local s = ('x'):rep(1048576) for i = 1, 100 do %}{* s *}{% end %}"
    assert.matches("larger than", select(2, made(text)))
  end)
end)
