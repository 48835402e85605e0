// SPDX-License-Identifier: Apache-2.0
// The LuaJIT state of a worker.
//
// Budget. Two clocks tick while the thread uses CPU, and none while it idles. LuaJIT's own profiler (mode "l") makes
// compiled code leave for the interpreter at each sample. A POSIX timer on the thread's CPU clock looks, in its signal
// handler, whether the same plugin call still runs as at earlier ticks; past the budget it arms a count hook, and the
// hook raises an ordinary Lua error at the next instruction of the interpreter:
//
//   tick: a new call, note it .. tick .. tick: over budget, arm the hook .. hook: raise, raise, raise .. xpcall: disarm
//
// The hook stays armed until the runner's xpcall is reached, so a plugin that catches the error is hit again at once.
// A call is told from the next by three counters that are kept anyway (entries into Lua, the running plugin, its
// calls), so that starting one costs nothing. The same ticks account CPU time to the plugin that runs.
#include "vm.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "profile.h"

enum {
  TICK_MS = 5,         // between looks at the running call; the profiler's samples too
  STRIKES = 400,       // ticks past the budget after which the worker gives itself up
  COROUTINE_BITS = 20, // of a coroutine's number: its place; the rest counts its jobs
  COROUTINES_MAX = (1 << COROUTINE_BITS) - 1,
  COROUTINES_KEPT = 256, // idle ones beyond it are left to the collector
  OBJECTS_INDEX = 1,     // on the main stack: table of exchange objects by slot + 1
  BODY_INDEX = 2 // on the main stack: the function that runs a job; at the bottom of each coroutine's stack, too
};

struct coroutine {
  lua_State *lua;
  int reference;
  uint32_t place;
  uint64_t jobs;    // begun so far: makes numbers unique
  uint32_t running; // plugin whose code waits
  bool waiting;
  int memory_kb;  // that Lua's memory may still grow by while this job runs, 0: no limit
  int entered_kb; // Lua's memory when it was last entered
  struct coroutine *next_free;
  struct vm_job job;
};

// One call of a plugin, as the tick handler tells it from the next.
struct call {
  uint64_t entries, calls;
  uint32_t plugin;
};

struct vm {
  lua_State *lua;
  struct worker *worker;
  struct log *log;
  struct board *board;
  struct coroutine **coroutines;
  uint32_t count, room, free_count;
  struct coroutine *free_list;
  struct coroutine *current;
  double last; // number of the coroutine that ran last
  struct profile_place place;
  struct profile *profile; // NULL: nobody asks for one
  bool has_timer;
  timer_t timer;
  int64_t budget_us;
  // Written by the tick handler, on this very thread.
  struct call call;    // seen at the last tick
  int64_t call_cpu_us; // thread's CPU time when it was first seen
  int64_t tick_cpu_us; // at the last tick
  uint32_t strikes;    // ticks at which the call was past its budget
  volatile bool over;  // the hook is armed against `call`
  bool over_memory;    // for what it has allocated, not for its time
};

// ---- The budget ---------------------------------------------------------------------------------------------------

static int64_t thread_cpu_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static struct call call_now(const struct vm *vm) {
  uint32_t plugin = vm->board->running;
  if (plugin >= BOARD_PLUGINS) plugin = 0;
  return (struct call){vm->place.entries, vm->board->plugin_calls[plugin], plugin};
}

static bool call_same(struct call a, struct call b) {
  return a.entries == b.entries && a.calls == b.calls && a.plugin == b.plugin;
}

static struct vm *vm_of(lua_State *lua) {
  lua_pushliteral(lua, "sluice.vm");
  lua_rawget(lua, LUA_REGISTRYINDEX);
  struct vm *vm = lua_touserdata(lua, -1);
  lua_pop(lua, 1);
  return vm;
}

