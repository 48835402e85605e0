-- SPDX-License-Identifier: Apache-2.0
-- Decoders: what was written with one schema becomes a function that reads it as a value of another, or of the same
-- (the specification's "schema resolution"). They read from sluice.avro.bytes and raise what is wrong.
--
-- A decoder is a table, so that a type can hold itself: get(depth).

local ffi = require "ffi"
local bytes = require "sluice.avro.bytes"
local failure = require "sluice.avro.failure"
local json = require "sluice.json"
local logical = require "sluice.avro.logical"
local schema = require "sluice.avro.schema"
local text = require "sluice.avro.text"

local null, array = json.null, json.array
local raise, path, catch = failure.raise, failure.path, failure.catch
local get_long, get_raw, get_text = bytes.get_long, bytes.get_raw, bytes.get_text
local from_bytes, is_utf8 = text.from_bytes, text.is_utf8
local format, ipairs, match, tonumber, type = string.format, ipairs, string.match, tonumber, type

local decode = {}

local MOST_DEPTH = 200     -- as encoders have it
local MOST_EMPTY = 1000000 -- elements without a byte in one text: no other bound holds them

local empty_left = 0

-- ---- Scalars: how each is read, and what JSON shows of it ----

local function get_int(depth)
  local value = get_long(depth)
  if value > 2147483647 or value < -2147483648 then raise(depth, "an int of more than 32 bits") end
  return value
end

local READ = {
  null = function() return null end,
  boolean = bytes.get_boolean, int = get_int, long = get_long, float = bytes.get_float, double = bytes.get_double,
  string = get_text, bytes = get_text,
}

local function show_number(value)
  if value ~= value then return "NaN" end
  if value == math.huge then return "Infinity" end
  if value == -math.huge then return "-Infinity" end
  return value
end

local function show_text(value, depth)
  if not is_utf8(value) then raise(depth, "a text that is not UTF-8") end
  return value
end

local cell = ffi.new("float[1]")

-- The shortest digits that mean this float, not those of the double that it is in Lua: 0.1, not 0.10000000149011612.
local function show_float(value)
  if value % 1 == 0 or value ~= value then return show_number(value) end
  for digits = 7, 8 do
    local short = tonumber(format("%." .. digits .. "g", value))
    cell[0] = short
    if cell[0] == value then return short end
  end
  return tonumber(format("%.9g", value))
end

local SHOW = { float = show_float, double = show_number, string = show_text, bytes = from_bytes, fixed = from_bytes }

-- What JSON shows of a value read with the writer's type, as one of the reader's.
local function shower(node, by_logical)
  local show = SHOW[node.kind]
  if not by_logical or not node.logical then return show end
  local conversion = logical.of(node)
  return function(value, depth)
    local shown = conversion.show(value)
    if shown == nil then raise(depth, "a " .. node.logical .. " too long to show") end
    if type(shown) == "string" and node.kind == "string" then return show_text(shown, depth) end
    return shown
  end
end

-- ---- Which of the reader's types a writer's may be read as ----

local PROMOTIONS = {
  int = { long = true, float = true, double = true }, long = { float = true, double = true },
  float = { double = true }, string = { bytes = true }, bytes = { string = true },
}

local function last_name(name)
  return match(name, "[^.]*$")
end

local function same_name(writer, reader)
  if last_name(writer.name) == last_name(reader.name) then return true end
  for _, alias in ipairs(reader.aliases) do
    if alias == writer.name or last_name(alias) == last_name(writer.name) then return true end
  end
  return false
end

local function may_be(writer, reader)
  if writer.kind ~= reader.kind then return (PROMOTIONS[writer.kind] or {})[reader.kind] or false end
  if not writer.name then return true end
  return same_name(writer, reader) and (writer.kind ~= "fixed" or writer.size == reader.size)
end

-- ---- Building ----

local Builder = {}
Builder.__index = Builder

function Builder:refuse(text_of_it)
  failure.raise(self.depth, text_of_it)
end

-- Builds what lies below, with the step to it for whoever is refused there.
function Builder:below(step, writer, reader)
  self.depth = self.depth + 1
  path[self.depth] = step
  local decoder = self:of(writer, reader)
  self.depth = self.depth - 1
  return decoder
end

local function enter(depth)
  if depth >= MOST_DEPTH then raise(depth, "nested too deeply") end
end

-- Elements of the next block; each takes a byte at least, or one of those that may be empty.
local function block_count(depth)
  local count = get_long(depth)
  if count < 0 then
    count = -count
    if get_long(depth) < 0 then raise(depth, "a block of a negative size") end
  end
  if count > bytes.left() then
    if count > empty_left then raise(depth, "more elements than the bytes hold") end
    empty_left = empty_left - tonumber(count)
  end
  return tonumber(count)
end

function Builder:array(writer, reader, decoder)
  local items = self:below("items", writer.items, reader.items)
  decoder.get = function(depth)
    enter(depth)
    local list, filled, inner = array(), 0, depth + 1
    while true do
      local count = block_count(depth)
      if count == 0 then return list end
      for i = filled + 1, filled + count do
        path[inner] = i - 1
        list[i] = items.get(inner)
      end
      filled = filled + count
    end
  end
end

function Builder:map(writer, reader, decoder)
  local values = self:below("values", writer.values, reader.values)
  decoder.get = function(depth)
    enter(depth)
    local object, inner = {}, depth + 1
    while true do
      local count = block_count(depth)
      if count == 0 then return object end
      for _ = 1, count do
        local name = show_text(get_text(depth), depth)
        path[inner] = name
        object[name] = values.get(inner)
      end
    end
  end
end

-- ---- Records ----

local function reader_field(reader, name)
  local field = reader.by_name[name]
  if field then return field end
  for _, one in ipairs(reader.fields) do
    for _, alias in ipairs(one.aliases) do
      if alias == name then return one end
    end
  end
end

-- A default is read anew each time: values may be changed by whoever gets them.
local function default_of(field, decoder)
  return function(depth)
    local held, at = bytes.read_from(field.bytes)
    local value = decoder.get(depth)
    bytes.restore(held, at)
    return value
  end
end

function Builder:missing(reader, taken)
  local missing = {}
  for _, field in ipairs(reader.fields) do
    if not taken[field] then
      if not field.bytes then self:refuse("the writer has no field " .. field.name .. ", and it has no default") end
      local decoder = self:below(field.name, field.node, field.node)
      missing[#missing + 1] = { name = field.name, get = default_of(field, decoder) }
    end
  end
  return missing
end

local SKIPPED = false

function Builder:record(writer, reader, decoder)
  local names, decoders, taken, count = {}, {}, {}, #writer.fields
  for i, field in ipairs(writer.fields) do
    local into = reader_field(reader, field.name)
    if into and taken[into] then into = nil end
    names[i] = into and into.name or SKIPPED
    if into then taken[into] = true end
    decoders[i] = self:below(field.name, field.node, into and into.node or field.node)
  end
  local missing = self:missing(reader, taken)
  local missing_count = #missing
  decoder.get = function(depth)
    enter(depth)
    local object, inner = {}, depth + 1
    for i = 1, count do
      local name = names[i]
      path[inner] = name or writer.fields[i].name
      local value = decoders[i].get(inner)
      if name then object[name] = value end
    end
    for i = 1, missing_count do
      path[inner] = missing[i].name
      object[missing[i].name] = missing[i].get(inner)
    end
    return object
  end
end

-- ---- Unions ----

local function tagged(decoder, tag)
  if tag == "null" then return decoder end
  return { get = function(depth)
    path[depth + 1] = tag
    return { [tag] = decoder.get(depth + 1) }
  end }
end

-- Of a value that is not of a union, the reader's branch: one of the same type before one that it may become.
local function branch_for(writer, reader)
  for _, branch in ipairs(reader.branches) do
    if branch.kind == writer.kind and branch.name == writer.name and may_be(writer, branch) then return branch end
  end
  for _, branch in ipairs(reader.branches) do
    if branch.kind == writer.kind and may_be(writer, branch) then return branch end
  end
  for _, branch in ipairs(reader.branches) do
    if may_be(writer, branch) then return branch end
  end
end

function Builder:into_union(writer, reader)
  local branch = branch_for(writer, reader)
  if not branch then self:refuse(schema.describe(writer) .. " cannot be read as " .. schema.describe(reader)) end
  local decoder = self:of(writer, branch)
  return self.plain and decoder or tagged(decoder, schema.tag(branch))
end

-- A branch that cannot be read is told when one comes.
local function unreadable(why)
  return { get = function(depth) raise(depth, why) end }
end

local function build_branch(self, branch, reader)
  return self:of(branch, reader)
end

function Builder:union(writer, reader, decoder)
  local list, same, depth = {}, writer == reader, self.depth
  for i, branch in ipairs(writer.branches) do
    local one, why
    if same then
      one = self:of(branch, branch)
      if not self.plain then one = tagged(one, schema.tag(branch)) end
    else
      one, why = catch(build_branch, self, branch, reader)
      self.depth = depth
    end
    list[i - 1] = one or unreadable(why.message)
  end
  local count = #writer.branches
  decoder.get = function(at)
    local index = get_long(at)
    if index < 0 or index >= count then raise(at, "a union of " .. count .. " has no branch " .. tostring(index)) end
    return list[tonumber(index)].get(at)
  end
end

-- ---- Others ----

function Builder.enum(_, writer, reader, decoder)
  local symbols, count = {}, #writer.symbols
  for i, symbol in ipairs(writer.symbols) do
    symbols[i - 1] = reader.index[symbol] and symbol or reader.default or false
  end
  decoder.get = function(depth)
    local index = get_long(depth)
    if index < 0 or index >= count then raise(depth, "the enum has no symbol " .. tostring(index)) end
    local symbol = symbols[tonumber(index)]
    if not symbol then raise(depth, "the reader's enum has no " .. writer.symbols[tonumber(index) + 1]) end
    return symbol
  end
end

function Builder:scalar(writer, reader, decoder)
  local read, show = READ[writer.kind], shower(reader, self.logical)
  if reader.kind == "float" or reader.kind == "double" then
    local number = read
    read = function(depth) return tonumber(number(depth)) end
  end
  if writer.kind == "fixed" then
    local size = writer.size
    read = function(depth) return get_raw(depth, size) end
  end
  decoder.get = show and function(depth) return show(read(depth), depth) end or read
end

local function make(self, writer, reader, decoder)
  if not may_be(writer, reader) then
    self:refuse(schema.describe(writer) .. " cannot be read as " .. schema.describe(reader))
  end
  local kind = writer.kind
  if kind == "array" or kind == "map" or kind == "record" or kind == "enum" then
    return self[kind](self, writer, reader, decoder)
  end
  return self:scalar(writer, reader, decoder)
end

function Builder:of(writer, reader)
  local made = self.made[writer]
  if not made then
    made = {}
    self.made[writer] = made
  end
  if made[reader] then return made[reader] end
  local decoder = unreadable(schema.describe(writer) .. " cannot be read as " .. schema.describe(reader))
  made[reader] = decoder -- where building fails, within a union, it stays so
  if writer.kind == "union" then
    self:union(writer, reader, decoder)
  elseif reader.kind == "union" then
    local one = self:into_union(writer, reader)
    decoder.get = function(depth) return one.get(depth) end
  else
    make(self, writer, reader, decoder)
  end
  return decoder
end

local function compile(writer, reader, mode)
  local self = setmetatable({ plain = mode.plain, logical = mode.logical, made = {}, depth = 0 }, Builder)
  return self:of(writer, reader)
end

-- Makes a decoder of what was written with one schema, that gives values of the other.
---@param writer table node
---@param reader table node
---@param mode { plain: boolean, logical: boolean }
---@return table|nil
---@return sluice.avro.failure|nil
function decode.compile(writer, reader, mode)
  return catch(compile, writer, reader, mode)
end

local function run(decoder, text_of_it, from)
  empty_left = MOST_EMPTY
  bytes.read_from(text_of_it, from)
  local value = decoder.get(0)
  if bytes.left() > 0 then raise(0, bytes.left() .. " bytes too many") end
  return { value }
end

---@param decoder table
---@param text_of_it string
---@param from integer bytes before the value
---@return any
---@return sluice.avro.failure|nil
function decode.run(decoder, text_of_it, from)
  local box, why = catch(run, decoder, text_of_it, from)
  bytes.restore(nil, 0)
  if not box then return nil, why end
  return box[1]
end

return decode
