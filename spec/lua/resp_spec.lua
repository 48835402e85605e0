-- SPDX-License-Identifier: Apache-2.0
local resp = require "sluice.redis.resp"

describe("the Redis protocol", function()
  local function source(text)
    local at = 1
    return {
      receive_line = function()
        local line, past = text:match("^([^\r\n]*)\r\n()", at)
        if not line then return nil, "closed" end
        at = past
        return line
      end,
      receive_exact = function(_, count)
        if at + count - 1 > #text then return nil, "closed" end
        at = at + count
        return text:sub(at - count, at - 1)
      end,
    }
  end

  local function read(text)
    return resp.read(source(text))
  end

  it("writes commands", function()
    assert.equal("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n1000\r\n", resp.command { "SET", "a", 1000 })
    assert.equal("*1\r\n$16\r\n1700000000123456\r\n", resp.command { 1700000000123456 })
    assert.is_nil((resp.command {}))
    assert.equal("argument 2 of a command must be a string or number, got table", select(2, resp.command { "A", {} }))
  end)

  it("reads version 2", function()
    assert.equal("OK", read("+OK\r\n"))
    assert.equal(-7, read(":-7\r\n"))
    assert.equal("a\r\nb", read("$4\r\na\r\nb\r\n"))
    assert.equal("", read("$0\r\n\r\n"))
    assert.equal(resp.null, read("$-1\r\n"))
    assert.equal(resp.null, read("*-1\r\n"))
    assert.same({ 1, "x", { resp.null } }, read("*3\r\n:1\r\n$1\r\nx\r\n*1\r\n$-1\r\n"))
  end)

  it("reads version 3, and reads over what is beside the reply", function()
    assert.same({ a = 1 }, read("%1\r\n+a\r\n:1\r\n"))
    assert.same({ 1, true, 1.5, resp.null }, read("~4\r\n:1\r\n#t\r\n,1.5\r\n_\r\n"))
    assert.equal(math.huge, read(",inf\r\n"))
    assert.equal("text", read("=8\r\ntxt:text\r\n"))
    assert.equal("123456789012345678901234567890", read("(123456789012345678901234567890\r\n"))
    assert.equal(5, read("|1\r\n+ttl\r\n:3\r\n>2\r\n+message\r\n+x\r\n:5\r\n"))
  end)

  it("gives error replies as values", function()
    local value, err = read("-WRONGTYPE no\r\n")
    assert.is_nil(err)
    assert.is_true(resp.is_error(value))
    assert.equal("WRONGTYPE no", value.err)
    assert.is_true(resp.is_error(read("!5\r\nERR x\r\n")))
  end)

  it("refuses what is out of bounds or no protocol", function()
    for _, text in ipairs { "?\r\n", "\r\n", "$99999999999\r\n", "$x\r\n", "$3\r\nabcde", "*99999999\r\n", ":x\r\n",
      "$3\r\nab", ("*1\r\n"):rep(100) .. ":1\r\n" } do
      local value, err = read(text)
      assert.is_nil(value, text)
      assert.is_string(err, text)
    end
  end)
end)
