// SPDX-License-Identifier: Apache-2.0
// Time, read once per turn of the loop, and the timers that follow it. A spec moves the same clock by hand.
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct clock {
  int64_t mono_us;    // monotonic, for durations and deadlines
  int64_t real_us;    // since 1970 UTC
  bool manual;        // moved by clock_advance only
  char http_date[32]; // "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7), kept for the second `date_second`
  int64_t date_second;
};

// A timer that is embedded in what it belongs to. It fires once, from timers_run.
struct timer {
  int64_t at_us; // on the monotonic clock
  int32_t slot;  // place in the heap, -1: not set
  uint32_t run;  // of timers_run, in which it was set
  void (*on_fire)(struct timer *timer);
};

struct timers {
  struct timer **heap;
  int32_t count, room;
  uint32_t run; // counts timers_run
};

void clock_init(struct clock *clock);
// Reads the system's clocks, or nothing when manual.
void clock_update(struct clock *clock);
void clock_advance(struct clock *clock, int64_t us);
// The present time as an HTTP date; the text is 29 bytes and lives until the next call.
const char *clock_http_date(struct clock *clock);

void timer_init(struct timer *timer, void (*on_fire)(struct timer *timer));
// Sets or moves the timer. 0, or ERROR_MEMORY.
int timer_set(struct timers *timers, struct timer *timer, int64_t at_us);
void timer_cancel(struct timers *timers, struct timer *timer);

void timers_init(struct timers *timers);
void timers_close(struct timers *timers);
// Fires what is due at `now_us`; a timer set by a firing one waits for the next call if it is not later than now.
void timers_run(struct timers *timers, int64_t now_us);
// When the next one is due, or INT64_MAX.
int64_t timers_next(const struct timers *timers);
