// SPDX-License-Identifier: Apache-2.0
// What every module of a worker stands on: the event loop, the clock, the timers and the log.
// The worker embeds one and passes it down; nothing in core/ has a loop of its own.
#pragma once
#include <stdint.h>

#include "clock.h"
#include "log.h"

struct ev_loop;

struct loop {
  struct ev_loop *ev;
  struct clock clock;
  struct timers timers;
  struct log *log;
};
