// SPDX-License-Identifier: Apache-2.0
// Calls that would block the loop, made on helper threads; their end is told on the loop. For libraries that know no
// other way (a Kafka consumer's end, a broker's offsets): threads come when needed and end when there is nothing to do.
#pragma once
#include <stdint.h>

#include "loop.h"

struct jobs;

// Embedded in what it works for, which must stay until on_done.
struct job {
  struct job *next;
  void (*run)(struct job *job);     // on a helper thread: touches what is the job's own
  void (*on_done)(struct job *job); // on the loop, later; may free the job
};

// At most `threads` jobs run at once; the rest wait in line.
struct jobs *jobs_new(struct loop *loop, uint32_t threads);
// Waits for all jobs and calls what on_done is due.
void jobs_free(struct jobs *jobs);
// Called on the loop. When no thread can be had, runs the job at once.
void jobs_submit(struct jobs *jobs, struct job *job);
// How many have been submitted and not yet ended.
uint32_t jobs_pending(const struct jobs *jobs);
