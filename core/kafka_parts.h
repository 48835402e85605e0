// SPDX-License-Identifier: Apache-2.0
// What kafka.c, kafka_produce*.c, kafka_cluster.c, kafka_feed.c and kafka_reader.c (consumers, readers), kafka_admin*.c and
// kafka_mock.c share. Nobody else includes it: this and those are where librdkafka is named.
#pragma once
#include <ev.h>
#include <librdkafka/rdkafka.h>
#include <stddef.h>

#include "errands.h"
#include "kafka.h"
#include "kafka_slots.h"

enum {
  CLUSTER_NAME_BYTES = 128,
  TOPIC_NAME_BYTES = 250, // Kafka's limit is 249
  PROPERTIES_MAX = 128,
  READERS_MAX = 65536,
  BROKERS_MOST = 32,      // that are told of
  MEMBERS_MAX = 4096,     // of groups, in a worker; a cluster's own limit is a setting
  FEEDS_PRIVATE_MAX = 64, // readers that catch up at one time, each with a consumer and up to 16 MB
  HELPERS = 8
};

enum cluster_state { CLUSTER_IDLE, CLUSTER_CONNECTING, CLUSTER_UP, CLUSTER_DOWN };

struct property {
  char *key, *value;
};

// Referred to by kafka->clusters while it is not dropped, by each producer and by each feed: freed with the last.
struct cluster {
  struct cluster *next;
  struct kafka *kafka;
  uint32_t refs;
  bool dropped;
  char name[CLUSTER_NAME_BYTES];
  struct property properties[PROPERTIES_MAX]; // as given
  uint32_t property_count;
  bool embedded;
  char servers[512];
  uint32_t window_records, window_bytes;
  int32_t linger_ms;
  bool own_timeout;                 // message.timeout.ms is given: no route's timeout takes its place
  size_t queue_bytes, queued_bytes; // what may be with producers, and what is, until it is reported
  struct kafka_mock *mock;          // of this process
  struct tokens *tokens;            // NULL unless the cluster wants tokens of ours
  struct producer *producers;
  struct feed *feeds;             // shared ones
  struct admin_client *admins[2]; // the second one, of a group, for what needs that: see kafka_admin.c
  uint32_t consumers;             // shared and private feeds, and members of groups
  uint32_t members, members_max;
  uint32_t readers;
  enum cluster_state state;
  char error[600];   // a line of librdkafka's and what it means here
  char logged[256];  // what the log was told last
  double error_at;   // seconds since 1970
  int64_t logged_us; // when its last trouble was logged: once a second is enough, the same once a minute
  double produced, delivered, failed, refused, consumed, consumed_bytes;
  struct topic_counts *topics;
  uint32_t topic_count;
  double latency[KAFKA_LATENCY_BUCKETS], latency_s;
  struct kafka_broker brokers[BROKERS_MOST]; // of the last statistics that came
  uint32_t broker_count;
};

// ---- kafka_counts.c ----

void count_report(struct cluster *cluster, const rd_kafka_message_t *message);
void count_consumed(struct cluster *cluster, const char *topic, const rd_kafka_message_t *message);
// The brokers that a statistics document names.
void count_brokers(struct cluster *cluster, const char *json);
void counts_free(struct cluster *cluster);

// ---- kafka_trouble.c ----

// Notes the error, and logs it unless one was logged this second.
void cluster_trouble(struct cluster *cluster, const char *text);
// The same of what was asked of a cluster: no news where the cause stands already.
void cluster_failed(struct cluster *cluster, rd_kafka_resp_err_t code, const char *text);
// The same of a record, without the log. That it was late is no news of a cluster that is known to be down.
void cluster_record_failed(struct cluster *cluster, rd_kafka_resp_err_t code);
// Notes what librdkafka reports on a handle's main queue: errors, logs and statistics.
void cluster_on_event(struct cluster *cluster, rd_kafka_event_t *event);

// The token of a cluster, and the handles that have it. From kafka_token.c.
struct tokens;
struct tokens *tokens_new(int wake_fd);
void tokens_free(struct tokens *tokens);
// Whether a handle came since the last call that has no token.
bool tokens_wanted(struct tokens *tokens);

// A librdkafka queue whose becoming non-empty makes an eventfd readable in the loop. `on_readable` drains it.
struct queue_watch {
  struct kafka *kafka;
  rd_kafka_queue_t *queue;
  struct ev_io io;
  int fd;
};

struct embedded {
  struct embedded *next;
  char name[CLUSTER_NAME_BYTES];
  char servers[512];
};

struct kafka {
  struct loop *loop;
  struct queue_watch wake; // without a queue: for resumes that must not happen where they become due
  struct errands *errands;
  struct cluster *clusters;
  struct embedded *embedded;
  struct producer *retired;
  struct feed *feeds_private;
  uint32_t feeds_private_count;
  struct kafka_slots readers, member_slots;
  struct kafka_member *members; // also those that are leaving
  struct kafka_reader *waking;  // to be resumed in this turn, or the next one
  double serial;
  void (*on_token)(void *context, const char *cluster);
  void *token_context;
  struct kafka_result last;   // that on_done was called with
  struct kafka_answer answer; // that on_answer is being called with
};

int queue_watch_init(struct queue_watch *watch, struct kafka *kafka, struct error *error);
// Off the loop or on it: binds the queue, which the watch then owns.
void queue_watch_bind(struct queue_watch *watch, rd_kafka_queue_t *queue);
void queue_watch_start(struct queue_watch *watch, void (*on_readable)(struct ev_loop *, struct ev_io *, int),
                       void *context);
// Has on_readable called again in the next turn.
void queue_watch_kick(struct queue_watch *watch);
void queue_watch_stop(struct queue_watch *watch);
// Closes the descriptor: after the queue's handle is destroyed, since librdkafka writes to it until then.
void queue_watch_close(struct queue_watch *watch);

// Each handle of a cluster, on any thread: after rd_kafka_new, and before rd_kafka_destroy.
void cluster_join(struct cluster *cluster, rd_kafka_t *rk);
void cluster_leave(struct cluster *cluster, rd_kafka_t *rk);

struct cluster *cluster_find(struct kafka *kafka, const char *name);
void cluster_hold(struct cluster *cluster);
void cluster_release(struct cluster *cluster);
void cluster_up(struct cluster *cluster);
// The value of a property that was given, or NULL.
const char *cluster_property(const struct cluster *cluster, const char *key);
// A configuration with our defaults, then the cluster's properties. NULL: `error` names the property.
rd_kafka_conf_t *cluster_conf(const struct cluster *cluster, rd_kafka_type_t type, struct error *error);
// Which events its queue has beside those that cluster_on_event takes; RD_KAFKA_EVENT_DR unless told.
void cluster_conf_events(const struct cluster *cluster, rd_kafka_conf_t *conf, int more);
// One property more. 0 or ERROR_INVALID.
int cluster_conf_set(rd_kafka_conf_t *conf, const char *key, const char *value, struct error *error);
bool topic_name_valid(const char *topic);

// Whoever waits for an answer of the cluster is told this status and text; its client goes.
void admin_end(struct cluster *cluster, int status, const char *why);

// Every reader of the cluster fails with this text.
void feeds_fail(struct cluster *cluster, const char *text);
// Resumes those in kafka->waking.
void readers_wake(struct kafka *kafka);
void readers_close(struct kafka *kafka);
// Every member of a group of the cluster fails with this text.
void members_fail(struct cluster *cluster, const char *text);
void members_close(struct kafka *kafka);
