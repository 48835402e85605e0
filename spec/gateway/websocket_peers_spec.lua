-- SPDX-License-Identifier: Apache-2.0
-- Clients and services that others have written (`websockets` of Python, `ws` of Node), through a tunnel and through a
-- route whose messages are read and, in part, made anew. `make peers` fetches them.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local process = require "spec.support.process"

local HERE = assert(io.popen("pwd")):read("*l")
local PEERS = {
  websockets = { command = { "python3", "spec/support/websocket_peers/peer.py" },
    env = { PYTHONPATH = HERE .. "/.cache/peers/websockets/src", PYTHONDONTWRITEBYTECODE = "1" } },
  ws = { command = { "node", "spec/support/websocket_peers/peer.js" },
    env = { WS_PACKAGE = HERE .. "/.cache/peers/ws" } },
}

-- Puts every third text together anew: it is packed by the gateway then.
local TOUCH = [[
local touch = { version = "1.0.0", priority = 1 }
local seen = 0
function touch.ws_client_frame(conf, exchange, frame)
  seen = seen + 1
  if seen % 3 == 0 and frame.type ~= "close" then frame:set_data(frame.data) end
end
touch.ws_upstream_frame = touch.ws_client_frame
return touch
]]

local function with(command, ...)
  local all = { unpack(command) }
  for _, word in ipairs { ... } do all[#all + 1] = word end
  return all
end

describe("WebSocket peers by others", function()
  for name, peer in pairs(PEERS) do
    local service, gw

    local function start()
      local port = process.free_port()
      service = process.start(with(peer.command, "echo", tostring(port)), { env = peer.env })
      process.wait_until(function()
        if not service:is_running() then error(name .. " ended: " .. service:stderr()) end
        local client = http.connect(port)
        if client then client:close() end
        return client
      end, 10, "the service of " .. name)
      gw = gateway.start(([[
_format_version: "3.0"
services:
- name: echo
  url: http://127.0.0.1:%d
  routes:
  - { name: tunnel, paths: [/tunnel] }
  - { name: read, paths: [/read], plugins: [{ name: touch }] }
]]):format(port), { plugins = { touch = TOUCH },
        env = { SLUICE_WEBSOCKET_CLIENT_MAX_PAYLOAD = "4000000" } })
    end

    it("have nothing to object to: clients with the service of " .. name, function()
      start()
      for client_name, client in pairs(PEERS) do
        for _, path in ipairs { "/tunnel", "/read" } do
          local url = ("ws://127.0.0.1:%d%s"):format(gw.port, path)
          local status, out, err = process.run(with(client.command, "ask", url), { env = client.env, seconds = 60 })
          assert.equal("0 all well\n", status .. " " .. out, client_name .. " " .. path .. ": " .. err)
        end
      end
      gw:stop()
      service:stop()
      service:forget()
    end)
  end
end)
