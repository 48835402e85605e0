-- SPDX-License-Identifier: Apache-2.0
-- Names to addresses, by the gateway's own resolver and cache.

local ffi = require "ffi"
local core = require "sluice.api.core"
local check = require "sluice.api.check"

local C, worker = core.C, core.worker

---@class sluice.dns
local dns = {}

local OK = 0
local KINDS = { address = 0, a = 1, aaaa = 2, srv = 3 } -- enum dns_kind

---@class sluice.dns.record
---@field address string
---@field port integer of SRV; else 0
---@field priority integer of SRV; else 0
---@field weight integer of SRV; else 0

local function read_records()
  local record, ttl = ffi.new("struct dns_record[1]"), ffi.new("double[1]")
  local list = {}
  while C.bridge_dns_at(worker, #list, record, ttl) == OK do
    local r = record[0]
    list[#list + 1] = { address = ffi.string(r.address), port = r.port, priority = r.priority, weight = r.weight }
  end
  return list, ttl[0]
end

-- Waits for the answer.
---@param name string
---@param kind? "address"|"a"|"aaaa"|"srv" address (A, and AAAA where there is no A) unless told
---@return sluice.dns.record[]|nil
---@return number|string ttl seconds that the answer holds; or the error, which has the name in it
function dns.resolve(name, kind)
  check.string("sluice.dns.resolve", "name", name)
  local number = KINDS[kind or "address"]
  if not number then
    check.fail("sluice.dns.resolve", "kind must be address, a, aaaa or srv, got " .. tostring(kind))
  end
  local status = core.wait(C.bridge_dns_resolve(worker, name, #name, number))
  if status ~= OK then return nil, core.reason(status) end
  return read_records()
end

return dns
