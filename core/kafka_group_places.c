// SPDX-License-Identifier: Apache-2.0
// A member's partitions, sorted, and the records that it has fetched.
#include <stdlib.h>
#include <string.h>

#include "kafka_member.h"

// ---- Partitions ----

static int place_compare(const struct place *place, const char *topic, int32_t partition) {
  int order = strcmp(place->topic, topic);
  return order ? order : (place->partition > partition) - (place->partition < partition);
}

// Where it is, or would be.
static uint32_t place_index(const struct kafka_member *member, const char *topic, int32_t partition) {
  uint32_t low = 0, high = member->place_count;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (place_compare(&member->places[middle], topic, partition) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

struct place *place_find(struct kafka_member *member, const char *topic, int32_t partition) {
  if (member->place_hint >= member->place_count ||
      place_compare(&member->places[member->place_hint], topic, partition) != 0)
    member->place_hint = place_index(member, topic, partition); // records of one partition come in rows
  if (member->place_hint >= member->place_count) return NULL;
  struct place *place = &member->places[member->place_hint];
  return place_compare(place, topic, partition) == 0 ? place : NULL;
}

void places_add(struct kafka_member *member, const rd_kafka_topic_partition_list_t *list) {
  uint32_t most = member->place_count + (uint32_t)list->cnt;
  struct place *places = realloc(member->places, (most ? most : 1) * sizeof *places);
  if (!places) return;
  member->places = places;
  for (int i = 0; i < list->cnt; i++) {
    const rd_kafka_topic_partition_t *one = &list->elems[i];
    if (place_find(member, one->topic, one->partition)) continue;
    uint32_t at = place_index(member, one->topic, one->partition);
    char *topic = strdup(one->topic);
    if (!topic) continue;
    memmove(&places[at + 1], &places[at], (member->place_count - at) * sizeof *places);
    places[at] = (struct place){.topic = topic, .partition = one->partition, .next = -1, .expected = -1, .again = -1};
    member->place_count++;
  }
}

void places_remove(struct kafka_member *member, const rd_kafka_topic_partition_list_t *list) {
  for (int i = 0; i < list->cnt; i++) {
    struct place *place = place_find(member, list->elems[i].topic, list->elems[i].partition);
    if (!place) continue;
    free(place->topic);
    memmove(place, place + 1, (size_t)(member->places + --member->place_count - place) * sizeof *place);
  }
}

void places_clear(struct kafka_member *member) {
  while (member->place_count) free(member->places[--member->place_count].topic);
  free(member->places);
  member->places = NULL;
}

rd_kafka_topic_partition_list_t *places_list(const struct kafka_member *member) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)member->place_count);
  for (uint32_t i = 0; i < member->place_count; i++)
    rd_kafka_topic_partition_list_add(list, member->places[i].topic, member->places[i].partition)->offset =
        member->places[i].next >= 0 ? member->places[i].next : RD_KAFKA_OFFSET_INVALID;
  return list;
}

rd_kafka_topic_partition_list_t *places_flowing(const struct kafka_member *member) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)member->place_count);
  for (uint32_t i = 0; i < member->place_count; i++)
    if (!member->places[i].paused)
      rd_kafka_topic_partition_list_add(list, member->places[i].topic, member->places[i].partition);
  return list;
}

// ---- Records ----

void records_push(struct record_list *list, struct record *record) {
  if (!list->first) list->last = &list->first;
  record->next = NULL;
  *list->last = record;
  list->last = &record->next;
  list->count++;
  list->bytes += record->size;
}

struct record *records_shift(struct record_list *list) {
  struct record *record = list->first;
  if (!record) return NULL;
  list->first = record->next;
  list->count--;
  list->bytes -= record->size;
  return record;
}

void records_purge(struct record_list *list, const rd_kafka_topic_partition_list_t *of) {
  struct record_list kept = {0};
  for (struct record *record; (record = records_shift(list));)
    if (!of || rd_kafka_topic_partition_list_find(of, record->view.topic, record->view.partition))
      record_release(record);
    else
      records_push(&kept, record);
  *list = kept;
  if (!list->first) list->last = &list->first;
}
