// SPDX-License-Identifier: Apache-2.0
// Consumer groups over topics in memory. Partitions go round the members of a group that want their topic, in the order
// of their coming. One that goes to another member stays the old one's until it lets go, as with a broker: when it asks
// again after having been told, or when the hand-over time is over.
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka.h"
#include "phase.h"
#include "topics.h"
#include "topics_parts.h"
#include "worker.h"

enum { WAIT_MOST_S = 100000000 };

// What a group has committed in a topic.
struct group_topic {
  struct group_topic *next;
  const struct topic *topic;
  int64_t offsets[PARTITIONS_MOST]; // -1: nothing
  char *metadata[PARTITIONS_MOST];
};

struct topic_group {
  struct topic_group *next;
  char *name;
  struct group_topic *topics;
};

// A member's part of a topic: sets of partitions.
struct member_topic {
  struct member_topic *next;
  const struct topic *topic;
  uint64_t owned;
  uint64_t given;   // of the owned: they have been read from
  uint64_t leaving; // of the owned: they wait to be let go of
  uint64_t lost;    // what the member is told of
  uint64_t paused;
  int64_t positions[PARTITIONS_MOST];
};

enum lost_state { LOST_NOTHING, LOST_UNTOLD, LOST_TOLD };

struct topic_member {
  struct topic_member *next;
  struct topics *topics;
  struct topic_group *group;
  char **wanted; // names, or regular expressions that begin with "^"
  uint32_t wanted_count;
  bool chooses; // its partitions are of its own choice
  double number, from;
  double coroutine; // that waits, 0: none
  struct member_topic *parts;
  enum lost_state lost_state;
  int64_t handover_us;
  struct timer handover;
  struct kafka_result result;
  struct kafka_place *answer; // to the last question about commits; metadata are the group's
  uint32_t answer_count;
};

static uint64_t bit_of(uint32_t partition) {
  return (uint64_t)1 << partition;
}

// ---- Groups ----------------------------------------------------------------------------------------------------------

static struct topic_group *group_take(struct topics *topics, const char *name) {
  for (struct topic_group *group = topics->groups; group; group = group->next)
    if (strcmp(group->name, name) == 0) return group;
  struct topic_group *group = calloc(1, sizeof *group);
  if (!group) return NULL;
  group->name = strdup(name);
  group->next = topics->groups;
  topics->groups = group;
  return group;
}

static struct group_topic *group_topic(struct topic_group *group, const struct topic *topic) {
  for (struct group_topic *it = group->topics; it; it = it->next)
    if (it->topic == topic) return it;
  struct group_topic *it = calloc(1, sizeof *it);
  if (!it) return NULL;
  it->topic = topic;
  for (uint32_t i = 0; i < PARTITIONS_MOST; i++) it->offsets[i] = -1;
  it->next = group->topics;
  group->topics = it;
  return it;
}

static struct topic_member **member_at(struct topics *topics, double number) {
  struct topic_member **at = &topics->members;
  while (*at && (*at)->number != number) at = &(*at)->next;
  return at;
}

static struct member_topic *member_part(struct topic_member *member, const struct topic *topic) {
  for (struct member_topic *part = member->parts; part; part = part->next)
    if (part->topic == topic) return part;
  struct member_topic *part = calloc(1, sizeof *part);
  if (!part) return NULL;
  part->topic = topic;
  part->next = member->parts;
  member->parts = part;
  return part;
}

static void member_wake(struct topic_member *member, int status) {
  if (member->coroutine != 0) bridge_wake(member->topics->worker, member->coroutine, status, 0);
  member->coroutine = 0;
}

// ---- Who has what ----------------------------------------------------------------------------------------------------

static bool matches(const char *wanted, const char *name) {
  regex_t expression;
  if (wanted[0] != '^') return strcmp(wanted, name) == 0;
  if (regcomp(&expression, wanted, REG_EXTENDED | REG_NOSUB)) return false;
  bool found = regexec(&expression, name, 0, NULL, 0) == 0;
  regfree(&expression);
  return found;
}

static bool member_wants(const struct topic_member *member, const struct topic *topic) {
  for (uint32_t i = 0; i < member->wanted_count; i++)
    if (matches(member->wanted[i], topic->name)) return true;
  return false;
}

