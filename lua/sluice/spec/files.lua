-- SPDX-License-Identifier: Apache-2.0
-- A folder for one gateway, and its end.
local ffi = require "ffi"
local core = require "sluice.spec.core"
local lfs = require "lfs"

local files = {}

if not core.registry["sluice.spec.files"] then
  core.registry["sluice.spec.files"] = true
  ffi.cdef [[char *sluice_kit_mkdtemp(char *) __asm__("mkdtemp");]]
end

local MARK = "/sluice-kit-"

-- In memory where the system has such a folder: a gateway writes a snapshot, and waits until it is on disk.
local function parent()
  local given = os.getenv("TMPDIR")
  if given then return given end
  return lfs.attributes("/dev/shm", "mode") == "directory" and "/dev/shm" or "/tmp"
end

---@return string a new, empty folder
function files.temporary()
  local template = parent() .. MARK .. "XXXXXX"
  local path = ffi.new("char[?]", #template + 1, template)
  if ffi.C.sluice_kit_mkdtemp(path) == nil then error("no folder can be made in " .. parent(), 0) end
  return ffi.string(path)
end

local function remove(path)
  if lfs.symlinkattributes(path, "mode") == "directory" then
    for name in lfs.dir(path) do
      if name ~= "." and name ~= ".." then remove(path .. "/" .. name) end
    end
    lfs.rmdir(path)
  else
    os.remove(path)
  end
end

-- Removes a folder that `temporary` made.
function files.remove(path)
  assert(path:find(MARK, 1, true), "not ours to remove: " .. path)
  remove(path)
end

return files
