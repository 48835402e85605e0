-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("grpc.h")

local kept = {}

local function slice(text)
  kept[#kept + 1] = text
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

describe("gRPC", function()
  before_each(function() kept = {} end)

  it("is known by its content type, whatever the case, suffix or parameters", function()
    for _, type in ipairs { "application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc;v=1",
      "application/grpc ; v=1" } do
      assert.is_true(C.grpc_is_content_type(slice(type)), type)
    end
  end)

  it("is not what only begins like it, gRPC-Web for one", function()
    for _, type in ipairs { "application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text",
      "application/grpcx", "application/grp", "application/json", "" } do
      assert.is_false(C.grpc_is_content_type(slice(type)), type)
    end
  end)

  local statuses = {
    [200] = 0, [302] = 0, [400] = 3, [401] = 16, [403] = 7, [404] = 5, [405] = 12, [408] = 4, [409] = 6, [412] = 9,
    [413] = 8, [416] = 11, [418] = 2, [429] = 8, [431] = 8, [499] = 1, [500] = 13, [501] = 12, [502] = 14, [503] = 14,
    [504] = 4, [599] = 2,
  }
  for http, grpc in pairs(statuses) do
    it(("has status %d for HTTP's %d"):format(grpc, http), function()
      assert.equal(grpc, tonumber(C.grpc_status_of(http)))
    end)
  end

  local function encode(message, room)
    local out = ffi.new("char[?]", room or 100)
    return ffi.string(out, C.grpc_message_encode(slice(message), out, room or 100))
  end

  it("writes messages in visible ASCII", function()
    assert.equal("no such thing: a%25b%0D%0A%C3%A9~%7F%00", encode("no such thing: a%b\r\n\195\169~\127\0"))
    assert.equal("", encode(""))
  end)

  it("cuts a message that is too long between its characters", function()
    assert.equal("ab", encode("ab\n", 4))
    assert.equal("ab%0A", encode("ab\n", 5))
    assert.equal("a", encode("abc", 1))
  end)

  local timeouts = {
    ["1n"] = 1, ["999n"] = 1, ["1001n"] = 2, ["5u"] = 5, ["0u"] = 0, ["20m"] = 20000, ["3S"] = 3e6, ["2M"] = 120e6,
    ["1H"] = 3600e6, ["99999999H"] = 99999999 * 3600e6,
  }
  for text, us in pairs(timeouts) do
    it(("takes a timeout of %s for %.0f microseconds"):format(text, us), function()
      assert.equal(us, tonumber(C.grpc_timeout_parse(slice(text))))
    end)
  end

  for _, text in ipairs { "", "S", "1", "1s", "-1S", "+1S", " 1S", "1S ", "1.5S", "123456789S", "1SS", "0x1S" } do
    it(("finds the timeout %q malformed"):format(text), function()
      assert.equal(C.GRPC_TIMEOUT_MALFORMED, tonumber(C.grpc_timeout_parse(slice(text))))
    end)
  end

  local function format(us)
    local out = ffi.new("char[16]")
    return ffi.string(out, C.grpc_timeout_format(us, out))
  end

  it("writes what is left as exactly as eight digits allow", function()
    assert.equal("0u", format(-5))
    assert.equal("1u", format(1))
    assert.equal("99999999u", format(99999999))
    assert.equal("100000m", format(100000999))
    assert.equal("99999999m", format(99999999999LL))
    assert.equal("100000S", format(100000000000LL))
    assert.equal("1666666M", format(99999999000000LL + 1000000LL))
    assert.equal("99999999H", format(99999999LL * 3600000000LL + 1))
  end)
end)
