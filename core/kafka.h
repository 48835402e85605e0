// SPDX-License-Identifier: Apache-2.0
// Kafka for one worker: named clusters with their producers, and readers of topics that share one consumer a topic.
//
//   readers ... reader        Records come once from the broker into a feed's window, each held once, and every
//      |    \     |           reader walks the window at its own pace. One that asks for older records, or that
//    feed   private feed      falls behind, gets a feed of its own until it has caught up with the shared one.
//   (window)   (queue)
//
// Everything here is called on the loop's thread and never blocks: what librdkafka can only do by blocking happens in
// errands. Nothing of ours runs on librdkafka's threads; they wake the loop through an eventfd.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "clock.h"
#include "error.h"
#include "loop.h"

struct kafka;
struct kafka_reader;
struct kafka_mock;

struct kafka *kafka_new(struct loop *loop);
// Gives queued records up to `flush_ms` to be delivered, ends every wait with BRIDGE_CLOSED, frees everything. Blocks.
void kafka_close(struct kafka *kafka, int32_t flush_ms);

// ---- Clusters ----

// See bridge_kafka_cluster. 0 or ERROR_INVALID.
int kafka_cluster(struct kafka *kafka, const char *name, const char *const *pairs, uint32_t pair_count,
                  struct error *error);
int kafka_cluster_drop(struct kafka *kafka, const char *name);
// Says what kafka_cluster would say to these properties, without a worker: for `sluice check`.
int kafka_cluster_check(const char *const *pairs, uint32_t pair_count, struct error *error);
int kafka_cluster_at(struct kafka *kafka, uint32_t index, struct kafka_cluster_status *out);
// Where the embedded cluster of this name listens, when the master runs it. Told before the cluster is defined;
// without it an embedded cluster is this process's own.
int kafka_embedded(struct kafka *kafka, const char *name, const char *servers);

// See the functions of the bridge.
int kafka_topic_at(struct kafka *kafka, uint32_t cluster, uint32_t index, struct kafka_topic_status *out);
int kafka_broker_at(struct kafka *kafka, uint32_t cluster, uint32_t index, struct kafka_broker *out);
double kafka_latency_bound(uint32_t index);
uint32_t kafka_lags(struct kafka *kafka, uint32_t cluster, struct kafka_lag *out, uint32_t most);

// ---- Tokens: clusters with sasl.oauthbearer.method = oidc ----

// Has `on_token` called, from the loop, when a handle came that needs a token and there is none; kafka_token then gives
// it to all of them, until the next one.
void kafka_on_token(struct kafka *kafka, void (*on_token)(void *context, const char *cluster), void *context);
// See bridge_kafka_token and the next two.
int kafka_token(struct kafka *kafka, const char *cluster, const struct kafka_token *token, struct error *error);
int kafka_token_failed(struct kafka *kafka, const char *cluster, const char *why);
uint32_t kafka_token_users(struct kafka *kafka, const char *cluster);

// ---- Produce ----

// One wait for one record; the caller's, and not to be moved until on_done or kafka_delivery_cancel.
struct kafka_delivery {
  void (*on_done)(struct kafka_delivery *delivery); // may be NULL; BRIDGE_CLOSED comes from kafka_close
  struct kafka_result result;
  bool done;
  struct kafka_ticket *ticket;
  struct timer timer;
};

// BRIDGE_OK: queued, and `delivery` (NULL: nobody waits) will be told. BRIDGE_FULL, BRIDGE_NONE, BRIDGE_INVALID,
// BRIDGE_FAILED, KAFKA_TOO_LARGE, KAFKA_NO_PARTITION: it was not queued.
int kafka_produce(struct kafka *kafka, const struct kafka_message *message, struct kafka_delivery *delivery,
                  struct error *error);
// Who is told of a record that is one of many: called on the loop, not after kafka_close began.
struct kafka_teller {
  void (*tell)(void *context, double number, uint32_t index, const struct kafka_result *result);
  void *context;
  double number;
  uint32_t index;
};

// The same with no wait of its own; message->timeout_s has no effect.
int kafka_produce_told(struct kafka *kafka, const struct kafka_message *message, const struct kafka_teller *teller,
                       struct error *error);
