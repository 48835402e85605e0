-- SPDX-License-Identifier: Apache-2.0
-- The world of a gateway that is a process of its own, with real sockets (SLUICE_SPEC=process). Its worker is driven
-- over a socket (core/kit_remote.h), so that its clock, names and topics are the spec's here too, and its connections
-- to services arrive at a port of the kit, wherever they were meant to go. Functions as in sluice.spec.inside.
local ffi = require "ffi"
local cjson = require "cjson"
local core = require "sluice.spec.core"
local files = require "sluice.spec.files"
local lfs = require "lfs"
local setup = require "sluice.spec.setup"

local C = core.C
local AGAIN = C.KIT_AGAIN
local SLOW = os.getenv("SLUICE_BUILD") == "asan" and 5 or 1
local START_S, ANSWER_MS, END_S = 10 * SLOW, 10000 * SLOW, 10 * SLOW -- of real time
local QUIET_TURNS = 3   -- in a row, until nothing is believed to be on its way between two processes
local SETTLE_MS = 2
local ANSWER_BYTES = 1048576
local CHUNK = 65536

local Outside = {}
Outside.__index = Outside

local outside = {}

-- ---- Files ----

local function read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("*a")
  file:close()
  return text
end

-- Replaced at once: whoever watches it never sees half of it.
local function write(path, text)
  local file = assert(io.open(path .. ".new", "wb"))
  file:write(text)
  file:close()
  assert(os.rename(path .. ".new", path))
end

-- The program whose objects the spec's own core is made of.
local function program()
  local given = os.getenv("SLUICE_BINARY")
  if given then return given end
  local variant = os.getenv("SLUICE_BUILD") or "release"
  local built = ("%s/.build/%s/sluice"):format(core.home, variant)
  if core.is_program then return lfs.symlinkattributes("/proc/self/exe", "target") end
  return built
end

-- ---- Lines to the worker, one answer each ----

local scratch = ffi.new("char[?]", CHUNK)

local function lost(self)
  error("the gateway's worker has gone; its log:\n" .. self:log(), 0)
end

local function note_arrival(self, line)
  local from, port, address, name = line:match("^arrival (%d+) (%d+) (%S+) ?(.*)$")
  self.arrivals[tonumber(from)] = { port = tonumber(port), address = address, name = name }
end

local function read_line(self)
  while true do
    local line, rest = self.said:match("^([^\n]*)\n(.*)$")
    if line then
      self.said = rest
      if line:sub(1, 8) ~= "arrival " then return line end
      note_arrival(self, line)
    else
      local count = tonumber(C.kit_read(self.raw, self.control, scratch, CHUNK))
      if count == AGAIN then
        if not C.kit_await(self.raw, self.control, ANSWER_MS) then lost(self) end
      elseif count < 0 then
        self.control = nil
        return nil
      else
        self.said = self.said .. ffi.string(scratch, count)
      end
    end
  end
end

