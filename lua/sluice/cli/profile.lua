-- SPDX-License-Identifier: Apache-2.0
-- `sluice profile`: where the workers' CPU time goes. They take samples as long as somebody asks for them, so this asks
-- every second; what the first answer holds is from before.

local columns = require "sluice.cli.columns"
local ffi = require "ffi"
local flame = require "sluice.cli.profile.flame"
local gateway = require "sluice.cli.gateway"
local options = require "sluice.cli.options"
local stacks = require "sluice.cli.profile.stacks"
local symbols = require "sluice.cli.profile.symbols"

local profile = {}

local PATIENCE_S = 10
local LEAST_S, MOST_S = 0.1, 3600
local ROWS = 10

pcall(ffi.cdef, [[int sluice_profile_poll(void *, unsigned long, int) __asm__("poll");]])

local function seconds_of(text)
  local seconds = tonumber(text or 10)
  if not seconds or seconds < LEAST_S or seconds > MOST_S then
    options.fail("--seconds needs a number of seconds from %g to %g", LEAST_S, MOST_S)
  end
  return seconds
end

-- Adds every worker's answer to `all`, when there is one; gives how many have answered, or nil and why not.
local function look(host, files, all)
  local seen, why = gateway.ask(host, files, "profile", PATIENCE_S)
  if not seen then return nil, why end
  if not seen.workers then return nil, "the gateway that runs knows no profiles" end
  for _, worker in ipairs(seen.workers) do
    if worker.error then return nil, worker.error end
    if all then all:add(worker) end
  end
  return #seen.workers
end

local function gather(host, files, seconds, all)
  local workers, why = look(host, files)
  local left = seconds
  while workers and left > 0 do
    local step = math.min(left, 1)
    ffi.C.sluice_profile_poll(nil, 0, math.ceil(step * 1000))
    left = left - step
    workers, why = look(host, files, all)
    if workers and host.terminal then
      io.write(("\r%.0f s left, %d workers, %d ms of CPU time\27[K"):format(left, workers, all.total))
      io.flush()
    end
  end
  if host.terminal then io.write("\r\27[K") end
  return workers, why
end

-- Made before anything is measured: a profile that cannot be written is of no use.
local function open(path)
  local file, why = io.open(path, "wb")
  if not file then options.fail("cannot write %s", why) end
  return file
end

local function write(file, text)
  local written, why = file:write(text)
  local closed, other = file:close()
  return written and closed, why or other
end

local function report(all, prefix)
  local rows = {}
  for i, one in ipairs(all:top(ROWS)) do
    rows[i] = { ("%d ms"):format(one.own), ("%.1f %%"):format(one.own / all.total * 100),
      ("%.1f %%"):format(one.total / all.total * 100), one.name }
  end
  if #rows > 0 then
    io.write(columns.format({ "ITSELF", "", "WITH CALLS", "FRAME" }, rows, { true, true, true }), "\n")
  end
  io.write(("%d ms of CPU time in %d stacks"):format(all.total, #all.order))
  io.write(all.lost > 0 and (", %d samples lost"):format(all.lost) or "")
  io.write(("\n%s.folded\n%s.svg\n"):format(prefix, prefix))
end

function profile.run(args, host)
  local parsed = options.parse(args, { options.config, { "--seconds", key = "seconds", value = "N" },
    { "--output", "-o", key = "output", value = "PREFIX" } })
  local seconds, prefix = seconds_of(parsed.seconds), parsed.output or "./sluice-profile"
  local all = stacks.new(symbols.reader(), host.home)
  local state, reason = gateway.ask(host, options.files(parsed), "top", PATIENCE_S)
  if not state then return gateway.complain(reason) end
  local folded, graph = open(prefix .. ".folded"), open(prefix .. ".svg")
  local workers, why = gather(host, options.files(parsed), seconds, all)
  if not workers then return gateway.complain(why) end
  local title = ("sluice, %g s of %d workers: %d ms of CPU time"):format(seconds, workers, all.total)
  for file, text in pairs { [folded] = all:folded(), [graph] = flame.draw(all:tree(), title) } do
    local written, problem = write(file, text)
    if not written then return gateway.complain(problem) end
  end
  report(all, prefix)
  return 0
end

return profile