static void on_budget(lua_State *lua, lua_Debug *debug) {
  (void)debug;
  struct vm *vm = vm_of(lua);
  if (!vm->over || !call_same(vm->call, call_now(vm))) {
    lua_sethook(lua, NULL, 0, 0);
    vm->over = false;
    return;
  }
  luaL_where(lua, 0); // in a hook, level 0 is the function that was stopped
  if (vm->over_memory)
    lua_pushliteral(lua, "stopped: passed its memory limit");
  else
    lua_pushfstring(lua, "stopped: passed its CPU budget of %d ms", (int)(vm->budget_us / 1000));
  lua_concat(lua, 2);
  lua_error(lua);
}

// A plugin that no error stops: C code that never ends, or one that goes on catching.
static void give_up(struct vm *vm) {
  log_crit(vm->log, "plugin cannot be stopped, worker gives up", "plugin", vm->board->plugin_names[vm->call.plugin]);
  abort();
}

// Lua's memory counts what the collector has not found yet, too.
static bool past_memory(const struct vm *vm) {
  const struct coroutine *current = vm->current;
  if (!current || current->memory_kb == 0) return false;
  return lua_gc(vm->lua, LUA_GCCOUNT, 0) - current->entered_kb > current->memory_kb;
}

// Against the running call, which no error has stopped so far.
static void stop_call(struct vm *vm, bool over_memory) {
  if (++vm->strikes > STRIKES) give_up(vm);
  vm->over_memory = over_memory;
  vm->over = true;
  lua_sethook(vm->lua, on_budget, LUA_MASKCOUNT, 1);
}

// A signal handler: plain stores, and lua_sethook, which is made for this.
static void on_tick(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number;
  (void)context;
  int saved = errno;
  struct vm *vm = info->si_value.sival_ptr;
  int64_t cpu = thread_cpu_us();
  struct call call = call_now(vm);
  if (call.plugin) vm->board->plugin_cpu_us[call.plugin] += (uint64_t)(cpu - vm->tick_cpu_us);
  vm->tick_cpu_us = cpu;
  if (!call_same(call, vm->call)) {
    vm->call = call;
    vm->call_cpu_us = cpu;
    vm->strikes = 0;
  } else if (call.plugin && vm->budget_us > 0 && cpu - vm->call_cpu_us >= vm->budget_us) {
    stop_call(vm, false);
  }
  if (call.plugin && !vm->over && past_memory(vm)) stop_call(vm, true);
  errno = saved;
}

// Samples make compiled code leave for the interpreter; time is accounted by on_tick.
static void on_sample(void *context, lua_State *lua, int samples, int state) {
  (void)samples;
  const struct vm *vm = context;
  if (vm->profile) profile_on_lua(vm->profile, lua, state);
}

static int budget_start(struct vm *vm, struct error *error) {
  struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGPROF);
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGVTALRM};
  event.sigev_value.sival_ptr = vm;
  event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  if (sigaction(SIGVTALRM, &action, NULL) < 0 || timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &vm->timer) < 0)
    return error_system(error, "cannot make the timer of the CPU budget");
  vm->has_timer = true;
  luaJIT_profile_start(vm->lua, "li5", on_sample, vm);
  struct timespec tick = {0, TICK_MS * 1000000L};
  struct itimerspec every = {tick, tick};
  if (timer_settime(vm->timer, 0, &every, NULL) < 0) return error_system(error, "cannot start the CPU budget's timer");
  return 0;
}

static void budget_stop(struct vm *vm) {
  vm_profile_end(vm);
  if (!vm->has_timer) return;
  timer_delete(vm->timer);
  luaJIT_profile_stop(vm->lua);
}

// The handler of the xpcall around each plugin call: a text gets a traceback, anything else (the exit mark) passes.
static int on_plugin_error(lua_State *lua) {
  struct vm *vm = vm_of(lua);
  if (vm && vm->over) {
    lua_sethook(lua, NULL, 0, 0);
    vm->over = false;
    if (vm->call.plugin) vm->board->plugin_stops[vm->call.plugin]++;
  }
  if (lua_type(lua, 1) == LUA_TSTRING) luaL_traceback(lua, lua, lua_tostring(lua, 1), 1);
  return 1;
}

// ---- Making the state ------------------------------------------------------------------------------------------------