// The member whose turn partition `partition` is. NULL: nobody of the group wants the topic.
static struct topic_member *member_due(const struct topics *topics, const struct topic_group *group,
                                       const struct topic *topic, uint32_t partition) {
  uint32_t count = 0;
  for (const struct topic_member *it = topics->members; it; it = it->next)
    if (it->group == group && member_wants(it, topic)) count++;
  uint32_t turn = count ? partition % count : 0;
  for (struct topic_member *it = topics->members; it; it = it->next)
    if (it->group == group && member_wants(it, topic) && turn-- == 0) return it;
  return NULL;
}

// A member that has chosen its partitions itself has them beside the group.
static struct topic_member *member_owning(const struct topics *topics, const struct topic_group *group,
                                          const struct topic *topic, uint32_t partition) {
  for (struct topic_member *member = topics->members; member; member = member->next)
    for (struct member_topic *part = member->parts; part && member->group == group; part = part->next)
      if (!member->chooses && part->topic == topic && part->owned & bit_of(partition)) return member;
  return NULL;
}

static void partition_give(struct topic_member *member, const struct topic *topic, uint32_t partition) {
  struct member_topic *part = member_part(member, topic);
  const struct group_topic *committed = group_topic(member->group, topic);
  if (!part || !committed) return;
  int64_t begin = member->from <= KAFKA_EARLIEST ? 0 : topic->ends[partition];
  part->owned |= bit_of(partition);
  part->given &= ~bit_of(partition);
  part->paused &= ~bit_of(partition);
  part->positions[partition] = committed->offsets[partition] >= 0 ? committed->offsets[partition] : begin;
  member_wake(member, BRIDGE_OK);
}

static void partition_take(struct topic_member *member, const struct topic *topic, uint32_t partition) {
  struct member_topic *part = member_part(member, topic);
  if (!part || part->leaving & bit_of(partition)) return;
  if (member->lost_state != LOST_UNTOLD)
    for (struct member_topic *it = member->parts; it; it = it->next) it->lost = 0;
  part->leaving |= bit_of(partition);
  part->lost |= bit_of(partition);
  member->lost_state = LOST_UNTOLD;
  int64_t at_us = member->topics->worker->loop.clock.mono_us + member->handover_us;
  timer_set(&member->topics->worker->loop.timers, &member->handover, at_us);
  member_wake(member, BRIDGE_OK);
}

static void partition_place(struct topics *topics, struct topic_group *group, const struct topic *topic,
                            uint32_t partition) {
  struct topic_member *due = member_due(topics, group, topic, partition);
  struct topic_member *owner = member_owning(topics, group, topic, partition);
  if (owner == due) return;
  if (owner)
    partition_take(owner, topic, partition);
  else
    partition_give(due, topic, partition);
}

void groups_rebalance(struct topics *topics) {
  for (struct topic_group *group = topics->groups; group; group = group->next)
    for (const struct topic *topic = topics->topics; topic; topic = topic->next)
      for (uint32_t i = 0; i < topic->partition_count; i++) partition_place(topics, group, topic, i);
}

static void let_go(struct topic_member *member) {
  timer_cancel(&member->topics->worker->loop.timers, &member->handover);
  for (struct member_topic *part = member->parts; part; part = part->next) {
    part->owned &= ~part->leaving;
    part->leaving = 0;
  }
  groups_rebalance(member->topics);
}

static void on_handover_over(struct timer *timer) {
  let_go((struct topic_member *)((char *)timer - offsetof(struct topic_member, handover)));
}

// ---- Read ------------------------------------------------------------------------------------------------------------

static bool has_unread(const struct member_topic *part, const struct kafka_record *view) {
  uint64_t bit = bit_of((uint32_t)view->partition);
  return part->owned & bit && !((part->leaving | part->paused) & bit) &&
         (int64_t)view->offset >= part->positions[view->partition];
}

static const struct kafka_record *oldest_unread(const struct topic_member *member, struct member_topic **of) {
  const struct kafka_record *oldest = NULL;
  for (struct member_topic *part = member->parts; part; part = part->next)
    for (uint32_t i = 0; i < part->topic->count; i++) {
      const struct kafka_record *view = &part->topic->records[i].view;
      if (!has_unread(part, view)) continue;
      if (!oldest || view->serial < oldest->serial) {
        oldest = view;
        *of = part;
      }
      break;
    }
  return oldest;
}

