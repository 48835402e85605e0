-- SPDX-License-Identifier: Apache-2.0
-- The codec by itself: bytes in, messages out, however the bytes are cut.
local bit = require "bit"
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("websocket.h")

local MORE, MESSAGE = 0, 1
local NAMES = { [0] = "continuation", "text", "binary", [8] = "close", [9] = "ping", [10] = "pong" }
local MOST = 100000

local function slice(text)
  return ffi.new("struct slice", text, #text)
end

-- One frame. options: fin (true), rsv (0), mask (text of 4, false: none), length (as announced)
local function frame(opcode, payload, options)
  options = options or {}
  local first = (options.fin == false and 0 or 0x80) + (options.rsv or 0) * 16 + opcode
  local mask = options.mask == nil and "\1\2\3\4" or options.mask
  local length = options.length or #payload
  local head = string.char(first)
  local flag = mask and 0x80 or 0
  if length <= 125 then head = head .. string.char(flag + length)
  elseif length <= 65535 then head = head .. string.char(flag + 126, bit.rshift(length, 8), length % 256)
  else
    head = head .. string.char(flag + 127, 0, 0, 0, 0, math.floor(length / 16777216) % 256,
      math.floor(length / 65536) % 256, math.floor(length / 256) % 256, length % 256)
  end
  if not mask then return head .. payload end
  local masked = {}
  for i = 1, #payload do
    masked[i] = string.char(bit.bxor(payload:byte(i), mask:byte((i - 1) % 4 + 1)))
  end
  return head .. mask .. table.concat(masked)
end

describe("the WebSocket codec", function()
  local reader, zip

  local function new(options)
    options = options or {}
    reader = ffi.new("struct ws_reader")
    C.ws_reader_init(reader, options.masked ~= false, options.most or MOST)
    if options.deflate then
      zip = C.ws_zip_new()
      reader.zip = zip
    end
  end

  after_each(function()
    if reader then C.ws_reader_close(reader) end
    if zip then C.ws_zip_free(zip) end
    reader, zip = nil, nil
  end)

  -- Feeds the bytes in pieces of `size` and lists what comes: "text:abc", or "1002 why" at the end.
  local function feed(bytes, size)
    local events, used = {}, ffi.new("uint32_t[1]")
    size = size or math.max(#bytes, 1)
    for from = 1, math.max(#bytes, 1), size do
      local piece = bytes:sub(from, from + size - 1)
      while true do
        local event = tonumber(C.ws_next(reader, slice(piece), used))
        piece = piece:sub(used[0] + 1)
        if event == MORE then break end
        if event ~= MESSAGE then
          events[#events + 1] = ("%d %s"):format(reader.code, ffi.string(reader.reason))
          return events
        end
        local message = C.ws_message(reader)
        events[#events + 1] = NAMES[message.opcode] .. ":" .. ffi.string(message.data.data, message.data.len)
      end
    end
    return events
  end

  local MIXED = frame(1, "a", { fin = false }) .. frame(9, "p") .. frame(0, "b", { fin = false })
    .. frame(10, "") .. frame(0, "c") .. frame(2, "\0\255") .. frame(8, "\3\232bye")

  it("puts messages together from fragments, with control frames between them", function()
    new()
    assert.same({ "ping:p", "pong:", "text:abc", "binary:\0\255", "close:\3\232bye" }, feed(MIXED))
  end)

  it("gives the same whatever pieces it comes in", function()
    for size = 1, 12 do
      new()
      assert.same({ "ping:p", "pong:", "text:abc", "binary:\0\255", "close:\3\232bye" }, feed(MIXED, size))
      C.ws_reader_close(reader)
    end
  end)

  it("reads each form of length, and takes one that is too long for its value as an error", function()
    for _, length in ipairs { 0, 1, 7, 8, 125, 126, 127, 65535, 65536 } do
      new()
      local payload = ("x"):rep(length)
      assert.same({ "binary:" .. payload }, feed(frame(2, payload), 1000))
      C.ws_reader_close(reader)
    end
    new { masked = false }
    assert.same({ "1002 length not in its shortest form" }, feed("\130\126\0\5hello"))
    new { masked = false }
    assert.same({ "1002 length not in its shortest form" }, feed("\130\127\0\0\0\0\0\0\255\255"))
    new { masked = false }
    assert.same({ "1002 length not in its shortest form" }, feed("\130\127\255\0\0\0\0\0\255\255"))
  end)

  it("asks clients to mask, and services not to", function()
    new()
    assert.same({ "1002 unmasked frame" }, feed(frame(1, "a", { mask = false })))
    new { masked = false }
    assert.same({ "1002 masked frame" }, feed(frame(1, "a")))
  end)

  it("reads what services send in pieces, of which the first may end with the head", function()
    for size = 1, 5 do
      new { masked = false }
      assert.same({ "text:hello", "text:" }, feed(frame(1, "hello", { mask = false }) ..
        frame(1, "", { mask = false }), size))
      C.ws_reader_close(reader)
    end
    reader = nil
  end)

  it("refuses reserved bits, unknown opcodes and frames out of place", function()
    local cases = {
      [frame(1, "a", { rsv = 4 })] = "reserved bits are set", [frame(1, "a", { rsv = 1 })] = "reserved bits are set",
      [frame(9, "a", { rsv = 2 })] = "reserved bits are set", [frame(3, "")] = "unknown opcode",
      [frame(11, "")] = "unknown opcode", [frame(15, "")] = "unknown opcode",
      [frame(0, "a")] = "continuation of nothing", [frame(9, "a", { fin = false })] = "fragmented control frame",
      [frame(9, ("a"):rep(126))] = "control frame too long", [frame(8, "a")] = "close frame with half a code",
      [frame(1, "a", { fin = false }) .. frame(1, "b")] = "message inside of a message",
    }
    for bytes, why in pairs(cases) do
      new()
      assert.same({ "1002 " .. why }, feed(bytes))
      assert.same({ "1002 " .. why }, feed(frame(1, "more")), "it stays failed")
    end
  end)

  it("refuses codes that may not be sent, and reasons that are no text", function()
    for _, code in ipairs { 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535 } do
      new()
      local bytes = string.char(math.floor(code / 256), code % 256)
      assert.same({ "1002 close frame with an invalid code" }, feed(frame(8, bytes)), code)
    end
    for _, code in ipairs { 1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999 } do
      new()
      local bytes = string.char(math.floor(code / 256), code % 256)
      assert.same({ "close:" .. bytes }, feed(frame(8, bytes)), code)
    end
    new()
    assert.same({ "1007 the reason of a close is not UTF-8" }, feed(frame(8, "\3\232\255")))
    new()
    assert.same({ "close:" }, feed(frame(8, "")))
  end)

  describe("checks text", function()
    local GOOD = { "", "κόσμε", "\239\191\189", "\240\144\128\128", "\244\143\191\191", "\237\159\191", "\238\128\128",
      "\0", "\127", "\194\128", "\224\160\128", ("ä"):rep(50) }
    local BAD = { "\128", "\191", "\192\128", "\193\191", "\224\128\128", "\224\159\191", "\237\160\128",
      "\237\191\191", "\240\128\128\128", "\240\143\191\191", "\244\144\128\128", "\245\128\128\128",
      "\254", "\255", "\206\206",
      "abcdefghijkl\255", "\194a", "\226\130a" }

    it("for UTF-8, whatever pieces it comes in", function()
      for _, text in ipairs(GOOD) do
        assert.is_true(C.ws_utf8_is_valid(slice(text)), text)
        for size = 1, 3 do
          new()
          assert.same({ "text:" .. text }, feed(frame(1, text), size))
          C.ws_reader_close(reader)
        end
      end
      for _, text in ipairs(BAD) do
        assert.is_false(C.ws_utf8_is_valid(slice(text)))
        new()
        assert.same({ "1007 text is not UTF-8" }, feed(frame(1, text), 1))
      end
    end)

    it("as it comes: the end of the message is not awaited", function()
      new()
      assert.same({ "1007 text is not UTF-8" }, feed(frame(1, "κό\237\160\128", { length = 5000 }), 1))
    end)

    it("across fragments, which may cut a character", function()
      new()
      assert.same({ "text:κ" }, feed(frame(1, "\206", { fin = false }) .. frame(0, "\186")))
      new()
      assert.same({ "1007 text ends inside of a character" }, feed(frame(1, "κ\206")))
    end)

    it("and leaves binary alone", function()
      new()
      assert.same({ "binary:\255\254" }, feed(frame(2, "\255\254")))
    end)
  end)

  describe("bounds messages", function()
    it("as soon as a head announces too much", function()
      new { most = 10 }
      assert.same({ "binary:0123456789" }, feed(frame(2, "0123456789")))
      assert.same({ "1009 Payload Too Large" }, feed(frame(2, "0", { length = 11 })))
    end)

    it("in the sum of their fragments", function()
      new { most = 10 }
      assert.same({ "ping:x", "1009 Payload Too Large" },
        feed(frame(2, "012345", { fin = false }) .. frame(9, "x") .. frame(0, "67890")))
    end)

    it("and takes no memory for what has not come", function()
      new { most = 1000000000 }
      feed(frame(2, "abc", { length = 900000000 }))
      assert.is_true(tonumber(reader.room) < 100000)
    end)

    it("and keeps none between messages", function()
      new()
      feed(frame(1, ("x"):rep(50000)))
      assert.is_true(reader.data == nil)
      assert.is_false(C.ws_is_midway(reader))
      feed(frame(1, "xyz"):sub(1, 7))
      assert.is_true(C.ws_is_midway(reader))
    end)
  end)

  describe("with permessage-deflate", function()
    local function pack(text, bits)
      local out, len = ffi.new("char *[1]"), ffi.new("uint32_t[1]")
      assert.equal(0, C.ws_pack(zip, bits or 15, slice(text), out, len))
      local packed = ffi.string(out[0], len[0])
      ffi.C.free(out[0])
      return packed
    end

    setup(function() ffi.cdef "void free(void *);" end)

    it("reads what it packs, with every window that it can be asked for", function()
      new { deflate = true }
      for bits = 9, 15 do
        for _, text in ipairs { "", "a", "Hello", ("Hello"):rep(5000), ("äöü"):rep(1000) } do
          local packed = pack(text, bits)
          assert.same({ "text:" .. text }, feed(frame(1, packed, { rsv = 4 }), 700))
        end
      end
    end)

    it("reads the examples of RFC 7692 7.2.3", function()
      new { deflate = true, masked = false }
      local plain = { mask = false, rsv = 4 }
      assert.same({ "text:Hello" }, feed(frame(1, "\242\72\205\201\201\7\0", plain)))
      assert.same({ "text:Hello" }, feed(frame(1, "\242\72\205", { mask = false, rsv = 4, fin = false })
        .. frame(0, "\201\201\7\0", { mask = false })))
      assert.same({ "text:Hello" }, feed(frame(1, "\0\5\0\250\255Hello\0", plain)), "stored")
      assert.same({ "text:Hello" }, feed(frame(1, "\243\72\205\201\201\7\0\0", plain)), "a last block")
      assert.same({ "text:Hello" }, feed(frame(1, "\242\72\5\0\0\0\255\255\202\201\201\7\0", plain)), "two blocks")
      assert.same({ "text:plain" }, feed(frame(1, "plain", { mask = false })))
    end)

    it("bounds what comes out", function()
      new { deflate = true, most = 100000 }
      local bomb = pack(("\0"):rep(10000000))
      assert.is_true(#bomb < 20000)
      assert.same({ "1009 Payload Too Large" }, feed(frame(2, bomb, { rsv = 4 })))
      new { deflate = true, most = 1000 }
      assert.same({ "binary:" .. ("x"):rep(1000) }, feed(frame(2, pack(("x"):rep(1000)), { rsv = 4 })))
      assert.same({ "1009 Payload Too Large" }, feed(frame(2, pack(("x"):rep(1001)), { rsv = 4 })))
    end)

    it("refuses what is no deflate, and text that is no UTF-8", function()
      new { deflate = true }
      assert.same({ "1007 compressed data is broken" }, feed(frame(1, "\255\255\255\255", { rsv = 4 })))
      new { deflate = true }
      assert.same({ "1007 text is not UTF-8" }, feed(frame(1, pack("\255"), { rsv = 4 })))
      new { deflate = true }
      assert.same({ "1002 reserved bits are set" },
        feed(frame(1, "a", { rsv = 4, fin = false }) .. frame(0, "b", { rsv = 4 })))
    end)

    local function offer(text)
      local bits = ffi.new("int[1]")
      if not C.ws_find_offer(slice(text), bits) then return false end
      local out = ffi.new("char[128]")
      return ffi.string(out, C.ws_answer_offer(out, bits[0]))
    end

    it("takes the first offer that it can", function()
      local alone = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
      assert.equal(alone, offer("permessage-deflate"))
      assert.equal(alone, offer("permessage-deflate; client_max_window_bits"))
      assert.equal(alone, offer("x-other, Permessage-Deflate;client_max_window_bits=\"10\""))
      assert.equal(alone .. "; server_max_window_bits=10", offer("permessage-deflate; server_max_window_bits=10"))
      assert.equal(alone .. "; server_max_window_bits=9",
        offer("permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=\"9\""))
      assert.is_false(offer(""))
      assert.is_false(offer("x-webkit-deflate-frame"))
      for _, bad in ipairs { "unknown", "client_max_window_bits=7", "server_max_window_bits",
        "server_max_window_bits=16", "server_no_context_takeover=1",
        "server_max_window_bits=10; server_max_window_bits=10",
        "server_max_window_bits=8" } do
        assert.is_false(offer("permessage-deflate; " .. bad), bad)
      end
    end)

    it("agrees with an answer to its own offer only", function()
      assert.is_true(C.ws_is_agreed(slice "permessage-deflate; server_no_context_takeover"))
      assert.is_true(C.ws_is_agreed(slice "permessage-deflate; server_no_context_takeover; client_no_context_takeover"))
      assert.is_true(C.ws_is_agreed(slice "permessage-deflate; server_no_context_takeover; server_max_window_bits=12"))
      for _, bad in ipairs { "", "permessage-deflate", "permessage-deflate; server_no_context_takeover, x",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits=10", "x" } do
        assert.is_false(C.ws_is_agreed(slice(bad)), bad)
      end
    end)
  end)

  describe("writes", function()
    it("heads in the shortest form", function()
      local out = ffi.new("char[14]")
      local function head(...) return ffi.string(out, C.ws_head(out, ...)) end
      assert.equal("\129\5", head(1, false, 5, nil))
      assert.equal("\194\126\0\126", head(2, true, 126, nil))
      assert.equal("\130\127\0\0\0\0\0\1\0\0", head(2, false, 65536, nil))
      assert.equal("\137\128abcd", head(9, false, 0, ffi.new("uint8_t[4]", 97, 98, 99, 100)))
    end)

    it("closes whose reasons are cut between characters", function()
      local out = ffi.new("char[125]")
      local function payload(code, reason)
        return ffi.string(out, C.ws_close_payload(out, code, slice(reason)))
      end
      assert.equal("", payload(1005, "never"))
      assert.equal("\3\233bye", payload(1001, "bye"))
      assert.equal("\3\232" .. ("ä"):rep(61), payload(1000, ("ä"):rep(70)))
    end)
  end)

  it("counts frames without reading them", function()
    local tracker = ffi.new("struct ws_tracker")
    local bytes = frame(1, "abc", { fin = false }) .. frame(9, "") .. frame(0, ("x"):rep(300))
    for _, size in ipairs { 1, 5, #bytes } do
      local ends, at = {}, 0
      for from = 1, #bytes, size do
        local piece = bytes:sub(from, from + size - 1)
        while #piece > 0 do
          local used = C.ws_track(tracker, slice(piece))
          at = at + used
          piece = piece:sub(used + 1)
          if tracker.left == 0 and tracker.head_len == 0 then ends[#ends + 1] = { at, tracker.in_message } end
        end
      end
      assert.same({ { 9, true }, { 15, true }, { #bytes, false } }, ends)
    end
  end)
end)
