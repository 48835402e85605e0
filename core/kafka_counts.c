// SPDX-License-Identifier: Apache-2.0
// What a cluster counts, for metrics and status: records and bytes by topic, how long acknowledgements took, brokers as
// librdkafka's statistics name them, how far consumers are behind. Plain numbers of this worker; Lua adds them up.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_member.h"
#include "kafka_parts.h"
#include "kafka_reader.h"

enum { TOPICS_COUNTED_MOST = 1024 }; // more are counted as one topic without a name

static const double latency_bounds[KAFKA_LATENCY_BUCKETS - 1] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
                                                                 0.2,   0.5,   1,     2,    5,    10,   30};

struct topic_counts {
  struct topic_counts *next;
  struct kafka_topic_status counts;
  char name[TOPIC_NAME_BYTES];
};

// ---- Topics ----

static struct topic_counts *topic_new(struct cluster *cluster, const char *name) {
  if (cluster->topic_count >= TOPICS_COUNTED_MOST) name = "";
  if (!*name)
    for (struct topic_counts *topic = cluster->topics; topic; topic = topic->next)
      if (!topic->name[0]) return topic;
  struct topic_counts *topic = calloc(1, sizeof *topic);
  if (!topic) return NULL;
  snprintf(topic->name, sizeof topic->name, "%s", name);
  topic->counts.name = topic->name;
  topic->next = cluster->topics;
  cluster->topics = topic;
  cluster->topic_count++;
  return topic;
}

// The last one asked for is found first: records come in runs of one topic.
static struct topic_counts *topic_of(struct cluster *cluster, const char *name) {
  for (struct topic_counts **link = &cluster->topics; *link; link = &(*link)->next) {
    struct topic_counts *topic = *link;
    if (strcmp(topic->name, name) != 0) continue;
    *link = topic->next;
    topic->next = cluster->topics;
    cluster->topics = topic;
    return topic;
  }
  return topic_new(cluster, name);
}

void counts_free(struct cluster *cluster) {
  while (cluster->topics) {
    struct topic_counts *topic = cluster->topics;
    cluster->topics = topic->next;
    free(topic);
  }
}

static void count_latency(struct cluster *cluster, double seconds) {
  uint32_t bucket = 0;
  while (bucket < KAFKA_LATENCY_BUCKETS - 1 && seconds > latency_bounds[bucket]) bucket++;
  cluster->latency[bucket]++;
  cluster->latency_s += seconds;
}

void count_report(struct cluster *cluster, const rd_kafka_message_t *message) {
  struct topic_counts *topic = topic_of(cluster, rd_kafka_topic_name(message->rkt));
  if (message->err) {
    cluster->failed++;
    if (topic) topic->counts.failed++;
    return;
  }
  cluster->delivered++;
  int64_t latency_us = rd_kafka_message_latency(message);
  if (latency_us >= 0) count_latency(cluster, (double)latency_us / 1e6);
  if (!topic) return;
  topic->counts.delivered++;
  topic->counts.delivered_bytes += (double)(message->key_len + message->len);
}

void count_consumed(struct cluster *cluster, const char *name, const rd_kafka_message_t *message) {
  double bytes = (double)(message->key_len + message->len);
  struct topic_counts *topic = topic_of(cluster, name);
  cluster->consumed++;
  cluster->consumed_bytes += bytes;
  if (!topic) return;
  topic->counts.consumed++;
  topic->counts.consumed_bytes += bytes;
}

// ---- Brokers ----

// The text of `"name":"text"` between `from` and `end`; false: there is none.
static bool text_in(const char *from, const char *end, const char *name, char *out, size_t room) {
  char key[32];
  snprintf(key, sizeof key, "\"%s\":", name);
  const char *at = strstr(from, key);
  if (!at || at >= end) return false;
  at += strlen(key);
  while (*at == ' ' || *at == '"') at++;
  size_t len = strcspn(at, "\",}");
  snprintf(out, room, "%.*s", (int)(len < room ? len : room - 1), at);
  return true;
}

static void broker_take(struct cluster *cluster, const char *from, const char *end) {
  struct kafka_broker *broker = &cluster->brokers[cluster->broker_count];
  char id[16], source[16];
  if (!text_in(from, end, "nodeid", id, sizeof id) || !text_in(from, end, "source", source, sizeof source)) return;
  if (!text_in(from, end, "nodename", broker->name, sizeof broker->name)) return;
  if (!text_in(from, end, "state", broker->state, sizeof broker->state)) return;
  for (char *at = broker->state; *at; at++)
    if (*at >= 'A' && *at <= 'Z') *at = (char)(*at - 'A' + 'a');
  broker->id = (int32_t)strtol(id, NULL, 10);
  bool ours = strcmp(source, "learned") == 0 || strcmp(source, "configured") == 0;
  if (ours) cluster->broker_count++;
}

