-- SPDX-License-Identifier: Apache-2.0
-- YAML to Lua tables, fast; and, in a second reading that is made only when there is an error to report, to a tree of
-- positions. So a good file pays nothing for its line numbers.
--
-- A mapping's keys are always strings (200: is "200", as in JSON), so a table with [1] is a list and no other is.
-- Anchors share one table between their uses: whoever reads the result must not change it.
local ffi = require "ffi"
local libyaml = require "sluice.config.libyaml"
local scalar = require "sluice.config.scalar"

local yaml = {}

local ALIAS, SCALAR = libyaml.ALIAS, libyaml.SCALAR
local SEQUENCE_START, SEQUENCE_END = libyaml.SEQUENCE_START, libyaml.SEQUENCE_END
local MAPPING_START, MAPPING_END = libyaml.MAPPING_START, libyaml.MAPPING_END
local DOCUMENT_START = libyaml.DOCUMENT_START

local PLAIN = 1
local DEPTH_MAX = 200
local EXPANDED_MAX = 1000000 -- nodes that aliases may stand for, in all: a "billion laughs" file ends here

local function failure(event, message)
  local line, column = libyaml.position(event.start_mark)
  return { line = line, column = column, message = message }
end

local function builder_new()
  return {
    depth = 0,
    containers = {}, -- by depth: the table being filled
    is_map = {},     -- by depth
    keys = {},       -- by depth: the mapping's key whose value comes next; false before a key
    counts = {},     -- by depth: items of the list so far
    merges = {},     -- by depth: values of "<<", applied when the mapping ends; or false
    anchors = {},    -- name -> value; an open one is in `open` by depth
    open = {}, sizes = {}, opened_at = {},
    nodes = 0, expanded = 0, documents = 0,
    root = nil, references = false,
  }
end

