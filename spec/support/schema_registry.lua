-- SPDX-License-Identifier: Apache-2.0
-- A schema registry for specs, which speaks Confluent's REST API: subjects, versions, ids, references, its error codes.
-- It is a function of a request, so that it serves in the spec kit and behind a real socket alike:
--
--   local registry = schema_registry.new { basic = "user:password" }
--   local id = registry:add("orders-value", { text = "...", type = "AVRO" })
--   spec.gateway { upstreams = { ["registry.test"] = registry.answer }, dns = { ["registry.test"] = "10.0.0.8" } }
local json = require "sluice.json"
local query = require "sluice.query"

local schema_registry = {}

local Registry = {}
Registry.__index = Registry

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

-- Own code, for a process that has no core.
local function base64(text)
  return (text:gsub("..?.?", function(group)
    local a, b, c = group:byte(1, 3)
    local bits, out = a * 65536 + (b or 0) * 256 + (c or 0), ""
    for i = 3, 0, -1 do
      local place = math.floor(bits / 64 ^ i) % 64
      out = out .. (3 - i > #group and "=" or ALPHABET:sub(place + 1, place + 1))
    end
    return out
  end))
end

local MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"

local function failure(code, message)
  return math.floor(code / 100), { error_code = code, message = message }
end

-- What a schema names itself: more of it (such as what those name in turn) makes another schema.
local function references_of(list)
  local texts = {}
  for i, one in ipairs(list) do texts[i] = ("%s %s %d"):format(one.name, one.subject, one.version) end
  return table.concat(texts, "\n")
end

local function same(a, b)
  return a.text == b.text and a.type == b.type and references_of(a.references) == references_of(b.references)
end

local function id_of(self, schema)
  for id, other in ipairs(self.ids) do
    if same(schema, other) then return id end
  end
  self.ids[#self.ids + 1] = schema
  return #self.ids
end

-- Adds a version of a subject: its id, and the version.
function Registry:add(subject, given)
  local schema = { text = given.text, type = given.type or "AVRO", references = given.references or {} }
  local id = id_of(self, schema)
  local versions = self.subjects[subject] or {}
  self.subjects[subject] = versions
  for version, other in ipairs(versions) do
    if other == id then return id, version end
  end
  versions[#versions + 1] = id
  return id, #versions
end

local function shown(schema, more)
  more = more or {}
  more.schema = schema.text
  if schema.type ~= "AVRO" then more.schemaType = schema.type end
  if #schema.references > 0 then more.references = schema.references end
  return more
end

local function given_in(body)
  local given = json.decode(body)
  if type(given) ~= "table" or type(given.schema) ~= "string" then return nil end
  return { text = given.schema, type = given.schemaType or "AVRO", references = given.references or {} }
end

local function by_id(self, id)
  local schema = self.ids[tonumber(id)]
  if not schema then return failure(40403, "Schema " .. id .. " not found") end
  return 200, shown(schema)
end

local function by_version(self, subject, version)
  local versions = self.subjects[subject]
  if not versions then return failure(40401, "Subject '" .. subject .. "' not found.") end
  local number = version == "latest" and #versions or tonumber(version)
  local id = versions[number]
  if not id then return failure(40402, "Version " .. version .. " not found.") end
  return 200, shown(self.ids[id], { subject = subject, version = number, id = id })
end

local function register(self, subject, body)
  local given = given_in(body)
  if not given then return failure(42201, "Either the input schema or one its references is invalid") end
  if self.incompatible[subject] then
    return 409, { error_code = 409, message = "Schema being registered is incompatible with an earlier schema" }
  end
  return 200, { id = (self:add(subject, given)) }
end

local function lookup(self, subject, body)
  local versions, given = self.subjects[subject], given_in(body)
  if not versions then return failure(40401, "Subject '" .. subject .. "' not found.") end
  for version, id in ipairs(versions) do
    if given and same(given, self.ids[id]) then
      return 200, shown(self.ids[id], { subject = subject, version = version, id = id })
    end
  end
  return failure(40403, "Schema not found")
end

local function route(self, method, path, body)
  local id = path:match("^/schemas/ids/(%d+)$")
  if id and method == "GET" then return by_id(self, id) end
  local subject, version = path:match("^/subjects/([^/]+)/versions/([^/]+)$")
  if subject and method == "GET" then return by_version(self, query.unescape(subject), version) end
  subject = path:match("^/subjects/([^/]+)/versions$")
  if subject and method == "POST" then return register(self, query.unescape(subject), body) end
  subject = path:match("^/subjects/([^/]+)$")
  if subject and method == "POST" then return lookup(self, query.unescape(subject), body) end
  return 404, { error_code = 404, message = "HTTP 404 Not Found" }
end

local function is_allowed(self, headers)
  local field = headers.authorization or headers.Authorization
  if self.basic then return field == "Basic " .. base64(self.basic) end
  return not self.bearer or field == "Bearer " .. self.bearer
end

-- Answers { method =, path =, headers = by lower-case name, body = }, in the form of sluice.spec.
function Registry:handle(request)
  self.asked[#self.asked + 1] = request.method .. " " .. request.path
  if self.away then return self.away end
  local status, answer = 401, { error_code = 401, message = "Unauthorized" }
  if is_allowed(self, request.headers) then
    status, answer = route(self, request.method, request.path, request.body)
  end
  return { status = status, body = json.encode(answer), headers = { ["Content-Type"] = MEDIA_TYPE } }
end

-- `asked`: what it was asked for, in order. `away`: an answer that it gives to everything. `incompatible`: subjects
-- that take no more versions.
---@param options? { basic: string, bearer: string } logins that it asks for
function schema_registry.new(options)
  options = options or {}
  local self = setmetatable({ ids = {}, subjects = {}, asked = {}, incompatible = {}, basic = options.basic,
    bearer = options.bearer }, Registry)
  self.answer = function(request) return self:handle(request) end
  return self
end

return schema_registry
