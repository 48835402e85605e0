-- SPDX-License-Identifier: Apache-2.0
-- A client of Confluent's Schema Registry, and of those that speak as it does (Karapace, Apicurio, Redpanda).
--
--   local registry = schema_registry.open(conf.schema_registry.confluent)       -- in `configure`: asks for nothing
--   local schema, err, code = registry:by_id(7)
--   local schema, err, code = registry:by_subject("orders-value", "latest")     -- schema.id, .type, .text
--
-- Schemas are kept as long as they may be: one by its id for good, `latest` for `ttl` seconds and then looked at again
-- behind the scenes. While the registry is away, what was known stays in use. Equal configurations share a client.

local check = require "sluice.api.check"
local crypto = require "sluice.crypto"
local http = require "sluice.http"
local json = require "sluice.json"
local known = require "sluice.schema_registry.known"
local metrics = require "sluice.metrics"
local query = require "sluice.query"
local token = require "sluice.schema_registry.token"

local find, format, ipairs, setmetatable = string.find, string.format, ipairs, setmetatable
local tonumber, tostring, type = tonumber, tostring, type

---@class sluice.schema_registry
local schema_registry = {}

local MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
local ACCEPT = MEDIA_TYPE .. ", application/json"
local TTL_S, TIMEOUT_MS = 60, 5000   -- of a configuration that does not say
local REFUSED_S = 10                 -- how long "there is none" is believed
local FOREVER_S = 1e9
local MOST_KEPT, MOST_BYTES = 2000, 2 * 1024 * 1024
local MOST_REFERENCES, REFERENCE_DEPTH = 200, 20
local MAX_ID = 2147483647

local requests = metrics.counter("sluice_schema_registry_requests_total",
  "Questions to schema registries, by what became of them", { "result" })

schema_registry.fields = require "sluice.schema_registry.fields"

---@class sluice.schema_registry.reference
---@field name string what the schema calls it: a type (Avro), a path (Protobuf), a URI (JSON Schema)
---@field subject string
---@field version integer
---@field text? string

---@class sluice.schema_registry.schema not to be changed: shared by all who ask
---@field id integer
---@field type "AVRO"|"JSON"|"PROTOBUF"
---@field text string
---@field references sluice.schema_registry.reference[] with their texts, each behind those that it needs itself
---@field direct sluice.schema_registry.reference[] those that it names itself, without texts

---@class sluice.schema_registry.registry
local Registry = {}
local registry_mt = { __index = Registry, __metatable = false }

-- ---- Asking ----

local function authorization_of(self)
  local login = self.authentication
  local mode = login and login.mode or "none"
  if mode == "basic" and login.basic then
    return "Basic " .. crypto.base64_encode(login.basic.username .. ":" .. login.basic.password)
  elseif mode == "oauth2" and login.oauth2 then
    local value, err = token.get(login.oauth2, login.oauth2_client)
    return value, err
  end
end

local function send(self, method, path, body)
  local authorization, err = authorization_of(self)
  if err then return nil, "no token for it: " .. err end
  local response
  response, err = http.request { url = self.url .. path, method = method, body = body, timeout = self.timeout,
    headers = { Accept = ACCEPT, Authorization = authorization, ["Content-Type"] = body and MEDIA_TYPE or nil },
    max_body = MOST_BYTES, tls = { verify = self.verify } }
  return response, err
end

local function reason_of(response)
  local answer = json.decode(response.body)
  local text = type(answer) == "table" and type(answer.message) == "string" and answer.message or "no reason given"
  return #text > 300 and text:sub(1, 300) .. "..." or text, type(answer) == "table" and tonumber(answer.error_code)
end

local function failure_of(response)
  local status = response.status
  local reason = reason_of(response)
  if status == 404 then return nil, reason, "not_found" end
  if status == 409 or status == 422 or status == 400 then return nil, reason, "refused" end
  if status == 401 or status == 403 then
    return nil, "the schema registry refuses this gateway's login: " .. reason, "unauthorized"
  end
  return nil, format("the schema registry answered %d: %s", status, reason), "unavailable"
end

local function answer_of(self, method, path, body)
  local response, err = send(self, method, path, body)
  if response and response.status == 401 and self.authentication and self.authentication.oauth2 then
    token.forget(self.authentication.oauth2) -- withdrawn before its end, perhaps
    response, err = send(self, method, path, body)
  end
  if not response then return nil, "the schema registry cannot be asked: " .. err, "unavailable" end
  if response.status ~= 200 then return failure_of(response) end
  local answer, wrong = json.decode(response.body)
  if wrong then return nil, "the schema registry's answer is no JSON: " .. wrong, "unavailable" end
  return answer
