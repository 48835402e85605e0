-- SPDX-License-Identifier: Apache-2.0
-- Redis client for plugins: commands as methods, pipelines, scripts by their digest, kept connections; one server, one
-- that Sentinels name, or a cluster.
--
--   local client, err = redis.connect { host = "127.0.0.1", password = "...", database = 1 }
--   local value = client:get("key")          -- redis.null when there is none
--   client:release()                         -- for the next; or client:close()
--
--   local reply, err = redis.eval(options, script, { "key" }, { 1 })   -- finds the server, follows a cluster's moves
--
-- A worker has so many connections to a server and no more (`max_connections`); who comes when all are in use waits for
-- one, and when too many wait (`backlog`) nobody joins them. With `deadline`, all of connecting, waiting and answering
-- takes no longer than that, however slowly the server drips.

local Client = require "sluice.redis.client"
local Gate = require "sluice.redis.gate"
local Socket = require "sluice.socket"
local EXIT = require("sluice.phases").EXIT
local resp = require "sluice.redis.resp"
local time = require "sluice.time"
local topology = require "sluice.redis.topology"

local concat, min, type, tostring = table.concat, math.min, type, tostring

---@class sluice.redis
local redis = { null = resp.null, script = Client.script }

local MAX_CONNECTIONS, BACKLOG = 256, 1000
local MAX_REDIRECTIONS = 5

---@class sluice.redis.options
---@field host? string 127.0.0.1 unless told; or "unix:/path"
---@field port? integer 6379 unless told
---@field username? string
---@field password? string
---@field database? integer 0 unless told
---@field protocol? 2|3 2 unless told
---@field timeout? number seconds for each send and receive, 2 unless told
---@field connect_timeout? number seconds, as `timeout` unless told
---@field deadline? number seconds for all of it, from `connect` to the last reply; none unless told
---@field tls? boolean|sluice.socket.tls
---@field pool_size? integer idle connections to one server, 32 unless told
---@field pool_timeout? number seconds idle, 60 unless told
---@field max_connections? integer to one server, in this worker, 256 unless told
---@field backlog? integer how many may wait for one, 1000 unless told
---@field sentinel? sluice.redis.sentinel names the server instead of host and port
---@field cluster? { nodes: { host: string, port: integer }[], max_redirections?: integer }

---@class sluice.redis.sentinel
---@field master string name that the sentinels know it by
---@field nodes { host: string, port: integer }[]
---@field role? "master"|"slave"|"any" master unless told
---@field username? string of the sentinels themselves
---@field password? string

local function tls_key(tls)
  if not tls then return "plain" end
  if tls == true then return "tls" end
  return concat({ "tls", tls.name or "", tostring(tls.verify ~= false), tls.ca or "", tls.certificate or "" }, "\0")
end

-- Connections that differ in anything that was said at their start are not exchanged.
local function key_of(options, host, port)
  return concat({ host, port, options.username or "", options.password or "", options.database or 0,
    options.protocol or 2, tls_key(options.tls) }, "\0")
end

local function greet(client, options)
  local user, password = options.username, options.password
  if options.protocol == 3 then
    local hello = { "HELLO", 3 }
    if password then hello = { "HELLO", 3, "AUTH", user or "default", password } end
    local _, err = client:call(unpack(hello))
    if err then return err end
  elseif password then
    local _, err
    if user then _, err = client:call("AUTH", user, password) else _, err = client:call("AUTH", password) end
    if err then return err end
  end
  if options.database and options.database ~= 0 then
    local _, err = client:call("SELECT", options.database)
    return err
  end
end

local function open_socket(options, host, port, timeout, ends)
  local left = options.connect_timeout or timeout
  if ends then left = min(left, ends - time.monotonic()) end
  if left <= 0 then return nil, "timeout" end
  return Socket.connect(host, port, { connect_timeout = left, timeout = timeout, tls = options.tls })
end

local function open_client(gate, ticket, options, host, port, timeout, ends)
  local socket, err = open_socket(options, host, port, timeout, ends)
  if not socket then
    gate:leave(ticket)
    return nil, ("cannot connect to redis at %s:%d: %s"):format(host, port, err)
  end
  local client = Client.new {
    socket = socket, gate = gate, ticket = ticket,
    pool_size = options.pool_size or 32, pool_timeout = options.pool_timeout or 60,
  }
  socket:set_deadline(ends)
  err = greet(client, options)
  if not err then return client end
  client:close()
  return nil, err
