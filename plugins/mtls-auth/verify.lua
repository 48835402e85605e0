-- SPDX-License-Identifier: Apache-2.0
-- Whether the authorities of a configuration vouch for a certificate. Both can change with the generation, so what was
-- found out belongs to it.
--
-- A resumed session has the client's certificate, but not those that it sent with it. So intermediate certificates that
-- made a chain whole are kept, for all workers: whose certificate it is has been proven, and which chain vouches for it
-- does not depend on who brings it.
local certificate = require "sluice.certificate"
local crypto = require "sluice.crypto"
local recent = require "sluice.recent"
local store = require "sluice.store"
local time = require "sluice.time"

local verify = {}

local ENTRY_BYTES = 8192
local CHAIN_SECONDS = 2 * 86400 -- as long as a session may be resumed, and longer

local by_conf = setmetatable({}, { __mode = "k" }) -- to by generation, to state

local function weak()
  return setmetatable({}, { __mode = "k" })
end

-- The PEM of the authorities; an entity that is gone meanwhile vouches for nobody.
local function texts_of(conf, client)
  local texts, ids = {}, {}
  for _, id in ipairs(conf.ca_certificates) do
    local authority = client:load_credential("ca_certificates", "id", id)
    if authority then texts[#texts + 1], ids[#ids + 1] = authority.cert, id end
  end
  return table.concat(texts, "\n"), ids
end

-- { text, ids, authorities, verdicts } of a configuration in the exchange's generation.
---@param conf table
---@param exchange sluice.exchange
function verify.state(conf, exchange)
  local states = by_conf[conf]
  if not states then
    states = weak()
    by_conf[conf] = states
  end
  local state = states[exchange.generation]
  if not state then
    local text, ids = texts_of(conf, exchange.client)
    state = { text = text, ids = ids, verdicts = recent.new(4096, 32 * 1024 * 1024, ENTRY_BYTES) }
    state.authorities, state.why = certificate.authorities(text, { partial = conf.allow_partial_chain })
    states[exchange.generation] = state
  end
  return state
end

local function first_of(chain)
  local _, stop = chain:find("-----END CERTIFICATE-----\n", 1, true)
  return stop and chain:sub(1, stop) or chain
end

local function key_of(pem)
  return "mtls-auth chain " .. crypto.hex(crypto.digest("sha256", pem))
end

local function keep_others(pem, others)
  if others == "" then return end
  local key = key_of(pem)
  local kept, seconds = store.get(key)
  if kept ~= others or seconds and seconds < CHAIN_SECONDS / 2 then store.set(key, others, CHAIN_SECONDS) end
end

local function by_chain(state, chain, pem)
  local found, err = state.authorities:verify(chain)
  if found then
    keep_others(pem, chain:sub(#pem + 1))
    return found
  end
  local others = #chain == #pem and store.get(key_of(pem))
  if not others then return nil, err end
  return state.authorities:verify(pem .. others)
end

-- What is known of a client's certificate: { pem, info, issuer, authority (id), till }; or nil and why it is not good.
---@param conf table
---@param exchange sluice.exchange
---@param chain string PEM, the client's own first
---@return table|nil
---@return string|nil err
function verify.find(conf, exchange, chain)
  local state = verify.state(conf, exchange)
  if not state.authorities then return nil, state.why end
  local verdict, now = state.verdicts:get(state, chain), time.now()
  if verdict and verdict.till > now then return verdict end
  local pem = first_of(chain)
  local found, err = by_chain(state, chain, pem)
  if not found then return nil, err end
  local info
  info, err = certificate.read(pem)
  if not info then return nil, err end
  verdict = { pem = pem, info = info, issuer = found.issuer, authority = state.ids[found.authority],
    till = math.min(now + conf.cache_ttl, info.not_after) }
  state.verdicts:put(state, chain, verdict)
  return verdict
end

return verify
