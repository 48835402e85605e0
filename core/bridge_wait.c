// SPDX-License-Identifier: Apache-2.0
// Coroutines that sleep or wait to be woken, and the timers of Lua.
#include <stddef.h>
#include <stdlib.h>

#include "worker.h"

#include "phase.h"

// One coroutine that waits, or one timer of Lua, until `timer` fires or somebody is quicker.
struct wait {
  struct wait *next; // in its bucket
  struct worker *worker;
  struct timer timer;
  double number; // the coroutine, or the timer's id
  int status;    // what the coroutine is told when the timer fires
  bool is_timer;
};

static struct wait **find(struct worker *worker, double number, bool is_timer) {
  struct wait **at = &worker->waits[(uint64_t)number % WAIT_BUCKETS];
  while (*at && ((*at)->number != number || (*at)->is_timer != is_timer)) at = &(*at)->next;
  return at;
}

static void wait_end(struct wait **at) {
  struct wait *wait = *at;
  *at = wait->next;
  timer_cancel(&wait->worker->loop.timers, &wait->timer);
  free(wait);
}

static void wait_on_timer(struct timer *timer) {
  struct wait copy = *(struct wait *)(void *)((char *)timer - offsetof(struct wait, timer));
  wait_end(find(copy.worker, copy.number, copy.is_timer));
  if (copy.is_timer)
    phase_event(copy.worker, EVENT_TIMER, copy.number, (struct slice){NULL, 0});
  else
    phase_resume(copy.worker, copy.number, copy.status, 0);
}

// A microsecond is the least: who waits for what is left of a time would, with none at all, turn without end where the
// clock stands meanwhile.
static int64_t microseconds(double seconds) {
  int64_t us = (int64_t)(seconds * 1e6);
  return us == 0 && seconds > 0 ? 1 : us;
}

static int wait_begin(struct worker *worker, double number, bool is_timer, double seconds, int status) {
  if (!(number > 0 && number < 9007199254740992.0) || !(seconds >= 0 && seconds < 1e9)) return BRIDGE_INVALID;
  struct wait **at = find(worker, number, is_timer);
  if (*at) return BRIDGE_INVALID;
  struct wait *wait = malloc(sizeof *wait);
  if (!wait) return BRIDGE_FULL;
  *wait = (struct wait){.worker = worker, .number = number, .status = status, .is_timer = is_timer};
  timer_init(&wait->timer, wait_on_timer);
  if (timer_set(&worker->loop.timers, &wait->timer, worker->loop.clock.mono_us + microseconds(seconds)) < 0) {
    free(wait);
    return BRIDGE_FULL;
  }
  *at = wait;
  return BRIDGE_OK;
}

int bridge_limit_memory(struct worker *worker, uint32_t kilobytes) {
  phase_limit_memory(worker, kilobytes);
  return BRIDGE_OK;
}

int bridge_sleep(struct worker *worker, double seconds) {
  int status = wait_begin(worker, phase_self(worker), false, seconds, BRIDGE_OK);
  return status == BRIDGE_OK ? BRIDGE_AGAIN : status;
}

int bridge_wait(struct worker *worker, double seconds) {
  int status = wait_begin(worker, phase_self(worker), false, seconds, BRIDGE_TIMEOUT);
  return status == BRIDGE_OK ? BRIDGE_AGAIN : status;
}

double bridge_self(struct worker *worker) {
  return phase_self(worker);
}

int bridge_wake(struct worker *worker, double coroutine, int status, double number) {
  if (!(coroutine > 0 && coroutine < 9007199254740992.0)) return BRIDGE_INVALID;
  struct wait **at = find(worker, coroutine, false);
  if (!*at) return BRIDGE_NONE;
  wait_end(at);
  return worker_wake(worker, coroutine, status, number) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

void bridge_hold(struct worker *worker, int delta) {
  if (delta > 0)
    worker->holds++;
  else if (worker->holds > 0)
    worker->holds--;
}

int bridge_timer(struct worker *worker, double id, double seconds) {
  return wait_begin(worker, id, true, seconds, BRIDGE_OK);
}

int bridge_timer_cancel(struct worker *worker, double id) {
  if (!(id > 0 && id < 9007199254740992.0)) return BRIDGE_INVALID;
  struct wait **at = find(worker, id, true);
  if (!*at) return BRIDGE_NONE;
  wait_end(at);
  return BRIDGE_OK;
}

void waits_close(struct worker *worker) {
  for (int i = 0; i < WAIT_BUCKETS; i++)
    while (worker->waits[i]) wait_end(&worker->waits[i]);
}
