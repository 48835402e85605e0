-- SPDX-License-Identifier: Apache-2.0
-- The machine and this gateway on it.

local ffi = require "ffi"
local core = require "sluice.api.core"

local node = {}

local hostname, id

local function read(path)
  local file = io.open(path)
  if not file then return nil end
  local line = file:read("*l")
  file:close()
  return line
end

---@return string
function node.get_hostname()
  hostname = hostname or read("/proc/sys/kernel/hostname") or "localhost"
  return hostname
end

-- Bytes to a UUID of version 8: ours to define (RFC 9562 5.8).
local function uuid_of(bytes)
  local hex = bytes:sub(1, 16):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  local variant = ("89ab"):sub(bytes:byte(9) % 4 + 1, bytes:byte(9) % 4 + 1)
  return hex:sub(1, 8) .. "-" .. hex:sub(9, 12) .. "-8" .. hex:sub(14, 16) .. "-" .. variant .. hex:sub(18, 20) .. "-"
    .. hex:sub(21, 32)
end

-- The same for all workers and over restarts: made of the host's name and the gateway's state folder.
---@return string UUID
function node.get_id()
  if not id then
    local generation = require("sluice.generation").current()
    local gateway = generation and generation.meta and generation.meta.gateway or {}
    local crypto = require "sluice.crypto"
    id = uuid_of(crypto.digest("sha256", node.get_hostname() .. "\0" .. tostring(gateway.state_dir)))
  end
  return id
end

---@return integer from 1; the same again for the worker that takes a dead one's place
function node.get_worker_id()
  return core.C.bridge_worker_id(core.worker)
end

---@return string such as "0.1.0"
function node.get_version()
  return ffi.string(core.C.bridge_version())
end

---@return integer process id of this worker
function node.get_pid()
  return tonumber(core.C.bridge_board(core.worker).pid)
end

local UNITS = { b = 1, k = 1024, m = 1024 * 1024, g = 1024 * 1024 * 1024 }

local function scaled(bytes, unit, scale)
  if unit == "b" then return bytes end
  return ("%." .. scale .. "f %siB"):format(bytes / UNITS[unit], unit:upper())
end

-- Memory of this worker's VM, in Kong's shape.
---@param unit? "b"|"k"|"m"|"g" b unless told
---@param scale? integer digits behind the point, 2 unless told
---@return table
function node.get_memory_stats(unit, scale)
  unit = (unit or "b"):lower()
  if not UNITS[unit] then error("sluice.node.get_memory_stats: unit must be b, k, m or g", 2) end
  local board = core.C.bridge_board(core.worker)
  return {
    workers_lua_vms = {
      { http_allocated_gc = scaled(collectgarbage("count") * 1024, unit, scale or 2), pid = tonumber(board.pid) },
    },
    lua_shared_dicts = {},
  }
end

return node
