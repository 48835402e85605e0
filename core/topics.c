// SPDX-License-Identifier: Apache-2.0
// Topics in memory: a list of records each, walked by readers.
//
//   topic: record record record ...      a reader knows how far it has come in each partition, and takes the oldest
//           p0:0   p2:0   p0:1           record that it has not seen
#include "topics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka.h"
#include "phase.h"
#include "topics_parts.h"
#include "worker.h"

enum { MESSAGE_TIMEOUT_S = 300, WAIT_MOST_S = 100000000 };

// The position in a partition that is not wanted: all of it has been read.
static const int64_t UNWANTED = INT64_MAX;

struct topic_reader {
  struct topic_reader *next;
  struct topic *topic;
  double number;
  double coroutine; // that waits, 0: none
  int64_t positions[PARTITIONS_MOST];
};

// What a coroutine that waited for a delivery will ask for.
struct topic_ack {
  struct topic_ack *next;
  double coroutine;
  struct kafka_result result;
};

// ---- Topics ----------------------------------------------------------------------------------------------------------

struct topic *topic_find(const struct topics *topics, const char *name) {
  for (struct topic *topic = topics->topics; topic; topic = topic->next)
    if (strcmp(topic->name, name) == 0) return topic;
  return NULL;
}

struct topic *topic_take(struct topics *topics, const char *name, uint32_t partitions) {
  struct topic *topic = topic_find(topics, name);
  if (topic) return topic;
  topic = calloc(1, sizeof *topic);
  char *copy = strdup(name);
  if (!topic || !copy) {
    free(topic);
    free(copy);
    return NULL;
  }
  topic->name = copy;
  topic->partition_count = partitions < 1 ? 1 : partitions > PARTITIONS_MOST ? PARTITIONS_MOST : partitions;
  topic->next = topics->topics;
  topics->topics = topic;
  groups_rebalance(topics);
  return topic;
}

void topics_make(struct topics *topics, const char *name, uint32_t partitions) {
  topic_take(topics, name, partitions);
}

void topics_fail(struct topics *topics, const char *name, const char *error) {
  struct topic *topic = *name ? topic_take(topics, name, 1) : NULL;
  snprintf(topic ? topic->error : topics->error, ERROR_BYTES, "%s", error);
}

const char *topic_error(const struct topics *topics, const struct topic *topic) {
  return topic->error[0] ? topic->error : topics->error;
}

// As Java's clients place a key (org.apache.kafka.common.utils.Utils.murmur2).
static uint32_t murmur2(const char *key, uint32_t len) {
  const uint32_t m = 0x5bd1e995;
  const uint8_t *at = (const uint8_t *)key;
  uint32_t h = 0x9747b28c ^ len;
  for (; len >= 4; at += 4, len -= 4) {
    uint32_t k = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    k *= m;
    h = (h * m) ^ ((k ^ (k >> 24)) * m);
  }
  if (len >= 3) h ^= (uint32_t)at[2] << 16;
  if (len >= 2) h ^= (uint32_t)at[1] << 8;
  if (len >= 1) h = (h ^ at[0]) * m;
  h = (h ^ (h >> 13)) * m;
  return h ^ (h >> 15);
}

// Without a key partitions take turns, so that a spec sees the same each time.
static uint32_t partition_for(struct topic *topic, const struct kafka_message *message) {
  if (message->partition >= 0) return (uint32_t)message->partition;
  if (!message->key.data) return topic->turn++ % topic->partition_count;
  return (murmur2(message->key.data, message->key.len) & 0x7fffffff) % topic->partition_count;
}

// ---- Records ---------------------------------------------------------------------------------------------------------

static struct bytes copy_bytes(char **at, struct bytes from) {
  struct bytes to = {from.data ? *at : NULL, from.len};
  if (from.len) memcpy(*at, from.data, from.len);
  *at += from.len;
  return to;
}

