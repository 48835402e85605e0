// SPDX-License-Identifier: Apache-2.0
// Readers: a position in each partition, and a place in a feed. The position is what counts: a reader comes back to the
// shared window from a feed of its own as soon as the window holds everything from its positions on, and then skips what
// it has already had.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_reader.h"

enum { REJOIN_EVERY = 256 };

// The position in a partition that is not wanted: all of it has been read.
static const int64_t UNWANTED = INT64_MAX;

enum reader_state {
  READER_OPENING,  // the shared feed is starting
  READER_SHARED,   // reads its window
  READER_CATCHING, // reads a feed of its own, which may be starting
  READER_FAILED
};

struct kafka_reader {
  struct kafka *kafka;
  struct cluster *cluster;
  struct feed *shared; // NULL once failed
  struct feed *own;    // while catching up
  enum reader_state state;
  uint32_t slot;
  uint64_t seq;       // place in the shared window
  int64_t *positions; // next offset by partition; NULL while opening
  uint32_t position_count;
  struct kafka_position *wanted; // as asked, while opening
  uint32_t wanted_count, since_rejoin;
  double from;
  bool skip_when_behind, gap, opened, closed;
  struct record *current;                            // what the last kafka_reader_next gave
  struct kafka_reader *peer, **peer_link;            // in shared->readers
  struct kafka_reader *next_waiting, **waiting_link; // in a feed's `waiting`, or kafka->waking; link NULL: in none
  struct kafka_wait wait;
  struct timer timer;
  char error[200];
};

static void reader_move(struct kafka_reader *reader, enum reader_state to) {
  static const uint8_t legal[] = {
      [READER_OPENING] = 1 << READER_SHARED | 1 << READER_CATCHING | 1 << READER_FAILED,
      [READER_SHARED] = 1 << READER_CATCHING | 1 << READER_FAILED,
      [READER_CATCHING] = 1 << READER_SHARED | 1 << READER_FAILED,
      [READER_FAILED] = 1 << READER_FAILED,
  };
  assert(legal[reader->state] & 1 << to);
  reader->state = to;
}

// ---- Handles ----

double kafka_reader_handle(const struct kafka_reader *reader) {
  return kafka_slots_number(&reader->kafka->readers, reader->slot);
}

struct kafka_reader *kafka_reader_find(struct kafka *kafka, double handle) {
  return kafka_slots_find(&kafka->readers, handle);
}

// ---- Waiting ----

static void waiting_link(struct kafka_reader *reader, struct kafka_reader **list) {
  reader->next_waiting = *list;
  if (*list) (*list)->waiting_link = &reader->next_waiting;
  reader->waiting_link = list;
  *list = reader;
}

static void waiting_unlink(struct kafka_reader *reader) {
  if (!reader->waiting_link) return;
  *reader->waiting_link = reader->next_waiting;
  if (reader->next_waiting) reader->next_waiting->waiting_link = reader->waiting_link;
  reader->waiting_link = NULL;
}

static void reader_resume(struct kafka_reader *reader, int status) {
  struct kafka_wait wait = reader->wait;
  waiting_unlink(reader);
  timer_cancel(&reader->kafka->loop->timers, &reader->timer);
  wait.on_ready(reader, &wait, status); // the reader may be gone now
}

static void on_wait_over(struct timer *timer) {
  reader_resume((struct kafka_reader *)((char *)timer - offsetof(struct kafka_reader, timer)), BRIDGE_TIMEOUT);
}

static struct feed *reader_feed(const struct kafka_reader *reader) {
  return reader->own ? reader->own : reader->shared;
}

void kafka_reader_unwait(struct kafka_reader *reader) {
  if (!reader->waiting_link) return;
  waiting_unlink(reader);
  timer_cancel(&reader->kafka->loop->timers, &reader->timer);
  if (many_is(&reader->wait)) many_end(reader->wait.context);
}

int kafka_reader_wait(struct kafka_reader *reader, int64_t timeout_us, const struct kafka_wait *wait) {
  struct kafka *kafka = reader->kafka;
  kafka_reader_unwait(reader);
  if (timeout_us >= 0 && timer_set(&kafka->loop->timers, &reader->timer, kafka->loop->clock.mono_us + timeout_us))
    return BRIDGE_FULL;
  reader->wait = *wait;
  struct feed *feed = reader->state == READER_FAILED ? NULL : reader_feed(reader);
  waiting_link(reader, feed ? &feed->waiting : &kafka->waking);
  if (!feed) queue_watch_kick(&kafka->wake);
  return BRIDGE_OK;
}

