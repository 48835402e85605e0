// SPDX-License-Identifier: Apache-2.0
// Producers: librdkafka's clients that send. A cluster has one for each time that its records may wait to be sent, since
// that is a property of the client and not of a record, and one for records that are to stand alone in their batch.
// They share the cluster's bound of memory, its counts and its state.
#pragma once
#include "kafka_parts.h"

enum { PRODUCERS_TIMED_MOST = 8 }; // a cluster's; records of more different times go by message.timeout.ms

struct producer {
  struct producer *next; // in cluster->producers, later in kafka->retired
  struct cluster *cluster;
  rd_kafka_t *rk;
  struct queue_watch watch;
  struct topic *topics;
  int32_t expires_ms; // what has not been sent by then is dropped; 0: message.timeout.ms of the cluster
  bool alone;         // each record is a batch of its own
  bool retired;
  struct errand errand; // destroys it
};

// The cluster's producer of that kind, made when it is first asked for. NULL: `error` says why there is none.
struct producer *producer_of(struct cluster *cluster, double expires_s, struct error *error);
struct producer *producer_alone(struct cluster *cluster, struct error *error);
// Its handle for a topic. NULL: no memory.
rd_kafka_topic_t *producer_topic(struct producer *producer, const char *name);
// No new records; it goes when its last one has been reported, at the latest after message.timeout.ms.
void producer_retire(struct producer *producer);
// Gives the records of all retired producers up to `flush_ms` to be delivered, then ends them. Blocks.
void producers_close(struct kafka *kafka, int32_t flush_ms);

// ---- kafka_produce.c ----

// An event with the fates of records.
void produce_on_reports(struct producer *producer, rd_kafka_event_t *event);
// The same while the worker ends: whoever waits is told BRIDGE_CLOSED.
void produce_on_closing_reports(rd_kafka_event_t *event);
