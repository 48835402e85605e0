-- SPDX-License-Identifier: Apache-2.0
-- The few system calls that specs need, through the FFI. Every name is declared under an alias of its own
-- (`spec_...`), so that it never disagrees with a declaration that the runtime makes in the same process.
local ffi = require "ffi"

local posix = {}

local registry = debug.getregistry()
if not registry["sluice.spec.posix"] then
  registry["sluice.spec.posix"] = true
  ffi.cdef [[
    struct sys_timespec { long sec, nsec; };
    struct sys_pollfd { int fd; short events, revents; };
    struct sys_sockaddr { uint16_t family, port; uint32_t address; char zero[8]; };
    struct sys_sockaddr_un { uint16_t family; char path[108]; };
    struct sys_spawn_actions { uint64_t opaque[32]; };
    struct sys_spawn_attributes { uint64_t opaque[64]; };
    struct sys_signals { uint64_t bits[16]; };

    extern char **sys_environ __asm__("environ");
    int sys_clock_gettime(int, struct sys_timespec *) __asm__("clock_gettime");
    int sys_poll(struct sys_pollfd *, unsigned long, int) __asm__("poll");
    int sys_socket(int, int, int) __asm__("socket");
    int sys_connect(int, const void *, uint32_t) __asm__("connect");
    int sys_bind(int, const void *, uint32_t) __asm__("bind");
    int sys_listen(int, int) __asm__("listen");
    int sys_accept4(int, void *, uint32_t *, int) __asm__("accept4");
    int sys_getsockname(int, void *, uint32_t *) __asm__("getsockname");
    int sys_getsockopt(int, int, int, void *, uint32_t *) __asm__("getsockopt");
    int sys_setsockopt(int, int, int, const void *, uint32_t) __asm__("setsockopt");
    int sys_shutdown(int, int) __asm__("shutdown");
    long sys_send(int, const void *, size_t, int) __asm__("send");
    long sys_recv(int, void *, size_t, int) __asm__("recv");
    int sys_close_fd(int) __asm__("close");
    int sys_getpid(void) __asm__("getpid");
    int sys_kill(int, int) __asm__("kill");
    int sys_waitpid(int, int *, int) __asm__("waitpid");
    void *sys_signal(int, intptr_t) __asm__("signal");
    char *sys_strerror(int) __asm__("strerror");
    char *sys_mkdtemp(char *) __asm__("mkdtemp");
    int sys_spawnp(int *, const char *, const struct sys_spawn_actions *, const struct sys_spawn_attributes *,
                    char *const *, char *const *) __asm__("posix_spawnp");
    int sys_attributes_init(struct sys_spawn_attributes *) __asm__("posix_spawnattr_init");
    int sys_attributes_destroy(struct sys_spawn_attributes *) __asm__("posix_spawnattr_destroy");
    int sys_attributes_flags(struct sys_spawn_attributes *, short) __asm__("posix_spawnattr_setflags");
    int sys_attributes_default(struct sys_spawn_attributes *, const struct sys_signals *)
      __asm__("posix_spawnattr_setsigdefault");
    int sys_actions_init(struct sys_spawn_actions *) __asm__("posix_spawn_file_actions_init");
    int sys_actions_destroy(struct sys_spawn_actions *) __asm__("posix_spawn_file_actions_destroy");
    int sys_actions_addopen(struct sys_spawn_actions *, int, const char *, int, unsigned)
      __asm__("posix_spawn_file_actions_addopen");
    int sys_actions_adddup2(struct sys_spawn_actions *, int, int) __asm__("posix_spawn_file_actions_adddup2");
    int sys_actions_addclosefrom(struct sys_spawn_actions *, int)
      __asm__("posix_spawn_file_actions_addclosefrom_np");
    int sys_actions_addchdir(struct sys_spawn_actions *, const char *)
      __asm__("posix_spawn_file_actions_addchdir_np");
  ]]
end

local C = ffi.C
posix.C = C

posix.EINTR, posix.EAGAIN, posix.EINPROGRESS = 4, 11, 115
posix.SIGHUP, posix.SIGINT, posix.SIGKILL, posix.SIGTERM, posix.SIGSTOP, posix.SIGCONT = 1, 2, 9, 15, 19, 18
posix.POLLIN, posix.POLLOUT = 1, 4
posix.AF_UNIX, posix.AF_INET = 1, 2
local O_RDONLY, O_WRONLY, O_CREAT, O_APPEND = 0, 1, 64, 1024
local SOCK_STREAM_NONBLOCK_CLOEXEC = 1 + 2048 + 524288
local SOL_SOCKET, SO_REUSEADDR, SO_ERROR = 1, 2, 4
local WNOHANG = 1
local PARENT_MOST = 60 -- of bytes: sockets lie in these directories, whose path has 107

