-- SPDX-License-Identifier: Apache-2.0
-- exchange.client: who sent the request. Kong's kong.client with its names and meanings.
--
-- What authentication found is kept on the exchange itself (`consumer`, `credential`, `consumer_groups`), where the
-- runtime looks for plugins configured for a consumer or a group.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local entities = require "sluice.api.entities"
local exchanges = require "sluice.exchanges"
local phases = require "sluice.phases"
local tls = require "sluice.api.tls"
local uuid = require "sluice.uuid"

local E = core.E
local check_phase, must, text, number = core.check_phase, core.must, core.text, core.number
local of = exchanges.of
local rawget, rawset = rawget, rawset

local CONNECTION = phases.mask("certificate", "rewrite", "access", "balancer", "heads", "body_filter",
  "response", "log", "frames", "streams")
local LATER = phases.mask("access", "balancer", "heads", "body_filter", "response", "log", "frames")
local LOOK_UP = phases.mask("certificate", "access", "balancer", "heads", "body_filter", "response", "log", "frames")
local ROUTED = phases.mask("access", "balancer", "heads", "body_filter", "response", "log", "frames",
  "streams")
local ACCESS = phases.mask("access")

---@class sluice.client
---@field tls sluice.client.tls
local methods = {}

---@return string address that the connection came from
function methods:get_ip()
  check_phase(CONNECTION, self.handle, "exchange.client:get_ip")
  return (text(self.handle, E.TEXT_CLIENT_IP))
end

---@return string address of the client, through the proxies in `trusted_ips`
function methods:get_forwarded_ip()
  check_phase(CONNECTION, self.handle, "exchange.client:get_forwarded_ip")
  return (text(self.handle, E.TEXT_FORWARDED_IP))
end

---@return integer port that the connection came from
function methods:get_port()
  check_phase(CONNECTION, self.handle, "exchange.client:get_port")
  return (number(self.handle, E.NUMBER_CLIENT_PORT))
end

-- X-Forwarded-For names no port, so this is the connection's.
---@return integer
function methods:get_forwarded_port()
  check_phase(CONNECTION, self.handle, "exchange.client:get_forwarded_port")
  return (number(self.handle, E.NUMBER_CLIENT_PORT))
end

-- The connection that the request came over: its number in this worker, how many requests it has carried so far, and
-- the address that the client connected to (nil: a socket of the same machine).
---@return { number: integer, requests: integer, local_ip: string|nil, local_port: integer }
function methods:get_connection()
  check_phase(CONNECTION, self.handle, "exchange.client:get_connection")
  local handle = self.handle
  return {
    number = number(handle, E.NUMBER_CONNECTION), requests = number(handle, E.NUMBER_CONNECTION_REQUESTS),
    local_ip = text(handle, E.TEXT_LOCAL_IP), local_port = number(handle, E.NUMBER_PORT),
  }
end

---@return table|nil credential that the request was authenticated with
function methods:get_credential()
  check_phase(ROUTED, self.handle, "exchange.client:get_credential")
  return of(self.handle).credential or nil
end

---@return table|nil consumer that the request was authenticated as
function methods:get_consumer()
  check_phase(ROUTED, self.handle, "exchange.client:get_consumer")
  return of(self.handle).consumer or nil
end

---@param consumer_id string
---@param search_by_username? boolean look for a username when there is no such id
---@return table|nil consumer
---@return string|nil err
function methods:load_consumer(consumer_id, search_by_username)
  check_phase(LATER, self.handle, "exchange.client:load_consumer")
  check.string("exchange.client:load_consumer", "consumer_id", consumer_id)
  local consumer = entities.find(of(self.handle), "consumers", "id", consumer_id)
  if consumer then return consumer end
  if search_by_username then return (entities.find(of(self.handle), "consumers", "username", consumer_id)) end
  if not uuid.is_valid(consumer_id) then
    check.fail("exchange.client:load_consumer", "consumer_id must be a UUID when usernames are not searched")
  end
  return nil
end

-- The credential (or any entity) of a kind with that value, such as ("keyauth_credentials", "key", key).
---@param kind string
---@param field string
---@param value any
---@return table|nil
function methods:load_credential(kind, field, value)
  check_phase(LOOK_UP, self.handle, "exchange.client:load_credential")
  check.string("exchange.client:load_credential", "kind", kind)
  check.string("exchange.client:load_credential", "field", field)
  return (entities.find(of(self.handle), kind, field, value))
end

-- All credentials of a kind with that value, such as ("acls", "consumer", consumer.id), in the order of the file:
-- the same list for as long as they stay as they are. Not to be changed.
---@param kind string
---@param field string
---@param value any
---@return table[]
function methods:load_credentials(kind, field, value)
  check_phase(LATER, self.handle, "exchange.client:load_credentials")
  check.string("exchange.client:load_credentials", "kind", kind)
  check.string("exchange.client:load_credentials", "field", field)
  return (entities.all(of(self.handle), kind, field, value))
end

local function set_groups(exchange, groups)
  local known = rawget(exchange, "consumer_groups") ~= nil or rawget(exchange, "consumer_group_ids") ~= nil
  if groups == nil and not known then return end
  rawset(exchange, "consumer_groups", groups)
  rawset(exchange, "consumer_group_ids", nil) -- the exchange works them out when the runtime asks
end

---@param consumer table|nil nil clears
---@param credential table|nil nil clears
function methods:authenticate(consumer, credential)
  check_phase(ACCESS, self.handle, "exchange.client:authenticate")
  check.table_or_nil("exchange.client:authenticate", "consumer", consumer)
  check.table_or_nil("exchange.client:authenticate", "credential", credential)
  if consumer == nil and credential == nil then
    check.fail("exchange.client:authenticate", "either credential or consumer must be provided")
  end
  local exchange = of(self.handle)
  exchange.consumer, exchange.credential = consumer or false, credential or false
  set_groups(exchange, nil)
