// SPDX-License-Identifier: Apache-2.0
// Questions to a cluster about itself: one client a cluster, made for the first question and ended when none came for a
// while. librdkafka's Admin API answers with events on the client's main queue. Metadata and offsets it can only fetch by
// blocking: those are errands, few at a time, so that a cluster that does not answer keeps no helper from the others.
//
//   line ──> errand (a helper thread) ──> on_answer
//   asked ──> librdkafka ──> event ─────> on_answer
//
// To be asked for what a group has committed, librdkafka has to be of a group itself, though it never joins: where the
// broker is not the coordinator any more, it tells its own group, and falls over if there is none
// (https://github.com/confluentinc/librdkafka/issues/5040). Such a client asks brokers for its coordinator from the
// start, so it is made only for those who want it, and serves all questions then.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "kafka_admin.h"

enum {
  ASKS_MAX = 256, // of a cluster, at one time
  TEXTS_MAX = 16384,
  TEXT_BYTES_MAX = 1024 * 1024,
  ERRANDS_MAX = 2,    // of a cluster, of HELPERS
  TRY_MS = 1000,      // a blocking call is cut into pieces, to notice that nobody wants its outcome
  TIMEOUT_MS = 10000, // unless told
  TIMEOUT_MOST_MS = 300000,
  IDLE_US = 60 * 1000 * 1000
};

struct admin_client {
  struct admin_client *next; // in kafka->admins_ended, while an errand still uses it
  struct cluster *cluster;
  rd_kafka_t *rk;
  struct queue_watch watch;
  struct ask *line, **line_end; // for an errand
  struct ask *asked;            // with librdkafka, or with an errand
  uint32_t asks, errands;
  struct timer idle;
  bool ended;
  struct errand errand; // destroys it
};

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int left_ms(const struct ask *ask) {
  int64_t left = ask->deadline_ms - now_ms();
  return left < 1 ? 1 : (int)left;
}

// ---- Questions ----

// The texts in one block with their pointers.
static char **texts_copy(const struct kafka_question *question) {
  size_t size = (question->count + 1) * sizeof(char *), bytes = 0;
  for (uint32_t i = 0; i < question->count; i++) bytes += strlen(question->texts[i]) + 1;
  if (bytes > TEXT_BYTES_MAX) return NULL;
  char **texts = malloc(size + bytes);
  if (!texts) return NULL;
  char *at = (char *)texts + size;
  for (uint32_t i = 0; i < question->count; i++) {
    size_t len = strlen(question->texts[i]) + 1;
    texts[i] = memcpy(at, question->texts[i], len);
    at += len;
  }
  texts[question->count] = NULL;
  return texts;
}

static struct ask *ask_new(struct admin_client *client, const struct kafka_question *question) {
  struct ask *ask = calloc(1, sizeof *ask);
  if (!ask) return NULL;
  ask->texts = texts_copy(question);
  if (!ask->texts) {
    free(ask);
    return NULL;
  }
  double most = question->timeout_s > 0 ? question->timeout_s * 1000 : TIMEOUT_MS;
  ask->client = client;
  ask->what = (enum kafka_ask)question->what;
  ask->count = question->count;
  ask->deadline_ms = now_ms() + (int64_t)(most < TIMEOUT_MOST_MS ? most : TIMEOUT_MOST_MS);
  client->asks++;
  return ask;
}

static void ask_free(struct ask *ask) {
  ask->client->asks--;
  text_free(&ask->answer);
  free(ask->texts);
  free(ask);
}

static void ask_answer(struct ask *ask, const struct kafka_answer *answer) {
  kafka_on_answer *on_answer = ask->on_answer;
  ask->on_answer = NULL;
  if (!on_answer) return;
  struct kafka *kafka = ask->client->cluster->kafka;
  kafka->answer = *answer;
  on_answer(ask->context, ask->number, answer);
  kafka->answer = (struct kafka_answer){.name = ""};
}

static void client_rest(struct admin_client *client);

// Its answer is known: tells it and frees the ask, which is in no list any more.
static void ask_end(struct ask *ask) {
  struct admin_client *client = ask->client;
  struct kafka_answer answer = {.status = BRIDGE_OK, .name = ""};
  if (ask->code) {
    const char *why = ask->why[0] ? ask->why : rd_kafka_err2str(ask->code);
    answer = (struct kafka_answer){.status = BRIDGE_FAILED, .name = rd_kafka_err2name(ask->code)};
    answer.text = (struct bytes){why, (uint32_t)strlen(why)};
  } else {
    answer.text = (struct bytes){ask->answer.data, (uint32_t)ask->answer.len};
    cluster_up(client->cluster);
  }
  cluster_hold(client->cluster); // whoever is told may drop the cluster
  struct cluster *cluster = client->cluster;
  ask_answer(ask, &answer);
  ask_free(ask);
  client_rest(client);
  cluster_release(cluster);
}

