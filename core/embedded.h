// SPDX-License-Identifier: Apache-2.0
// Embedded Kafka clusters as the master runs them: each in a child process of its own, so that all workers share one and
// it outlives every worker. The master itself has no threads and stays so.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "process.h"

struct title;

enum { EMBEDDED_MAX = 16 };

struct embedded {
  struct title *title;                            // NULL: processes keep their name
  struct embedded_cluster clusters[EMBEDDED_MAX]; // running ones
  int32_t pids[EMBEDDED_MAX];
  uint32_t count;
};

void embedded_init(struct embedded *embedded, struct title *title);
// Ends all of them.
void embedded_close(struct embedded *embedded);
// Starts those of these names that do not run yet. 0, or negative: `error` says why, and what runs goes on.
int embedded_run(struct embedded *embedded, const char *const *names, uint32_t count, struct error *error);
// Ends those whose names are not among these.
void embedded_keep(struct embedded *embedded, const char *const *names, uint32_t count);
// The master reaped a child: the name of the cluster that it was, which is forgotten, or NULL. Static until the next call.
const char *embedded_reap(struct embedded *embedded, int32_t pid);
