-- SPDX-License-Identifier: Apache-2.0
require "sluice.spec"
local grpc = require "sluice.grpc"
local json = require "sluice.json"

describe("grpc", function()
  it("frames a message", function()
    assert.equal("\0\0\0\0\0", grpc.frame "")
    assert.equal("\128\0\0\0\2ab", grpc.frame("ab", 128))
    local long = ("x"):rep(0x010203)
    assert.equal("\0\0\1\2\3" .. long, grpc.frame(long))
  end)

  describe("a reader", function()
    local function read(reader)
      local list = {}
      while true do
        local message, err = reader:next()
        if not message then return list, err end
        list[#list + 1] = message
      end
    end

    it("gives messages however their bytes are cut", function()
      local bytes = grpc.frame "abc" .. grpc.frame "" .. grpc.frame(("x"):rep(300))
      for size = 1, #bytes do
        local reader, all = grpc.reader(300), {}
        for at = 1, #bytes, size do
          reader:put(bytes:sub(at, at + size - 1))
          for _, message in ipairs(read(reader)) do all[#all + 1] = message end
        end
        assert.same({ "abc", "", ("x"):rep(300) }, all)
        assert.is_true(reader:is_empty())
      end
    end)

    it("waits for what is not whole", function()
      local reader = grpc.reader(300)
      reader:put "\0\0\0\0"
      assert.same({}, read(reader))
      assert.is_false(reader:is_empty())
      reader:put "\2a"
      assert.same({}, read(reader))
      reader:put "b\0"
      assert.same({ "ab" }, read(reader))
      assert.is_false(reader:is_empty())
    end)

    it("stops at what is too long, compressed, or nothing that it knows", function()
      for bytes, expected in pairs {
        ["\0\0\0\1\45"] = "a message of 301 bytes, more than 300",
        ["\0\255\255\255\255"] = "a message of 4294967295 bytes, more than 300",
        ["\1\0\0\0\0"] = "a compressed message, which was not asked for",
        ["\128\0\0\0\0"] = "a message with unknown flags",
      } do
        local reader = grpc.reader(300)
        reader:put(grpc.frame "a" .. bytes)
        local list, err = read(reader)
        assert.same({ { "a" }, expected }, { list, err })
      end
    end)
  end)

  it("tells an error as JSON, whatever bytes are in its message", function()
    assert.equal('{"code":5,"message":"no \\"x\\"","details":[]}', grpc.error_json(5, 'no "x"'))
    assert.equal("ä", json.decode(grpc.error_json(5, "ä")).message)
    assert.equal("a?b", json.decode(grpc.error_json(5, "a\255b")).message)
    assert.same({}, json.decode(grpc.error_json(5, "x", "no status")).details)
  end)

  it("knows what statuses mean to each other", function()
    assert.same({ 200, 404, 501, 500 }, { grpc.http_status(0), grpc.http_status(5), grpc.http_status(12),
      grpc.http_status(77) })
    assert.same({ 16, 7, 14 }, { grpc.code_of(401), grpc.code_of(403), grpc.code_of(503) })
  end)

  it("reads files for those only who came with the gateway or are trusted", function()
    local bound = grpc.bind { dir = "elsewhere", trusted = false }
    assert.has_error(function() bound.prepare({ proto = "x.proto" }, {}) end,
      "sluice.grpc.prepare: for plugins under gateway.trusted_plugins")
    local files = { path = function(name) return "/" .. name end, read = function() end }
    local schema, fault = grpc.bind({ dir = "elsewhere", trusted = true }).prepare({ proto = "none.proto" }, files)
    assert.is_nil(schema)
    assert.equal("proto", fault.field)
  end)
end)
