-- SPDX-License-Identifier: Apache-2.0
-- Answers with an AsyncAPI 3 document of the gateway's event routes, as the running configuration has them.
local asyncapi = require "sluice.asyncapi"
local crypto = require "sluice.crypto"

local plugin = { version = "1.0.0", priority = 749 }

local MOST_ORIGINS = 64 -- documents that are kept for one instance
local METHODS = { GET = true, HEAD = true }

local kept = setmetatable({}, { __mode = "k" }) -- by configuration: revision, count, by_origin -> { text, tag }

local function info_of(conf)
  return { title = conf.title, version = conf.version, description = conf.description,
    termsOfService = conf.terms_of_service, contact = conf.contact, license = conf.license }
end

local function made(conf, origin)
  local document = asyncapi.current { info = info_of(conf), id = conf.id, tags = conf.route_tags,
    servers = conf.servers or { origin }, topics = conf.topics, messages = conf.messages }
  local text = asyncapi.text(document)
  return { text = text, tag = '"' .. crypto.hex(crypto.digest("sha256", text)):sub(1, 32) .. '"' }
end

-- A client can name any host: past a bound what was made is forgotten, as it is when the configuration changes.
local function state_of(conf)
  local state, revision = kept[conf], asyncapi.revision()
  if state and state.revision == revision and state.count < MOST_ORIGINS then return state end
  state = { revision = revision, count = 0, by_origin = {} }
  kept[conf] = state
  return state
end

-- The URL that the client has asked, up to its path: as its own Host says, or a proxy before the gateway.
local function origin_of(request)
  local scheme, host = request:get_forwarded_scheme(), request:get_forwarded_host()
  if host == request:get_host() then return scheme .. "://" .. (request:get_header("host") or host) end
  local port = request:get_forwarded_port()
  local usual = scheme == "https" and 443 or 80
  return ("%s://%s%s"):format(scheme, host, port ~= usual and ":" .. port or "")
end

local function document_for(conf, exchange)
  local request, state = exchange.request, state_of(conf)
  local origin = conf.servers and "" or origin_of(request)
  local it = state.by_origin[origin]
  if it then return it end
  it = made(conf, origin)
  state.by_origin[origin], state.count = it, state.count + 1
  return it
end

local function is_known(exchange, tag)
  local known = exchange.request:get_header("if-none-match")
  return known ~= nil and (known == "*" or known:find(tag, 1, true) ~= nil)
end

function plugin.access(conf, exchange)
  if not METHODS[exchange.request:get_method()] then
    return exchange.response:exit(405, { message = "Method not allowed" }, { Allow = "GET, HEAD" })
  end
  local it = document_for(conf, exchange)
  local headers = { ["Content-Type"] = asyncapi.media_type, ETag = it.tag, Vary = "Host",
    ["Cache-Control"] = "max-age=" .. conf.cache }
  if is_known(exchange, it.tag) then return exchange.response:exit(304, nil, headers) end
  exchange.response:exit(200, it.text, headers)
end

return plugin
