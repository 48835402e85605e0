-- SPDX-License-Identifier: Apache-2.0
local multipart = require "sluice.multipart"

describe("multipart", function()
  local BODY = table.concat({
    "--b0", 'Content-Disposition: form-data; name="a"', "", "one",
    "--b0", 'Content-Disposition: form-data; name="file"; filename="x.txt"', "Content-Type: text/plain", "",
    "line 1\r\n--b0x is no delimiter", "--b0", 'content-disposition: form-data; filename="f"; name=a', "", "",
    "--b0--", "",
  }, "\r\n")

  it("reads the boundary, quoted or not", function()
    assert.equal("b0", multipart.boundary("multipart/form-data; boundary=b0"))
    assert.equal("b 0;", multipart.boundary('multipart/form-data; Boundary="b 0;"; charset=x'))
    assert.is_nil(multipart.boundary("multipart/form-data"))
    assert.is_nil(multipart.boundary("multipart/form-data; boundary=" .. ("x"):rep(71)))
  end)

  it("decodes parts with names, file names and headers", function()
    local parts = assert(multipart.decode(BODY, "b0"))
    assert.equal(3, #parts)
    assert.same({ "a", "one" }, { parts[1].name, parts[1].value })
    assert.same({ "file", "x.txt", "text/plain", "line 1\r\n--b0x is no delimiter" },
      { parts[2].name, parts[2].filename, parts[2].headers["content-type"], parts[2].value })
    assert.same({ a = { "one", "" }, file = "line 1\r\n--b0x is no delimiter" }, multipart.values(parts))
  end)

  it("does not take filename for name", function()
    local parts = assert(multipart.decode(BODY, "b0"))
    assert.same({ "a", "f" }, { parts[3].name, parts[3].filename })
  end)

  it("refuses a body cut short, or without its boundary", function()
    assert.equal("the last boundary is missing", select(2, multipart.decode(BODY:sub(1, -10), "b0")))
    assert.equal("the boundary does not occur in the body", select(2, multipart.decode("x", "b0")))
    assert.is_nil((multipart.decode("--b0\r\nno colon\r\n\r\nx\r\n--b0--", "b0")))
  end)

  it("reads back what it wrote", function()
    local values = { a = "1", b = { "x\r\ny", "" }, ['q"q'] = "z" }
    local parts = assert(multipart.decode(assert(multipart.encode(values, "zz")), "zz"))
    assert.same({ a = "1", b = { "x\r\ny", "" }, ["q%22q"] = "z" }, multipart.values(parts))
  end)

  it("does not write a value that holds the boundary", function()
    assert.matches("holds the boundary", select(2, multipart.encode({ a = "x\n--zz" }, "zz")))
  end)
end)
