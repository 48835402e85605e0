// SPDX-License-Identifier: Apache-2.0
// Feeds: one consumer of one topic and the records it brought. A shared feed starts a little before the topic's end when
// the first reader comes, keeps a bounded window, drops its oldest record for a new one, and stops with its last reader.
// A private feed serves one reader from older offsets, drops nothing, and stops reading while its reader does not.
//
// The little before the end is for readers that come back, all of them at one time when a gateway has been started
// again: without it each would need a feed of its own for what it has missed meanwhile.
//
// librdkafka's simple consumer is used, without a group: a gateway's readers each want every record, and nobody waits
// for a coordinator. Starting (offsets must be asked for) and ending one block, so both are errands.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "kafka_reader.h"

enum {
  START_WITHIN_MS = 10000,
  CALL_MS = 250, // a blocking call is cut into pieces, to notice that nobody wants its outcome
  TURN_BATCHES = 8,
  BATCH_SHARED = 64,
  BATCH_PRIVATE = 8, // records may be of 1 MB each, and all of a batch are taken
  TURN_BYTES = 4 * 1024 * 1024,
  PRIVATE_RECORDS = 1024,
  NUDGE_EVERY_BYTES = 2 * 1024 * 1024,
  PRIVATE_BYTES = 1024 * 1024,
  BACK_RECORDS = 4096, // before the end, of all partitions
  BACK_BYTES = 4 * 1024 * 1024
};

static struct feed *feed_of_errand(struct errand *errand) {
  return (struct feed *)((char *)errand - offsetof(struct feed, errand));
}

// ---- The window ----

static int feed_grow(struct feed *feed) {
  uint32_t room = feed->room ? feed->room * 2 : 64;
  struct record **ring = malloc(room * sizeof(struct record *));
  if (!ring) return ERROR_MEMORY;
  for (uint64_t seq = feed->seq_first; seq < feed->seq_next; seq++) ring[seq & (room - 1)] = feed_at(feed, seq);
  free(feed->ring);
  feed->ring = ring;
  feed->room = room;
  return 0;
}

struct record *feed_shift(struct feed *feed) {
  struct record *record = feed_at(feed, feed->seq_first++);
  feed->bytes -= record->size;
  return record;
}

static void feed_evict(struct feed *feed) {
  struct record *record = feed_shift(feed);
  feed->partitions[record->view.partition].first = (int64_t)record->view.offset + 1;
  record_release(record);
}

static void feed_push(struct feed *feed, struct record *record) {
  struct cluster *cluster = feed->cluster;
  if (!feed->owner)
    while (feed->seq_first < feed->seq_next && (feed->seq_next - feed->seq_first >= cluster->window_records ||
                                                feed->bytes + record->size > cluster->window_bytes))
      feed_evict(feed);
  if (feed->seq_next - feed->seq_first == feed->room && feed_grow(feed) != 0) {
    feed->partitions[record->view.partition].ahead = GAP_LOST;
    record_release(record);
    return;
  }
  feed->ring[feed->seq_next++ & (feed->room - 1)] = record;
  feed->bytes += record->size;
}

bool feed_is_full(const struct feed *feed) {
  return feed->owner && (feed->seq_next - feed->seq_first >= PRIVATE_RECORDS || feed->bytes >= PRIVATE_BYTES);
}

// ---- What arrives ----

// Offsets may skip (compaction, transactions), but not over the start of the log, and never back.
static enum record_gap gap_before(const struct feed *feed, const rd_kafka_message_t *message) {
  int64_t low, high, next = feed->partitions[message->partition].next;
  if (message->offset < next) return GAP_REWOUND;
  if (message->offset == next) return GAP_NONE;
  if (rd_kafka_get_watermark_offsets(feed->rk, feed->topic, message->partition, &low, &high)) return GAP_NONE;
  return low > next ? GAP_LOST : GAP_NONE;
}

