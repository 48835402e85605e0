-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("h2_guard.h", "h2_server.h")

local SECOND = 1000000
local DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 4, 6, 8, 9
local END_STREAM = 1

describe("a bucket against floods", function()
  local bucket

  before_each(function()
    bucket = ffi.new("struct h2_bucket")
    C.h2_bucket_init(bucket, 100, 10, SECOND)
  end)

  local function spend_all(cost, now)
    local count = 0
    while C.h2_bucket_spend(bucket, cost, now) do count = count + 1 end
    return count
  end

  it("pays until it is empty, and then for nothing", function()
    assert.equal(10, spend_all(10, SECOND))
    assert.is_false(C.h2_bucket_spend(bucket, 1, SECOND))
    assert.equal(0, bucket.level)
  end)

  it("fills with time, up to what it holds", function()
    assert.equal(100, spend_all(1, SECOND))
    assert.equal(20, spend_all(1, 3 * SECOND))
    assert.equal(100, spend_all(1, 1000 * SECOND))
  end)

  it("fills with useful work, up to what it holds", function()
    assert.equal(100, spend_all(1, SECOND))
    C.h2_bucket_earn(bucket, 7)
    assert.equal(7, spend_all(1, SECOND))
    for _ = 1, 50 do C.h2_bucket_earn(bucket, 7) end
    assert.equal(100, spend_all(1, SECOND))
  end)

  it("is not emptied by what a lively connection needs", function()
    C.h2_bucket_init(bucket, C.H2_CALM_MOST, C.H2_CALM_A_SECOND, SECOND)
    for _ = 1, 100000 do -- each DATA frame sent is answered by two windows and a PING
      C.h2_bucket_earn(bucket, C.H2_EARNED_DATA)
      for _, kind in ipairs { WINDOW_UPDATE, WINDOW_UPDATE, PING } do
        assert.is_true(C.h2_bucket_spend(bucket, C.h2_frame_cost(kind, 0, 8), SECOND))
      end
    end
  end)
end)

describe("a frame", function()
  it("costs more the less it says", function()
    assert.equal(C.H2_COST_LARGE, C.h2_frame_cost(HEADERS, 0, 10))
    for _, kind in ipairs { HEADERS, DATA, CONTINUATION, SETTINGS, PING } do
      assert.equal(C.H2_COST_LARGE, C.h2_frame_cost(kind, 0, 0))
    end
    assert.equal(C.H2_COST_PIECE, C.h2_frame_cost(CONTINUATION, 0, 1))
    assert.equal(C.H2_COST_SMALL, C.h2_frame_cost(WINDOW_UPDATE, 0, 4))
    assert.equal(C.H2_COST_SMALL, C.h2_frame_cost(200, 0, 0))
  end)

  it("of DATA costs what its content earns back, also the empty one that ends a request", function()
    assert.equal(C.H2_COST_DATA, C.h2_frame_cost(DATA, 0, 1))
    assert.equal(C.H2_COST_DATA, C.h2_frame_cost(DATA, END_STREAM, 0))
  end)
end)

describe("the preface", function()
  local PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

  local function look(text)
    return C.h2_server_preface(ffi.new("struct slice", ffi.cast("const char *", text), #text))
  end

  it("is known when it is whole, and may be one before", function()
    assert.equal(1, look(PREFACE))
    assert.equal(1, look(PREFACE .. "and more"))
    for length = 1, #PREFACE - 1 do assert.equal(-1, look(PREFACE:sub(1, length))) end
  end)

  it("is no request of HTTP/1.1", function()
    for _, text in ipairs { "GET / HTTP/1.1\r\n", "P / HTTP/1.1\r\n", "PRI * HTTP/1.1\r\n", PREFACE:lower() } do
      assert.equal(0, look(text))
    end
  end)
end)
