-- SPDX-License-Identifier: Apache-2.0
-- Arguments of a command: "--name", "--name VALUE", "--name=VALUE", "-n VALUE" and the rest, which are operands.

local suggest = require "sluice.config.suggest"

local options = {}

-- Raised for a mistake in the arguments: sluice.cli tells it and exits 2.
local usage_error = {}
usage_error.__index = usage_error
usage_error.__tostring = function(self) return self.message end

function options.fail(message, ...)
  error(setmetatable({ message = message:format(...) }, usage_error), 0)
end

function options.is_usage_error(value)
  return getmetatable(value) == usage_error
end

local function find(declared, flag)
  for _, option in ipairs(declared) do
    for _, name in ipairs(option) do
      if name == flag then return option end
    end
  end
  local names = {}
  for _, option in ipairs(declared) do
    for _, name in ipairs(option) do names[#names + 1] = name end
  end
  options.fail("unknown option %s%s", flag, suggest.phrase(flag, names))
end

local function store(result, option, flag, value)
  if not option.value then
    result[option.key] = true
  elseif value == nil then
    options.fail("%s needs a %s", flag, option.value)
  elseif option.many then
    result[option.key] = result[option.key] or {}
    table.insert(result[option.key], value)
  else
    result[option.key] = value
  end
end

-- `declared`: a list of { "-c", "--config", key = "files", value = "FILE", many = true }; without `value` a switch.
-- `most`: how many operands there may be. Gives the values by key, operands by number.
---@param args string[]
---@param declared table[]
---@param most? integer 0 when absent
---@return table
function options.parse(args, declared, most)
  local result, index, only_operands = {}, 1, false
  while index <= #args do
    local arg = args[index]
    local flag, joined = arg:match("^(%-%-[^=]+)=(.*)$")
    if only_operands or arg == "-" or arg:sub(1, 1) ~= "-" then
      result[#result + 1] = arg
    elseif arg == "--" then
      only_operands = true
    else
      local option = find(declared, flag or arg)
      local value = joined
      if flag and not option.value then options.fail("%s takes no value", flag) end
      if option.value and not flag then
        index = index + 1
        value = args[index]
      end
      store(result, option, flag or arg, value)
    end
    index = index + 1
  end
  if #result > (most or 0) then options.fail("unexpected argument %s", result[(most or 0) + 1]) end
  return result
end

-- The option that names configuration files, the same for every command that has it.
options.config = { "-c", "--config", key = "files", value = "FILE", many = true }

-- The files of a parsed command line, ./sluice.yml when there are none.
function options.files(parsed)
  return parsed.files or { "./sluice.yml" }
end

return options
