// SPDX-License-Identifier: Apache-2.0
// Members: what librdkafka's queues bring, given one record at a time.
//
// Full of records, a member leaves the rest in librdkafka's queue, which is bounded too. When that lasts, it pauses its
// partitions and polls on: the group hears of it, and is told of rebalances, however long nobody asks for a record.
//
// A revocation is not answered at once: the user is told, finishes and commits what it has begun, and lets go by asking
// for the next record. The hand-over time bounds how long the rest of the group waits for that.
#include "kafka_group.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "kafka_member.h"

enum {
  TURN_EVENTS = 512,
  TURN_BYTES = 4 * 1024 * 1024,
  NUDGE_EVERY_BYTES = 2 * 1024 * 1024,
  STALLED_US = 1000000, // full for that long: pause
  POLL_MOST_US = 60 * 1000000
};

static int64_t now_us(const struct kafka_member *member) {
  return member->kafka->loop->clock.mono_us;
}

static struct timers *timers_of(const struct kafka_member *member) {
  return &member->kafka->loop->timers;
}

static void member_move(struct kafka_member *member, enum member_state to) {
  static const uint8_t legal[] = {
      [MEMBER_STARTING] = 1 << MEMBER_LIVE | 1 << MEMBER_FAILED | 1 << MEMBER_LEAVING,
      [MEMBER_LIVE] = 1 << MEMBER_FAILED | 1 << MEMBER_LEAVING,
      [MEMBER_FAILED] = 1 << MEMBER_LEAVING,
  };
  assert(member->state < sizeof legal && legal[member->state] & 1 << to);
  member->state = to;
}

void member_say(struct kafka_member *member, rd_kafka_resp_err_t code, const char *text) {
  snprintf(member->text, sizeof member->text, "%s", text[0] || !code ? text : rd_kafka_err2str(code));
  member->result = (struct kafka_result){.status = code ? BRIDGE_FAILED : BRIDGE_OK,
                                         .partition = -1,
                                         .offset = -1,
                                         .name = code ? rd_kafka_err2name(code) : "",
                                         .text = member->text};
}

void member_wake(struct kafka_member *member, int status) {
  struct kafka_group_wait wait = member->wait;
  if (!wait.on_done) return;
  member->wait.on_done = NULL;
  timer_cancel(timers_of(member), &member->timer);
  wait.on_done(member, &wait, status); // the member may be leaving now
}

static void member_trouble(struct kafka_member *member, rd_kafka_resp_err_t code, const char *text) {
  member->trouble = code;
  snprintf(member->trouble_text, sizeof member->trouble_text, "%s", text);
}

// Whoever waits hears of it in the next turn: the caller may be a coroutine.
static void member_fail(struct kafka_member *member, rd_kafka_resp_err_t code, const char *text) {
  if (member->state == MEMBER_LIVE) {
    queue_watch_stop(&member->records);
    queue_watch_stop(&member->events);
  }
  member_move(member, MEMBER_FAILED);
  timer_cancel(timers_of(member), &member->handover);
  member_trouble(member, code, text);
  timer_set(timers_of(member), &member->tick, now_us(member));
}

// ---- Rebalances ----

static void let_go(struct kafka_member *member) {
  rd_kafka_event_t *event = member->revocation;
  member->lost_state = LOST_NOTHING;
  timer_cancel(timers_of(member), &member->handover);
  if (!event) return;
  member->revocation = NULL;
  act_submit(member, ACT_REVOKE, rd_kafka_topic_partition_list_copy(rd_kafka_event_topic_partition_list(event)));
  rd_kafka_event_destroy(event);
}

static void on_handover_over(struct timer *timer) {
  struct kafka_member *member = (struct kafka_member *)((char *)timer - offsetof(struct kafka_member, handover));
  enum lost_state told = member->lost_state;
  let_go(member);
  if (told == LOST_UNTOLD) member->lost_state = LOST_UNTOLD; // it still is to hear of it
}

