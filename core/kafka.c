// SPDX-License-Identifier: Apache-2.0
// Lifecycle, status, and librdkafka's queues in the loop.
#include "kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kafka_producer.h"

enum { TOKENS_PER_TURN = 16 };

// ---- Queues in the loop ----

int queue_watch_init(struct queue_watch *watch, struct kafka *kafka, struct error *error) {
  *watch = (struct queue_watch){.kafka = kafka};
  watch->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (watch->fd < 0) return error_system(error, "no eventfd for Kafka");
  return 0;
}

void queue_watch_bind(struct queue_watch *watch, rd_kafka_queue_t *queue) {
  static const uint64_t one = 1;
  watch->queue = queue;
  rd_kafka_queue_io_event_enable(queue, watch->fd, &one, sizeof one);
}

void queue_watch_start(struct queue_watch *watch, void (*on_readable)(struct ev_loop *, struct ev_io *, int),
                       void *context) {
  ev_io_init(&watch->io, on_readable, watch->fd, EV_READ);
  watch->io.data = context;
  ev_io_start(watch->kafka->loop->ev, &watch->io);
  queue_watch_kick(watch); // what came before the queue was bound made no event
}

void queue_watch_kick(struct queue_watch *watch) {
  eventfd_write(watch->fd, 1);
}

void queue_watch_stop(struct queue_watch *watch) {
  ev_io_stop(watch->kafka->loop->ev, &watch->io);
}

void queue_watch_close(struct queue_watch *watch) {
  if (watch->queue) rd_kafka_queue_destroy(watch->queue);
  watch->queue = NULL;
  if (watch->fd >= 0) close(watch->fd);
  watch->fd = -1;
}

// ---- Status and lifecycle ----

int kafka_cluster_at(struct kafka *kafka, uint32_t index, struct kafka_cluster_status *out) {
  static const char *const states[] = {"idle", "connecting", "up", "down"};
  const struct cluster *cluster = kafka->clusters;
  while (cluster && index--) cluster = cluster->next;
  if (!cluster) return BRIDGE_NONE;
  *out = (struct kafka_cluster_status){.name = cluster->name,
                                       .servers = cluster->servers,
                                       .state = states[cluster->state],
                                       .error = cluster->error,
                                       .error_at = cluster->error_at,
                                       .produced = cluster->produced,
                                       .delivered = cluster->delivered,
                                       .failed = cluster->failed,
                                       .refused = cluster->refused,
                                       .consumed = cluster->consumed,
                                       .consumed_bytes = cluster->consumed_bytes,
                                       .readers = cluster->readers,
                                       .consumers = cluster->consumers,
                                       .embedded = cluster->embedded};
  memcpy(out->latency, cluster->latency, sizeof out->latency);
  out->latency_s = cluster->latency_s;
  // Not rd_kafka_outq_len, which counts pending logs and errors too.
  out->queued = (uint32_t)(cluster->produced - cluster->delivered - cluster->failed);
  return BRIDGE_OK;
}

int kafka_cluster_drop(struct kafka *kafka, const char *name) {
  struct cluster *cluster = cluster_find(kafka, name);
  if (!cluster) return BRIDGE_NONE;
  struct cluster **link = &kafka->clusters;
  while (*link != cluster) link = &(*link)->next;
  *link = cluster->next;
  cluster->dropped = true;
  feeds_fail(cluster, "the cluster left the configuration");
  admin_end(cluster, BRIDGE_STALE, "the cluster left the configuration");
  members_fail(cluster, "the cluster left the configuration");
  while (cluster->producers) producer_retire(cluster->producers);
  cluster_release(cluster);
  return BRIDGE_OK;
}

// Names first: what is called may change the clusters.
static void tokens_ask(struct kafka *kafka) {
  char names[TOKENS_PER_TURN][CLUSTER_NAME_BYTES];
  uint32_t count = 0;
  for (struct cluster *cluster = kafka->clusters; cluster && kafka->on_token; cluster = cluster->next) {
    if (!cluster->tokens || !tokens_wanted(cluster->tokens)) continue;
    snprintf(names[count++], sizeof names[0], "%s", cluster->name);
    if (count == TOKENS_PER_TURN) break;
  }
  if (count == TOKENS_PER_TURN) queue_watch_kick(&kafka->wake);
  for (uint32_t i = 0; i < count; i++) kafka->on_token(kafka->token_context, names[i]);
}

static void on_wake(struct ev_loop *ev, struct ev_io *io, int events) {
  struct kafka *kafka = io->data;
  uint64_t count;
  (void)ev;
  (void)events;
  eventfd_read(kafka->wake.fd, &count);
  readers_wake(kafka);
  tokens_ask(kafka);
}

void kafka_on_token(struct kafka *kafka, void (*on_token)(void *context, const char *cluster), void *context) {
  kafka->on_token = on_token;
  kafka->token_context = context;
}

struct kafka *kafka_new(struct loop *loop) {
  struct kafka *kafka = calloc(1, sizeof *kafka);
  if (!kafka) return NULL;
  kafka->loop = loop;
  if (queue_watch_init(&kafka->wake, kafka, NULL)) goto fail;
  kafka->errands = errands_new(loop, HELPERS);
  if (!kafka->errands) goto fail;
  queue_watch_start(&kafka->wake, on_wake, kafka);
  return kafka;
fail:
  queue_watch_close(&kafka->wake);
  free(kafka);
  return NULL;
}

void kafka_close(struct kafka *kafka, int32_t flush_ms) {
  readers_close(kafka);
  for (struct cluster *cluster = kafka->clusters; cluster; cluster = cluster->next)
    admin_end(cluster, BRIDGE_CLOSED, "the worker ends");
  members_close(kafka);
  while (kafka->clusters) kafka_cluster_drop(kafka, kafka->clusters->name);
  producers_close(kafka, flush_ms);
  errands_free(kafka->errands);
  queue_watch_stop(&kafka->wake);
  queue_watch_close(&kafka->wake);
  while (kafka->embedded) {
    struct embedded *embedded = kafka->embedded;
    kafka->embedded = embedded->next;
    free(embedded);
  }
  kafka_slots_close(&kafka->readers);
  kafka_slots_close(&kafka->member_slots);
  free(kafka);
}
