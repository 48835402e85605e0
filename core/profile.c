// SPDX-License-Identifier: Apache-2.0
// Samples of the thread's stacks.
//
// A timer on the thread's CPU clock interrupts it. Its handler notes the stack of C, which can be read at any moment. That
// of Lua cannot: the handler passes the signal on to LuaJIT's profiler, which calls back at the next instruction where
// Lua's stack is whole, and the sample is completed there:
//
//   timer ──> handler: stack of C ── Lua does not run: done
//                  └── Lua runs ──> SIGPROF ──> LuaJIT's callback: stack of Lua, for all that wait for it
//
// A sample whose entry into Lua has ended before the callback came keeps the plugin's name alone.
#include "profile.h"

#include <errno.h>
#include <link.h>
#include <luajit.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "text.h"

enum {
  PERIOD_US = 1000,    // asked for; the kernel may tick more slowly, and then tells how many periods have passed
  SAMPLES_MOST = 4096, // between two looks
  FRAMES_MOST = 64,
  SCAN_WORDS = 2048, // of the stack, for the next return address
  LUA_FRAMES = 48,
  LUA_BYTES = 8192, // of one stack
  LUA_ROOM = 4 << 20,
  TOLD_BYTES = 6 << 20, // of JSON; must stay below CONTROL_LINE_MAX
  MODULES_MOST = 96,
  STACK_BYTES = 65536, // of the handler
  // Nobody else has a use for it. Of signals that come together the least is handled first, and this one must be: after
  // SIGVTALRM or SIGPROF it would find the thread in their handlers.
  SIGNAL = SIGSTKFLT
};

struct sample {
  uint64_t entry; // into Lua
  uint32_t periods, plugin;
  uint32_t lua_at, lua_len; // in `lua`
  uint32_t count;
  char state; // of LuaJIT's VM, 0: not in Lua, or not known
  bool waits; // for the stack of Lua
  uintptr_t frames[FRAMES_MOST];
};

struct module {
  uintptr_t base, from, to;
  char path[256];
};

struct profile {
  const struct profile_place *place;
  const struct board *board;
  bool has_timer, has_stack;
  timer_t timer;
  stack_t stack, stack_before; // the handler has its own: what it left on the thread's would be taken for frames
  uintptr_t stack_top;
  struct module own, luajit; // of these the handler asks
  struct module *modules;    // all, as they are told
  uint32_t module_count;
  volatile uint32_t count, waiting; // samples; of these the first that may wait
  volatile uint32_t lost;
  char *lua; // stacks of Lua
  uint32_t lua_len;
  struct sample *samples;
};

// ---- The stack of C -------------------------------------------------------------------------------------------------

static bool within(const struct module *module, uintptr_t address) {
  return address >= module->from && address < module->to;
}

// Of a walk from the inmost frame outwards: our own code keeps frame pointers, that of libraries need not.
struct walk {
  const struct profile *profile;
  struct sample *sample;
  uintptr_t sp, fp, top; // all between sp and top is mapped
};

static bool is_code(const struct profile *profile, uintptr_t address) {
  for (uint32_t i = 0; i < profile->module_count; i++)
    if (within(&profile->modules[i], address)) return true;
  return false;
}

// The interpreter, and what it has compiled: their frames are Lua's stack.
static bool is_lua(const struct profile *profile, uintptr_t address) {
  return within(&profile->luajit, address) || !is_code(profile, address);
}

// The instrumented build would take the words of others' frames for mistakes.
__attribute__((no_sanitize("address"))) static uintptr_t word_at(uintptr_t address) {
  return *(const volatile uintptr_t *)address;
}

// How likely a frame begins there, with the pointer to the outer one and the address to return to: not at all, likely,
// certainly enough. What Lua has compiled lies in no file: with it on the stack any address may be one.
enum chance { CHANCE_NONE, CHANCE_SOME, CHANCE_GOOD };

static enum chance frame_chance(const struct walk *walk, uintptr_t fp) {
  bool inside = fp >= walk->sp && fp % sizeof fp == 0 && fp < walk->top && walk->top - fp >= 2 * sizeof fp;
  if (!inside) return CHANCE_NONE;
  if (is_code(walk->profile, word_at(fp + sizeof fp))) return CHANCE_GOOD;
  return walk->profile->place->frame ? CHANCE_SOME : CHANCE_NONE;
}

