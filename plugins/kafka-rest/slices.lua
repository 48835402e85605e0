-- SPDX-License-Identifier: Apache-2.0
-- Pieces of JSON texts as they were written: what a client embeds as JSON goes into its record with its own digits,
-- order and spaces, which a decoded table has lost. All but the splitter expects a text that json.decode has accepted.
local json = require "sluice.json"

local byte, find, sub = string.byte, string.find, string.sub

local slices = {}

local QUOTE, BACKSLASH = 0x22, 0x5c
local OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST = 0x7b, 0x7d, 0x5b, 0x5d

-- From a quote to behind the one that ends its text.
local function skip_text(text, at)
  while true do
    at = find(text, '["\\]', at + 1)
    if byte(text, at) == QUOTE then return at + 1 end
    at = at + 1
  end
end

local function skip_nested(text, at)
  local depth = 0
  while true do
    at = find(text, '["%[%]{}]', at)
    local char = byte(text, at)
    if char == QUOTE then
      at = skip_text(text, at)
    else
      local opens = char == OPEN_OBJECT or char == OPEN_LIST
      depth = depth + (opens and 1 or -1)
      at = at + 1
      if depth == 0 then return at end
    end
  end
end

-- Behind the value that begins at `at`.
local function skip(text, at)
  local char = byte(text, at)
  if char == QUOTE then return skip_text(text, at) end
  if char == OPEN_OBJECT or char == OPEN_LIST then return skip_nested(text, at) end
  return find(text, "[%s,%]}]", at) or #text + 1
end

-- The members of an object, as texts, by name; of two with one name the last, as json.decode takes it.
---@param text string
---@return table<string, string>
function slices.members(text)
  local found = {}
  local at = find(text, "{", 1, true) + 1
  while true do
    at = find(text, '["}]', at)
    if byte(text, at) == CLOSE_OBJECT then return found end
    local key_ends = skip_text(text, at)
    local key = sub(text, at + 1, key_ends - 2)
    if find(key, "\\", 1, true) then key = json.decode(sub(text, at, key_ends - 1)) end
    local value_at = find(text, "[^%s:]", key_ends)
    at = skip(text, value_at)
    found[key] = sub(text, value_at, at - 1)
  end
end

-- The elements of an array, as texts.
---@param text string
---@return string[]
function slices.elements(text)
  local found = {}
  local at = find(text, "[", 1, true) + 1
  while true do
    at = find(text, "[^%s,]", at)
    if byte(text, at) == CLOSE_LIST then return found end
    local ends = skip(text, at)
    found[#found + 1] = sub(text, at, ends - 1)
    at = ends
  end
end

-- ---- Objects one behind the other, as they come --------------------------------------------------------------------

---@class kafka-rest.splitter
local Splitter = {}
Splitter.__index = Splitter

-- For a stream of objects, also in an array or between commas, that comes in pieces.
---@param most integer bytes that one object may have
function slices.splitter(most)
  return setmetatable({ text = "", at = 1, from = nil, depth = 0, quoted = false, most = most }, Splitter)
end

---@param piece string
function Splitter:feed(piece)
  self.text = self.text .. piece
end

-- Nothing of it is needed any more.
local function forget(self)
  local keep = self.from or self.at
  if keep > 1 then
    self.text = sub(self.text, keep)
    self.at = self.at - keep + 1
    self.from = self.from and 1
  end
end

-- Goes on inside an object: true once it has ended, and `at` is behind it.
local function run(self)
  local text = self.text
  while true do
    local at
    if self.quoted then
      at = find(text, '["\\]', self.at)
      if not at then break end
      if byte(text, at) == BACKSLASH then
        if at == #text then
          self.at = at
          return false
        end
        at = at + 1
      else
        self.quoted = false
      end
    else
      at = find(text, '["%[%]{}]', self.at)
      if not at then break end
      local char = byte(text, at)
      if char == QUOTE then
        self.quoted = true
      elseif char == OPEN_OBJECT or char == OPEN_LIST then
        self.depth = self.depth + 1
      else
        self.depth = self.depth - 1
      end
    end
    self.at = at + 1
    if self.depth == 0 then return true end
  end
  self.at = #text + 1
  return false
end

-- The next whole object.
---@return string|nil text nil: none is there yet
---@return "garbage"|"large"|nil err
function Splitter:next()
  if not self.from then
    local at = find(self.text, "[^%s,%[%]]", self.at)
    if not at then
      self.text, self.at = "", 1
      return nil
    end
    if byte(self.text, at) ~= OPEN_OBJECT then return nil, "garbage" end
    self.from, self.at = at, at
  end
  if run(self) then
    local object = sub(self.text, self.from, self.at - 1)
    self.from = nil
    if #object > self.most then return nil, "large" end
    return object
  end
  forget(self)
  if #self.text > self.most then return nil, "large" end
  return nil
end

-- The object, where a text is one and nothing else.
---@param text string
---@param most integer bytes that it may have
---@return string|nil
function slices.only(text, most)
  local splitter = slices.splitter(most)
  splitter:feed(text)
  local object = splitter:next()
  if object and not find(text, "%S", splitter.at) then return object end
end

-- Whether an object has begun and not ended.
---@return boolean
function Splitter:is_inside()
  return self.from ~= nil
end

return slices