static bool record_fill(struct topic_record *record, const struct kafka_message *message) {
  size_t total = message->key.len + message->value.len + 1;
  for (uint32_t i = 0; i < message->header_count * 2; i++) total += message->headers[i].len;
  record->bytes = malloc(total);
  record->headers = calloc(message->header_count * 2 + 1, sizeof *record->headers);
  if (!record->bytes || !record->headers) return false;
  char *at = record->bytes;
  record->view.key = copy_bytes(&at, message->key);
  record->view.value = copy_bytes(&at, message->value);
  for (uint32_t i = 0; i < message->header_count * 2; i++) record->headers[i] = copy_bytes(&at, message->headers[i]);
  record->view.headers = record->headers;
  record->view.header_count = message->header_count;
  return true;
}

static struct topic_record *record_add(struct topics *topics, struct topic *topic, uint32_t partition,
                                       const struct kafka_message *message) {
  if (topic->count == topic->room) {
    uint32_t room = topic->room ? topic->room * 2 : 16;
    struct topic_record *records = realloc(topic->records, room * sizeof *records);
    if (!records) return NULL;
    topic->records = records;
    topic->room = room;
  }
  struct topic_record *record = &topic->records[topic->count];
  *record = (struct topic_record){0};
  if (!record_fill(record, message)) return NULL;
  record->view.topic = topic->name;
  record->view.partition = (int32_t)partition;
  record->view.offset = (double)topic->ends[partition]++;
  double now_ms = (double)(topics->worker->loop.clock.real_us / 1000);
  record->view.timestamp_ms = message->timestamp_ms > 0 ? message->timestamp_ms : now_ms;
  record->view.serial = ++topics->serial;
  topic->count++;
  return record;
}

bool topics_at(const struct topics *topics, const char *name, uint32_t index, struct kafka_record *out) {
  const struct topic *topic = topic_find(topics, name);
  if (!topic || index >= topic->count) return false;
  *out = topic->records[index].view;
  return true;
}

// ---- Produce ---------------------------------------------------------------------------------------------------------

bool topics_has_cluster(struct topics *topics, const char *name) {
  struct kafka_cluster_status status;
  for (uint32_t i = 0; bridge_kafka_cluster_at(topics->worker, i, &status) == BRIDGE_OK; i++)
    if (strcmp(status.name, name) == 0) return true;
  return false;
}

// Whoever waits is resumed with the result in the next turn.
static int acknowledge(struct topics *topics, const struct kafka_result *result) {
  struct topic_ack *ack = calloc(1, sizeof *ack);
  if (!ack) return BRIDGE_FULL;
  ack->coroutine = phase_self(topics->worker);
  ack->result = *result;
  ack->next = topics->acks;
  topics->acks = ack;
  return worker_wake(topics->worker, ack->coroutine, result->status, result->offset) < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
}

void topics_result(struct topics *topics, struct kafka_result *out) {
  double self = phase_self(topics->worker);
  struct topic_ack **at = &topics->acks;
  while (*at && (*at)->coroutine != self) at = &(*at)->next;
  struct topic_ack *ack = *at;
  *out = (struct kafka_result){.status = BRIDGE_TIMEOUT,
                               .partition = -1,
                               .offset = -1,
                               .name = "_TIMED_OUT",
                               .text = "no acknowledgement in time; the record may yet arrive"};
  if (!ack) return;
  *out = ack->result;
  *at = ack->next;
  free(ack);
}

// One coroutine may wait for several readers.
static void reader_wake(struct topics *topics, struct topic_reader *reader, int status) {
  double coroutine = reader->coroutine;
  if (coroutine == 0) return;
  for (struct topic_reader *it = topics->readers; it; it = it->next)
    if (it->coroutine == coroutine) it->coroutine = 0;
  bridge_wake(topics->worker, coroutine, status, 0);
}

static void wake_readers(struct topics *topics, const struct topic *topic) {
  for (struct topic_reader *reader = topics->readers; reader; reader = reader->next)
    if (reader->topic == topic) reader_wake(topics, reader, BRIDGE_OK);
}

