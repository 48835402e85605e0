-- SPDX-License-Identifier: Apache-2.0
-- The checker: a short-lived process between a change and a new generation. It loads the configuration and the code of
-- the plugins in it, writes the snapshot that workers build from, and tells the master its settings, one key=value a
-- line on stdout. When anything is wrong it writes no snapshot, prints each error as error=JSON, and exits with 1.
local ffi = require "ffi"
local lfs = require "lfs"
local config = require "sluice.config"
local errors = require "sluice.config.errors"
local snapshot = require "sluice.snapshot"

ffi.cdef [[
int sched_getaffinity(int pid, size_t size, uint8_t *mask);
]]

local checker = {}

local CPU_MASK_BYTES = 128

-- CPUs that this process may run on.
local function cpu_count()
  local mask = ffi.new("uint8_t[?]", CPU_MASK_BYTES)
  if ffi.C.sched_getaffinity(0, CPU_MASK_BYTES, mask) < 0 then return 1 end
  local count = 0
  for i = 0, CPU_MASK_BYTES - 1 do
    local byte = mask[i]
    while byte > 0 do
      count = count + byte % 2
      byte = math.floor(byte / 2)
    end
  end
  return math.max(count, 1)
end

local function absolute(path)
  if path:sub(1, 1) == "/" then return path end
  return lfs.currentdir() .. "/" .. path:gsub("^%./", "")
end

local function tell_listeners(section, tell)
  for _, address in ipairs(section.proxy_listen) do tell("listen.proxy", address) end
  for _, address in ipairs(section.stream_listen) do tell("listen.stream", address) end
  for _, address in ipairs(section.status_listen) do tell("listen.status", address) end
end

-- Those that the master runs for all workers.
local function tell_kafka(section, tell)
  local names = {}
  for name, cluster in pairs(section.kafka or {}) do
    if cluster.embedded then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do tell("kafka.embedded", name) end
end

local function tell_limits(section, tell)
  local names = {}
  for name in pairs(section.limits) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do tell("limit." .. name, ("%.14g"):format(section.limits[name])) end
  tell("limit.plugin_cpu_budget_ms", ("%.14g"):format(section.plugin_cpu_budget_ms))
end

-- Told after a failure as well: mending the file must be noticed.
local function tell_watch(known, tell)
  for _, path in ipairs(known.watch or {}) do tell("watch", absolute(path)) end
  for _, dir in ipairs(known.dirs or {}) do tell("watch", absolute(dir)) end
end

local function tell_settings(loaded, state_dir, tell)
  local section = loaded.gateway
  tell("state_dir", state_dir)
  tell("workers", ("%d"):format(section.workers == "auto" and cpu_count() or section.workers))
  tell_listeners(section, tell)
  tell_kafka(section, tell)
  tell("log.level", section.log.level)
  tell("log.format", section.log.format)
  tell_limits(section, tell)
end

local function fail(found, known, tell)
  for _, err in ipairs(found) do tell("error", errors.json(err)) end
  tell_watch(known, tell)
  return 1
end

local function write_snapshot(loaded, options, state_dir)
  local dir, why = snapshot.folder(state_dir)
  if not dir then return nil, why end
  local revision = options.revision or snapshot.next_revision(dir)
  local path, reason = snapshot.write(dir, revision, loaded:records(revision))
  if path then loaded:keep() end
  return path, reason, revision
end

local function run(options, tell)
  local loaded, found, known = config.load(options.files, { warn_of_broken = true, cache_path = function(section)
    return absolute(options.state_dir or section.state_dir) .. "/cache"
  end })
  if not loaded then return fail(found, known, tell) end
  local state_dir = absolute(options.state_dir or loaded.gateway.state_dir)
  local path, why, revision = write_snapshot(loaded, options, state_dir)
  if not path then return fail({ { file = state_dir, message = why } }, loaded, tell) end
  tell("revision", ("%d"):format(revision))
  tell("snapshot", path)
  tell_settings(loaded, state_dir, tell)
  for _, warning in ipairs(loaded.warnings) do tell("warning", errors.json(warning)) end
  tell_watch(loaded, tell)
  return 0
end

local SMALL_BYTES = 16 * 1024 * 1024 -- takes up to a gigabyte to load

-- The process ends before collecting garbage would pay, and not to collect it halves the time of a load.
local function spare_collection(files)
  local total = 0
  for _, file in ipairs(files) do total = total + (lfs.attributes(file, "size") or 0) end
  if total < SMALL_BYTES then collectgarbage("stop") end
end

-- Options: files (and folders), state_dir (instead of the configuration's), revision (else one above the newest
-- snapshot's), write (instead of io.write). Returns the exit code.
function checker.run(options)
  spare_collection(options.files)
  local write = options.write or io.write
  local lines = {}
  local function tell(key, value)
    lines[#lines + 1] = key .. "=" .. value:gsub("\n", " ") .. "\n"
  end
  local code = run(options, tell)
  write(table.concat(lines))
  return code
end

return checker
