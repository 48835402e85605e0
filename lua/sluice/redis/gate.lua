-- SPDX-License-Identifier: Apache-2.0
-- How many connections this worker has to one server: so many and no more. Whoever comes when all are in use waits in
-- turn for one that is given back, as long as his deadline allows; when too many wait already, he is told so.

local ffi = require "ffi"
local core = require "sluice.api.core"
local Pool = require "sluice.pool"
local time = require "sluice.time"

local C, worker = core.C, core.worker
local remove = table.remove

local OK = 0
local MAX_IDLE = 1024 -- to all servers

local pool = Pool.new(MAX_IDLE)

---@class sluice.redis.gate
local Gate = {}
Gate.__index = Gate

local gates = setmetatable({}, { __mode = "v" }) -- by key; connections hold theirs

---@param key string what connections must have in common to stand for each other
---@return sluice.redis.gate
function Gate.of(key)
  local gate = gates[key]
  if not gate then
    gate = setmetatable({ key = key, open = 0, waiters = {} }, Gate)
    gates[key] = gate
  end
  return gate
end

-- Lets the first go on who still waits.
local function wake(self)
  while self.waiters[1] do
    if C.bridge_wake(worker, remove(self.waiters, 1), OK, 0) == OK then return end
  end
end

local ticket_type = ffi.typeof("struct { bool open; }")

-- What counts a connection. One that its plugin forgot stops counting when it is collected.
local function ticket_of(self)
  self.open = self.open + 1
  return ffi.gc(ticket_type(true), function(ticket)
    if ticket.open then
      self.open = self.open - 1
      wake(self)
    end
  end)
end

-- A connection has been closed, or could not be opened.
function Gate:leave(ticket)
  if not ticket.open then return end
  ticket.open = false
  ffi.gc(ticket, nil)
  self.open = self.open - 1
  wake(self)
end

function Gate:put_back(client)
  pool:put(self.key, client, client.pool_size, client.pool_timeout)
  wake(self)
end

local function forget(list, me)
  for i = 1, #list do
    if list[i] == me then return remove(list, i) end
  end
end

-- A kept connection, or a ticket to open one; nil and why there is neither.
---@param most integer connections
---@param backlog integer how many may wait
---@param ends number monotonic time until which to wait
---@return sluice.redis.client|nil
---@return ffi.cdata*|nil ticket
---@return string|nil err
function Gate:enter(most, backlog, ends)
  while true do
    local client = pool:take(self.key)
    if client then return client end
    if self.open < most then return nil, ticket_of(self) end
    local left = ends - time.monotonic()
    if left <= 0 then return nil, nil, "timeout (all connections are in use)" end
    if #self.waiters >= backlog then return nil, nil, "too many wait for a connection" end
    local me = C.bridge_self(worker)
    self.waiters[#self.waiters + 1] = me
    core.wait(C.bridge_wait(worker, left))
    forget(self.waiters, me)
  end
end

return Gate