int topics_group_next(struct topics *topics, double number, double timeout_s, const struct kafka_record **out) {
  struct topic_member *member = *member_at(topics, number);
  struct member_topic *part = NULL;
  *out = NULL;
  if (!member) return BRIDGE_STALE;
  if (member->lost_state == LOST_TOLD) {
    member->lost_state = LOST_NOTHING;
    let_go(member);
  }
  if (member->lost_state == LOST_UNTOLD) {
    member->lost_state = LOST_TOLD;
    return KAFKA_REBALANCE;
  }
  *out = oldest_unread(member, &part);
  if (*out) {
    part->positions[(*out)->partition] = (int64_t)(*out)->offset + 1;
    part->given |= bit_of((uint32_t)(*out)->partition);
    return BRIDGE_OK;
  }
  if (!(timeout_s > 0)) return BRIDGE_NONE;
  member_wake(member, BRIDGE_CLOSED);
  member->coroutine = phase_self(topics->worker);
  return bridge_wait(topics->worker, fmin(timeout_s, WAIT_MOST_S));
}

void groups_wake(struct topics *topics, const struct topic *topic) {
  for (struct topic_member *member = topics->members; member; member = member->next)
    for (struct member_topic *part = member->parts; part; part = part->next)
      if (part->topic == topic && part->owned) member_wake(member, BRIDGE_OK);
}

// ---- Act -------------------------------------------------------------------------------------------------------------

// The coroutine goes on in the next turn.
static int answer(struct topic_member *member, const char *name, const char *text) {
  struct worker *worker = member->topics->worker;
  int status = *name ? BRIDGE_FAILED : BRIDGE_OK;
  member->result = (struct kafka_result){.status = status, .partition = -1, .offset = -1, .name = name, .text = text};
  return worker_wake(worker, phase_self(worker), status, 0) < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
}

static void commit_one(struct group_topic *committed, uint32_t partition, double offset, const char *metadata) {
  free(committed->metadata[partition]);
  committed->metadata[partition] = metadata ? strdup(metadata) : NULL;
  committed->offsets[partition] = (int64_t)offset;
}

static int commit_given(struct topic_member *member) {
  bool any = false;
  for (struct member_topic *part = member->parts; part; part = part->next)
    for (uint32_t i = 0; i < part->topic->partition_count; i++) {
      struct group_topic *committed = group_topic(member->group, part->topic);
      if (!committed || !(part->owned & part->given & bit_of(i))) continue;
      commit_one(committed, i, (double)part->positions[i], NULL);
      any = true;
    }
  return any ? answer(member, "", "") : BRIDGE_OK;
}

static int commit(struct topic_member *member, const struct kafka_group_request *request) {
  if (request->count == 0) return commit_given(member);
  const char *error = "";
  for (uint32_t i = 0; i < request->count; i++) {
    const struct kafka_place *place = &request->places[i];
    const struct topic *topic = topic_find(member->topics, place->topic);
    struct group_topic *committed = topic ? group_topic(member->group, topic) : NULL;
    if (!committed || place->partition < 0 || (uint32_t)place->partition >= topic->partition_count)
      error = "UNKNOWN_TOPIC_OR_PART";
    else if (topic_error(member->topics, topic)[0])
      error = topic_error(member->topics, topic);
    else
      commit_one(committed, (uint32_t)place->partition, place->offset, place->metadata);
  }
  return answer(member, error, *error ? "the commit was refused" : "");
}

static struct member_topic *owned_part(struct topic_member *member, const struct kafka_place *place) {
  const struct topic *topic = topic_find(member->topics, place->topic);
  if (!topic || place->partition < 0 || (uint32_t)place->partition >= topic->partition_count) return NULL;
  struct member_topic *part = member_part(member, topic);
  return part && part->owned & bit_of((uint32_t)place->partition) ? part : NULL;
}

static void place_at(struct topic_member *member, struct member_topic *part, const struct kafka_place *place) {
  uint32_t partition = (uint32_t)place->partition;
  const struct group_topic *committed = group_topic(member->group, part->topic);
  int64_t begin = member->from <= KAFKA_EARLIEST ? 0 : part->topic->ends[partition];
  int64_t at = (int64_t)place->offset;
  if (at == KAFKA_STORED) at = committed && committed->offsets[partition] >= 0 ? committed->offsets[partition] : begin;
  if (at == KAFKA_LATEST) at = part->topic->ends[partition];
  if (at == KAFKA_EARLIEST) at = 0;
  part->positions[partition] = at;
  part->given &= ~bit_of(partition);
  if (place->offset >= 0) part->given |= bit_of(partition);
  member_wake(member, BRIDGE_OK);
}

static int seek(struct topic_member *member, const struct kafka_group_request *request) {
  for (uint32_t i = 0; i < request->count; i++) {
    struct member_topic *part = owned_part(member, &request->places[i]);
    if (!part) return answer(member, "_UNKNOWN_PARTITION", "it does not have this partition");
    place_at(member, part, &request->places[i]);
  }
  return answer(member, "", "");
}

