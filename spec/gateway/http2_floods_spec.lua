-- SPDX-License-Identifier: Apache-2.0
-- Clients that mean harm over HTTP/2, at full speed: they are cut off, and the others do not suffer.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http2 = require "spec.support.http2"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local KINDS = { "rapid-reset", "rapid-reset-post", "made-you-reset", "malformed", "empty-data", "padded-data",
  "continuation", "empty-continuation", "empty-headers", "ping", "ping-unread", "settings", "settings-unread",
  "window-update", "priority", "unknown", "hpack-bomb", "requests-unread", "stalled" }
local TIMES = 3
local MOST_BYTES = 32 * 1024 * 1024

describe("a flood over HTTP/2", function()
  local up, gw, worker

  setup(function()
    up = upstream.start()
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { send_timeout = 500, client_body_timeout = 20000 } },
      services = { { name = "up", url = up:url(),
        routes = { { name = "all", paths = { "/" }, strip_path = false } } } },
    }, { http2 = true })
    worker = gw:workers()[1]
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  local function resident_bytes()
    return tonumber(process.read_file("/proc/" .. worker .. "/status"):match("VmRSS:%s*(%d+)")) * 1024
  end

  -- The others: a request after the other, over one connection of each protocol, while the flood goes on.
  local function ask_meanwhile(kind)
    local first, second = gw:connect({ timeout = 20 }), assert(http2.connect(gw.port, { timeout = 20 }))
    local flood = process.start({ "nice", "luajit", "spec/support/flood.lua", gw.port, kind, 10 * process.slowness,
      TIMES })
    local most = 0
    repeat
      assert.equal(200, assert(first:request({ path = "/other" })).status)
      assert.equal(200, second:wait(second:request({ path = "/other" })).status)
      most = math.max(most, resident_bytes())
    until not flood:is_running()
    first:close()
    second:close()
    return flood, most
  end

  for _, kind in ipairs(KINDS) do
    it("is cut off: " .. kind, function()
      gw:get("/other")
      local before = resident_bytes()
      local flood, most = ask_meanwhile(kind)
      local out, err = flood:stdout(), flood:stderr()
      flood:forget()
      assert.equal("", err)
      local result = cjson.decode(out)
      assert(result.closed >= TIMES, "it went on: " .. out)
      assert.equal(worker, gw:workers()[1])
      -- The sanitizer keeps what was freed.
      if process.slowness == 1 then assert(most - before < MOST_BYTES, kind .. " costs " .. most - before) end
    end)
  end
end)
