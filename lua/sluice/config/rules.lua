-- SPDX-License-Identifier: Apache-2.0
-- Kong's rules that concern more than one field or entity: what a route must match by, which protocols go with what,
-- and plugins against the schemas of their code.
local cjson = require "cjson"
local entities = require "sluice.config.entities"
local errors = require "sluice.config.errors"
local folder = require "sluice.config.folder"
local ordering = require "sluice.config.ordering"
local password = require "sluice.config.password"
local phases = require "sluice.phases"
local schema = require "sluice.schema"
local snapshot = require "sluice.snapshot"
local source = require "sluice.config.source"
local suggest = require "sluice.config.suggest"
local words = require "sluice.schema.words"

local null = cjson.null
local rules = {}

local function note(loader, entry, keys, expected, found)
  errors.add(loader.errors, { entry = entry, keys = keys, expected = expected, found = found })
end

-- ---- Routes ---------------------------------------------------------------------------------------------------------

local function has_any(list, names)
  for _, item in ipairs(list or {}) do
    if names[item] then return true end
  end
  return false
end

local SECURE = { https = true, grpcs = true, wss = true, tls = true, tls_passthrough = true }
local GRPC = { grpc = true, grpcs = true }
local STREAM = { tcp = true, tls = true, tls_passthrough = true }
local OF_HTTP, OF_STREAMS = { "methods", "hosts", "paths", "headers" }, { "sources", "destinations" }

-- A stream goes on as a stream, and what is passed through is TLS already.
local function check_stream_service(loader, entry, protocols)
  local route = entry.record
  local service = route.service and loader.index.services.by_id[route.service]
  local protocol = service and service.record and service.record.protocol
  if not protocol then return end
  local streams = has_any(route.protocols, STREAM)
  if streams ~= (STREAM[protocol] == true) then
    note(loader, entry, { "service" }, ("a service with protocol %s (for protocols %s)"):format(
      streams and "tcp or tls" or "http, https, grpc or grpcs", protocols), "one with protocol " .. protocol)
  elseif protocol == "tls" and has_any(route.protocols, { tls_passthrough = true }) then
    note(loader, entry, { "service" }, "a service with protocol tcp (for protocols tls_passthrough)",
      "one with protocol tls")
  end
end

local function check_route(loader, entry)
  local route = entry.record
  if not route.protocols then return end -- wrong, which has been told
  local matchers, matched = entities.route_matchers(route.protocols, entry.item)
  local protocols = words.alternatives(route.protocols, "and")
  if not matched then
    note(loader, entry, {}, ("at least one of %s (for protocols %s)"):format(words.alternatives(matchers), protocols),
      "none of them")
  end
  if route.snis and not has_any(route.protocols, SECURE) then
    note(loader, entry, { "snis" }, has_any(route.protocols, STREAM) and "nothing, or tls among protocols"
      or "nothing, or https or grpcs among protocols", "snis with " .. protocols)
  end
  if has_any(route.protocols, GRPC) then
    route.strip_path = false -- gRPC's paths name the method
    if route.methods then note(loader, entry, { "methods" }, "nothing for protocols " .. protocols, "methods") end
  end
  for _, name in ipairs(has_any(route.protocols, STREAM) and OF_HTTP or OF_STREAMS) do
    if route[name] then note(loader, entry, { name }, "nothing for protocols " .. protocols, name) end
  end
  check_stream_service(loader, entry, protocols)
end

-- ---- Services, credentials ----------------------------------------------------------------------------------------

local function check_service(loader, entry)
  local host = entry.record.host
  entry.record.host = host and (host:match("^%[(.*)%]$") or host) -- the brackets of an IPv6 address
  for i, id in ipairs(entry.record.ca_certificates or {}) do
    if not loader.index.ca_certificates.by_id[id] then
      note(loader, entry, { "ca_certificates", i }, "the id of a ca certificate in the configuration", words.value(id))
    end
  end
end

-- As in Kong without a database: a key whose file does not say when it was made is as old as what was read.
local function check_life(loader, entry)
  local credential = entry.record
  if (credential.ttl or 0) == 0 or credential.created_at then return end
  credential.created_at = os.time()
  errors.warn(loader.errors, { entry = entry, keys = { "ttl" },
    message = "it counts from now, and anew when this is read again: created_at (seconds since 1970) says from when" })
end