// Those it had not heard of yet, and these, with their positions.
static void lost_add(struct kafka_member *member, const rd_kafka_topic_partition_list_t *list) {
  if (member->lost && member->lost_state != LOST_UNTOLD) {
    rd_kafka_topic_partition_list_destroy(member->lost);
    member->lost = NULL;
  }
  if (!member->lost) member->lost = rd_kafka_topic_partition_list_new(list->cnt);
  for (int i = 0; i < list->cnt; i++) {
    const struct place *place = place_find(member, list->elems[i].topic, list->elems[i].partition);
    if (!place || rd_kafka_topic_partition_list_find(member->lost, place->topic, place->partition)) continue;
    rd_kafka_topic_partition_list_add(member->lost, place->topic, place->partition)->offset = place->next;
  }
}

// Takes over the event.
static void on_revocation(struct kafka_member *member, rd_kafka_event_t *event) {
  const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
  records_purge(&member->fetched, list);
  lost_add(member, list);
  member->revocation = event;
  if (member->lost->cnt == 0 || member->handover_us <= 0 || rd_kafka_assignment_lost(member->rk) ||
      timer_set(timers_of(member), &member->handover, now_us(member) + member->handover_us))
    let_go(member);
  if (member->lost->cnt > 0) member->lost_state = LOST_UNTOLD;
}

static void on_rebalance(struct kafka_member *member, rd_kafka_event_t *event) {
  const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
  rd_kafka_resp_err_t code = rd_kafka_event_error(event);
  if (member->revocation) let_go(member); // there is none without an answer to the one before; not to be stuck, though
  if (code != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
    on_revocation(member, event);
    return;
  }
  cluster_up(member->cluster);
  act_submit(member, ACT_ASSIGN, rd_kafka_topic_partition_list_copy(list));
  if (member->stalled) act_submit(member, ACT_STALL, rd_kafka_topic_partition_list_copy(list));
  rd_kafka_event_destroy(event);
}

// ---- What arrives ----

// Offsets may skip (compaction, transactions), but not over the start of the log.
static enum record_gap gap_before(const struct kafka_member *member, const struct place *place, int64_t offset) {
  int64_t low, high;
  if (place->expected < 0 || offset <= place->expected) return GAP_NONE;
  if (rd_kafka_get_watermark_offsets(member->rk, place->topic, place->partition, &low, &high)) return GAP_NONE;
  return low > place->expected ? GAP_LOST : GAP_NONE;
}

static void on_message(struct kafka_member *member, const rd_kafka_message_t *message) {
  const char *topic = rd_kafka_topic_name(message->rkt);
  struct record *record = record_new(member->kafka, topic, message);
  if (!record) { // it will come again, to whoever has the partition then
    member_fail(member, RD_KAFKA_RESP_ERR__FAIL, "out of memory");
    return;
  }
  count_consumed(member->cluster, topic, message);
  struct place *place = place_find(member, topic, message->partition);
  if (place) {
    record->gap = gap_before(member, place, message->offset);
    place->expected = message->offset + 1;
  }
  records_push(&member->fetched, record);
}

// librdkafka goes on by itself after all of these but a fatal one; the user hears of those that are for people to mend.
static void on_trouble(struct kafka_member *member, rd_kafka_event_t *event) {
  rd_kafka_resp_err_t code = rd_kafka_event_error(event);
  const char *text = rd_kafka_event_error_string(event);
  cluster_on_event(member->cluster, event);
  switch (code) {
  case RD_KAFKA_RESP_ERR__FATAL: {
    char fatal[200] = "";
    code = rd_kafka_fatal_error(member->rk, fatal, sizeof fatal);
    member_fail(member, code, fatal);
    return;
  }
  case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
  case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
  case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
  case RD_KAFKA_RESP_ERR__AUTHENTICATION:
  case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
  case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
  case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT: member_trouble(member, code, text); return;
  default: return;
  }
}

// The event goes first: who is told may leave, and an event must not outlive its consumer.
static void on_committed(rd_kafka_event_t *event) {
  struct commit *commit = rd_kafka_event_opaque(event);
  rd_kafka_resp_err_t code = commit_code(event);
  rd_kafka_event_destroy(event);
  if (commit) commit_end(commit, code);
}

