// SPDX-License-Identifier: Apache-2.0
// What every module of a worker stands on: the event loop, the clock, the timers and the log.
// The worker embeds one and passes it down; nothing in core/ has a loop of its own.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "log.h"
#include "queue.h"

struct ev_loop;

struct loop {
  struct ev_loop *ev;
  struct clock clock;
  struct timers timers;
  struct log *log;
};

// Memory that ends with this turn of the loop: embedded in what may still be on the stack when it is closed.
struct grave {
  struct grave *next;
  void *memory;
};