// NULL when the bridge's functions are the program's own; else the library that holds them (in specs).
static const char *library_path(void) {
  Dl_info info;
  if (dlsym(RTLD_DEFAULT, "bridge_self") || !dladdr((void *)(uintptr_t)vm_new, &info)) return NULL;
  return info.dli_fname;
}

// Runs HOME/lua/sluice/boot.lua with (home, bridge_text, library, worker, on_error); leaves its results on the stack.
static int boot(lua_State *lua, const struct vm_options *options, struct worker *worker, struct error *error) {
  lua_pushcfunction(lua, on_plugin_error);
  lua_pushfstring(lua, "%s/lua/sluice/boot.lua", options->home);
  int loaded = luaL_loadfile(lua, lua_tostring(lua, -1));
  lua_remove(lua, -2);
  if (loaded != 0) goto fail;
  lua_pushstring(lua, options->home);
  lua_pushstring(lua, options->bridge_text);
  lua_pushstring(lua, library_path());
  if (worker)
    lua_pushlightuserdata(lua, worker);
  else
    lua_pushnil(lua);
  lua_pushcfunction(lua, on_plugin_error);
  if (lua_pcall(lua, 5, LUA_MULTRET, 1) != 0) goto fail;
  lua_remove(lua, 1);
  return 0;
fail:
  return error_set(error, ERROR_INVALID, "%s", lua_tostring(lua, -1));
}

struct lua_State *vm_open(const struct vm_options *options, struct error *error) {
  lua_State *lua = luaL_newstate();
  if (!lua) {
    error_set(error, ERROR_MEMORY, "no memory for a Lua state");
    return NULL;
  }
  luaL_openlibs(lua);
  if (boot(lua, options, NULL, error) == 0) return lua;
  lua_close(lua);
  return NULL;
}

static int vm_start_lua(struct vm *vm, const struct vm_options *options, struct error *error) {
  vm->lua = luaL_newstate();
  if (!vm->lua) return error_set(error, ERROR_MEMORY, "no memory for a Lua state");
  luaL_openlibs(vm->lua);
  lua_pushliteral(vm->lua, "sluice.vm");
  lua_pushlightuserdata(vm->lua, vm);
  lua_rawset(vm->lua, LUA_REGISTRYINDEX);
  // The profiler first: what was compiled before it would not stop for a sample.
  if (budget_start(vm, error) < 0 || boot(vm->lua, options, vm->worker, error) < 0) return -1;
  assert(lua_istable(vm->lua, OBJECTS_INDEX) && lua_isfunction(vm->lua, BODY_INDEX));
  return 0;
}

struct vm *vm_new(struct worker *worker, const struct vm_options *options, struct error *error) {
  struct vm *vm = calloc(1, sizeof *vm);
  if (!vm) {
    error_set(error, ERROR_MEMORY, "no memory for a VM");
    return NULL;
  }
  vm->worker = worker;
  vm->log = options->log;
  vm->board = options->board;
  vm->budget_us = (int64_t)(options->cpu_budget_ms * 1000);
  if (vm_start_lua(vm, options, error) == 0) return vm;
  vm_free(vm);
  return NULL;
}

void vm_free(struct vm *vm) {
  assert(!vm->current);
  if (vm->lua) {
    budget_stop(vm);
    lua_close(vm->lua);
  }
  for (uint32_t i = 0; i < vm->count; i++) free(vm->coroutines[i]);
  free(vm->coroutines);
  free(vm);
}

// ---- Coroutines -------------------------------------------------------------------------------------------------------

static double coroutine_number(const struct coroutine *coroutine) {
  return (double)((coroutine->jobs << COROUTINE_BITS) + coroutine->place + 1);
}

static struct coroutine *coroutine_find(const struct vm *vm, double number) {
  if (!(number >= 1 && number < 9007199254740992.0)) return NULL;
  uint64_t place = ((uint64_t)number & COROUTINES_MAX) - 1;
  if (place >= vm->count || coroutine_number(vm->coroutines[place]) != number) return NULL;
  return vm->coroutines[place];
}