// The event is destroyed, or kept.
static void on_event(struct kafka_member *member, rd_kafka_event_t *event) {
  switch (rd_kafka_event_type(event)) {
  case RD_KAFKA_EVENT_REBALANCE: on_rebalance(member, event); return;
  case RD_KAFKA_EVENT_FETCH:
    for (const rd_kafka_message_t *message; (message = rd_kafka_event_message_next(event));)
      if (!message->err) on_message(member, message);
    break;
  case RD_KAFKA_EVENT_OFFSET_COMMIT: on_committed(event); return;
  case RD_KAFKA_EVENT_ERROR: on_trouble(member, event); break;
  default: cluster_on_event(member->cluster, event);
  }
  rd_kafka_event_destroy(event);
}

static void member_stall(struct kafka_member *member) {
  member->stalled = true;
  member->full_since_us = 0;
  if (!act_submit(member, ACT_STALL, places_list(member))) member->stalled = false;
}

static void tick_set(struct kafka_member *member) {
  int64_t after_us = member->full_since_us ? STALLED_US : member->poll_us;
  if (timer_set(timers_of(member), &member->tick, now_us(member) + after_us))
    member_fail(member, RD_KAFKA_RESP_ERR__FAIL, "out of memory");
}

static bool may_poll(struct kafka_member *member) {
  if (member->state != MEMBER_LIVE || member->holds > 0) return false;
  if (!member_is_full(member)) return true;
  // What a paused consumer still brings is little; more is left where it is.
  if (member->stalled) return member->fetched.count < 2 * 512 && member->fetched.bytes < 2 * 1024 * 1024;
  if (!member->full_since_us) {
    member->full_since_us = now_us(member);
    tick_set(member);
  }
  return false;
}

static void on_records_readable(struct ev_loop *ev, struct ev_io *io, int events) {
  struct kafka_member *member = io->data;
  uint64_t count;
  int most = TURN_EVENTS;
  size_t before = member->fetched.bytes;
  (void)ev;
  (void)events;
  eventfd_read(member->records.fd, &count);
  // To the end, or librdkafka, which signals only the first of an empty queue, would stay silent.
  while (most > 0 && member->fetched.bytes - before < TURN_BYTES && may_poll(member)) {
    rd_kafka_event_t *event = rd_kafka_queue_poll(member->records.queue, 0);
    if (!event) break;
    on_event(member, event);
    most--;
  }
  if (most == 0 && member->state == MEMBER_LIVE) queue_watch_kick(&member->records);
  if (member->fetched.count || member->lost_state == LOST_UNTOLD || member->trouble) member_wake(member, BRIDGE_OK);
}

static void on_events_readable(struct ev_loop *ev, struct ev_io *io, int events) {
  struct kafka_member *member = io->data;
  rd_kafka_event_t *event;
  uint64_t count;
  (void)ev;
  (void)events;
  eventfd_read(member->events.fd, &count);
  while (member->state == MEMBER_LIVE && (event = rd_kafka_queue_poll(member->events.queue, 0)))
    on_event(member, event);
  if (member->trouble && member->state == MEMBER_LIVE) member_wake(member, BRIDGE_OK);
}

static void on_tick(struct timer *timer) {
  struct kafka_member *member = (struct kafka_member *)((char *)timer - offsetof(struct kafka_member, tick));
  if (member->state == MEMBER_FAILED) {
    member_wake(member, BRIDGE_OK);
    member_say(member, member->trouble, member->trouble_text);
    commits_forget(member, BRIDGE_FAILED);
    return;
  }
  if (member->full_since_us && now_us(member) - member->full_since_us >= STALLED_US) member_stall(member);
  queue_watch_kick(&member->records);
  tick_set(member);
}

// ---- Read ----

static void member_make_room(struct kafka_member *member) {
  if (member->state != MEMBER_LIVE || member_is_full(member)) return;
  if (member->full_since_us) {
    member->full_since_us = 0;
    queue_watch_kick(&member->records);
  }
  if (!member->stalled || member->fetched.count > 256 || member->fetched.bytes > 512 * 1024) return;
  member->stalled = false;
  act_submit(member, ACT_UNSTALL, places_flowing(member));
}

