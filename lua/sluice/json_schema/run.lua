-- SPDX-License-Identifier: Apache-2.0
-- One validation under way: where in the value it is, what was wrong, how much work is left.

local values = require "sluice.json_schema.values"

local gsub = string.gsub

local run = {}

local MOST_DEPTH = 1500 -- schemas within schemas
local MOST_ERRORS = 50

---@class sluice.json_schema.run
---@field all boolean go on after an error, and tell each
---@field work integer steps that are left

function run.new(all, work)
  return { all = all, work = work, depth = 0, path = {}, n = 0, errors = {}, count = 0, scope = {}, scopes = 0,
    given_up = false }
end

-- A value is wrong. Gives false.
---@param ctx sluice.json_schema.run
---@param where string of the keyword, in the schema
---@param expected string
---@param found? string
function run.fail(ctx, where, expected, found)
  if ctx.count >= MOST_ERRORS or ctx.given_up then return false end
  local parts = {}
  for i = 1, ctx.n do parts[i] = "/" .. gsub(gsub(ctx.path[i], "~", "~0"), "/", "~1") end
  ctx.count = ctx.count + 1
  ctx.errors[ctx.count] = { instance = table.concat(parts), expected = expected, found = found, schema = where }
  return false
end

function run.wrong(ctx, where, expected, value)
  run.fail(ctx, where, expected, values.shown(value))
  return false
end

-- Forgets errors of a branch that did not have to fit.
function run.forget(ctx, count)
  for i = ctx.count, count + 1, -1 do ctx.errors[i] = nil end
  ctx.count = count
end

-- One schema more is looked at. False: too deep, or too much work; the value counts as wrong then.
function run.enter(ctx, where)
  ctx.depth = ctx.depth + 1
  ctx.work = ctx.work - 1
  if ctx.depth <= MOST_DEPTH and ctx.work > 0 then return true end
  if ctx.given_up then return false end
  ctx.errors, ctx.count, ctx.all = {}, 0, false
  run.fail(ctx, where, ctx.work > 0 and "a value that is nested less deeply" or "a value that takes less work")
  ctx.given_up = true -- nothing that is said from here on is worth hearing
  return false
end

-- ---- What was evaluated: for unevaluatedProperties and unevaluatedItems ----

-- props: names; all_props; items: so many from the first; all_items; set: indexes besides.
function run.evaluated()
  return { props = {}, all_props = false, items = 0, all_items = false, set = {} }
end

function run.merge(into, from)
  for name in pairs(from.props) do into.props[name] = true end
  for index in pairs(from.set) do into.set[index] = true end
  into.all_props, into.all_items = into.all_props or from.all_props, into.all_items or from.all_items
  if from.items > into.items then into.items = from.items end
end

return run
