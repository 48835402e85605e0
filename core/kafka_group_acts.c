// SPDX-License-Identifier: Apache-2.0
// What a member asks of librdkafka. Nearly all of it waits for librdkafka's main thread or for the broker, so it is done
// in errands, one after the other; a commit answers by an event.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_member.h"

enum { COMMITS_MAX = 64 };

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
  act->code = rd_kafka_subscribe(member->rk, member->topics);
}

static bool is_cooperative(rd_kafka_t *rk) {
  const char *protocol = rd_kafka_rebalance_protocol(rk);
  return protocol && strcmp(protocol, "COOPERATIVE") == 0;
}

static void run_assign(struct act *act) {
  rd_kafka_t *rk = act->member->rk;
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
      [ACT_START] = run_start, [ACT_ASSIGN] = run_assign, [ACT_REVOKE] = run_revoke,
      [ACT_PAUSE] = run_pause, [ACT_RESUME] = run_resume, [ACT_LEAVE] = run_leave,
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

static void act_take_effect(struct act *act) {
  struct kafka_member *member = act->member;
  const char *text = act->text[0] ? act->text : rd_kafka_err2str(act->code);
  if (act->code) cluster_trouble(member->cluster, text);
  switch (act->kind) {
  case ACT_START: member_started(member, act->code, text); break;
  case ACT_ASSIGN: places_add(member, act->places); break;
  case ACT_REVOKE: places_remove(member, act->places); break;
  case ACT_PAUSE: queue_watch_kick(&member->records); break; // what is to come now needs no room
  default: break;
  }
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

struct act *act_submit(struct kafka_member *member, enum act_kind kind, rd_kafka_topic_partition_list_t *places) {
  struct act *act = calloc(1, sizeof *act);
  if (!act) {
    if (places) rd_kafka_topic_partition_list_destroy(places);
    return NULL;
  }
  *act = (struct act){
      .errand = {.run = act_run, .on_done = act_on_done}, .member = member, .kind = kind, .places = places};
  bool first = !member->acts;
  *member->acts_last = act;
  member->acts_last = &act->next;
  if (first) acts_go_on(member);
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
