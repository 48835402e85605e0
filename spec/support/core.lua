-- SPDX-License-Identifier: Apache-2.0
-- Loads the core into a spec: the library that was built from the very objects of bin/sluice, declared by the very
-- headers that compiled it.
--
--   local C = require("spec.support.core").load("uri.h", "counters.h")
local ffi = require "ffi"

local core = {}

-- SLUICE_BUILD=asan runs the same specs against the sanitizer build.
core.variant = os.getenv("SLUICE_BUILD") or "release"
core.library_path = ".build/" .. core.variant .. "/libsluice.so"

-- busted forgets loaded modules between files, the FFI never forgets a declaration: so what has been declared is noted
-- where busted does not look.
local registry = debug.getregistry()
local declared = registry["sluice.spec.declared"] or {}
registry["sluice.spec.declared"] = declared

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- Directives with their continuation lines go, and so do inline functions, which a library does not hold.
local function plain(text)
  text = ("\n" .. text):gsub("\\\n", " "):gsub("\n[ \t]*#[^\n]*", "\n")
  return (text:gsub("static inline [^{;]*%b{}", ""))
end

function core.declare(header)
  if declared[header] then return end
  declared[header] = true
  local text = read("core/" .. header)
  for included in text:gmatch('\n#include "([^"]+)"') do core.declare(included) end
  -- The runtime itself declares bridge.h when a spec starts it first; a name alone has no size.
  local known, size = pcall(ffi.sizeof, "struct board")
  if header == "bridge.h" and known and size then return end
  ffi.cdef(plain(text))
end

-- Declares the headers of core/ (and what they include) and gives the library.
function core.load(...)
  for _, header in ipairs({ ... }) do core.declare(header) end
  if not registry["sluice.spec.library"] then
    -- Global, as in the program itself: Lua code of the runtime finds the bridge through ffi.C.
    registry["sluice.spec.library"] = ffi.load(core.library_path, true)
  end
  return registry["sluice.spec.library"]
end

return core
