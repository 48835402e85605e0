// SPDX-License-Identifier: Apache-2.0
// Metrics as a scrape tells them: of each worker, made when it is asked first.
#include "error.h"
#include "exposition.h"
#include "worker.h"

enum { LOOK_PLACES = 256 }; // looked at in one call

static struct bytes bytes_of(struct slice text) {
  return (struct bytes){text.data, text.len};
}

int bridge_metrics_look(struct worker *worker) {
  if (!worker->exposition) worker->exposition = exposition_new(worker_counters(worker));
  int status = worker->exposition ? exposition_look(worker->exposition, LOOK_PLACES) : EXPOSITION_MEMORY;
  if (status == EXPOSITION_MORE) return BRIDGE_AGAIN;
  if (status == EXPOSITION_OK) return BRIDGE_OK;
  error_set(&worker->error, ERROR_MEMORY, "no memory for what metrics are told from");
  return BRIDGE_FAILED;
}

int bridge_metrics_family(struct worker *worker, uint32_t index, struct metric_family *out) {
  struct exposition_family family;
  if (!worker->exposition || !exposition_family(worker->exposition, index, &family)) return BRIDGE_NONE;
  *out = (struct metric_family){bytes_of(family.name), family.kind, family.series, family.first_row};
  return BRIDGE_OK;
}

int bridge_metrics_series(struct worker *worker, uint32_t row, struct metric_series *out) {
  struct exposition_series series;
  if (!worker->exposition || !exposition_series(worker->exposition, row, &series)) return BRIDGE_NONE;
  *out = (struct metric_series){bytes_of(series.labels), series.value, series.next_row};
  return BRIDGE_OK;
}

int bridge_metrics_bucket(struct worker *worker, uint32_t row, uint32_t index, double *bound, double *count) {
  uint64_t own;
  if (!worker->exposition || !exposition_bucket(worker->exposition, row, index, bound, &own)) return BRIDGE_NONE;
  *count = (double)own;
  return BRIDGE_OK;
}

int bridge_metrics_text(struct worker *worker, uint32_t *row, uint32_t most, struct bytes *out) {
  struct slice text = worker->exposition ? exposition_text(worker->exposition, row, most) : (struct slice){0};
  if (!text.data) return error_set(&worker->error, ERROR_MEMORY, "no memory for the text of metrics"), BRIDGE_FAILED;
  *out = bytes_of(text);
  return BRIDGE_OK;
}