end

-- The answer as JSON; nil, what went wrong and its code.
local function ask(self, method, path, body)
  local answer, err, code = answer_of(self, method, path, body)
  requests:increment(answer ~= nil and "ok" or code)
  return answer, err, code
end

-- ---- Schemas and what they refer to ----

local TYPES = { AVRO = true, JSON = true, PROTOBUF = true }

local function references_of(list)
  local references = {}
  for i, one in ipairs(type(list) == "table" and list or {}) do
    if type(one) ~= "table" or type(one.name) ~= "string" or type(one.subject) ~= "string"
      or type(one.version) ~= "number" then return nil end
    references[i] = { name = one.name, subject = one.subject, version = one.version }
  end
  return references
end

-- What an answer says of a schema; nil when it is none.
local function parsed(answer)
  local references = type(answer) == "table" and references_of(answer.references)
  if not references or type(answer.schema) ~= "string" then return nil end
  local kind = type(answer.schemaType) == "string" and answer.schemaType or "AVRO"
  return { id = tonumber(answer.id), version = tonumber(answer.version), type = kind, text = answer.schema,
    direct = references }
end

local function subject_path(subject, version)
  return format("/subjects/%s/versions/%s", query.escape(subject), tostring(version))
end

-- Adds what a schema refers to, behind what that refers to itself.
local function collect(self, direct, all, depth)
  if depth > REFERENCE_DEPTH then return nil, "references of a schema nest too deeply", "schema" end
  for _, reference in ipairs(direct) do
    local mark = reference.name .. "\0" .. reference.subject .. "\0" .. reference.version
    if not all.seen[mark] then
      all.seen[mark] = true
      local answer, err, code = ask(self, "GET", subject_path(reference.subject, reference.version))
      if answer == nil then return nil, format("reference %s: %s", reference.name, err), code end
      local one = parsed(answer)
      if not one then return nil, "reference " .. reference.name .. ": the answer is no schema", "schema" end
      local ok, why, kind = collect(self, one.direct, all, depth + 1)
      if not ok then return nil, why, kind end
      if #all.list >= MOST_REFERENCES then return nil, "a schema with too many references", "schema" end
      all.list[#all.list + 1] = { name = reference.name, subject = reference.subject, version = reference.version,
        text = one.text }
    end
  end
  return all.list
end

-- The schema of an answer, whole: one table for each id, so that whoever compiles schemas can do so once.
local function whole(self, answer, id)
  local it = parsed(answer)
  if not it then return nil, "the schema registry's answer is no schema", "unavailable" end
  id = id or it.id
  if not id then return nil, "the schema registry's answer holds no id", "unavailable" end
  if not TYPES[it.type] then return nil, "a schema of type " .. it.type .. " is not understood", "schema" end
  local before = self.ids:peek(tostring(id))
  if before then return before, it.version end
  local references, err, code = collect(self, it.direct, { seen = {}, list = {} }, 1)
  if not references then return nil, err, code end
  local schema = { id = id, type = it.type, text = it.text, references = references, direct = it.direct }
  self.ids:put(tostring(id), schema, FOREVER_S)
  return schema, it.version
end

local function fetch_id(self, id)
  local answer, err, code = ask(self, "GET", "/schemas/ids/" .. id)
  if answer == nil then return nil, err, code end
  local schema, why, kind = whole(self, answer, tonumber(id))
  if not schema then return nil, why, kind end
  return schema, nil, nil, FOREVER_S
end

-- Keys of subjects: the version, a slash, the subject.
local function fetch_subject(self, key)
  local version, subject = key:match("^([^/]*)/(.*)$")
  local answer, err, code = ask(self, "GET", subject_path(subject, version))
  if answer == nil then return nil, err, code end
  local schema, number, kind = whole(self, answer)
  if not schema then return nil, number, kind end
  return { schema = schema, version = number or tonumber(version) }, nil, nil,
    version ~= "latest" and FOREVER_S or nil
end

-- ---- What users call ----

-- The schema that the registry calls by this number. May wait.
---@param id integer
---@return sluice.schema_registry.schema|nil
---@return string|nil err
---@return string|nil code "not_found", "unauthorized", "unavailable"; "schema": it is not understood
function Registry:by_id(id)
  check.integer("registry:by_id", "id", id, 0, MAX_ID)
  local schema, err, code = self.ids:get(format("%d", id))
  return schema, err, code
end

