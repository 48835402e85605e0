-- SPDX-License-Identifier: Apache-2.0
-- Handshakes that wait for a plugin of phase certificate: the client may stall, chatter or leave meanwhile.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local SLOW = [[
local sluice = require "sluice"
local slow = { version = "1.0.0", priority = 10 }
function slow.certificate(_, exchange)
  sluice.log.warn("greeting " .. (exchange.client.tls:get_server_name() or "nobody"))
  sluice.sleep(1.5)
end
return slow
]]

local function u16(text)
  return string.char(math.floor(#text / 256), #text % 256) .. text
end

-- A first flight of TLS 1.2 that asks for `name`.
local function client_hello(name)
  local extensions = "\0\0" .. u16(u16("\0" .. u16(name))) .. "\0\10" .. u16(u16("\0\29\0\23"))
    .. "\0\11" .. u16("\1\0") .. "\0\13" .. u16(u16("\4\3\8\4\4\1"))
  local hello = "\3\3" .. ("r"):rep(32) .. "\0" .. u16("\192\43\192\47") .. "\1\0" .. u16(extensions)
  return "\22\3\1" .. u16("\1\0" .. u16(hello))
end

describe("a greeting that waits for a plugin", function()
  local gw

  setup(function()
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { client_header_timeout = 700 } },
      plugins = { { name = "slow" } },
    }, { plugins = { slow = SLOW } })
  end)

  teardown(function() gw:stop() end)

  local function greet(name)
    local client = assert(http.connect(gw.tls_port))
    client:send(client_hello(name))
    gw:wait_log("greeting " .. name)
    return client
  end

  -- What is in work besides the question itself.
  local function requests_open()
    return cjson.decode(http.get(gw.status_port, "/status").body).server.connections_writing - 1
  end

  local function wait_until_idle()
    process.wait_until(function() return requests_open() == 0 end, 5, "the end of every exchange")
  end

  local function cpu_ticks()
    local fields = process.read_file("/proc/" .. gw:workers()[1] .. "/stat"):match("%) (.*)")
    local user, system = fields:match("^%S+" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
    return user + system
  end

  it("is given up when client_header_timeout has passed", function()
    local client = greet("late.test")
    assert.is_true(client:closes_within(5))
    wait_until_idle()
    client:close()
  end)

  it("is forgotten when the client leaves", function()
    greet("gone.test"):close()
    wait_until_idle()
  end)

  it("runs the plugin once and costs nothing, whatever else the client sends", function()
    local before = cpu_ticks()
    local client = greet("chatty.test")
    client:send(("x"):rep(1000))
    posix.pause(0.2)
    assert.is_true(cpu_ticks() - before < 10)
    assert.equal(1, select(2, gw:log():gsub("greeting chatty%.test", "")))
    client:close()
    wait_until_idle()
  end)
end)
