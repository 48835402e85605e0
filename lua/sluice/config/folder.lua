-- SPDX-License-Identifier: Apache-2.0
-- Files that a configuration refers to, and folders of them: bounded, and whole.
local lfs = require "lfs"

local folder = {}

local MOST_FILES, MOST_BYTES = 1000, 16 * 1024 * 1024 -- of one folder

---@param path string
---@return string|nil
---@return string|nil err
function folder.text(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read("*a")
  file:close()
  if not text then return nil, path .. ": it cannot be read" end
  return text
end

-- Files whose names end so, below a folder: texts by their path in it.
local function read_folder(dir, ending, prefix, found)
  for name in lfs.dir(dir) do
    local path, inside = dir .. "/" .. name, prefix .. name
    local mode = name:sub(1, 1) ~= "." and lfs.attributes(path, "mode")
    local err
    if mode == "directory" then
      err = read_folder(path, ending, inside .. "/", found)
    elseif mode == "file" and name:sub(-#ending) == ending then
      local text
      text, err = folder.text(path)
      found.texts[inside], found.count, found.bytes = text, found.count + 1, found.bytes + #(text or "")
      if found.count > MOST_FILES then err = ("%s: more than %d files"):format(dir, MOST_FILES) end
      if found.bytes > MOST_BYTES then err = ("%s: more than %d bytes"):format(dir, MOST_BYTES) end
    end
    if err then return err end
  end
end

-- The texts of all files below a folder whose names end so, by their path in it.
---@param path string
---@param ending string such as ".lua"
---@return table<string, string>|nil
---@return string|nil err
function folder.texts(path, ending)
  if lfs.attributes(path, "mode") ~= "directory" then return nil, path .. ": there is no such folder" end
  local found = { texts = {}, count = 0, bytes = 0 }
  local err = read_folder(path, ending, "", found)
  if err then return nil, err end
  return found.texts
end

return folder
