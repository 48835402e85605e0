// SPDX-License-Identifier: Apache-2.0
// From a wish to a live generation, the first one included. It goes through three hands, each of which may refuse it and
// leave everything as it was:
//
//   saved file, signal, command -> check (child process) -> listeners (when they changed) -> workers -> commit
//
// One runs at a time. What is asked for meanwhile is one more afterwards, however often it was asked.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "embedded.h"
#include "error.h"
#include "history.h"
#include "listen.h"
#include "loop.h"
#include "settings.h"

struct check;
struct title;
struct watch;
struct workers;

struct reload_options {
  struct loop *loop;
  struct watch *watch; // told what to follow
  struct title *title;
  int (*check)(void *context); // see check.h
  void *check_context;
  int64_t check_ms;
  // The first configuration is good: makes what is made once, and gives the workers. NULL, and why.
  struct workers *(*on_first)(void *context, const struct settings *settings, struct error *error);
  void (*on_begin)(void *context);
  // `refused` has the errors, or is NULL: the new generation is live, or there was nothing new.
  void (*on_end)(void *context, const struct settings *refused);
  void *context;
};

struct reload {
  struct reload_options options;
  struct settings *settings;  // of the running generation; NULL before the first
  struct settings *candidate; // of the reload that runs
  struct listeners listeners, next_listeners;
  struct history history;
  struct embedded embedded; // Kafka clusters that run
  struct workers *workers;  // NULL before the first
  struct check *check;      // that runs now
  bool staging;             // the workers are at it
  bool launching;           // next_listeners belongs to the reload that runs
  bool again;               // one more afterwards
  bool stopped;
  char again_reason[REASON_BYTES];
};

// `inherited`: sockets that are open already; the reload owns them from now on.
void reload_init(struct reload *reload, const struct reload_options *options, const struct listeners *inherited);
void reload_close(struct reload *reload);

void reload_ask(struct reload *reload, const char *reason);
// No reload any more: gives up the running one and closes the master's copies of the sockets.
void reload_stop(struct reload *reload);

// From the workers: the staging has ended.
void reload_settled(struct reload *reload, const char *failure);
// The master reaped a child: true when it was the checker.
bool reload_reap(struct reload *reload, pid_t pid, int status);
