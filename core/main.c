// SPDX-License-Identifier: Apache-2.0
// The program. Commands are Lua (lua/sluice/cli); those that run a gateway come back here, after their Lua state has
// been closed, because a master has none.
#include <assert.h>
#include <ev.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "log.h"
#include "master.h"
#include "text.h"
#include "title.h"
#include "vm.h"
#include "watch.h"

#ifndef SLUICE_VERSION
#define SLUICE_VERSION "unknown"
#endif
#ifndef SLUICE_PREFIX
#define SLUICE_PREFIX "/usr/local"
#endif

extern const char bridge_declarations[];

enum { EXIT_USAGE = 2 };

// What a command asks of main when it is not done by itself.
struct wish {
  bool run, daemon;
  char **files;
  uint32_t file_count;
};

struct program {
  char *path;  // absolute, as started: an upgrade executes what lies there then
  char **argv; // copies
  char home[PATH_MAX];
  struct log log;
  struct title title;
  struct wish wish;
};

// ---- Where things are -------------------------------------------------------------------------------------------

static char *path_absolute(const char *name) {
  char here[PATH_MAX], full[PATH_MAX * 2];
  if (strchr(name, '/')) {
    if (name[0] == '/' || !getcwd(here, sizeof here)) return strdup(name);
    snprintf(full, sizeof full, "%s/%s", here, name);
    return strdup(full);
  }
  ssize_t len = readlink("/proc/self/exe", here, sizeof here - 1);
  here[len > 0 ? len : 0] = 0;
  return strdup(here);
}

static bool is_home(const char *folder) {
  char path[PATH_MAX];
  return snprintf(path, sizeof path, "%s/lua/sluice/boot.lua", folder) < (int)sizeof path && access(path, R_OK) == 0;
}

// The folder of lua/ and plugins/: SLUICE_HOME, the one above the program's, or the installed one.
static void home_find(char out[PATH_MAX]) {
  const char *given = getenv("SLUICE_HOME");
  if (given && *given && realpath(given, out)) return;
  ssize_t len = readlink("/proc/self/exe", out, PATH_MAX - 1);
  out[len > 0 ? len : 0] = 0;
  // Up from bin/sluice, and from where a build leaves it (.build/release/sluice).
  for (int up = 0; up < 3; up++) {
    char *slash = strrchr(out, '/');
    if (!slash) break;
    *slash = 0;
    if (is_home(out)) return;
  }
  snprintf(out, PATH_MAX, "%s/share/sluice", SLUICE_PREFIX);
}

// ---- What Lua may ask of the program ----------------------------------------------------------------------------

// ask(socket_path, line, timeout_ms) -> answer, or nil and why not
static int host_ask(lua_State *lua) {
  struct text answer = {0};
  struct error error;
  int code =
      control_ask(luaL_checkstring(lua, 1), luaL_checkstring(lua, 2), luaL_checkinteger(lua, 3), &answer, &error);
  if (code < 0) {
    lua_pushnil(lua);
    lua_pushstring(lua, error.text);
  } else {
    lua_pushlstring(lua, answer.data ? answer.data : "", answer.len);
  }
  text_free(&answer);
  return code < 0 ? 2 : 1;
}

struct wait {
  struct loop loop;
  struct log log;
  char path[PATH_MAX];
};

static void on_change(void *context, const char *path) {
  struct wait *wait = context;
  snprintf(wait->path, sizeof wait->path, "%s", path);
  ev_break(wait->loop.ev, EVBREAK_ALL);
}

static void paths_watch(lua_State *lua, struct watch *watch, int table) {
  uint32_t count = (uint32_t)lua_objlen(lua, table);
  const char **paths = calloc(count + 1, sizeof *paths);
  assert(paths);
  for (uint32_t i = 0; i < count; i++) {
    lua_rawgeti(lua, table, (int)i + 1);
    paths[i] = lua_tostring(lua, -1);
    lua_pop(lua, 1); // the table keeps the string
    if (!paths[i]) paths[i] = "";
  }
  watch_set(watch, paths, count, NULL);
  free(paths);
}

// wait_change(paths) -> the path that changed; waits without end
static int host_wait_change(lua_State *lua) {
  struct error error;
  struct wait wait = {.log = {.fd = -1}};
  luaL_checktype(lua, 1, LUA_TTABLE);
  wait.loop = (struct loop){.ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV), .log = &wait.log};
  struct watch *watch = watch_new(&wait.loop, on_change, &wait, &error);
  if (watch) {
    paths_watch(lua, watch, 1);
    ev_run(wait.loop.ev, 0);
    watch_free(watch);
  }
  ev_loop_destroy(wait.loop.ev);
  if (!watch) return luaL_error(lua, "%s", error.text);
  lua_pushstring(lua, wait.path);
  return 1;
}

static void push_host(lua_State *lua, const struct program *program) {
  lua_newtable(lua);
  lua_pushcfunction(lua, host_ask);
  lua_setfield(lua, -2, "ask");
  lua_pushcfunction(lua, host_wait_change);
  lua_setfield(lua, -2, "wait_change");
  lua_pushstring(lua, program->path);
  lua_setfield(lua, -2, "program");
  lua_pushstring(lua, program->home);
  lua_setfield(lua, -2, "home");
  lua_pushstring(lua, SLUICE_VERSION);
  lua_setfield(lua, -2, "version");
  lua_pushboolean(lua, isatty(STDOUT_FILENO));
  lua_setfield(lua, -2, "terminal");
}

// ---- Lua --------------------------------------------------------------------------------------------------------