// The records from before the start are too large to be worth it: as if the feed had begun at the end. Readers that
// were to have some of them find that the window has gone on.
static void feed_leap(struct feed *feed) {
  while (feed->seq_first < feed->seq_next) feed_evict(feed);
  feed->seq_first = ++feed->seq_next;
  for (uint32_t i = 0; i < feed->partition_count; i++) {
    struct feed_partition *partition = &feed->partitions[i];
    if (partition->next < partition->end) {
      partition->leaps = true;
      partition->next = partition->end;
      rd_kafka_seek(feed->rkt, (int32_t)i, partition->end, 0); // what comes until then is passed over
    }
    partition->first = partition->next;
  }
}

// The log has begun anew, as when its topic was deleted and made again: what the window holds is of the old one.
static void feed_rewind(struct feed *feed, const rd_kafka_message_t *message) {
  struct feed_partition *partition = &feed->partitions[message->partition];
  partition->end = 0;
  if (feed->owner) return;
  while (feed->seq_first < feed->seq_next) feed_evict(feed);
  partition->low = partition->first = message->offset;
}

// Whether the record is one that the feed wants.
static bool feed_wants(struct feed *feed, const rd_kafka_message_t *message) {
  struct feed_partition *partition = &feed->partitions[message->partition];
  if (message->offset >= partition->end) {
    partition->leaps = false;
    return true;
  }
  if (partition->leaps) return false;
  if (feed->owner || message->offset < partition->next) return true; // the latter: the log has begun anew
  feed->back_bytes += message->len;
  if (feed->back_bytes <= BACK_BYTES) return true;
  feed_leap(feed);
  return false;
}

static void on_record(struct feed *feed, const rd_kafka_message_t *message) {
  struct feed_partition *partition = &feed->partitions[message->partition];
  if (!feed_wants(feed, message)) return;
  enum record_gap gap = gap_before(feed, message);
  if (gap > partition->ahead) partition->ahead = gap;
  if (gap == GAP_REWOUND) feed_rewind(feed, message);
  partition->next = message->offset + 1;
  count_consumed(feed->cluster, feed->topic, message);
  struct record *record = record_new(feed->cluster->kafka, feed->topic, message);
  if (!record) {
    partition->ahead = GAP_LOST;
    return;
  }
  record->gap = partition->ahead;
  partition->ahead = GAP_NONE;
  feed_push(feed, record);
}

static void on_message(struct feed *feed, const rd_kafka_message_t *message) {
  bool known = message->partition >= 0 && (uint32_t)message->partition < feed->partition_count;
  if (!message->err && known) {
    on_record(feed, message);
    return;
  }
  if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && known) {
    struct feed_partition *partition = &feed->partitions[message->partition];
    if (message->offset > partition->next) partition->next = message->offset;
    partition->leaps = false;
    return;
  }
  // Everything else librdkafka tries again: a broker that restarts may for a while not know the topic.
  if (message->err) cluster_trouble(feed->cluster, rd_kafka_err2str(message->err));
}

// True when the queue is empty.
static bool feed_take(struct feed *feed, size_t *taken) {
  rd_kafka_message_t *messages[BATCH_SHARED];
  size_t most = feed->owner ? BATCH_PRIVATE : BATCH_SHARED;
  ssize_t count = rd_kafka_consume_batch_queue(feed->records.queue, 0, messages, most);
  for (ssize_t i = 0; i < count; i++) {
    *taken += messages[i]->len;
    on_message(feed, messages[i]);
    rd_kafka_message_destroy(messages[i]);
  }
  return count <= 0;
}

// librdkafka 2.0.2 looks only once a second whether a queue that was full has room again, unless its broker's thread is
// woken by something: without this a reader that catches up gets one queue of records a second.
static void feed_nudge_run(struct errand *errand) {
  struct feed *feed = (struct feed *)((char *)errand - offsetof(struct feed, nudge));
  rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
  for (uint32_t i = 0; !code && i < feed->partition_count; i++) {
    int64_t low, high;
    if (feed->partitions[i].unwanted) continue;
    code = rd_kafka_query_watermark_offsets(feed->rk, feed->topic, (int32_t)i, &low, &high, CALL_MS);
  }
}

