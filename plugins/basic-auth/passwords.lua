-- SPDX-License-Identifier: Apache-2.0
-- Whether a password is the one of a credential. Hashes as of crypt(5) are slow by intent, so what was found out is
-- kept with the credential, for as long as the configuration has it unchanged: the right password, and the last wrong
-- ones. Kept are codes made with a key of this worker's own; a dump of its memory shows no password.
--
--   SHA-1 (Kong's) -> compared at once
--   known code     -> compared at once
--   else           -> the helper thread, once for all who ask the same; a few at a time for one address
local crypto = require "sluice.crypto"
local lock = require "sluice.lock"
local log = require "sluice.log"

local passwords = {}

local MOST_WRONG = 4       -- kept for one credential: a client with an old password repeats it for days
local MOST_STRANGERS = 256 -- kept of names that nobody has
local MOST_OF_ADDRESS = 8  -- that one address may have in the helper's line, which has 64 places
local PATIENCE_S = 10

local known = setmetatable({}, { __mode = "k" }) -- by credential: { right, wrong = { [code] = true }, ring, at }
local waiting = {}                               -- by address: how many
local last_hash                                  -- of any credential: what a stranger's password is tried on

local secret

local function code_of(text)
  secret = secret or crypto.random(32)
  return crypto.hmac("sha256", secret, text)
end

local function new_memory(most)
  return { right = nil, wrong = {}, ring = {}, at = 0, most = most }
end

local strangers = new_memory(MOST_STRANGERS)

-- The oldest makes room.
local function keep_wrong(memory, code)
  if memory.wrong[code] then return end
  memory.at = memory.at % memory.most + 1
  local oldest = memory.ring[memory.at]
  if oldest then memory.wrong[oldest] = nil end
  memory.ring[memory.at], memory.wrong[code] = code, true
end

local function memory_of(credential)
  local memory = known[credential]
  if not memory then
    memory = new_memory(MOST_WRONG)
    known[credential] = memory
  end
  return memory
end

-- Takes a place in the helper's line for that address, and gives it back when the work is done. Nothing of an exchange
-- is touched behind the wait: its client may have left.
local function ask_helper(password, hash, address)
  local count = (waiting[address] or 0) + 1
  if count > MOST_OF_ADDRESS then return nil end
  waiting[address] = count
  log.debug("a password is checked")
  local ok, fits = pcall(crypto.check_password, password, hash)
  count = waiting[address] - 1
  waiting[address] = count > 0 and count or nil
  if not ok then error(fits, 0) end
  return fits
end

-- Waits, with all who ask the same. nil: nobody knows.
local function ask(password, hash, memory, code, address)
  local fits = lock.once("basic-auth:" .. code, PATIENCE_S, ask_helper, password, hash, address)
  if fits == nil then return nil end
  if memory == strangers then fits = false end
  if fits then memory.right = code else keep_wrong(memory, code) end
  return fits
end

local function fits_sha1(credential, password)
  local made = crypto.hex(crypto.digest("sha1", password .. credential.consumer))
  return crypto.equal(made, credential.password:lower())
end

-- As long as it takes to find out that the password of somebody known is wrong, so that nobody learns names.
local function check_stranger(name, password, address)
  if not last_hash then return false end
  local code = code_of("-:" .. name .. "\0" .. password)
  if strangers.wrong[code] then return false end
  return false, ask(password, last_hash, strangers, code, address) == nil
end

-- Whether the password fits. It may wait.
---@param credential table|nil
---@param stranger string|nil the name, when there is no credential of it
---@param password string
---@param address string whence it came
---@return boolean fits
---@return boolean|nil busy too many are being checked: nobody knows
function passwords.check(credential, stranger, password, address)
  if not credential then return check_stranger(stranger, password, address) end
  local hash = credential.password
  if hash:byte(1) ~= 36 then return fits_sha1(credential, password) end
  last_hash = hash
  local memory = memory_of(credential)
  local code = code_of(credential.id .. ":" .. password)
  if memory.right == code then return true end
  if memory.wrong[code] then return false end
  local fits = ask(password, hash, memory, code, address)
  return fits == true, fits == nil
end

return passwords
