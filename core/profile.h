// SPDX-License-Identifier: Apache-2.0
// Samples of what a worker's thread does with its CPU time, for `sluice profile`: stacks of C and of Lua, taken while
// somebody asks for them. One at a time in a process: it needs the process's timer signal.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"

struct lua_State;
struct profile;
struct text;

// Where the thread is, kept by the VM.
struct profile_place {
  uint64_t entries;  // into Lua so far
  const void *frame; // of the C function that has entered Lua; NULL while Lua does not run
};

// Starts to take samples of the calling thread. `place` and `board` must outlive it. NULL with the cause in `error`.
struct profile *profile_start(const struct profile_place *place, const struct board *board, struct error *error);
// Stops, and frees.
void profile_stop(struct profile *profile);

// From the callback of LuaJIT's profiler, the only place where a stack of Lua can be read: completes the samples that
// were taken since Lua was entered. `state` is what that profiler says of the VM.
void profile_on_lua(struct profile *profile, struct lua_State *lua, int state);

// Appends a JSON object: pid, lost (samples for which there was no room), modules (start of the file's image, start and
// end of its code, path; an empty path is the program), stacks ({milliseconds, plugin's name, state, Lua's stack,
// addresses...}, inmost first). Samples told are forgotten. Called on the thread that is sampled.
void profile_tell(struct profile *profile, struct text *out);
