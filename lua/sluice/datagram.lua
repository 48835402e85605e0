-- SPDX-License-Identifier: Apache-2.0
-- Datagrams: UDP, and local sockets such as the system's log. Sent and forgotten.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local dns = require "sluice.dns"

local C, worker = core.C, core.worker
local byte, find = string.byte, string.find

---@class sluice.datagram
local datagram = {}

local OK, INVALID = 0, -2

-- What cannot be a name: an address, or "unix:/path".
local function is_address(host)
  local first = byte(host)
  return (first and first >= 48 and first <= 57 and not find(host, "[^%d.]")) or find(host, ":", 1, true) ~= nil
end

-- Sends one; waits when `host` is a name that must be looked up. That it was sent does not say that it arrives.
---@param host string name, address or "unix:/path"
---@param port integer 0 for a path
---@param data string
---@return boolean|nil true
---@return string|nil err
function datagram.send(host, port, data)
  check.string("sluice.datagram.send", "host", host)
  check.number("sluice.datagram.send", "port", port)
  check.string("sluice.datagram.send", "data", data)
  local address = host
  if not is_address(host) then
    local records, err = dns.resolve(host)
    if not records then return nil, err end
    address = records[1].address
  end
  local status = C.bridge_datagram_send(worker, address, #address, port, data, #data)
  if status == OK then return true end
  if status == INVALID then return nil, "invalid address " .. host end
  return nil, core.reason(status)
end

return datagram