const struct kafka_wait *kafka_reader_waiting(const struct kafka_reader *reader) {
  return reader->waiting_link ? &reader->wait : NULL;
}

static void waking_add(struct kafka *kafka, struct kafka_reader *reader) {
  waiting_unlink(reader);
  waiting_link(reader, &kafka->waking);
}

void readers_wake(struct kafka *kafka) {
  // One at a time from the list's head: whoever is resumed may close any other, or wait again elsewhere.
  while (kafka->waking) reader_resume(kafka->waking, BRIDGE_OK);
}

void feed_wake(struct feed *feed) {
  struct kafka *kafka = feed->cluster->kafka;
  while (feed->waiting) waking_add(kafka, feed->waiting);
  readers_wake(kafka);
}

// ---- From opening to a place in a feed ----

static void reader_fail(struct kafka_reader *reader, const char *text) {
  struct kafka *kafka = reader->kafka;
  snprintf(reader->error, sizeof reader->error, "%s", text);
  reader_move(reader, READER_FAILED);
  if (reader->waiting_link) waking_add(kafka, reader);
}

// Where what is new begins: a feed that starts may not have come there yet.
static int64_t newest_in(const struct feed_partition *partition) {
  return partition->next > partition->end ? partition->next : partition->end;
}

// Where partition `index` of the topic is to be read from, as asked for.
static int64_t wanted_at(const struct kafka_reader *reader, uint32_t index) {
  int64_t offset = (int64_t)reader->from;
  for (uint32_t i = 0; i < reader->wanted_count; i++)
    if (reader->wanted[i].partition == (int32_t)index) offset = (int64_t)reader->wanted[i].offset;
  const struct feed_partition *partition = &reader->shared->partitions[index];
  if (offset == KAFKA_NOWHERE) return UNWANTED;
  if (offset == KAFKA_LATEST) return newest_in(partition);
  if (offset == KAFKA_EARLIEST && partition->first <= partition->low) return partition->low;
  return offset;
}

static bool window_holds(const struct feed *feed, const int64_t *positions) {
  for (uint32_t i = 0; i < feed->partition_count; i++)
    if (positions[i] != UNWANTED &&
        (positions[i] < feed->partitions[i].first || positions[i] > newest_in(&feed->partitions[i])))
      return false;
  return true;
}

static void reader_share(struct kafka_reader *reader, uint64_t seq) {
  reader->seq = seq;
  reader->opened = true;
  reader_move(reader, READER_SHARED);
}

static int reader_catch_up(struct kafka_reader *reader) {
  struct kafka *kafka = reader->kafka;
  struct error error = {0};
  if (kafka->feeds_private_count >= FEEDS_PRIVATE_MAX)
    return error_set(NULL, ERROR_MEMORY, "too many readers catch up");
  struct feed *feed = feed_new(reader->cluster, reader->shared->topic, reader, &error);
  if (!feed) return ERROR_SYSTEM;
  feed->wanted = calloc(reader->position_count, sizeof *feed->wanted);
  if (!feed->wanted) {
    feed_start(feed);
    feed_stop(feed);
    return ERROR_MEMORY;
  }
  feed->wanted_count = reader->position_count;
  for (uint32_t i = 0; i < reader->position_count; i++)
    feed->wanted[i] = (struct kafka_position){
        .partition = (int32_t)i,
        .offset = reader->positions[i] == UNWANTED ? KAFKA_NOWHERE : (double)reader->positions[i]};
  feed_start(feed);
  reader->own = feed;
  reader_move(reader, READER_CATCHING);
  return 0;
}

static void reader_settle(struct kafka_reader *reader) {
  struct feed *shared = reader->shared;
  reader->positions = calloc(shared->partition_count, sizeof *reader->positions);
  if (!reader->positions) {
    reader_fail(reader, "out of memory");
    return;
  }
  reader->position_count = shared->partition_count;
  bool at_end = true;
  for (uint32_t i = 0; i < reader->position_count; i++) {
    reader->positions[i] = wanted_at(reader, i);
    at_end = at_end && (reader->positions[i] == UNWANTED || reader->positions[i] == newest_in(&shared->partitions[i]));
  }
  if (at_end)
    reader_share(reader, shared->seq_next);
  else if (window_holds(shared, reader->positions))
    reader_share(reader, shared->seq_first);
  else if (reader_catch_up(reader) != 0)
    reader_fail(reader, "too many readers catch up with older records");
}

