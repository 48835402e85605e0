-- SPDX-License-Identifier: Apache-2.0
-- Tokens for clusters with SASL OAUTHBEARER: fetched from an OAuth 2 server by client credentials (RFC 6749 4.4), when
-- the first client of a cluster wants one, and again before they end, for as long as there are clients.

local ffi = require "ffi"
local core = require "sluice.api.core"
local crypto = require "sluice.crypto"
local http = require "sluice.http"
local json = require "sluice.json"
local jwt = require "sluice.jwt"
local query = require "sluice.query"
local time = require "sluice.time"
local timer = require "sluice.timer"

local C, worker = core.C, core.worker
local tonumber, type = tonumber, type

local OK = 0
local FETCH_SECONDS = 10
local MOST_BYTES = 65536
local LIFE_SECONDS, LIFE_LEAST = 300, 2 -- of a token that does not say; less cannot be refreshed in time
local REFRESH_AT = 0.8                  -- of its life
local RETRY_FIRST, RETRY_MOST = 0.5, 30
local TEXT_MOST = 200                   -- of a server's words in an error

local oauth = {}

local clusters = {} -- by name: { properties, text, busy, tries }, of those that want tokens

-- ---- Asking -------------------------------------------------------------------------------------------------------

local function read_file(path)
  local file, err = io.open(path, "rb")
  if not file then return nil, err end
  local text = file:read("*a")
  file:close()
  return text
end

local function tls_of(properties)
  local path = properties["https.ca.location"]
  local tls = { verify = tostring(properties["sasl.oauthbearer.token.endpoint.verify"]) ~= "false" }
  if not path then return tls end
  local err
  tls.ca, err = read_file(path)
  if not tls.ca then return nil, "https.ca.location: " .. err end
  return tls
end

local function ask(properties)
  local tls, err = tls_of(properties)
  if not tls then return nil, err end
  local id = query.escape(tostring(properties["sasl.oauthbearer.client.id"]))
  local secret = query.escape(tostring(properties["sasl.oauthbearer.client.secret"]))
  local scope = properties["sasl.oauthbearer.scope"]
  return http.request {
    url = properties["sasl.oauthbearer.token.endpoint.url"], method = "POST",
    headers = {
      ["Authorization"] = "Basic " .. crypto.base64_encode(id .. ":" .. secret),
      ["Content-Type"] = "application/x-www-form-urlencoded", ["Accept"] = "application/json",
    },
    body = "grant_type=client_credentials" .. (scope and "&scope=" .. query.escape(tostring(scope)) or ""),
    timeout = FETCH_SECONDS, max_body = MOST_BYTES, tls = tls,
  }
end

-- Where an error of OAuth says why, its words.
local function refusal(response)
  local said = json.decode(response.body or "")
  local why = type(said) == "table" and (said.error_description or said.error)
  return ("the token server answers %d%s"):format(response.status,
    type(why) == "string" and ": " .. why:sub(1, TEXT_MOST) or "")
end

local function life_of(said, claims, now)
  local seconds = tonumber(said.expires_in)
  if not seconds and type(claims.exp) == "number" then seconds = claims.exp - now end
  if not seconds then return LIFE_SECONDS end
  return seconds < LIFE_LEAST and LIFE_LEAST or seconds
end

-- Its life counts from when it was asked for: how long the server and the way back took nobody knows.
---@return { value: string, until_s: number, refresh_s: number, principal: string }|nil until_s, refresh_s: since 1970
---@return string|nil err
local function fetch(properties)
  local from = time.now()
  local response, err = ask(properties)
  if not response then return nil, "the token server: " .. tostring(err) end
  if response.status ~= 200 then return nil, refusal(response) end
  local said = json.decode(response.body)
  if type(said) ~= "table" or type(said.access_token) ~= "string" then
    return nil, "the token server's answer has no access_token"
  end
  local decoded = jwt.decode(said.access_token) -- others than JWT are good too
  local claims = decoded and decoded.claims or {}
  local seconds = life_of(said, claims, from)
  if from + seconds <= time.now() then return nil, "the token server takes longer than its tokens live" end
  return {
    value = said.access_token, until_s = from + seconds, refresh_s = from + seconds * REFRESH_AT,
    principal = type(claims.sub) == "string" and claims.sub or tostring(properties["sasl.oauthbearer.client.id"]),
  }
end

-- ---- Giving -------------------------------------------------------------------------------------------------------

-- "name=value,name=value" as librdkafka has them.
local function extensions_of(properties)
  local texts = {}
  for name, value in tostring(properties["sasl.oauthbearer.extensions"] or ""):gmatch("%s*([^=,]+)=([^,]*)") do
    texts[#texts + 1], texts[#texts + 2] = name, value
  end
  return ffi.new("const char *[?]", #texts + 1, texts), #texts / 2, texts
end

local function give(name, properties, token)
  local cell = ffi.new("struct kafka_token")
  local array, count, texts = extensions_of(properties)
  cell.value, cell.principal = token.value, token.principal
  cell.until_ms = token.until_s * 1000
  cell.extensions, cell.extension_count = array, count
  local status = C.bridge_kafka_token(worker, name, cell)
  if status == OK and texts then return true end
  return nil, core.reason(status)
end

local run

local function later(name, entry, seconds)
  if not timer.at(seconds, run, name, entry) then entry.busy = false end
end

-- One fetch, and the next one's time. Ends when nobody uses the cluster, or its properties are others now.
function run(name, entry)
  if clusters[name] ~= entry or C.bridge_kafka_token_users(worker, name) == 0 then
    entry.busy = false
    return
  end
  local token, err = fetch(entry.properties)
  if clusters[name] ~= entry then return end
  local given
  if token then given, err = give(name, entry.properties, token) end
  if given then
    entry.tries = 0
    return later(name, entry, math.max(token.refresh_s - time.now(), 0))
  end
  C.bridge_kafka_token_failed(worker, name, err)
  local seconds = RETRY_FIRST * 2 ^ entry.tries
  if seconds < RETRY_MOST then entry.tries = entry.tries + 1 end
  return later(name, entry, seconds < RETRY_MOST and seconds or RETRY_MOST)
end

-- ---- Clusters -----------------------------------------------------------------------------------------------------

-- A cluster of this name has these properties, which want tokens.
---@param name string
---@param properties table<string, any>
---@param text string the same for the same properties
function oauth.define(name, properties, text)
  local entry = clusters[name]
  if entry and entry.text == text then return end
  clusters[name] = { properties = properties, text = text, busy = false, tries = 0 }
end

---@param name string
function oauth.drop(name)
  clusters[name] = nil
end

-- A client of the cluster came, and there is no token for it.
---@param name string
function oauth.wanted(name)
  local entry = clusters[name]
  if not entry or entry.busy then return end
  entry.busy = true
  run(name, entry)
end

if worker ~= nil then
  require("sluice.runtime").on("kafka_token", function(_, name) oauth.wanted(name) end)
end

return oauth