-- What is no hash is a password, and hashed here: the records hold none. `_transform: false` says that all of them have
-- been hashed already, which is how Kong writes out those of its own.
local function hash_password(loader, entry)
  local credential, text = entry.record, entry.record.password
  local kind = password.kind(text)
  if kind == "crypt" and password.is_slow(text) then
    return note(loader, entry, { "password" }, "a hash that takes at most a few seconds to compute", "a slower one")
  end
  if kind == "crypt" or kind == "sha1" and not entry.source.transformed then return end
  if not entry.source.transformed then
    return note(loader, entry, { "password" }, "a hash (because of _transform: false): that of Kong, or one as of "
      .. "crypt(5)", "another text")
  end
  local hash, expected = password.hash(text, credential.id)
  if not hash then return note(loader, entry, { "password" }, expected, "another text") end
  credential.password = hash
end

-- Kong takes any key, and refuses every token of one that its algorithm cannot use.
local function check_key(loader, entry)
  local credential = entry.record
  local algorithm, pem = credential.algorithm, credential.rsa_public_key
  if not pem or algorithm:sub(1, 2) == "HS" then return end
  local key = require("sluice.crypto").key(pem)
  if not key or require("sluice.jwt").fits(algorithm, key) then return end
  errors.warn(loader.errors, { entry = entry, keys = { "rsa_public_key" },
    message = ("no token passes: %s needs a key of another kind than this (%s%s)"):format(algorithm, key.type,
      key.curve and ", " .. key.curve or "") })
end

-- ---- Plugins --------------------------------------------------------------------------------------------------------

local function note_missing(loader, entry, registry)
  local name = entry.record.name
  note(loader, entry, { "name" }, ("a plugin in %s%s"):format(words.alternatives(registry.dirs),
    suggest.phrase(name, registry.names)), words.value(name))
end

local function note_broken(loader, entry, problem)
  local where = problem.file .. (problem.line and ":" .. problem.line or "")
  errors.add(loader.errors, { entry = entry, keys = { "name" }, expected = "a plugin that loads",
    found = ("%s, broken at %s: %s"):format(problem.name, where, problem.message) })
  local once = problem.file .. ":" .. (problem.line or 0)
  if not loader.broken[once] then
    errors.add(loader.errors, { file = problem.file, line = problem.line, message = problem.message,
      entity = "plugin code " .. words.value(problem.name), expected = "a plugin that loads", found = problem.message })
  end
  loader.broken[once] = true
end

-- The protocols of the stream route or service that a plugin is for, which are its own unless it says otherwise; nil:
-- it is for none.
local function stream_subject(loader, plugin)
  local route = plugin.route and loader.index.routes.by_id[plugin.route]
  local protocols = route and route.record and route.record.protocols
  local service = not route and plugin.service and loader.index.services.by_id[plugin.service]
  if service and service.record and service.record.protocol then protocols = { service.record.protocol } end
  if not has_any(protocols, STREAM) then return nil end
  return service and { "tcp", "tls", "tls_passthrough" } or protocols
end

