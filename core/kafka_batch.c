// SPDX-License-Identifier: Apache-2.0
// Places, the list of what was told, and one wait.
#include "kafka_batch.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "phase.h"
#include "worker.h"

enum { PLACES_FIRST = 8, PLACES_MOST = 1024, BUCKETS = 1024, WAIT_MOST_S = 100000000 };

enum place_state {
  PLACE_WAITING, // with librdkafka
  PLACE_TOLD,    // in the list of what was told
  PLACE_NEXT,    // kafka_batch_next gave its index; the result is still there
  PLACE_TAKEN    // free as soon as all older ones are
};

struct place {
  struct kafka_result result;
  int64_t deadline_us;
  uint32_t older, newer; // in the list: indexes, 0: none
  enum place_state state;
};

struct kafka_batch {
  struct kafka_batch *next; // in its bucket
  struct kafka_batches *batches;
  double number;
  int64_t timeout_us;      // 0: none
  uint32_t oldest, newest; // indexes that have a place; oldest > newest: none has
  uint32_t waiting;        // places in PLACE_WAITING
  uint32_t first, last;    // of the list
  uint32_t room;           // places, a power of two
  struct place *places;    // `few`, or from the heap
  struct timer late;       // of the oldest that waits
  double coroutine;        // that waits, 0: none
  bool for_all;
  struct timer timer; // of the coroutine
  struct place few[PLACES_FIRST];
};

struct kafka_batches {
  struct worker *worker;
  double last_number;
  struct kafka_batch *buckets[BUCKETS];
};

static struct place *place_of(const struct kafka_batch *batch, uint32_t index) {
  return &batch->places[index & (batch->room - 1)];
}

static struct loop *loop_of(const struct kafka_batch *batch) {
  return &batch->batches->worker->loop;
}

// ---- Who waits ----

static bool is_due(const struct kafka_batch *batch) {
  return batch->waiting == 0 || (!batch->for_all && batch->first);
}

// The coroutine runs before the loop waits again, when all that came with this turn was told.
static void wake(struct kafka_batch *batch, int status) {
  struct worker *worker = batch->batches->worker;
  if (batch->coroutine == 0 || worker_wake(worker, batch->coroutine, status, 0) < 0) return;
  batch->coroutine = 0;
  timer_cancel(&worker->loop.timers, &batch->timer);
}

static void on_wait_over(struct timer *timer) {
  wake((struct kafka_batch *)((char *)timer - offsetof(struct kafka_batch, timer)), BRIDGE_TIMEOUT);
}

int kafka_batch_wait(struct kafka_batch *batch, bool all, double timeout_s) {
  struct loop *loop = loop_of(batch);
  if (!all && !batch->first && batch->waiting == 0) return BRIDGE_NONE;
  batch->for_all = all;
  if (is_due(batch)) return BRIDGE_OK;
  if (!(timeout_s > 0)) return BRIDGE_TIMEOUT;
  double self = phase_self(batch->batches->worker);
  if (batch->coroutine != self) wake(batch, BRIDGE_CLOSED);
  int64_t at_us = loop->clock.mono_us + (int64_t)(fmin(timeout_s, WAIT_MOST_S) * 1e6);
  if (timer_set(&loop->timers, &batch->timer, at_us) < 0) return BRIDGE_FULL;
  batch->coroutine = self;
  return BRIDGE_AGAIN;
}

// ---- What was told ----

static void list_add(struct kafka_batch *batch, uint32_t index) {
  struct place *place = place_of(batch, index);
  place->older = batch->last;
  place->newer = 0;
  if (batch->last)
    place_of(batch, batch->last)->newer = index;
  else
    batch->first = index;
  batch->last = index;
}

static void list_remove(struct kafka_batch *batch, uint32_t index) {
  const struct place *place = place_of(batch, index);
  if (place->older)
    place_of(batch, place->older)->newer = place->newer;
  else
    batch->first = place->newer;
  if (place->newer)
    place_of(batch, place->newer)->older = place->older;
  else
    batch->last = place->older;
}

static void tell(struct kafka_batch *batch, uint32_t index, const struct kafka_result *result) {
  struct place *place = place_of(batch, index);
  place->result = *result;
  place->state = PLACE_TOLD;
  batch->waiting--;
  list_add(batch, index);
  if (is_due(batch)) wake(batch, BRIDGE_OK);
}

static bool has_place(const struct kafka_batch *batch, double index) {
  return index >= batch->oldest && index <= batch->newest && index == floor(index);
}

void kafka_batch_tell(void *batches, double number, uint32_t index, const struct kafka_result *result) {
  struct kafka_batch *batch = kafka_batch_find(batches, number);
  if (!batch || !has_place(batch, index) || place_of(batch, index)->state != PLACE_WAITING) return;
  tell(batch, index, result);
}