function posix.error(what)
  return what .. ": " .. ffi.string(C.sys_strerror(ffi.errno()))
end

local timespec = ffi.new("struct sys_timespec")

-- Monotonic seconds.
function posix.now()
  C.sys_clock_gettime(1, timespec)
  return tonumber(timespec.sec) + tonumber(timespec.nsec) / 1e9
end

-- CPU seconds that a process has used, with those of its threads that have ended. Clock ids: man 3 clock_getcpuclockid.
function posix.cpu_seconds(pid)
  if C.sys_clock_gettime(-(pid + 1) * 8 + 2, timespec) ~= 0 then error(posix.error("clock_gettime")) end
  return tonumber(timespec.sec) + tonumber(timespec.nsec) / 1e9
end

-- Lets other processes run for a moment, between two looks at a condition.
function posix.pause(seconds)
  C.sys_poll(nil, 0, math.ceil(seconds * 1000))
end

local pollfd = ffi.new("struct sys_pollfd")

-- Waits until the descriptor is ready for `events`. False when the deadline (monotonic seconds) has passed.
function posix.wait_fd(fd, events, deadline)
  while true do
    pollfd.fd, pollfd.events, pollfd.revents = fd, events, 0
    local left = math.max(0, math.ceil((deadline - posix.now()) * 1000))
    local count = C.sys_poll(pollfd, 1, left)
    if count > 0 then return true end
    if count == 0 then return false end
    assert(ffi.errno() == posix.EINTR, posix.error("poll"))
  end
end

local function ipv4(address)
  local a, b, c, d = address:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  assert(a, "not an IPv4 address: " .. address)
  return ffi.abi("le") and (a + b * 2 ^ 8 + c * 2 ^ 16 + d * 2 ^ 24) or (d + c * 2 ^ 8 + b * 2 ^ 16 + a * 2 ^ 24)
end

local function swap16(n)
  return n % 256 * 256 + math.floor(n / 256)
end

-- The socket address of an IPv4 address and port, or of "unix:/path".
function posix.address(host, port)
  local path = host:match("^unix:(.+)")
  if path then
    local name = ffi.new("struct sys_sockaddr_un", posix.AF_UNIX)
    assert(#path < ffi.sizeof(name.path), "too long for a socket's address: " .. path)
    ffi.copy(name.path, path)
    return name, ffi.sizeof(name), posix.AF_UNIX
  end
  local name = ffi.new("struct sys_sockaddr", posix.AF_INET)
  name.port, name.address = swap16(port), ipv4(host)
  return name, ffi.sizeof(name), posix.AF_INET
end

function posix.stream_socket(family)
  local fd = C.sys_socket(family, SOCK_STREAM_NONBLOCK_CLOEXEC, 0)
  assert(fd >= 0, posix.error("socket"))
  return fd
end

-- 0, or why a connect that was in progress has failed.
function posix.socket_error(fd)
  local value, len = ffi.new("int[1]"), ffi.new("uint32_t[1]", 4)
  C.sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, value, len)
  return value[0]
end

-- A listening socket, or nil and why. Port 0 lets the kernel choose; the second result is the port.
function posix.listen(host, port)
  local name, len, family = posix.address(host, port)
  local fd = posix.stream_socket(family)
  C.sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, ffi.new("int[1]", 1), 4)
  if C.sys_bind(fd, name, len) ~= 0 or C.sys_listen(fd, 1024) ~= 0 then
    local why = posix.error("listen")
    C.sys_close_fd(fd)
    return nil, why
  end
  if family == posix.AF_UNIX then return fd end
  C.sys_getsockname(fd, name, ffi.new("uint32_t[1]", len))
  return fd, swap16(name.port)
end

function posix.accept(fd)
  return C.sys_accept4(fd, nil, nil, SOCK_STREAM_NONBLOCK_CLOEXEC - 1)
end