struct guess {
  uintptr_t fp;
  enum chance chance;
};

static void guess_add(const struct walk *walk, struct guess *guess, uintptr_t fp) {
  enum chance chance = frame_chance(walk, fp);
  if (chance > guess->chance) *guess = (struct guess){fp, chance};
}

// Out of a library: the next word that looks like a return address into our code is taken for one. The frame pointer of
// that function is still in its register, or was saved by the library below it. 0: none found.
static uintptr_t walk_scan(struct walk *walk) {
  const struct profile *profile = walk->profile;
  uintptr_t at = (walk->sp + 7) & ~(uintptr_t)7;
  struct guess guess = {0, CHANCE_NONE};
  guess_add(walk, &guess, walk->fp);
  for (int i = 0; i < SCAN_WORDS && at < walk->top && walk->top - at >= sizeof at; i++, at += sizeof at) {
    uintptr_t word = word_at(at);
    if (profile->place->frame && within(&profile->luajit, word)) return 0;
    if (within(&profile->own, word)) {
      walk->fp = guess.fp > at ? guess.fp : 0;
      walk->sp = at + sizeof at;
      return word;
    }
    if (guess.fp <= at) guess = (struct guess){0, CHANCE_NONE};
    if (word > at) guess_add(walk, &guess, word);
  }
  return 0;
}

static void walk_run(struct walk *walk, uintptr_t address) {
  struct sample *sample = walk->sample;
  bool in_lua = walk->profile->place->frame != NULL;
  while (address && sample->count < FRAMES_MOST) {
    if (in_lua && is_lua(walk->profile, address)) return;
    sample->frames[sample->count++] = address;
    if (within(&walk->profile->own, address) && frame_chance(walk, walk->fp) != CHANCE_NONE) {
      uintptr_t fp = walk->fp;
      address = word_at(fp + sizeof fp);
      walk->fp = word_at(fp);
      walk->sp = fp + 2 * sizeof fp;
    } else {
      address = walk_scan(walk);
    }
  }
}

#if defined(__x86_64__)
static void registers_of(const ucontext_t *context, uintptr_t *pc, uintptr_t *sp, uintptr_t *fp) {
  *pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
  *sp = (uintptr_t)context->uc_mcontext.gregs[REG_RSP];
  *fp = (uintptr_t)context->uc_mcontext.gregs[REG_RBP];
}
#elif defined(__aarch64__)
static void registers_of(const ucontext_t *context, uintptr_t *pc, uintptr_t *sp, uintptr_t *fp) {
  *pc = (uintptr_t)context->uc_mcontext.pc;
  *sp = (uintptr_t)context->uc_mcontext.sp;
  *fp = (uintptr_t)context->uc_mcontext.regs[29];
}
#else
#error "where a signal's context keeps the registers is not known for this processor"
#endif

// Within Lua the walk ends where C entered it.
static void sample_walk(const struct profile *profile, struct sample *sample, const ucontext_t *context) {
  struct walk walk = {.profile = profile, .sample = sample, .top = profile->stack_top};
  uintptr_t pc;
  registers_of(context, &pc, &walk.sp, &walk.fp);
  if (walk.sp >= walk.top) return; // on another stack
  uintptr_t frame = (uintptr_t)profile->place->frame;
  if (frame) walk.top = frame;
  walk_run(&walk, pc);
}

// ---- Taking samples -------------------------------------------------------------------------------------------------

// A signal handler.
static void on_timer(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number;
  int saved = errno;
  struct profile *profile = info->si_value.sival_ptr;
  uint32_t at = profile->count;
  if (at == SAMPLES_MOST) {
    profile->lost++;
    return;
  }
  struct sample *sample = &profile->samples[at];
  uint32_t plugin = profile->board->running;
  memset(sample, 0, offsetof(struct sample, frames));
  sample->entry = profile->place->entries;
  sample->periods = 1 + (uint32_t)info->si_overrun;
  sample->waits = profile->place->frame != NULL;
  sample->plugin = plugin < BOARD_PLUGINS ? plugin : 0;
  sample_walk(profile, sample, context);
  profile->count = at + 1;
  // Delivered when this handler returns: SIGPROF is in its mask.
  if (sample->waits) syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), SIGPROF);
  errno = saved;
}

