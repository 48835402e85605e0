// SPDX-License-Identifier: Apache-2.0
// A worker in the process of a spec. All that it would ask the world for is asked of tables here; the kit in Lua
// (lua/sluice/spec) turns the loop and plays clients and services.
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kit_parts.h"

#include "appender.h"
#include "passwords.h"
#include "phase.h"
#include "server.h"
#include "topics.h"

enum { FIRST_ADDRESS = 0xc6120001 }; // 198.18.0.1: a network for tests (RFC 2544)

// ---- Names -----------------------------------------------------------------------------------------------------------

static struct kit_name *name_find(const struct kit *kit, const char *name, int kind) {
  for (struct kit_name *it = kit->names; it; it = it->next)
    if (it->kind == kind && strcasecmp(it->name, name) == 0) return it;
  return NULL;
}

static struct kit_name *name_take(struct kit *kit, const char *name, int kind) {
  struct kit_name *it = name_find(kit, name, kind);
  if (it) return it;
  it = calloc(1, sizeof *it);
  if (!it) return NULL;
  it->name = strdup(name);
  it->kind = kind;
  it->next = kit->names;
  kit->names = it;
  return it;
}

void kit_name(struct kit *kit, const char *name, int kind, const struct dns_record *records, int count) {
  struct kit_name *it = name_take(kit, name, kind);
  if (!it) return;
  free(it->records);
  it->records = calloc((size_t)(count > 0 ? count : 0) + 1, sizeof *it->records);
  it->count = it->records ? count : -1;
  for (int i = 0; i < it->count; i++) {
    struct dns_address *out = &it->records[i];
    out->family = strchr(records[i].address, ':') ? 6 : 4;
    inet_pton(out->family == 6 ? AF_INET6 : AF_INET, records[i].address, out->bytes);
    out->port = (uint16_t)records[i].port;
    out->priority = (uint16_t)records[i].priority;
    out->weight = (uint16_t)records[i].weight;
  }
  dns_flush(kit->worker->dns);
}

const char *kit_address(struct kit *kit, const char *name) {
  struct kit_name *it = name_take(kit, name, -1);
  if (!it) return "";
  if (!it->address[0]) {
    struct in_addr address = {htonl(FIRST_ADDRESS + kit->made_up++)};
    inet_ntop(AF_INET, &address, it->address, sizeof it->address);
  }
  return it->address;
}

static int copy_records(const struct kit_name *name, struct dns_address *out) {
  int count = name->count < DNS_RECORDS ? name->count : DNS_RECORDS;
  for (int i = 0; i < count; i++) out[i] = name->records[i];
  return count;
}

static int on_name(void *context, const char *text, enum dns_kind kind, struct dns_address *out) {
  struct kit *kit = context;
  const struct kit_name *name = name_find(kit, text, (int)kind);
  if (name) return copy_records(name, out);
  if (kind != DNS_ADDRESS && kind != DNS_A) return 0;
  *out = (struct dns_address){.family = 4};
  inet_pton(AF_INET, kit_address(kit, text), out->bytes);
  return 1;
}

const char *kit_name_of(const struct kit *kit, const char *address) {
  for (const struct kit_name *it = kit->names; it; it = it->next)
    if (strcmp(it->address, address) == 0) return it->name;
  return "";
}

// ---- Connections of the worker ---------------------------------------------------------------------------------------

void kit_mood(struct kit *kit, const char *address, uint32_t port, int mood) {
  struct kit_place *place = calloc(1, sizeof *place);
  if (!place) return;
  snprintf(place->address, sizeof place->address, "%s", address);
  place->port = port;
  place->mood = mood;
  place->next = kit->places; // the last word counts
  kit->places = place;
}

static bool is_there(const struct kit_place *place, const char *address, uint32_t port) {
  return (!place->address[0] || strcmp(place->address, address) == 0) && (place->port == 0 || place->port == port);
}

int kit_mood_of(const struct kit *kit, const struct address *to, char text[48], uint32_t *port) {
  *port = address_port(&to->socket.base);
  if (to->socket.base.sa_family == AF_UNIX)
    snprintf(text, 48, "unix:%.40s", to->socket.local.sun_path);
  else
    address_text(&to->socket.base, text);
  for (const struct kit_place *it = kit->places; it; it = it->next)
    if (is_there(it, text, *port)) return it->mood;
  return KIT_ACCEPTS;
}

static int pair_new(int ends[2]) {
  return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends);
}

