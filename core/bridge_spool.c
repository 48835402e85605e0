// SPDX-License-Identifier: Apache-2.0
// Spools by number, from 1: places of the worker's array, used again when one was closed.
#include <stdlib.h>

#include "spool.h"
#include "worker.h"

enum { SPOOLS_MOST = 65536 };

static struct spool **place_of(struct worker *worker, double number) {
  if (!(number >= 1 && number <= worker->spool_count)) return NULL;
  struct spool **place = &worker->spools[(uint32_t)number - 1];
  return *place ? place : NULL;
}

static uint32_t free_place(struct worker *worker) {
  for (uint32_t i = 0; i < worker->spool_count; i++)
    if (!worker->spools[i]) return i + 1;
  if (worker->spool_count == SPOOLS_MOST) return 0;
  struct spool **spools = realloc(worker->spools, (worker->spool_count + 1) * sizeof(struct spool *));
  if (!spools) return 0;
  worker->spools = spools;
  spools[worker->spool_count++] = NULL;
  return worker->spool_count;
}

double bridge_spool_new(struct worker *worker) {
  uint32_t number = free_place(worker);
  if (!number) return BRIDGE_FULL;
  worker->spools[number - 1] = spool_new();
  return worker->spools[number - 1] ? (double)number : BRIDGE_FULL;
}

int bridge_spool_put(struct worker *worker, double number, const char *data, uint32_t len) {
  struct spool **place = place_of(worker, number);
  if (!place) return BRIDGE_STALE;
  return spool_put(*place, (struct slice){data, len}) ? BRIDGE_OK : BRIDGE_FULL;
}

int bridge_spool_take(struct worker *worker, double number, struct bytes *out) {
  struct spool **place = place_of(worker, number);
  if (!place) return BRIDGE_STALE;
  struct slice text = spool_take(*place);
  *out = (struct bytes){text.data, text.len};
  return text.data ? BRIDGE_OK : BRIDGE_NONE;
}

void bridge_spool_free(struct worker *worker, double number) {
  struct spool **place = place_of(worker, number);
  if (!place) return;
  spool_free(*place);
  *place = NULL;
}

void spools_close(struct worker *worker) {
  for (uint32_t i = 0; i < worker->spool_count; i++)
    if (worker->spools[i]) spool_free(worker->spools[i]);
  free(worker->spools);
}
