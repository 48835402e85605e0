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

#include "spec_parts.h"

#include "phase.h"
#include "server.h"
#include "topics.h"

enum { FIRST_ADDRESS = 0xc6120001 }; // 198.18.0.1: a network for tests (RFC 2544)

// ---- Names -----------------------------------------------------------------------------------------------------------

static struct spec_name *name_find(const struct spec *spec, const char *name, int kind) {
  for (struct spec_name *it = spec->names; it; it = it->next)
    if (it->kind == kind && strcasecmp(it->name, name) == 0) return it;
  return NULL;
}

static struct spec_name *name_take(struct spec *spec, const char *name, int kind) {
  struct spec_name *it = name_find(spec, name, kind);
  if (it) return it;
  it = calloc(1, sizeof *it);
  if (!it) return NULL;
  it->name = strdup(name);
  it->kind = kind;
  it->next = spec->names;
  spec->names = it;
  return it;
}

void spec_name(struct spec *spec, const char *name, int kind, const struct dns_record *records, int count) {
  struct spec_name *it = name_take(spec, name, kind);
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
  dns_flush(spec->worker->dns);
}

const char *spec_address(struct spec *spec, const char *name) {
  struct spec_name *it = name_take(spec, name, -1);
  if (!it) return "";
  if (!it->address[0]) {
    struct in_addr address = {htonl(FIRST_ADDRESS + spec->made_up++)};
    inet_ntop(AF_INET, &address, it->address, sizeof it->address);
  }
  return it->address;
}

static int copy_records(const struct spec_name *name, struct dns_address *out) {
  int count = name->count < DNS_RECORDS ? name->count : DNS_RECORDS;
  for (int i = 0; i < count; i++) out[i] = name->records[i];
  return count;
}

static int on_name(void *context, const char *text, enum dns_kind kind, struct dns_address *out) {
  struct spec *spec = context;
  const struct spec_name *name = name_find(spec, text, (int)kind);
  if (name) return copy_records(name, out);
  if (kind != DNS_ADDRESS && kind != DNS_A) return 0;
  *out = (struct dns_address){.family = 4};
  inet_pton(AF_INET, spec_address(spec, text), out->bytes);
  return 1;
}

const char *spec_name_of(const struct spec *spec, const char *address) {
  for (const struct spec_name *it = spec->names; it; it = it->next)
    if (strcmp(it->address, address) == 0) return it->name;
  return "";
}

// ---- Connections of the worker ---------------------------------------------------------------------------------------

void spec_mood(struct spec *spec, const char *address, uint32_t port, int mood) {
  struct spec_place *place = calloc(1, sizeof *place);
  if (!place) return;
  snprintf(place->address, sizeof place->address, "%s", address);
  place->port = port;
  place->mood = mood;
  place->next = spec->places; // the last word counts
  spec->places = place;
}

static bool is_there(const struct spec_place *place, const char *address, uint32_t port) {
  return (!place->address[0] || strcmp(place->address, address) == 0) && (place->port == 0 || place->port == port);
}

int spec_mood_of(const struct spec *spec, const struct address *to, char text[48], uint32_t *port) {
  *port = address_port(&to->socket.base);
  if (to->socket.base.sa_family == AF_UNIX)
    snprintf(text, 48, "unix:%.40s", to->socket.local.sun_path);
  else
    address_text(&to->socket.base, text);
  for (const struct spec_place *it = spec->places; it; it = it->next)
    if (is_there(it, text, *port)) return it->mood;
  return SPEC_ACCEPTS;
}

static int pair_new(int ends[2]) {
  return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends);
}

// The loop tells of a refusal, as it would of the kernel's.
int spec_turn_away(struct spec *spec, struct conn *conn, int mood) {
  struct worker *worker = spec->worker;
  int ends[2];
  if (pair_new(ends) < 0) return ERROR_SYSTEM;
  close(ends[1]);
  conn_init(conn, &worker->loop, &worker->chunks, ends[0]);
  conn->connecting = true;
  if (mood == SPEC_SILENT) return 0;
  conn->failed = true;
  conn->reason = strdup("connect: Connection refused");
  ev_feed_event(worker->loop.ev, &conn->reader, EV_READ);
  return 0;
}

