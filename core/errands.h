// SPDX-License-Identifier: Apache-2.0
// Calls that would block the loop, made on helper threads; their end is told on the loop. For libraries that know no
// other way (a Kafka consumer's end, a broker's offsets): threads come when needed and end when there is nothing to do.
#pragma once
#include <stdint.h>

#include "loop.h"

struct errands;

// Embedded in what it works for, which must stay until on_done.
struct errand {
  struct errand *next;
  void (*run)(struct errand *errand);     // on a helper thread: touches what is the errand's own
  void (*on_done)(struct errand *errand); // on the loop, later; may free the errand
};

// At most `threads` errands run at once; the rest wait in line.
struct errands *errands_new(struct loop *loop, uint32_t threads);
// Waits for all errands and calls what on_done is due.
void errands_free(struct errands *errands);
// Called on the loop. When no thread can be had, runs the errand at once.
void errands_submit(struct errands *errands, struct errand *errand);
// How many have been submitted and not yet ended.
uint32_t errands_pending(const struct errands *errands);
