// SPDX-License-Identifier: Apache-2.0
// What Lua may call of Kafka. Thin: finds the reader of a number, and turns the ends of waits into resumed coroutines.
#include <stdio.h>
#include <stdlib.h>

#include "kafka.h"
#include "phase.h"
#include "topics.h"
#include "worker.h"

int bridge_kafka_cluster(struct worker *worker, const char *name, const char *const *pairs, uint32_t pair_count) {
  return kafka_cluster(worker_kafka(worker), name, pairs, pair_count, &worker->error) ? BRIDGE_INVALID : BRIDGE_OK;
}

int bridge_kafka_check(const char *const *pairs, uint32_t pair_count, char *error, uint32_t error_bytes) {
  struct error cause = {0};
  if (kafka_cluster_check(pairs, pair_count, &cause) == 0) return BRIDGE_OK;
  snprintf(error, error_bytes, "%s", cause.text);
  return BRIDGE_INVALID;
}

int bridge_kafka_cluster_drop(struct worker *worker, const char *name) {
  return kafka_cluster_drop(worker_kafka(worker), name);
}

int bridge_kafka_cluster_at(struct worker *worker, uint32_t index, struct kafka_cluster_status *out) {
  return kafka_cluster_at(worker_kafka(worker), index, out);
}

int bridge_kafka_topic_at(struct worker *worker, uint32_t cluster, uint32_t index, struct kafka_topic_status *out) {
  return kafka_topic_at(worker_kafka(worker), cluster, index, out);
}

int bridge_kafka_broker_at(struct worker *worker, uint32_t cluster, uint32_t index, struct kafka_broker *out) {
  return kafka_broker_at(worker_kafka(worker), cluster, index, out);
}

double bridge_kafka_latency_bound(uint32_t index) {
  return kafka_latency_bound(index);
}

uint32_t bridge_kafka_lags(struct worker *worker, uint32_t cluster, struct kafka_lag *out, uint32_t most) {
  return kafka_lags(worker_kafka(worker), cluster, out, most);
}

int bridge_kafka_token(struct worker *worker, const char *cluster, const struct kafka_token *token) {
  return kafka_token(worker_kafka(worker), cluster, token, &worker->error);
}

int bridge_kafka_token_failed(struct worker *worker, const char *cluster, const char *why) {
  return kafka_token_failed(worker_kafka(worker), cluster, why);
}

uint32_t bridge_kafka_token_users(struct worker *worker, const char *cluster) {
  return kafka_token_users(worker_kafka(worker), cluster);
}

// ---- Produce ----

struct produce_wait {
  struct kafka_delivery delivery; // first: the one is the other
  struct worker *worker;
  double coroutine;
};

static void on_delivered(struct kafka_delivery *delivery) {
  struct produce_wait wait = *(struct produce_wait *)delivery;
  free(delivery);
  if (wait.delivery.result.status == BRIDGE_CLOSED) return; // the worker ends, and its VM with it
  phase_resume(wait.worker, wait.coroutine, wait.delivery.result.status, wait.delivery.result.offset);
}

int bridge_kafka_produce(struct worker *worker, const struct kafka_message *message, bool wait) {
  if (worker->topics) return topics_produce(worker->topics, message, wait);
  struct kafka *kafka = worker_kafka(worker);
  if (!wait) return kafka_produce(kafka, message, NULL, &worker->error);
  struct produce_wait *waiting = calloc(1, sizeof *waiting);
  if (!waiting) return BRIDGE_FULL;
  waiting->delivery.on_done = on_delivered;
  waiting->worker = worker;
  waiting->coroutine = phase_self(worker);
  int status = kafka_produce(kafka, message, &waiting->delivery, &worker->error);
  if (status == BRIDGE_OK) return BRIDGE_AGAIN;
  free(waiting);
  return status;
}

int bridge_kafka_result(struct worker *worker, struct kafka_result *out) {
  if (worker->topics)
    topics_result(worker->topics, out);
  else
    *out = *kafka_last_result(worker_kafka(worker));
  return BRIDGE_OK;
}

int bridge_kafka_expiry_drop(struct worker *worker, const char *cluster, double expires_s) {
  if (!worker->topics) kafka_expiry_drop(worker_kafka(worker), cluster, expires_s);
  return BRIDGE_OK;
}

// ---- Read ----

enum { READERS_AT_ONCE = 256 };

static void on_opened(struct kafka_reader *reader, const struct kafka_wait *wait, int status) {
  struct worker *worker = wait->context;
  double coroutine = wait->number, handle = kafka_reader_handle(reader);
  status = kafka_reader_ready(reader);
  if (status == BRIDGE_AGAIN && kafka_reader_wait(reader, -1, wait) == BRIDGE_OK) return;
  if (status != BRIDGE_OK) {
    error_set(&worker->error, ERROR_SYSTEM, "%s", kafka_reader_error(reader));
    kafka_reader_free(reader);
    handle = 0;
  }
  phase_resume(worker, coroutine, status, handle);
}

