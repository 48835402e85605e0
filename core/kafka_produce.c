// SPDX-License-Identifier: Apache-2.0
// Records into librdkafka, and their fates out of it: reports come many in one wake-up, and each ends one ticket, what
// librdkafka holds for a record. The ticket outlives the wait, because a wait may end first.
#include <stdlib.h>

#include "kafka_producer.h"

enum { RECORD_BYTES = 256 }; // what a record takes in memory beside its own bytes

// What librdkafka carries for a record while it has it: who is told, and what it counts for in the cluster's queue.
// `delivery` is NULL once nobody waits.
struct kafka_ticket {
  struct kafka_delivery *delivery;
  struct kafka *kafka;
  struct kafka_teller teller;
  size_t size;
  int64_t timestamp_ms; // librdkafka does not tell that of a record that failed
};

// ---- Reports ----

static void delivery_end(struct kafka *kafka, struct kafka_delivery *delivery, const struct kafka_result *result) {
  timer_cancel(&kafka->loop->timers, &delivery->timer);
  if (delivery->ticket) delivery->ticket->delivery = NULL;
  delivery->ticket = NULL;
  delivery->result = *result;
  delivery->done = true;
  kafka->last = *result;
  if (delivery->on_done) delivery->on_done(delivery); // it may be gone now
}

// A record that was dropped while it waited to be sent differs from one of which nobody knows.
static struct kafka_result result_of_late(const rd_kafka_message_t *message) {
  bool unsent = rd_kafka_message_status(message) == RD_KAFKA_MSG_STATUS_NOT_PERSISTED;
  return (struct kafka_result){.status = unsent ? KAFKA_EXPIRED : BRIDGE_TIMEOUT,
                               .partition = message->partition,
                               .offset = -1,
                               .name = "_MSG_TIMED_OUT",
                               .text = unsent ? "no acknowledgement in time; the record was not sent, and will not be"
                                              : "no acknowledgement in time; the record may have arrived"};
}

static struct kafka_result result_of(const rd_kafka_message_t *message) {
  rd_kafka_resp_err_t code = message->err;
  if (code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT) return result_of_late(message);
  return (struct kafka_result){.status = code ? BRIDGE_FAILED : BRIDGE_OK,
                               .partition = message->partition,
                               .offset = (double)(code || message->offset < 0 ? -1 : message->offset),
                               .name = code ? rd_kafka_err2name(code) : "",
                               .text = code ? rd_kafka_err2str(code) : ""};
}

static void on_report(struct cluster *cluster, const rd_kafka_message_t *message) {
  struct kafka_ticket told = *(struct kafka_ticket *)message->_private;
  struct kafka_result result = result_of(message);
  count_report(cluster, message);
  if (message->err)
    cluster_record_failed(cluster, message->err);
  else
    cluster_up(cluster);
  cluster->queued_bytes -= told.size;
  if (told.delivery) told.delivery->ticket = NULL;
  free(message->_private);
  if (told.delivery) delivery_end(told.kafka, told.delivery, &result);
  if (told.teller.tell) told.teller.tell(told.teller.context, told.teller.number, told.teller.index, &result);
}

// Errors of one record for which a broker refuses the whole batch that it came in.
static bool is_of_batch(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE || code == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE ||
         code == RD_KAFKA_RESP_ERR_INVALID_RECORD || code == RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP ||
         code == RD_KAFKA_RESP_ERR_INVALID_MSG;
}

// Queues a record again as it was. False: there is no room for it.
static bool produce_alone(struct producer *alone, const rd_kafka_message_t *message) {
  rd_kafka_topic_t *topic = producer_topic(alone, rd_kafka_topic_name(message->rkt));
  rd_kafka_headers_t *headers = NULL;
  const struct kafka_ticket *ticket = message->_private;
  if (!topic) return false;
  if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
    headers = rd_kafka_headers_copy(headers);
  rd_kafka_resp_err_t code =
      rd_kafka_producev(alone->rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(message->partition),
                        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(message->key, message->key_len),
                        RD_KAFKA_V_VALUE(message->payload, message->len), RD_KAFKA_V_TIMESTAMP(ticket->timestamp_ms),
                        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(message->_private), RD_KAFKA_V_END);
  if (code && headers) rd_kafka_headers_destroy(headers);
  return code == RD_KAFKA_RESP_ERR_NO_ERROR;
}

// An event holds the records of one batch. None of a batch that was refused has been written, so each goes once more,
// in a batch of its own, in their order: only the one that is to blame fails then.
void produce_on_reports(struct producer *producer, rd_kafka_event_t *event) {
  struct cluster *cluster = producer->cluster;
  struct producer *alone = NULL;
  bool is_last_try = producer->alone || rd_kafka_event_message_count(event) < 2;
  for (const rd_kafka_message_t *message; (message = rd_kafka_event_message_next(event));) {
    bool again = !is_last_try && is_of_batch(message->err);
    if (again && !alone) alone = producer_alone(cluster, NULL);
    if (!again || !alone || !produce_alone(alone, message)) on_report(cluster, message);
  }
  if (alone && cluster->dropped) producer_retire(alone); // it came after the others had been
}

void produce_on_closing_reports(rd_kafka_event_t *event) {
  static const struct kafka_result closed = {
      .status = BRIDGE_CLOSED, .partition = -1, .offset = -1, .name = "", .text = ""};
  for (const rd_kafka_message_t *message; (message = rd_kafka_event_message_next(event));) {
    struct kafka_ticket *ticket = message->_private;
    if (ticket->delivery) delivery_end(ticket->kafka, ticket->delivery, &closed);
    free(ticket);
  }
}

// ---- Queueing ----

static rd_kafka_headers_t *headers_new(const struct kafka_message *message) {
  rd_kafka_headers_t *headers = rd_kafka_headers_new(message->header_count);
  for (uint32_t i = 0; i < message->header_count; i++) {
    const struct bytes *name = &message->headers[2 * i], *value = name + 1;
    rd_kafka_header_add(headers, name->data, name->len, value->data, value->len);
  }
  return headers;
}

static rd_kafka_resp_err_t produce_queue(struct producer *producer, rd_kafka_topic_t *topic,
                                         const struct kafka_message *message, struct kafka_ticket *ticket) {
  rd_kafka_headers_t *headers = message->header_count ? headers_new(message) : NULL;
  // Not produceva: given a partition that does not exist it frees the headers and then leaves them to us (2.0.2).
  rd_kafka_resp_err_t code =
      rd_kafka_producev(producer->rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(message->partition),
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
  if (code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) return KAFKA_NO_PARTITION;
  return code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? KAFKA_TOO_LARGE : BRIDGE_FAILED;
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
  rd_kafka_topic_t *topic = producer_topic(producer, message->topic);
  ticket->size = size_of(message);
  ticket->timestamp_ms = (int64_t)message->timestamp_ms;
  if (!ticket->timestamp_ms) ticket->timestamp_ms = cluster->kafka->loop->clock.real_us / 1000;
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
  *out = producer_of(cluster, message->expires_s, error);
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
