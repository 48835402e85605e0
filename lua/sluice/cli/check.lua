-- SPDX-License-Identifier: Apache-2.0
-- `sluice check`: loads a configuration exactly as `run` would, starts nothing, and tells everything that is wrong.
local config = require "sluice.config"
local options = require "sluice.cli.options"

local check = {}

local function counted(count, word)
  return ("%d %s%s"):format(count, word, count == 1 and "" or "s")
end

local function contents(loaded)
  local parts = {}
  for _, collection in ipairs { "services", "routes", "plugins", "consumers", "upstreams" } do
    local count = #loaded:list(collection)
    if count > 0 then parts[#parts + 1] = counted(count, (collection:gsub("s$", ""))) end
  end
  return #parts > 0 and table.concat(parts, ", ") or "no entities"
end

local function tell_warnings(warnings)
  for _, warning in ipairs(warnings) do io.stderr:write("warning: ", warning.text, "\n") end
end

-- Returns 0 when the configuration is good, 1 when it is not.
---@param args string[]
---@return integer
function check.run(args)
  local parsed = options.parse(args, { options.config }, math.huge)
  local files = #parsed > 0 and { unpack(parsed) } or options.files(parsed)
  for _, file in ipairs(#parsed > 0 and parsed.files or {}) do files[#files + 1] = file end
  local loaded, errors, known = config.load(files, { warn_of_broken = true })
  tell_warnings((loaded or known).warnings)
  if loaded then
    io.write(("ok: %s in %s\n"):format(contents(loaded), counted(loaded.files, "file")))
    return 0
  end
  for _, err in ipairs(errors) do io.stderr:write(err.text, "\n") end
  io.stderr:write(counted(#errors, "error"), "\n")
  return 1
end

return check
