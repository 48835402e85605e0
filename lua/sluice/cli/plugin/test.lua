-- SPDX-License-Identifier: Apache-2.0
-- `sluice plugin test [NAME] [--watch]`: the specs of plugins, each run in a process of its own with the core in it.

local folders = require "sluice.cli.plugin.folders"
local lfs = require "lfs"
local options = require "sluice.cli.options"

local test = {}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function is_folder(path)
  return lfs.attributes(path, "mode") == "directory"
end

local function subfolders(dir)
  local found = {}
  if is_folder(dir) then
    for name in lfs.dir(dir) do
      local folder = dir .. "/" .. name
      if name:sub(1, 1) ~= "." and is_folder(folder .. "/spec") then found[#found + 1] = folder end
    end
  end
  table.sort(found)
  return found
end

-- Without a name: every plugin with specs in the user's folders, or, when there is none, the bundled ones.
local function choose(name, dirs)
  if name then
    for index = #dirs, 1, -1 do
      if is_folder(("%s/%s"):format(dirs[index], name)) then return { ("%s/%s"):format(dirs[index], name) } end
    end
    return {}
  end
  local chosen = {}
  for index = 2, #dirs do
    for _, folder in ipairs(subfolders(dirs[index])) do chosen[#chosen + 1] = folder end
  end
  return #chosen > 0 and chosen or subfolders(dirs[1])
end

local function exit_code(a, _, code)
  if type(a) == "number" then return a >= 256 and math.floor(a / 256) or a end
  return a and 0 or code or 1
end

local function run_once(chosen, dirs, host)
  local command = { ("SLUICE_HOME=%s SLUICE_PLUGIN_DIRS=%s"):format(quote(host.home), quote(table.concat(dirs, ","))),
    quote(host.program), "busted", "--pattern=_spec" }
  -- In a source tree the bundled plugins' specs share helpers, which an installation does not have.
  if is_folder(host.home .. "/spec/support") then command[#command + 1] = quote("--lpath=" .. host.home .. "/?.lua") end
  for _, folder in ipairs(chosen) do command[#command + 1] = quote(folder .. "/spec") end
  return exit_code(os.execute(table.concat(command, " ")))
end

local function put_state(out, folder)
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name:sub(1, 1) ~= "." and is_folder(path) then
      put_state(out, path)
    elseif name:sub(-4) == ".lua" then
      local file = io.open(path, "rb")
      out[#out + 1] = path .. "\0" .. (file and file:read("*a") or "")
      if file then file:close() end
    end
  end
end

-- Everything that a run depends on, as one text: what was saved while the specs ran is not missed.
local function state_of(chosen)
  local out = {}
  for _, folder in ipairs(chosen) do put_state(out, folder) end
  table.sort(out)
  return table.concat(out, "\0")
end

local function watch(chosen, dirs, host)
  while true do
    if host.terminal then io.write("\27[2J\27[H") end
    local before = state_of(chosen)
    run_once(chosen, dirs, host)
    print("waiting for a change; Ctrl-C ends")
    io.flush()
    while state_of(chosen) == before do host.wait_change(chosen) end
  end
end

function test.run(args, host)
  local parsed = options.parse(args, { folders.option, { "--watch", "-w", key = "watch" } }, 1)
  local dirs = folders.list(parsed, host)
  local chosen = choose(parsed[1], dirs)
  if #chosen == 0 then
    local what = parsed[1] and "no plugin " .. parsed[1] or "no plugin with specs"
    io.stderr:write(("sluice: there is %s in %s\n"):format(what, table.concat(dirs, ", ")))
    return 1
  end
  if parsed.watch then return watch(chosen, dirs, host) end
  return run_once(chosen, dirs, host)
end

return test