static void feed_nudged(struct feed *feed) {
  feed->nudging = false;
  if (feed->ends_after) errands_submit(feed->cluster->kafka->errands, &feed->errand);
}

static void feed_on_nudged(struct errand *errand) {
  feed_nudged((struct feed *)((char *)errand - offsetof(struct feed, nudge)));
}

static void feed_nudge(struct feed *feed, size_t taken) {
  feed->taken_since_nudge += taken;
  if (!feed->owner || feed->nudging || feed->taken_since_nudge < NUDGE_EVERY_BYTES) return;
  feed->taken_since_nudge = 0;
  feed->nudging = true;
  feed->nudge = (struct errand){.run = feed_nudge_run, .on_done = feed_on_nudged};
  errands_submit(feed->cluster->kafka->errands, &feed->nudge);
}

// ---- Partitions that a topic gets ----

// Those that came after the feed's start are not in it, and whoever reads it counts by those that are: once there are
// more its readers begin anew, where they were.
static void feed_count_run(struct errand *errand) {
  struct feed *feed = (struct feed *)((char *)errand - offsetof(struct feed, nudge));
  const struct rd_kafka_metadata *metadata;
  feed->counted = 0;
  if (rd_kafka_metadata(feed->rk, 0, feed->rkt, &metadata, CALL_MS)) return;
  if (metadata->topic_cnt == 1 && !metadata->topics[0].err) feed->counted = (uint32_t)metadata->topics[0].partition_cnt;
  rd_kafka_metadata_destroy(metadata);
}

static void feed_count_later(struct feed *feed) {
  struct loop *loop = feed->cluster->kafka->loop;
  if (feed->count_every_us > 0)
    timer_set(&loop->timers, &feed->count_timer, loop->clock.mono_us + feed->count_every_us);
}

static void feed_on_counted(struct errand *errand) {
  struct feed *feed = (struct feed *)((char *)errand - offsetof(struct feed, nudge));
  feed_nudged(feed);
  if (feed->state != FEED_LIVE) return;
  if (feed->counted > feed->partition_count)
    feed_close(feed);
  else
    feed_count_later(feed);
}

static void on_count_due(struct timer *timer) {
  struct feed *feed = (struct feed *)((char *)timer - offsetof(struct feed, count_timer));
  feed->nudging = true;
  feed->nudge = (struct errand){.run = feed_count_run, .on_done = feed_on_counted};
  errands_submit(feed->cluster->kafka->errands, &feed->nudge);
}

static int64_t count_interval_us(const struct feed *feed) {
  char value[24];
  size_t size = sizeof value;
  const char *name = "topic.metadata.refresh.interval.ms";
  if (rd_kafka_conf_get(rd_kafka_conf(feed->rk), name, value, &size) != RD_KAFKA_CONF_OK) return 0;
  return strtoll(value, NULL, 10) * 1000;
}

static void on_feed_readable(struct ev_loop *ev, struct ev_io *io, int events) {
  struct feed *feed = io->data;
  uint64_t count;
  size_t taken = 0;
  bool empty = false;
  (void)ev;
  (void)events;
  eventfd_read(feed->records.fd, &count);
  for (int most = TURN_BATCHES; most > 0 && !empty && taken < TURN_BYTES && !feed_is_full(feed); most--)
    empty = feed_take(feed, &taken);
  feed_nudge(feed, taken);
  // A full private feed is kicked by its reader instead.
  if (!empty && !feed_is_full(feed)) queue_watch_kick(&feed->records);
  feed_wake(feed);
}

static void feed_take_events(struct feed *feed) {
  rd_kafka_event_t *event;
  while ((event = rd_kafka_queue_poll(feed->events.queue, 0))) {
    cluster_on_event(feed->cluster, event);
    rd_kafka_event_destroy(event);
  }
}