int bridge_kafka_reader_open(struct worker *worker, const struct kafka_reader_options *options) {
  if (worker->topics) return topics_open(worker->topics, options);
  struct kafka_reader *reader = kafka_reader_new(worker_kafka(worker), options, &worker->error);
  struct kafka_wait wait = {.on_ready = on_opened, .context = worker, .number = phase_self(worker)};
  if (!reader) return BRIDGE_FAILED;
  int status = kafka_reader_ready(reader);
  if (status == BRIDGE_OK)
    status = worker_wake(worker, wait.number, BRIDGE_OK, kafka_reader_handle(reader)) < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
  else if (status == BRIDGE_AGAIN)
    status = kafka_reader_wait(reader, -1, &wait) == BRIDGE_OK ? BRIDGE_AGAIN : BRIDGE_FULL;
  else
    error_set(&worker->error, ERROR_SYSTEM, "%s", kafka_reader_error(reader));
  if (status != BRIDGE_AGAIN) kafka_reader_free(reader);
  return status;
}

static void on_readable(struct kafka_reader *reader, const struct kafka_wait *wait, int status) {
  (void)reader;
  phase_resume(wait->context, wait->number, status, 0);
}

// Whoever waits, for this reader or for several, is told in the next turn: the caller may be a coroutine.
static void reader_end_wait(struct worker *worker, struct kafka_reader *reader) {
  double coroutine = kafka_reader_waiting(reader)->number;
  kafka_reader_unwait(reader);
  worker_wake(worker, coroutine, BRIDGE_CLOSED, 0);
}

int bridge_kafka_reader_next(struct worker *worker, double handle, double timeout_s, const struct kafka_record **out) {
  if (worker->topics) return topics_next(worker->topics, handle, timeout_s, out);
  struct kafka_reader *reader = kafka_reader_find(worker_kafka(worker), handle);
  struct kafka_wait wait = {.on_ready = on_readable, .context = worker, .number = phase_self(worker)};
  if (!reader) return BRIDGE_STALE;
  int status = kafka_reader_next(reader, out);
  if (status == BRIDGE_FAILED) error_set(&worker->error, ERROR_SYSTEM, "%s", kafka_reader_error(reader));
  if (status != BRIDGE_AGAIN) return status;
  if (!(timeout_s > 0)) return BRIDGE_NONE;
  // A wait of another coroutine on this reader is ended: a reader has one user.
  const struct kafka_wait *other = kafka_reader_waiting(reader);
  if (other && other->number != wait.number) reader_end_wait(worker, reader);
  int64_t timeout_us = timeout_s < 1e9 ? (int64_t)(timeout_s * 1e6) : -1;
  return kafka_reader_wait(reader, timeout_us, &wait) == BRIDGE_OK ? BRIDGE_AGAIN : BRIDGE_FULL;
}

int bridge_kafka_readers_wait(struct worker *worker, const double *handles, uint32_t count, double timeout_s) {
  struct kafka_reader *readers[READERS_AT_ONCE];
  if (count == 0 || count > READERS_AT_ONCE) return BRIDGE_INVALID;
  if (worker->topics) return topics_wait(worker->topics, handles, count, timeout_s);
  struct kafka_wait wait = {.on_ready = on_readable, .context = worker, .number = phase_self(worker)};
  for (uint32_t i = 0; i < count; i++) {
    readers[i] = kafka_reader_find(worker_kafka(worker), handles[i]);
    if (!readers[i]) return BRIDGE_STALE;
  }
  for (uint32_t i = 0; i < count; i++)
    if (kafka_reader_waiting(readers[i])) reader_end_wait(worker, readers[i]);
  int64_t timeout_us = timeout_s < 1e9 ? (int64_t)(timeout_s * 1e6) : -1;
  return kafka_readers_wait(readers, count, timeout_us, &wait) == BRIDGE_OK ? BRIDGE_AGAIN : BRIDGE_FULL;
}

int bridge_kafka_memory_offset(struct worker *worker, const char *topic, int32_t partition, double at_ms, double *out) {
  return worker->topics ? topics_offset(worker->topics, topic, partition, at_ms, out) : BRIDGE_FAILED;
}

int bridge_kafka_reader_position(struct worker *worker, double handle, uint32_t index, struct kafka_position *out) {
  if (worker->topics) return topics_position(worker->topics, handle, index, out);
  struct kafka_reader *reader = kafka_reader_find(worker_kafka(worker), handle);
  return reader ? kafka_reader_position(reader, index, out) : BRIDGE_STALE;
}

int bridge_kafka_reader_close(struct worker *worker, double handle) {
  if (worker->topics) return topics_close(worker->topics, handle);
  if (!worker->kafka) return BRIDGE_STALE; // the VM ends after it, and collects what plugins have left
  struct kafka_reader *reader = kafka_reader_find(worker_kafka(worker), handle);
  if (!reader) return BRIDGE_STALE;
  if (kafka_reader_waiting(reader)) reader_end_wait(worker, reader);
  kafka_reader_free(reader);
  return BRIDGE_OK;
}
