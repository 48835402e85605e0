-- SPDX-License-Identifier: Apache-2.0
local datagrams = require "spec.support.datagrams"
local json = require "sluice.json"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local spec = require "sluice.spec"

describe("syslog", function()
  local directory, receiver, path

  before_each(function()
    directory = posix.temporary_directory()
    path = directory .. "/log"
    receiver = datagrams.open(path)
  end)
  after_each(function()
    receiver:close()
    process.remove(directory)
  end)

  local function with(config, status)
    if not config.host then config.path = config.path or path end
    return spec.gateway { plugins = { { name = "syslog", config = config } },
      upstreams = { ["*"] = { status = status or 200, body = "hi" } } }
  end

  -- The line for a response of that status.
  local function line_for(config, status)
    local gateway = with(config, status)
    gateway:get("/a")
    gateway:settle()
    local line = receiver:receive(0)
    gateway:close()
    return line
  end

  it("writes to the system log's socket", function()
    local head, text = line_for({}):match("^(<%d+>%u%l%l [ %d]%d %d%d:%d%d:%d%d sluice%[%d+%]: )(.*)$")
    assert.matches("^<14>Jan  1 00:00:00 ", head)
    assert.equal("/a", json.decode(text).request.uri)
  end)

  it("gives each kind of status its severity", function()
    local config = { successful_severity = "notice", client_errors_severity = "warning",
      server_errors_severity = "crit" }
    assert.matches("^<13>", line_for(config, 200))
    assert.matches("^<13>", line_for(config, 302))
    assert.matches("^<12>", line_for(config, 404))
    assert.matches("^<10>", line_for(config, 503))
  end)

  it("leaves out what is less severe than log_level", function()
    local config = { log_level = "warning", successful_severity = "notice", client_errors_severity = "warning",
      server_errors_severity = "emerg" }
    assert.is_nil(line_for(config, 200))
    assert.matches("^<12>", line_for(config, 400))
    assert.matches("^<8>", line_for(config, 500))
  end)

  it("knows every severity and facility", function()
    local severities = { emerg = 0, alert = 1, crit = 2, err = 3, warning = 4, notice = 5, info = 6, debug = 7 }
    for name, number in pairs(severities) do
      assert.matches("^<" .. 16 * 8 + number .. ">", line_for { log_level = "debug", successful_severity = name,
        facility = "local0" })
    end
    for name, number in pairs { kern = 0, mail = 2, daemon = 3, auth = 4, syslog = 5, lpr = 6, news = 7, uucp = 8,
      cron = 9, authpriv = 10, ftp = 11, local7 = 23 } do
      assert.matches("^<" .. number * 8 + 6 .. ">", line_for { facility = name })
    end
  end)

  it("sends RFC 5424 to a server over UDP", function()
    local server = datagrams.open()
    local gateway = with { host = "127.0.0.1", port = server.port, ident = "edge" }
    gateway:get("/a")
    gateway:settle()
    local line = server:receive(5)
    server:close()
    local request_id, text = line:match("^<14>1 2026%-01%-01T00:00:00%.%d%d%dZ %S+ edge %d+ (%x+) %- (.*)$")
    local record = json.decode(text)
    assert.equal(record.request.id, request_id)
    assert.equal("/a", record.request.uri)
  end)

  it("adds fields by Lua", function()
    assert.matches('"who":"Ada"', line_for { custom_fields_by_lua = { who = "return 'Ada'" } }, 1, true)
  end)

  it("says that it lost lines where nobody listens, and holds nobody up", function()
    local gateway = with { path = directory .. "/none" }
    assert.equal(200, gateway:get("/a").status)
    gateway:settle()
    assert.matches("No such file or directory", gateway:log("log lines dropped")[1], 1, true)
  end)

  it("refuses a configuration that is wrong, and says where", function()
    local function refused(config)
      return select(2, spec.check { plugins = { { name = "syslog", config = config } } })
    end
    for _, field in ipairs { "log_level", "successful_severity", "client_errors_severity", "server_errors_severity",
      "facility" } do
      assert.matches("config." .. field .. ": expected one of", refused { [field] = "loud" }, 1, true)
    end
    assert.matches("config.path: expected", refused { path = "log" }, 1, true)
    assert.matches("config.host: expected", refused { host = "a b" }, 1, true)
    assert.matches("config.port: expected", refused { port = 70000 }, 1, true)
    assert.matches("config.ident: expected", refused { ident = "a b" }, 1, true)
    assert.matches("config.custom_fields_by_lua.a: expected Lua code",
      refused { custom_fields_by_lua = { a = "return return" } }, 1, true)
  end)
end)