// The record's fate: OK with its place, or the error that the spec wants. Other than OK: it was not queued.
static int topic_take_record(struct topics *topics, const struct kafka_message *message, struct kafka_result *out) {
  *out = (struct kafka_result){.partition = -1, .offset = -1, .name = "", .text = ""};
  if (message->cluster && !topics_has_cluster(topics, message->cluster)) {
    error_set(&topics->worker->error, ERROR_INVALID, "no Kafka cluster named \"%.100s\"", message->cluster);
    return BRIDGE_NONE;
  }
  struct topic *topic = topic_take(topics, message->topic, 1);
  if (!topic) return BRIDGE_FULL;
  const char *error = message->cluster ? topic_error(topics, topic) : ""; // the spec's own records never fail
  uint32_t partition = *error ? 0 : partition_for(topic, message);
  if (partition >= topic->partition_count) {
    if (!message->cluster) return BRIDGE_INVALID;
    error = "_UNKNOWN_PARTITION";
  }
  if (strcmp(error, "full") == 0) return BRIDGE_FULL;
  if (*error) {
    out->status = strcmp(error, "timeout") == 0 ? BRIDGE_TIMEOUT : BRIDGE_FAILED;
    out->name = error;
    out->text = "the record was refused";
    return BRIDGE_OK;
  }
  const struct topic_record *record = record_add(topics, topic, partition, message);
  if (!record) return BRIDGE_FULL;
  wake_readers(topics, topic);
  groups_wake(topics, topic);
  out->partition = record->view.partition;
  out->offset = record->view.offset;
  return BRIDGE_OK;
}

int topics_produce(struct topics *topics, const struct kafka_message *message, bool wait) {
  struct kafka_result result;
  int status = topic_take_record(topics, message, &result);
  if (status != BRIDGE_OK || !wait) return status; // of one that failed nobody hears
  if (result.status == BRIDGE_TIMEOUT)
    return bridge_wait(topics->worker, message->timeout_s > 0 ? message->timeout_s : MESSAGE_TIMEOUT_S);
  return acknowledge(topics, &result);
}

int topics_produce_told(struct topics *topics, const struct kafka_message *message, const struct kafka_teller *teller) {
  struct kafka_result result;
  int status = topic_take_record(topics, message, &result);
  if (status == BRIDGE_OK && result.status != BRIDGE_TIMEOUT)
    teller->tell(teller->context, teller->number, teller->index, &result);
  return status;
}

// ---- Read ------------------------------------------------------------------------------------------------------------

static struct topic_reader **reader_at(struct topics *topics, double number) {
  struct topic_reader **at = &topics->readers;
  while (*at && (*at)->number != number) at = &(*at)->next;
  return at;
}

static int64_t position_of(const struct topic *topic, const struct kafka_position *position) {
  if (position->offset == KAFKA_NOWHERE) return UNWANTED;
  if (position->offset == KAFKA_LATEST) return topic->ends[position->partition];
  return position->offset == KAFKA_EARLIEST ? 0 : (int64_t)position->offset;
}

static void set_positions(struct topic_reader *reader, const struct kafka_reader_options *options) {
  const struct topic *topic = reader->topic;
  for (uint32_t i = 0; i < topic->partition_count; i++)
    reader->positions[i] = options->from == KAFKA_NOWHERE    ? UNWANTED
                           : options->from == KAFKA_EARLIEST ? 0
                                                             : topic->ends[i];
  for (uint32_t i = 0; i < options->position_count; i++) {
    const struct kafka_position *position = &options->positions[i];
    if (position->partition >= 0 && (uint32_t)position->partition < topic->partition_count)
      reader->positions[position->partition] = position_of(topic, position);
  }
}

int topics_open(struct topics *topics, const struct kafka_reader_options *options) {
  if (!topics_has_cluster(topics, options->cluster)) {
    error_set(&topics->worker->error, ERROR_INVALID, "no Kafka cluster named \"%.100s\"", options->cluster);
    return BRIDGE_FAILED;
  }
  struct topic_reader *reader = calloc(1, sizeof *reader);
  if (reader) reader->topic = topic_take(topics, options->topic, 1);
  if (!reader || !reader->topic) {
    free(reader);
    return BRIDGE_FULL;
  }
  set_positions(reader, options);
  reader->number = ++topics->last_reader;
  reader->next = topics->readers;
  topics->readers = reader;
  int woken = worker_wake(topics->worker, phase_self(topics->worker), BRIDGE_OK, reader->number);
  return woken < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
}

