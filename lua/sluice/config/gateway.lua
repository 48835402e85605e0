-- SPDX-License-Identifier: Apache-2.0
-- The `gateway:` section: what concerns the process. Its fields, defaults, and SLUICE_* variables of the environment,
-- which win over the file (SLUICE_PROXY_LISTEN, SLUICE_LOG_LEVEL, SLUICE_LIMITS_MAX_HEADERS).
local cjson = require "cjson"
local ffi = require "ffi"
local lfs = require "lfs"
local compile = require "sluice.schema.compile"
local errors = require "sluice.config.errors"
local kafka_conf = require "sluice.kafka.conf"
local listen = require "sluice.config.listen"
local typedefs = require "sluice.schema.typedefs"
local words = require "sluice.schema.words"

local null = cjson.null
local W_OK = 2
ffi.cdef [[int sluice_access(const char *path, int mode) __asm__("access");]]
local gateway = {}

local function limit(default, high)
  return { type = "integer", between = { 0, high or 2147483647 }, default = default }
end

-- A value of several types is taken as it is here and looked at below.
local function loose(default)
  return { type = "any", default = default }
end

local limits = {
  { client_header_timeout = limit(10000) }, { client_body_timeout = limit(30000) },
  { keepalive_timeout = limit(60000) }, { send_timeout = limit(30000) },
  { max_head_bytes = { type = "integer", between = { 1024, 1048576 }, default = 32768 } },
  { max_headers = { type = "integer", between = { 1, 10000 }, default = 200 } },
  { max_streams = { type = "integer", between = { 1, 100000 }, default = 100 } },
  { max_body_bytes = limit(0, 2 ^ 53) }, { max_buffered_body_bytes = limit(8388608, 2 ^ 53) },
  { max_connections = limit(0) },
  { cache_bytes = { type = "integer", between = { 4194304, 2 ^ 44 }, default = 1073741824 } }, -- of stored responses
  -- Of the master: how long a worker may take to finish, and to stand still.
  { drain_timeout = limit(30000) },
  { watchdog_timeout = { type = "integer", between = { 100, 3600000 }, default = 5000 } },
}

local LEVELS = { "debug", "info", "notice", "warn", "error", "crit" }

local fields = {
  { proxy_listen = loose { "0.0.0.0:8000", "0.0.0.0:8443 ssl http2" } }, { admin_listen = loose { "127.0.0.1:8001" } },
  { stream_listen = loose "off" }, { status_listen = loose { "127.0.0.1:8007" } }, { workers = loose "auto" },
  { plugin_dirs = { type = "array", elements = { type = "string" }, default = { "./plugins" } } },
  { trusted_plugins = { type = "set", elements = { type = "string" }, default = {} } },
  { plugin_cpu_budget_ms = { type = "integer", between = { 1, 3600000 }, default = 100 } },
  { state_dir = { type = "string", default = "./.sluice" } },
  { trusted_ips = { type = "set", elements = typedefs.ip_or_cidr, default = {} } },
  { limits = { type = "record", required = true, fields = limits } },
  { log = { type = "record", required = true, fields = {
    { level = { type = "string", default = "notice", one_of = LEVELS } },
    { format = { type = "string", default = "text", one_of = { "text", "json" } } },
  } } },
  { access_log = { type = "record", required = true, fields = {
    { path = loose "off" }, -- of a file; its lines: core/access_log.c
    { format = { type = "string", default = "text", one_of = { "text", "json" } } },
  } } },
  -- What responses tell of the gateway: Kong's names, Server-Timing, or off.
  { headers = loose { "server_tokens" } },
  -- What becomes of an open WebSocket whose route changes or goes; and the messages of those that plugins look into.
  { websocket = { type = "record", required = true, fields = {
    { on_reload = { type = "string", default = "keep", one_of = { "keep", "drain", "cut" } } },
    { drain_timeout = { type = "integer", between = { 1, 3600000 }, default = 10000 } },
    { client_max_payload = { type = "integer", between = { 1, 33554432 }, default = 1048576 } },
    { upstream_max_payload = { type = "integer", between = { 1, 33554432 }, default = 16777216 } },
  } } },
  { kafka = { type = "map", keys = { type = "string", match = "^[%w._-]+$", err = "a cluster's name" },
    values = { type = "map", keys = { type = "string" }, values = loose() }, default = {} } },
}

local check = compile.field { type = "record", fields = fields }

-- ---- The environment ------------------------------------------------------------------------------------------------

local BOOLEANS = { ["true"] = true, on = true, ["false"] = false, off = false }

