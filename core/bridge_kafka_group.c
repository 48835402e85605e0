// SPDX-License-Identifier: Apache-2.0
// What Lua may call of consumer groups: the ends of waits become resumed coroutines.
#include "kafka_group.h"
#include "phase.h"
#include "topics.h"
#include "worker.h"

// Who is told of a member's end is told by the one that ends it, maybe a coroutine: not resumed inside that.
static void on_done(struct kafka_member *member, const struct kafka_group_wait *wait, int status) {
  (void)member;
  if (status == BRIDGE_CLOSED)
    worker_wake(wait->context, wait->number, status, 0);
  else
    phase_resume(wait->context, wait->number, status, 0);
}

static void on_joined(struct kafka_member *member, const struct kafka_group_wait *wait, int status) {
  struct worker *worker = wait->context;
  double handle = kafka_group_handle(member);
  if (status == BRIDGE_FAILED) {
    error_set(&worker->error, ERROR_SYSTEM, "%s", kafka_group_result(member)->text);
    kafka_group_leave(member);
    handle = 0;
  }
  phase_resume(worker, wait->number, status, handle);
}

int bridge_kafka_group_open(struct worker *worker, const struct kafka_group_options *options) {
  if (worker->topics) return topics_group_open(worker->topics, options);
  struct kafka_group_wait wait = {.on_done = on_joined, .context = worker, .number = phase_self(worker)};
  int status = BRIDGE_AGAIN;
  struct kafka_member *member = kafka_group_join(worker_kafka(worker), options, &wait, &status, &worker->error);
  return member ? BRIDGE_AGAIN : status;
}

int bridge_kafka_group_next(struct worker *worker, double handle, double timeout_s, const struct kafka_record **out) {
  if (worker->topics) return topics_group_next(worker->topics, handle, timeout_s, out);
  struct kafka_member *member = kafka_group_find(worker_kafka(worker), handle);
  struct kafka_group_wait wait = {.on_done = on_done, .context = worker, .number = phase_self(worker)};
  if (!member) return BRIDGE_STALE;
  int status = kafka_group_next(member, out);
  if (status == BRIDGE_FAILED) error_set(&worker->error, ERROR_SYSTEM, "%s", kafka_group_result(member)->text);
  if (status != BRIDGE_AGAIN) return status;
  if (!(timeout_s > 0)) return BRIDGE_NONE;
  // A wait of another coroutine on this member is ended: a member has one reader.
  const struct kafka_group_wait *other = kafka_group_waiting(member);
  if (other && other->number != wait.number) worker_wake(worker, other->number, BRIDGE_CLOSED, 0);
  int64_t timeout_us = timeout_s < 1e9 ? (int64_t)(timeout_s * 1e6) : -1;
  return kafka_group_wait_next(member, timeout_us, &wait) == BRIDGE_OK ? BRIDGE_AGAIN : BRIDGE_FULL;
}

int bridge_kafka_group_act(struct worker *worker, double handle, const struct kafka_group_request *request) {
  if (worker->topics) return topics_group_act(worker->topics, handle, request);
  struct kafka_member *member = kafka_group_find(worker_kafka(worker), handle);
  struct kafka_group_wait wait = {.on_done = on_done, .context = worker, .number = phase_self(worker)};
  return member ? kafka_group_act(member, request, &wait) : BRIDGE_STALE;
}

int bridge_kafka_group_result(struct worker *worker, double handle, struct kafka_result *out) {
  if (worker->topics) return topics_group_result(worker->topics, handle, out);
  const struct kafka_member *member = kafka_group_find(worker_kafka(worker), handle);
  if (!member) return BRIDGE_STALE;
  *out = *kafka_group_result(member);
  return BRIDGE_OK;
}

int bridge_kafka_group_place(struct worker *worker, double handle, int32_t list, uint32_t index,
                             struct kafka_place *out) {
  if (worker->topics) return topics_group_place(worker->topics, handle, list, index, out);
  const struct kafka_member *member = kafka_group_find(worker_kafka(worker), handle);
  return member ? kafka_group_place(member, list, index, out) : BRIDGE_STALE;
}

int bridge_kafka_group_close(struct worker *worker, double handle) {
  if (worker->topics) return topics_group_close(worker->topics, handle);
  if (!worker->kafka) return BRIDGE_STALE; // the VM ends after it, and collects what plugins have left
  struct kafka_member *member = kafka_group_find(worker->kafka, handle);
  if (!member) return BRIDGE_STALE;
  kafka_group_leave(member);
  return BRIDGE_OK;
}