// librdkafka 2.0.2 looks only once a second whether a queue that was full has room again, unless its broker's thread is
// woken by something: without this a member gets one queue of records a second.
static void member_nudge(struct kafka_member *member) {
  member->taken += member->current->size;
  if (member->taken < NUDGE_EVERY_BYTES || member->acts || member->state != MEMBER_LIVE) return;
  member->taken = 0;
  act_submit(member, ACT_NUDGE, places_flowing(member));
}

int kafka_group_next(struct kafka_member *member, const struct kafka_record **out) {
  *out = NULL;
  record_release(member->current);
  member->current = NULL;
  if (member->lost_state == LOST_TOLD) let_go(member);
  if (member->lost_state == LOST_UNTOLD) {
    member->lost_state = LOST_TOLD;
    return KAFKA_REBALANCE;
  }
  if (member->fetched.first && member->fetched.first->gap != GAP_NONE) {
    member->fetched.first->gap = GAP_NONE; // told once
    return KAFKA_GAP;
  }
  while (!member->current && (member->current = records_shift(&member->fetched))) {
    struct place *place = place_find(member, member->current->view.topic, member->current->view.partition);
    if (place) {
      place->next = (int64_t)member->current->view.offset + 1;
    } else {
      record_release(member->current);
      member->current = NULL;
    }
  }
  member_make_room(member);
  if (member->current) {
    member_nudge(member);
    *out = &member->current->view;
    return BRIDGE_OK;
  }
  if (!member->trouble) return BRIDGE_AGAIN;
  member_say(member, member->trouble, member->trouble_text);
  if (member->state != MEMBER_FAILED) member->trouble = RD_KAFKA_RESP_ERR_NO_ERROR;
  return BRIDGE_FAILED;
}

static void on_wait_over(struct timer *timer) {
  struct kafka_member *member = (struct kafka_member *)((char *)timer - offsetof(struct kafka_member, timer));
  member_wake(member, BRIDGE_TIMEOUT);
}

int kafka_group_wait_next(struct kafka_member *member, int64_t timeout_us, const struct kafka_group_wait *wait) {
  timer_cancel(timers_of(member), &member->timer);
  member->wait.on_done = NULL;
  if (timeout_us >= 0 && timer_set(timers_of(member), &member->timer, now_us(member) + timeout_us)) return BRIDGE_FULL;
  member->wait = *wait;
  return BRIDGE_OK;
}

const struct kafka_group_wait *kafka_group_waiting(const struct kafka_member *member) {
  return member->wait.on_done ? &member->wait : NULL;
}

int kafka_group_act(struct kafka_member *member, const struct kafka_group_request *request,
                    const struct kafka_group_wait *wait) {
  if (member->state != MEMBER_LIVE) {
    member_say(member, member->trouble, member->trouble_text);
    return BRIDGE_FAILED;
  }
  return request->act == KAFKA_COMMIT ? commit_begin(member, request, wait) : act_begin(member, request, wait);
}

const struct kafka_result *kafka_group_result(const struct kafka_member *member) {
  return &member->result;
}

static void place_out(const rd_kafka_topic_partition_t *one, struct kafka_place *out) {
  *out = (struct kafka_place){.topic = one->topic,
                              .metadata = one->metadata_size > 0 ? one->metadata : NULL,
                              .offset = one->offset < 0 ? -1 : (double)one->offset,
                              .partition = one->partition};
}

int kafka_group_place(const struct kafka_member *member, int32_t list, uint32_t index, struct kafka_place *out) {
  if (list != KAFKA_ASSIGNED) {
    const rd_kafka_topic_partition_list_t *places = list == KAFKA_LOST ? member->lost : member->answer;
    if (!places || index >= (uint32_t)places->cnt) return BRIDGE_NONE;
    place_out(&places->elems[index], out);
    return BRIDGE_OK;
  }
  if (index >= member->place_count) return BRIDGE_NONE;
  const struct place *place = &member->places[index];
  *out = (struct kafka_place){.topic = place->topic, .partition = place->partition, .offset = (double)place->next};
  return BRIDGE_OK;
}

bool kafka_group_stalled(const struct kafka_member *member) {
  return member->stalled;
}