end

-- Takes away whatever the client sent that a service may take for an identity, in any spelling.
function methods:clear_identity()
  check_phase(ACCESS, self.handle, "exchange.client:clear_identity")
  must(core.clear_identity(self.handle), "exchange.client:clear_identity")
end

-- Plugins make consumers of their own too.
local function worded(value)
  return type(value) == "number" and tostring(value) or value
end

-- Tells the service, in Kong's fields, whom the request was authenticated as; what the client said itself goes.
---@param identifier? string of the credential, such as its id or user name; nil: an anonymous consumer
function methods:forward_identity(identifier)
  check_phase(ACCESS, self.handle, "exchange.client:forward_identity")
  check.string_or_nil("exchange.client:forward_identity", "identifier", identifier)
  local exchange = of(self.handle)
  local consumer, anonymous = exchange.consumer, not exchange.credential
  if consumer then
    must(core.set_identity(self.handle, worded(consumer.id), worded(consumer.custom_id), worded(consumer.username),
      identifier, anonymous), "exchange.client:forward_identity")
  else
    must(core.set_identity(self.handle, nil, nil, nil, identifier, anonymous), "exchange.client:forward_identity")
  end
end

local memberships = setmetatable({}, { __mode = "k" }) -- by generation: lists of groups by the consumer's id
local ids_of = setmetatable({}, { __mode = "k" })      -- by such a list

local function ids_in(list)
  local ids = {}
  for i = 1, #list do ids[i] = list[i].id end
  return ids
end

local function read_groups(exchange, consumer_id)
  local list = {}
  for _, member in ipairs(entities.all(exchange, "consumer_group_consumers", "consumer", consumer_id)) do
    local group = member.consumer_group
    list[#list + 1] = entities.find(exchange, "consumer_groups", "id", type(group) == "table" and group.id or group)
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- The same list each time.
local function groups_of(exchange, consumer_id)
  local generation = entities.generation(exchange)
  if not generation then return {} end
  local known = memberships[generation]
  if not known then
    known = {}
    memberships[generation] = known
  end
  local list = known[consumer_id]
  if not list then
    list = read_groups(exchange, consumer_id)
    if list[1] then -- whoever has none may be anybody
      known[consumer_id], ids_of[list] = list, ids_in(list)
    end
  end
  return list
end

local function groups(exchange)
  local list = rawget(exchange, "consumer_groups")
  if list == nil then
    local consumer = exchange.consumer
    if not consumer then return nil end
    list = groups_of(exchange, consumer.id)
    rawset(exchange, "consumer_groups", list)
  end
  return list[1] and list or nil
end

-- What the runtime looks for plugins of consumer groups by.
---@param exchange sluice.exchange
---@return string[]|false
local function group_ids(exchange)
  local list = groups(exchange)
  if not list then return false end
  return ids_of[list] or ids_in(list)
end

---@return table[]|nil groups of the request, by name; nil when there are none
function methods:get_consumer_groups()
  check_phase(ROUTED, self.handle, "exchange.client:get_consumer_groups")
  return groups(of(self.handle))
end

-- Kong's other groups: those that a consumer's `acls` name.
---@return string[]|nil nil: no consumer is known
function methods:get_acl_groups()
  check_phase(ROUTED, self.handle, "exchange.client:get_acl_groups")
  local exchange = of(self.handle)
  local consumer = exchange.consumer
  if not consumer then return nil end
  local names = {}
  for i, acl in ipairs(entities.all(exchange, "acls", "consumer", consumer.id)) do names[i] = acl.group end
  return names
end

---@return table|nil the first of the request's groups
function methods:get_consumer_group()
  check_phase(ROUTED, self.handle, "exchange.client:get_consumer_group")
  local list = groups(of(self.handle))
  return list and list[1]
end

---@param list table[] consumer groups that the request is to count among
function methods:set_authenticated_consumer_groups(list)
  check_phase(ACCESS, self.handle, "exchange.client:set_authenticated_consumer_groups")
  check.table("exchange.client:set_authenticated_consumer_groups", "groups", list)
  set_groups(of(self.handle), list)
end

---@param group table
function methods:set_authenticated_consumer_group(group)
  check_phase(ACCESS, self.handle, "exchange.client:set_authenticated_consumer_group")
  check.table("exchange.client:set_authenticated_consumer_group", "group", group)
  set_groups(of(self.handle), { group })
end

---@param consumer_id string whose groups the request is to count among
function methods:authenticate_consumer_group_by_consumer_id(consumer_id)
  check_phase(ACCESS, self.handle, "exchange.client:authenticate_consumer_group_by_consumer_id")
  check.string("exchange.client:authenticate_consumer_group_by_consumer_id", "consumer_id", consumer_id)
  set_groups(of(self.handle), groups_of(of(self.handle), consumer_id))
end

---@param allow_terminated? boolean believe X-Forwarded-Proto of a trusted address
---@return string|nil "http", "https", "grpc" and so on: the route's, or what the connection is when it has several
---@return string|nil err
function methods:get_protocol(allow_terminated)
  check_phase(ROUTED, self.handle, "exchange.client:get_protocol")
  local route = entities.route(of(self.handle))
  if not route then return nil, "no active route found" end
  local protocols = route.protocols
  if protocols and #protocols == 1 then return protocols[1] end
  return (text(self.handle, allow_terminated and E.TEXT_FORWARDED_SCHEME or E.TEXT_SCHEME))
end

return {
  part = core.part(function(self, key)
    if key == "tls" then return (tls(self.handle)) end
    return methods[key]
  end),
  group_ids = group_ids,
  groups = groups,
}