void profile_on_lua(struct profile *profile, struct lua_State *lua, int state) {
  uint32_t count = profile->count, at = profile->lua_len;
  uint64_t entry = profile->place->entries;
  size_t len = 0;
  for (uint32_t i = profile->waiting; i < count; i++) {
    struct sample *sample = &profile->samples[i];
    if (!sample->waits || sample->entry != entry) continue;
    if (len == 0) {
      const char *text = luaJIT_profile_dumpstack(lua, "pf\tl\n", LUA_FRAMES, &len);
      if (len > LUA_BYTES) len = LUA_BYTES;
      if (len == 0 || len > LUA_ROOM - at) break;
      memcpy(profile->lua + at, text, len);
      profile->lua_len += (uint32_t)len;
    }
    sample->waits = false;
    sample->state = (char)state;
    sample->lua_at = at;
    sample->lua_len = (uint32_t)len;
  }
  profile->waiting = count;
}

// ---- Modules --------------------------------------------------------------------------------------------------------

static int on_module(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  struct profile *profile = context;
  for (int i = 0; i < info->dlpi_phnum && profile->module_count < MODULES_MOST; i++) {
    const ElfW(Phdr) *header = &info->dlpi_phdr[i];
    if (header->p_type != PT_LOAD || !(header->p_flags & PF_X)) continue;
    struct module *module = &profile->modules[profile->module_count++];
    *module = (struct module){.base = info->dlpi_addr, .from = info->dlpi_addr + header->p_vaddr};
    module->to = module->from + header->p_memsz;
    snprintf(module->path, sizeof module->path, "%s", info->dlpi_name);
    if (within(module, (uintptr_t)profile_start)) profile->own = *module;
    if (within(module, (uintptr_t)luaJIT_profile_start)) profile->luajit = *module;
  }
  return 0;
}

// ---- Telling --------------------------------------------------------------------------------------------------------

// For qsort_r: equal ones side by side.
static int compare(const void *left, const void *right, void *context) {
  const struct sample *a = left, *b = right;
  const char *lua = context;
  if (a->plugin != b->plugin) return a->plugin < b->plugin ? -1 : 1;
  if (a->state != b->state) return a->state < b->state ? -1 : 1;
  if (a->count != b->count) return a->count < b->count ? -1 : 1;
  if (a->lua_len != b->lua_len) return a->lua_len < b->lua_len ? -1 : 1;
  int order = memcmp(a->frames, b->frames, a->count * sizeof a->frames[0]);
  return order ? order : memcmp(lua + a->lua_at, lua + b->lua_at, a->lua_len);
}

static void json_put(struct text *out, const char *data, size_t len) {
  char copy[LUA_BYTES + 1];
  memcpy(copy, data, len);
  copy[len] = 0;
  text_json(out, copy);
}

static void sample_tell(const struct profile *profile, const struct sample *sample, uint32_t periods,
                        struct text *out) {
  const char *name = profile->board->plugin_names[sample->plugin];
  text_printf(out, "[%u,", periods);
  json_put(out, name, sample->plugin ? strnlen(name, BOARD_NAME_BYTES) : 0);
  const char state[2] = {sample->state, 0};
  text_puts(out, ",");
  text_json(out, state);
  text_puts(out, ",");
  json_put(out, profile->lua + sample->lua_at, sample->lua_len);
  for (uint32_t i = 0; i < sample->count; i++) {
    // A return address may lie behind its function's end.
    uintptr_t address = sample->frames[i] - (i > 0);
    text_printf(out, ",%llu", (unsigned long long)address);
  }
  text_puts(out, "]");
}

// Gives how many did not fit.
static uint32_t stacks_tell(const struct profile *profile, struct text *out) {
  uint32_t count = profile->count;
  size_t end = out->len + TOLD_BYTES;
  text_puts(out, "[");
  for (uint32_t i = 0, next; i < count; i = next) {
    uint32_t periods = 0;
    for (next = i; next < count && compare(&profile->samples[i], &profile->samples[next], profile->lua) == 0; next++)
      periods += profile->samples[next].periods;
    if (out->len > end) {
      text_puts(out, "]");
      return count - i;
    }
    if (i > 0) text_puts(out, ",");
    sample_tell(profile, &profile->samples[i], periods, out);
  }
  text_puts(out, "]");
  return 0;
}

