-- SPDX-License-Identifier: Apache-2.0
-- Which server to speak to: the one that is named, the one that Sentinels name, or the one of a cluster that has the
-- key. What has been learned is kept per worker until it proves wrong.

local bit = require "bit"

local band, bxor, lshift, rshift = bit.band, bit.bxor, bit.lshift, bit.rshift
local byte, concat, find, sub, tonumber, type = string.byte, table.concat, string.find, string.sub, tonumber, type

local topology = {}

local SLOTS = 16384

-- ---- Slots ----

local crc_table = {}
for i = 0, 255 do
  local crc = lshift(i, 8)
  for _ = 1, 8 do
    crc = band(crc, 0x8000) ~= 0 and bxor(lshift(crc, 1), 0x1021) or lshift(crc, 1)
  end
  crc_table[i] = band(crc, 0xffff)
end

-- The slot of a key: CRC-16 of what stands in its first braces, else of all of it.
---@param key string
---@return integer 0 to 16383
function topology.slot_of(key)
  local open = find(key, "{", 1, true)
  local close = open and find(key, "}", open + 1, true)
  if close and close > open + 1 then key = sub(key, open + 1, close - 1) end
  local crc = 0
  for i = 1, #key do
    crc = band(bxor(lshift(crc, 8), crc_table[bxor(rshift(crc, 8), byte(key, i))]), 0xffff)
  end
  return crc % SLOTS
end

-- ---- What has been learned ----

local learned = {} -- by name: { host, port } of a master; nodes by slot of a cluster

local function name_of(nodes, more)
  local parts = { more }
  for i = 1, #nodes do parts[i + 1] = nodes[i].host .. ":" .. nodes[i].port end
  return concat(parts, " ")
end

local function known(name)
  local it = learned[name]
  if not it then
    it = {}
    learned[name] = it
  end
  return it
end

-- "slot host:port" of MOVED and ASK; an IPv6 address has no brackets there. An empty host is the one that was asked.
---@param err string
---@param asked { host: string }
---@return string|nil kind "MOVED" or "ASK"
---@return integer|nil slot
---@return { host: string, port: integer }|nil node
function topology.redirection(err, asked)
  local kind, slot, host, port = err:match("^(%u+) (%d+) (.*):(%d+)")
  if kind ~= "MOVED" and kind ~= "ASK" then return nil end
  return kind, tonumber(slot), { host = host ~= "" and host or asked.host, port = tonumber(port) }
end

function topology.learn(cluster, slot, node)
  known(name_of(cluster.nodes, "cluster"))[slot] = node
end

-- The reply of CLUSTER SLOTS: { first, last, { host, port, ... }, replicas... }, ...
local function learn_slots(map, reply, asked)
  for _, range in ipairs(type(reply) == "table" and reply or {}) do
    local first, last, master = range[1], range[2], range[3]
    if type(first) ~= "number" or type(last) ~= "number" or type(master) ~= "table" then return end
    local host = type(master[1]) == "string" and master[1] ~= "" and master[1] or asked.host
    local node = { host = host, port = tonumber(master[2]) }
    for slot = math.max(first, 0), math.min(last, SLOTS - 1) do map[slot] = node end
  end
end

-- The node of a cluster that has the key. `ask(node, ...)` gives a node's reply to a command.
---@return { host: string, port: integer }|nil
---@return string|nil err
function topology.node_of(cluster, key, ask)
  local map = known(name_of(cluster.nodes, "cluster"))
  local slot = topology.slot_of(key)
  if map[slot] then return map[slot] end
  local why
  for _, node in ipairs(cluster.nodes) do
    local reply, err = ask(node, "CLUSTER", "SLOTS")
    if reply then
      learn_slots(map, reply, node)
      return map[slot] or node
    end
    why = err
  end
  return nil, why or "the cluster has no nodes"
end

-- ---- Sentinel ----

local function master_at(node, sentinel, ask)
  local reply, err = ask(node, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.master)
  if not reply then return nil, err end
  if type(reply) ~= "table" then return nil, "the sentinels know no master " .. sentinel.master end
  return { host = reply[1], port = tonumber(reply[2]) }
end

local function is_up(flags)
  return not (flags:find("s_down", 1, true) or flags:find("o_down", 1, true) or flags:find("disconnected", 1, true))
end

-- The first replica that is up. A reply is a list of names and values in turn.
local function replica_at(node, sentinel, ask)
  local reply, err = ask(node, "SENTINEL", "REPLICAS", sentinel.master)
  if not reply then return nil, err end
  for _, fields in ipairs(type(reply) == "table" and reply or {}) do
    local one = {}
    for i = 1, #fields, 2 do one[fields[i]] = fields[i + 1] end
    if is_up(one.flags or "") then return { host = one.ip, port = tonumber(one.port) } end
  end
  return nil, "the sentinels know no replica of " .. sentinel.master .. " that is up"
end

local function ask_one(node, sentinel, ask)
  if sentinel.role == "slave" then return replica_at(node, sentinel, ask) end
  local found, err = master_at(node, sentinel, ask)
  if found or sentinel.role ~= "any" then return found, err end
  return replica_at(node, sentinel, ask)
end

-- The server that Sentinels name; they are asked in turn until one knows.
---@return { host: string, port: integer }|nil
---@return string|nil err
function topology.server_of(sentinel, ask)
  local name = name_of(sentinel.nodes, concat({ "sentinel", sentinel.master, sentinel.role or "master" }, " "))
  local it = known(name)
  if it.host then return it end
  local why
  for _, node in ipairs(sentinel.nodes) do
    local found, err = ask_one(node, sentinel, ask)
    if found then
      it.host, it.port = found.host, found.port
      return it
    end
    why = err
  end
  return nil, why or "there are no sentinels"
end

-- What was learned has proved wrong.
function topology.forget(options)
  local sentinel, cluster = options.sentinel, options.cluster
  if sentinel then
    learned[name_of(sentinel.nodes, concat({ "sentinel", sentinel.master, sentinel.role or "master" }, " "))] = nil
  end
  if cluster then learned[name_of(cluster.nodes, "cluster")] = nil end
end

return topology