static void on_feed_event(struct ev_loop *ev, struct ev_io *io, int events) {
  struct feed *feed = io->data;
  uint64_t count;
  (void)ev;
  (void)events;
  eventfd_read(feed->events.fd, &count);
  feed_take_events(feed);
}

// ---- Start: on a helper thread ----

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int start_failed(struct feed *feed, rd_kafka_resp_err_t code) {
  feed->failed = code;
  return error_set(&feed->error, ERROR_SYSTEM, "topic %s: %s", feed->topic, rd_kafka_err2str(code));
}

static bool may_create(const struct feed *feed) {
  char value[8];
  size_t size = sizeof value;
  if (rd_kafka_conf_get(rd_kafka_conf(feed->rk), "allow.auto.create.topics", value, &size) != RD_KAFKA_CONF_OK)
    return false;
  return strcmp(value, "true") == 0;
}

// What the next try may change: a broker that does not answer yet, a topic that is being made.
static bool is_passing(const struct feed *feed, rd_kafka_resp_err_t code) {
  switch (code) {
  case RD_KAFKA_RESP_ERR__TRANSPORT:
  case RD_KAFKA_RESP_ERR__TIMED_OUT:
  case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
  case RD_KAFKA_RESP_ERR__WAIT_COORD:
  case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
  case RD_KAFKA_RESP_ERR__RESOLVE:
  case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
  case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
  case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION: return true;
  case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
  case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
  case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION: return may_create(feed);
  default: return false;
  }
}

// True: try again.
static bool start_retry(const struct feed *feed, rd_kafka_resp_err_t code, int64_t deadline_ms) {
  struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
  if (__atomic_load_n(&feed->unwanted, __ATOMIC_RELAXED)) return false;
  if (!is_passing(feed, code) || now_ms() >= deadline_ms) return false;
  nanosleep(&pause, NULL);
  return true;
}

static rd_kafka_resp_err_t ask_partitions(struct feed *feed) {
  const struct rd_kafka_metadata *metadata;
  rd_kafka_resp_err_t code = rd_kafka_metadata(feed->rk, 0, feed->rkt, &metadata, CALL_MS);
  if (code) return code;
  code = RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
  if (metadata->topic_cnt == 1) {
    code = metadata->topics[0].err;
    feed->partition_count = (uint32_t)metadata->topics[0].partition_cnt;
    if (!code && feed->partition_count == 0) code = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
  }
  rd_kafka_metadata_destroy(metadata);
  return code;
}

// How far before the end of a partition a shared feed starts.
static int64_t feed_back(const struct feed *feed) {
  uint32_t records = feed->cluster->window_records / 2;
  return (records < BACK_RECORDS ? records : BACK_RECORDS) / feed->partition_count;
}

static void start_at(struct feed *feed, int32_t index, int64_t low, int64_t high) {
  struct feed_partition *partition = &feed->partitions[index];
  int64_t back = high - feed_back(feed);
  int64_t wanted = feed->owner || back < 0 ? KAFKA_EARLIEST : back;
  for (uint32_t i = 0; i < feed->wanted_count; i++)
    if (feed->wanted[i].partition == index) wanted = (int64_t)feed->wanted[i].offset;
  bool any = wanted == KAFKA_EARLIEST || wanted == KAFKA_LATEST || wanted == KAFKA_NOWHERE;
  bool unwanted = wanted == KAFKA_NOWHERE;
  if (wanted == KAFKA_LATEST || unwanted) wanted = high;
  int64_t start = wanted < low ? low : wanted > high ? high : wanted;
  *partition = (struct feed_partition){.low = low,
                                       .first = start,
                                       .next = start,
                                       .end = feed->owner ? start : high,
                                       .gap = !any && start != wanted,
                                       .unwanted = unwanted};
}

