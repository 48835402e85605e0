// SPDX-License-Identifier: Apache-2.0
// What kafka_group.c (members and their records), kafka_group_acts.c (what is asked of librdkafka) and
// kafka_group_places.c (their partitions) know of each other.
#pragma once
#include "kafka_group.h"
#include "kafka_record.h"

enum member_state {
  MEMBER_STARTING, // its first act is under way
  MEMBER_LIVE,     // its queues are watched
  MEMBER_FAILED,   // nothing comes any more; waits to be left
  MEMBER_LEAVING   // has no handle; goes after its last act
};

enum act_kind {
  ACT_START,
  ACT_ASSIGN, // what the group gave
  ACT_REVOKE,
  ACT_STALL, // by itself, because nobody asks
  ACT_UNSTALL,
  ACT_NUDGE,     // see member_nudge
  ACT_COMMITTED, // from here on as asked for: see kafka_group_act
  ACT_SEEK,
  ACT_PAUSE,
  ACT_RESUME,
  ACT_SUBSCRIBE,
  ACT_CHOOSE,
  ACT_LEAVE
};

// Something that blocks, made on a helper thread; those of a member one after the other.
struct act {
  struct errand errand;
  struct act *next; // in member->acts
  struct kafka_member *member;
  enum act_kind kind;
  rd_kafka_topic_partition_list_t *places; // or NULL
  int timeout_ms;
  bool holds; // no record is taken from the queue until it is done
  rd_kafka_resp_err_t code;
  char text[200];               // beside the code; "": what the code says
  struct kafka_group_wait wait; // on_done NULL: nobody waits, or not any more
};

// A commit on its way: librdkafka has its address until it answers.
struct commit {
  struct commit *next, **link; // in member->commits
  struct kafka_member *member;
  struct kafka_group_wait wait; // on_done NULL: nobody waits any more
  struct timer timer;
};

// A partition that is this member's.
struct place {
  char *topic;
  int32_t partition;
  int64_t next;     // offset of the next record to give, -1: none was given yet
  int64_t expected; // offset of the next record to fetch, -1: unknown
  int64_t again;    // of a paused one: the first record that was fetched and not given, -1: there was none
  bool paused;      // by its user
};

struct record_list {
  struct record *first, **last;
  uint32_t count;
  size_t bytes;
};

enum lost_state {
  LOST_NOTHING,
  LOST_UNTOLD, // the next call of kafka_group_next tells
  LOST_TOLD    // the call after it lets go
};

struct kafka_member {
  struct kafka_member *next; // in kafka->members
  struct kafka *kafka;
  struct cluster *cluster;
  uint32_t slot;
  enum member_state state;
  rd_kafka_conf_t *conf; // until `rk` has it
  rd_kafka_t *rk;
  struct queue_watch records, events;
  rd_kafka_topic_partition_list_t *topics; // to subscribe to at the start
  struct act *acts, **acts_last;           // the first is under way
  struct commit *commits;
  uint32_t commit_count;
  struct place *places; // sorted
  uint32_t place_count, place_hint;
  bool subscribed; // its places come from the group, not from its user
  rd_kafka_topic_partition_list_t *answer;
  struct record_list fetched;
  struct record *current; // what the last kafka_group_next gave
  size_t taken;           // bytes given since the last nudge
  int64_t full_since_us;  // 0: there is room
  bool stalled;           // fetching is paused, or about to be
  uint32_t holds;         // acts under way that hold the queue
  int64_t poll_us;        // how often the queue is to be polled at least
  struct timer tick;
  rd_kafka_event_t *revocation; // that waits for the hand-over
  rd_kafka_topic_partition_list_t *lost;
  enum lost_state lost_state;
  int64_t handover_us;
  struct timer handover;
  struct kafka_group_wait wait; // for records; on_done NULL: none
  struct timer timer;           // of it
  struct kafka_result result;
  char text[200];              // of the result
  rd_kafka_resp_err_t trouble; // to be told by the next kafka_group_next
  char trouble_text[200];
};

static inline bool member_is_full(const struct kafka_member *member) {
  return member->fetched.count >= 512 || member->fetched.bytes >= 1024 * 1024;
}

// ---- kafka_group.c ----

void member_say(struct kafka_member *member, rd_kafka_resp_err_t code, const char *text);
// Who waits for records is resumed.
void member_wake(struct kafka_member *member, int status);
void member_started(struct kafka_member *member, rd_kafka_resp_err_t code, const char *text);
void member_free(struct kafka_member *member);

// ---- kafka_group_acts.c ----

// See kafka_group_act.
int act_begin(struct kafka_member *member, const struct kafka_group_request *request,
              const struct kafka_group_wait *wait);
// NULL: no memory. `places` is the act's from now on.
struct act *act_submit(struct kafka_member *member, enum act_kind kind, rd_kafka_topic_partition_list_t *places);
// Acts that have not begun are dropped; then the member leaves.
void acts_end(struct kafka_member *member);
int commit_begin(struct kafka_member *member, const struct kafka_group_request *request,
                 const struct kafka_group_wait *wait);
void commit_end(struct commit *commit, rd_kafka_resp_err_t code);
// The commit's error, or the first of its partitions'.
rd_kafka_resp_err_t commit_code(rd_kafka_event_t *event);
// Those who wait are told, unless the status is BRIDGE_OK; nobody waits any more.
void acts_forget(struct kafka_member *member, int status);
void commits_forget(struct kafka_member *member, int status);
// Frees what librdkafka will not answer any more.
void commits_free(struct kafka_member *member);

// ---- kafka_group_places.c ----

struct place *place_find(struct kafka_member *member, const char *topic, int32_t partition);
// After an assignment: those that are new begin without a position.
void places_add(struct kafka_member *member, const rd_kafka_topic_partition_list_t *list);
void places_remove(struct kafka_member *member, const rd_kafka_topic_partition_list_t *list);
void places_clear(struct kafka_member *member);
rd_kafka_topic_partition_list_t *places_list(const struct kafka_member *member);
// Those that its user has not paused.
rd_kafka_topic_partition_list_t *places_flowing(const struct kafka_member *member);

void records_push(struct record_list *list, struct record *record);
struct record *records_shift(struct record_list *list);
// Those of the partitions in `of` go. NULL: all.
void records_purge(struct record_list *list, const rd_kafka_topic_partition_list_t *of);
