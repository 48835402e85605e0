-- SPDX-License-Identifier: Apache-2.0
-- The whole gateway in a spec: `sluice run` on free ports, in a directory of its own, with its log at hand.
--
--   local gw = gateway.start([[
--   _format_version: "3.0"
--   services: ...
--   ]])
--   gw:get("/path").status
--   gw:stop()
local cjson = require "cjson"
local http = require "spec.support.http"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local gateway = {}

local running = {}
running.__index = running

local home = os.getenv("SLUICE_HOME") or assert(io.popen("pwd")):read("*l")

-- The program under test: that of the variant whose library the specs load, or SLUICE_BINARY.
gateway.binary = os.getenv("SLUICE_BINARY")
  or ("%s/.build/%s/sluice"):format(home, os.getenv("SLUICE_BUILD") or "release")

local function write_tree(directory, files)
  for name, text in pairs(files or {}) do
    os.execute(("mkdir -p '%s'"):format((directory .. "/" .. name):match("^(.*)/")))
    process.write_file(directory .. "/" .. name, text)
  end
end

-- A plugin is a table of files, or the text of its handler.lua.
local function write_plugins(directory, plugins)
  for name, files in pairs(plugins or {}) do
    if type(files) == "string" then files = { ["handler.lua"] = files } end
    for file, text in pairs(files) do write_tree(directory, { ["plugins/" .. name .. "/" .. file] = text }) end
  end
end

-- More than the default: a thread's clock goes on while a virtual machine's host has taken the CPU away, and a
-- sanitizer costs its own. nil where the configuration says something itself, as that of a spec about budgets does.
local function cpu_budget_ms(config)
  local said
  if type(config) == "table" then
    said = config.gateway and config.gateway.plugin_cpu_budget_ms
  else
    said = config:find("plugin_cpu_budget_ms", 1, true)
  end
  return not said and 1000 * process.slowness or nil
end

-- What differs from the configuration given is told by the environment, so that it can be any file, unchanged.
local function environment(self, config, options)
  local http2 = options.http2 and " http2" or ""
  local env = {
    SLUICE_HOME = home,
    SLUICE_PROXY_LISTEN = ("127.0.0.1:%d%s, 127.0.0.1:%d ssl%s"):format(self.port, http2, self.tls_port, http2),
    SLUICE_STATUS_LISTEN = "127.0.0.1:" .. self.status_port,
    SLUICE_ADMIN_LISTEN = "off",
    SLUICE_STATE_DIR = self.directory .. "/state",
    SLUICE_PLUGIN_DIRS = self.directory .. "/plugins",
    SLUICE_PLUGIN_CPU_BUDGET_MS = cpu_budget_ms(config),
    SLUICE_WORKERS = tostring(options.workers or 1),
    ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "detect_leaks=0") .. ":log_path=" .. self.directory .. "/sanitizer",
  }
  for name, value in pairs(options.env or {}) do env[name] = value end
  return env
end

-- Seconds that a client waits for the gateway. It gives itself up to 30 s for most that has to do with Kafka, and is to
-- be the one who says what took too long. nil: what net.wrap says.
local function patience(config, options)
  local text = type(config) == "table" and cjson.encode(config) or config
  return options.timeout or text:find("kafka", 1, true) and 40 or nil
end

-- `config`: YAML text, a table (written as JSON), or a function that is given the gateway (its ports) and makes one.
-- options: workers (1), env, plugins (name -> handler text, or
-- files), files (path -> text), wait (false: do not wait until it answers), prefix (words in front of the command),
-- http2 (both listeners take HTTP/2), timeout (see patience), program (another binary, by its path in the tree).
function gateway.start(config, options)
  options = options or {}
  local self = setmetatable({ directory = posix.temporary_directory() }, running)
  self.program = options.program and home .. "/" .. options.program or gateway.binary
  self.port, self.tls_port, self.status_port = process.free_port(), process.free_port(), process.free_port()
  if type(config) == "function" then config = config(self) end
  self.config_path = self.directory .. (type(config) == "table" and "/sluice.json" or "/sluice.yml")
  os.execute(("mkdir -p '%s/plugins'"):format(self.directory))
  write_tree(self.directory, options.files)
  write_plugins(self.directory, options.plugins)
  self:write_config(config)
  self.env = environment(self, config, options)
  self.prefix, self.timeout = options.prefix, patience(config, options)
  self:launch()
  if options.wait == false then return self end
  local ready, why = pcall(self.wait_ready, self)
  if ready then return self end
  self.process:stop(5)
  self.process:forget()
  error(why, 0)
end