static void ask_unlink(struct ask *ask) {
  struct ask **link = &ask->client->asked;
  while (*link != ask) link = &(*link)->next;
  *link = ask->next;
}

// ---- Errands ----

static struct ask *ask_of_errand(struct errand *errand) {
  return (struct ask *)((char *)errand - offsetof(struct ask, errand));
}

static bool is_passing(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__TIMED_OUT ||
         code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || code == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
         code == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
}

static void ask_errand_run(struct errand *errand) {
  struct ask *ask = ask_of_errand(errand);
  struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
  while (now_ms() < ask->deadline_ms && !__atomic_load_n(&ask->unwanted, __ATOMIC_RELAXED)) {
    int left = left_ms(ask);
    ask->code = ask_run(ask, ask->client->rk, left < TRY_MS ? left : TRY_MS);
    if (!is_passing(ask->code)) return;
    nanosleep(&pause, NULL);
  }
  if (!ask->code) ask->code = RD_KAFKA_RESP_ERR__TIMED_OUT; // it stood in line until then
}

static void errands_next(struct admin_client *client);

static void on_ask_errand_done(struct errand *errand) {
  struct ask *ask = ask_of_errand(errand);
  struct admin_client *client = ask->client;
  client->errands--;
  ask_unlink(ask);
  errands_next(client);
  ask_end(ask);
}

static void errands_next(struct admin_client *client) {
  while (client->line && client->errands < ERRANDS_MAX) {
    struct ask *ask = client->line;
    client->line = ask->next;
    if (!client->line) client->line_end = &client->line;
    ask->next = client->asked;
    client->asked = ask;
    ask->errand_runs = true;
    client->errands++;
    ask->errand = (struct errand){.run = ask_errand_run, .on_done = on_ask_errand_done};
    errands_submit(client->cluster->kafka->errands, &ask->errand);
  }
}

// ---- Events ----

static void client_on_event(struct admin_client *client, rd_kafka_event_t *event) {
  struct ask *ask = rd_kafka_event_opaque(event);
  if (!ask || !tell_event(ask, event)) {
    cluster_on_event(client->cluster, event);
    return;
  }
  ask_unlink(ask);
  ask_end(ask);
}

static void on_client_readable(struct ev_loop *ev, struct ev_io *io, int events) {
  struct admin_client *client = io->data;
  struct cluster *cluster = client->cluster;
  rd_kafka_event_t *event;
  uint64_t count;
  (void)ev;
  (void)events;
  cluster_hold(cluster);
  eventfd_read(client->watch.fd, &count);
  // An answer may end the client, which is freed later, by its errand.
  while (!client->ended && (event = rd_kafka_queue_poll(client->watch.queue, 0))) {
    client_on_event(client, event);
    rd_kafka_event_destroy(event);
  }
  cluster_release(cluster);
}

// ---- Clients ----

static struct admin_client *client_of_errand(struct errand *errand) {
  return (struct admin_client *)((char *)errand - offsetof(struct admin_client, errand));
}

static void client_destroy_run(struct errand *errand) {
  struct admin_client *client = client_of_errand(errand);
  rd_kafka_queue_destroy(client->watch.queue);
  client->watch.queue = NULL;
  cluster_leave(client->cluster, client->rk);
  rd_kafka_destroy_flags(client->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE); // it has joined no group
}

static void on_client_destroyed(struct errand *errand) {
  struct admin_client *client = client_of_errand(errand);
  queue_watch_close(&client->watch);
  cluster_release(client->cluster);
  free(client);
}

// When it has ended and no errand uses it any more.
static void client_rest(struct admin_client *client) {
  struct kafka *kafka = client->cluster->kafka;
  if (client->ended) {
    if (client->asks > 0) return;
    client->errand = (struct errand){.run = client_destroy_run, .on_done = on_client_destroyed};
    errands_submit(kafka->errands, &client->errand);
    return;
  }
  if (client->asks == 0) timer_set(&kafka->loop->timers, &client->idle, kafka->loop->clock.mono_us + IDLE_US);
}

static void asks_fail(struct ask **list, const struct kafka_answer *answer) {
  for (struct ask **link = list; *link;) {
    struct ask *ask = *link;
    ask_answer(ask, answer);
    __atomic_store_n(&ask->unwanted, true, __ATOMIC_RELAXED);
    if (ask->errand_runs) { // its errand's end frees it
      link = &ask->next;
      continue;
    }
    *link = ask->next;
    ask_free(ask);
  }
}

static void client_end(struct admin_client **slot, int status, const char *why) {
  struct admin_client *client = *slot;
  struct kafka_answer answer = {.status = status, .name = "_DESTROY", .text = {why, (uint32_t)strlen(why)}};
  if (!client) return;
  *slot = NULL;
  client->ended = true;
  timer_cancel(&client->cluster->kafka->loop->timers, &client->idle);
  queue_watch_stop(&client->watch);
  asks_fail(&client->line, &answer);
  asks_fail(&client->asked, &answer);
  client_rest(client);
}

