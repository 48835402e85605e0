// SPDX-License-Identifier: Apache-2.0
// What kafka_admin.c (the client and its questions), kafka_admin_ask.c (questions in librdkafka's words) and
// kafka_admin_tell.c (its answers as JSON) know of each other.
#pragma once
#include "kafka_parts.h"
#include "text.h"

// One question. It ends with librdkafka's event, or with its errand, or with its client.
struct ask {
  struct ask *next; // in client->line or client->asked
  struct admin_client *client;
  struct errand errand; // of what librdkafka can only do by blocking
  enum kafka_ask what;
  char **texts; // ours
  uint32_t count;
  int64_t deadline_ms;      // monotonic
  bool errand_runs;         // while it does, the ask belongs to its thread
  bool unwanted;            // told to the errand: __atomic
  rd_kafka_resp_err_t code; // why there is no answer
  char why[256];
  struct text answer;
  kafka_on_answer *on_answer; // NULL once it was called
  void *context;
  double number;
};

// ---- kafka_admin_ask.c ----

bool ask_blocks(enum kafka_ask what);
// Whether the texts are as many as such a question has.
bool ask_is_whole(const struct kafka_question *question);
// Hands the question to librdkafka, whose event comes on `queue` with the ask as opaque; RD_KAFKA_RESP_ERR__INVALID_ARG
// and ask->why when it does not take it.
rd_kafka_resp_err_t ask_begin(struct ask *ask, rd_kafka_t *rk, rd_kafka_queue_t *queue, int timeout_ms);
// On a helper thread: answers what blocks, in tries of `most_ms`. The code of the last try.
rd_kafka_resp_err_t ask_run(struct ask *ask, rd_kafka_t *rk, int most_ms);

// ---- kafka_admin_tell.c ----

// True: it was an answer to a question, and the ask has it.
bool tell_event(struct ask *ask, rd_kafka_event_t *event);
void tell_metadata(struct text *out, rd_kafka_t *rk, const struct rd_kafka_metadata *metadata, int timeout_ms);
void tell_topics(struct text *out, const struct rd_kafka_metadata *metadata);
void tell_positions(struct text *out, const rd_kafka_topic_partition_list_t *list);
