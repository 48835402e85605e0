-- SPDX-License-Identifier: Apache-2.0
-- Encoders: a node of a schema becomes a function that writes a value of it. They write into the buffer of
-- sluice.avro.bytes and raise what does not fit.
--
-- An encoder is a table, so that a type can hold itself: put(value, depth). One of a scalar has `test(value)` besides,
-- by which a union chooses.

local ffi = require "ffi"
local bytes = require "sluice.avro.bytes"
local failure = require "sluice.avro.failure"
local json = require "sluice.json"
local logical = require "sluice.avro.logical"
local schema = require "sluice.avro.schema"
local text = require "sluice.avro.text"

local null, is_marked = json.null, json.is_array
local expected, raise, path, catch = failure.expected, failure.raise, failure.path, failure.catch
local put_long, put_raw, put_text = bytes.put_long, bytes.put_raw, bytes.put_text
local istype, next, pairs, sort, tonumber, type = ffi.istype, next, pairs, table.sort, tonumber, type
local int64, uint64 = ffi.typeof("int64_t"), ffi.typeof("uint64_t")

local encode = {}

local MOST_DEPTH = 200          -- records, lists and maps within each other
local MOST_WORK = 4000000       -- elements and fields in one value; what a union tries counts anew
local TRY_WORK = 100            -- of a branch that may not fit
local MAX_EXACT = 2 ^ 53
local FLOAT_MOST = 3.4028234663852886e38

local work = 0 -- what is left

local function enter(depth, count)
  if depth >= MOST_DEPTH then raise(depth, "nested too deeply") end
  work = work - count
  if work < 0 then raise(depth, "takes too much work") end
end

-- ---- Scalars ----

local function is_integer(value)
  if type(value) == "number" then return value % 1 == 0 and value <= MAX_EXACT and value >= -MAX_EXACT end
  if type(value) ~= "cdata" then return false end
  return istype(int64, value) or istype(uint64, value) and value <= 0x7fffffffffffffffULL
end

local function is_int(value)
  return is_integer(value) and value >= -2147483648 and value <= 2147483647
end

-- JSON has no names for these: Avro's implementations write them as texts.
local NOT_FINITE = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }

local function number_of(value)
  if type(value) == "number" then return value end
  if type(value) == "string" then return NOT_FINITE[value] end
  if type(value) == "cdata" and (istype(int64, value) or istype(uint64, value)) then return tonumber(value) end
end

local function is_float(value)
  local number = number_of(value)
  if not number then return false end
  return number ~= number or number == math.huge or number == -math.huge
    or number <= FLOAT_MOST and number >= -FLOAT_MOST
end

local function is_text(value)
  return type(value) == "string" and text.is_utf8(value)
end

local function raw_of(value)
  return type(value) == "string" and text.to_bytes(value) or nil
end

local SCALARS = {
  null = { test = function(value) return value == nil or value == null end, write = function() end },
  boolean = { test = function(value) return type(value) == "boolean" end, write = bytes.put_boolean },
  int = { test = is_int, write = put_long },
  long = { test = is_integer, write = function(value)
    put_long(type(value) == "cdata" and int64(value) or value)
  end },
  float = { test = is_float, write = function(value) bytes.put_float(number_of(value)) end },
  double = { test = function(value) return number_of(value) ~= nil end,
    write = function(value) bytes.put_double(number_of(value)) end },
  string = { test = is_text, write = put_text },
  bytes = { test = function(value) return raw_of(value) ~= nil end,
    write = function(value) put_text(raw_of(value)) end },
}

local NEEDS = {
  string = "a text of UTF-8", bytes = "bytes (a text of characters up to U+00FF)",
  int = "an int", long = "a long", float = "a float", double = "a double", boolean = "a boolean", null = "null",
}

-- A number beyond 2^53 has lost what it was, unless it came as int64_t.
local function scalar(needs, test, write)
  return { test = test, put = function(value, depth)
    if not test(value) then expected(depth, needs, value) end
    write(value)
  end }
end

local function fixed(node)
  local size = node.size
  local needs = size .. " bytes (a text of so many characters up to U+00FF)"
  return scalar(needs, function(value)
    local raw = raw_of(value)
    return raw ~= nil and #raw == size
  end, function(value) put_raw(raw_of(value)) end)
end

local SYMBOLS_SHOWN = 10

