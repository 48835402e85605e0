-- SPDX-License-Identifier: Apache-2.0
-- Stacks of frames, outmost first, with the CPU time spent in each: gathered from what workers tell, written as folded
-- text, and as a tree.

local stacks = {}

local LUA_STATES = { G = "[garbage collector]", J = "[compiler]" }
local MOST = 100000 -- different stacks; what comes beyond is counted as lost

-- Names of LuaJIT's own functions, where its tables are installed.
local has_names, definitions = pcall(require, "jit.vmdef")
local builtins = has_names and definitions.ffnames or {}

local all = {}
all.__index = all

---@param symbols table of sluice.cli.profile.symbols
---@param home string folder that paths are told from
---@return table
function stacks.new(symbols, home)
  return setmetatable({ symbols = symbols, home = home .. "/", counts = {}, order = {}, total = 0, lost = 0 }, all)
end

-- What separates frames and counts must not be in one.
local function clean(frame)
  return (frame:gsub("[;%c]", " "))
end

-- "name\tpath:line" -> "name (path:line)"; a C function has a name alone.
function all:lua_frame(text)
  local name, place = text:match("^([^\t]*)\t(.*)$")
  if not name then return clean(text) end
  local builtin = tonumber(place:match("^%[builtin#(%d+)%]$"))
  if builtin then return builtins[builtin] or "[builtin]" end
  if place == "" then return clean(name) end
  if name:match("^(.*):%d+$") == place:match("^(.*):%d+$") then name = "function" end -- without a name
  if place:sub(1, #self.home) == self.home then place = place:sub(#self.home + 1) end
  return clean(("%s (%s)"):format(name, place))
end

-- Appends what a text of lines holds, inmost first, outmost first.
function all:add_lua(frames, text, state)
  local found = {}
  for line in text:gmatch("[^\n]+") do found[#found + 1] = line end
  for i = #found, 1, -1 do frames[#frames + 1] = self:lua_frame(found[i]) end
  frames[#frames + 1] = LUA_STATES[state]
end

-- Below worker_main and above Lua the frames are the same for all.
local function c_frames(names)
  local first = #names
  for i, name in ipairs(names) do
    if name == "worker_main" or name == "coroutine_run" then
      first = i - 1
      break
    end
  end
  return first
end

function all:add_c(frames, worker, stack)
  local names = {}
  for i = 5, #stack do names[#names + 1] = self.symbols:name(worker.pid, worker.modules, stack[i]) end
  for i = c_frames(names), 1, -1 do frames[#frames + 1] = clean(names[i]) end
end

function all:count(key, milliseconds)
  local known = self.counts[key]
  if not known and #self.order >= MOST then
    self.lost = self.lost + milliseconds
    return
  end
  if not known then self.order[#self.order + 1] = key end
  self.counts[key] = (known or 0) + milliseconds
  self.total = self.total + milliseconds
end

-- One worker's answer.
---@param worker table
function all:add(worker)
  self.lost = self.lost + worker.lost
  for _, stack in ipairs(worker.stacks) do
    local plugin, state, lua = stack[2], stack[3], stack[4]
    local frames = {}
    if plugin ~= "" then
      frames[1] = clean("plugin " .. plugin)
    elseif lua ~= "" then
      frames[1] = "[runtime]"
    end
    self:add_lua(frames, lua, state)
    self:add_c(frames, worker, stack)
    if #frames == 0 then frames[1] = "[runtime]" end
    self:count(table.concat(frames, ";"), stack[1])
  end
end

---@return string lines of "a;b;c 12"
function all:folded()
  local lines = {}
  for i, key in ipairs(self.order) do lines[i] = ("%s %d\n"):format(key, self.counts[key]) end
  table.sort(lines)
  return table.concat(lines)
end

local function child_of(node, name)
  local child = node.by_name[name]
  if not child then
    child = { name = name, total = 0, own = 0, children = {}, by_name = {} }
    node.by_name[name] = child
    node.children[#node.children + 1] = child
  end
  return child
end

local function sort(node)
  table.sort(node.children, function(a, b) return a.name < b.name end)
  for _, child in ipairs(node.children) do sort(child) end
end

---@return table root with name, total, own and sorted children
function all:tree()
  local root = { name = "all", total = self.total, own = 0, children = {}, by_name = {} }
  for _, key in ipairs(self.order) do
    local node = root
    for name in key:gmatch("[^;]+") do
      node = child_of(node, name)
      node.total = node.total + self.counts[key]
    end
    node.own = node.own + self.counts[key]
  end
  sort(root)
  return root
end

-- Frames by the time in which they were the inmost one, the greatest first; `total` counts what they call, too.
---@param most integer
---@return table[] of { name, own, total }
function all:top(most)
  local by_name, list = {}, {}
  for _, key in ipairs(self.order) do
    local seen, count = {}, self.counts[key]
    for name in key:gmatch("[^;]+") do
      local one = by_name[name]
      if not one then
        one = { name = name, own = 0, total = 0 }
        by_name[name], list[#list + 1] = one, one
      end
      if not seen[name] then one.total = one.total + count end
      seen[name] = true
    end
    local inmost = by_name[key:match("[^;]+$")]
    inmost.own = inmost.own + count
  end
  table.sort(list, function(a, b)
    if a.own ~= b.own then return a.own > b.own end
    return a.name < b.name
  end)
  return { unpack(list, 1, most) }
end

return stacks