static int start_offsets(struct feed *feed, int64_t deadline_ms) {
  feed->partitions = calloc(feed->partition_count, sizeof *feed->partitions);
  if (!feed->partitions) return error_set(&feed->error, ERROR_MEMORY, "out of memory");
  for (uint32_t i = 0; i < feed->partition_count; i++) {
    int64_t low, high;
    rd_kafka_resp_err_t code;
    do {
      code = rd_kafka_query_watermark_offsets(feed->rk, feed->topic, (int32_t)i, &low, &high, CALL_MS);
    } while (code && start_retry(feed, code, deadline_ms));
    if (code) return start_failed(feed, code);
    start_at(feed, (int32_t)i, low, high);
  }
  return 0;
}

static int start_consuming(struct feed *feed) {
  queue_watch_bind(&feed->records, rd_kafka_queue_new(feed->rk));
  for (; feed->started < feed->partition_count; feed->started++) {
    int64_t offset = feed->partitions[feed->started].next;
    if (feed->partitions[feed->started].unwanted) continue;
    if (rd_kafka_consume_start_queue(feed->rkt, (int32_t)feed->started, offset, feed->records.queue) != 0)
      return start_failed(feed, rd_kafka_last_error());
  }
  return 0;
}

static int start_handle(struct feed *feed) {
  char text[200];
  feed->rk = rd_kafka_new(RD_KAFKA_CONSUMER, feed->conf, text, sizeof text);
  if (!feed->rk) return error_set(&feed->error, ERROR_SYSTEM, "topic %s: %s", feed->topic, text);
  feed->conf = NULL; // the handle's now
  rd_kafka_set_log_queue(feed->rk, NULL);
  cluster_join(feed->cluster, feed->rk);
  queue_watch_bind(&feed->events, rd_kafka_queue_get_main(feed->rk));
  feed->rkt = rd_kafka_topic_new(feed->rk, feed->topic, NULL);
  return feed->rkt ? 0 : start_failed(feed, rd_kafka_last_error());
}

static void feed_start_run(struct errand *errand) {
  struct feed *feed = feed_of_errand(errand);
  rd_kafka_resp_err_t code;
  int64_t deadline_ms = now_ms() + START_WITHIN_MS;
  if (start_handle(feed)) return;
  do {
    code = ask_partitions(feed);
  } while (code && start_retry(feed, code, deadline_ms));
  if (code) {
    start_failed(feed, code);
    return;
  }
  if (start_offsets(feed, deadline_ms) == 0) start_consuming(feed);
}

// ---- Stop: on a helper thread ----

static void feed_stop_run(struct errand *errand) {
  struct feed *feed = feed_of_errand(errand);
  for (uint32_t i = 0; i < feed->started; i++)
    if (!feed->partitions[i].unwanted) rd_kafka_consume_stop(feed->rkt, (int32_t)i);
  if (feed->rkt) rd_kafka_topic_destroy(feed->rkt);
  if (feed->records.queue) rd_kafka_queue_destroy(feed->records.queue);
  if (feed->events.queue) rd_kafka_queue_destroy(feed->events.queue);
  feed->records.queue = feed->events.queue = NULL;
  if (feed->rk) {
    cluster_leave(feed->cluster, feed->rk);
    rd_kafka_destroy(feed->rk);
  }
  if (feed->conf) rd_kafka_conf_destroy(feed->conf);
}

static void feed_on_stopped(struct errand *errand) {
  struct feed *feed = feed_of_errand(errand);
  queue_watch_close(&feed->records);
  queue_watch_close(&feed->events);
  while (feed->seq_first < feed->seq_next) record_release(feed_shift(feed));
  feed->cluster->consumers--;
  cluster_release(feed->cluster);
  free(feed->ring);
  free(feed->partitions);
  free(feed->wanted);
  free(feed);
}

// ---- Life of a feed: on the loop ----

