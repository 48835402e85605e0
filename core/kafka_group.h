// SPDX-License-Identifier: Apache-2.0
// Members of consumer groups: each shares the partitions of its topics with the other members of its group, whoever and
// wherever they are, and says how far it has come (commits). A member is one librdkafka consumer of its own.
//
//   broker -> librdkafka's queue -> fetched (bounded) -> kafka_group_next
//
// A member that is not asked for records stops fetching, and stays a member.
#pragma once
#include "kafka.h"

struct kafka_member;

// Who waits for a member: `number` is the caller's own.
struct kafka_group_wait {
  void (*on_done)(struct kafka_member *member, const struct kafka_group_wait *wait, int status);
  void *context;
  double number;
};

// Joins: `wait` is called once with BRIDGE_OK when the consumer runs (its partitions come later) or with BRIDGE_FAILED,
// after which the member is to be left all the same. NULL: `error` says why, `*status` is BRIDGE_FULL (too many members
// in this worker), BRIDGE_NONE (no such cluster) or BRIDGE_INVALID.
struct kafka_member *kafka_group_join(struct kafka *kafka, const struct kafka_group_options *options,
                                      const struct kafka_group_wait *wait, int *status, struct error *error);
// Its partitions go to others, in the background. All waits are called at once, with BRIDGE_CLOSED.
void kafka_group_leave(struct kafka_member *member);

double kafka_group_handle(const struct kafka_member *member);
struct kafka_member *kafka_group_find(struct kafka *kafka, double handle);

// BRIDGE_OK; KAFKA_REBALANCE: partitions were taken from it, see KAFKA_LOST; KAFKA_GAP; BRIDGE_AGAIN; BRIDGE_FAILED with
// kafka_group_result.
int kafka_group_next(struct kafka_member *member, const struct kafka_record **out);
// Calls on_done once, from the loop, when there may be something new (BRIDGE_OK) or after `timeout_us` (BRIDGE_TIMEOUT;
// below 0: never). A new wait takes the place of one that is still on.
int kafka_group_wait_next(struct kafka_member *member, int64_t timeout_us, const struct kafka_group_wait *wait);
// The wait of kafka_group_wait_next, or NULL.
const struct kafka_group_wait *kafka_group_waiting(const struct kafka_member *member);

// BRIDGE_AGAIN: on_done is called once with BRIDGE_OK, BRIDGE_FAILED (see kafka_group_result), BRIDGE_TIMEOUT (it may yet
// come to pass) or BRIDGE_CLOSED. BRIDGE_OK: there was nothing to do. BRIDGE_FULL: too much under way.
int kafka_group_act(struct kafka_member *member, const struct kafka_group_request *request,
                    const struct kafka_group_wait *wait);

// Why the last thing of this member failed: only `name` and `text` are set.
const struct kafka_result *kafka_group_result(const struct kafka_member *member);
// Entry `index` of a list: BRIDGE_OK or BRIDGE_NONE. Its texts live until the next call for this member.
int kafka_group_place(const struct kafka_member *member, int32_t list, uint32_t index, struct kafka_place *out);
// Whether it has paused its partitions, because nobody asks for records.
bool kafka_group_stalled(const struct kafka_member *member);