static void reader_own_ready(struct kafka_reader *reader) {
  const struct feed *own = reader->own;
  // A topic that has grown since the shared feed started: the new partitions are read after that feed's next start.
  for (uint32_t i = 0; i < reader->position_count && i < own->partition_count; i++) {
    if (reader->positions[i] == UNWANTED) continue;
    reader->positions[i] = own->partitions[i].first;
    reader->gap = reader->gap || own->partitions[i].gap;
  }
  reader->opened = true;
}

void feed_ready(struct feed *feed) {
  if (feed->owner) {
    reader_own_ready(feed->owner);
    feed_wake(feed);
    return;
  }
  for (struct kafka_reader *reader = feed->readers; reader; reader = reader->peer)
    if (reader->state == READER_OPENING) {
      bool waits = reader->waiting_link != NULL;
      waiting_unlink(reader);
      reader_settle(reader);
      if (!waits) continue;
      // Who now needs a feed of its own goes on waiting, for that one.
      if (reader->state == READER_CATCHING)
        waiting_link(reader, &reader->own->waiting);
      else
        waiting_link(reader, &feed->cluster->kafka->waking);
    }
  readers_wake(feed->cluster->kafka);
}

static void reader_leave_shared(struct kafka_reader *reader) {
  if (!reader->shared) return;
  *reader->peer_link = reader->peer;
  if (reader->peer) reader->peer->peer_link = reader->peer_link;
  reader->shared = NULL;
}

// The shared feed is out of its list already, or goes with its last reader.
static void reader_leave(struct kafka_reader *reader) {
  struct feed *own = reader->own, *shared = reader->shared;
  kafka_reader_unwait(reader);
  reader->own = NULL;
  if (own) feed_stop(own);
  reader_leave_shared(reader);
  if (shared && !shared->readers) feed_stop(shared);
}

static void readers_fail(struct feed *feed, const char *text) {
  while (feed->readers) {
    struct kafka_reader *reader = feed->readers;
    struct feed *own = reader->own;
    reader_fail(reader, text); // takes it off the lists of either feed
    reader->own = NULL;
    if (own) feed_stop(own);
    reader_leave_shared(reader);
  }
}

void feed_fail(struct feed *feed, const char *text) {
  struct kafka *kafka = feed->cluster->kafka;
  struct kafka_reader *owner = feed->owner;
  if (owner) {
    struct feed *shared = owner->shared;
    owner->own = NULL;
    reader_fail(owner, text);
    reader_leave_shared(owner);
    if (!shared->readers) feed_stop(shared);
  } else {
    readers_fail(feed, text);
  }
  readers_wake(kafka);
}

void feed_close(struct feed *feed) {
  struct kafka *kafka = feed->cluster->kafka;
  for (struct kafka_reader *reader = feed->readers; reader; reader = reader->peer) reader->closed = true;
  readers_fail(feed, "the topic has more partitions now");
  feed_stop(feed);
  readers_wake(kafka);
}

void feeds_fail(struct cluster *cluster, const char *text) {
  while (cluster->feeds) {
    struct feed *feed = cluster->feeds;
    readers_fail(feed, text);
    feed_stop(feed);
  }
  // The caller may be a coroutine: those who wait are resumed from the loop.
  queue_watch_kick(&cluster->kafka->wake);
}

// ---- Open and close ----

static struct feed *shared_feed(struct cluster *cluster, const char *topic, struct error *error) {
  for (struct feed *feed = cluster->feeds; feed; feed = feed->next)
    if (strcmp(feed->topic, topic) == 0) return feed;
  struct feed *feed = feed_new(cluster, topic, NULL, error);
  if (feed) feed_start(feed);
  return feed;
}

static void reader_join(struct kafka_reader *reader, struct feed *feed) {
  reader->shared = feed;
  reader->peer = feed->readers;
  if (reader->peer) reader->peer->peer_link = &reader->peer;
  reader->peer_link = &feed->readers;
  feed->readers = reader;
}

static int reader_want(struct kafka_reader *reader, const struct kafka_reader_options *options) {
  reader->from = options->from < KAFKA_LATEST ? options->from : KAFKA_LATEST;
  reader->skip_when_behind = options->skip_when_behind;
  if (options->position_count == 0) return 0;
  reader->wanted = calloc(options->position_count, sizeof *reader->wanted);
  if (!reader->wanted) return ERROR_MEMORY;
  memcpy(reader->wanted, options->positions, options->position_count * sizeof *reader->wanted);
  reader->wanted_count = options->position_count;
  return 0;
}

