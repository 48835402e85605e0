-- SPDX-License-Identifier: Apache-2.0
-- Loads bridge.h once and gives its functions (`C`) and this worker (`worker`, NULL outside a worker).

local ffi = require "ffi"

local native = package.loaded["sluice.native"]
if not native then error("sluice.ffi: this Lua state was not made by the core") end

-- In a spec the same text may have been declared already.
if not pcall(ffi.typeof, "struct board") then ffi.cdef(native.bridge_text) end

return {
  C = native.library and ffi.load(native.library) or ffi.C,
  worker = ffi.cast("struct worker *", native.worker),
  home = native.home,
  on_error = native.on_error,
}
