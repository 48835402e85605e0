-- SPDX-License-Identifier: Apache-2.0
local codings = require "spec.support.codings"
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("coder.h", "error.h")

local NAMES = { gzip = C.CODING_GZIP, br = C.CODING_BROTLI, zstd = C.CODING_ZSTD }

describe("coder", function()
  local out, put

  before_each(function()
    out = {}
    put = ffi.cast("coder_put *", function(_, data, len) out[#out + 1] = ffi.string(data, len) end)
  end)

  after_each(function() put:free() end)

  local function feed(coder, text, step)
    assert.equal(0, C.coder_feed(coder, ffi.new("struct slice", text, #text), step, put, nil))
  end

  for name, number in pairs(NAMES) do
    describe(name, function()
      local decode = codings[name]

      local function coder_for(length, level)
        return ffi.gc(C.coder_new(number, level or 4, length), C.coder_free)
      end

      it("gives back what went in, whole and in pieces, known length or not", function()
        local text = {}
        for i = 1, 20000 do text[i] = ("line %d of %d\n"):format(i, i * 7919 % 1000) end
        text = table.concat(text)
        for _, length in ipairs { #text, -1 } do
          for _, piece in ipairs { #text, 1000, 65536 } do
            out = {}
            local coder = coder_for(length)
            for at = 1, #text, piece do feed(coder, text:sub(at, at + piece - 1), C.CODER_MORE) end
            feed(coder, "", C.CODER_END)
            local coded = table.concat(out)
            assert.is_true(#coded < #text / 3)
            local decoded, whole = decode(coded)
            assert.is_true(whole)
            assert.is_true(decoded == text)
          end
        end
      end)

      it("lets all that went in be read after a flush", function()
        local coder, text = coder_for(-1), ""
        for i = 1, 50 do
          local event = "data: " .. i .. "\n\n"
          text = text .. event
          feed(coder, event, C.CODER_FLUSH)
          assert.equal(text, (decode(table.concat(out))))
        end
        feed(coder, "", C.CODER_END)
        assert.same({ text, true }, { decode(table.concat(out)) })
      end)

      it("makes something of nothing, and ends once", function()
        local coder = coder_for(0)
        feed(coder, "", C.CODER_MORE)
        assert.same({}, out)
        feed(coder, "", C.CODER_END)
        feed(coder, "more", C.CODER_END)
        assert.same({ "", true }, { decode(table.concat(out)) })
      end)

      it("passes on what cannot be made shorter", function()
        local bytes, seed = {}, 1
        for i = 1, 100000 do
          seed = (seed * 16807) % 2147483647
          bytes[i] = string.char(seed % 256)
        end
        local text, coder = table.concat(bytes), coder_for(100000)
        feed(coder, text, C.CODER_END)
        local decoded, whole = decode(table.concat(out))
        assert.is_true(whole and decoded == text)
      end)

      it("knows its levels", function()
        local low, high = unpack(({ gzip = { 1, 9 }, br = { 0, 11 }, zstd = { 1, 19 } })[name])
        for _, level in ipairs { low, high } do
          out = {}
          feed(coder_for(5, level), "again", C.CODER_END)
          assert.equal("again", (decode(table.concat(out))))
        end
        assert.is_true(C.coder_new(number, low - 1, -1) == nil)
        assert.is_true(C.coder_new(number, high + 1, -1) == nil)
      end)
    end)
  end
end)