static void arrive(struct spec *spec, struct spec_peer *peer, const char *address, uint32_t port) {
  peer->is_service = true;
  peer->arrival.port = port;
  snprintf(peer->arrival.address, sizeof peer->arrival.address, "%s", address);
  snprintf(peer->arrival.name, sizeof peer->arrival.name, "%s", spec_name_of(spec, address));
  *spec->arrivals_end = peer;
  spec->arrivals_end = &peer->next_arrival;
}

// As conn_connect: the connection is on its way, and the loop tells what becomes of it.
static int on_connect(struct worker *worker, struct conn *conn, const struct address *to) {
  struct spec *spec = worker->spec;
  char address[48];
  uint32_t port;
  int ends[2];
  int mood = spec_mood_of(spec, to, address, &port);
  if (mood != SPEC_ACCEPTS) return spec_turn_away(spec, conn, mood);
  if (pair_new(ends) < 0) return ERROR_SYSTEM;
  struct spec_peer *peer = peer_new(spec, ends[1]);
  conn_init(conn, &worker->loop, &worker->chunks, ends[0]);
  conn->connecting = true;
  ev_io_start(worker->loop.ev, &conn->writer);
  if (peer) arrive(spec, peer, address, port);
  return 0;
}

bool spec_accept(struct spec *spec, struct spec_arrival *out) {
  struct spec_peer *peer = spec->arrivals;
  if (!peer) return false;
  spec->arrivals = peer->next_arrival;
  if (!spec->arrivals) spec->arrivals_end = &spec->arrivals;
  *out = peer->arrival;
  return true;
}

int spec_client(struct spec *spec, int listener, const char *address, uint32_t port, const char *server_name) {
  struct address from;
  int ends[2];
  if (!address_parse(slice_of(address), (uint16_t)port, &from)) return SPEC_FAILED;
  if (listener < 0 || listener >= SPEC_LISTENERS || pair_new(ends) < 0) return SPEC_FAILED;
  struct spec_peer *peer = peer_new(spec, ends[1]);
  if (!peer) {
    close(ends[0]);
    return SPEC_FAILED;
  }
  peer->greeted = true;
  if (listener == SPEC_PROXY_TLS && peer_start_tls(spec, peer, server_name) < 0) return SPEC_FAILED;
  server_open(spec->worker, &spec->listeners[listener], ends[0], &from.socket.base);
  return peer->arrival.peer;
}

// ---- Kafka -----------------------------------------------------------------------------------------------------------

void spec_topic(struct spec *spec, const char *name, uint32_t partitions) {
  topics_make(spec->worker->topics, name, partitions);
}

void spec_topic_fails(struct spec *spec, const char *name, const char *error) {
  topics_fail(spec->worker->topics, name, error);
}

int spec_produce(struct spec *spec, const struct kafka_message *message) {
  return topics_produce(spec->worker->topics, message, false);
}

bool spec_record(struct spec *spec, const char *topic, uint32_t index, struct kafka_record *out) {
  return topics_at(spec->worker->topics, topic, index, out);
}

// ---- The loop --------------------------------------------------------------------------------------------------------

// Each time one of the worker's own watchers is among them: prepare before, check behind the wait.
static void on_pending(struct ev_loop *ev) {
  struct spec *spec = ev_userdata(ev);
  uint32_t count = ev_pending_count(ev);
  if (count > 1) spec->events += count - 1;
  ev_invoke_pending(ev);
}

bool spec_turn(struct spec *spec) {
  struct loop *loop = &spec->worker->loop;
  bool due = spec->worker->jobs || timers_next(&loop->timers) <= loop->clock.mono_us;
  spec->events = 0;
  worker_turn(spec->worker, false);
  return due || spec->events > 0 || spec->worker->jobs;
}

void spec_advance(struct spec *spec, double seconds) {
  clock_advance(&spec->worker->loop.clock, (int64_t)llround(seconds * 1e6));
}

