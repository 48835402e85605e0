-- SPDX-License-Identifier: Apache-2.0
-- Finds the gateway that runs for a configuration and asks it, over the control socket in its state_dir.

local json = require "sluice.json"

local gateway = {}

local function read_text(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a") -- nil for a folder
  file:close()
  return text
end

local function files_in(path)
  local lfs = require "lfs"
  if lfs.attributes(path, "mode") ~= "directory" then return { path } end
  local found = {}
  for name in lfs.dir(path) do
    if name:find("%.ya?ml$") or name:find("%.json$") then found[#found + 1] = path .. "/" .. name end
  end
  table.sort(found)
  return found
end

-- By a pattern, not by loading: a gateway must be found while its configuration is broken, that is when one looks.
local function state_dir_in(text)
  local value = ("\n" .. text):match('\n[ \t{,"\']*state_dir["\']?[ \t]*:[ \t]*([^\n]+)')
    or text:match('[{,][ \t]*["\']?state_dir["\']?[ \t]*:[ \t]*([^\n]+)')
  if not value then return nil end
  return value:match('^"([^"]*)"') or value:match("^'([^']*)'") or value:match("^([^,}%s#]+)")
end

-- A path that a file says is relative to that file's folder, as the gateway itself has it.
local function beside(file, path)
  local folder = file:match("^(.*/)[^/]*$")
  if path:sub(1, 1) == "/" or not folder then return path end
  return folder .. path:gsub("^%./", "")
end

-- The folder where the gateway of these files keeps its control socket.
---@param files string[]
---@return string
function gateway.state_dir(files)
  local given = os.getenv("SLUICE_STATE_DIR")
  if given and given ~= "" then return given end
  local first
  for _, path in ipairs(files) do
    for _, file in ipairs(files_in(path)) do
      local found = state_dir_in(read_text(file) or "")
      if found then return beside(file, found) end
      first = first or file
    end
  end
  return beside(first or "", "./.sluice")
end

-- Sends a command; gives the decoded answer, or nil and why there is none.
---@param host table
---@param files string[]
---@param command string
---@param timeout_s number
---@return table|nil answer
---@return string|nil why
function gateway.ask(host, files, command, timeout_s)
  local path = gateway.state_dir(files) .. "/control.sock"
  local text, why = host.ask(path, command, timeout_s * 1000)
  if not text then
    if why:find("No such file", 1, true) or why:find("refused", 1, true) then
      return nil, ("no gateway runs here (looked for %s)"):format(path)
    end
    return nil, why
  end
  local answer, problem = json.decode(text)
  if not answer then return nil, "the gateway's answer makes no sense: " .. tostring(problem) end
  return answer
end

-- One error of a configuration as a person reads it.
---@param problem table
---@return string
function gateway.sentence(problem)
  local function field(name)
    local value = problem[name]
    if value ~= nil and value ~= json.null and value ~= "" then return tostring(value) end
  end
  local where = field("file")
  if where and field("line") then where = where .. ":" .. field("line") end
  local what = field("message") or ("expected %s, found %s"):format(field("expected"), field("found"))
  local parts = {}
  for _, part in ipairs { where or false, field("entity") or false, field("field") or false, what } do
    if part then parts[#parts + 1] = part end
  end
  return table.concat(parts, ": ")
end

function gateway.complain(text)
  io.stderr:write("sluice: ", text, "\n")
  return 1
end

function gateway.print_errors(errors)
  for _, problem in ipairs(errors or {}) do io.stderr:write(gateway.sentence(problem), "\n") end
end

return gateway
