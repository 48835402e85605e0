-- SPDX-License-Identifier: Apache-2.0
-- Where the plugin commands look for plugins.

local folders = {}

folders.option = { "--dir", key = "dirs", value = "DIR", many = true }

-- As a gateway started here would: the bundled ones, then the user's, which win.
---@return string[]
function folders.list(parsed, host)
  local dirs = { host.home .. "/plugins" }
  local given = parsed.dirs
  if not given then
    given = {}
    for dir in (os.getenv("SLUICE_PLUGIN_DIRS") or "./plugins"):gmatch("[^,%s]+") do given[#given + 1] = dir end
  end
  for _, dir in ipairs(given) do dirs[#dirs + 1] = dir end
  return dirs
end

return folders
