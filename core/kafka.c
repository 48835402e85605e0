// SPDX-License-Identifier: Apache-2.0
// Lifecycle and producers. A producer's delivery reports come as events on its main queue, many in one wake-up, and each
// ends one ticket: what librdkafka holds for a record. The ticket outlives the wait, because a wait may end first.
#include "kafka.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "kafka_parts.h"

enum {
  EVENTS_PER_TURN = 64,
  TOKENS_PER_TURN = 16,
  PURGE_MS = 1000,
  RECORD_BYTES = 256 // what a record takes in memory beside its own bytes
};

// What librdkafka carries for a record while it has it: who is told, and what it counts for in the cluster's queue.
// `delivery` is NULL once nobody waits.
struct kafka_ticket {
  struct kafka_delivery *delivery;
  struct kafka *kafka;
  struct kafka_teller teller;
  size_t size;
};

struct topic {
  struct topic *next;
  rd_kafka_topic_t *rkt;
  uint32_t hash;
  char name[TOPIC_NAME_BYTES];
};

struct producer {
  struct producer *next; // in kafka->retired
  struct cluster *cluster;
  rd_kafka_t *rk;
  struct queue_watch watch;
  struct topic *topics;
  bool retired;
  struct errand errand; // destroys it
};

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

// ---- Producers ----

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

static struct topic *producer_topic(struct producer *producer, const char *name) {
  uint32_t hash = text_hash(name);
  for (struct topic *topic = producer->topics; topic; topic = topic->next)
    if (topic->hash == hash && strcmp(topic->name, name) == 0) return topic;
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
  return topic;
}

static int32_t result_status(rd_kafka_resp_err_t code) {
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return BRIDGE_OK;
  return code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT ? BRIDGE_TIMEOUT : BRIDGE_FAILED;
}

static void delivery_end(struct kafka *kafka, struct kafka_delivery *delivery, const struct kafka_result *result) {
  timer_cancel(&kafka->loop->timers, &delivery->timer);
  if (delivery->ticket) delivery->ticket->delivery = NULL;
  delivery->ticket = NULL;
  delivery->result = *result;
  delivery->done = true;
  kafka->last = *result;
  if (delivery->on_done) delivery->on_done(delivery); // it may be gone now
}

static void on_report(struct cluster *cluster, const rd_kafka_message_t *message) {
  struct kafka_ticket *ticket = message->_private;
  rd_kafka_resp_err_t code = message->err;
  count_report(cluster, message);
  if (code)
    cluster_error(cluster, rd_kafka_err2str(code));
  else
    cluster_up(cluster);
  if (!ticket) return;
  struct kafka_result result = {.status = result_status(code),
                                .partition = message->partition,
                                .offset = (double)(code || message->offset < 0 ? -1 : message->offset),
                                .name = code ? rd_kafka_err2name(code) : "",
                                .text = code ? rd_kafka_err2str(code) : ""};
  struct kafka_ticket told = *ticket;
  cluster->queued_bytes -= told.size;
  if (told.delivery) told.delivery->ticket = NULL;
  free(ticket);
  if (told.delivery) delivery_end(told.kafka, told.delivery, &result);
  if (told.teller.tell) told.teller.tell(told.teller.context, told.teller.number, told.teller.index, &result);
}

static void producer_retire(struct producer *producer);

static void on_producer_event(struct producer *producer, rd_kafka_event_t *event) {
  struct cluster *cluster = producer->cluster;
  if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) {
    for (const rd_kafka_message_t *message; (message = rd_kafka_event_message_next(event));)
      on_report(cluster, message);
    return;
  }
  cluster_on_event(cluster, event);
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

