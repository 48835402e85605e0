// SPDX-License-Identifier: Apache-2.0
// What a member asks of librdkafka. Nearly all of it waits for librdkafka's main thread or for the broker, so it is done
// in errands, one after the other; a commit answers by an event.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_member.h"

enum { COMMITS_MAX = 64, ACTS_MAX = 64, TIMEOUT_MOST_MS = 60000, NUDGE_MS = 250 };

// ---- On a helper thread ----

static void act_failed(struct act *act, rd_kafka_resp_err_t code, const char *text) {
  act->code = code;
  snprintf(act->text, sizeof act->text, "%s", text);
}

static void take_error(struct act *act, rd_kafka_error_t *error) {
  if (!error) return;
  act_failed(act, rd_kafka_error_code(error), rd_kafka_error_string(error));
  rd_kafka_error_destroy(error);
}

static void run_start(struct act *act) {
  struct kafka_member *member = act->member;
  char text[200];
  member->rk = rd_kafka_new(RD_KAFKA_CONSUMER, member->conf, text, sizeof text);
  if (!member->rk) {
    act_failed(act, RD_KAFKA_RESP_ERR__FAIL, text);
    return;
  }
  member->conf = NULL; // the handle's now
  rd_kafka_set_log_queue(member->rk, NULL);
  cluster_join(member->cluster, member->rk);
  queue_watch_bind(&member->records, rd_kafka_queue_get_consumer(member->rk));
  queue_watch_bind(&member->events, rd_kafka_queue_get_main(member->rk));
  if (member->topics->cnt > 0) act->code = rd_kafka_subscribe(member->rk, member->topics);
}

static bool is_cooperative(rd_kafka_t *rk) {
  const char *protocol = rd_kafka_rebalance_protocol(rk);
  return protocol && strcmp(protocol, "COOPERATIVE") == 0;
}

static void run_assign(struct act *act) {
  rd_kafka_t *rk = act->member->rk;
  rd_kafka_resume_partitions(rk, act->places); // one that was paused, lost and is had again is not paused
  if (is_cooperative(rk))
    take_error(act, rd_kafka_incremental_assign(rk, act->places));
  else
    act->code = rd_kafka_assign(rk, act->places);
}

static void run_revoke(struct act *act) {
  rd_kafka_t *rk = act->member->rk;
  if (is_cooperative(rk))
    take_error(act, rd_kafka_incremental_unassign(rk, act->places));
  else
    act->code = rd_kafka_assign(rk, NULL);
}

static void run_pause(struct act *act) {
  act->code = rd_kafka_pause_partitions(act->member->rk, act->places);
}

static void run_resume(struct act *act) {
  act->code = rd_kafka_resume_partitions(act->member->rk, act->places);
}

// librdkafka 2.0.2 does not end what it gives as metadata with a zero.
static void end_metadata(rd_kafka_topic_partition_t *place) {
  char *ended = place->metadata_size > 0 ? malloc(place->metadata_size + 1) : NULL;
  if (ended) {
    memcpy(ended, place->metadata, place->metadata_size);
    ended[place->metadata_size] = 0;
  }
  if (!ended) place->metadata_size = 0;
  free(place->metadata);
  place->metadata = ended;
}

static void run_nudge(struct act *act) {
  rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
  for (int i = 0; !code && i < act->places->cnt; i++) {
    const rd_kafka_topic_partition_t *one = &act->places->elems[i];
    int64_t low, high;
    code = rd_kafka_query_watermark_offsets(act->member->rk, one->topic, one->partition, &low, &high, NUDGE_MS);
  }
}

static void run_committed(struct act *act) {
  act->code = rd_kafka_committed(act->member->rk, act->places, act->timeout_ms);
  for (int i = 0; i < act->places->cnt; i++) end_metadata(&act->places->elems[i]);
}

// Ends and starts of the log as offsets: librdkafka would look them up later, and what was produced meanwhile would count.
static rd_kafka_resp_err_t resolve(const struct act *act) {
  rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
  for (int i = 0; !code && i < act->places->cnt; i++) {
    rd_kafka_topic_partition_t *one = &act->places->elems[i];
    int64_t low, high;
    if (one->offset != KAFKA_LATEST && one->offset != KAFKA_EARLIEST) continue;
    code = rd_kafka_query_watermark_offsets(act->member->rk, one->topic, one->partition, &low, &high, act->timeout_ms);
    if (!code) one->offset = one->offset == KAFKA_LATEST ? high : low;
  }
  return code;
}

