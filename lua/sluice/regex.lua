-- SPDX-License-Identifier: Apache-2.0
-- Regular expressions (PCRE2, compiled to machine code). A match is bounded in time and memory, so a plugin may let
-- clients' texts meet any pattern; what passes the bound does not match.
--
--   local digits = regex.new [[^v(?<major>\d+)]]
--   digits:test("v12")            -- true
--   digits:match("v12").major     -- "12"

local ffi = require "ffi"
local check = require "sluice.api.check"
local native = require "sluice.ffi"

local C = native.C -- needs no worker: schemas try patterns while the configuration is checked
local sub, type = string.sub, type
local NOT_MATCHED = 4294967295

---@class sluice.regex
local regex = {}

local WHY_BYTES = 256
local GROUPS = 32 -- of which the spans are kept

local compiled = setmetatable({}, { __mode = "k" }) -- by object, so that no plugin holds a pointer
local names = setmetatable({}, { __mode = "k" })    -- by object: group numbers by name
local from, to = ffi.new("uint32_t[1]"), ffi.new("uint32_t[1]")
local scratch

local function match(object, subject, init)
  scratch = scratch or ffi.gc(C.bridge_regex_scratch_new(GROUPS), C.bridge_regex_scratch_free)
  return C.bridge_regex_match(compiled[object], subject, #subject, init and init - 1 or 0, scratch)
end

local function check_init(name, init)
  if init ~= nil and (type(init) ~= "number" or init < 1 or init % 1 ~= 0) then
    check.fail(name, "init must be an integer of at least 1")
  end
end

local function span(index)
  C.bridge_regex_span(scratch, index, from, to)
  if from[0] == NOT_MATCHED then return nil end
  return from[0] + 1, to[0]
end

---@class sluice.regex.object
local Regex = {}
local regex_mt = { __index = Regex, __metatable = false }

---@param subject string
---@return boolean
function Regex:test(subject)
  check.string("regex:test", "subject", subject)
  return match(self, subject) > 0
end

-- Where the first match begins and ends.
---@param subject string
---@param init? integer where to look from; what stands before it is seen by lookbehind and anchors
---@return integer|nil from
---@return integer|nil to
function Regex:find(subject, init)
  check.string("regex:find", "subject", subject)
  check_init("regex:find", init)
  if match(self, subject, init) <= 0 then return nil end
  return span(0)
end

-- The texts of the first match: the whole as [0], groups by number and name (false: took no part).
---@param subject string
---@param init? integer where to look from
---@return table<integer|string, string|false>|nil
---@return integer|nil from where the match begins
---@return integer|nil to where it ends
function Regex:match(subject, init)
  check.string("regex:match", "subject", subject)
  check_init("regex:match", init)
  if match(self, subject, init) <= 0 then return nil end
  local found = {}
  for index = 0, math.min(C.bridge_regex_groups(compiled[self]), GROUPS) do
    local first, last = span(index)
    found[index] = first and sub(subject, first, last) or false
  end
  for name, index in pairs(names[self]) do found[name] = found[index] end
  return found, span(0)
end

local function names_of(pointer)
  local list, index = {}, 0
  local name, group = ffi.new("struct bytes[1]"), ffi.new("uint32_t[1]")
  while C.bridge_regex_group_name(pointer, index, name, group) do
    list[ffi.string(name[0].data, name[0].len)] = tonumber(group[0])
    index = index + 1
  end
  return list
end

-- Compiling takes tens of microseconds: it belongs into `configure`.
---@param pattern string
---@param options? { caseless: boolean, anchored: boolean } anchored: matches at the start or not at all
---@return sluice.regex.object|nil
---@return string|nil err
function regex.new(pattern, options)
  check.string("sluice.regex.new", "pattern", pattern)
  check.table_or_nil("sluice.regex.new", "options", options)
  options = type(options) == "table" and options or {}
  local why = ffi.new("char[?]", WHY_BYTES)
  local pointer = C.bridge_regex_new(pattern, #pattern, options.caseless == true, options.anchored == true, why,
    WHY_BYTES)
  if pointer == nil then return nil, ffi.string(why) end
  local object = setmetatable({}, regex_mt)
  compiled[object] = ffi.gc(pointer, C.bridge_regex_free)
  names[object] = names_of(pointer)
  return object
end

return regex
