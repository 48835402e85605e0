-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

describe("settings", function()
  local C = core.load("settings.h")

  local function settings(...)
    local made = ffi.gc(C.settings_new(), C.settings_free)
    for _, line in ipairs { ... } do C.settings_line(made, line) end
    return made
  end

  it("takes what the checker tells", function()
    local told = settings("revision=7", "snapshot=/s/7", "state_dir=/s", "workers=4", "listen.proxy=0.0.0.0:8443 ssl",
      "listen.status=127.0.0.1:8007", "watch=/etc/x.yml", "log.level=warn", "log.format=json")
    assert.equal(7, tonumber(told.revision))
    assert.equal("/s/7", ffi.string(told.snapshot))
    assert.equal(4, told.workers)
    assert.equal(2, told.listen_count)
    assert.equal("ssl", ffi.string(told.listens[0].flags))
    assert.equal(C.LISTEN_STATUS, told.listens[1].kind)
    assert.equal("/etc/x.yml", ffi.string(told.watch[0]))
    assert.equal(C.LOG_WARN, told.log_level)
    assert.is_true(told.log_json)
    assert.equal(0, told.error_count)
  end)

  it("knows limits by name and gives the default for one that was not told", function()
    local told = settings("limit.drain_timeout=1500", "limit.plugin_cpu_budget_ms=12.5")
    assert.equal(1500, C.settings_limit(told, "drain_timeout", 30000))
    assert.equal(12.5, C.settings_limit(told, "plugin_cpu_budget_ms", 100))
    assert.equal(9, C.settings_limit(told, "other", 9))
  end)

  it("keeps errors as they were told", function()
    local told = settings('error={"file":"a=b.yml"}', 'error={"line":2}')
    assert.equal(2, told.error_count)
    assert.equal('{"file":"a=b.yml"}', ffi.string(told.errors[0]))
  end)

  it("turns a line that cannot be right into an error", function()
    for line, why in pairs { ["workers=0"] = "expected 1 to", ["workers=many"] = "found many",
      ["listen.proxy=nowhere"] = "not an address and port" } do
      local told = settings(line)
      assert.equal(1, told.error_count)
      assert.matches(why, ffi.string(told.errors[0]), 1, true)
    end
  end)

  it("passes over what it does not know", function()
    assert.equal(0, settings("colour=red", "no sense", "", "=").error_count)
  end)

  it("sees that workers must be replaced when sockets or their number differ, and only then", function()
    local function base(...)
      return settings("workers=2", "listen.proxy=0.0.0.0:80", ...)
    end
    local other = base("revision=2", "limit.x=1", "watch=/x", "log.level=debug")
    assert.is_false(C.settings_differ(base("revision=1"), other))
    assert.is_true(C.settings_differ(base(), base("workers=3")))
    assert.is_true(C.settings_differ(base(), base("listen.proxy=0.0.0.0:81")))
    assert.is_true(C.settings_differ(base(), settings("workers=2", "listen.proxy=0.0.0.0:80 ssl")))
    assert.is_true(C.settings_differ(base(), settings("workers=2", "listen.status=0.0.0.0:80")))
  end)
end)
