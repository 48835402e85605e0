// SPDX-License-Identifier: Apache-2.0
// Copies of what librdkafka has fetched.
#include "kafka_record.h"

#include <stdlib.h>
#include <string.h>

static uint32_t header_count(const rd_kafka_message_t *message, rd_kafka_headers_t **headers) {
  if (rd_kafka_message_headers(message, headers) != RD_KAFKA_RESP_ERR_NO_ERROR) return 0;
  return (uint32_t)rd_kafka_header_cnt(*headers);
}

static struct bytes header_at(const rd_kafka_headers_t *headers, uint32_t index, struct bytes *value) {
  const char *name = "";
  const void *data = NULL;
  size_t size = 0;
  rd_kafka_header_get_all(headers, index, &name, &data, &size);
  *value = (struct bytes){data, (uint32_t)size};
  return (struct bytes){name, (uint32_t)strlen(name)};
}

static struct bytes bytes_copy(char **room, struct bytes from) {
  struct bytes copy = {from.data ? *room : NULL, from.len};
  if (from.len) memcpy(*room, from.data, from.len);
  *room += from.len;
  return copy;
}

// Copied in one block, because librdkafka's message would hold the whole fetch response that it came in.
struct record *record_new(struct kafka *kafka, const char *topic, const rd_kafka_message_t *message) {
  rd_kafka_headers_t *headers = NULL;
  rd_kafka_timestamp_type_t type;
  uint32_t pairs = header_count(message, &headers);
  size_t size = sizeof(struct record) + (size_t)pairs * 2 * sizeof(struct bytes) + message->key_len + message->len;
  struct bytes value, topic_text = {topic, (uint32_t)strlen(topic) + 1};
  size += topic_text.len;
  for (uint32_t i = 0; i < pairs; i++) size += header_at(headers, i, &value).len + value.len;
  struct record *record = malloc(size);
  if (!record) return NULL;
  char *room = (char *)&record->fields[2 * pairs];
  for (uint32_t i = 0; i < pairs; i++) {
    struct bytes name = header_at(headers, i, &value);
    record->fields[2 * i] = bytes_copy(&room, name);
    record->fields[2 * i + 1] = bytes_copy(&room, value);
  }
  record->refs = 1;
  record->next = NULL;
  record->gap = GAP_NONE;
  record->size = (uint32_t)size;
  record->view =
      (struct kafka_record){.key = bytes_copy(&room, (struct bytes){message->key, (uint32_t)message->key_len}),
                            .value = bytes_copy(&room, (struct bytes){message->payload, (uint32_t)message->len}),
                            .headers = record->fields,
                            .header_count = pairs,
                            .topic = bytes_copy(&room, topic_text).data,
                            .partition = message->partition,
                            .offset = (double)message->offset,
                            .timestamp_ms = (double)rd_kafka_message_timestamp(message, &type),
                            .serial = ++kafka->serial};
  return record;
}

void record_release(struct record *record) {
  if (record && --record->refs == 0) free(record);
}