local function write_line(self, line)
  local bytes, sent = line .. "\n", 0
  while sent < #bytes do
    local count = tonumber(C.kit_write(self.raw, self.control, bytes:sub(sent + 1), #bytes - sent))
    if count == AGAIN then
      C.kit_await(self.raw, -1, 1)
    elseif count < 0 then
      self.control = nil
      return false
    else
      sent = sent + count
    end
  end
  return true
end

-- The answer to a line; nil when the worker has ended.
local function ask(self, line)
  return self.control and write_line(self, line) and read_line(self) or nil
end

-- Tells the worker, or whichever comes to be, when there is none yet. Gives its answer.
local function tell(self, line)
  if self.control then return ask(self, line) or lost(self) end
  table.insert(self.told, line)
end

-- ---- Life ----

local port_out = ffi.new("uint32_t[1]")

-- options: time (seconds since 1970), seed.
function outside.new(options)
  local self = setmetatable({ directory = files.temporary(), raw = C.kit_outside(), arrivals = {}, told = {},
    said = "", clock = options.time, generation = 0, open = 0, quiet = 0 }, Outside)
  lfs.mkdir(self.directory .. "/plugins")
  self.socket_path = self.directory .. "/kit.sock"
  self.control_door = C.kit_door(self.raw, "unix:" .. self.socket_path, port_out)
  self.service_door = C.kit_door(self.raw, "", port_out)
  table.insert(self.told, ("begin %d %d %d"):format(options.time, options.seed, port_out[0]))
  return self
end

local function environment(self, options, dirs)
  local ports = self.ports
  local env = {
    SLUICE_HOME = core.home, SLUICE_STATE_DIR = self.directory .. "/state", SLUICE_WORKERS = "1",
    SLUICE_PROXY_LISTEN = ("127.0.0.1:%d, 127.0.0.1:%d ssl"):format(ports.proxy, ports.tls),
    SLUICE_STATUS_LISTEN = "127.0.0.1:" .. ports.status, SLUICE_ADMIN_LISTEN = "off",
    SLUICE_PLUGIN_DIRS = table.concat(dirs, ","), SLUICE_LOG_LEVEL = "debug",
    SLUICE_LIMITS_WATCHDOG_TIMEOUT = "3600000", SLUICE_SPEC_SOCKET = self.socket_path,
    ASAN_OPTIONS = os.getenv("ASAN_OPTIONS") or "detect_leaks=0",
  }
  for name, value in pairs(options.env or {}) do env[name] = value end
  local list = { "LD_PRELOAD", "SLUICE_SPEC" }
  for name, value in pairs(env) do list[#list + 1] = value and name .. "=" .. value or name end
  return list
end

-- An array of C strings, ended by NULL; it lives no longer than `list` and itself.
local function c_strings(list)
  local array = ffi.new("const char *[?]", #list + 1)
  for index, text in ipairs(list) do array[index - 1] = text end
  return array
end

local function spawn(self, options, dirs)
  local ports, last = {}, 0
  for _, name in ipairs { "proxy", "tls", "status" } do
    last = C.kit_free_port(last)
    ports[name] = last
  end
  self.ports = ports
  local arguments = { program(), "run", "-c", self.config_path }
  local env = environment(self, options, dirs)
  local argv, envp = c_strings(arguments), c_strings(env)
  self.pid = C.kit_spawn(argv, envp, self.directory, self.directory .. "/log")
end

local function has_ended(self)
  if not self.status then
    local status = C.kit_reap(self.pid)
    if status ~= AGAIN then self.status = status end
  end
  return self.status ~= nil
end

-- Until `condition`, which is looked at every millisecond or so. nil and why not.
local function wait(self, seconds, condition)
  local deadline = os.time() + seconds + 1
  while not condition() do
    if has_ended(self) then return nil, "the gateway ended: " .. self:log() end
    if os.time() > deadline then return nil, "the gateway does not start: " .. self:log() end
    C.kit_await(self.raw, self.control or -1, 1)
  end
  return true
end

local function accept_worker(self)
  local number = C.kit_door_accept(self.raw, self.control_door, port_out)
  if number < 0 then return false end
  self.control = number
  local told = self.told
  self.told = {}
  for _, line in ipairs(told) do ask(self, line) end
  return true
end

local function start(self, options, dirs, gateway)
  spawn(self, options, dirs)
  local ok, why = wait(self, START_S, function() return accept_worker(self) end)
  if not ok then return nil, why end
  return wait(self, START_S, function()
    gateway:settle()
    return self.generation > 0
  end)
end

local answer_out = ffi.new("char[?]", ANSWER_BYTES)

local function reload(self, gateway)
  local length = tonumber(C.kit_ask(self.directory .. "/state/control.sock", "reload", ANSWER_MS, answer_out,
    ANSWER_BYTES))
  local text = ffi.string(answer_out)
  if length < 0 then return nil, text end
  gateway:settle()
  local answer = cjson.decode(text)
  if answer.ok then return true end
  local lines = {}
  for i, err in ipairs(answer.errors or {}) do lines[i] = require("sluice.cli.gateway").sentence(err) end
  return nil, table.concat(lines, "\n")
end

-- Brings a configuration live: starts the process with it, or has it reload. True, or nil and why not.
function Outside:configure(options, gateway)
  local loaded, errors = setup.load(options, self.directory)
  if not loaded then return nil, setup.text(errors) end
  local text, dirs = setup.files(options, self.directory)
  self.config_path = self.directory .. (text:find("^%s*{") and "/sluice.json" or "/sluice.yml")
  write(self.config_path, text)
  if self.pid then return reload(self, gateway) end
  table.insert(dirs, self.directory .. "/plugins")
  return start(self, options, dirs, gateway)
end

-- A drain takes time, and the clock is the kit's.
local function drain(self)
  C.kit_kill(self.pid, false)
  local deadline = os.time() + END_S
  while self.control and os.time() <= deadline do
    ask(self, "advance 100000")
    ask(self, "turn")
    C.kit_await(self.raw, -1, 1)
  end
  while not has_ended(self) do
    if os.time() > deadline then C.kit_kill(self.pid, true) end
    C.kit_await(self.raw, -1, 2)
  end
end

-- Raises when it did not end well: what a sanitizer finds must not be missed.
function Outside:close()
  if self.pid then drain(self) end
  local log = self:log()
  C.kit_free(self.raw)
  files.remove(self.directory)
  if self.status and self.status ~= 0 or log:find("ERROR: %a+Sanitizer") or log:find("runtime error: ") then
    error(("the gateway ended with %d; its log:\n%s"):format(self.status, log), 0)
  end
end

-- ---- The loop ----

local function ask_turn(self)
  local answer = ask(self, "turn")
  if not answer then return true end
  local busy, next_s, now, generation, open = answer:match("^turned (%d) (%S+) (%S+) (%d+) (%-?%d+)$")
  self.next_s, self.clock = tonumber(next_s), tonumber(now)
  self.generation, self.open = tonumber(generation), tonumber(open)
  return busy == "1"
end

function Outside:turn()
  if not self.control then return false end
  local busy = ask_turn(self)
  self.quiet = busy and 0 or self.quiet + 1
  self.stirred = self.stirred or busy
  if self.quiet < QUIET_TURNS then return true end
  self.quiet = 0
  return false
end

-- Asked before time is moved. After each stir the kernel gets a moment first: on a busy machine bytes may still be on
-- their way from one process to the other.
function Outside:next()
  if self.stirred then
    self.stirred = false
    C.kit_await(self.raw, -1, SETTLE_MS)
    return 0
  end
  return self.next_s and self.next_s >= 0 and self.next_s or nil
end

function Outside:now()
  return self.clock
end

function Outside:advance(seconds)
  tell(self, ("advance %d"):format(math.floor(seconds * 1e6 + 0.5)))
  ask_turn(self)
end

function Outside:exchanges_open()
  return self.open
end

function Outside:log()
  return read(self.directory .. "/log")
end

-- ---- Connections ----

function Outside:accept()
  local number = C.kit_door_accept(self.raw, self.service_door, port_out)
  if number < 0 then return nil end
  local from = port_out[0]
  if not self.arrivals[from] then ask_turn(self) end
  local it = self.arrivals[from] or lost(self)
  self.arrivals[from] = nil
  it.peer = number
  return it
end

function Outside:open_client(listener, address, port, server_name)
  local number = C.kit_socket(self.raw, port_out)
  if number < 0 then return number end
  tell(self, ("origin %d %s %d"):format(port_out[0], address, port))
  if C.kit_connect(self.raw, number, self.ports[listener], listener == "tls" and server_name or nil) < 0 then
    return C.KIT_FAILED
  end
  return number
end

-- ---- Names and services ----

function Outside:name(name, kind, answer)
  local words = { "name", name, tonumber(kind), type(answer) == "table" and #answer or answer }
  for _, it in ipairs(type(answer) == "table" and answer or {}) do
    for _, word in ipairs { it.address, it.port or 0, it.priority or 0, it.weight or 0 } do words[#words + 1] = word end
  end
  tell(self, table.concat(words, " "))
end

-- Before there is a worker the kit's own table gives the addresses, in the order in which the worker's will.
function Outside:address(name)
  return tell(self, "address " .. name) or ffi.string(C.kit_address(self.raw, name))
end

local function or_dash(text)
  return text ~= "" and text or "-"
end

function Outside:mood(address, port, mood)
  tell(self, ("mood %s %d %d"):format(or_dash(address), port, tonumber(mood)))
end

-- ---- Kafka ----

local function to_digits(text)
  if not text then return "-" end
  return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function from_digits(word)
  if word == "-" then return nil end
  return (word:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

function Outside:topic(name, partitions)
  tell(self, ("topic %s %d"):format(name, partitions))
end

function Outside:fails(name, error_name)
  tell(self, ("fails %s %s"):format(or_dash(name), or_dash(error_name)))
end

function Outside:produce(name, record)
  local words = { "produce", name, record.partition, ("%d"):format(record.timestamp), to_digits(record.key),
    to_digits(record.value) }
  for _, header in ipairs(record.headers) do
    words[#words + 1] = to_digits(header[1])
    words[#words + 1] = to_digits(header[2])
  end
  return tell(self, table.concat(words, " ")) ~= "no"
end

function Outside:record(name, index)
  local line = tell(self, ("record %s %d"):format(name, index))
  local words = {}
  for word in ((line or "none") .. " "):gmatch("(.-) ") do words[#words + 1] = word end
  if words[1] ~= "record" then return nil end
  local headers = {}
  for i = 7, #words, 2 do headers[#headers + 1] = { from_digits(words[i]), from_digits(words[i + 1]) } end
  return { partition = tonumber(words[2]), offset = tonumber(words[3]), timestamp = tonumber(words[4]),
    key = from_digits(words[5]), value = from_digits(words[6]), headers = headers }
end

return outside
