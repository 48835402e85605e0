-- SPDX-License-Identifier: Apache-2.0
-- Hashes of passwords as crypt(5) has them, by the system's libcrypt (libxcrypt): they say themselves how they were
-- made, and every tool that makes such hashes (mkpasswd, htpasswd -B, openssl passwd) makes them for us. Only a few
-- functions of its public header are used.
local ffi = require "ffi"
local uuid = require "sluice.config.uuid"

ffi.cdef [[
char *crypt_rn(const char *phrase, const char *setting, void *data, int size);
char *crypt_gensalt_rn(const char *prefix, unsigned long count, const char *random, int random_bytes, char *output,
                       int output_bytes);
]]

local C = ffi.load("libcrypt.so.1")

local password = {}

local DATA_BYTES, SETTING_BYTES, SALT_BYTES = 32768, 192, 16
local MOST = 511 -- bytes of a password that libcrypt takes
local MODERN = "$y$" -- yescrypt

-- What a password in the configuration costs to hash, each time that the file is read anew: 4 ms, 4 MB. It stands there
-- for all to read who may read the file, so more would slow the start of a thousand of them and protect nobody. Hashes
-- that `sluice password` makes cost what the system takes for its own users.
local LOADING_COST = 3
password.COST = 5
password.COSTS = 11

local LETTER = "[./%w]"

local function times(item, count)
  return item:rep(count)
end

-- By the name between the first dollars. Those whose methods have been broken are not among them.
local BCRYPT = "^%d%d%$" .. times(LETTER, 53) .. "$"
local FORMS = {
  y = "^" .. LETTER .. "+%$" .. LETTER .. "*%$" .. times(LETTER, 43) .. "$",
  ["7"] = "^" .. times(LETTER, 11) .. LETTER .. "*%$" .. times(LETTER, 43) .. "$",
  ["2a"] = BCRYPT, ["2b"] = BCRYPT, ["2y"] = BCRYPT,
  ["5"] = "^[%w=]*%$?[^$:%c]+%$" .. times(LETTER, 43) .. "$",
  ["6"] = "^[%w=]*%$?[^$:%c]+%$" .. times(LETTER, 86) .. "$",
}
FORMS.gy = FORMS.y

-- What a text is: "crypt", "sha1" (40 hex digits, as Kong writes out), or nil: neither.
---@param text string
---@return "crypt"|"sha1"|nil
function password.kind(text)
  local name, rest = text:match("^%$(%w+)%$(.*)$")
  if name and FORMS[name] and rest:find(FORMS[name]) then return "crypt" end
  if #text == 40 and text:find("^%x+$") then return "sha1" end
  return nil
end

-- What more than a few seconds take, or a gigabyte: one such hash would hold up all who wait behind it.
local MOST_BCRYPT, MOST_ROUNDS, MOST_MEMORY = 16, 10000000, 18 -- powers of two, but for the rounds
local DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

-- The power of two that a letter stands for.
local function power_of(letter, first)
  local at = letter and DIGITS:find(letter, 1, true)
  return at and at - 1 + first or 0
end

-- Whether a hash of crypt(5) takes longer to compute than a gateway should.
---@param hash string
---@return boolean
function password.is_slow(hash)
  local name, rest = hash:match("^%$(%w+)%$(.*)$")
  if name == "5" or name == "6" then return (tonumber(rest:match("^rounds=(%d+)%$")) or 0) > MOST_ROUNDS end
  if name == "7" then return power_of(rest:sub(1, 1), 0) > MOST_MEMORY + 2 end
  if name == "y" or name == "gy" then return power_of(rest:sub(2, 2), 1) > MOST_MEMORY end
  return tonumber(rest:sub(1, 2)) > MOST_BCRYPT
end

-- The hash of a password with random bytes of the caller's.
---@param text string
---@param random string 16 bytes or more
---@param cost integer 1 to 11
---@return string|nil
---@return string|nil expected what would have been a password
function password.make(text, random, cost)
  if text == "" or #text > MOST or text:find("%z") then
    return nil, ("a password of 1 to %d bytes, none of them zero"):format(MOST)
  end
  local setting, data = ffi.new("char[?]", SETTING_BYTES), ffi.new("char[?]", DATA_BYTES)
  local good = C.crypt_gensalt_rn(MODERN, cost, random, SALT_BYTES, setting, SETTING_BYTES)
  local hash = good ~= nil and C.crypt_rn(text, setting, data, DATA_BYTES)
  if not hash or hash == nil then return nil, "a password that libcrypt hashes" end
  return ffi.string(hash)
end

-- The hash of a password in the configuration. It is the same from load to load, that nothing changes where nothing
-- has: so its salt follows from the credential's id.
---@param text string
---@param id string
---@return string|nil
---@return string|nil expected
function password.hash(text, id)
  return password.make(text, (uuid.sha1_hex("sluice password " .. id):gsub("%x%x", function(two)
    return string.char(tonumber(two, 16))
  end)), LOADING_COST)
end

-- Whether `text` is the password that a hash of crypt(5) was made of.
---@param text string
---@param hash string
---@return boolean
function password.fits(text, hash)
  if #text > MOST or text:find("%z") then return false end
  local made = C.crypt_rn(text, hash, ffi.new("char[?]", DATA_BYTES), DATA_BYTES)
  return made ~= nil and ffi.string(made) == hash
end

return password
