-- SPDX-License-Identifier: Apache-2.0
-- Other programs in a spec: started with a log that can be read at any time, waited for with a deadline, and never
-- left behind (they get SIGTERM when the spec's own process dies).
local posix = require "spec.support.posix"

local process = {}

local child = {}
child.__index = child

local function read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("*a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

process.read_file, process.write_file = read, write

-- Sanitizer builds need several times as long for the same thing.
process.slowness = os.getenv("SLUICE_BUILD") == "asan" and 5 or 1

-- Calls `condition` until it gives a true value, and returns that. Raises after `seconds`, saying `what` (a text, or a
-- function that gives one) was missing.
function process.wait_until(condition, seconds, what)
  local deadline = posix.now() + (seconds or 5) * process.slowness
  while true do
    local value, why = condition()
    if value then return value end
    if posix.now() > deadline then
      if type(what) == "function" then what = what() end
      error(("not within %g s: %s"):format(seconds or 5, what or why or "the condition"), 2)
    end
    posix.pause(0.005)
  end
end

local HOUR_S, CLEAR_S = 3600, 30
local MINUTE_S, CLEAR_OF_MINUTE_S = 60, 5

-- Windows of an hour and more begin with an hour of the real clock: returns when none does so for a while, and what a
-- spec counts by that clock falls into one.
function process.clear_of_the_hour()
  while os.time() % HOUR_S >= HOUR_S - CLEAR_S do posix.pause(0.1) end
end

-- The same for windows of a minute, for what takes a second or so.
function process.clear_of_the_minute()
  while os.time() % MINUTE_S >= MINUTE_S - CLEAR_OF_MINUTE_S do posix.pause(0.1) end
end

-- ---- Ports ----
-- Below the range from which the kernel takes ports for outgoing connections, so that none of those comes to sit there.
-- Suites run side by side, and a port that was given may be free for a time (a broker takes seconds to start, another
-- one is killed and comes back): each process takes its ports from blocks of its own. Who listens on the first port of
-- a block has it.

local FIRST_PORT, BLOCKS, BLOCK_PORTS = 10000, 40, 500

local registry = debug.getregistry() -- outlasts this module, which busted forgets between files
local blocks = registry["sluice.spec.ports"] or {} -- { first =, last = }; ports come from the latest
registry["sluice.spec.ports"] = blocks
local given = {} -- in this file

local function claim_block()
  local from = posix.getpid() + os.time() + #blocks
  for i = 1, BLOCKS do
    local first = FIRST_PORT + (from + i) % BLOCKS * BLOCK_PORTS
    local fd = posix.listen("127.0.0.1", first)
    if fd then
      blocks[#blocks + 1] = { first = first, last = first, fd = fd }
      return
    end
  end
  error("no free block of ports")
end

-- The next port of the latest block that nobody listens on.
local function port_of_block()
  local block = blocks[#blocks]
  for _ = 1, block and BLOCK_PORTS - 1 or 0 do
    block.last = block.last < block.first + BLOCK_PORTS - 1 and block.last + 1 or block.first + 1
    local fd = not given[block.last] and posix.listen("127.0.0.1", block.last)
    if fd then
      posix.C.sys_close_fd(fd)
      return block.last
    end
  end
end

-- A port on 127.0.0.1 that nobody listens on, and no other spec's process will take.
function process.free_port()
  local port = port_of_block()
  while not port do
    claim_block()
    port = port_of_block()
  end
  given[port] = true
  return port
end

-- ---- Other processes than children ----

-- False once it has ended, though nobody may have reaped it yet.
function process.is_alive(pid)
  local stat = read("/proc/" .. pid .. "/stat")
  return stat ~= "" and not stat:find("%) Z ")
end

-- ---- Standing still ----

-- Whether none of a process's threads runs.
local function stands_still(pid)
  local threads = io.popen("cat /proc/" .. pid .. "/task/*/stat 2>/dev/null")
  local still = true
  for stat in threads:lines() do
    if stat:match(".*%) (%a)"):find("[^TZX]") then still = false end
  end
  threads:close()
  return still
end

-- Stops a process and returns when all its threads stand still: on a busy machine those go on for milliseconds after
-- the signal, time enough to answer a request.
function process.hold(pid)
  posix.kill(pid, posix.SIGSTOP)
  process.wait_until(function() return stands_still(pid) end, 20, "process " .. pid .. " to stand still")
end

function process.go_on(pid)
  posix.kill(pid, posix.SIGCONT)
end

-- ---- Programs ----

-- Starts a program. `options`: env (name -> value; false removes), cwd, directory (for its output; else a new one,
-- which `forget` removes), owns_directory (that one is removed as well).
function process.start(arguments, options)
  options = options or {}
  local self = setmetatable({}, child)
  self.directory = options.directory or posix.temporary_directory()
  self.owns_directory = options.owns_directory or not options.directory
  self.name = arguments[1]:match("[^/]+$")
  self.stdout_path = self.directory .. "/" .. self.name .. ".out"
  self.stderr_path = self.directory .. "/" .. self.name .. ".err"
  local command = { "setpriv", "--pdeathsig", "TERM", "--" }
  for _, argument in ipairs(arguments) do command[#command + 1] = tostring(argument) end
  self.pid = posix.spawn(command,
    { env = options.env, cwd = options.cwd, stdout = self.stdout_path, stderr = self.stderr_path })
  return self
end

-- Runs a program to its end. Returns exit status, standard output, standard error.
function process.run(arguments, options)
  local self = process.start(arguments, options)
  local status = self:wait(options and options.seconds or 20)
  if not status then self:stop(0) end
  local out, err = self:stdout(), self:stderr()
  self:forget()
  return status, out, err
end

function child:stdout()
  return read(self.stdout_path)
end

function child:stderr()
  return read(self.stderr_path)
end

function child:is_running()
  if not self.status then
    self.status = posix.reap(self.pid)
  end
  return not self.status
end

-- The exit status (128 + signal when a signal ended it), or nil when it still runs after `seconds`.
function child:wait(seconds)
  local deadline = posix.now() + seconds * process.slowness
  while self:is_running() do
    if posix.now() > deadline then return nil end
    posix.pause(0.002)
  end
  return self.status
end

function child:signal(signal)
  if self:is_running() then posix.kill(self.pid, signal) end
end

function child:hold()
  if self:is_running() then process.hold(self.pid) end
end

function child:go_on()
  if self:is_running() then process.go_on(self.pid) end
end

-- SIGTERM, and SIGKILL when that does not end it within `seconds`. Returns the exit status.
function child:stop(seconds)
  self:signal(posix.SIGTERM)
  if not self:wait(seconds or 5) then
    self:signal(posix.SIGKILL)
    self:wait(5)
  end
  return self.status
end

-- Removes its output, when the directory was made for it.
function child:forget()
  if self.owns_directory then process.remove(self.directory) end
end

-- Removes a directory that posix.temporary_directory made.
function process.remove(directory)
  assert(directory:find("/sluice-spec-", 1, true), "not ours to remove: " .. directory)
  os.execute("rm -rf '" .. directory .. "'")
  posix.forget_directory(directory)
end

-- Calls `action` when this process ends in order, for what all its specs share.
function process.at_exit(action)
  local sentinel = newproxy(true)
  getmetatable(sentinel).__gc = action
  registry[sentinel] = true
end

return process