// The Lua thread of a place in the pool.
static void coroutine_open(struct vm *vm, struct coroutine *coroutine) {
  coroutine->lua = lua_newthread(vm->lua);
  coroutine->reference = luaL_ref(vm->lua, LUA_REGISTRYINDEX);
  lua_pushvalue(vm->lua, BODY_INDEX);
  lua_xmove(vm->lua, coroutine->lua, 1);
}

static void coroutine_close(struct vm *vm, struct coroutine *coroutine) {
  luaL_unref(vm->lua, LUA_REGISTRYINDEX, coroutine->reference);
  coroutine->lua = NULL;
}

static struct coroutine *coroutine_add(struct vm *vm) {
  if (vm->count == vm->room) {
    uint32_t room = vm->room ? vm->room * 2 : 16;
    if (room > COROUTINES_MAX + 1) return NULL;
    struct coroutine **grown = realloc(vm->coroutines, room * sizeof(struct coroutine *));
    if (!grown) return NULL;
    vm->coroutines = grown;
    vm->room = room;
  }
  struct coroutine *coroutine = calloc(1, sizeof *coroutine);
  if (!coroutine) return NULL;
  coroutine->place = vm->count;
  vm->coroutines[vm->count++] = coroutine;
  return coroutine;
}

static struct coroutine *coroutine_take(struct vm *vm) {
  struct coroutine *coroutine = vm->free_list;
  if (coroutine) {
    vm->free_list = coroutine->next_free;
    vm->free_count--;
  } else {
    coroutine = coroutine_add(vm);
    if (!coroutine) return NULL;
  }
  if (!coroutine->lua) coroutine_open(vm, coroutine);
  coroutine->jobs++;
  coroutine->running = 0;
  return coroutine;
}

static void coroutine_release(struct vm *vm, struct coroutine *coroutine) {
  coroutine->waiting = false;
  coroutine->memory_kb = 0;
  if (vm->free_count >= COROUTINES_KEPT && coroutine->lua) coroutine_close(vm, coroutine);
  coroutine->next_free = vm->free_list;
  vm->free_list = coroutine;
  vm->free_count++;
}

static enum vm_result coroutine_broke(struct vm *vm, struct coroutine *coroutine) {
  lua_sethook(vm->lua, NULL, 0, 0);
  luaL_traceback(vm->lua, coroutine->lua, lua_tostring(coroutine->lua, -1), 0);
  log_error(vm->log, "runtime failed", "why", lua_tostring(vm->lua, -1));
  lua_pop(vm->lua, 1);
  coroutine_close(vm, coroutine);
  coroutine_release(vm, coroutine);
  return VM_FAILED;
}

// What the body returned stays on its coroutine's stack, and so alive, until that is used again.
static void coroutine_read(struct coroutine *coroutine, struct vm_answer *answer) {
  size_t len = 0;
  const char *data = lua_tolstring(coroutine->lua, 3, &len);
  answer->code = (int)lua_tointeger(coroutine->lua, 2);
  answer->has_text = data != NULL;
  answer->text = (struct slice){data, (uint32_t)len};
}

// What it has grown by is gone from its limit; what the collector took meanwhile was others'.
static void coroutine_count_memory(const struct vm *vm, struct coroutine *coroutine) {
  int grown = lua_gc(vm->lua, LUA_GCCOUNT, 0) - coroutine->entered_kb;
  if (grown > 0) coroutine->memory_kb = grown < coroutine->memory_kb ? coroutine->memory_kb - grown : 1;
}

void vm_limit_memory(struct vm *vm, uint32_t kilobytes) {
  if (!vm->current) return;
  vm->current->memory_kb = (int)(kilobytes < INT32_MAX ? kilobytes : INT32_MAX);
  vm->current->entered_kb = lua_gc(vm->lua, LUA_GCCOUNT, 0);
}

