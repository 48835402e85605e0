// SPDX-License-Identifier: Apache-2.0
// Runs the checker: a child process that loads configuration and plugins as a worker would, writes the snapshot and
// prints the master's settings. Whatever a plugin does while it loads, the master is not touched by it.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "loop.h"

struct check;
struct settings;
struct title;

struct check_options {
  // Runs in the child, prints to stdout; its result is the exit code.
  int (*run)(void *context);
  void *run_context;
  int64_t timeout_ms; // then the child is killed
  struct title *title;
  // Told once; owns `settings`, which has errors when the check failed.
  void (*on_done)(void *context, struct settings *settings);
  void *context;
};

// Starts a check; NULL with errno when the fork failed. It frees itself after on_done.
struct check *check_start(struct loop *loop, const struct check_options *options);
pid_t check_pid(const struct check *check);
// The master reaped this child.
void check_exited(struct check *check, int status);
// Kills the child and forgets it; on_done is not called.
void check_cancel(struct check *check);
