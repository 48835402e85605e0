-- SPDX-License-Identifier: Apache-2.0
-- Tokens of an OAuth 2 identity provider (RFC 6749, 4.3 and 4.4; RFC 7523), each kept until shortly before its end.

local crypto = require "sluice.crypto"
local http = require "sluice.http"
local json = require "sluice.json"
local jwt = require "sluice.jwt"
local query = require "sluice.query"
local time = require "sluice.time"
local uuid = require "sluice.uuid"

local concat, pairs, type = table.concat, pairs, type

local token = {}

local ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
local ASSERTION_S = 60  -- how long an assertion holds
local EARLY_S = 10      -- a token is not used for its last seconds
local DEFAULT_S = 300   -- when the answer does not say how long it holds
local MOST_BYTES = 65536

local CLIENT = { auth_method = "client_secret_post", keep_alive = true, ssl_verify = true, timeout = 10000,
  client_secret_jwt_alg = "HS512" } -- of a configuration that does not say

local kept = setmetatable({}, { __mode = "k" }) -- by configuration

local function assertion_of(oauth, client)
  local now = time.now()
  return jwt.sign({ iss = oauth.client_id, sub = oauth.client_id, aud = oauth.token_endpoint, jti = uuid.v4(),
    iat = math.floor(now), exp = math.floor(now) + ASSERTION_S }, client.client_secret_jwt_alg, oauth.client_secret)
end

local function put_client(oauth, client, args, headers)
  local method = client.auth_method
  if method == "client_secret_basic" then
    headers.Authorization = "Basic " .. crypto.base64_encode(query.escape(oauth.client_id or "") .. ":"
      .. query.escape(oauth.client_secret or ""))
    return true
  end
  args.client_id = oauth.client_id
  if method == "client_secret_post" then args.client_secret = oauth.client_secret end
  if method ~= "client_secret_jwt" then return true end
  local assertion, err = assertion_of(oauth, client)
  if not assertion then return nil, err end
  args.client_assertion_type, args.client_assertion = ASSERTION, assertion
  return true
end

local function request_of(oauth, client)
  local headers = { ["Content-Type"] = "application/x-www-form-urlencoded", Accept = "application/json" }
  local args = { grant_type = oauth.grant_type }
  if #(oauth.scopes or {}) > 0 then args.scope = concat(oauth.scopes, " ") end
  if #(oauth.audience or {}) > 0 then args.audience = oauth.audience end
  if oauth.grant_type == "password" then args.username, args.password = oauth.username, oauth.password end
  local ok, err = put_client(oauth, client, args, headers)
  if not ok then return nil, err end
  for name, value in pairs(oauth.token_post_args or {}) do args[name] = value end
  for name, value in pairs(oauth.token_headers or {}) do headers[name] = value end
  return headers, query.encode(args)
end

local function is_direct(host, list)
  for name in (list or ""):lower():gmatch("[^%s,]+") do
    local domain = name:gsub("^%*?%.", "")
    if name == "*" or host == domain or host:sub(-#domain - 1) == "." .. domain then return true end
  end
  return false
end

-- The proxy for a URL, and what it is told of who asks.
local function proxy_of(url, client)
  local scheme, host = url:lower():match("^(https?)://([^/?#:]+)")
  if not scheme or is_direct(host, client.no_proxy) then return nil end
  return client[scheme .. "_proxy"], client[scheme .. "_proxy_authorization"]
end

local function fetch(oauth, client)
  local headers, body = request_of(oauth, client)
  if not headers then return nil, body end
  local proxy, authorization = proxy_of(oauth.token_endpoint, client)
  local response, err = http.request { url = oauth.token_endpoint, method = "POST", headers = headers, body = body,
    timeout = client.timeout / 1000, max_body = MOST_BYTES, keepalive = client.keep_alive,
    proxy = proxy, proxy_authorization = authorization, tls = { verify = client.ssl_verify } }
  if not response then return nil, err end
  local answer = json.decode(response.body)
  if response.status ~= 200 then
    local why = type(answer) == "table" and type(answer.error) == "string" and " (" .. answer.error .. ")" or ""
    return nil, "the token endpoint answered " .. response.status .. why
  end
  if type(answer) ~= "table" or type(answer.access_token) ~= "string" then
    return nil, "the token endpoint's answer holds no access_token"
  end
  local seconds = tonumber(answer.expires_in) or DEFAULT_S
  return { text = answer.access_token, ends = time.monotonic() + seconds - EARLY_S }
end

-- The value of an Authorization field. May wait.
---@param oauth table Kong's record `oauth2`
---@param client? table Kong's record `oauth2_client`
---@return string|nil
---@return string|nil err
function token.get(oauth, client)
  local mine = kept[oauth]
  if mine and mine.ends > time.monotonic() then return "Bearer " .. mine.text end
  local fresh, err = fetch(oauth, client or CLIENT)
  if not fresh then return nil, err end
  kept[oauth] = fresh
  return "Bearer " .. fresh.text
end

-- One that was refused is not used again.
function token.forget(oauth)
  kept[oauth] = nil
end

return token