static void run_seek(struct act *act) {
  act->code = resolve(act);
  if (act->code) {
    for (int i = 0; i < act->places->cnt; i++) act->places->elems[i].err = act->code;
    return;
  }
  take_error(act, rd_kafka_seek_partitions(act->member->rk, act->places, act->timeout_ms));
  for (int i = 0; !act->code && i < act->places->cnt; i++) act->code = act->places->elems[i].err;
}

// Those of which records were fetched and not given go back to these.
static void run_resume_again(struct act *act) {
  rd_kafka_topic_partition_list_t *again = rd_kafka_topic_partition_list_new(act->places->cnt);
  act->code = rd_kafka_resume_partitions(act->member->rk, act->places);
  for (int i = 0; i < act->places->cnt; i++) {
    const rd_kafka_topic_partition_t *one = &act->places->elems[i];
    if (one->offset >= 0) rd_kafka_topic_partition_list_add(again, one->topic, one->partition)->offset = one->offset;
  }
  if (!act->code && again->cnt > 0) take_error(act, rd_kafka_seek_partitions(act->member->rk, again, act->timeout_ms));
  rd_kafka_topic_partition_list_destroy(again);
}

static void run_subscribe(struct act *act) {
  rd_kafka_t *rk = act->member->rk;
  act->code = act->places->cnt > 0 ? rd_kafka_subscribe(rk, act->places) : rd_kafka_unsubscribe(rk);
}

static void run_choose(struct act *act) {
  act->code = resolve(act);
  if (!act->code) act->code = rd_kafka_assign(act->member->rk, act->places->cnt > 0 ? act->places : NULL);
}

static void run_leave(struct act *act) {
  struct kafka_member *member = act->member;
  // A revocation that was never answered would keep the consumer from closing.
  if (member->rk && member->revocation) rd_kafka_assign(member->rk, NULL);
  rd_kafka_event_destroy(member->revocation);
  member->revocation = NULL;
  if (member->rk) rd_kafka_consumer_close(member->rk);
  if (member->records.queue) rd_kafka_queue_destroy(member->records.queue);
  if (member->events.queue) rd_kafka_queue_destroy(member->events.queue);
  member->records.queue = member->events.queue = NULL;
  if (member->rk) {
    cluster_leave(member->cluster, member->rk);
    rd_kafka_destroy(member->rk);
  }
  if (member->conf) rd_kafka_conf_destroy(member->conf);
}

static void act_run(struct errand *errand) {
  static void (*const runs[])(struct act *) = {
      [ACT_START] = run_start,         [ACT_ASSIGN] = run_assign,  [ACT_REVOKE] = run_revoke,
      [ACT_STALL] = run_pause,         [ACT_UNSTALL] = run_resume, [ACT_COMMITTED] = run_committed,
      [ACT_SEEK] = run_seek,           [ACT_PAUSE] = run_pause,    [ACT_RESUME] = run_resume_again,
      [ACT_SUBSCRIBE] = run_subscribe, [ACT_CHOOSE] = run_choose,  [ACT_LEAVE] = run_leave,
      [ACT_NUDGE] = run_nudge,
  };
  struct act *act = (struct act *)((char *)errand - offsetof(struct act, errand));
  runs[act->kind](act);
}

// ---- On the loop ----

static void acts_go_on(struct kafka_member *member) {
  if (member->acts) errands_submit(member->kafka->errands, &member->acts->errand);
}

static void act_free(struct act *act) {
  if (act->places) rd_kafka_topic_partition_list_destroy(act->places);
  free(act);
}

// Records from the new place on are expected, whatever they are.
static void places_sought(struct kafka_member *member, rd_kafka_topic_partition_list_t *list) {
  for (int i = list->cnt; i-- > 0;) {
    const rd_kafka_topic_partition_t *one = &list->elems[i];
    struct place *place = place_find(member, one->topic, one->partition);
    if (one->err) {
      rd_kafka_topic_partition_list_del_by_idx(list, i); // it stays where it was
    } else if (place) {
      place->next = one->offset >= 0 ? one->offset : -1;
      place->again = place->expected = -1;
    }
  }
  records_purge(&member->fetched, list);
}