// No record comes any more that expires after so long: the producer for them goes when it is done.
void kafka_expiry_drop(struct kafka *kafka, const char *cluster, double expires_s);
// The result that the last on_done was called with.
const struct kafka_result *kafka_last_result(const struct kafka *kafka);
void kafka_delivery_cancel(struct kafka *kafka, struct kafka_delivery *delivery);

// ---- Read ----

// A number that finds the reader again while it lives.
double kafka_reader_handle(const struct kafka_reader *reader);
struct kafka_reader *kafka_reader_find(struct kafka *kafka, double handle);

// NULL: `error` says why. It is not ready before its positions are known: kafka_reader_ready.
struct kafka_reader *kafka_reader_new(struct kafka *kafka, const struct kafka_reader_options *options,
                                      struct error *error);
void kafka_reader_free(struct kafka_reader *reader);
// BRIDGE_OK, BRIDGE_AGAIN, or BRIDGE_FAILED with kafka_reader_error.
int kafka_reader_ready(struct kafka_reader *reader);
const char *kafka_reader_error(const struct kafka_reader *reader);
// BRIDGE_OK, KAFKA_GAP, BRIDGE_AGAIN, BRIDGE_FAILED.
int kafka_reader_next(struct kafka_reader *reader, const struct kafka_record **out);
// Who waits for a reader: `number` is the caller's own.
struct kafka_wait {
  void (*on_ready)(struct kafka_reader *reader, const struct kafka_wait *wait, int status);
  void *context;
  double number;
};

// Calls on_ready once, from the loop, when there may be something new (BRIDGE_OK) or after `timeout_us` (BRIDGE_TIMEOUT;
// below 0: never). A new wait takes the place of one that is still on; freeing the reader ends it without a call.
int kafka_reader_wait(struct kafka_reader *reader, int64_t timeout_us, const struct kafka_wait *wait);
// The same for several readers at once: on_ready is called with the first that has something.
int kafka_readers_wait(struct kafka_reader *const *readers, uint32_t count, int64_t timeout_us,
                       const struct kafka_wait *wait);
// Ends the wait that is on, if any, without a call.
void kafka_reader_unwait(struct kafka_reader *reader);
// The wait that is on, or NULL.
const struct kafka_wait *kafka_reader_waiting(const struct kafka_reader *reader);
int kafka_reader_position(struct kafka_reader *reader, uint32_t index, struct kafka_position *out);
// True while it reads from the shared window.
bool kafka_reader_shares(const struct kafka_reader *reader);

// ---- Questions to a cluster about itself, and orders to it: kafka_admin.c ----

// BRIDGE_CLOSED comes from kafka_close, BRIDGE_STALE when the cluster is dropped: from inside of either.
typedef void kafka_on_answer(void *context, double number, const struct kafka_answer *answer);

// BRIDGE_OK: on_answer will be called once, from the loop. BRIDGE_FULL: too many are under way; BRIDGE_NONE,
// BRIDGE_INVALID, BRIDGE_FAILED: `error` says why it was not asked.
int kafka_ask(struct kafka *kafka, const struct kafka_question *question, kafka_on_answer *on_answer, void *context,
              double number, struct error *error);
// What on_answer is being called with.
const struct kafka_answer *kafka_last_answer(const struct kafka *kafka);

// ---- A built-in cluster for demos and specs: librdkafka's mock brokers, in memory, on 127.0.0.1 ----

struct kafka_mock *kafka_mock_new(int32_t brokers, struct error *error);
void kafka_mock_free(struct kafka_mock *mock);
const char *kafka_mock_servers(const struct kafka_mock *mock);
// Creates a topic of so many partitions; others are created with 4 when first named.
int kafka_mock_topic(struct kafka_mock *mock, const char *topic, int32_t partitions);
// All brokers refuse connections, or take them again.
void kafka_mock_down(struct kafka_mock *mock, bool down);
// The next `count` requests of a kind (Kafka's API key) are answered with an error (Kafka's number). For specs.
void kafka_mock_fail(struct kafka_mock *mock, int16_t kind, int16_t code, int32_t count);