// ---- Join and leave ----

double kafka_group_handle(const struct kafka_member *member) {
  return kafka_slots_number(&member->kafka->member_slots, member->slot);
}

struct kafka_member *kafka_group_find(struct kafka *kafka, double handle) {
  return kafka_slots_find(&kafka->member_slots, handle);
}

static int64_t poll_interval_us(rd_kafka_t *rk) {
  char value[24] = "";
  size_t size = sizeof value;
  rd_kafka_conf_get(rd_kafka_conf(rk), "max.poll.interval.ms", value, &size);
  int64_t third_us = strtoll(value, NULL, 10) * 1000 / 3;
  return third_us > 0 && third_us < POLL_MOST_US ? third_us : POLL_MOST_US;
}

void member_started(struct kafka_member *member, rd_kafka_resp_err_t code, const char *text) {
  if (member->state != MEMBER_STARTING) return; // its cluster has gone meanwhile
  if (code) {
    member_fail(member, code, text);
    return;
  }
  member_move(member, MEMBER_LIVE);
  member->poll_us = poll_interval_us(member->rk);
  queue_watch_start(&member->records, on_records_readable, member);
  queue_watch_start(&member->events, on_events_readable, member);
  tick_set(member);
}

void member_free(struct kafka_member *member) {
  struct kafka_member **link = &member->kafka->members;
  while (*link != member) link = &(*link)->next;
  *link = member->next;
  commits_free(member);
  queue_watch_close(&member->records);
  queue_watch_close(&member->events);
  records_purge(&member->fetched, NULL);
  record_release(member->current);
  places_clear(member);
  if (member->answer) rd_kafka_topic_partition_list_destroy(member->answer);
  if (member->lost) rd_kafka_topic_partition_list_destroy(member->lost);
  rd_kafka_topic_partition_list_destroy(member->topics);
  member->cluster->consumers--;
  member->cluster->members--;
  cluster_release(member->cluster);
  free(member);
}

static void member_leave(struct kafka_member *member, int status) {
  struct timers *timers = timers_of(member);
  if (member->state == MEMBER_LIVE) {
    queue_watch_stop(&member->records);
    queue_watch_stop(&member->events);
  }
  member_move(member, MEMBER_LEAVING);
  kafka_slots_give(&member->kafka->member_slots, member->slot);
  timer_cancel(timers, &member->tick);
  timer_cancel(timers, &member->handover);
  timer_cancel(timers, &member->timer); // of a wait that hears nothing, too
  if (status == BRIDGE_OK) member->wait.on_done = NULL;
  member_wake(member, status);
  commits_forget(member, status);
  acts_forget(member, status);
  acts_end(member);
}

void kafka_group_leave(struct kafka_member *member) {
  member_leave(member, BRIDGE_CLOSED);
}

static int conf_of_group(rd_kafka_conf_t *conf, const struct kafka_group_options *options, struct error *error) {
  const char *start = options->from == KAFKA_LATEST ? "latest" : "earliest";
  if (cluster_conf_set(conf, "group.id", options->group, error)) return ERROR_INVALID;
  if (cluster_conf_set(conf, "auto.offset.reset", start, error)) return ERROR_INVALID;
  if (cluster_conf_set(conf, "enable.partition.eof", "false", error)) return ERROR_INVALID;
  for (uint32_t i = 0; i < options->pair_count; i++) {
    const char *key = options->pairs[2 * i];
    // What a member relies on: only the user knows what is done, and says so.
    if (strncmp(key, "enable.auto.", 12) == 0 || strcmp(key, "enable.partition.eof") == 0 ||
        strcmp(key, "group.id") == 0)
      return error_set(error, ERROR_INVALID, "%s: not to be set for a member of a group", key);
    if (cluster_conf_set(conf, key, options->pairs[2 * i + 1], error)) return ERROR_INVALID;
  }
  return 0;
}

