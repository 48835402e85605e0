-- SPDX-License-Identifier: Apache-2.0
-- The keys that an issuer publishes at a URL (a JWK Set, RFC 7517): fetched when first needed, kept, and looked at
-- again when they grow old or a token names a key that is not among them.
--
--   find(kid) --> known, young:  at once
--             --> known, old:    at once; fetched again behind the scenes
--             --> unknown:       one fetch for all who ask, not more often than `interval`, then known or not
--
-- While the URL fails, what was fetched last stays in use. One worker fetches for itself alone.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local crypto = require "sluice.crypto"
local http = require "sluice.http"
local json = require "sluice.json"
local jwt = require "sluice.jwt"
local log = require "sluice.log"
local time = require "sluice.time"
local timer = require "sluice.timer"

local C, worker = core.C, core.worker
local type = type

---@class sluice.jwks
local jwks = {}

local MOST_KEYS = 100
local MOST_CANDIDATES = 4  -- that a signature is tried with when the token names no key, or several have its name
local RSA_BITS_LEAST = 2048 -- RFC 7518, 3.3
local ACCEPT = { Accept = "application/jwk-set+json, application/json" }

---@class sluice.jwks.entry
---@field kid string|nil
---@field alg string|nil
---@field key sluice.crypto.key
---@field alive boolean false once the issuer has withdrawn it

---@class sluice.jwks.set
local Set = {}
local set_mt = { __index = Set, __metatable = false }

local sets = setmetatable({}, { __mode = "v" }) -- by what they were opened with: plugins that name one URL share one

-- The keys of a URL. Nothing is fetched yet.
---@param url string
---@param options? { ttl: number, interval: number, timeout: number, max_bytes: integer, verify: boolean } seconds;
---  300, 30 and 5 unless told; 65536 bytes; verify: the server's certificate, true unless told
---@return sluice.jwks.set
function jwks.open(url, options)
  check.string("sluice.jwks.open", "url", url)
  check.table_or_nil("sluice.jwks.open", "options", options)
  options = options or {}
  local ttl, interval, timeout = options.ttl or 300, options.interval or 30, options.timeout or 5
  local max_bytes, verify = options.max_bytes or 65536, options.verify ~= false
  local name = ("%s|%.14g|%.14g|%.14g|%d|%s"):format(url, ttl, interval, timeout, max_bytes, tostring(verify))
  local set = sets[name]
  if not set then
    set = setmetatable({ url = url, ttl = ttl, interval = interval, timeout = timeout, max_bytes = max_bytes,
      verify = verify, entries = {}, waiters = {} }, set_mt)
    sets[name] = set
  end
  return set
end

-- ---- Reading a set ----

local function allows(list, word)
  if type(list) ~= "table" then return list == nil end
  for _, item in ipairs(list) do
    if item == word then return true end
  end
  return false
end

