// SPDX-License-Identifier: Apache-2.0
// Time once per turn, and a binary heap of embedded timers.
#include "clock.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "error.h"

static int64_t read_us(clockid_t id) {
  struct timespec now;
  clock_gettime(id, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void clock_init(struct clock *clock) {
  *clock = (struct clock){.date_second = -1};
  clock_update(clock);
}

void clock_update(struct clock *clock) {
  if (clock->manual) return;
  clock->mono_us = read_us(CLOCK_MONOTONIC);
  clock->real_us = read_us(CLOCK_REALTIME);
}

void clock_advance(struct clock *clock, int64_t us) {
  clock->mono_us += us;
  clock->real_us += us;
}

const char *clock_http_date(struct clock *clock) {
  int64_t second = clock->real_us / 1000000;
  if (second != clock->date_second) {
    time_t t = (time_t)second;
    struct tm utc;
    gmtime_r(&t, &utc);
    strftime(clock->http_date, sizeof clock->http_date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    clock->date_second = second;
  }
  return clock->http_date;
}

void timer_init(struct timer *timer, void (*on_fire)(struct timer *timer)) {
  *timer = (struct timer){.slot = -1, .on_fire = on_fire};
}

static void heap_put(struct timers *timers, struct timer *timer, int32_t slot) {
  timers->heap[slot] = timer;
  timer->slot = slot;
}

static void heap_up(struct timers *timers, struct timer *timer, int32_t slot) {
  while (slot > 0) {
    int32_t parent = (slot - 1) / 2;
    if (timers->heap[parent]->at_us <= timer->at_us) break;
    heap_put(timers, timers->heap[parent], slot);
    slot = parent;
  }
  heap_put(timers, timer, slot);
}

static void heap_down(struct timers *timers, struct timer *timer, int32_t slot) {
  for (;;) {
    int32_t child = slot * 2 + 1;
    if (child >= timers->count) break;
    if (child + 1 < timers->count && timers->heap[child + 1]->at_us < timers->heap[child]->at_us) child++;
    if (timers->heap[child]->at_us >= timer->at_us) break;
    heap_put(timers, timers->heap[child], slot);
    slot = child;
  }
  heap_put(timers, timer, slot);
}

int timer_set(struct timers *timers, struct timer *timer, int64_t at_us) {
  timer->run = timers->run;
  if (timer->slot >= 0) {
    int64_t before = timer->at_us;
    timer->at_us = at_us;
    if (at_us < before)
      heap_up(timers, timer, timer->slot);
    else
      heap_down(timers, timer, timer->slot);
    return 0;
  }
  if (timers->count == timers->room) {
    int32_t room = timers->room ? timers->room * 2 : 64;
    struct timer **heap = realloc(timers->heap, (size_t)room * sizeof *heap);
    if (!heap) return ERROR_MEMORY;
    timers->heap = heap;
    timers->room = room;
  }
  timer->at_us = at_us;
  heap_up(timers, timer, timers->count++);
  return 0;
}

void timer_cancel(struct timers *timers, struct timer *timer) {
  int32_t slot = timer->slot;
  if (slot < 0) return;
  assert(timers->heap[slot] == timer);
  timer->slot = -1;
  struct timer *last = timers->heap[--timers->count];
  if (last == timer) return;
  if (slot > 0 && timers->heap[(slot - 1) / 2]->at_us > last->at_us)
    heap_up(timers, last, slot);
  else
    heap_down(timers, last, slot);
}

void timers_init(struct timers *timers) {
  *timers = (struct timers){0};
}

void timers_close(struct timers *timers) {
  for (int32_t i = 0; i < timers->count; i++) timers->heap[i]->slot = -1;
  free(timers->heap);
  *timers = (struct timers){0};
}

void timers_run(struct timers *timers, int64_t now_us) {
  timers->run++;
  while (timers->count > 0) {
    struct timer *timer = timers->heap[0];
    // One that was set by those that fired waits for the next turn, however early it is: the loop has others to serve.
    if (timer->at_us > now_us || timer->run == timers->run) break;
    timer_cancel(timers, timer);
    timer->on_fire(timer);
  }
}

int64_t timers_next(const struct timers *timers) {
  return timers->count ? timers->heap[0]->at_us : INT64_MAX;
}