static lua_State *lua_start(struct program *program) {
  struct error error;
  struct vm_options options = {.home = program->home, .bridge_text = bridge_declarations, .log = &program->log};
  lua_State *lua = vm_open(&options, &error);
  if (!lua) fprintf(stderr, "sluice: %s\n", error.text);
  return lua;
}

static int on_lua_error(lua_State *lua) {
  luaL_traceback(lua, lua, lua_tostring(lua, 1), 1);
  return 1;
}

// Leaves the function `name` of `module` on the stack, above the error handler. False and a message when there is none.
static bool push_function(lua_State *lua, const char *module, const char *name) {
  lua_pushcfunction(lua, on_lua_error);
  lua_getglobal(lua, "require");
  lua_pushstring(lua, module);
  if (lua_pcall(lua, 1, 1, -3) != 0) {
    fprintf(stderr, "sluice: %s\n", lua_tostring(lua, -1));
    return false;
  }
  lua_getfield(lua, -1, name);
  lua_remove(lua, -2);
  return true;
}

static bool call(lua_State *lua, int args) {
  if (lua_pcall(lua, args, 1, -args - 2) == 0) return true;
  fprintf(stderr, "sluice: %s\n", lua_tostring(lua, -1));
  return false;
}

static void push_strings(lua_State *lua, char *const *strings, uint32_t count) {
  lua_createtable(lua, (int)count, 0);
  for (uint32_t i = 0; i < count; i++) {
    lua_pushstring(lua, strings[i]);
    lua_rawseti(lua, -2, (int)i + 1);
  }
}

// The checker: require("sluice.checker").run{files = {...}, home = ...} -> exit code, settings on stdout.
static int check_run(void *context) {
  struct program *program = context;
  lua_State *lua = lua_start(program);
  if (!lua || !push_function(lua, "sluice.checker", "run")) return 1;
  lua_newtable(lua);
  push_strings(lua, program->wish.files, program->wish.file_count);
  lua_setfield(lua, -2, "files");
  lua_pushstring(lua, program->home);
  lua_setfield(lua, -2, "home");
  if (!call(lua, 1)) return 1;
  int code = (int)lua_tointeger(lua, -1);
  fflush(stdout);
  return code; // the process ends: closing the state would only take time
}

static void wish_take(lua_State *lua, struct wish *wish) {
  wish->run = true;
  lua_getfield(lua, -1, "daemon");
  wish->daemon = lua_toboolean(lua, -1);
  lua_pop(lua, 1);
  lua_getfield(lua, -1, "files");
  wish->file_count = (uint32_t)lua_objlen(lua, -1);
  wish->files = calloc(wish->file_count + 1, sizeof *wish->files);
  assert(wish->files);
  for (uint32_t i = 0; i < wish->file_count; i++) {
    lua_rawgeti(lua, -1, (int)i + 1);
    wish->files[i] = strdup(luaL_checkstring(lua, -1));
    lua_pop(lua, 1);
  }
  lua_pop(lua, 1);
}

// Runs the command of the arguments: require("sluice.cli").main(arguments, host) gives an exit code, or a table with
// files and daemon when a gateway is to be run.
static int command_run(struct program *program, int argc) {
  lua_State *lua = lua_start(program);
  if (!lua) return 1;
  int code = 1;
  if (push_function(lua, "sluice.cli", "main")) {
    push_strings(lua, program->argv + 1, (uint32_t)(argc > 0 ? argc - 1 : 0));
    push_host(lua, program);
    if (call(lua, 2)) {
      code = (int)lua_tointeger(lua, -1);
      if (lua_istable(lua, -1)) wish_take(lua, &program->wish);
    }
  }
  lua_close(lua);
  return code;
}

// ---- Gateways ---------------------------------------------------------------------------------------------------

static int gateway_run(struct program *program, int ready_fd) {
  struct master_options options = {.program = program->path,
                                   .argv = program->argv,
                                   .version = SLUICE_VERSION,
                                   .home = program->home,
                                   .files = (const char *const *)program->wish.files,
                                   .file_count = program->wish.file_count,
                                   .check = check_run,
                                   .check_context = program,
                                   .title = &program->title,
                                   .daemon = program->wish.daemon,
                                   .ready_fd = ready_fd};
  return master_run(&options);
}

// The parent's part of `start`: waits until the gateway is live or has said on stderr why not.
static int start_await(int fd) {
  char said[16] = "";
  ssize_t n = read(fd, said, sizeof said - 1);
  return n > 0 && strncmp(said, "ready", 5) == 0 ? 0 : 1;
}

static int gateway_start(struct program *program) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return 1;
  pid_t pid = fork();
  if (pid < 0) return 1;
  if (pid > 0) {
    close(ends[1]);
    return start_await(ends[0]);
  }
  close(ends[0]);
  setsid();
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(null, STDIN_FILENO);
  close(null);
  return gateway_run(program, ends[1]);
}

static char **argv_copy(int argc, char **argv) {
  char **copy = calloc((size_t)argc + 1, sizeof *copy);
  assert(copy);
  for (int i = 0; i < argc; i++) copy[i] = strdup(argv[i]);
  return copy;
}

int main(int argc, char **argv) {
  struct program program = {.log = {.level = LOG_NOTICE, .fd = STDERR_FILENO, .source = "sluice"}};
  if (argc < 1) return EXIT_USAGE;
  program.path = path_absolute(argv[0]);
  program.argv = argv_copy(argc, argv);
  home_find(program.home);
  int code = command_run(&program, argc);
  if (!program.wish.run) return code;
  title_init(&program.title, argc, argv);
  // A master that takes over from another runs in its place, daemon or not.
  bool fork_off = program.wish.daemon && !getenv("SLUICE_INHERIT");
  return fork_off ? gateway_start(&program) : gateway_run(&program, -1);
}
