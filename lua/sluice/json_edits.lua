-- SPDX-License-Identifier: Apache-2.0
-- Edits of JSON texts, made once and run over many: members are removed, renamed, replaced, added and appended to by
-- path. What no edit names keeps its bytes, so its order, its digits and its spelling.
--
--   local edits = json_edits.new { { "remove", { "internal" } }, { "add", { "meta", "version" }, "2" } }
--   local text, err = edits:run('{"internal":1,"meta":{}}')  --> {"meta":{"version":2}}

local ffi = require "ffi"
local native = require "sluice.ffi"

local C, worker = native.C, native.worker
local ffi_string, type, tonumber = ffi.string, type, tonumber
local find, gmatch, match, sub = string.find, string.gmatch, string.match, string.sub

local E = ffi.C
local OK, FULL = 0, -3

local json_edits = {}

---@class sluice.json_edits
local methods = {}
methods.__index = methods
methods.__metatable = false

local STEPS = { remove = E.JSON_REMOVE, rename = E.JSON_RENAME, replace = E.JSON_REPLACE, add = E.JSON_ADD,
  append = E.JSON_APPEND, allow = E.JSON_ALLOW }

json_edits.MOST_STEPS = 32 -- down a path

local out = ffi.new("struct bytes[1]")

-- A path as Kong's advanced transformers write it: "customers[*].info.phone", "list[2]" (elements count from 1).
---@param text string
---@return (string|integer)[]|nil steps: names, and numbers for elements, 0 for all
---@return string|nil err
function json_edits.path(text)
  local path = {}
  for piece in gmatch(text .. ".", "(.-)%.") do
    local name, elements = match(piece, "^([^%[]*)(.*)$")
    if name ~= "" then path[#path + 1] = name end
    if name == "" and (elements == "" or #path > 0) then return nil, "expected a name on both sides of each dot" end
    while elements ~= "" do
      local which, rest = match(elements, "^%[(%*)%](.*)$")
      if not which then which, rest = match(elements, "^%[([1-9]%d?%d?%d?%d?%d?%d?%d?)%](.*)$") end
      if not which then return nil, "expected [*], or [N] with N from 1, found " .. elements end
      path[#path + 1] = which == "*" and 0 or tonumber(which)
      elements = rest
    end
  end
  if #path > json_edits.MOST_STEPS then return nil, "expected at most " .. json_edits.MOST_STEPS .. " steps" end
  return path
end

local function steps_of(path)
  local steps = ffi.new("struct bytes[?]", #path)
  for i = 1, #path do
    local step = path[i]
    if type(step) == "string" then
      steps[i - 1].data, steps[i - 1].len = step, #step
    else
      steps[i - 1].len = step
    end
  end
  return steps
end

-- list: { step, path, value } each, run in this order, each on what those before have left. step: "remove"; "rename"
-- (value: the new name); "replace" what is there; "add" what is not; "append" to a list, which what is there becomes;
-- "allow": path holds the names of the only members that stay. value: JSON text.
---@param list { [1]: string, [2]: (string|integer)[], [3]: string|nil }[]
---@return sluice.json_edits
function json_edits.new(list)
  local handle = ffi.gc(C.bridge_json_edits_new(), C.bridge_json_edits_free)
  for _, edit in ipairs(list) do
    local path, value = edit[2], edit[3] or ""
    local status = C.bridge_json_edits_add(handle, STEPS[edit[1]], steps_of(path), #path, value, #value)
    if status ~= OK then error("json_edits.new: " .. (status == FULL and "no memory" or "an invalid edit"), 2) end
  end
  return setmetatable({ handle = handle, values = {} }, methods)
end

-- Gives an edit, other than one that renames, another value from now on.
---@param number integer of the edit, from 1
---@param value string JSON text
function methods:set(number, value)
  if C.bridge_json_edits_value(self.handle, number - 1, value, #value) ~= OK then
    error("json_edits.set: there is no edit " .. tostring(number) .. " with a value", 2)
  end
  self.values[number] = value -- the core reads it where it is
end

---@param text string
---@return string|nil edited
---@return string|nil err
function methods:run(text)
  local status = C.bridge_json_edits_run(worker, self.handle, text, #text, out)
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  if status == FULL then return nil, "it is too large" end
  return nil, ffi_string(C.bridge_error(worker))
end

-- Whether an object may begin there, without reading it.
---@param text string
---@return boolean
function json_edits.is_object(text)
  local at = find(text, "[^ \t\r\n]")
  return at ~= nil and sub(text, at, at) == "{"
end

return json_edits