end

local function connect_to(options, host, port, ends)
  local timeout = options.timeout or 2
  local gate = Gate.of(key_of(options, host, port))
  local client, ticket, err = gate:enter(options.max_connections or MAX_CONNECTIONS, options.backlog or BACKLOG,
    ends or time.monotonic() + timeout)
  if client then
    client.socket:set_timeout(timeout)
    client.socket:set_deadline(ends)
    return client
  end
  if not ticket then return nil, ("cannot connect to redis at %s:%d: %s"):format(host, port, err) end
  return open_client(gate, ticket, options, host, port, timeout, ends)
end

-- A function that gives a node's reply to a command, for the topology.
local function asking(options, credentials, ends)
  local how = { username = credentials.username, password = credentials.password, timeout = options.timeout,
    connect_timeout = options.connect_timeout, tls = options.tls }
  return function(node, ...)
    local client, err = connect_to(how, node.host, node.port, ends)
    if not client then return nil, err end
    local reply
    reply, err = client:call(...)
    client:release()
    return reply, err
  end
end

local function find_server(options, key, ends)
  if options.sentinel then
    return topology.server_of(options.sentinel, asking(options, options.sentinel, ends))
  end
  if options.cluster then
    return topology.node_of(options.cluster, key or "", asking(options, options, ends))
  end
  return { host = options.host or "127.0.0.1", port = options.port or 6379 }
end

local function deadline_of(options)
  return options.deadline and time.monotonic() + options.deadline
end

-- A connection, fresh or kept.
---@param options sluice.redis.options
---@param key? string in a cluster: of the node that has it
---@return sluice.redis.client|nil
---@return string|nil err
function redis.connect(options, key)
  if type(options) ~= "table" then error("sluice.redis.connect: expected a table of options", 2) end
  local ends = deadline_of(options)
  local node, err = find_server(options, key, ends)
  if not node then return nil, err end
  local client
  client, err = connect_to(options, node.host, node.port, ends)
  if not client then topology.forget(options) end
  return client, err
end

-- After an error nobody knows what is still to be read; answering the client is no error.
local function give_back(client, ok, ...)
  if ok or (...) == EXIT then client:release() else client:close() end
  if not ok then error((...), 0) end
  return ...
end

-- Connects, calls `fn(client, ...)`, and gives the connection back whatever happens.
---@param options sluice.redis.options
---@param fn function
---@return any what `fn` returned; nil when there was no connection
---@return string|nil err
function redis.use(options, fn, ...)
  local client, err = redis.connect(options)
  if not client then return nil, err end
  return give_back(client, pcall(fn, client, ...))
end

-- ---- Finding the right server ----

-- Whether the server is no longer the one to ask: it was demoted, or is going.
local function is_other_master(err)
  return err:find("^READONLY") or err:find("^MASTERDOWN") or err:find("^LOADING")
end

local function eval_at(options, node, ends, asks, script, keys, args)
  local client, err = connect_to(options, node.host, node.port, ends)
  if not client then return nil, err, true end
  local reply
  if asks then client:call("ASKING") end
  reply, err = client:eval(script, keys, args)
  local broken = client.broken
  client:release()
  return reply, err, broken
end

-- Runs a script where its keys are (all in one slot, for a cluster): connects, follows MOVED and ASK of a cluster, and
-- once asks Sentinels anew when the master has changed.
---@param options sluice.redis.options
---@param script string|{ source: string, digest: string }
---@param keys string[]
---@param args? (string|number)[]
---@return any
---@return string|nil err
---@return boolean|nil away the server did not answer, or not in time
function redis.eval(options, script, keys, args)
  local ends = deadline_of(options)
  local node, err = find_server(options, keys[1], ends)
  if not node then return nil, err, true end
  local asks, away, reply = false
  for _ = 0, options.cluster and options.cluster.max_redirections or MAX_REDIRECTIONS do
    reply, err, away = eval_at(options, node, ends, asks, script, keys, args)
    if not err then return reply end
    local kind, slot, other = topology.redirection(err, node)
    if kind then
      if kind == "MOVED" and options.cluster then topology.learn(options.cluster, slot, other) end
      node, asks = other, kind == "ASK"
    else
      if away or is_other_master(err) then topology.forget(options) end
      if not options.sentinel or away or not is_other_master(err) then break end
      node = find_server(options, keys[1], ends)
      if not node then break end
      asks = false
    end
  end
  return nil, err, away
end

return redis