-- Those of `list` that `others` (nil: all) has too.
local function common(list, others)
  local result = {}
  for _, name in ipairs(list) do
    if not others or has_any(others, { [name] = true }) then result[#result + 1] = name end
  end
  return result
end

-- Whether a plugin's code has anything to do for a stream; one that is known by its schema alone may have.
local function works_on_streams(plugin)
  local handler = plugin and plugin.handler
  return not handler or handler.preread ~= nil or handler.balancer ~= nil or handler.log ~= nil
end

-- The protocols of an instance that names none.
local function take_protocols(loader, entry, field, allowed, subject)
  local plugin = entry.record
  plugin.protocols = subject and common(subject, allowed) or field.default or allowed
    or { "grpc", "grpcs", "http", "https" }
  if plugin.protocols[1] then return end
  note(loader, entry, { "name" }, "a plugin for protocols " .. words.alternatives(subject, "and"),
    ("%s, which is for %s"):format(plugin.name, words.alternatives(allowed, "and")))
end

local function check_protocols(loader, entry, field, code)
  local plugin, allowed = entry.record, field.elements and field.elements.one_of
  local subject = stream_subject(loader, plugin)
  if subject and not works_on_streams(code) then
    return note(loader, entry, { "name" }, "a plugin with phase preread, balancer or log (for protocols "
      .. words.alternatives(subject, "and") .. ")", plugin.name .. ", which has none of them")
  end
  if not plugin.protocols then return take_protocols(loader, entry, field, allowed, subject) end
  if subject and not common(subject, plugin.protocols)[1] then
    return note(loader, entry, { "protocols" }, words.alternatives(subject) .. ", as what the plugin is for",
      words.alternatives(plugin.protocols, "and"))
  end
  for i, protocol in ipairs(plugin.protocols) do
    if allowed and not has_any(allowed, { [protocol] = true }) then
      note(loader, entry, { "protocols", i }, "one of " .. words.alternatives(allowed), words.value(protocol))
    end
  end
end

-- What the schema says of the plugin's own fields: nothing may stand there, something must, or a choice of protocols.
local function check_plugin_fields(loader, entry, normal, code)
  local plugin = entry.record
  for _, name in ipairs { "consumer", "consumer_group", "route", "service" } do
    local field = schema.plugin_field(normal, name)
    if field and field.eq == null and plugin[name] then
      note(loader, entry, { name }, ("nothing: %s cannot be set for one %s"):format(plugin.name,
        name:gsub("_", " ")), "one")
    elseif field and field.required and not plugin[name] then
      note(loader, entry, { name }, ("a %s: %s stands at one"):format(name:gsub("_", " "), plugin.name), "nothing")
    end
  end
  check_protocols(loader, entry, schema.plugin_field(normal, "protocols") or {}, code)
end

local NO_EXCHANGE = { init_worker = true, configure = true, preread = true } -- or one that is not HTTP's
local BEFORE_ROUTING = { certificate = true, rewrite = true }

-- Whether a plugin's code has something to do in a phase for this instance.
local function runs_in(entry, handler, phase)
  local plugin = entry.record
  if not handler[phase] then return false end
  if BEFORE_ROUTING[phase] and (plugin.route or plugin.service or plugin.consumer or plugin.consumer_group) then
    return false
  end
  if not handler.needs then return true end
  local ok, needs = pcall(handler.needs, plugin.config)
  return not ok or type(needs) ~= "table" or needs[phase] == true
end

-- A condition is asked in the first phase that the plugin runs in: what it looks at has to be known by then.
local function check_condition(loader, entry, code)
  local handler = code and code.handler
  if not entry.record.when or not handler then return end
  local expression = require "sluice.expression"
  local since, field = expression.since(entry.record.when)
  if not since then return end
  for number = 0, #phases.names do
    local phase = phases.names[number]
    if phase == since then return end
    if not NO_EXCHANGE[phase] and runs_in(entry, handler, phase) then
      return note(loader, entry, { "when" }, ("what is known in phase %s, in which %s first runs"):format(phase,
        entry.record.name), ("%s, known from %s on"):format(field, since))
    end
  end
end

local function merged(base, over)
  local result = {}
  for key, value in pairs(base) do result[key] = value end
  for key, value in pairs(over) do
    local both = type(value) == "table" and type(result[key]) == "table" and value[1] == nil and result[key][1] == nil
    result[key] = both and merged(result[key], value) or value
  end
  return result
end

-- The configuration as given, over the shared one that `_config` names in `_plugin_configs`.
local function given_config(loader, entry)
  local config = entry.item.config
  if config == null then config = nil end
  local name = entry.item._config
  if name == nil or name == null then return config end
  local shared = entry.source.plugin_configs and entry.source.plugin_configs[name]
  if type(shared) ~= "table" then
    note(loader, entry, { "_config" }, "a name under _plugin_configs", words.value(name))
    return config
  end
  return type(config) == "table" and merged(shared, config) or shared
end

local function names_of(entries)
  local names = {}
  for name in pairs(entries) do names[#names + 1] = name end
  return names
end

local function is_known(loader, collection, name)
  local index = loader.index[collection]
  if index.by_id[name] then return true end
  for _, entries in pairs(index.by_field) do
    if entries[name] then return true end
  end
  return false
end

-- A plugin that falls back on a consumer answers 500 when there is none: better known now than by the first request.
local function check_anonymous(loader, entry, normal)
  local name = entry.record.config.anonymous
  local authenticates = schema.plugin_field(normal, "consumer") ~= nil -- it finds consumers, and is for none
  if type(name) ~= "string" or not authenticates then return end
  local consumers = loader.index.consumers
  if consumers.by_id[name] or consumers.by_field.username[name] then return end
  errors.warn(loader.errors, { entry = entry, keys = { "config", "anonymous" },
    message = ("there is no consumer %s%s"):format(words.value(name), suggest.phrase(name,
      names_of(consumers.by_field.username))) })
end

-- A plugin of Kafka may name a cluster, which has to be there. Without one, and without brokers of its own, it is
-- valid, since Kong says so, and of no use.
local function check_cluster(loader, entry, normal)
  local field, config = schema.cluster_field(normal), entry.record.config
  if not field then return end
  local clusters, name = loader.gateway and loader.gateway.kafka or {}, config[field]
  if name and not clusters[name] then
    local known = names_of(clusters)
    table.sort(known)
    local there = known[1] and words.alternatives(known) or "there is none"
    return note(loader, entry, { "config", field }, "a cluster of gateway.kafka (" .. there .. ")", words.value(name))
  end
  if name or config.bootstrap_servers or clusters.main then return end
  errors.warn(loader.errors, { entry = entry, keys = { "config", field },
    message = "it stands for main, and gateway.kafka has no cluster main; nor are there bootstrap_servers" })
end

-- A name in a configuration is relative to the folder of the file that it stands in.
local function prepare(loader, entry, normal)
  local base = entry.source.base or loader.base
  local fault = schema.prepare(normal, entry.record.config, {
    path = function(name) return name:sub(1, 1) == "/" and name or base .. "/" .. name:gsub("^%./", "") end,
    read = function(path) table.insert(loader.watch, path) end,
    text = function(path)
      table.insert(loader.watch, path)
      return folder.text(path)
    end,
    tree = function(text, name)
      local parsed, err = source.parse(name, text)
      return parsed.tree, err and ("%s:%d: %s"):format(name, err.line or 1, err.message)
    end,
    folder = function(path, ending)
      table.insert(loader.watch, path)
      return folder.texts(path, ending)
    end,
    has = function(collection, name) return is_known(loader, collection, name) end,
  })
  if not fault then return end
  local keys = { "config" }
  for key in (fault.field or ""):gmatch("[^.]+") do keys[#keys + 1] = tonumber(key) or key end
  errors.add(loader.errors, { entry = entry, keys = keys, expected = fault.expected, found = fault.found,
    message = fault.message })
end

local function check_plugin(loader, entry)
  local registry = loader.registry
  local found, problem = registry:get(entry.record.name)
  if not found then
    entry.failed = true
    if problem.kind == "missing" then return note_missing(loader, entry, registry) end
    return note_broken(loader, entry, problem)
  end
  loader.used[entry.record.name] = found
  local config, faults, warnings = schema.process(found.schema, given_config(loader, entry))
  for _, fault in ipairs(faults or {}) do
    errors.add(loader.errors, { entry = entry, keys = fault.keys, expected = fault.expected, found = fault.found,
      message = fault.message })
  end
  for _, warning in ipairs(warnings or {}) do
    errors.warn(loader.errors, { entry = entry, keys = warning.keys, message = warning.message })
  end
  entry.record.config = config
  if config then prepare(loader, entry, found.schema) end
  check_plugin_fields(loader, entry, found.schema, found.plugin)
  if config then check_condition(loader, entry, found.plugin) end
  ordering.check(loader, entry)
  if config then check_anonymous(loader, entry, found.schema) end
  if config then check_cluster(loader, entry, found.schema) end
end

-- ---- All ------------------------------------------------------------------------------------------------------------

local function each(loader, collection, check, even_failed)
  for _, entry in ipairs(loader.entries[collection]) do
    if entry.record and not entry.known and (even_failed or not entry.failed) then check(loader, entry) end
  end
end

-- Once is enough for a configuration written for another gateway.
local function warn_of_unheard(loader)
  local listeners = loader.gateway and loader.gateway.stream_listen
  if type(listeners) ~= "table" or listeners[1] then return end
  for _, entry in ipairs(loader.entries.routes) do
    if entry.record and has_any(entry.record.protocols, STREAM) then
      return errors.warn(loader.errors, { entry = entry, keys = { "protocols" },
        message = "nothing listens for streams: gateway.stream_listen is off" })
    end
  end
end

-- Needs linked entries; fills loader.used (plugins by name).
function rules.run(loader)
  loader.used, loader.broken = loader.used or {}, {}
  each(loader, "routes", check_route, true)
  each(loader, "services", check_service)
  each(loader, "keyauth_credentials", check_life)
  each(loader, "basicauth_credentials", hash_password)
  each(loader, "jwt_secrets", check_key)
  each(loader, "plugins", check_plugin)
  ordering.check_rings(loader)
  warn_of_unheard(loader)
end

-- Records of the code that is in use, encoded, in the order of names.
function rules.plugin_code(loader)
  local names, records = {}, {}
  for name in pairs(loader.used) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    local used = loader.used[name]
    records[i] = snapshot.encode { kind = "plugin_code", name = name, dir = used.code.dir, files = used.code.files,
      hash = used.code.hash, trusted = used.trusted }
  end
  return records
end

return rules
