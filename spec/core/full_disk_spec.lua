-- SPDX-License-Identifier: Apache-2.0
-- What is kept in files, on a disk without room: a small file system of a child's own.
local core = require "spec.support.core"
local ffi = require "ffi"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("store.h", "store_objects.h")

local registry = debug.getregistry()
if not registry["sluice.spec.core.full_disk"] then
  registry["sluice.spec.core.full_disk"] = true
  ffi.cdef [[
    int sys_disk_fork(void) __asm__("fork");
    void sys_disk_exit(int) __asm__("_exit");
    int sys_disk_unshare(int) __asm__("unshare");
    int sys_disk_mount(const char *, const char *, const char *, unsigned long, const void *) __asm__("mount");
  ]]
end

local CLONE_NEWNS, MS_REC_PRIVATE = 0x00020000, 0x44000
local NO_MOUNT, HELD, TOLD, SURPRISED = 2, 3, 4, 5

local function small_disk(folder)
  return C.sys_disk_unshare(CLONE_NEWNS) == 0 and C.sys_disk_mount("none", "/", nil, MS_REC_PRIVATE, nil) == 0
    and C.sys_disk_mount("none", folder, "tmpfs", 0, "size=256k") == 0
end

local function fill(folder)
  local file = assert(io.open(folder .. "/fill", "w"))
  file:setvbuf("no")
  while file:write(("x"):rep(4096)) do end
  file:close()
end

describe("a full disk", function()
  -- What a child comes to that opens by `open` (NULL: it could not, and `failure` has why) when the disk is full.
  local function ends(open)
    local folder = posix.temporary_directory()
    local pid = C.sys_disk_fork()
    if pid == 0 then
      local failure = ffi.new("struct error")
      local ok, result = pcall(function()
        if not small_disk(folder) then return NO_MOUNT end
        fill(folder)
        if open(folder, failure) ~= nil then return HELD end
        return ffi.string(failure.text):find("No space left on device", 1, true) and TOLD or SURPRISED
      end)
      C.sys_disk_exit(ok and result or SURPRISED)
    end
    local status
    process.wait_until(function()
      status = posix.reap(pid)
      return status
    end, 20, "the child")
    process.remove(folder)
    return status
  end

  for name, open in pairs {
    ["the store"] = function(folder, failure) return C.store_open(folder .. "/s", 2 ^ 20, failure) end,
    ["cached responses"] = function(folder, failure) return C.objects_open(folder .. "/r", 2 ^ 20, failure) end,
  } do
    it("is told by " .. name .. ", and ends no process", function()
      local status = ends(open)
      if status == NO_MOUNT then return pending("no file system can be mounted here") end
      assert.equal(TOLD, status)
    end)
  end
end)