static struct kafka_reader *reader_make(struct kafka *kafka, const struct kafka_reader_options *options) {
  struct kafka_reader *reader = calloc(1, sizeof *reader);
  if (!reader) return NULL;
  reader->kafka = kafka;
  timer_init(&reader->timer, on_wait_over);
  if (reader_want(reader, options) == 0 && kafka_slots_take(&kafka->readers, READERS_MAX, reader, &reader->slot) == 0)
    return reader;
  free(reader->wanted);
  free(reader);
  return NULL;
}

struct kafka_reader *kafka_reader_new(struct kafka *kafka, const struct kafka_reader_options *options,
                                      struct error *error) {
  struct cluster *cluster = cluster_find(kafka, options->cluster);
  if (!cluster) {
    error_set(error, ERROR_INVALID, "no Kafka cluster named \"%.100s\"", options->cluster);
    return NULL;
  }
  if (!topic_name_valid(options->topic)) {
    error_set(error, ERROR_INVALID, "topic: expected 1 to 249 letters, digits, \".\", \"_\" or \"-\"");
    return NULL;
  }
  struct kafka_reader *reader = reader_make(kafka, options);
  if (!reader) {
    error_set(error, ERROR_MEMORY, "too many readers");
    return NULL;
  }
  reader->cluster = cluster;
  cluster_hold(cluster);
  cluster->readers++;
  struct feed *feed = shared_feed(cluster, options->topic, error);
  if (!feed) {
    kafka_reader_free(reader);
    return NULL;
  }
  reader_join(reader, feed);
  if (feed->state == FEED_LIVE) reader_settle(reader);
  return reader;
}

void kafka_reader_free(struct kafka_reader *reader) {
  struct cluster *cluster = reader->cluster;
  reader_leave(reader);
  timer_cancel(&reader->kafka->loop->timers, &reader->timer);
  record_release(reader->current);
  kafka_slots_give(&reader->kafka->readers, reader->slot);
  cluster->readers--;
  cluster_release(cluster);
  free(reader->wanted);
  free(reader->positions);
  free(reader);
}

void readers_close(struct kafka *kafka) {
  for (uint32_t i = 0; i < kafka->readers.count; i++)
    if (kafka->readers.slots[i].thing) kafka_reader_free(kafka->readers.slots[i].thing);
}

// ---- Read ----

int kafka_reader_ready(struct kafka_reader *reader) {
  if (reader->state == READER_FAILED) return reader->closed ? BRIDGE_CLOSED : BRIDGE_FAILED;
  return reader->opened ? BRIDGE_OK : BRIDGE_AGAIN;
}

const char *kafka_reader_error(const struct kafka_reader *reader) {
  return reader->error;
}

bool kafka_reader_shares(const struct kafka_reader *reader) {
  return reader->state == READER_SHARED;
}

int kafka_reader_position(struct kafka_reader *reader, uint32_t index, struct kafka_position *out) {
  if (index >= reader->position_count) return BRIDGE_NONE;
  int64_t position = reader->positions[index];
  const struct feed *shared = reader->shared;
  // Having read all of the window, it has also passed what is no record: marks of transactions, compacted ones.
  if (reader->state == READER_SHARED && reader->seq == shared->seq_next && position < shared->partitions[index].next)
    position = shared->partitions[index].next;
  *out = (struct kafka_position){.partition = (int32_t)index,
                                 .offset = position == UNWANTED ? KAFKA_NOWHERE : (double)position};
  return BRIDGE_OK;
}

// The record is the reader's until its next call. Takes over one reference.
static int reader_give(struct kafka_reader *reader, struct record *record, const struct kafka_record **out) {
  reader->current = record;
  reader->positions[record->view.partition] = (int64_t)record->view.offset + 1;
  *out = &record->view;
  return BRIDGE_OK;
}

static bool reader_has_read(const struct kafka_reader *reader, const struct record *record) {
  return (int64_t)record->view.offset < reader->positions[record->view.partition];
}

// Told once, before the record behind the gap; not to who begins just there.
static bool reader_meets_gap(struct kafka_reader *reader, const struct record *record) {
  int64_t *position = &reader->positions[record->view.partition], offset = (int64_t)record->view.offset;
  if (record->gap == GAP_NONE || *position == offset || *position == UNWANTED) return false;
  if (record->gap == GAP_LOST && *position > offset) return false;
  *position = offset;
  return true;
}

