-- SPDX-License-Identifier: Apache-2.0
-- Lines at the end of files, written by a helper thread. A door out of the sandbox: open to the plugins that come with
-- the gateway, whose configuration says where they write, and to those under `gateway.trusted_plugins`.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local native = require "sluice.ffi"

local C, worker = core.C, core.worker
local error, find = error, string.find

local file = {}

local BUNDLED = native.home .. "/plugins/"

---@param owner? { dir: string, trusted: boolean }
---@return sluice.file
function file.bind(owner)
  ---@class sluice.file
  local bound = {}
  local is_open = not owner or owner.trusted or find(owner.dir, BUNDLED, 1, true) == 1

  -- Puts a line at the end of a file, which is made when there is none, soon; whether it could be written is told in
  -- the gateway's log.
  ---@param path string
  ---@param line string a line feed is added
  ---@param reopen? boolean closes the file after writing
  ---@return boolean|nil true
  ---@return string|nil err when the line is lost, for too much waits already
  function bound.append(path, line, reopen)
    if not is_open then error("sluice.file.append: for plugins under gateway.trusted_plugins", 2) end
    check.string("sluice.file.append", "path", path)
    check.string("sluice.file.append", "line", line)
    local status = C.bridge_file_append(worker, path, line, #line, reopen == true)
    if status ~= 0 then return nil, core.reason(status) end
    return true
  end

  return bound
end

return file