-- A version of a subject. May wait.
---@param subject string
---@param version? "latest"|integer latest unless told
---@return sluice.schema_registry.schema|nil
---@return integer|string version, or the error
---@return string|nil code as of by_id
function Registry:by_subject(subject, version)
  check.string("registry:by_subject", "subject", subject)
  version = tostring(version or "latest")
  if version ~= "latest" and not find(version, "^%d+$") then
    check.fail("registry:by_subject", "version must be latest or a number, got " .. version)
  end
  local found, err, code = self.subjects:get(version .. "/" .. subject)
  if not found then return nil, err, code end
  return found.schema, found.version
end

local function described(given)
  local references
  for i, one in ipairs(given.references or {}) do
    references = references or json.array {}
    references[i] = { name = one.name, subject = one.subject, version = one.version }
  end
  return json.encode { schema = given.text, schemaType = given.type ~= "AVRO" and given.type or nil,
    references = references }
end

local function fetch_id_of(self, key)
  local request = self.requests[key]
  self.requests[key] = nil
  local answer, err, code = ask(self, "POST", request.path, request.body)
  if answer == nil then return nil, err, code end
  local id = type(answer) == "table" and tonumber(answer.id)
  if not id then return nil, "the schema registry's answer holds no id", "unavailable" end
  return { id = id, version = tonumber(answer.version) }, nil, nil, FOREVER_S
end

local function post(self, path, given)
  check.table("registry", "schema", given)
  check.string("registry", "schema.text", given.text)
  local body = described(given)
  local key = path .. "\0" .. crypto.digest("sha256", body)
  self.requests[key] = self.requests[key] or { path = path, body = body }
  local found, err, code = self.posts:get(key)
  self.requests[key] = nil
  if not found then return nil, err, code end
  return found.id, found.version
end

-- Adds a schema to a subject, or finds it there. May wait.
---@param subject string
---@param given { text: string, type?: "AVRO"|"JSON"|"PROTOBUF", references?: table[] }
---@return integer|nil id
---@return string|nil err
---@return string|nil code "refused": it is no schema, or not compatible; or as of by_id
function Registry:register(subject, given)
  check.string("registry:register", "subject", subject)
  local id, err, code = post(self, "/subjects/" .. query.escape(subject) .. "/versions", given)
  return id, err, code
end

-- The id and version of a schema that a subject has. May wait.
---@param subject string
---@param given { text: string, type?: "AVRO"|"JSON"|"PROTOBUF", references?: table[] }
---@return integer|nil id
---@return integer|string|nil version, or the error
---@return string|nil code as of by_id
function Registry:lookup(subject, given)
  check.string("registry:lookup", "subject", subject)
  local id, version, code = post(self, "/subjects/" .. query.escape(subject), given)
  return id, version, code
end

-- ---- Opening ----

local opened = setmetatable({}, { __mode = "v" }) -- by configuration

local function store_of(self, name, fetch, ttl)
  return known.new { name = name, ttl = ttl, refused_ttl = REFUSED_S, timeout = self.timeout * 3, most = MOST_KEPT,
    fetch = function(key) return fetch(self, key) end }
end

-- Members in an order of their own: equal configurations give equal texts.
local function canonical(value)
  if type(value) ~= "table" then return type(value) .. tostring(value) end
  local names, parts = {}, {}
  for name in pairs(value) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for i, name in ipairs(names) do
    local member = value[name]
    if member == nil then member = value[tonumber(name)] end
    local text = canonical(member)
    parts[i] = #name .. ":" .. name .. "=" .. #text .. ":" .. text
  end
  return "{" .. table.concat(parts) .. "}"
end

-- A client. Nothing is asked yet.
---@param conf { url: string, ttl?: number, timeout?: integer, ssl_verify?: boolean, authentication?: table } Kong's
---  record `confluent`
---@return sluice.schema_registry.registry
function schema_registry.open(conf)
  check.table("sluice.schema_registry.open", "conf", conf)
  check.string("sluice.schema_registry.open", "conf.url", conf.url)
  local name = canonical { url = conf.url, ttl = conf.ttl, timeout = conf.timeout, verify = conf.ssl_verify ~= false,
    authentication = conf.authentication }
  local self = opened[name]
  if self then return self end
  self = setmetatable({ url = conf.url:gsub("/+$", ""), timeout = (conf.timeout or TIMEOUT_MS) / 1000,
    verify = conf.ssl_verify ~= false, authentication = conf.authentication, requests = {} }, registry_mt)
  self.ids = store_of(self, "schema registry", fetch_id, FOREVER_S)
  self.subjects = store_of(self, "schema registry", fetch_subject, conf.ttl or TTL_S)
  self.posts = store_of(self, "schema registry", fetch_id_of, FOREVER_S)
  opened[name] = self
  return self
end

return schema_registry
