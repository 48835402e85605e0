// SPDX-License-Identifier: Apache-2.0
// Records that were read: copied once out of librdkafka's buffers, and held by all that look at them.
#pragma once
#include "kafka_parts.h"

// What lies between a record and the one before it in its partition.
enum record_gap {
  GAP_NONE,
  GAP_LOST,    // records that were not read: deleted by the broker before, or without memory here
  GAP_REWOUND, // the log has been cut: this offset had been another record's, or a later one
};

struct record {
  uint32_t refs, size;
  enum record_gap gap;
  struct record *next; // of those that a member of a group has fetched
  struct kafka_record view;
  struct bytes fields[]; // headers, then the bytes that all fields point to
};

// With one reference. NULL: no memory.
struct record *record_new(struct kafka *kafka, const char *topic, const rd_kafka_message_t *message);
void record_release(struct record *record); // NULL is none