// Deadlines come in the order of the indexes.
static void on_late(struct timer *timer) {
  struct kafka_batch *batch = (struct kafka_batch *)((char *)timer - offsetof(struct kafka_batch, late));
  const struct kafka_result late = {.status = BRIDGE_TIMEOUT,
                                    .partition = -1,
                                    .offset = -1,
                                    .name = "_TIMED_OUT",
                                    .text = "no acknowledgement in time; the record may yet arrive"};
  int64_t now_us = loop_of(batch)->clock.mono_us;
  for (uint32_t index = batch->oldest; index <= batch->newest; index++) {
    const struct place *place = place_of(batch, index);
    if (place->state != PLACE_WAITING) continue;
    if (place->deadline_us <= now_us) {
      tell(batch, index, &late);
      continue;
    }
    timer_set(&loop_of(batch)->timers, &batch->late, place->deadline_us);
    return;
  }
}

uint32_t kafka_batch_next(struct kafka_batch *batch) {
  uint32_t index = batch->first;
  if (!index) return 0;
  list_remove(batch, index);
  place_of(batch, index)->state = PLACE_NEXT;
  return index;
}

int kafka_batch_result(struct kafka_batch *batch, double index, struct kafka_result *out) {
  if (!has_place(batch, index)) return BRIDGE_NONE;
  struct place *place = place_of(batch, (uint32_t)index);
  if (place->state == PLACE_WAITING) return BRIDGE_AGAIN;
  if (place->state == PLACE_TOLD) list_remove(batch, (uint32_t)index);
  place->state = PLACE_TAKEN;
  *out = place->result;
  return BRIDGE_OK;
}

// ---- Places ----

static bool grow(struct kafka_batch *batch) {
  uint32_t room = batch->room * 2;
  struct place *places = room > PLACES_MOST ? NULL : malloc(room * sizeof *places);
  if (!places) return false;
  for (uint32_t index = batch->oldest; index <= batch->newest; index++)
    places[index & (room - 1)] = *place_of(batch, index);
  if (batch->places != batch->few) free(batch->places);
  batch->places = places;
  batch->room = room;
  return true;
}

uint32_t kafka_batch_place(struct kafka_batch *batch) {
  if (batch->newest == UINT32_MAX - 1) return 0;
  if (batch->newest - batch->oldest + 1 == batch->room) {
    while (batch->oldest <= batch->newest && place_of(batch, batch->oldest)->state == PLACE_TAKEN) batch->oldest++;
    if (batch->newest - batch->oldest + 1 == batch->room && !grow(batch)) return 0;
  }
  struct loop *loop = loop_of(batch);
  uint32_t index = batch->newest + 1;
  int64_t deadline_us = loop->clock.mono_us + batch->timeout_us;
  if (batch->timeout_us && batch->waiting == 0 && timer_set(&loop->timers, &batch->late, deadline_us) < 0) return 0;
  batch->newest = index;
  batch->waiting++;
  *place_of(batch, index) = (struct place){.deadline_us = deadline_us};
  return index;
}

void kafka_batch_unplace(struct kafka_batch *batch, uint32_t index) {
  assert(index == batch->newest && place_of(batch, index)->state == PLACE_WAITING);
  batch->newest--;
  batch->waiting--;
}

// ---- Life ----

static struct kafka_batch **bucket_of(struct kafka_batches *batches, double number) {
  return &batches->buckets[(uint64_t)number % BUCKETS];
}

struct kafka_batch *kafka_batch_new(struct kafka_batches *batches, double timeout_s) {
  struct kafka_batch *batch = malloc(sizeof *batch);
  if (!batch) return NULL;
  memset(batch, 0, offsetof(struct kafka_batch, few));
  batch->batches = batches;
  batch->number = ++batches->last_number;
  batch->timeout_us = timeout_s > 0 ? (int64_t)(fmin(timeout_s, WAIT_MOST_S) * 1e6) + 1 : 0;
  batch->oldest = 1;
  batch->room = PLACES_FIRST;
  batch->places = batch->few;
  timer_init(&batch->late, on_late);
  timer_init(&batch->timer, on_wait_over);
  struct kafka_batch **bucket = bucket_of(batches, batch->number);
  batch->next = *bucket;
  *bucket = batch;
  return batch;
}

void kafka_batch_free(struct kafka_batch *batch) {
  struct loop *loop = loop_of(batch);
  wake(batch, BRIDGE_CLOSED);
  timer_cancel(&loop->timers, &batch->late);
  timer_cancel(&loop->timers, &batch->timer);
  struct kafka_batch **at = bucket_of(batch->batches, batch->number);
  while (*at != batch) at = &(*at)->next;
  *at = batch->next;
  if (batch->places != batch->few) free(batch->places);
  free(batch);
}

double kafka_batch_number(const struct kafka_batch *batch) {
  return batch->number;
}

struct kafka_batch *kafka_batch_find(struct kafka_batches *batches, double number) {
  if (!(number > 0 && number < 9007199254740992.0)) return NULL;
  struct kafka_batch *batch = *bucket_of(batches, number);
  while (batch && batch->number != number) batch = batch->next;
  return batch;
}

struct kafka_batches *kafka_batches_new(struct worker *worker) {
  struct kafka_batches *batches = calloc(1, sizeof *batches);
  if (batches) batches->worker = worker;
  return batches;
}

void kafka_batches_free(struct kafka_batches *batches) {
  for (uint32_t i = 0; i < BUCKETS; i++)
    while (batches->buckets[i]) kafka_batch_free(batches->buckets[i]);
  free(batches);
}