static void feed_move(struct feed *feed, enum feed_state to) {
  static const uint8_t legal[] = {[FEED_STARTING] = 1 << FEED_LIVE | 1 << FEED_ABANDONED | 1 << FEED_STOPPING,
                                  [FEED_LIVE] = 1 << FEED_STOPPING,
                                  [FEED_ABANDONED] = 1 << FEED_STOPPING};
  assert(feed->state < sizeof legal && legal[feed->state] & 1 << to);
  feed->state = to;
}

static void feed_unlink(struct feed *feed) {
  struct kafka *kafka = feed->cluster->kafka;
  struct feed **link = feed->owner ? &kafka->feeds_private : &feed->cluster->feeds;
  while (*link != feed) link = &(*link)->next;
  *link = feed->next;
  if (feed->owner) kafka->feeds_private_count--;
}

static void feed_end(struct feed *feed) {
  if (feed->state == FEED_LIVE) {
    timer_cancel(&feed->cluster->kafka->loop->timers, &feed->count_timer);
    queue_watch_stop(&feed->records);
    queue_watch_stop(&feed->events);
  }
  feed_move(feed, FEED_STOPPING);
  feed->errand = (struct errand){.run = feed_stop_run, .on_done = feed_on_stopped};
  if (feed->nudging)
    feed->ends_after = true; // an errand of it has its handle
  else
    errands_submit(feed->cluster->kafka->errands, &feed->errand);
}

void feed_stop(struct feed *feed) {
  assert(!feed->waiting);
  feed_unlink(feed);
  if (feed->state != FEED_STARTING) {
    feed_end(feed);
    return;
  }
  feed_move(feed, FEED_ABANDONED); // its errand is under way, and then ends it
  __atomic_store_n(&feed->unwanted, true, __ATOMIC_RELAXED);
}

static void feed_on_started(struct errand *errand) {
  struct feed *feed = feed_of_errand(errand);
  if (feed->state == FEED_ABANDONED) {
    feed_end(feed);
    return;
  }
  if (feed->error.code) {
    if (feed->events.queue) feed_take_events(feed); // why, perhaps
    cluster_failed(feed->cluster, feed->failed, feed->error.text);
    feed_unlink(feed);
    feed_fail(feed, feed->error.text);
    feed_end(feed);
    return;
  }
  feed_move(feed, FEED_LIVE);
  cluster_up(feed->cluster);
  queue_watch_start(&feed->records, on_feed_readable, feed);
  queue_watch_start(&feed->events, on_feed_event, feed);
  if (!feed->owner) {
    feed->count_every_us = count_interval_us(feed);
    feed_count_later(feed);
  }
  feed_ready(feed);
}

struct feed *feed_new(struct cluster *cluster, const char *topic, struct kafka_reader *owner, struct error *error) {
  struct kafka *kafka = cluster->kafka;
  struct feed *feed = calloc(1, sizeof *feed);
  if (!feed) return NULL;
  feed->cluster = cluster;
  feed->owner = owner;
  feed->records.fd = feed->events.fd = -1;
  timer_init(&feed->count_timer, on_count_due);
  snprintf(feed->topic, sizeof feed->topic, "%s", topic);
  if (queue_watch_init(&feed->records, kafka, error) || queue_watch_init(&feed->events, kafka, error)) goto fail;
  feed->conf = cluster_conf(cluster, RD_KAFKA_CONSUMER, error);
  if (!feed->conf) goto fail;
  cluster_hold(cluster);
  cluster->consumers++;
  if (cluster->state == CLUSTER_IDLE) cluster->state = CLUSTER_CONNECTING;
  if (owner) kafka->feeds_private_count++;
  struct feed **list = owner ? &kafka->feeds_private : &cluster->feeds;
  feed->next = *list;
  *list = feed;
  feed->errand = (struct errand){.run = feed_start_run, .on_done = feed_on_started};
  return feed;
fail:
  queue_watch_close(&feed->records);
  queue_watch_close(&feed->events);
  free(feed);
  return NULL;
}

void feed_start(struct feed *feed) {
  errands_submit(feed->cluster->kafka->errands, &feed->errand);
}
