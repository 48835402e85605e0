// SPDX-License-Identifier: Apache-2.0
// Hands everything that must outlive a master to the next one: a new process of the binary, which may have been
// replaced, started with the listening sockets and the shared memory. What it inherits is named in one variable of the
// environment, in lines: "listen=FD WORKER KIND ADDRESS FLAGS", "tickets=FD", "lock=FD", "ready=FD".
// The new master writes one line to `ready`: "ready" once its workers are live, or "failed REASON".
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "error.h"
#include "listen.h"
#include "loop.h"

struct upgrade;

// Descriptors that cross, -1: none.
struct inheritance {
  struct listeners listeners;
  int tickets_fd;
  int lock_fd;
  int ready_fd;
};

// In the new process: takes the variable out of the environment. Leaves everything empty when there is none.
int inheritance_take(struct inheritance *inheritance, struct error *error);

struct upgrade_options {
  const char *program; // path to execute
  char *const *argv;
  int64_t timeout_ms;
  // Told once: NULL, the new master is live and this one should drain; or why there is none.
  void (*on_done)(void *context, const char *failure);
  void *context;
};

// Starts the new process; NULL with `error`. It frees itself after on_done.
struct upgrade *upgrade_start(struct loop *loop, const struct upgrade_options *options,
                              const struct inheritance *inheritance, struct error *error);
pid_t upgrade_pid(const struct upgrade *upgrade);
// The master reaped this child.
void upgrade_exited(struct upgrade *upgrade, int status);
// Ends the new process; on_done is not called.
void upgrade_cancel(struct upgrade *upgrade);