-- The environment of a child: ours without a preloaded sanitizer, with `changes` (a false value removes a name).
local function environment(changes)
  local list, merged = {}, { LD_PRELOAD = false }
  for name, value in pairs(changes or {}) do merged[name] = value end
  local index = 0
  while C.sys_environ[index] ~= nil do
    local entry = ffi.string(C.sys_environ[index])
    if merged[entry:match("^[^=]+")] == nil then list[#list + 1] = entry end
    index = index + 1
  end
  for name, value in pairs(merged) do
    if value then list[#list + 1] = name .. "=" .. tostring(value) end
  end
  return list
end

-- An array of C strings, ended by NULL; it lives no longer than `list` and itself.
local function c_strings(list)
  local array = ffi.new("const char *[?]", #list + 1)
  for index, text in ipairs(list) do array[index - 1] = text end
  return array
end

-- A peer that went away is an error of the write, as it must be where OpenSSL writes; children begin with the default.
local SIGPIPE, SIG_IGN, SPAWN_SETSIGDEF = 13, 1, 4
C.sys_signal(SIGPIPE, SIG_IGN)

local function default_signals()
  local attributes, signals = ffi.new("struct sys_spawn_attributes"), ffi.new("struct sys_signals")
  signals.bits[0] = 2 ^ (SIGPIPE - 1)
  C.sys_attributes_init(attributes)
  C.sys_attributes_flags(attributes, SPAWN_SETSIGDEF)
  C.sys_attributes_default(attributes, signals)
  return attributes
end

-- Starts a program found on PATH. options: env, cwd, stdin, stdout, stderr (paths of files; appended to).
-- Returns its pid.
function posix.spawn(arguments, options)
  local actions = ffi.new("struct sys_spawn_actions")
  local attributes = default_signals()
  local pid = ffi.new("int[1]")
  local env = environment(options.env)
  local argv, envp = c_strings(arguments), c_strings(env)
  C.sys_actions_init(actions)
  C.sys_actions_addopen(actions, 0, options.stdin or "/dev/null", O_RDONLY, 0)
  C.sys_actions_addopen(actions, 1, options.stdout or "/dev/null", O_WRONLY + O_CREAT + O_APPEND, 420)
  if options.stderr == options.stdout then
    C.sys_actions_adddup2(actions, 1, 2)
  else
    C.sys_actions_addopen(actions, 2, options.stderr or "/dev/null", O_WRONLY + O_CREAT + O_APPEND, 420)
  end
  C.sys_actions_addclosefrom(actions, 3) -- files of ours that the collector has yet to close
  if options.cwd then C.sys_actions_addchdir(actions, options.cwd) end
  local failed = C.sys_spawnp(pid, arguments[1], actions, attributes, ffi.cast("char *const *", argv),
    ffi.cast("char *const *", envp))
  C.sys_actions_destroy(actions)
  C.sys_attributes_destroy(attributes)
  if failed ~= 0 then error("cannot start " .. arguments[1] .. ": " .. ffi.string(C.sys_strerror(failed)), 2) end
  return pid[0]
end

function posix.kill(pid, signal)
  return C.sys_kill(pid, signal) == 0
end

function posix.getpid()
  return C.sys_getpid()
end

-- The exit status of a child that has ended (128 + signal when one ended it), nil while it runs.
function posix.reap(pid)
  local status = ffi.new("int[1]")
  local ended = C.sys_waitpid(pid, status, WNOHANG)
  if ended == 0 then return nil end
  assert(ended == pid, posix.error("waitpid"))
  local signal = status[0] % 128
  return signal == 0 and math.floor(status[0] / 256) % 256 or 128 + signal
end

-- Where busted does not look: it forgets modules between files.
local function made_directories()
  local made = registry["sluice.spec.directories"]
  if made then return made end
  made = {}
  local sentinel = newproxy(true)
  getmetatable(sentinel).__gc = function()
    for directory in pairs(made) do os.execute("rm -rf '" .. directory .. "'") end
  end
  registry["sluice.spec.directories"], registry[sentinel] = made, true
  return made
end

-- A new, empty directory. It goes, with what is in it, when this process ends in order, if nobody removed it before.
function posix.temporary_directory()
  local parent = os.getenv("TMPDIR") or "/tmp"
  if #parent > PARENT_MOST then parent = "/tmp" end
  local template = parent .. "/sluice-spec-XXXXXX"
  local buffer = ffi.new("char[?]", #template + 1, template)
  assert(C.sys_mkdtemp(buffer) ~= nil, posix.error("mkdtemp"))
  local directory = ffi.string(buffer)
  made_directories()[directory] = true
  return directory
end

-- Nothing is left to remove.
function posix.forget_directory(directory)
  made_directories()[directory] = nil
end

return posix
