-- SPDX-License-Identifier: Apache-2.0
-- Loads bridge.h once and gives its functions (`C`) and this worker (`worker`, NULL outside a worker).

local ffi = require "ffi"

local native = package.loaded["sluice.native"]
if not native then error("sluice.ffi: this Lua state was not made by the core") end

-- In a spec the same text may have been declared already; a name alone has no size.
local known, size = pcall(ffi.sizeof, "struct board")
if not (known and size) then ffi.cdef(native.bridge_text) end

return {
  C = native.library and ffi.load(native.library) or ffi.C,
  worker = ffi.cast("struct worker *", native.worker),
  home = native.home,
  on_error = native.on_error,
}
