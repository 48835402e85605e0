-- SPDX-License-Identifier: Apache-2.0
-- Lets modules that call the core, but need no worker, be loaded into busted's own state: regular expressions, hashes.
local ffi = require "ffi"
local process = require "spec.support.process"

local home = os.getenv("SLUICE_HOME") or "."

if not package.loaded["sluice.native"] then
  package.loaded["sluice.native"] = {
    bridge_text = process.read_file(home .. "/core/bridge.h"):gsub("#[^\n]*\n", "\n"),
    library = ("%s/.build/%s/libsluice.so"):format(home, os.getenv("SLUICE_BUILD") or "release"),
    worker = ffi.new("void *"), home = home, on_error = debug.traceback,
  }
end