static void modules_tell(const struct profile *profile, struct text *out) {
  text_puts(out, "[");
  for (uint32_t i = 0; i < profile->module_count; i++) {
    const struct module *module = &profile->modules[i];
    text_printf(out, "%s[%llu,%llu,%llu,", i ? "," : "", (unsigned long long)module->base,
                (unsigned long long)module->from, (unsigned long long)module->to);
    text_json(out, module->path);
    text_puts(out, "]");
  }
  text_puts(out, "]");
}

void profile_tell(struct profile *profile, struct text *out) {
  sigset_t ours, before;
  sigemptyset(&ours);
  sigaddset(&ours, SIGNAL);
  pthread_sigmask(SIG_BLOCK, &ours, &before);
  qsort_r(profile->samples, profile->count, sizeof profile->samples[0], compare, profile->lua);
  text_printf(out, "{\"pid\":%d,\"modules\":", (int)getpid());
  modules_tell(profile, out);
  text_puts(out, ",\"stacks\":");
  uint32_t lost = stacks_tell(profile, out);
  text_printf(out, ",\"lost\":%u}", lost + profile->lost);
  profile->count = profile->waiting = profile->lost = profile->lua_len = 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// ---- Life -----------------------------------------------------------------------------------------------------------

static int timer_begin(struct profile *profile, struct error *error) {
  struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGPROF);
  sigaddset(&action.sa_mask, SIGVTALRM);
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNAL};
  event.sigev_value.sival_ptr = profile;
  event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  if (sigaltstack(&profile->stack, &profile->stack_before) < 0)
    return error_system(error, "cannot set the profile's signal stack");
  profile->has_stack = true;
  if (sigaction(SIGNAL, &action, NULL) < 0 || timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &profile->timer) < 0)
    return error_system(error, "cannot make the profile's timer");
  profile->has_timer = true;
  struct timespec period = {0, PERIOD_US * 1000L};
  struct itimerspec every = {period, period};
  if (timer_settime(profile->timer, 0, &every, NULL) == 0) return 0;
  return error_system(error, "cannot start the profile's timer");
}

// A signal of the timer that is still to come must not find it gone: ignoring the signal drops it.
void profile_stop(struct profile *profile) {
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  if (profile->has_timer) timer_delete(profile->timer);
  sigaction(SIGNAL, &ignore, NULL);
  if (profile->has_stack) sigaltstack(&profile->stack_before, NULL);
  free(profile->samples);
  free(profile->lua);
  free(profile->modules);
  free(profile->stack.ss_sp);
  free(profile);
}

static int stack_find(struct profile *profile) {
  pthread_attr_t attributes;
  void *bottom;
  size_t size;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return -1;
  pthread_attr_getstack(&attributes, &bottom, &size);
  pthread_attr_destroy(&attributes);
  profile->stack_top = (uintptr_t)bottom + size;
  return 0;
}

struct profile *profile_start(const struct profile_place *place, const struct board *board, struct error *error) {
  struct profile *profile = calloc(1, sizeof *profile);
  if (!profile) {
    error_set(error, ERROR_MEMORY, "no memory for a profile");
    return NULL;
  }
  profile->place = place;
  profile->board = board;
  profile->samples = malloc(SAMPLES_MOST * sizeof profile->samples[0]);
  profile->lua = malloc(LUA_ROOM);
  profile->stack = (stack_t){.ss_sp = malloc(STACK_BYTES), .ss_size = STACK_BYTES};
  profile->modules = calloc(MODULES_MOST, sizeof profile->modules[0]);
  bool has_room = profile->samples && profile->lua && profile->stack.ss_sp && profile->modules;
  if (!has_room || stack_find(profile) < 0) {
    error_set(error, ERROR_MEMORY, "no memory for a profile");
  } else {
    dl_iterate_phdr(on_module, profile);
    if (timer_begin(profile, error) == 0) return profile;
  }
  profile_stop(profile);
  return NULL;
}
