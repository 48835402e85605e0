// SPDX-License-Identifier: Apache-2.0
// What Lua may call of batches of records. Thin: finds the batch of a number, and gives its records to librdkafka, or to
// a spec's topics.
#include "kafka.h"
#include "kafka_batch.h"
#include "topics.h"
#include "worker.h"

static struct kafka_batch *find(struct worker *worker, double number) {
  return worker->batches ? kafka_batch_find(worker->batches, number) : NULL;
}

double bridge_kafka_batch(struct worker *worker, double timeout_s) {
  if (!worker->batches) worker->batches = kafka_batches_new(worker);
  struct kafka_batch *batch = worker->batches ? kafka_batch_new(worker->batches, timeout_s) : NULL;
  return batch ? kafka_batch_number(batch) : 0;
}

int bridge_kafka_batch_add(struct worker *worker, double number, const struct kafka_message *message, double *index) {
  struct kafka_batch *batch = find(worker, number);
  if (!batch) return BRIDGE_STALE;
  uint32_t place = kafka_batch_place(batch);
  if (!place) return BRIDGE_FULL;
  struct kafka_teller teller = {.tell = kafka_batch_tell, .context = worker->batches, .number = number, .index = place};
  int status = worker->topics ? topics_produce_told(worker->topics, message, &teller)
                              : kafka_produce_told(worker_kafka(worker), message, &teller, &worker->error);
  if (status != BRIDGE_OK) kafka_batch_unplace(batch, place);
  *index = place;
  return status;
}

int bridge_kafka_batch_wait(struct worker *worker, double number, bool all, double timeout_s) {
  struct kafka_batch *batch = find(worker, number);
  return batch ? kafka_batch_wait(batch, all, timeout_s) : BRIDGE_STALE;
}

int bridge_kafka_batch_next(struct worker *worker, double number, double *index) {
  struct kafka_batch *batch = find(worker, number);
  if (!batch) return BRIDGE_STALE;
  *index = kafka_batch_next(batch);
  return *index > 0 ? BRIDGE_OK : BRIDGE_NONE;
}

int bridge_kafka_batch_result(struct worker *worker, double number, double index, struct kafka_result *out) {
  struct kafka_batch *batch = find(worker, number);
  return batch ? kafka_batch_result(batch, index, out) : BRIDGE_STALE;
}

int bridge_kafka_batch_close(struct worker *worker, double number) {
  struct kafka_batch *batch = find(worker, number);
  if (!batch) return BRIDGE_STALE;
  kafka_batch_free(batch);
  return BRIDGE_OK;
}