static const struct kafka_record *oldest_unread(const struct topic_reader *reader) {
  const struct topic *topic = reader->topic;
  for (uint32_t i = 0; i < topic->count; i++) {
    const struct kafka_record *view = &topic->records[i].view;
    if ((int64_t)view->offset >= reader->positions[view->partition]) return view;
  }
  return NULL;
}

int topics_next(struct topics *topics, double number, double timeout_s, const struct kafka_record **out) {
  struct topic_reader *reader = *reader_at(topics, number);
  if (!reader) return BRIDGE_STALE;
  *out = oldest_unread(reader);
  if (*out) {
    reader->positions[(*out)->partition] = (int64_t)(*out)->offset + 1;
    return BRIDGE_OK;
  }
  if (!(timeout_s > 0)) return BRIDGE_NONE;
  reader_wake(topics, reader, BRIDGE_CLOSED);
  reader->coroutine = phase_self(topics->worker);
  return bridge_wait(topics->worker, fmin(timeout_s, WAIT_MOST_S));
}

int topics_position(struct topics *topics, double number, uint32_t index, struct kafka_position *out) {
  const struct topic_reader *reader = *reader_at(topics, number);
  if (!reader) return BRIDGE_STALE;
  if (index >= reader->topic->partition_count) return BRIDGE_NONE;
  int64_t position = reader->positions[index];
  *out = (struct kafka_position){.partition = (int32_t)index,
                                 .offset = position == UNWANTED ? KAFKA_NOWHERE : (double)position};
  return BRIDGE_OK;
}

int topics_wait(struct topics *topics, const double *numbers, uint32_t count, double timeout_s) {
  for (uint32_t i = 0; i < count; i++) {
    struct topic_reader *reader = *reader_at(topics, numbers[i]);
    if (!reader) return BRIDGE_STALE;
    reader_wake(topics, reader, BRIDGE_CLOSED);
  }
  for (uint32_t i = 0; i < count; i++) (*reader_at(topics, numbers[i]))->coroutine = phase_self(topics->worker);
  return bridge_wait(topics->worker, fmin(timeout_s, WAIT_MOST_S));
}

int topics_offset(struct topics *topics, const char *name, int32_t partition, double at_ms, double *out) {
  const struct topic *topic = topic_find(topics, name);
  if (!topic || partition < 0 || (uint32_t)partition >= topic->partition_count) return BRIDGE_NONE;
  *out = at_ms == KAFKA_EARLIEST ? 0 : (double)topic->ends[partition];
  for (uint32_t i = 0; i < topic->count && at_ms >= 0; i++) {
    const struct kafka_record *view = &topic->records[i].view;
    if (view->partition != partition || view->timestamp_ms < at_ms) continue;
    *out = view->offset;
    break;
  }
  return BRIDGE_OK;
}

int topics_close(struct topics *topics, double number) {
  struct topic_reader **at = reader_at(topics, number), *reader = *at;
  if (!reader) return BRIDGE_STALE;
  reader_wake(topics, reader, BRIDGE_CLOSED);
  *at = reader->next;
  free(reader);
  return BRIDGE_OK;
}

// ---- Life ------------------------------------------------------------------------------------------------------------

struct topics *topics_new(struct worker *worker) {
  struct topics *topics = calloc(1, sizeof *topics);
  if (topics) topics->worker = worker;
  return topics;
}

static void topic_free(struct topic *topic) {
  for (uint32_t i = 0; i < topic->count; i++) {
    free(topic->records[i].bytes);
    free(topic->records[i].headers);
  }
  free(topic->records);
  free(topic->name);
  free(topic);
}

void topics_free(struct topics *topics) {
  while (topics->readers) {
    struct topic_reader *reader = topics->readers;
    topics->readers = reader->next;
    free(reader);
  }
  groups_free(topics);
  while (topics->acks) {
    struct topic_ack *ack = topics->acks;
    topics->acks = ack->next;
    free(ack);
  }
  while (topics->topics) {
    struct topic *topic = topics->topics;
    topics->topics = topic->next;
    topic_free(topic);
  }
  free(topics);
}