void admin_end(struct cluster *cluster, int status, const char *why) {
  for (int i = 0; i < 2; i++) client_end(&cluster->admins[i], status, why);
}

static void on_idle(struct timer *timer) {
  struct admin_client *client = (struct admin_client *)((char *)timer - offsetof(struct admin_client, idle));
  struct admin_client **admins = client->cluster->admins;
  if (client->asks == 0) client_end(admins[0] == client ? &admins[0] : &admins[1], BRIDGE_CLOSED, "");
}

static rd_kafka_t *client_handle(struct cluster *cluster, const char *group, struct error *error) {
  char text[256];
  // A consumer: a producer's question about a topic may create it. It reports no statistics, which are of records.
  rd_kafka_conf_t *conf = cluster_conf(cluster, RD_KAFKA_CONSUMER, error);
  if (!conf) return NULL;
  rd_kafka_conf_set(conf, "allow.auto.create.topics", "false", text, sizeof text);
  rd_kafka_conf_set(conf, "statistics.interval.ms", "0", text, sizeof text);
  if (group) rd_kafka_conf_set(conf, "group.id", group, text, sizeof text);
  rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
  if (rk) return rk;
  rd_kafka_conf_destroy(conf);
  error_set(error, ERROR_INVALID, "%s", text);
  return NULL;
}

// `group`: NULL, of none.
static struct admin_client *client_new(struct cluster *cluster, const char *group, struct error *error) {
  struct admin_client *client = calloc(1, sizeof *client);
  if (!client) return NULL;
  if (queue_watch_init(&client->watch, cluster->kafka, error)) goto fail;
  client->rk = client_handle(cluster, group, error);
  if (!client->rk) goto fail;
  client->cluster = cluster;
  client->line_end = &client->line;
  timer_init(&client->idle, on_idle);
  cluster_hold(cluster);
  rd_kafka_set_log_queue(client->rk, NULL);
  cluster_join(cluster, client->rk);
  queue_watch_bind(&client->watch, rd_kafka_queue_get_main(client->rk));
  queue_watch_start(&client->watch, on_client_readable, client);
  if (cluster->state == CLUSTER_IDLE) cluster->state = CLUSTER_CONNECTING;
  return client;
fail:
  queue_watch_close(&client->watch);
  free(client);
  return NULL;
}

// ---- Asking ----

static int client_ask(struct admin_client *client, struct ask *ask, struct error *error) {
  timer_cancel(&client->cluster->kafka->loop->timers, &client->idle);
  if (ask_blocks(ask->what)) {
    *client->line_end = ask;
    client->line_end = &ask->next;
    errands_next(client);
    return BRIDGE_OK;
  }
  if (ask_begin(ask, client->rk, client->watch.queue, left_ms(ask))) {
    error_set(error, ERROR_INVALID, "%s", ask->why);
    ask_free(ask);
    client_rest(client);
    return BRIDGE_INVALID;
  }
  ask->next = client->asked;
  client->asked = ask;
  return BRIDGE_OK;
}

// The group of the first question is one that its user may ask about.
static struct admin_client *client_for(struct cluster *cluster, const struct kafka_question *question,
                                       struct error *error) {
  const char *group = question->what == KAFKA_ASK_COMMITTED && question->texts[0][0] ? question->texts[0] : NULL;
  struct admin_client **slot = &cluster->admins[group || cluster->admins[1]];
  if (!*slot) *slot = client_new(cluster, group, error);
  return *slot;
}

int kafka_ask(struct kafka *kafka, const struct kafka_question *question, kafka_on_answer *on_answer, void *context,
              double number, struct error *error) {
  struct cluster *cluster = cluster_find(kafka, question->cluster);
  if (!cluster) {
    error_set(error, ERROR_INVALID, "no Kafka cluster named \"%.100s\"", question->cluster);
    return BRIDGE_NONE;
  }
  if (question->count > TEXTS_MAX || !ask_is_whole(question)) {
    error_set(error, ERROR_INVALID, "a question to Kafka with %u texts", question->count);
    return BRIDGE_INVALID;
  }
  struct admin_client *client = client_for(cluster, question, error);
  if (!client) return BRIDGE_FAILED;
  struct ask *ask = client->asks < ASKS_MAX ? ask_new(client, question) : NULL;
  if (!ask) {
    client_rest(client);
    error_set(error, ERROR_MEMORY, "cluster %s: too many questions", cluster->name);
    return BRIDGE_FULL;
  }
  ask->on_answer = on_answer;
  ask->context = context;
  ask->number = number;
  return client_ask(client, ask, error);
}

const struct kafka_answer *kafka_last_answer(const struct kafka *kafka) {
  return &kafka->answer;
}