static int set_paused(struct topic_member *member, const struct kafka_group_request *request) {
  bool pause = request->act == KAFKA_PAUSE;
  for (struct member_topic *part = member->parts; part && request->count == 0; part = part->next)
    part->paused = pause ? part->owned : 0;
  for (uint32_t i = 0; i < request->count; i++) {
    struct member_topic *part = owned_part(member, &request->places[i]);
    if (!part) continue;
    uint64_t bit = bit_of((uint32_t)request->places[i].partition);
    part->paused = pause ? part->paused | bit : part->paused & ~bit;
  }
  member_wake(member, BRIDGE_OK);
  return answer(member, "", "");
}

static void answer_add(struct topic_member *member, const struct topic *topic, uint32_t partition) {
  const struct group_topic *committed = group_topic(member->group, topic);
  if (!committed) return;
  member->answer[member->answer_count++] = (struct kafka_place){.topic = topic->name,
                                                                .metadata = committed->metadata[partition],
                                                                .offset = (double)committed->offsets[partition],
                                                                .partition = (int32_t)partition};
}

static int committed(struct topic_member *member, const struct kafka_group_request *request) {
  uint32_t room = request->count;
  for (const struct member_topic *part = member->parts; part; part = part->next) room += PARTITIONS_MOST;
  free(member->answer);
  member->answer_count = 0;
  member->answer = calloc(room + 1, sizeof *member->answer);
  if (!member->answer) return BRIDGE_FULL;
  for (uint32_t i = 0; i < request->count; i++) {
    const struct kafka_place *place = &request->places[i];
    const struct topic *topic = topic_find(member->topics, place->topic);
    if (topic && place->partition >= 0 && (uint32_t)place->partition < topic->partition_count)
      answer_add(member, topic, (uint32_t)place->partition);
  }
  for (const struct member_topic *part = member->parts; part && request->count == 0; part = part->next)
    for (uint32_t i = 0; i < part->topic->partition_count; i++)
      if (part->owned & bit_of(i)) answer_add(member, part->topic, i);
  return answer(member, "", "");
}

static int subscribe(struct topic_member *member, const struct kafka_group_request *request) {
  if (member->chooses) return answer(member, "_STATE", "it has partitions of its own choice: assign none first");
  char **wanted = calloc(request->count + 1, sizeof *wanted);
  if (!wanted) return BRIDGE_FULL;
  while (member->wanted_count) free(member->wanted[--member->wanted_count]);
  free(member->wanted);
  member->wanted = wanted;
  for (uint32_t i = 0; i < request->count; i++) {
    if (request->places[i].topic[0] != '^') topic_take(member->topics, request->places[i].topic, 1);
    wanted[member->wanted_count++] = strdup(request->places[i].topic);
  }
  groups_rebalance(member->topics);
  return answer(member, "", "");
}

static int choose(struct topic_member *member, const struct kafka_group_request *request) {
  if (member->wanted_count > 0)
    return answer(member, "_STATE", "it is subscribed to topics: partitions come from the group");
  member->chooses = request->count > 0;
  for (struct member_topic *part = member->parts; part; part = part->next) part->owned = part->paused = 0;
  for (uint32_t i = 0; i < request->count; i++) {
    const struct kafka_place *place = &request->places[i];
    const struct topic *topic = topic_take(member->topics, place->topic, 1);
    struct member_topic *part = topic ? member_part(member, topic) : NULL;
    if (!part || place->partition < 0 || (uint32_t)place->partition >= topic->partition_count) continue;
    part->owned |= bit_of((uint32_t)place->partition);
    place_at(member, part, place);
  }
  return answer(member, "", "");
}

int topics_group_act(struct topics *topics, double number, const struct kafka_group_request *request) {
  static int (*const acts[])(struct topic_member *, const struct kafka_group_request *) = {
      [KAFKA_COMMIT] = commit,     [KAFKA_COMMITTED] = committed, [KAFKA_SEEK] = seek,     [KAFKA_PAUSE] = set_paused,
      [KAFKA_RESUME] = set_paused, [KAFKA_SUBSCRIBE] = subscribe, [KAFKA_ASSIGN] = choose,
  };
  struct topic_member *member = *member_at(topics, number);
  if (!member) return BRIDGE_STALE;
  if (request->act < 0 || (size_t)request->act >= sizeof acts / sizeof *acts) return BRIDGE_INVALID;
  return acts[request->act](member, request);
}

