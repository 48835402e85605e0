// SPDX-License-Identifier: Apache-2.0
// Producers: made when first wanted, read in the loop, and let go of without a loss.
#include "kafka_producer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

enum {
  EVENTS_PER_TURN = 64,
  PURGE_MS = 1000,
  LOOK_MS = 1200 // librdkafka looks each second, and the loop is to hear of it in time
};

struct topic {
  struct topic *next;
  rd_kafka_topic_t *rkt;
  uint32_t hash;
  char name[TOPIC_NAME_BYTES];
};

// ---- Topics ----

static uint32_t text_hash(const char *text) {
  uint32_t hash = 2166136261u; // FNV-1a
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 16777619u;
  return hash;
}

bool topic_name_valid(const char *topic) {
  size_t len = strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
  if (topic[len] || len == 0 || len >= TOPIC_NAME_BYTES) return false;
  return strcmp(topic, ".") != 0 && strcmp(topic, "..") != 0;
}

rd_kafka_topic_t *producer_topic(struct producer *producer, const char *name) {
  uint32_t hash = text_hash(name);
  for (struct topic *topic = producer->topics; topic; topic = topic->next)
    if (topic->hash == hash && strcmp(topic->name, name) == 0) return topic->rkt;
  struct topic *topic = calloc(1, sizeof *topic);
  if (!topic) return NULL;
  topic->rkt = rd_kafka_topic_new(producer->rk, name, NULL);
  if (!topic->rkt) {
    free(topic);
    return NULL;
  }
  topic->hash = hash;
  snprintf(topic->name, sizeof topic->name, "%s", name);
  topic->next = producer->topics;
  producer->topics = topic;
  return topic->rkt;
}

// ---- Events, and the way out ----

static void on_producer_event(struct producer *producer, rd_kafka_event_t *event) {
  if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) {
    produce_on_reports(producer, event);
    return;
  }
  cluster_on_event(producer->cluster, event);
  // A fatal error (idempotence lost) ends this producer, not the cluster: the next record starts another.
  if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR && rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__FATAL)
    producer_retire(producer);
}

static void producer_run(struct errand *errand) {
  struct producer *producer = (struct producer *)((char *)errand - offsetof(struct producer, errand));
  for (struct topic *topic = producer->topics; topic; topic = topic->next) rd_kafka_topic_destroy(topic->rkt);
  rd_kafka_queue_destroy(producer->watch.queue);
  producer->watch.queue = NULL;
  cluster_leave(producer->cluster, producer->rk);
  rd_kafka_destroy(producer->rk);
}

static void producer_on_destroyed(struct errand *errand) {
  struct producer *producer = (struct producer *)((char *)errand - offsetof(struct producer, errand));
  queue_watch_close(&producer->watch);
  while (producer->topics) {
    struct topic *topic = producer->topics;
    producer->topics = topic->next;
    free(topic);
  }
  cluster_release(producer->cluster);
  free(producer);
}

static void producer_destroy(struct producer *producer) {
  struct kafka *kafka = producer->cluster->kafka;
  struct producer **link = &kafka->retired;
  while (*link != producer) link = &(*link)->next;
  *link = producer->next;
  queue_watch_stop(&producer->watch);
  producer->errand = (struct errand){.run = producer_run, .on_done = producer_on_destroyed};
  errands_submit(kafka->errands, &producer->errand);
}

void producer_retire(struct producer *producer) {
  if (producer->retired) return;
  struct cluster *cluster = producer->cluster;
  struct producer **link = &cluster->producers;
  while (*link != producer) link = &(*link)->next;
  *link = producer->next;
  producer->retired = true;
  producer->next = cluster->kafka->retired;
  cluster->kafka->retired = producer;
  queue_watch_kick(&producer->watch);
}

static void on_producer_readable(struct ev_loop *ev, struct ev_io *io, int events) {
  struct producer *producer = io->data;
  rd_kafka_event_t *event;
  uint64_t count;
  int most = EVENTS_PER_TURN;
  (void)ev;
  (void)events;
  eventfd_read(producer->watch.fd, &count);
  // To the end, or librdkafka, which signals only the first of a full queue, would stay silent.
  while (most-- > 0 && (event = rd_kafka_queue_poll(producer->watch.queue, 0))) {
    on_producer_event(producer, event);
    rd_kafka_event_destroy(event);
  }
  if (most < 0)
    queue_watch_kick(&producer->watch);
  else if (producer->retired && rd_kafka_outq_len(producer->rk) == 0)
    producer_destroy(producer);
}

// ---- New ones ----

// A producer looks once a second for records whose time is over. They are to be reported by then.
static int32_t expires_ms_of(const struct cluster *cluster, double expires_s) {
  if (!(expires_s > 0) || cluster->own_timeout) return 0;
  int32_t given_ms = expires_s < 1e6 ? (int32_t)(expires_s * 1e3) : 1000000000;
  int32_t ms = given_ms - (given_ms < 2 * LOOK_MS ? given_ms / 2 : LOOK_MS);
  return ms > cluster->linger_ms ? ms : cluster->linger_ms + 1;
}