local function enum(node)
  local index = node.index
  local shown = table.concat(node.symbols, ", ", 1, math.min(#node.symbols, SYMBOLS_SHOWN))
  if #node.symbols > SYMBOLS_SHOWN then shown = shown .. ", ..." end
  return scalar("one of " .. shown, function(value) return type(value) == "string" and index[value] ~= nil end,
    function(value) put_long(index[value]) end)
end

-- ---- Logical types: in the form that people write, or in that of what they stand on ----

-- What stands for the value in the type below; nil: nothing does.
local function lower(conversion, base, value)
  local kind = type(value)
  if kind == "string" then return conversion.read and conversion.read(value) end
  if kind == "table" then return conversion.from_table and conversion.from_table(value) end
  if kind == "number" and conversion.from_number then return conversion.read(conversion.from_number(value)) end
  if kind == "cdata" and conversion.from_number then
    return conversion.read((tostring(value):gsub("U?LL$", "")))
  end
  return base.test(value) and value or nil
end

local RAW = { decimal = true, duration = true, uuid = true } -- conversions of these give bytes, if on bytes

local function of_logical(node, base)
  local conversion = logical.of(node)
  local as_bytes = RAW[node.logical] and node.kind ~= "string"
  local function read(value)
    local below = lower(conversion, base, value)
    if below == nil or as_bytes then return below end
    return base.test(below) and below or nil
  end
  local write = as_bytes and (node.kind == "fixed" and put_raw or put_text) or SCALARS[node.kind].write
  return { test = function(value) return read(value) ~= nil end, put = function(value, depth)
    local below = read(value)
    if below == nil then expected(depth, conversion.expected, value) end
    write(below)
  end }
end

-- ---- Containers ----

local Builder = {}
Builder.__index = Builder

-- An empty table that is not marked may be either.
local function is_list(value)
  return type(value) == "table" and (value[1] ~= nil or is_marked(value) or next(value) == nil)
end

local function is_object(value)
  return type(value) == "table" and value[1] == nil and not is_marked(value)
end

function Builder:array(node, encoder)
  local items = self:of(node.items)
  encoder.put = function(value, depth)
    if not is_list(value) then expected(depth, "an array", value) end
    local count = #value
    enter(depth, count)
    if count > 0 then
      put_long(count)
      local inner = depth + 1
      for i = 1, count do
        path[inner] = i - 1
        items.put(value[i], inner)
      end
    end
    put_long(0)
  end
end

-- By name, so that equal maps are equal bytes.
local function names_of(value, depth)
  local names, count = {}, 0
  for name in pairs(value) do
    if type(name) ~= "string" or not text.is_utf8(name) then expected(depth, "an object", value) end
    count = count + 1
    names[count] = name
  end
  sort(names)
  return names, count
end

function Builder:map(node, encoder)
  local values = self:of(node.values)
  encoder.put = function(value, depth)
    if not is_object(value) then expected(depth, "an object", value) end
    local names, count = names_of(value, depth)
    enter(depth, count)
    if count > 0 then
      put_long(count)
      local inner = depth + 1
      for i = 1, count do
        local name = names[i]
        put_text(name)
        path[inner] = name
        values.put(value[name], inner)
      end
    end
    put_long(0)
  end
end

local function refuse_strangers(fields, value, depth)
  for name in pairs(value) do
    if not fields[name] then
      path[depth + 1] = name
      raise(depth + 1, "there is no such field")
    end
  end
end

local function count_of(value)
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  return count
end

function Builder:record(node, encoder)
  local fields, count, names, encoders = node.fields, #node.fields, {}, {}
  for i = 1, count do names[i], encoders[i] = fields[i].name, self:of(fields[i].node) end
  encoder.put = function(value, depth)
    if not is_object(value) then expected(depth, "an object", value) end
    enter(depth, count)
    local inner, found = depth + 1, 0
    for i = 1, count do
      local name = names[i]
      local one = value[name]
      path[inner] = name
      if one ~= nil then
        found = found + 1
        encoders[i].put(one, inner)
      elseif fields[i].bytes then
        put_raw(fields[i].bytes)
      else
        raise(inner, "is missing")
      end
    end
    if count_of(value) ~= found then refuse_strangers(node.by_name, value, depth) end
  end
end

-- ---- Unions ----

local KINDS = { -- of JSON values that may be of a type
  null = { "null" }, boolean = { "boolean" }, int = { "number", "integer" }, long = { "number", "integer" },
  float = { "number", "integer", "string" }, double = { "number", "integer", "string" }, string = { "string" },
  bytes = { "string" }, fixed = { "string" }, enum = { "string" }, array = { "array", "empty" },
  map = { "object", "empty" }, record = { "object", "empty" },
}
local LOGICAL_KINDS = {
  decimal = { "string", "number", "integer" }, uuid = { "string" }, duration = { "object", "empty" },
}
local TIME_KINDS = { "number", "integer", "string" }

local function kind_of(value)
  local kind = type(value)
  if kind ~= "table" then
    if value == nil or value == null then return "null" end
    return kind == "cdata" and "integer" or kind
  end
  if value[1] ~= nil or is_marked(value) then return "array" end
  return next(value) == nil and "empty" or "object"
end

local function kinds_of(node, by_logical)
  if not by_logical or not node.logical then return KINDS[node.kind] end
  return LOGICAL_KINDS[node.logical] or TIME_KINDS
end

local function try(encoder, value, depth)
  encoder.put(value, depth)
  return true
end

-- Writes the first branch of the list that the value fits. The failure of the only one; nil: of several.
local function put_first(list, value, depth)
  for i = 1, #list do
    local branch = list[i]
    local test = branch.encoder.test
    if not test then
      local mark = bytes.mark()
      enter(depth, TRY_WORK)
      put_long(branch.index)
      local done, why = catch(try, branch.encoder, value, depth)
      if done then return true end
      if work < 0 then error(why, 0) end
      bytes.back_to(mark)
    elseif test(value) then
      put_long(branch.index)
      branch.encoder.put(value, depth)
      return true
    end
  end
  return false
end

-- The only member of an object, when that is the name of a branch.
local function tagged(tags, value)
  if type(value) ~= "table" then return nil end
  local name, inner = next(value)
  local branch = type(name) == "string" and tags[name]
  if not branch or next(value, name) ~= nil then return nil end
  return branch, inner
end

-- A value alone; where that does not say it, the name of its branch around it.
local function put_plain(node, by_kind, tags)
  local needs = schema.describe(node)
  return function(value, depth)
    local list = by_kind[kind_of(value)]
    local branch, inner = tagged(tags, value)
    if #list == 1 and not branch then
      put_long(list[1].index)
      list[1].encoder.put(value, depth)
    elseif not put_first(list, value, depth) then
      if not branch then expected(depth, needs, value) end
      put_long(branch.index)
      path[depth + 1] = branch.tag
      branch.encoder.put(inner, depth + 1)
    end
  end
end

-- Avro's JSON: the name of its branch around each value but null.
local function put_tagged(node, tags)
  local needs = schema.describe(node) .. ", as an object with that name"
  return function(value, depth)
    if value == nil or value == null then
      if not tags.null then expected(depth, needs, value) end
      put_long(tags.null.index)
      return
    end
    local branch, inner = tagged(tags, value)
    if not branch then expected(depth, needs, value) end
    put_long(branch.index)
    path[depth + 1] = branch.tag
    branch.encoder.put(inner, depth + 1)
  end
end

function Builder:union(node, encoder)
  local by_kind, tags = {}, {}
  for _, kind in ipairs { "null", "boolean", "number", "integer", "string", "array", "object", "empty" } do
    by_kind[kind] = {}
  end
  for i, one in ipairs(node.branches) do
    local branch = { index = i - 1, tag = schema.tag(one), encoder = self:of(one) }
    tags[branch.tag] = branch
    for _, kind in ipairs(kinds_of(one, self.logical)) do
      by_kind[kind][#by_kind[kind] + 1] = branch
    end
  end
  encoder.put = self.plain and put_plain(node, by_kind, tags) or put_tagged(node, tags)
end

-- ---- Of nodes ----

local function make(self, node, encoder)
  local kind = node.kind
  if Builder[kind] and kind ~= "of" then return self[kind](self, node, encoder) end
  local one
  if kind == "fixed" then
    one = fixed(node)
  elseif kind == "enum" then
    one = enum(node)
  else
    one = scalar(NEEDS[kind], SCALARS[kind].test, SCALARS[kind].write)
  end
  if self.logical and node.logical then one = of_logical(node, one) end
  encoder.test, encoder.put = one.test, one.put
end

function Builder:of(node)
  local encoder = self.made[node]
  if not encoder then
    encoder = {}
    self.made[node] = encoder
    make(self, node, encoder)
  end
  return encoder
end

-- Makes encoders: `encoders:of(node)`.
---@param mode { plain: boolean, logical: boolean } plain: a value of a union may stand alone; logical: values of
---  logical types are as people write them
---@return table
function encode.new(mode)
  return setmetatable({ plain = mode.plain, logical = mode.logical, made = {} }, Builder)
end

local function run(encoder, value)
  work = MOST_WORK
  bytes.start()
  encoder.put(value, 0)
  return bytes.finish()
end

---@param encoder table
---@param value any
---@return string|nil
---@return sluice.avro.failure|nil
function encode.run(encoder, value)
  return catch(run, encoder, value)
end

return encode