// No new records; it goes when its last one has been reported, at the latest after message.timeout.ms.
static void producer_retire(struct producer *producer) {
  if (producer->retired) return;
  struct cluster *cluster = producer->cluster;
  assert(cluster->producer == producer);
  cluster->producer = NULL;
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

static struct producer *producer_new(struct cluster *cluster, struct error *error) {
  char text[256];
  struct producer *producer = calloc(1, sizeof *producer);
  if (!producer) return NULL;
  rd_kafka_conf_t *conf = cluster_conf(cluster, RD_KAFKA_PRODUCER, error);
  if (!conf) goto fail;
  if (queue_watch_init(&producer->watch, cluster->kafka, error)) {
    rd_kafka_conf_destroy(conf);
    goto fail;
  }
  producer->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
  if (!producer->rk) {
    rd_kafka_conf_destroy(conf);
    queue_watch_close(&producer->watch);
    error_set(error, ERROR_INVALID, "%s", text);
    goto fail;
  }
  rd_kafka_set_log_queue(producer->rk, NULL);
  cluster_join(cluster, producer->rk);
  queue_watch_bind(&producer->watch, rd_kafka_queue_get_main(producer->rk));
  queue_watch_start(&producer->watch, on_producer_readable, producer);
  producer->cluster = cluster;
  cluster_hold(cluster);
  if (cluster->state == CLUSTER_IDLE) cluster->state = CLUSTER_CONNECTING;
  return producer;
fail:
  free(producer);
  return NULL;
}

// ---- Produce ----

static rd_kafka_headers_t *headers_new(const struct kafka_message *message) {
  rd_kafka_headers_t *headers = rd_kafka_headers_new(message->header_count);
  for (uint32_t i = 0; i < message->header_count; i++) {
    const struct bytes *name = &message->headers[2 * i], *value = name + 1;
    rd_kafka_header_add(headers, name->data, name->len, value->data, value->len);
  }
  return headers;
}

static rd_kafka_resp_err_t produce_queue(struct producer *producer, struct topic *topic,
                                         const struct kafka_message *message, struct kafka_ticket *ticket) {
  rd_kafka_headers_t *headers = message->header_count ? headers_new(message) : NULL;
  // Not produceva: given a partition that does not exist it frees the headers and then leaves them to us (2.0.2).
  rd_kafka_resp_err_t code =
      rd_kafka_producev(producer->rk, RD_KAFKA_V_RKT(topic->rkt), RD_KAFKA_V_PARTITION(message->partition),
                        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(message->key.data, message->key.len),
                        RD_KAFKA_V_VALUE((void *)(uintptr_t)message->value.data, message->value.len),
                        RD_KAFKA_V_TIMESTAMP((int64_t)message->timestamp_ms), RD_KAFKA_V_HEADERS(headers),
                        RD_KAFKA_V_OPAQUE(ticket), RD_KAFKA_V_END);
  if (code && headers) rd_kafka_headers_destroy(headers);
  return code;
}

static int produce_failed(struct cluster *cluster, const struct kafka_message *message, rd_kafka_resp_err_t code,
                          struct error *error) {
  if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
    cluster->refused++;
    error_set(error, ERROR_MEMORY, "cluster %s: %s", cluster->name, rd_kafka_err2str(code));
    return BRIDGE_FULL;
  }
  error_set(error, ERROR_INVALID, "topic %s: %s", message->topic, rd_kafka_err2str(code));
  bool input = code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION || code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
  return input ? BRIDGE_INVALID : BRIDGE_FAILED;
}

static void on_delivery_late(struct timer *timer) {
  struct kafka_delivery *delivery = (struct kafka_delivery *)((char *)timer - offsetof(struct kafka_delivery, timer));
  delivery_end(delivery->ticket->kafka, delivery,
               &(struct kafka_result){.status = BRIDGE_TIMEOUT,
                                      .partition = -1,
                                      .offset = -1,
                                      .name = "_TIMED_OUT",
                                      .text = "no acknowledgement in time; the record may yet arrive"});
}

static int delivery_begin(struct kafka *kafka, struct kafka_delivery *delivery, double timeout_s) {
  delivery->done = false;
  delivery->ticket = malloc(sizeof *delivery->ticket);
  if (!delivery->ticket) return BRIDGE_FULL;
  *delivery->ticket = (struct kafka_ticket){.delivery = delivery, .kafka = kafka};
  timer_init(&delivery->timer, on_delivery_late);
  if (timeout_s <= 0) return BRIDGE_OK;
  int64_t at_us = kafka->loop->clock.mono_us + (int64_t)(timeout_s * 1e6);
  if (timer_set(&kafka->loop->timers, &delivery->timer, at_us) == 0) return BRIDGE_OK;
  free(delivery->ticket);
  return BRIDGE_FULL;
}

// librdkafka counts the value alone, whatever stands in key and headers.
static size_t size_of(const struct kafka_message *message) {
  size_t size = RECORD_BYTES + message->key.len + message->value.len;
  for (uint32_t i = 0; i < 2 * message->header_count; i++) size += message->headers[i].len;
  return size;
}

