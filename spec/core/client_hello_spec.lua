-- SPDX-License-Identifier: Apache-2.0
-- The look into a TLS client's first message: the name it asks for, in whatever records it comes.
local bit = require "bit"
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("client_hello.h")

local RESULTS = { [0] = "whole", "more", "bad" }

local function read(data)
  local hello = ffi.new("struct client_hello")
  local copy = ffi.new("char[?]", math.max(#data, 1)) -- of its exact size, for the sanitizer
  ffi.copy(copy, data, #data)
  local result = RESULTS[tonumber(C.client_hello_read(copy, #data, hello))]
  return result, result == "whole" and ffi.string(hello.sni, hello.sni_len) or nil
end

local function number(value, bytes)
  local out = ""
  for _ = 1, bytes do
    out = string.char(bit.band(value, 255)) .. out
    value = bit.rshift(value, 8)
  end
  return out
end

local function sized(bytes, text)
  return number(#text, bytes) .. text
end

local function extension(kind, body)
  return number(kind, 2) .. sized(2, body)
end

local function sni(name, kind)
  return extension(0, sized(2, (kind or "\0") .. sized(2, name)))
end

-- The message; `extensions` nil: none, not even an empty list.
local function hello(extensions)
  local body = "\3\3" .. ("r"):rep(32) .. sized(1, ("s"):rep(32)) .. sized(2, "\19\1\19\2") .. sized(1, "\0")
  return "\1" .. sized(3, body .. (extensions and sized(2, extensions) or ""))
end

local function record(text)
  return "\22\3\1" .. sized(2, text)
end

-- In records of `size` bytes.
local function records(text, size)
  local out = {}
  for at = 1, #text, size do out[#out + 1] = record(text:sub(at, at + size - 1)) end
  return table.concat(out)
end

describe("a ClientHello", function()
  it("tells the server name, in lower case and without a dot at its end", function()
    assert.same({ "whole", "db.example" }, { read(record(hello(sni "DB.Example."))) })
    assert.same({ "whole", "a" }, { read(record(hello(extension(43, "\2\3\4") .. sni "a" .. extension(51, "xyz")))) })
  end)

  it("may have none", function()
    assert.same({ "whole", "" }, { read(record(hello())) })
    assert.same({ "whole", "" }, { read(record(hello(""))) })
    assert.same({ "whole", "" }, { read(record(hello(extension(43, "\2\3\4")))) })
  end)

  it("passes over names of other types, and bytes behind it", function()
    local names = extension(0, sized(2, "\7" .. sized(2, "x?\0") .. "\0" .. sized(2, "b.test")))
    assert.same({ "whole", "b.test" }, { read(record(hello(names)) .. "\20\3\3\0\1\1") })
  end)

  it("is the same in records of any size", function()
    local message = hello(sni "fragmented.test" .. extension(21, ("\0"):rep(300)))
    for _, size in ipairs { 1, 2, 3, 5, 7, 64, 255, #message - 1 } do
      assert.same({ "whole", "fragmented.test" }, { read(records(message, size)) }, "records of " .. size)
    end
  end)

  it("is waited for until it is whole", function()
    local data = records(hello(sni "slow.test"), 17)
    for len = 0, #data - 1 do assert.equal("more", (read(data:sub(1, len))), "after " .. len .. " bytes") end
    assert.equal("whole", (read(data)))
  end)

  it("is refused at its first wrong byte", function()
    for _, data in ipairs { "G", "\21", "\22\2", "\22\3\1\0\0", "\22\3\1\64\1", "\22\3\1\0\5\2", "\128\46\1\3\1" } do
      assert.equal("bad", (read(data)))
    end
  end)

  it("is refused when its lengths contradict each other", function()
    local good = sni "a.test"
    for name, extensions in pairs {
      ["extension beyond the list"] = number(0, 2) .. number(200, 2) .. "abc",
      ["names beyond the extension"] = extension(0, number(50, 2) .. "\0" .. sized(2, "a.test")),
      ["bytes behind the names"] = extension(0, sized(2, "\0" .. sized(2, "a.test")) .. "x"),
      ["name beyond the names"] = extension(0, sized(2, "\0" .. number(9, 2) .. "a.test")),
      ["half an extension"] = good .. "\0",
    } do
      assert.equal("bad", (read(record(hello(extensions)))), name)
    end
    assert.equal("bad", (read(record("\1" .. sized(3, "\3\3short")))))
    assert.equal("bad", (read(record("\1" .. sized(3, hello(good):sub(5) .. "behind the extensions")))))
  end)

  it("is refused with a name that is none, or two of them", function()
    for _, name in ipairs { "", "a b", "a\0.test", "a/b", "\195\164", ("x"):rep(256) } do
      assert.equal("bad", (read(record(hello(sni(name))))))
    end
    assert.equal("whole", (read(record(hello(sni(("x"):rep(255)))))))
    assert.equal("bad", (read(record(hello(sni "a.test" .. sni "b.test")))))
    assert.equal("bad", (read(record(hello(extension(0, sized(2, "\0\0\1a\0\0\1b")))))))
  end)

  it("is not waited for beyond 16 KB", function()
    local message = hello(extension(21, ("\0"):rep(16380)))
    assert.equal("bad", (read(record(message:sub(1, 16000)))))
    local fits = hello(sni "large.test" .. extension(21, ("\0"):rep(15000)))
    assert.same({ "whole", "large.test" }, { read(records(fits, 4096)) })
    assert.equal("bad", (read(records(hello(extension(21, ("\0"):rep(15000))), 10))))
  end)

  it("never reads past what has come", function()
    math.randomseed(11)
    local seeds = { records(hello(sni "fuzz.test" .. extension(16, "\0\3\2h2")), 40), record(hello(sni "a")) }
    for _ = 1, 20000 do
      local data = seeds[math.random(#seeds)]
      for _ = 1, math.random(0, 4) do
        local at = math.random(#data)
        data = data:sub(1, at - 1) .. string.char(math.random(0, 255)) .. data:sub(at + 1)
      end
      local result, name = read(data:sub(1, math.random(0, #data)))
      if name then assert.is_nil(name:find("[^%w._-]")) end
      assert.is_truthy(result)
    end
  end)
end)

describe("what OpenSSL says first", function()
  it("is read", function()
    local file = assert(io.popen([[python3 -c '
import ssl
for name in ("real.example", None):
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = context.wrap_bio(inward, outward, server_hostname=name)
    try: connection.do_handshake()
    except ssl.SSLWantReadError: pass
    print(outward.read().hex())
']]))
    local names = {}
    for line in file:lines() do
      local data = line:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)
      local result, name = read(data)
      assert.equal("whole", result)
      names[#names + 1] = name
    end
    file:close()
    assert.same({ "real.example", "" }, names)
  end)
end)
