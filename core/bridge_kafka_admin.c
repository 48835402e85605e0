// SPDX-License-Identifier: Apache-2.0
// Questions to Kafka clusters, for Lua. The spec kit's Kafka in memory has no cluster to ask: there they go nowhere.
#include "kafka.h"
#include "phase.h"
#include "worker.h"

static void on_answer(void *context, double number, const struct kafka_answer *answer) {
  struct worker *worker = context;
  if (answer->status == BRIDGE_CLOSED) return; // the worker ends, and its VM with it
  if (answer->status == BRIDGE_STALE)
    worker_wake(worker, number, BRIDGE_STALE, 0); // Lua may be running: it dropped the cluster
  else
    phase_resume(worker, number, answer->status, 0);
}

int bridge_kafka_ask(struct worker *worker, const struct kafka_question *question) {
  struct kafka *kafka = worker_kafka(worker);
  if (worker->topics) {
    error_set(&worker->error, ERROR_INVALID, "topics in memory have no cluster to ask");
    return BRIDGE_FAILED;
  }
  int status = kafka_ask(kafka, question, on_answer, worker, phase_self(worker), &worker->error);
  return status == BRIDGE_OK ? BRIDGE_AGAIN : status;
}

int bridge_kafka_answer(struct worker *worker, struct kafka_answer *out) {
  *out = *kafka_last_answer(worker_kafka(worker));
  return BRIDGE_OK;
}
