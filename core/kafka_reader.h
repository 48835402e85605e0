// SPDX-License-Identifier: Apache-2.0
// What kafka_feed.c (consumers, windows) and kafka_reader.c (those who read them) know of each other.
#pragma once
#include "kafka_record.h"

enum feed_state {
  FEED_STARTING,  // its errand asks the broker for offsets; in its list
  FEED_LIVE,      // watched by the loop; in its list
  FEED_ABANDONED, // nobody wants it any more, its start is under way; in no list
  FEED_STOPPING   // its last errand ends it; in no list
};

struct feed_partition {
  int64_t low;           // of the log, when the feed started
  int64_t first;         // every record of the log from here up to `next` is in the window
  int64_t next;          // offset of the next record to arrive
  int64_t end;           // of the log when the feed started: who wants what is new begins there
  bool gap;              // it does not start where it was asked to
  bool unwanted;         // its reader has no use for it: it is not read
  bool leaps;            // to `end`: what is before it is passed over
  enum record_gap ahead; // of the next record
};

struct feed {
  struct feed *next; // in cluster->feeds, or kafka->feeds_private
  struct cluster *cluster;
  struct kafka_reader *owner; // of a private feed; NULL: shared
  enum feed_state state;
  struct errand errand;
  struct errand nudge;      // see feed_nudge, and feed_count
  size_t taken_since_nudge; // bytes
  bool nudging;
  bool ends_after;               // the nudge under way: then the feed's last errand
  struct kafka_position *wanted; // where to start; an offset may be KAFKA_EARLIEST, KAFKA_LATEST or KAFKA_NOWHERE
  uint32_t wanted_count;
  rd_kafka_conf_t *conf; // until `rk` has it
  rd_kafka_t *rk;
  rd_kafka_topic_t *rkt;
  struct queue_watch records, events;
  struct feed_partition *partitions;
  uint32_t partition_count, started;
  struct timer count_timer; // of a shared feed: the topic's partitions are counted from time to time
  int64_t count_every_us;   // 0: never
  uint32_t counted;         // partitions, by the errand; 0: it could not
  bool unwanted;            // told to the errand that starts it: __atomic
  struct record **ring;     // `room` is a power of two
  uint32_t room;
  uint64_t seq_first, seq_next;
  size_t bytes, back_bytes;     // in the window; of records from before the feed's start
  struct kafka_reader *readers; // of a shared feed: all that use it, also while they catch up
  struct kafka_reader *waiting; // those to wake when something comes
  struct error error;
  rd_kafka_resp_err_t failed; // with `error`: librdkafka's code, 0 where it gave none
  char topic[TOPIC_NAME_BYTES];
};

static inline struct record *feed_at(const struct feed *feed, uint64_t seq) {
  return feed->ring[seq & (feed->room - 1)];
}

// In the list of its kind, not started: the caller may set `wanted` before feed_start.
struct feed *feed_new(struct cluster *cluster, const char *topic, struct kafka_reader *owner, struct error *error);
void feed_start(struct feed *feed);
// Its readers are gone. Frees it, later.
void feed_stop(struct feed *feed);
// The oldest record, taken out.
struct record *feed_shift(struct feed *feed);
// A private feed that waits for its reader.
bool feed_is_full(const struct feed *feed);

// ---- Of kafka_reader.c, called by feeds on the loop ----

void feed_ready(struct feed *feed);                  // it went live
void feed_fail(struct feed *feed, const char *text); // it will not: its readers fail
void feed_wake(struct feed *feed);                   // there may be something new
void feed_close(struct feed *feed);                  // it is of no more use: its readers are to begin anew

// ---- Of kafka_reader_many.c ----

struct many;
bool many_is(const struct kafka_wait *wait);
// Its readers wait no more; nobody is called.
void many_end(struct many *many);