static void places_pause(struct kafka_member *member, const rd_kafka_topic_partition_list_t *list) {
  for (const struct record *record = member->fetched.first; record; record = record->next) {
    struct place *place = place_find(member, record->view.topic, record->view.partition);
    bool paused = rd_kafka_topic_partition_list_find(list, record->view.topic, record->view.partition) != NULL;
    if (place && paused && place->again < 0) place->again = (int64_t)record->view.offset;
  }
  for (int i = 0; i < list->cnt; i++) {
    struct place *place = place_find(member, list->elems[i].topic, list->elems[i].partition);
    if (place) place->paused = true;
  }
  records_purge(&member->fetched, list);
}

static void places_resume(struct kafka_member *member, const rd_kafka_topic_partition_list_t *list) {
  for (int i = 0; i < list->cnt; i++) {
    struct place *place = place_find(member, list->elems[i].topic, list->elems[i].partition);
    if (!place) continue;
    if (place->again >= 0) place->expected = -1;
    place->paused = false;
    place->again = -1;
  }
}

static void answer_set(struct kafka_member *member, rd_kafka_topic_partition_list_t **list) {
  if (member->answer) rd_kafka_topic_partition_list_destroy(member->answer);
  member->answer = *list;
  *list = NULL;
}

static void places_choose(struct kafka_member *member, rd_kafka_topic_partition_list_t *list) {
  records_purge(&member->fetched, NULL);
  places_clear(member);
  places_add(member, list);
  places_sought(member, list);
}

static void act_answer(struct act *act) {
  struct kafka_member *member = act->member;
  switch (act->kind) {
  case ACT_ASSIGN: places_add(member, act->places); break;
  case ACT_REVOKE: places_remove(member, act->places); break;
  case ACT_COMMITTED: answer_set(member, &act->places); break;
  case ACT_SUBSCRIBE: member->subscribed = act->places->cnt > 0; break;
  case ACT_SEEK: places_sought(member, act->places); break;
  case ACT_PAUSE: places_pause(member, act->places); break;
  case ACT_RESUME: places_resume(member, act->places); break;
  case ACT_CHOOSE: places_choose(member, act->places); break;
  default: break;
  }
  // These let flow what was to stand still.
  if (member->stalled && (act->kind == ACT_RESUME || act->kind == ACT_CHOOSE))
    act_submit(member, ACT_STALL, places_list(member));
}

static void act_take_effect(struct act *act) {
  struct kafka_member *member = act->member;
  const char *text = act->text[0] ? act->text : rd_kafka_err2str(act->code);
  // Of what was asked for the one who asked hears.
  if (act->code && act->kind < ACT_COMMITTED) cluster_failed(member->cluster, act->code, text);
  if (act->kind == ACT_START)
    member_started(member, act->code, text);
  else if (!act->code || act->kind == ACT_ASSIGN || act->kind == ACT_REVOKE || act->kind == ACT_SEEK)
    act_answer(act);
  if (act->holds) member->holds--;
  // What came meanwhile, and after a stall what is to come, which needs no room.
  if (member->state == MEMBER_LIVE) queue_watch_kick(&member->records);
}

static void act_on_done(struct errand *errand) {
  struct act *act = (struct act *)((char *)errand - offsetof(struct act, errand));
  struct kafka_member *member = act->member;
  struct kafka_group_wait wait = act->wait;
  int status = act->code ? BRIDGE_FAILED : BRIDGE_OK;
  bool left = act->kind == ACT_LEAVE;
  member->acts = act->next;
  if (!member->acts) member->acts_last = &member->acts;
  if (!left) acts_go_on(member);
  if (member->state != MEMBER_LEAVING) act_take_effect(act);
  if (wait.on_done) member_say(member, act->code, act->text);
  act_free(act);
  if (left)
    member_free(member);
  else if (wait.on_done)
    wait.on_done(member, &wait, status); // it may be leaving now
}

static struct act *act_new(struct kafka_member *member, enum act_kind kind, rd_kafka_topic_partition_list_t *places) {
  struct act *act = calloc(1, sizeof *act);
  if (act)
    *act = (struct act){
        .errand = {.run = act_run, .on_done = act_on_done}, .member = member, .kind = kind, .places = places};
  else if (places)
    rd_kafka_topic_partition_list_destroy(places);
  return act;
}

// It may run from here on.
static void act_push(struct act *act) {
  struct kafka_member *member = act->member;
  bool first = !member->acts;
  *member->acts_last = act;
  member->acts_last = &act->next;
  if (first) acts_go_on(member);
}

