-- SPDX-License-Identifier: Apache-2.0
local fake = require "spec.lua.support.fake_core"

describe("time", function()
  local time

  setup(function()
    fake.install()
    time = require "sluice.time"
  end)

  teardown(fake.remove)

  it("writes and reads HTTP dates", function()
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", time.http_date(784111777))
    for _, text in ipairs { "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
      "Sun Nov  6 08:49:37 1994" } do
      assert.equal(784111777, time.parse_http_date(text))
    end
    for _, text in ipairs { "", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT", "0" } do
      assert.is_nil(time.parse_http_date(text), text)
    end
  end)

  it("writes and reads ISO 8601", function()
    assert.equal("2023-11-14T22:13:20Z", time.iso8601(1700000000))
    assert.equal("2023-11-14T22:13:20.250Z", time.iso8601(1700000000.25, 3))
    assert.equal(1700000000.5, time.parse_iso8601("2023-11-14T23:13:20.5+01:00"))
    assert.is_nil(time.parse_iso8601("2023-11-14"))
    assert.is_nil(time.parse_iso8601("2023-13-14T00:00:00Z"))
  end)

  it("agrees with the C library over two centuries", function()
    for seconds = -3e9, 4e9, 98765432 do
      assert.equal(os.date("!%a, %d %b %Y %H:%M:%S GMT", seconds), time.http_date(seconds))
    end
  end)

  it("takes the clock of the core", function()
    fake.now = 1234567890
    assert.equal(1234567890, time.now())
    assert.equal("Fri, 13 Feb 2009 23:31:30 GMT", time.http_date())
  end)
end)
