-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("spool.h")

local BLOCK_BYTES = 256 * 1024

describe("a spool", function()
  local spool

  before_each(function() spool = C.spool_new() end)
  after_each(function() C.spool_free(spool) end)

  local function put(text)
    return C.spool_put(spool, ffi.new("struct slice", text, #text))
  end

  local function take()
    local text = C.spool_take(spool)
    if text.data == nil then return nil end
    return ffi.string(text.data, text.len)
  end

  it("gives texts in the order in which they came, empty ones and any bytes", function()
    for _, text in ipairs { "one", "", "a\0b", "three" } do assert.is_true(put(text)) end
    assert.same({ "one", "", "a\0b", "three" }, { take(), take(), take(), take() })
    assert.is_nil(take())
    assert.is_true(put("again"))
    assert.equal("again", take())
    assert.is_nil(take())
  end)

  it("takes texts larger than its blocks, between small ones", function()
    local large = ("x"):rep(BLOCK_BYTES * 3)
    put("small")
    put(large)
    put("behind")
    assert.equal("small", take())
    assert.equal(large, take())
    assert.equal("behind", take())
  end)

  it("keeps what was put while others are taken, over many blocks", function()
    local put_next, take_next = 1, 1
    for round = 1, 2000 do
      for _ = 1, round % 7 do
        put(("%d:%s"):format(put_next, ("y"):rep(put_next % 3000)))
        put_next = put_next + 1
      end
      for _ = 1, round % 5 do
        local text = take()
        if text then
          assert.equal(("%d:%s"):format(take_next, ("y"):rep(take_next % 3000)), text)
          take_next = take_next + 1
        end
      end
    end
    for text in take do
      assert.equal(take_next, tonumber(text:match("^%d+")))
      take_next = take_next + 1
    end
    assert.equal(put_next, take_next)
  end)

  it("takes little more memory than its texts, and gives it back", function()
    local entry = ("z"):rep(1200)
    for _ = 1, 10000 do put(entry) end
    local held = tonumber(C.spool_bytes(spool))
    assert.is_true(held >= 10000 * 1200 and held < 10000 * 1204 + 4 * BLOCK_BYTES)
    for _ = 1, 9999 do take() end
    assert.is_true(tonumber(C.spool_bytes(spool)) < 2 * BLOCK_BYTES)
    take()
    assert.is_nil(take())
    assert.equal(0, tonumber(C.spool_bytes(spool)))
  end)

  it("leaves the text that was taken last readable", function()
    put("only")
    local text = C.spool_take(spool)
    put("next")
    assert.equal("only", ffi.string(text.data, text.len))
  end)
end)