// The loop tells of a refusal, as it would of the kernel's.
int kit_turn_away(struct kit *kit, struct conn *conn, int mood) {
  struct worker *worker = kit->worker;
  int ends[2];
  if (pair_new(ends) < 0) return ERROR_SYSTEM;
  close(ends[1]);
  conn_init(conn, &worker->loop, &worker->chunks, ends[0]);
  conn->connecting = true;
  if (mood == KIT_SILENT) return 0;
  conn->failed = true;
  conn->reason = strdup("connect: Connection refused");
  ev_feed_event(worker->loop.ev, &conn->reader, EV_READ);
  return 0;
}

static void arrive(struct kit *kit, struct kit_peer *peer, const char *address, uint32_t port) {
  peer->is_service = true;
  peer->arrival.port = port;
  snprintf(peer->arrival.address, sizeof peer->arrival.address, "%s", address);
  snprintf(peer->arrival.name, sizeof peer->arrival.name, "%s", kit_name_of(kit, address));
  *kit->arrivals_end = peer;
  kit->arrivals_end = &peer->next_arrival;
}

// As conn_connect: the connection is on its way, and the loop tells what becomes of it.
static int on_connect(struct worker *worker, struct conn *conn, const struct address *to) {
  struct kit *kit = worker->kit;
  char address[48];
  uint32_t port;
  int ends[2];
  int mood = kit_mood_of(kit, to, address, &port);
  if (mood != KIT_ACCEPTS) return kit_turn_away(kit, conn, mood);
  if (pair_new(ends) < 0) return ERROR_SYSTEM;
  struct kit_peer *peer = peer_new(kit, ends[1]);
  conn_init(conn, &worker->loop, &worker->chunks, ends[0]);
  conn->connecting = true;
  ev_io_start(worker->loop.ev, &conn->writer);
  if (peer) arrive(kit, peer, address, port);
  return 0;
}

bool kit_accept(struct kit *kit, struct kit_arrival *out) {
  struct kit_peer *peer = kit->arrivals;
  if (!peer) return false;
  kit->arrivals = peer->next_arrival;
  if (!kit->arrivals) kit->arrivals_end = &kit->arrivals;
  *out = peer->arrival;
  return true;
}

static int client_new(struct kit *kit, int listener, const struct address *from, const char *server_name) {
  int ends[2];
  if (pair_new(ends) < 0) return KIT_FAILED;
  struct kit_peer *peer = peer_new(kit, ends[1]);
  if (!peer) {
    close(ends[0]);
    return KIT_FAILED;
  }
  peer->greeted = true;
  server_open(kit->worker, &kit->listeners[listener], ends[0], &from->socket.base);
  if (listener == KIT_PROXY_TLS && peer_start_tls(kit, peer, server_name) < 0) return KIT_FAILED;
  return peer->arrival.peer;
}

int kit_client(struct kit *kit, int listener, const char *address, uint32_t port, const char *server_name) {
  struct worker *worker = kit->worker;
  struct address from;
  if (listener < 0 || listener >= KIT_LISTENERS) return KIT_FAILED;
  if (!address_parse(slice_of(address), (uint16_t)port, &from)) return KIT_FAILED;
  // The worker has no listener of its own for which it would have done that.
  if (listener == KIT_PROXY_TLS && (!worker->generation || worker_open_tls(worker, worker->generation) != BRIDGE_OK))
    return KIT_FAILED;
  return client_new(kit, listener, &from, server_name);
}

// ---- Kafka -----------------------------------------------------------------------------------------------------------

void kit_topic(struct kit *kit, const char *name, uint32_t partitions) {
  topics_make(kit->worker->topics, name, partitions);
}

void kit_topic_fails(struct kit *kit, const char *name, const char *error) {
  topics_fail(kit->worker->topics, name, error);
}

int kit_produce(struct kit *kit, const struct kafka_message *message) {
  return topics_produce(kit->worker->topics, message, false);
}

bool kit_record(struct kit *kit, const char *topic, uint32_t index, struct kafka_record *out) {
  return topics_at(kit->worker->topics, topic, index, out);
}

// ---- The loop --------------------------------------------------------------------------------------------------------

// Each time one of the worker's own watchers is among them: prepare before, check behind the wait.
static void on_pending(struct ev_loop *ev) {
  struct kit *kit = ev_userdata(ev);
  uint32_t count = ev_pending_count(ev);
  if (count > 1) kit->events += count - 1;
  ev_invoke_pending(ev);
}

// A helper thread is at work, of which the loop will hear.
static bool is_helped(const struct kit *kit) {
  const struct worker *worker = kit->worker;
  return (worker->appender && appender_is_writing(worker->appender)) ||
         (worker->passwords && passwords_are_checked(worker->passwords));
}

bool kit_is_busy(const struct kit *kit) {
  const struct loop *loop = &kit->worker->loop;
  return worker_has_work(kit->worker) || timers_next(&loop->timers) <= loop->clock.mono_us || is_helped(kit);
}

