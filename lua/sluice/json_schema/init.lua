-- SPDX-License-Identifier: Apache-2.0
-- JSON Schema: drafts 2020-12, 2019-09, 7, 6 and 4, whole. A schema is compiled once, to closures; nothing is fetched.
--
--   local schema = assert(json_schema.compile(json.decode(text)))
--   local ok, errors = schema:validate(json.decode(body))
--   errors[1].instance, .expected, .found     -- "/items/0/price", "a number of at least 0", "-1"
--
-- Values are those of sluice.json, which tells an empty array from an empty object and null from nothing.
-- How deep schemas may nest and how much work one value may be is bounded: what goes beyond does not fit.
local applicators = require "sluice.json_schema.applicators"
local Documents = require "sluice.json_schema.documents"
local drafts = require "sluice.json_schema.drafts"
local equal = require "sluice.json_schema.equal"
local keywords = require "sluice.json_schema.keywords"
local run = require "sluice.json_schema.run"
local values = require "sluice.json_schema.values"

local enter, evaluated, merge, kind_of = run.enter, run.evaluated, run.merge, values.kind
local pairs, type, ipairs = pairs, type, ipairs

---@class sluice.json_schema
local json_schema = {}

local MOST_WORK = 1000000

---@class sluice.json_schema.options
---@field draft? "2020-12"|"2019-09"|"7"|"6"|"4" of schemas that do not say; 2020-12 unless told
---@field formats? boolean whether `format` asserts; true unless told
---@field documents? table<string, table> schemas by URI that references may name
---@field most_work? integer schemas applied to one value, 1,000,000 unless told

---@class sluice.json_schema.error
---@field instance string JSON pointer to what is wrong; "" is the whole value
---@field expected string
---@field found? string
---@field schema string where the keyword stands

-- ---- Where a keyword stands ----

local At = {}
At.__index = At
At.is_array = equal.is_array

function At:refuse(keyword, what)
  Documents.refuse(self.where .. "/" .. keyword, what)
end

function At:expect(keyword, kind)
  local value = self.node[keyword]
  if value == nil or kind_of(value) == kind then return value end
  return self:refuse(keyword, ("expected %s, found %s"):format(values.name(kind), values.shown(value)))
end

function At:schema(node, place)
  return self.compiler:schema(node, self.resource, self.where .. "/" .. place)
end

-- ---- Compiling ----

local Compiler = {}
Compiler.__index = Compiler

local function always() return true end

local function never(where)
  return function(value, ctx)
    run.wrong(ctx, where, "nothing", value)
    return false
  end
end

-- A jump to a schema of perhaps another resource, which counts among those that $dynamicRef may find.
local function jump(made, resource)
  return function(value, ctx, ev)
    local scopes = ctx.scopes + 1
    ctx.scopes, ctx.scope[scopes] = scopes, resource
    local ok = made.check(value, ctx, ev)
    ctx.scopes = scopes - 1
    return ok
  end
end

local function resolve(at, keyword)
  local reference = at:expect(keyword, "string")
  if not reference then return nil end
  local compiler = at.compiler
  local node, resource, where, anchor = compiler.documents:resolve(reference, at.resource)
  if node == nil then
    at:refuse(keyword, ("expected a schema that is here (nothing is fetched), found %q"):format(reference))
  end
  return compiler:made_of(node, resource, where), resource, anchor, node
end

local function ref(at)
  local made, resource = resolve(at, "$ref")
  return made and jump(made, resource)
end

-- The outermost resource on the way here that has the anchor decides.
local function dynamic(at, made, resource, has)
  local compiler = at.compiler
  local straight = jump(made, resource)
  return function(value, ctx, ev)
    for i = 1, ctx.scopes do
      local node = has(ctx.scope[i])
      if node then
        local ok = jump(compiler.made[node], ctx.scope[i])(value, ctx, ev)
        return ok
      end
    end
    local ok = straight(value, ctx, ev)
    return ok
  end
end

local function dynamic_ref(at)
  if at.resource.draft.number < 2020 then return nil end
  local made, resource, anchor, node = resolve(at, "$dynamicRef")
  if not made then return nil end
  if not anchor or resource.dynamic[anchor] ~= node then return jump(made, resource) end
  return dynamic(at, made, resource, function(one) return one.dynamic[anchor] end)
end

local function recursive_ref(at)
  if at.resource.draft.number ~= 2019 then return nil end
  local made, resource = resolve(at, "$recursiveRef")
  if not made then return nil end
  if not resource.recursive then return jump(made, resource) end
  return dynamic(at, made, resource, function(one) return one.recursive and one.root end)
end