function running:launch()
  local command = { unpack(self.prefix or {}) }
  for _, word in ipairs({ self.program, "run", "-c", self.config_path }) do command[#command + 1] = word end
  self.process = process.start(command,
    { env = self.env, directory = self.directory, owns_directory = true, cwd = self.directory })
end

-- Ends all of it at once, as a crash of the machine would, to be started again on the same ports by launch: those are
-- free once the last of the workers has gone.
function running:kill()
  local pids = self:workers()
  self.process:signal(posix.SIGKILL)
  for _, pid in ipairs(pids) do posix.kill(pid, posix.SIGKILL) end
  self.process:wait(5)
  for _, pid in ipairs(pids) do
    process.wait_until(function() return not process.is_alive(pid) end, 20, "the end of worker " .. pid)
  end
end

-- What the master says that it does: "starting", "running", "draining"; nil when it does not answer.
local function state_of(self)
  local socket = net.connect("unix:" .. self.env.SLUICE_STATE_DIR .. "/control.sock", 0, { timeout = 1 })
  if not socket then return nil end
  socket:send("status\n")
  local answer = socket:receive_all()
  socket:close()
  return answer:match('^{"version":"[^"]*","pid":%d+,"state":"(%a+)"')
end

-- Until a worker answers, and the master knows of all of them that they carry traffic: the first may do so while others
-- have yet to begin.
function running:wait_ready()
  process.wait_until(function()
    if not self.process:is_running() then error("the gateway ended: " .. self:log(), 0) end
    local client = http.connect(self.status_port, { timeout = 1 })
    local response = client and client:request({ path = "/status" })
    if client then client:close() end
    return response and state_of(self) == "running"
  end, 30, function() return "an answer of the gateway: " .. self:log() end)
end

-- ---- Files ----

-- Replaces a file at once, as an editor that saves does.
function running:write(name, text)
  local path = self.directory .. "/" .. name
  write_tree(self.directory, { [name .. ".new"] = text })
  assert(os.rename(path .. ".new", path))
end

function running:write_config(config)
  self:write(self.config_path:match("[^/]+$"), type(config) == "table" and cjson.encode(config) or config)
end

function running:write_plugin(name, files)
  if type(files) == "string" then files = { ["handler.lua"] = files } end
  for file, text in pairs(files) do self:write("plugins/" .. name .. "/" .. file, text) end
end

-- ---- Requests ----

-- One request on a connection of its own (see spec.support.http).
function running:request(request)
  if type(request) == "string" then request = { path = request } end
  request.timeout = request.timeout or self.timeout
  return http.request(self.port, request)
end

function running:get(path, headers)
  return self:request { path = path, headers = headers }
end

-- A connection to send on. options as for http.connect.
function running:connect(options)
  options = options or {}
  options.timeout = options.timeout or self.timeout
  return assert(http.connect(options.tls and self.tls_port or self.port, options))
end

-- ---- The process ----

-- Standard error, where the gateway logs, and what a sanitizer found.
function running:log()
  local log = self.process:stdout() .. self.process:stderr()
  local files = io.popen(("cat '%s'/sanitizer.* 2>/dev/null"):format(self.directory))
  log = log .. files:read("*a")
  files:close()
  return log
end

-- Waits until the log holds a whole line with that pattern, and gives the line.
function running:wait_log(pattern, seconds)
  return process.wait_until(function()
    for line in self:log():gmatch("([^\n]+)\n") do
      if line:find(pattern) then return line end
    end
  end, seconds or 20, function() return "'" .. pattern .. "' in the log: " .. self:log() end)
end

-- `sluice NAME -c CONFIG ...`: exit status, standard output, standard error.
function running:command(name, ...)
  return process.run({ self.program, name, "-c", self.config_path, ... }, { env = self.env, cwd = self.directory })
end

-- Process ids of the workers, in order of their number.
function running:workers()
  local pids = {}
  local children = process.read_file(("/proc/%d/task/%d/children"):format(self.process.pid, self.process.pid))
  for pid in children:gmatch("%d+") do
    local number = process.read_file("/proc/" .. pid .. "/cmdline"):match("^sluice: worker (%d+)")
    if number then pids[#pids + 1] = { tonumber(number), tonumber(pid) } end
  end
  table.sort(pids, function(a, b) return a[1] < b[1] end)
  for index, entry in ipairs(pids) do pids[index] = entry[2] end
  return pids
end

-- SIGTERM; gives the exit status. Raises when a worker fell over something or a sanitizer found it, and was replaced:
-- a spec that passed over it has not passed.
function running:stop()
  local status = self.process:stop(10)
  local log = self:log()
  if os.getenv("SLUICE_SPEC_LOG") then io.stderr:write(log) end -- to see what a failing spec did
  self.process:forget()
  local found = log:match("ERROR: AddressSanitizer.*") or log:match("[^\n]*runtime error:.*")
    or log:match("[^\n]*Assertion `.*") or log:match("[^\n]*was killed by signal 11.*")
  assert(not found, found)
  return status
end

return gateway