bool kit_turn(struct kit *kit) {
  bool due = kit_is_busy(kit);
  kit->events = 0;
  worker_turn(kit->worker, is_helped(kit) && !worker_has_work(kit->worker));
  return due || kit->events > 0 || worker_has_work(kit->worker);
}

void kit_advance(struct kit *kit, double seconds) {
  clock_advance(&kit->worker->loop.clock, (int64_t)llround(seconds * 1e6));
}

double kit_next(struct kit *kit) {
  int64_t next = timers_next(&kit->worker->loop.timers);
  if (next == INT64_MAX) return -1;
  int64_t left = next - kit->worker->loop.clock.mono_us;
  return left > 0 ? (double)left / 1e6 : 0;
}

// ---- Life ------------------------------------------------------------------------------------------------------------

struct worker *kit_worker(struct kit *kit) {
  return kit->worker;
}

void kit_stage(struct kit *kit, double revision, const char *path) {
  phase_event(kit->worker, EVENT_STAGE, revision, slice_of(path));
}

void kit_stop(struct kit *kit) {
  phase_event(kit->worker, EVENT_STOP, 0, (struct slice){NULL, 0});
}

const char *kit_report(struct kit *kit) {
  return kit->worker->last_report ? kit->worker->last_report : "";
}

static void on_log(void *context, const char *line, uint32_t len) {
  struct text *log = &((struct kit *)context)->log;
  text_put(log, line, len);
  text_puts(log, "\n");
}

struct bytes kit_log(struct kit *kit) {
  return (struct bytes){kit->log.data, (uint32_t)kit->log.len};
}

static void listeners_init(struct kit *kit) {
  struct worker *worker = kit->worker;
  kit->listeners[KIT_PROXY] = (struct listener){.worker = worker, .fd = -1, .kind = LISTEN_PROXY, .port = 8000};
  kit->listeners[KIT_PROXY_TLS] =
      (struct listener){.worker = worker, .fd = -1, .kind = LISTEN_PROXY, .tls = true, .port = 8443};
  kit->listeners[KIT_STATUS] = (struct listener){.worker = worker, .fd = -1, .kind = LISTEN_STATUS, .port = 8007};
}

void kit_take_over(struct kit *kit, double time_s, double seed) {
  struct worker *worker = kit->worker;
  worker->kit = kit;
  worker->topics = kit->topics = topics_new(worker);
  worker->seeded = true;
  worker->random[0] = (uint64_t)seed * 0x9e3779b97f4a7c15u | 1;
  worker->random[1] = ~worker->random[0];
  worker->loop.clock.manual = true;
  worker->loop.clock.real_us = (int64_t)(time_s * 1e6);
  dns_answer_with(worker->dns, on_name, kit);
  ev_set_userdata(worker->loop.ev, kit);
  ev_set_invoke_pending_cb(worker->loop.ev, on_pending);
}

struct kit *kit_empty(void) {
  struct kit *kit = calloc(1, sizeof *kit);
  if (kit) kit->arrivals_end = &kit->arrivals;
  return kit;
}

struct kit *kit_new(const struct kit_options *options, char *error, uint32_t error_bytes) {
  struct kit *kit = kit_empty();
  struct error cause = {0};
  if (!kit) return NULL;
  struct worker_options raw = {.id = 1,
                               .worker_count = 1,
                               .control_fd = -1,
                               .home = options->home,
                               .state_dir = options->state_dir,
                               .manual_clock = true,
                               .log = {.level = LOG_DEBUG, .fd = -1, .source = "worker 1", .sink = on_log}};
  raw.log.sink_context = kit;
  kit->worker = worker_new(&raw, &cause);
  if (!kit->worker) {
    snprintf(error, error_bytes, "%s", cause.text);
    kit_free(kit);
    return NULL;
  }
  listeners_init(kit);
  kit->worker->connect = on_connect;
  kit_take_over(kit, options->time_s, options->seed);
  return kit;
}

static void names_free(struct kit *kit) {
  while (kit->names) {
    struct kit_name *name = kit->names;
    kit->names = name->next;
    free(name->name);
    free(name->records);
    free(name);
  }
  while (kit->places) {
    struct kit_place *place = kit->places;
    kit->places = place->next;
    free(place);
  }
}

void kit_drop(struct kit *kit) {
  names_free(kit);
  if (kit->topics) topics_free(kit->topics); // after the VM, whose readers are closed when it collects them
  text_free(&kit->log);
  free(kit);
}

void kit_free(struct kit *kit) {
  peers_free(kit);
  if (kit->worker) worker_free(kit->worker);
  for (uint32_t i = 0; i < kit->door_count; i++) close(kit->doors[i]);
  kit_drop(kit);
}