struct act *act_submit(struct kafka_member *member, enum act_kind kind, rd_kafka_topic_partition_list_t *places) {
  struct act *act = act_new(member, kind, places);
  if (act) act_push(act);
  return act;
}

void acts_forget(struct kafka_member *member, int status) {
  for (struct act *act = member->acts; act; act = act->next) {
    struct kafka_group_wait wait = act->wait;
    act->wait.on_done = NULL;
    if (wait.on_done && status != BRIDGE_OK) wait.on_done(member, &wait, status);
  }
}

void acts_end(struct kafka_member *member) {
  struct act *act = member->acts ? member->acts->next : NULL;
  if (member->acts) {
    member->acts->next = NULL;
    member->acts_last = &member->acts->next;
  }
  while (act) {
    struct act *next = act->next;
    act_free(act);
    act = next;
  }
  act_submit(member, ACT_LEAVE, NULL);
}

// ---- Commits ----

static void on_commit_late(struct timer *timer) {
  struct commit *commit = (struct commit *)((char *)timer - offsetof(struct commit, timer));
  struct kafka_group_wait wait = commit->wait;
  commit->wait.on_done = NULL;
  member_say(commit->member, RD_KAFKA_RESP_ERR__TIMED_OUT, "no answer in time; the commit may yet come to pass");
  wait.on_done(commit->member, &wait, BRIDGE_TIMEOUT);
}

static void commit_free(struct commit *commit) {
  timer_cancel(&commit->member->kafka->loop->timers, &commit->timer);
  *commit->link = commit->next;
  if (commit->next) commit->next->link = commit->link;
  commit->member->commit_count--;
  free(commit);
}

static struct commit *commit_new(struct kafka_member *member, double timeout_s) {
  struct timers *timers = &member->kafka->loop->timers;
  struct commit *commit = calloc(1, sizeof *commit);
  if (!commit) return NULL;
  timer_init(&commit->timer, on_commit_late);
  int64_t at_us = member->kafka->loop->clock.mono_us + (int64_t)(timeout_s * 1e6);
  if (timeout_s > 0 && timeout_s < 1e9 && timer_set(timers, &commit->timer, at_us)) {
    free(commit);
    return NULL;
  }
  commit->member = member;
  commit->next = member->commits;
  if (commit->next) commit->next->link = &commit->next;
  commit->link = &member->commits;
  member->commits = commit;
  member->commit_count++;
  return commit;
}

static rd_kafka_topic_partition_list_t *request_list(const struct kafka_group_request *request) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)request->count);
  for (uint32_t i = 0; i < request->count; i++) {
    const struct kafka_place *place = &request->places[i];
    rd_kafka_topic_partition_t *one = rd_kafka_topic_partition_list_add(list, place->topic, place->partition);
    one->offset = (int64_t)place->offset;
    if (place->metadata && (one->metadata = strdup(place->metadata))) one->metadata_size = strlen(place->metadata);
  }
  return list;
}

static rd_kafka_topic_partition_list_t *given_list(const struct kafka_member *member) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)member->place_count);
  for (uint32_t i = 0; i < member->place_count; i++) {
    const struct place *place = &member->places[i];
    if (place->next >= 0) rd_kafka_topic_partition_list_add(list, place->topic, place->partition)->offset = place->next;
  }
  return list;
}

static int commit_queue(struct kafka_member *member, rd_kafka_topic_partition_list_t *list, double timeout_s,
                        const struct kafka_group_wait *wait) {
  struct commit *commit = commit_new(member, timeout_s);
  if (!commit) return BRIDGE_FULL;
  rd_kafka_resp_err_t code = rd_kafka_commit_queue(member->rk, list, member->events.queue, NULL, commit);
  if (code) {
    commit_free(commit);
    member_say(member, code, "");
    return BRIDGE_FAILED;
  }
  commit->wait = *wait;
  return BRIDGE_AGAIN;
}

static int timeout_of(double seconds) {
  return seconds > 0 && seconds < TIMEOUT_MOST_MS / 1000.0 ? (int)(seconds * 1000) + 1 : TIMEOUT_MOST_MS;
}