static enum vm_result coroutine_run(struct vm *vm, struct coroutine *coroutine, int arguments,
                                    struct vm_answer *answer) {
  assert(!vm->current);
  vm->current = coroutine;
  vm->last = coroutine_number(coroutine);
  vm->place.entries++;
  vm->place.frame = __builtin_frame_address(0);
  vm->board->running = coroutine->running;
  if (coroutine->memory_kb) coroutine->entered_kb = lua_gc(vm->lua, LUA_GCCOUNT, 0);
  int status = lua_resume(coroutine->lua, arguments);
  if (coroutine->memory_kb) coroutine_count_memory(vm, coroutine);
  coroutine->running = vm->board->running;
  vm->place.frame = NULL;
  vm->board->running = 0;
  vm->current = NULL;
  answer->job = coroutine->job;
  coroutine->waiting = status == LUA_YIELD;
  if (coroutine->waiting) return VM_WAITING;
  if (status != 0) return coroutine_broke(vm, coroutine);
  coroutine_read(coroutine, answer);
  coroutine_release(vm, coroutine);
  return VM_DONE;
}

enum vm_result vm_start(struct vm *vm, const struct vm_job *job, struct vm_answer *answer) {
  struct coroutine *coroutine = coroutine_take(vm);
  answer->job = *job;
  if (!coroutine) {
    log_error(vm->log, "too many coroutines");
    return VM_FAILED;
  }
  coroutine->job = *job;
  coroutine->job.text = (struct slice){NULL, 0};
  // The body is called anew for each job, not resumed in a loop: a trace of it ends where it returns to C, and may
  // hold the whole job.
  lua_State *lua = coroutine->lua;
  lua_settop(lua, 1);
  lua_pushvalue(lua, 1);
  lua_pushinteger(lua, (lua_Integer)coroutine->place + 1);
  lua_pushinteger(lua, job->kind);
  for (int i = 0; i < VM_JOB_NUMBERS; i++) lua_pushnumber(lua, job->numbers[i]);
  if (!job->text.data) return coroutine_run(vm, coroutine, 2 + VM_JOB_NUMBERS, answer);
  lua_pushlstring(lua, job->text.data, job->text.len);
  return coroutine_run(vm, coroutine, 3 + VM_JOB_NUMBERS, answer);
}

enum vm_result vm_resume(struct vm *vm, double number, int status, double value, struct vm_answer *answer) {
  struct coroutine *coroutine = coroutine_find(vm, number);
  if (!coroutine || !coroutine->waiting) return VM_WAITING;
  coroutine->waiting = false;
  lua_settop(coroutine->lua, 0);
  lua_pushinteger(coroutine->lua, status);
  lua_pushnumber(coroutine->lua, value);
  return coroutine_run(vm, coroutine, 2, answer);
}

void vm_refuse(struct vm *vm, const char *why) {
  struct coroutine *coroutine = coroutine_find(vm, vm->last);
  if (!coroutine || !coroutine->waiting) return;
  log_error(vm->log, why, "plugin", vm->board->plugin_names[coroutine->running % BOARD_PLUGINS]);
  coroutine->jobs++; // what still comes for it finds nobody
  coroutine_close(vm, coroutine);
  coroutine_release(vm, coroutine);
}

double vm_self(const struct vm *vm) {
  return vm->current ? coroutine_number(vm->current) : 0;
}

void vm_forget(struct vm *vm, uint32_t slot) {
  lua_pushnil(vm->lua);
  lua_rawseti(vm->lua, OBJECTS_INDEX, (int)slot + 1);
}

void vm_set_budget(struct vm *vm, double ms) {
  vm->budget_us = (int64_t)(ms * 1000);
}

int vm_profile(struct vm *vm, struct text *out, struct error *error) {
  if (!vm->profile) vm->profile = profile_start(&vm->place, vm->board, error);
  if (!vm->profile) return error->code;
  profile_tell(vm->profile, out);
  return 0;
}

void vm_profile_end(struct vm *vm) {
  if (vm->profile) profile_stop(vm->profile);
  vm->profile = NULL;
}

double vm_memory(const struct vm *vm) {
  return lua_gc(vm->lua, LUA_GCCOUNT, 0) * 1024.0 + lua_gc(vm->lua, LUA_GCCOUNTB, 0);
}
