-- SPDX-License-Identifier: Apache-2.0
-- Whether a certificate has been revoked, as its issuer says: by OCSP, else by a list. Only certificates that have been
-- verified are asked for, so the URLs are those of the authorities.
local certificate = require "sluice.certificate"
local http = require "sluice.http"
local lock = require "sluice.lock"
local log = require "sluice.log"
local recent = require "sluice.recent"
local time = require "sluice.time"

local revocation = {}

local MOST_URLS = 2                  -- of each kind that are asked
local MOST_ANSWER, MOST_LIST = 65536, 1024 * 1024
local AGAIN_SECONDS = 10             -- after what could not be found out
local states = recent.new(4096, 32 * 1024 * 1024, 4096) -- by issuer and certificate
local lists = recent.new(16, 64 * 1024 * 1024, MOST_LIST) -- by issuer and URL

local function ask(conf, url, options)
  if not url:find("^https?://") then return nil, "it is no URL of http" end
  options.url, options.timeout = url, conf.http_timeout / 1000
  local host, port = conf.http_proxy_host, conf.http_proxy_port
  if url:find("^https:") then host, port = conf.https_proxy_host, conf.https_proxy_port end
  if host then options.proxy = ("http://%s:%d"):format(host, port) end
  local response, err = http.request(options)
  if not response then return nil, err end
  if response.status ~= 200 then return nil, "status " .. response.status end
  return response.body
end

local function warn(what, url, err)
  log.warn(what, { url = url, error = tostring(err) })
end

local function by_ocsp(conf, pem, issuer, url)
  local request, err = certificate.ocsp_request(pem, issuer)
  if not request then return nil, err end
  local body
  body, err = ask(conf, url, { method = "POST", body = request, max_body = MOST_ANSWER,
    headers = { ["Content-Type"] = "application/ocsp-request", Accept = "application/ocsp-response" } })
  if not body then return nil, err end
  local state, more = certificate.ocsp_read(request, body, pem, issuer)
  return state, more
end

-- A list is kept as long as it holds.
local function by_list(conf, pem, issuer, url)
  local kept = lists:get(issuer, url)
  if kept and kept.till > time.now() then
    local state, more = certificate.crl_read(kept.text, pem, issuer)
    return state, more
  end
  -- Many certificates name the same list: it is fetched once for all of them.
  local text, err = lock.once("mtls-auth list " .. url, conf.http_timeout / 1000 + 1, ask, conf, url,
    { max_body = MOST_LIST })
  if not text then return nil, err end
  local state, more = certificate.crl_read(text, pem, issuer)
  if state then
    lists:put(issuer, url, { text = text, till = math.min(more or 0, time.now() + conf.cert_cache_ttl) })
  end
  return state, more
end

local function by_any(conf, pem, issuer, urls, way, complaint)
  for i = 1, math.min(#urls, MOST_URLS) do
    local state, more = way(conf, pem, issuer, urls[i])
    if state then return state, more end
    warn(complaint, urls[i], more)
  end
end

local function find_out(conf, info, pem, issuer)
  local state, till = by_any(conf, pem, issuer, info.ocsp, by_ocsp, "OCSP says nothing about a client's certificate")
  if not state then
    state, till = by_any(conf, pem, issuer, info.crl, by_list, "a list says nothing about a client's certificate")
  end
  local now = time.now()
  local most = now + (state and conf.cert_cache_ttl or math.min(conf.cert_cache_ttl, AGAIN_SECONDS))
  return { state = state or "unknown", till = math.min(till or most, most) }
end

-- Asks once for all who want to know meanwhile. nil: whoever asked was not done in time.
local function state_of(conf, info, pem, issuer)
  local known = states:get(issuer, pem)
  if known and known.till > time.now() then return known end
  local urls = math.min(#info.ocsp, MOST_URLS) + math.min(#info.crl, MOST_URLS)
  local found = lock.once("mtls-auth revocation " .. pem, urls * conf.http_timeout / 1000 + 1, find_out, conf, info,
    pem, issuer)
  if found then states:put(issuer, pem, found) end
  return found
end

-- Whether the certificate may pass.
---@param conf table
---@param info sluice.certificate.info
---@param pem string the certificate alone
---@param issuer string PEM
---@return boolean
function revocation.passes(conf, info, pem, issuer)
  local mode = conf.revocation_check_mode
  if mode == "SKIP" then return true end
  if not info.ocsp[1] and not info.crl[1] then return mode ~= "STRICT" end
  local found = state_of(conf, info, pem, issuer)
  local state = found and found.state
  return state == "good" or state ~= "revoked" and mode ~= "STRICT"
end

return revocation