static int produce_by(struct producer *producer, const struct kafka_message *message, struct kafka_ticket *ticket,
                      struct error *error) {
  struct cluster *cluster = producer->cluster;
  struct topic *topic = producer_topic(producer, message->topic);
  ticket->size = size_of(message);
  bool full = cluster->queued_bytes && cluster->queued_bytes + ticket->size > cluster->queue_bytes;
  if (!topic || full) return produce_failed(cluster, message, RD_KAFKA_RESP_ERR__QUEUE_FULL, error);
  rd_kafka_resp_err_t code = produce_queue(producer, topic, message, ticket);
  if (code) return produce_failed(cluster, message, code, error);
  cluster->queued_bytes += ticket->size;
  cluster->produced++;
  return BRIDGE_OK;
}

static int producer_for(struct kafka *kafka, const struct kafka_message *message, struct producer **out,
                        struct error *error) {
  struct cluster *cluster = cluster_find(kafka, message->cluster);
  if (!cluster) {
    error_set(error, ERROR_INVALID, "no Kafka cluster named \"%.100s\"", message->cluster);
    return BRIDGE_NONE;
  }
  if (!topic_name_valid(message->topic) || message->partition < KAFKA_ANY_PARTITION) {
    error_set(error, ERROR_INVALID, "topic: expected 1 to 249 letters, digits, \".\", \"_\" or \"-\"");
    return BRIDGE_INVALID;
  }
  if (!cluster->producer) cluster->producer = producer_new(cluster, error);
  *out = cluster->producer;
  return *out ? BRIDGE_OK : BRIDGE_FAILED;
}

int kafka_produce(struct kafka *kafka, const struct kafka_message *message, struct kafka_delivery *delivery,
                  struct error *error) {
  static const struct kafka_teller nobody;
  struct producer *producer = NULL;
  if (!delivery) return kafka_produce_told(kafka, message, &nobody, error);
  int status = producer_for(kafka, message, &producer, error);
  if (status != BRIDGE_OK) return status;
  if (delivery_begin(kafka, delivery, message->timeout_s) != BRIDGE_OK)
    return produce_failed(producer->cluster, message, RD_KAFKA_RESP_ERR__QUEUE_FULL, error);
  struct kafka_ticket *ticket = delivery->ticket;
  status = produce_by(producer, message, ticket, error);
  if (status == BRIDGE_OK) return status;
  kafka_delivery_cancel(kafka, delivery);
  free(ticket);
  return status;
}

int kafka_produce_told(struct kafka *kafka, const struct kafka_message *message, const struct kafka_teller *teller,
                       struct error *error) {
  struct producer *producer = NULL;
  int status = producer_for(kafka, message, &producer, error);
  if (status != BRIDGE_OK) return status;
  struct kafka_ticket *ticket = malloc(sizeof *ticket);
  if (!ticket) return produce_failed(producer->cluster, message, RD_KAFKA_RESP_ERR__QUEUE_FULL, error);
  *ticket = (struct kafka_ticket){.kafka = kafka, .teller = *teller};
  status = produce_by(producer, message, ticket, error);
  if (status != BRIDGE_OK) free(ticket);
  return status;
}

const struct kafka_result *kafka_last_result(const struct kafka *kafka) {
  return &kafka->last;
}

void kafka_delivery_cancel(struct kafka *kafka, struct kafka_delivery *delivery) {
  timer_cancel(&kafka->loop->timers, &delivery->timer);
  if (delivery->ticket) delivery->ticket->delivery = NULL;
  delivery->ticket = NULL;
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
  if (cluster->producer) producer_retire(cluster->producer);
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

static void on_closing_report(const rd_kafka_message_t *message) {
  struct kafka_ticket *ticket = message->_private;
  struct kafka_result closed = {.status = BRIDGE_CLOSED, .partition = -1, .offset = -1, .name = "", .text = ""};
  if (ticket && ticket->delivery) delivery_end(ticket->kafka, ticket->delivery, &closed);
  free(ticket);
}

static void producer_drain(struct producer *producer, int32_t wait_ms) {
  rd_kafka_event_t *event;
  while ((event = rd_kafka_queue_poll(producer->watch.queue, wait_ms))) {
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
      for (const rd_kafka_message_t *message; (message = rd_kafka_event_message_next(event));)
        on_closing_report(message);
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

void kafka_close(struct kafka *kafka, int32_t flush_ms) {
  readers_close(kafka);
  for (struct cluster *cluster = kafka->clusters; cluster; cluster = cluster->next)
    admin_end(cluster, BRIDGE_CLOSED, "the worker ends");
  members_close(kafka);
  while (kafka->clusters) kafka_cluster_drop(kafka, kafka->clusters->name);
  producers_flush(kafka, flush_ms);
  while (kafka->retired) {
    producer_drain(kafka->retired, 0);
    producer_destroy(kafka->retired);
  }
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
