-- SPDX-License-Identifier: Apache-2.0
local query = require "sluice.query"

describe("query", function()
  it("decodes values, flags, empty values and repeats", function()
    assert.same({ foo = "hello world", bar = { "baz", "bla", true }, zzz = true, blo = "" },
      query.decode("foo=hello%20world&bar=baz&zzz&blo=&bar=bla&bar"))
  end)

  it("decodes names too, takes + for a space and leaves a bad escape alone", function()
    assert.same({ ["a b"] = "c=d", x = "%zz%4" }, query.decode("a+b=c%3Dd&x=%zz%4"))
  end)

  it("skips what has no name", function()
    assert.same({ a = "1" }, query.decode("&&=2&a=1&"))
    assert.same({}, query.decode(""))
  end)

  it("stops at the limit and says so", function()
    local args, err = query.decode("a=1&b=2&c=3", 2)
    assert.same({ a = "1", b = "2" }, args)
    assert.equal("truncated", err)
    assert.is_nil(select(2, query.decode("a=1&b=2", 2)))
  end)

  it("finds the first value of one name, however it is spelled", function()
    assert.equal("1", query.first("x=0&ap%69key=1&apikey=2", "apikey"))
    assert.is_true(query.first("a&b", "b"))
    assert.is_nil(query.first("ab=1", "a"))
  end)

  it("removes one name and leaves the others as they were", function()
    assert.equal("b=%41&c", query.remove("a=1&b=%41&%61=2&c", "a"))
  end)

  it("encodes in alphabetical order", function()
    assert.equal("a%26=1&b=x%20y&b&c", query.encode { ["a&"] = 1, b = { "x y", true }, c = true, d = false })
    assert.equal('value of argument "a" must be a string, number or boolean, got function',
      select(2, query.encode { a = print }))
  end)
end)