// Of the bootstrap list only those stay that no broker has claimed to be.
static void brokers_merge(struct cluster *cluster) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < cluster->broker_count; i++) {
    bool known = false;
    for (uint32_t k = 0; k < cluster->broker_count && cluster->brokers[i].id < 0; k++)
      known |= cluster->brokers[k].id >= 0 && strcmp(cluster->brokers[k].name, cluster->brokers[i].name) == 0;
    if (!known) cluster->brokers[kept++] = cluster->brokers[i];
  }
  cluster->broker_count = kept;
}

void count_brokers(struct cluster *cluster, const char *json) {
  const char *at = strstr(json, "\"brokers\":");
  const char *end = at ? strstr(at, "\"topics\":{") : NULL;
  if (!end) return;
  cluster->broker_count = 0;
  while (cluster->broker_count < BROKERS_MOST && (at = strstr(at, "\"nodeid\":")) && at < end) {
    const char *next = strstr(at + 1, "\"nodeid\":");
    broker_take(cluster, at, next && next < end ? next : end);
    at++;
  }
  brokers_merge(cluster);
}

// ---- What is asked ----

static struct cluster *cluster_nth(struct kafka *kafka, uint32_t index) {
  struct cluster *cluster = kafka->clusters;
  while (cluster && index--) cluster = cluster->next;
  return cluster;
}

int kafka_topic_at(struct kafka *kafka, uint32_t cluster_index, uint32_t index, struct kafka_topic_status *out) {
  const struct cluster *cluster = cluster_nth(kafka, cluster_index);
  const struct topic_counts *topic = cluster ? cluster->topics : NULL;
  while (topic && index--) topic = topic->next;
  if (!topic) return BRIDGE_NONE;
  *out = topic->counts;
  return BRIDGE_OK;
}

int kafka_broker_at(struct kafka *kafka, uint32_t cluster_index, uint32_t index, struct kafka_broker *out) {
  const struct cluster *cluster = cluster_nth(kafka, cluster_index);
  if (!cluster || index >= cluster->broker_count) return BRIDGE_NONE;
  *out = cluster->brokers[index];
  return BRIDGE_OK;
}

double kafka_latency_bound(uint32_t index) {
  return index < KAFKA_LATENCY_BUCKETS - 1 ? latency_bounds[index] : 0;
}

// ---- Lag: by the end of each partition as the last fetch told it ----

static void lag_put(rd_kafka_t *rk, const char *topic, int32_t partition, int64_t next, struct kafka_lag *out) {
  int64_t low, high;
  out->topic = topic;
  out->partition = partition;
  out->records = -1;
  if (next < 0 || rd_kafka_get_watermark_offsets(rk, topic, partition, &low, &high) || high < 0) return;
  out->records = high > next ? (double)(high - next) : 0;
}

static uint32_t lags_of_feeds(const struct cluster *cluster, struct kafka_lag *out, uint32_t most) {
  uint32_t count = 0;
  for (const struct feed *feed = cluster->feeds; feed; feed = feed->next)
    for (uint32_t i = 0; feed->state == FEED_LIVE && i < feed->partition_count && count < most; i++) {
      out[count].group[0] = 0;
      lag_put(feed->rk, feed->topic, (int32_t)i, feed->partitions[i].next, &out[count++]);
    }
  return count;
}

static uint32_t lags_of_member(const struct kafka_member *member, struct kafka_lag *out, uint32_t most) {
  uint32_t count = 0;
  for (; count < member->place_count && count < most; count++) {
    const struct place *place = &member->places[count];
    size_t size = sizeof out[count].group;
    rd_kafka_conf_get(rd_kafka_conf(member->rk), "group.id", out[count].group, &size);
    lag_put(member->rk, place->topic, place->partition, place->next, &out[count]);
  }
  return count;
}

uint32_t kafka_lags(struct kafka *kafka, uint32_t cluster_index, struct kafka_lag *out, uint32_t most) {
  const struct cluster *cluster = cluster_nth(kafka, cluster_index);
  if (!cluster) return 0;
  uint32_t count = lags_of_feeds(cluster, out, most);
  for (const struct kafka_member *member = kafka->members; member; member = member->next)
    if (member->cluster == cluster && member->state == MEMBER_LIVE && count < most)
      count += lags_of_member(member, out + count, most - count);
  return count;
}