static enum act_kind kind_of(int32_t act) {
  static const enum act_kind kinds[] = {
      [KAFKA_COMMITTED] = ACT_COMMITTED, [KAFKA_SEEK] = ACT_SEEK,           [KAFKA_PAUSE] = ACT_PAUSE,
      [KAFKA_RESUME] = ACT_RESUME,       [KAFKA_SUBSCRIBE] = ACT_SUBSCRIBE, [KAFKA_ASSIGN] = ACT_CHOOSE};
  return kinds[act];
}

static uint32_t acts_count(const struct kafka_member *member) {
  uint32_t count = 0;
  for (const struct act *act = member->acts; act; act = act->next) count++;
  return count;
}

// Of places that are to be resumed: where they go on.
static void resume_prepare(struct kafka_member *member, rd_kafka_topic_partition_list_t *places) {
  for (int i = 0; i < places->cnt; i++) {
    const struct place *place = place_find(member, places->elems[i].topic, places->elems[i].partition);
    places->elems[i].offset = place ? place->again : RD_KAFKA_OFFSET_INVALID;
  }
}

static const char *state_error(const struct kafka_member *member, enum act_kind kind) {
  if (kind == ACT_CHOOSE && member->subscribed) return "it is subscribed to topics: partitions come from the group";
  if (kind == ACT_SUBSCRIBE && !member->subscribed && member->place_count > 0)
    return "it has partitions of its own choice: assign none first";
  return NULL;
}

int act_begin(struct kafka_member *member, const struct kafka_group_request *request,
              const struct kafka_group_wait *wait) {
  if (request->act < KAFKA_COMMITTED || request->act > KAFKA_ASSIGN) return BRIDGE_INVALID;
  if (acts_count(member) >= ACTS_MAX) return BRIDGE_FULL;
  enum act_kind kind = kind_of(request->act);
  const char *wrong = state_error(member, kind);
  if (wrong) {
    member_say(member, RD_KAFKA_RESP_ERR__STATE, wrong);
    return BRIDGE_FAILED;
  }
  bool all = request->count == 0 && kind != ACT_SUBSCRIBE && kind != ACT_CHOOSE;
  rd_kafka_topic_partition_list_t *places = all ? places_list(member) : request_list(request);
  if (kind == ACT_RESUME) resume_prepare(member, places);
  struct act *act = act_new(member, kind, places);
  if (!act) return BRIDGE_FULL;
  act->timeout_ms = timeout_of(request->timeout_s);
  act->holds = kind == ACT_SEEK || kind == ACT_PAUSE || kind == ACT_RESUME || kind == ACT_CHOOSE;
  if (act->holds) member->holds++;
  act->wait = *wait;
  act_push(act);
  return BRIDGE_AGAIN;
}

int commit_begin(struct kafka_member *member, const struct kafka_group_request *request,
                 const struct kafka_group_wait *wait) {
  if (member->commit_count >= COMMITS_MAX) return BRIDGE_FULL;
  rd_kafka_topic_partition_list_t *list = request->count ? request_list(request) : given_list(member);
  int status = list->cnt ? commit_queue(member, list, request->timeout_s, wait) : BRIDGE_OK;
  rd_kafka_topic_partition_list_destroy(list);
  return status;
}

rd_kafka_resp_err_t commit_code(rd_kafka_event_t *event) {
  rd_kafka_resp_err_t code = rd_kafka_event_error(event);
  const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
  for (int i = 0; !code && list && i < list->cnt; i++) code = list->elems[i].err;
  return code;
}

void commit_end(struct commit *commit, rd_kafka_resp_err_t code) {
  struct kafka_member *member = commit->member;
  struct kafka_group_wait wait = commit->wait;
  commit_free(commit);
  if (!wait.on_done) return;
  member_say(member, code, "");
  wait.on_done(member, &wait, code ? BRIDGE_FAILED : BRIDGE_OK); // it may be leaving now
}

static struct commit *commit_waited_for(const struct kafka_member *member) {
  struct commit *commit = member->commits;
  while (commit && !commit->wait.on_done) commit = commit->next;
  return commit;
}

void commits_forget(struct kafka_member *member, int status) {
  // From the start each time: whoever is told may change the list.
  for (struct commit *commit; (commit = commit_waited_for(member));) {
    struct kafka_group_wait wait = commit->wait;
    commit->wait.on_done = NULL;
    timer_cancel(&member->kafka->loop->timers, &commit->timer);
    if (status != BRIDGE_OK) wait.on_done(member, &wait, status);
  }
}

void commits_free(struct kafka_member *member) {
  while (member->commits) commit_free(member->commits);
}