static rd_kafka_topic_partition_list_t *topics_of(const struct kafka_group_options *options, struct error *error) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)options->topic_count);
  for (uint32_t i = 0; i < options->topic_count; i++) {
    if (options->topics[i][0] != '^' && !topic_name_valid(options->topics[i])) {
      error_set(error, ERROR_INVALID, "topic: expected 1 to 249 letters, digits, \".\", \"_\" or \"-\"");
      rd_kafka_topic_partition_list_destroy(list);
      return NULL;
    }
    rd_kafka_topic_partition_list_add(list, options->topics[i], RD_KAFKA_PARTITION_UA);
  }
  return list;
}

static struct kafka_member *member_new(struct cluster *cluster, const struct kafka_group_options *options,
                                       struct error *error) {
  struct kafka_member *member = calloc(1, sizeof *member);
  if (!member) return NULL;
  member->kafka = cluster->kafka;
  member->records.fd = member->events.fd = -1;
  member->topics = topics_of(options, error);
  member->conf = member->topics ? cluster_conf(cluster, RD_KAFKA_CONSUMER, error) : NULL;
  if (!member->conf || conf_of_group(member->conf, options, error)) goto fail;
  cluster_conf_events(cluster, member->conf,
                      RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT);
  if (queue_watch_init(&member->records, cluster->kafka, error)) goto fail;
  if (queue_watch_init(&member->events, cluster->kafka, error)) goto fail;
  if (kafka_slots_take(&cluster->kafka->member_slots, MEMBERS_MAX, member, &member->slot)) {
    error_set(error, ERROR_MEMORY, "too many consumers");
    goto fail;
  }
  return member;
fail:
  queue_watch_close(&member->records);
  queue_watch_close(&member->events);
  if (member->conf) rd_kafka_conf_destroy(member->conf);
  if (member->topics) rd_kafka_topic_partition_list_destroy(member->topics);
  free(member);
  return NULL;
}

static void member_begin(struct kafka_member *member, struct cluster *cluster,
                         const struct kafka_group_options *options) {
  member->cluster = cluster;
  cluster_hold(cluster);
  cluster->consumers++;
  cluster->members++;
  if (cluster->state == CLUSTER_IDLE) cluster->state = CLUSTER_CONNECTING;
  member->acts_last = &member->acts;
  member->subscribed = member->topics->cnt > 0;
  member->handover_us = options->handover_s < 1e9 ? (int64_t)(options->handover_s * 1e6) : INT64_MAX / 2;
  timer_init(&member->timer, on_wait_over);
  timer_init(&member->tick, on_tick);
  timer_init(&member->handover, on_handover_over);
  member_say(member, RD_KAFKA_RESP_ERR_NO_ERROR, "");
  member->next = member->kafka->members;
  member->kafka->members = member;
}

struct kafka_member *kafka_group_join(struct kafka *kafka, const struct kafka_group_options *options,
                                      const struct kafka_group_wait *wait, int *status, struct error *error) {
  struct cluster *cluster = cluster_find(kafka, options->cluster);
  if (!cluster) {
    error_set(error, ERROR_INVALID, "no Kafka cluster named \"%.100s\"", options->cluster);
    *status = BRIDGE_NONE;
    return NULL;
  }
  if (cluster->members >= cluster->members_max) {
    error_set(error, ERROR_MEMORY, "cluster %s: %u consumers already (consumers_max)", cluster->name, cluster->members);
    *status = BRIDGE_FULL;
    return NULL;
  }
  *status = BRIDGE_INVALID;
  struct kafka_member *member = member_new(cluster, options, error);
  if (!member) return NULL;
  member_begin(member, cluster, options);
  struct act *act = act_submit(member, ACT_START, NULL);
  if (act) {
    act->wait = *wait;
    return member;
  }
  *status = BRIDGE_FULL;
  kafka_group_leave(member);
  return NULL;
}

void members_fail(struct cluster *cluster, const char *text) {
  for (struct kafka_member *member = cluster->kafka->members; member; member = member->next)
    if (member->cluster == cluster && member->state < MEMBER_FAILED)
      member_fail(member, RD_KAFKA_RESP_ERR__DESTROY, text);
}

void members_close(struct kafka *kafka) {
  for (struct kafka_member *member = kafka->members; member; member = member->next)
    if (member->state != MEMBER_LEAVING) member_leave(member, BRIDGE_OK);
}
