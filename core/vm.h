// SPDX-License-Identifier: Apache-2.0
// The worker's LuaJIT state: pooled coroutines, the CPU budget of plugin calls, CPU time per plugin.
// phase.c is the only caller of what enters Lua. LuaJIT's profiler is process-wide, so the first VM of a process has
// budgets that reach compiled loops; a second one beside it (specs) stops interpreted code only.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "log.h"
#include "slice.h"

struct vm;
struct lua_State;
struct text;

struct vm_options {
  const char *home;        // folder that holds lua/sluice/boot.lua
  const char *bridge_text; // bridge.h as text, for ffi.cdef
  double cpu_budget_ms;    // CPU of one plugin call before it is stopped, 0: never
  struct log *log;         // must outlive the VM
  struct board *board;     // where running, calls and CPU are counted; must outlive the VM
};

// What a pooled coroutine is asked to do; boot.lua knows the same numbers.
enum vm_kind { VM_PHASE = 1, VM_BODY = 2, VM_PICK = 3, VM_EVENT = 4, VM_FRAME = 5 };

enum { VM_JOB_NUMBERS = 5 };

struct vm_job {
  enum vm_kind kind;
  double numbers[VM_JOB_NUMBERS];
  struct slice text; // given to Lua as a string behind the numbers, nil when `data` is NULL
};

enum vm_result {
  VM_DONE,    // `code` and perhaps `text` are the answer
  VM_WAITING, // it yielded to wait
  VM_FAILED   // the runtime itself raised; logged
};

struct vm_answer {
  struct vm_job job; // what had been asked for (`text` is not kept)
  int code;          // first value of the answer
  bool has_text;
  struct slice text; // second value; valid until the next call into Lua
};

// Makes the state and runs boot.lua. NULL with the cause in `error`.
struct vm *vm_new(struct worker *worker, const struct vm_options *options, struct error *error);
void vm_free(struct vm *vm);

// A state for a process without plugins' traffic (checker, command line): the same modules, `sluice.ffi` without a
// worker. The caller closes it with lua_close. NULL with the cause in `error`.
struct lua_State *vm_open(const struct vm_options *options, struct error *error);

// Runs a job in a pooled coroutine. Never while another runs.
enum vm_result vm_start(struct vm *vm, const struct vm_job *job, struct vm_answer *answer);
// Goes on with the coroutine of that number, which waits for (status, value). VM_WAITING also when there is no such
// coroutine: it ended, or does not wait.
enum vm_result vm_resume(struct vm *vm, double number, int status, double value, struct vm_answer *answer);
// Gives up the coroutine that ran last, which waits although it may not, and logs `why`.
void vm_refuse(struct vm *vm, const char *why);
// The number of the running coroutine, 0: none runs.
double vm_self(const struct vm *vm);

// Lua forgets its object of an exchange. Cheap; nothing happens when there is none.
void vm_forget(struct vm *vm, uint32_t slot);
// A reload may change the CPU budget of a plugin call; 0: none.
void vm_set_budget(struct vm *vm, double ms);
// By so much Lua's memory may grow while the running coroutine's job runs; 0: by as much as it likes.
void vm_limit_memory(struct vm *vm, uint32_t kilobytes);
// Tells what the samples say that were taken since the last call (profile.h); the first one begins to take them.
int vm_profile(struct vm *vm, struct text *out, struct error *error);
// No more samples.
void vm_profile_end(struct vm *vm);
// Bytes that Lua holds.
double vm_memory(const struct vm *vm);

// Implemented by worker.
struct vm *worker_vm(struct worker *worker);