double spec_next(struct spec *spec) {
  int64_t next = timers_next(&spec->worker->loop.timers);
  if (next == INT64_MAX) return -1;
  int64_t left = next - spec->worker->loop.clock.mono_us;
  return left > 0 ? (double)left / 1e6 : 0;
}

// ---- Life ------------------------------------------------------------------------------------------------------------

struct worker *spec_worker(struct spec *spec) {
  return spec->worker;
}

void spec_stage(struct spec *spec, double revision, const char *path) {
  phase_event(spec->worker, EVENT_STAGE, revision, slice_of(path));
}

void spec_stop(struct spec *spec) {
  phase_event(spec->worker, EVENT_STOP, 0, (struct slice){NULL, 0});
}

const char *spec_report(struct spec *spec) {
  return spec->worker->last_report ? spec->worker->last_report : "";
}

static void on_log(void *context, const char *line, uint32_t len) {
  text_put(&((struct spec *)context)->log, line, len);
}

struct bytes spec_log(struct spec *spec) {
  return (struct bytes){spec->log.data, (uint32_t)spec->log.len};
}

static void listeners_init(struct spec *spec) {
  struct worker *worker = spec->worker;
  spec->listeners[SPEC_PROXY] = (struct listener){.worker = worker, .fd = -1, .kind = LISTEN_PROXY, .port = 8000};
  spec->listeners[SPEC_PROXY_TLS] =
      (struct listener){.worker = worker, .fd = -1, .kind = LISTEN_PROXY, .tls = true, .port = 8443};
  spec->listeners[SPEC_STATUS] = (struct listener){.worker = worker, .fd = -1, .kind = LISTEN_STATUS, .port = 8007};
}

void spec_take_over(struct spec *spec, double time_s, double seed) {
  struct worker *worker = spec->worker;
  worker->spec = spec;
  worker->topics = spec->topics = topics_new(worker);
  worker->seeded = true;
  worker->random[0] = (uint64_t)seed * 0x9e3779b97f4a7c15u | 1;
  worker->random[1] = ~worker->random[0];
  worker->loop.clock.manual = true;
  worker->loop.clock.real_us = (int64_t)(time_s * 1e6);
  dns_answer_with(worker->dns, on_name, spec);
  ev_set_userdata(worker->loop.ev, spec);
  ev_set_invoke_pending_cb(worker->loop.ev, on_pending);
}

struct spec *spec_empty(void) {
  struct spec *spec = calloc(1, sizeof *spec);
  if (spec) spec->arrivals_end = &spec->arrivals;
  return spec;
}

struct spec *spec_new(const struct spec_options *options, char *error, uint32_t error_bytes) {
  struct spec *spec = spec_empty();
  struct error cause = {0};
  if (!spec) return NULL;
  struct worker_options raw = {.id = 1,
                               .worker_count = 1,
                               .control_fd = -1,
                               .home = options->home,
                               .state_dir = options->state_dir,
                               .manual_clock = true,
                               .log = {.level = LOG_DEBUG, .fd = -1, .source = "worker 1", .sink = on_log}};
  raw.log.sink_context = spec;
  spec->worker = worker_new(&raw, &cause);
  if (!spec->worker) {
    snprintf(error, error_bytes, "%s", cause.text);
    spec_free(spec);
    return NULL;
  }
  listeners_init(spec);
  spec->worker->connect = on_connect;
  spec_take_over(spec, options->time_s, options->seed);
  return spec;
}

static void names_free(struct spec *spec) {
  while (spec->names) {
    struct spec_name *name = spec->names;
    spec->names = name->next;
    free(name->name);
    free(name->records);
    free(name);
  }
  while (spec->places) {
    struct spec_place *place = spec->places;
    spec->places = place->next;
    free(place);
  }
}

void spec_drop(struct spec *spec) {
  names_free(spec);
  if (spec->topics) topics_free(spec->topics); // after the VM, whose readers are closed when it collects them
  text_free(&spec->log);
  free(spec);
}

void spec_free(struct spec *spec) {
  peers_free(spec);
  if (spec->worker) worker_free(spec->worker);
  for (uint32_t i = 0; i < spec->door_count; i++) close(spec->doors[i]);
  spec_drop(spec);
}