local function put(list, check)
  if check then list[#list + 1] = check end
end

local BARE = { any = true, number = true, string = true, array = true, object = true } -- kinds of keywords.lua

local function put_asserting(at, lists)
  if at.resource.bare then -- `format` has a vocabulary of its own
    put(lists.string, at.resource.asserts and keywords.string.format(at))
    return
  end
  for kind in pairs(BARE) do
    for _, make in pairs(keywords[kind]) do put(lists[kind], make(at)) end
  end
end

local function put_applying(at, lists)
  for _, kind in ipairs { "any", "array", "object" } do
    for _, make in pairs(applicators[kind]) do put(lists[kind], make(at)) end
  end
end

-- Gives whether there are any.
local function put_last(at, lists)
  if at.resource.draft.number < 2019 then return false end
  local any = false
  for _, make in pairs(applicators.last) do
    local kind, check = make(at)
    if check then
      any = true
      put(lists.last[kind], check)
    end
  end
  return any
end

local function run_list(list, value, ctx, ev)
  local ok = true
  for i = 1, #list do
    if not list[i](value, ctx, ev) then
      ok = false
      if not ctx.all then break end
    end
  end
  return ok
end

-- One schema as a function. `wants`: it has to know what its keywords evaluate.
local function joined(lists, where, wants)
  local any, last, has_any = lists.any, lists.last, #lists.any > 0
  return function(value, ctx, outer)
    if not enter(ctx, where) then
      ctx.depth = ctx.depth - 1
      return false
    end
    local ev, kind, ok = outer, kind_of(value), true
    if wants then ev = evaluated() end
    if has_any then ok = run_list(any, value, ctx, ev) end
    local list = lists[kind]
    if list and (ok or ctx.all) then ok = run_list(list, value, ctx, ev) and ok end
    if wants then
      if last[kind] and (ok or ctx.all) then ok = run_list(last[kind], value, ctx, ev) and ok end
      if ok and outer then merge(outer, ev) end
    end
    ctx.depth = ctx.depth - 1
    return ok
  end
end

local function check_of(at)
  local lists = { any = {}, number = {}, string = {}, array = {}, object = {}, last = { array = {}, object = {} } }
  local reference = ref(at)
  put(lists.any, reference)
  if reference and at.resource.draft.alone then return joined(lists, at.where, false) end
  put(lists.any, dynamic_ref(at))
  put(lists.any, recursive_ref(at))
  put_asserting(at, lists)
  put_applying(at, lists)
  return joined(lists, at.where, put_last(at, lists))
end

-- What a schema is compiled to: { check }, which is there once the schema that holds it is whole.
function Compiler:made_of(node, resource, where)
  if node == true then return { check = always } end
  if node == false then return { check = never(where) } end
  if type(node) ~= "table" or equal.is_array(node) then
    Documents.refuse(where, "expected a schema, found " .. values.shown(node))
  end
  local made = self.made[node]
  if made then return made end
  made = {}
  self.made[node] = made
  local home = self.documents:home(node, resource, where)
  local at = setmetatable({ compiler = self, node = node, resource = home.resource, where = home.where }, At)
  made.check = check_of(at)
  if home.resource.root == node then made.check = jump({ check = made.check }, home.resource) end
  return made
end

function Compiler:schema(node, resource, where)
  local made = self:made_of(node, resource, where)
  if made.check then return made.check end
  return function(value, ctx, ev) -- it holds itself
    local ok = made.check(value, ctx, ev)
    return ok
  end
end

-- Whatever $dynamicRef may come to, before a value asks for it.
local function compile_dynamic(compiler)
  local found
  repeat
    found = false
    for _, resource in pairs(compiler.documents.resources) do
      local nodes = { resource.recursive and resource.root or nil }
      for _, node in pairs(resource.dynamic) do nodes[#nodes + 1] = node end
      for _, node in ipairs(nodes) do
        if not compiler.made[node] then
          found = true
          compiler:made_of(node, resource, resource.where)
        end
      end
    end
  until not found
end

-- ---- Validators ----

---@class sluice.json_schema.validator
local Validator = {}
local validator_mt = { __index = Validator, __metatable = false }
local checks = setmetatable({}, { __mode = "k" }) -- by validator

-- Whether a value fits.
---@param value any as sluice.json decodes
---@return boolean
function Validator:test(value)
  local it = checks[self]
  return it.check(value, run.new(false, it.work), nil)
end

local function before(a, b)
  if a.instance ~= b.instance then return a.instance < b.instance end
  return a.schema < b.schema
end

-- The same, and what is wrong: up to 50 errors, in the order of where they are.
---@param value any
---@return boolean
---@return sluice.json_schema.error[]|nil errors
function Validator:validate(value)
  if self:test(value) then return true end
  local it = checks[self]
  local ctx = run.new(true, it.work)
  it.check(value, ctx, nil)
  table.sort(ctx.errors, before)
  return false, ctx.errors
end

-- One error as a text: "/a/0: expected a string, found 7".
---@param err sluice.json_schema.error
---@return string
function json_schema.text(err)
  local text = "expected " .. err.expected .. (err.found and ", found " .. err.found or "")
  return err.instance == "" and text or err.instance .. ": " .. text
end

---@param schema table|boolean as sluice.json decodes
---@param options? sluice.json_schema.options
---@return sluice.json_schema.validator|nil
---@return string|nil err where in the schema, and what was expected there
function json_schema.compile(schema, options)
  options = options or {}
  local draft = options.draft or "2020-12"
  if type(draft) ~= "string" or not drafts[draft] or not drafts[draft].number then
    return nil, "there is no draft " .. tostring(draft)
  end
  local compiler = setmetatable({ made = {}, formats = options.formats ~= false }, Compiler)
  local ok, made = pcall(function()
    compiler.documents = Documents.new(options.documents, draft)
    local resource = compiler.documents:add(schema, "")
    local root = compiler:made_of(schema, resource, "#")
    compile_dynamic(compiler)
    return root
  end)
  if ok then
    local validator = setmetatable({}, validator_mt)
    checks[validator] = { check = made.check, work = options.most_work or MOST_WORK }
    return validator
  end
  if type(made) == "table" and made.what then return nil, made.where .. ": " .. made.what end
  error(made, 0)
end

return json_schema
