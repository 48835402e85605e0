-- SPDX-License-Identifier: Apache-2.0
-- What is done to one body on its way: it ends early, or some of its bytes are others.
local bit = require "bit"

local damage = {}

local Damage = {}
Damage.__index = Damage

-- `ends`: after how many bytes; `reset`: the connection breaks there; `every`: of so many bytes one is changed.
function damage.new(ends, reset, every, random)
  local next_at = every and random(1, every)
  return setmetatable({ left = ends, reset = reset, every = every, random = random, next_at = next_at }, Damage)
end

local function corrupt(self, chunk)
  local pieces, from, random = {}, 1, self.random
  while self.next_at <= #chunk do
    local at = self.next_at
    pieces[#pieces + 1] = chunk:sub(from, at - 1)
    pieces[#pieces + 1] = string.char(bit.bxor(chunk:byte(at), random(1, 255)))
    from = at + 1
    self.next_at = at + random(1, 2 * self.every - 1)
  end
  self.next_at = self.next_at - #chunk
  pieces[#pieces + 1] = chunk:sub(from)
  return table.concat(pieces)
end

-- What goes on of a chunk; nil: the connection is to break. What goes on before that has to go first, so it breaks with
-- the chunk behind the one that is too long, or with the last.
---@param chunk string
---@param last boolean
---@return string|nil
function Damage:of(chunk, last)
  if self.is_over then return nil end
  if self.left then
    self.is_over = self.reset and #chunk > self.left
    if self.is_over and (last or self.left == 0) then return nil end
    if #chunk > self.left then chunk = chunk:sub(1, self.left) end
    self.left = self.left - #chunk
  end
  if self.every and chunk ~= "" then chunk = corrupt(self, chunk) end
  return chunk
end

return damage
