// SPDX-License-Identifier: Apache-2.0
// Kafka for a spec: topics in memory, which keep every record. Stands behind the bridge in place of librdkafka's
// producers and readers, so that no broker is asked, nothing happens on another thread, and time is the spec's.
//
// Clusters share their topics. A topic that nobody made has one partition. Coroutines wait by bridge_wait.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"

struct kafka_teller;
struct topics;
struct worker;

struct topics *topics_new(struct worker *worker);
void topics_free(struct topics *topics);

// What the bridge's functions of the same names do.
int topics_produce(struct topics *topics, const struct kafka_message *message, bool wait);
// What kafka_produce_told does; the record is told at once, or never where its acknowledgement does not come.
int topics_produce_told(struct topics *topics, const struct kafka_message *message, const struct kafka_teller *teller);
void topics_result(struct topics *topics, struct kafka_result *out);
int topics_open(struct topics *topics, const struct kafka_reader_options *options);
int topics_next(struct topics *topics, double reader, double timeout_s, const struct kafka_record **out);
int topics_position(struct topics *topics, double reader, uint32_t index, struct kafka_position *out);
int topics_wait(struct topics *topics, const double *readers, uint32_t count, double timeout_s);
int topics_offset(struct topics *topics, const char *topic, int32_t partition, double at_ms, double *out);
int topics_close(struct topics *topics, double reader);
int topics_group_open(struct topics *topics, const struct kafka_group_options *options);
int topics_group_next(struct topics *topics, double member, double timeout_s, const struct kafka_record **out);
int topics_group_act(struct topics *topics, double member, const struct kafka_group_request *request);
int topics_group_result(struct topics *topics, double member, struct kafka_result *out);
int topics_group_place(struct topics *topics, double member, int32_t list, uint32_t index, struct kafka_place *out);
int topics_group_close(struct topics *topics, double member);

// For the kit. A topic with that many partitions; nothing happens when it is there already.
void topics_make(struct topics *topics, const char *name, uint32_t partitions);
// From now on records for it fail: "" none, "full" the queue, "timeout" no acknowledgement comes, else Kafka's name of
// an error. A topic "" stands for all.
void topics_fail(struct topics *topics, const char *name, const char *error);
// Record `index` (from 0) of a topic in the order of their coming, whatever its partition; false: there is none.
bool topics_at(const struct topics *topics, const char *name, uint32_t index, struct kafka_record *out);
