-- SPDX-License-Identifier: Apache-2.0
local ip = require "sluice.ip"

describe("ip", function()
  it("reads addresses of both families", function()
    assert.equal("\1\2\3\4", ip.parse("1.2.3.4"))
    assert.equal(("\0"):rep(15) .. "\1", ip.parse("::1"))
    assert.equal(("\0"):rep(16), ip.parse("::"))
    assert.equal("\32\1\13\184" .. ("\0"):rep(10) .. "\255\1", ip.parse("2001:db8::ff01"))
    assert.equal(ip.parse("64:ff9b::1.2.3.4"), ip.parse("64:ff9b::102:304"))
    assert.equal(ip.parse("1.2.3.4"), ip.parse("::ffff:1.2.3.4"))
  end)

  it("refuses what only looks like one", function()
    for _, text in ipairs { "", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4.5", "1.2.3.4 ", ":::", "1::2::3", "12345::",
      "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:", ":1:2:3:4:5:6:7", "g::", "1:2:3:4:5:6:7::8:9",
      "::1.2.3" } do
      assert.is_nil(ip.parse(text), text)
    end
  end)

  it("matches ranges of any length", function()
    local matcher = assert(ip.matcher { "10.0.0.0/8", "192.168.1.128/25", "1.2.3.4", "2001:db8::/33", "fe80::1" })
    for _, address in ipairs { "10.255.0.1", "192.168.1.200", "1.2.3.4", "2001:db8:7fff::1", "fe80::1",
      "::ffff:10.1.1.1" } do
      assert.is_true(matcher:matches(address), address)
    end
    for _, address in ipairs { "11.0.0.1", "192.168.1.127", "1.2.3.5", "2001:db8:8000::1", "fe80::2", "nonsense" } do
      assert.is_false(matcher:matches(address), address)
    end
    assert.is_true(ip.matcher({ "0.0.0.0/0" }):matches("8.8.8.8"))
    assert.is_false(ip.matcher({ "0.0.0.0/0" }):matches("::1"))
  end)

  it("names the range that is none", function()
    assert.same({ n = 2, nil, '"10.0.0.0/33" has an invalid prefix length' },
      { n = 2, ip.matcher { "10.0.0.0/33" } })
    assert.same({ n = 2, nil, '"x/8" is no IP address or range' }, { n = 2, ip.matcher { "x/8" } })
  end)
end)