static int next_shared(struct kafka_reader *reader, const struct kafka_record **out) {
  struct feed *feed = reader->shared;
  while (reader->seq < feed->seq_next) {
    struct record *record = feed_at(feed, reader->seq);
    if (reader_meets_gap(reader, record)) return KAFKA_GAP;
    reader->seq++;
    if (reader_has_read(reader, record)) continue;
    record->refs++;
    return reader_give(reader, record, out);
  }
  return BRIDGE_AGAIN;
}

// It goes on at the window's start; what lay before is lost to it.
static int reader_skip(struct kafka_reader *reader) {
  struct feed *feed = reader->shared;
  reader->seq = feed->seq_first;
  for (uint32_t i = 0; i < reader->position_count; i++)
    if (reader->positions[i] < feed->partitions[i].first) reader->positions[i] = feed->partitions[i].first;
  return KAFKA_GAP;
}

static int next_behind(struct kafka_reader *reader) {
  if (window_holds(reader->shared, reader->positions)) { // what it missed it had read before
    reader->seq = reader->shared->seq_first;
    return BRIDGE_OK;
  }
  if (reader->skip_when_behind || reader_catch_up(reader) != 0) return reader_skip(reader);
  return BRIDGE_OK;
}

// Back to the shared window, when it holds all that this reader has not had.
static bool reader_rejoin(struct kafka_reader *reader) {
  struct feed *own = reader->own, *shared = reader->shared;
  for (uint32_t i = 0; i < shared->partition_count; i++)
    if (reader->positions[i] < shared->partitions[i].first) return false;
  reader->own = NULL;
  reader_share(reader, shared->seq_first);
  feed_stop(own);
  return true;
}

// With everything read that came, offsets without records (transactions' marks, compacted ones) count as read too.
static void reader_pass_marks(struct kafka_reader *reader) {
  const struct feed *own = reader->own;
  for (uint32_t i = 0; i < reader->position_count && i < own->partition_count; i++)
    if (own->partitions[i].next > reader->positions[i]) reader->positions[i] = own->partitions[i].next;
}

// A partition that came after the shared feed's start is not this reader's yet.
static bool reader_wants(const struct kafka_reader *reader, const struct record *record) {
  return (uint32_t)record->view.partition < reader->position_count && !reader_has_read(reader, record);
}

static struct record *own_shift(struct feed *own) {
  bool full = feed_is_full(own);
  struct record *record = feed_shift(own);
  if (full && !feed_is_full(own)) queue_watch_kick(&own->records);
  return record;
}

// OK without a record: it has rejoined the shared feed.
static int next_own(struct kafka_reader *reader, const struct kafka_record **out) {
  struct feed *own = reader->own;
  if (own->state != FEED_LIVE) return BRIDGE_AGAIN;
  while (own->seq_first < own->seq_next && reader->since_rejoin < REJOIN_EVERY) {
    struct record *record = feed_at(own, own->seq_first);
    if ((uint32_t)record->view.partition < reader->position_count && reader_meets_gap(reader, record)) return KAFKA_GAP;
    record = own_shift(own);
    if (reader_wants(reader, record)) {
      reader->since_rejoin++;
      return reader_give(reader, record, out);
    }
    record_release(record);
  }
  reader->since_rejoin = 0;
  if (own->seq_first == own->seq_next) reader_pass_marks(reader);
  if (reader_rejoin(reader)) return BRIDGE_OK;
  return own->seq_first < own->seq_next ? next_own(reader, out) : BRIDGE_AGAIN;
}

static int reader_step(struct kafka_reader *reader, const struct kafka_record **out) {
  if (reader->state == READER_CATCHING) return next_own(reader, out);
  if (reader->seq < reader->shared->seq_first) return next_behind(reader);
  return next_shared(reader, out);
}

int kafka_reader_next(struct kafka_reader *reader, const struct kafka_record **out) {
  int status = kafka_reader_ready(reader);
  record_release(reader->current);
  reader->current = NULL;
  *out = NULL;
  if (status != BRIDGE_OK) return status;
  if (reader->gap) {
    reader->gap = false;
    return KAFKA_GAP;
  }
  // A step may change the feed it reads from, and does so at most twice: behind, own, shared.
  do status = reader_step(reader, out);
  while (status == BRIDGE_OK && !*out);
  return status;
}