local function split(text)
  local list = {}
  for part in text:gmatch("[^,]+") do list[#list + 1] = part:match("^%s*(.-)%s*$") end
  return list
end

local function from_text(field, text)
  if field.type == "integer" or field.type == "number" then return tonumber(text) or text end
  if field.type == "array" or field.type == "set" then return split(text) end
  if field.type == "boolean" and BOOLEANS[text] ~= nil then return BOOLEANS[text] end
  return text
end

-- Lays variables of the environment over `section`; returns which keys came from which variable, by path.
local function apply_environment(section, list, prefix, path, getenv, origins)
  for _, entry in ipairs(list) do
    local name, field = next(entry)
    local key = path == "" and name or path .. "." .. name
    if field.type == "record" then
      if section[name] == nil or section[name] == null then section[name] = {} end
      if type(section[name]) == "table" then
        apply_environment(section[name], field.fields, prefix .. name:upper() .. "_", key, getenv, origins)
      end
    elseif field.type ~= "map" then
      local text = getenv(prefix .. name:upper())
      if text and text ~= "" then
        section[name] = from_text(field, text)
        origins[key] = prefix .. name:upper()
      end
    end
  end
end

-- ---- Values of several types ----------------------------------------------------------------------------------------

local function absolute(path, base)
  if path:sub(1, 1) == "/" then return path end
  return base .. "/" .. path:gsub("^%./", "")
end

local function note(found, keys, expected, what)
  found[#found + 1] = { keys = keys, expected = expected, found = what }
end

local function check_listen(section, name, found)
  local value = section[name]
  local kind = type(value)
  if value ~= false and kind ~= "string" and kind ~= "table" then
    return note(found, { name }, "an address to listen on, a list of them, or off", words.kind(value))
  end
  for i, item in ipairs(kind == "table" and value or {}) do
    if type(item) ~= "string" then return note(found, { name, i }, "a string", words.kind(item)) end
  end
  local list, expected, what, index = listen.parse(value, name == "stream_listen")
  if not list then return note(found, kind == "table" and { name, index } or { name }, expected, what) end
  section[name] = list
end

local function check_workers(section, found)
  local value = tonumber(section.workers) or section.workers
  local counts = type(value) == "number" and value % 1 == 0 and value >= 1 and value <= 1024
  if value ~= "auto" and not counts then
    return note(found, { "workers" }, "auto or an integer from 1 to 1024", words.value(value))
  end
  section.workers = value
end

-- Why a file cannot be written, as far as can be told without making it; nil: it can.
local function unwritable(path)
  local mode, folder = lfs.attributes(path, "mode"), path:match("^(.*)/[^/]*$")
  if mode == "directory" then return "a folder" end
  if not mode and lfs.attributes(folder == "" and "/" or folder, "mode") ~= "directory" then
    return "a file in a folder that is not there"
  end
  if ffi.C.sluice_access(mode and path or folder == "" and "/" or folder, W_OK) ~= 0 then
    return "a file that may not be written"
  end
end

local function check_access_log(section, base, found)
  if not section.access_log then return end -- it was no map, which has been told
  local path = section.access_log.path
  if path == false or path == "off" then
    section.access_log.path = "off"
    return
  end
  local why
  if type(path) ~= "string" or path == "" then
    why = type(path) == "string" and words.value(path) or words.kind(path)
  else
    path = absolute(path, base)
    why = unwritable(path)
    why = why and why .. " (" .. path .. ")"
  end
  if why then return note(found, { "access_log", "path" }, "a file to write to, or off", why) end
  section.access_log.path = path
end

-- Kong's names, in any case, and what they stand for.
local HEADERS = {
  server_tokens = { "server", "via" }, server = { "server" }, via = { "via" },
  latency_tokens = { "x-kong-proxy-latency", "x-kong-upstream-latency", "x-kong-response-latency" },
  ["x-kong-proxy-latency"] = { "x-kong-proxy-latency" }, ["x-kong-upstream-latency"] = { "x-kong-upstream-latency" },
  ["x-kong-response-latency"] = { "x-kong-response-latency" }, ["x-kong-admin-latency"] = {},
  ["x-kong-upstream-status"] = { "x-kong-upstream-status" }, ["x-kong-request-id"] = { "x-kong-request-id" },
  ["server-timing"] = { "server-timing" }, off = {},
}
local HEADERS_EXPECTED = "off, or a list of server_tokens, latency_tokens, Server-Timing, X-Kong-Proxy-Latency, "
  .. "X-Kong-Upstream-Latency, X-Kong-Response-Latency, X-Kong-Upstream-Status, X-Kong-Request-Id, Server, Via"

-- The setting becomes a list of fields, each once, in order.
local function check_headers(section, found)
  local value, seen, list = section.headers, {}, {}
  if value == false then value = {} end
  if type(value) == "string" then value = split(value) end
  if type(value) ~= "table" then return note(found, { "headers" }, HEADERS_EXPECTED, words.kind(value)) end
  for i, name in ipairs(value) do
    local fields_of = type(name) == "string" and HEADERS[name:lower()] or name == false and {}
    if not fields_of then
      return note(found, type(section.headers) == "table" and { "headers", i } or { "headers" }, HEADERS_EXPECTED,
        words.value(name))
    end
    for _, field in ipairs(fields_of) do seen[field] = true end
  end
  for field in pairs(seen) do list[#list + 1] = field end
  table.sort(list)
  section.headers = list
end

-- librdkafka takes every property as a text. A list of brokers may be a list.
local function kafka_text(value)
  if type(value) == "string" then return value end
  if type(value) == "boolean" then return tostring(value) end
  if type(value) == "number" then return ("%.14g"):format(value) end
  if type(value) == "table" and type(value[1]) == "string" then return table.concat(value, ",") end
end

local function check_kafka(section, found)
  for name, cluster in pairs(section.kafka or {}) do
    for property, value in pairs(cluster) do
      local text = kafka_text(value)
      if property == "embedded" and type(value) ~= "boolean" then
        note(found, { "kafka", name, property }, "a boolean", words.kind(value))
      elseif property ~= "embedded" and not text then
        note(found, { "kafka", name, property }, "a string, a number or a boolean", words.kind(value))
      elseif property ~= "embedded" then
        cluster[property] = text
      end
    end
    if not cluster.embedded and not cluster["bootstrap.servers"] and not cluster["metadata.broker.list"] then
      note(found, { "kafka", name }, "bootstrap.servers, or embedded: true", "neither")
    else
      local ok, property, why = kafka_conf.check(cluster)
      if not ok then
        local keys = { "kafka", name, cluster[property] ~= nil and property or nil }
        note(found, keys, "what librdkafka takes (" .. why .. ")", words.value(cluster[property]))
      end
    end
  end
end

local function check_loose(section, base, found)
  for _, name in ipairs { "proxy_listen", "stream_listen", "admin_listen", "status_listen" } do
    check_listen(section, name, found)
  end
  check_workers(section, found)
  check_access_log(section, base, found)
  check_headers(section, found)
  check_kafka(section, found)
end

-- ---- Paths ----------------------------------------------------------------------------------------------------------

-- Relative paths are relative to the file that says them.
local function resolve_paths(section, base)
  section.state_dir = absolute(section.state_dir or ".", base)
  section.plugin_dirs, section.trusted_plugins = section.plugin_dirs or {}, section.trusted_plugins or {}
  for i, dir in ipairs(section.plugin_dirs) do section.plugin_dirs[i] = absolute(dir, base) end
end

-- ---- The section ----------------------------------------------------------------------------------------------------

-- The one source with a `gateway` section; a second one is an error, for which of them should hold?
local function find_section(loader)
  local found
  for _, src in ipairs(loader.sources) do
    local section = type(src.tree) == "table" and src.tree.gateway
    if section and section ~= null then
      if found then
        errors.add(loader.errors, { source = src, keys = { "gateway" }, entity = "gateway",
          expected = "one gateway section", found = "another, beside " .. found.file })
      end
      found = found or src
    end
  end
  return found
end

local function add_error(loader, src, origins, keys, err)
  local field = words.path(keys)
  local variable = origins[field] or origins[field:match("^(.-)%[")]
  local path = { "gateway" }
  for _, key in ipairs(keys) do path[#path + 1] = key end
  errors.add(loader.errors, { entity = "gateway", field = field, expected = err.expected, found = err.found,
    message = err.message, source = not variable and src or nil, keys = not variable and path or nil,
    file = variable and "environment variable " .. variable or nil })
end

local function has_flag(list, flag)
  for _, listener in ipairs(type(list) == "table" and list or {}) do
    if (listener .. " "):find(" " .. flag .. " ", 1, true) then return true end
  end
  return false
end

-- A header that nobody is believed in is most likely an oversight.
local function warn_of_proxies(loader, section, src)
  if section.trusted_ips and section.trusted_ips[1] then return end
  for _, name in ipairs { "proxy_listen", "stream_listen" } do
    if has_flag(section[name], "proxy_protocol") then
      errors.warn(loader.errors, { entity = "gateway", field = name, source = src, keys = src and { "gateway", name },
        message = "proxy_protocol without trusted_ips: what the header tells of clients is not believed" })
    end
  end
end

-- The complete section; its errors are noted, and fields in error may be missing. `base`: folder of the first file.
function gateway.read(loader, base, getenv)
  local src = find_section(loader)
  local given = src and src.tree.gateway or {}
  if type(given) ~= "table" or given[1] ~= nil then
    errors.add(loader.errors, { source = src, keys = { "gateway" }, expected = "a map", found = words.kind(given) })
    given = {}
  end
  given = compile.copy(given)
  local origins, found, ctx = {}, {}, compile.context()
  apply_environment(given, fields, "SLUICE_", "", getenv or os.getenv, origins)
  local section = check(given, ctx)
  for i = 1, ctx.n do
    local keys = {}
    for k = #ctx.errors[i].keys, 1, -1 do keys[#keys + 1] = ctx.errors[i].keys[k] end
    add_error(loader, src, origins, keys, ctx.errors[i])
  end
  local folder = src and src.text and src.base or base
  check_loose(section, folder, found)
  for _, err in ipairs(found) do add_error(loader, src, origins, err.keys, err) end
  warn_of_proxies(loader, section, src)
  resolve_paths(section, folder)
  return section
end

return gateway