static int conf_own(rd_kafka_conf_t *conf, const struct producer *producer, struct error *error) {
  char text[16];
  snprintf(text, sizeof text, "%d", producer->expires_ms);
  if (producer->expires_ms && cluster_conf_set(conf, "message.timeout.ms", text, error)) return ERROR_INVALID;
  if (!producer->alone) return 0;
  if (cluster_conf_set(conf, "batch.num.messages", "1", error)) return ERROR_INVALID;
  return cluster_conf_set(conf, "statistics.interval.ms", "0", error); // it is idle mostly: no word on brokers
}

// With a watch that is open, or none of it.
static rd_kafka_t *client_new(struct producer *producer, struct error *error) {
  char text[256];
  rd_kafka_conf_t *conf = cluster_conf(producer->cluster, RD_KAFKA_PRODUCER, error);
  if (!conf) return NULL;
  rd_kafka_t *rk = NULL;
  if (conf_own(conf, producer, error) == 0) {
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    if (!rk) error_set(error, ERROR_INVALID, "%s", text);
  }
  if (!rk) rd_kafka_conf_destroy(conf);
  return rk;
}

static struct producer *producer_new(struct cluster *cluster, int32_t expires_ms, bool alone, struct error *error) {
  struct producer *producer = calloc(1, sizeof *producer);
  if (!producer) return NULL;
  producer->cluster = cluster;
  producer->expires_ms = expires_ms;
  producer->alone = alone;
  if (queue_watch_init(&producer->watch, cluster->kafka, error)) goto fail;
  producer->rk = client_new(producer, error);
  if (!producer->rk) goto fail;
  rd_kafka_set_log_queue(producer->rk, NULL);
  cluster_join(cluster, producer->rk);
  queue_watch_bind(&producer->watch, rd_kafka_queue_get_main(producer->rk));
  queue_watch_start(&producer->watch, on_producer_readable, producer);
  cluster_hold(cluster);
  producer->next = cluster->producers;
  cluster->producers = producer;
  if (cluster->state == CLUSTER_IDLE) cluster->state = CLUSTER_CONNECTING;
  return producer;
fail:
  queue_watch_close(&producer->watch);
  free(producer);
  return NULL;
}

struct producer *producer_of(struct cluster *cluster, double expires_s, struct error *error) {
  int32_t expires_ms = expires_ms_of(cluster, expires_s);
  uint32_t timed = 0;
  for (struct producer *producer = cluster->producers; producer; producer = producer->next) {
    if (producer->alone) continue;
    if (producer->expires_ms == expires_ms) return producer;
    timed += producer->expires_ms > 0;
  }
  if (expires_ms && timed >= PRODUCERS_TIMED_MOST) return producer_of(cluster, 0, error);
  return producer_new(cluster, expires_ms, false, error);
}

struct producer *producer_alone(struct cluster *cluster, struct error *error) {
  for (struct producer *producer = cluster->producers; producer; producer = producer->next)
    if (producer->alone) return producer;
  return producer_new(cluster, 0, true, error);
}

void kafka_expiry_drop(struct kafka *kafka, const char *name, double expires_s) {
  struct cluster *cluster = cluster_find(kafka, name);
  int32_t expires_ms = cluster ? expires_ms_of(cluster, expires_s) : 0;
  struct producer *producer = expires_ms ? cluster->producers : NULL;
  while (producer && producer->expires_ms != expires_ms) producer = producer->next;
  if (producer) producer_retire(producer);
}

// ---- The end ----

static void producer_drain(struct producer *producer, int32_t wait_ms) {
  rd_kafka_event_t *event;
  while ((event = rd_kafka_queue_poll(producer->watch.queue, wait_ms))) {
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) produce_on_closing_reports(event);
    rd_kafka_event_destroy(event);
  }
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void producer_drain_until(struct producer *producer, int64_t deadline_ms) {
  while (rd_kafka_outq_len(producer->rk) > 0 && now_ms() < deadline_ms) producer_drain(producer, 10);
}

// All producers have the same time: it is not to grow with the number of clusters that are away.
static void producers_flush(struct kafka *kafka, int32_t flush_ms) {
  int64_t deadline_ms = now_ms() + flush_ms;
  for (struct producer *p = kafka->retired; p; p = p->next) producer_drain_until(p, deadline_ms);
  for (struct producer *p = kafka->retired; p; p = p->next)
    rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
  deadline_ms = now_ms() + PURGE_MS;
  for (struct producer *p = kafka->retired; p; p = p->next) producer_drain_until(p, deadline_ms);
}

void producers_close(struct kafka *kafka, int32_t flush_ms) {
  producers_flush(kafka, flush_ms);
  while (kafka->retired) {
    producer_drain(kafka->retired, 0);
    producer_destroy(kafka->retired);
  }
}
