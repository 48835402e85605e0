// SPDX-License-Identifier: Apache-2.0
// What topics.c (topics, producers, readers) and topics_group.c (consumer groups) know of each other.
#pragma once
#include "topics.h"

enum { PARTITIONS_MOST = 64, ERROR_BYTES = 64 };

struct topic_record {
  struct kafka_record view;
  char *bytes; // that the view points into
  struct bytes *headers;
};

struct topic {
  struct topic *next;
  char *name;
  char error[ERROR_BYTES];
  uint32_t partition_count, turn;
  int64_t ends[PARTITIONS_MOST]; // the next offset of each
  struct topic_record *records;
  uint32_t count, room;
};

struct topics {
  struct worker *worker;
  struct topic *topics;
  struct topic_reader *readers;
  struct topic_group *groups;
  struct topic_member *members; // of groups, in the order of their coming
  struct topic_ack *acks;
  double last_reader, serial;
  char error[ERROR_BYTES]; // of every topic
};

// The topic of this name, made with so many partitions when there is none. NULL: no memory.
struct topic *topic_take(struct topics *topics, const char *name, uint32_t partitions);
struct topic *topic_find(const struct topics *topics, const char *name);
// What befalls all that is asked of the topic, "" nothing.
const char *topic_error(const struct topics *topics, const struct topic *topic);
bool topics_has_cluster(struct topics *topics, const char *name);

// ---- topics_group.c ----

// A topic has come: members that want it get its partitions.
void groups_rebalance(struct topics *topics);
void groups_wake(struct topics *topics, const struct topic *topic);
void groups_free(struct topics *topics);
