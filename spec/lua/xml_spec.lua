-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local xml = require "sluice.xml"

describe("xml", function()
  it("reads elements, attributes, lists and text between", function()
    assert.same({ a = { _attr = { id = "1" }, b = { "x", "y" }, c = "", _text = "\n t " } },
      xml.decode('<a id="1">\n<b>x</b> t <b>y</b><c/></a>'))
    assert.same({ a = "<&\"' é\n" }, xml.decode("<a>&lt;&amp;&quot;&apos; &#233;&#10;</a>"))
    assert.same({ a = "x<y" }, xml.decode("<?xml version='1.0' encoding='UTF-8'?><!-- c --><a><![CDATA[x<y]]></a>"))
    assert.same({ ["n:a"] = { _attr = { ["xmlns:n"] = "urn:n" } } }, xml.decode("<n:a xmlns:n='urn:n'/>"))
  end)

  it("takes three of a name for one list, and a list of lists for none", function()
    local found = xml.decode("<a><b>1</b><b>2</b><b>3</b></a>")
    assert.same({ a = { b = { "1", "2", "3" } } }, found)
    assert.is_true(json.is_array(found.a.b))
  end)

  for text, expected in pairs {
    [""] = "no element found in line 1", ["<a>"] = "no element found in line 1",
    ["<a>\n</b>"] = "mismatched tag in line 2",
    ["<a/><b/>"] = "junk after document element", ["<a>&x;</a>"] = "undefined entity", ["text"] = "syntax error",
    ['<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>'] = "a document type is not allowed",
    ["<a \0/>"] = "not well%-formed", ['<a x="1" x="2"/>'] = "duplicate attribute",
  } do
    it("refuses " .. text:gsub("%c", "."), function()
      local value, err = xml.decode(text)
      assert.is_nil(value)
      assert.matches(expected, err)
    end)
  end

  it("bounds what it reads", function()
    assert.matches("more than 64 elements in each other", select(2, xml.decode(("<a>"):rep(65))))
    assert.matches("more than 100000 elements", select(2, xml.decode("<a>" .. ("<b/>"):rep(100000))))
    local attributes = {}
    for i = 1, 101 do attributes[i] = ('a%d="1"'):format(i) end
    assert.matches("more than 100 attributes", select(2, xml.decode("<a " .. table.concat(attributes, " ") .. "/>")))
  end)

  it("writes what it has read", function()
    for _, text in ipairs { "<a></a>", "<a>x</a>", '<a id="1"><b>x</b><b>y</b></a>',
      "<a>&lt;&amp;&gt;&quot;&apos;</a>" } do
      assert.equal(text, xml.encode(xml.decode(text)))
    end
    assert.equal("<a>1</a><b>true</b><c></c>", xml.encode { a = 1, b = true, c = json.null })
  end)

  it("writes nothing that is no XML", function()
    assert.matches("no element can be named a b", select(2, xml.encode { ["a b"] = 1 }))
    assert.matches("no element can be named 1x", select(2, xml.encode { a = { ["1x"] = 1 } }))
    assert.matches("expected a table", select(2, xml.encode { "a" }))
    assert.equal("<a>x</a>", xml.encode { a = "x\1\0" })
    local deep = {}
    deep.a = deep
    assert.matches("more than 64 elements in each other", select(2, xml.encode(deep)))
  end)
end)