-- What tells one key from another: as much as is used of it.
local function identity_of(jwk)
  local parts = {}
  for i, name in ipairs { "kid", "alg", "kty", "crv", "n", "e", "x", "y" } do
    local value = jwk[name]
    parts[i] = type(value) == "string" and value or ""
  end
  parts[#parts + 1] = type(jwk.x5c) == "table" and tostring(jwk.x5c[1]) or ""
  return table.concat(parts, "\0")
end

-- What is for something else, or of no use, is passed over: a set may hold more than signatures need.
local function entry_of(jwk)
  if type(jwk) ~= "table" then return nil end
  if jwk.use ~= nil and jwk.use ~= "sig" or not allows(jwk.key_ops, "verify") then return nil end
  if jwk.kid ~= nil and type(jwk.kid) ~= "string" or jwk.alg ~= nil and type(jwk.alg) ~= "string" then return nil end
  local key = crypto.key_from_jwk(jwk)
  if not key or key.type == "RSA" and key.bits < RSA_BITS_LEAST then return nil end
  return { kid = jwk.kid, alg = jwk.alg, key = key, identity = identity_of(jwk), alive = true }
end

local function by_identity(entries)
  local found = {}
  for i = 1, #entries do found[entries[i].identity] = entries[i] end
  return found
end

-- The entries of a body, those that are still there being the same tables as before.
local function read(body, before)
  local document, err = json.decode(body)
  local list = type(document) == "table" and document.keys
  if type(list) ~= "table" then return nil, err or "it has no list of keys" end
  local known, entries = by_identity(before), {}
  for i = 1, math.min(#list, MOST_KEYS) do
    local jwk = list[i]
    local old = type(jwk) == "table" and known[identity_of(jwk)]
    entries[#entries + 1] = old or entry_of(jwk)
  end
  return entries
end

local function replace(self, entries)
  for _, entry in ipairs(self.entries) do entry.alive = false end
  for _, entry in ipairs(entries) do entry.alive = true end
  self.entries = entries
end

-- ---- Fetching ----

local function fetch(self)
  local response, err = http.get(self.url, { timeout = self.timeout, max_body = self.max_bytes, headers = ACCEPT,
    tls = { verify = self.verify } })
  if not response then return err end
  if response.status ~= 200 then return "status " .. response.status end
  local entries
  entries, err = read(response.body, self.entries)
  if not entries then return err end
  replace(self, entries)
  self.fetched = time.monotonic()
  return nil
end

local function settle(self)
  local waiters = self.waiters
  self.flying, self.waiters = false, {}
  for i = 1, #waiters do C.bridge_wake(worker, waiters[i], 0, 0) end
end

-- In a coroutine of its own, so that it goes on when who wanted it has left.
local function fly(self)
  local ok, err = pcall(fetch, self)
  if not ok or err then log.warn("the keys of a JWKS URL cannot be had", { url = self.url, error = tostring(err) }) end
  settle(self)
end

-- Starts a fetch unless one is under way or was a moment ago. Whether one is under way.
local function refresh(self)
  local now = time.monotonic()
  if self.flying and now < self.tried + self.timeout + 1 then return true end
  if self.tried and now < self.tried + self.interval then return false end
  self.tried, self.flying = now, true
  if timer.at(0, fly, self) then return true end
  settle(self)
  return false
end

local function leave(waiters, me)
  for i = 1, #waiters do
    if waiters[i] == me then return table.remove(waiters, i) end
  end
end

local function wait(self)
  local deadline, me = time.monotonic() + self.timeout + 1, C.bridge_self(worker)
  while self.flying do
    local left = deadline - time.monotonic()
    if left <= 0 then return end
    self.waiters[#self.waiters + 1] = me
    core.wait(C.bridge_wait(worker, left))
    leave(self.waiters, me)
  end
end

-- ---- Looking for a key ----

local function matches(entry, kid, algorithm)
  return (kid == nil or entry.kid == kid) and (entry.alg == nil or entry.alg == algorithm)
    and jwt.fits(algorithm, entry.key)
end

local function candidates(self, kid, algorithm)
  local list = {}
  for _, entry in ipairs(self.entries) do
    if #list < MOST_CANDIDATES and matches(entry, kid, algorithm) then list[#list + 1] = entry end
  end
  return list
end

-- The keys that a token may be signed with. May wait for a fetch.
---@param kid string|nil from the token's header
---@param algorithm string from there too, one that the caller allows
---@return sluice.jwks.entry[] none: there is no such key
---@return string|nil err "unavailable": no keys have been had from the URL so far
function Set:find(kid, algorithm)
  local list = candidates(self, kid, algorithm)
  local fetched = self.fetched
  if not list[1] then
    if refresh(self) then wait(self) end
    list = candidates(self, kid, algorithm)
  elseif time.monotonic() >= fetched + self.ttl then
    refresh(self)
  end
  return list, not self.fetched and "unavailable" or nil
end

return jwks
