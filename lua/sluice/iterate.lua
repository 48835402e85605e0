-- SPDX-License-Identifier: Apache-2.0
-- `pairs` and `next` that can be trusted. In Debian's LuaJIT (2.1, March 2022) a compiled loop over `pairs` that is
-- later given up by the compiler goes on at a wrong place and silently leaves elements out (LuaJIT issue 827: of
-- 100,000 nested loops more than half). The parser turns every `for ... in pairs(t)` into that special loop, but the
-- first run of it takes the ordinary one when the iterator is not the built-in `next`; so here it never is.
-- Nor is `next` ever compiled: of two calls in one trace (a short loop, unrolled) the second gives the key and the
-- value of the first. So the loop around is not compiled either, and an element costs 16 ns: a list is faster.
--
-- Loaded before anything else in each Lua state.
local built_in, error, type = next, error, type

local function following(t, key)
  return built_in(t, key)
end

jit.off(following)

rawset(_G, "next", following)
rawset(_G, "pairs", function(t)
  if type(t) ~= "table" then
    error("bad argument #1 to 'pairs' (table expected, got " .. (t == nil and "no value or nil" or type(t)) .. ")", 2)
  end
  return following, t, nil
end)