local function take_key(b, event, key)
  local depth = b.depth
  if key:byte(1) == 118 and key:find("^vault://") then b.references = true end -- {vault://...} without quotes
  if b.containers[depth][key] ~= nil and key ~= "<<" then
    return failure(event, ("duplicate key %q"):format(key))
  end
  b.keys[depth] = key
end

local function as_key(value)
  if value == scalar.null then return "null" end
  return tostring(value)
end

local function add_value(b, value)
  local depth = b.depth
  if depth == 0 then
    b.root = value
  elseif not b.is_map[depth] then
    local count = b.counts[depth] + 1
    b.counts[depth] = count
    b.containers[depth][count] = value
  elseif b.keys[depth] == "<<" then
    b.merges[depth] = b.merges[depth] or {}
    table.insert(b.merges[depth], value)
    b.keys[depth] = false
  else
    b.containers[depth][b.keys[depth]] = value
    b.keys[depth] = false
  end
end

local function at_key(b)
  local depth = b.depth
  return depth > 0 and b.is_map[depth] and not b.keys[depth]
end

local function scalar_value(event, text)
  local data = event.data.scalar
  if data.tag ~= nil then return scalar.tagged(ffi.string(data.tag), text) end
  if data.style == PLAIN then return scalar.plain(text) end
  return text
end

local function on_scalar(b, event)
  local data = event.data.scalar
  local text = ffi.string(data.value, data.length)
  b.nodes = b.nodes + 1
  if at_key(b) then
    if data.anchor ~= nil then b.anchors[ffi.string(data.anchor)] = text end
    return take_key(b, event, text)
  end
  local value, why = scalar_value(event, text)
  if value == nil then return failure(event, why) end
  if data.anchor ~= nil then
    local anchor = ffi.string(data.anchor)
    b.anchors[anchor], b.sizes[anchor] = value, 1
  end
  if text:byte(1) == 123 then b.references = true end -- "{": perhaps {vault://...}
  add_value(b, value)
end

local function begin_collection(b, event, is_map)
  if at_key(b) then return failure(event, "a key must be a text, not a list or a map") end
  local depth = b.depth + 1
  if depth > DEPTH_MAX then return failure(event, "nested too deeply") end
  local data = event.data.collection
  b.open[depth] = data.anchor ~= nil and ffi.string(data.anchor) or false
  b.opened_at[depth] = b.nodes
  b.containers[depth], b.is_map[depth], b.keys[depth], b.counts[depth], b.merges[depth] = {}, is_map, false, 0, false
  b.depth = depth
  b.nodes = b.nodes + 1
end

local function merge_into(target, source)
  for key, value in pairs(source) do
    if target[key] == nil then target[key] = value end
  end
end

local function apply_merges(event, target, merges)
  for _, merge in ipairs(merges) do
    if type(merge) ~= "table" then return failure(event, "<< takes a map or a list of maps") end
    for _, source in ipairs(merge[1] and merge or { merge }) do
      if type(source) ~= "table" or source[1] then return failure(event, "<< takes a map or a list of maps") end
      merge_into(target, source)
    end
  end
end

local function end_collection(b, event)
  local depth = b.depth
  local value = b.containers[depth]
  if b.merges[depth] then
    local err = apply_merges(event, value, b.merges[depth])
    if err then return err end
  end
  local anchor = b.open[depth]
  if anchor then b.anchors[anchor], b.sizes[anchor] = value, b.nodes - b.opened_at[depth] end
  b.depth = depth - 1
  add_value(b, value)
end

local function on_alias(b, event)
  local anchor = ffi.string(event.data.alias.anchor)
  local value = b.anchors[anchor]
  if value == nil then return failure(event, ("alias *%s has no anchor before it"):format(anchor)) end
  local size = b.sizes[anchor] or 1
  b.nodes, b.expanded = b.nodes + size, b.expanded + size
  if b.expanded > EXPANDED_MAX then return failure(event, "aliases stand for too many nodes") end
  if at_key(b) then return take_key(b, event, as_key(value)) end
  add_value(b, value)
end

local function on_event(b, event, kind)
  if kind == SCALAR then return on_scalar(b, event) end
  if kind == MAPPING_START then return begin_collection(b, event, true) end
  if kind == SEQUENCE_START then return begin_collection(b, event, false) end
  if kind == MAPPING_END or kind == SEQUENCE_END then return end_collection(b, event) end
  if kind == ALIAS then return on_alias(b, event) end
  if kind == DOCUMENT_START then
    b.documents = b.documents + 1
    if b.documents > 1 then return failure(event, "expected one document a file, found a second") end
  end
end

-- Returns the value (nil for an empty text) and whether it may hold {vault://...} references; or nil, nil, error
-- ({line, column, message}).
function yaml.decode(text)
  local b = builder_new()
  local err = libyaml.each(text, on_event, b)
  if err then return nil, nil, err end
  return b.root, b.references
end

-- ---- Positions ------------------------------------------------------------------------------------------------------

-- A node of the tree: { line, column, children = { [key or index] = node }, keys = { [key] = { line, column } } }.
local function mark(event)
  local line, column = libyaml.position(event.start_mark)
  return { line = line, column = column }
end

local function place(p, node)
  local top = p.stack[#p.stack]
  if not top then
    p.root = p.root or node
  elseif top.is_map then
    top.node.children[top.key], top.key = node, nil
  else
    table.insert(top.node.children, node)
  end
end

local function place_key(p, key, event)
  local top = p.stack[#p.stack]
  top.key = key
  top.node.keys[key] = mark(event)
end

local function expects_key(p)
  local top = p.stack[#p.stack]
  return top and top.is_map and top.key == nil
end

local function anchored(p, anchor, node, text)
  if anchor ~= nil then p.anchors[ffi.string(anchor)] = { node = node, text = text } end
end

local function on_position_scalar(p, event)
  local data = event.data.scalar
  local text = ffi.string(data.value, data.length)
  local node = mark(event)
  anchored(p, data.anchor, node, text)
  if expects_key(p) then place_key(p, text, event) else place(p, node) end
end

local function on_position_begin(p, event, kind)
  local node = mark(event)
  node.children, node.keys = {}, {}
  anchored(p, event.data.collection.anchor, node)
  place(p, node)
  table.insert(p.stack, { node = node, is_map = kind == MAPPING_START })
end

local function merge_positions(node, source)
  for key, child in pairs(source.children or {}) do
    if type(key) == "number" then
      merge_positions(node, child)
    elseif node.children[key] == nil then
      node.children[key], node.keys[key] = child, source.keys[key]
    end
  end
end

local function on_position_end(p)
  local node = table.remove(p.stack).node
  local merge = node.children["<<"]
  if merge then
    node.children["<<"] = nil
    merge_positions(node, merge)
  end
end

local function on_position(p, event, kind)
  if kind == SCALAR then
    on_position_scalar(p, event)
  elseif kind == MAPPING_START or kind == SEQUENCE_START then
    on_position_begin(p, event, kind)
  elseif kind == MAPPING_END or kind == SEQUENCE_END then
    on_position_end(p)
  elseif kind == ALIAS then
    local found = p.anchors[ffi.string(event.data.alias.anchor)]
    if expects_key(p) then place_key(p, found.text, event) else place(p, found.node) end
  end
end

-- The tree of positions of a text that yaml.decode accepts.
function yaml.positions(text)
  local p = { stack = {}, anchors = {} }
  libyaml.each(text, on_position, p)
  return p.root
end

return yaml
