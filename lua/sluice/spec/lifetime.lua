-- SPDX-License-Identifier: Apache-2.0
-- Gateways end with what made them: with the test when it was made in it or in a before_each, with the describe when
-- it was made in a setup. What goes wrong then is an error of that test.
local registry = debug.getregistry()

local lifetime = {}

-- All that live, with their owner; busted forgets modules between files, so it is kept where busted does not look.
local living = registry["sluice.spec.living"] or {}
registry["sluice.spec.living"] = living

local OF_TEST = { it = true, before_each = true, after_each = true, finally = true, test = true }

-- The element of busted whose code runs: busted.safe(descriptor, run, element) stands on the stack.
local function running_element()
  for level = 3, 60 do
    local info = debug.getinfo(level, "S")
    if not info then return nil end
    if info.source:find("busted/core.lua", 1, true) then
      local name, descriptor = debug.getlocal(level, 1)
      local third, element = debug.getlocal(level, 3)
      if name == "descriptor" and third == "element" then return element, descriptor end
    end
  end
end

-- "test" for what ends with the running test, or the block that it ends with; nil outside busted.
local function owner_of_caller(busted)
  local element, descriptor = running_element()
  if not element then return nil end
  if OF_TEST[descriptor] then return "test" end
  if descriptor:find("setup", 1, true) then return busted.parent(element) end
  return element
end

local function close_all(owner)
  local failure
  for thing, its_owner in pairs(living) do
    if its_owner == owner then
      living[thing] = nil
      local ok, why = pcall(thing.close, thing)
      if not ok then failure = failure or why end
    end
  end
  if failure then error(failure, 0) end
end

local function subscribe(busted)
  if registry["sluice.spec.subscribed"] == busted.subscribe then return end
  registry["sluice.spec.subscribed"] = busted.subscribe
  busted.subscribe({ "test", "end" }, function()
    close_all("test")
    return nil, true
  end)
  for _, block in ipairs { "describe", "file" } do
    busted.subscribe({ block, "end" }, function(element)
      close_all(element)
      return nil, true
    end)
  end
end

-- Has `thing:close()` called in time. Nothing happens outside busted.
function lifetime.keep(thing)
  local busted = package.loaded.busted
  if not busted then return thing end
  subscribe(busted)
  living[thing] = owner_of_caller(busted)
  return thing
end

return lifetime
