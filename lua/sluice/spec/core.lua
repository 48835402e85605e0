-- SPDX-License-Identifier: Apache-2.0
-- The core that the kit drives: the program itself in `sluice plugin test`, else the library built from the same
-- objects (.build/VARIANT/libsluice.so, or the one that SLUICE_LIBRARY names), loaded into busted's own process.
local ffi = require "ffi"

-- busted forgets loaded modules between files, the FFI never forgets a declaration: so what has been declared is noted
-- where busted does not look.
local registry = debug.getregistry()

local function is_declared(name)
  local known, size = pcall(ffi.sizeof, name)
  return known and size ~= nil
end

local function home_of_this_file()
  local source = debug.getinfo(1, "S").source
  return source:match("^@(.*)/lua/sluice/spec/core%.lua$") or source:find("^@lua/") and "."
end

local function absolute(path)
  if path:sub(1, 1) == "/" then return path end
  local here = require("lfs").currentdir()
  return path == "." and here or here .. "/" .. path:gsub("^%./", "")
end

local function load_library(home)
  local path = os.getenv("SLUICE_LIBRARY") or ("%s/.build/%s/libsluice.so"):format(home,
    os.getenv("SLUICE_BUILD") or "release")
  -- Global, as in the program itself: the runtime finds the bridge through ffi.C.
  return ffi.load(path, true)
end

-- Declared before what they are given by: two texts that the core holds.
local function declare(C)
  if not registry["sluice.spec.texts"] then
    ffi.cdef "extern const char bridge_declarations[], kit_declarations[];"
    registry["sluice.spec.texts"] = true
  end
  if not is_declared("struct board") then ffi.cdef(ffi.string(C.bridge_declarations)) end
  if not is_declared("struct kit_options") then ffi.cdef(ffi.string(C.kit_declarations)) end
end

local native = package.loaded["sluice.native"]
local home = absolute(native and native.home or os.getenv("SLUICE_HOME") or home_of_this_file() or ".")
local C = native and ffi.C or registry["sluice.spec.library"]
if not C then
  C = load_library(home)
  registry["sluice.spec.library"] = C
end
declare(C)

-- Plugins are loaded here as by the checker: their code is validated, and has no worker.
if not native then
  package.loaded["sluice.native"] = { home = home, bridge_text = ffi.string(C.bridge_declarations),
    on_error = debug.traceback }
end

return { C = C, home = home, registry = registry, is_program = native ~= nil and native.library == nil }