int topics_group_result(struct topics *topics, double number, struct kafka_result *out) {
  const struct topic_member *member = *member_at(topics, number);
  if (!member) return BRIDGE_STALE;
  *out = member->result;
  return BRIDGE_OK;
}

static bool is_listed(const struct member_topic *part, int32_t list, uint32_t partition) {
  return (list == KAFKA_LOST ? part->lost : part->owned) & bit_of(partition);
}

int topics_group_place(struct topics *topics, double number, int32_t list, uint32_t index, struct kafka_place *out) {
  const struct topic_member *member = *member_at(topics, number);
  if (!member) return BRIDGE_STALE;
  if (list == KAFKA_ANSWER) {
    if (index >= member->answer_count) return BRIDGE_NONE;
    *out = member->answer[index];
    return BRIDGE_OK;
  }
  for (const struct member_topic *part = member->parts; part; part = part->next)
    for (uint32_t i = 0; i < part->topic->partition_count; i++) {
      if (!is_listed(part, list, i) || index-- > 0) continue;
      double offset = part->given & bit_of(i) ? (double)part->positions[i] : -1;
      *out = (struct kafka_place){.topic = part->topic->name, .partition = (int32_t)i, .offset = offset};
      return BRIDGE_OK;
    }
  return BRIDGE_NONE;
}

// ---- Life ------------------------------------------------------------------------------------------------------------

static void member_free(struct topic_member *member) {
  timer_cancel(&member->topics->worker->loop.timers, &member->handover);
  while (member->parts) {
    struct member_topic *part = member->parts;
    member->parts = part->next;
    free(part);
  }
  while (member->wanted_count) free(member->wanted[--member->wanted_count]);
  free(member->wanted);
  free(member->answer);
  free(member);
}

static struct topic_member *member_new(struct topics *topics, const struct kafka_group_options *options) {
  struct topic_member *member = calloc(1, sizeof *member);
  if (!member) return NULL;
  member->topics = topics;
  member->from = options->from;
  member->handover_us = (int64_t)(fmin(options->handover_s, WAIT_MOST_S) * 1e6);
  timer_init(&member->handover, on_handover_over);
  member->group = group_take(topics, options->group);
  member->wanted = calloc(options->topic_count + 1, sizeof *member->wanted);
  for (uint32_t i = 0; member->wanted && i < options->topic_count; i++) {
    char *name = strdup(options->topics[i]);
    if (!name) break;
    member->wanted[member->wanted_count++] = name;
  }
  if (member->group && member->wanted_count == options->topic_count) return member;
  member_free(member);
  return NULL;
}

int topics_group_open(struct topics *topics, const struct kafka_group_options *options) {
  if (!topics_has_cluster(topics, options->cluster)) {
    error_set(&topics->worker->error, ERROR_INVALID, "no Kafka cluster named \"%.100s\"", options->cluster);
    return BRIDGE_NONE;
  }
  struct topic_member *member = member_new(topics, options);
  if (!member) return BRIDGE_FULL;
  for (uint32_t i = 0; i < member->wanted_count; i++)
    if (member->wanted[i][0] != '^') topic_take(topics, member->wanted[i], 1);
  struct topic_member **end = &topics->members;
  while (*end) end = &(*end)->next;
  *end = member;
  member->number = ++topics->last_reader;
  groups_rebalance(topics);
  int woken = worker_wake(topics->worker, phase_self(topics->worker), BRIDGE_OK, member->number);
  return woken < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
}

int topics_group_close(struct topics *topics, double number) {
  struct topic_member **at = member_at(topics, number), *member = *at;
  if (!member) return BRIDGE_STALE;
  *at = member->next;
  member_wake(member, BRIDGE_CLOSED);
  member_free(member);
  groups_rebalance(topics);
  return BRIDGE_OK;
}

static void group_free(struct topic_group *group) {
  while (group->topics) {
    struct group_topic *it = group->topics;
    group->topics = it->next;
    for (uint32_t i = 0; i < PARTITIONS_MOST; i++) free(it->metadata[i]);
    free(it);
  }
  free(group->name);
  free(group);
}

void groups_free(struct topics *topics) {
  while (topics->members) {
    struct topic_member *member = topics->members;
    topics->members = member->next;
    member_free(member);
  }
  while (topics->groups) {
    struct topic_group *group = topics->groups;
    topics->groups = group->next;
    group_free(group);
  }
}
