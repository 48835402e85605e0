// SPDX-License-Identifier: Apache-2.0
// A worker in the process of a spec. All that it would ask the world for is asked of tables here; the kit in Lua
// (lua/sluice/spec) turns the loop and plays clients and services.
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "worker.h"

#include "phase.h"
#include "server.h"
#include "spec.h"
#include "text.h"
#include "tls.h"
#include "topics.h"

enum {
  LISTENERS = 3,
  OWN_EVENTS = 2,             // of each turn: the worker's prepare and check watchers
  FIRST_ADDRESS = 0xc6120001, // 198.18.0.1: a network for tests (RFC 2544)
  TLS_HELLO = 0x16
};

struct spec_peer {
  struct spec_peer *next_arrival;
  struct spec_arrival arrival;
  struct tls *tls;
  int fd; // -1: free
  bool is_service, greeted, shaking;
};

struct spec_name {
  struct spec_name *next;
  char *name;
  int kind, count; // kind -1: made up
  struct dns_address *records;
  char address[48];
};

struct spec_place {
  struct spec_place *next;
  char address[48];
  uint32_t port;
  int mood;
};

struct spec {
  struct worker *worker;
  struct text log;
  struct listener listeners[LISTENERS];
  struct spec_peer **peers;
  uint32_t peer_count;
  struct spec_peer *arrivals, **arrivals_end;
  struct spec_name *names;
  uint32_t made_up;
  struct spec_place *places;
  struct tls_context *client_tls, *service_tls;
  uint32_t events; // of this turn
};

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

static const char *name_of(const struct spec *spec, const char *address) {
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

static int mood_of(const struct spec *spec, const char *address, uint32_t port) {
  for (const struct spec_place *it = spec->places; it; it = it->next)
    if ((!it->address[0] || strcmp(it->address, address) == 0) && (it->port == 0 || it->port == port)) return it->mood;
  return SPEC_ACCEPTS;
}

static struct spec_peer *peer_new(struct spec *spec, int fd) {
  struct spec_peer *peer = calloc(1, sizeof *peer);
  struct spec_peer **peers = realloc(spec->peers, (spec->peer_count + 1) * sizeof *peers);
  if (peers) spec->peers = peers;
  if (!peer || !peers) {
    free(peer);
    close(fd);
    return NULL;
  }
  peer->fd = fd;
  peer->arrival.peer = (int32_t)spec->peer_count;
  spec->peers[spec->peer_count++] = peer;
  return peer;
}

static int pair_new(int ends[2]) {
  return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends);
}

static void arrive(struct spec *spec, struct spec_peer *peer, const char *address, uint32_t port) {
  peer->is_service = true;
  peer->arrival.port = port;
  snprintf(peer->arrival.address, sizeof peer->arrival.address, "%s", address);
  snprintf(peer->arrival.name, sizeof peer->arrival.name, "%s", name_of(spec, address));
  *spec->arrivals_end = peer;
  spec->arrivals_end = &peer->next_arrival;
}

// As conn_connect: the connection is on its way, and the loop tells what becomes of it.
static int on_connect(struct worker *worker, struct conn *conn, const struct address *to) {
  struct spec *spec = worker->spec;
  char address[48] = "";
  uint32_t port = address_port(&to->socket.base);
  int ends[2];
  address_text(&to->socket.base, address);
  if (to->socket.base.sa_family == AF_UNIX) snprintf(address, sizeof address, "unix:%.40s", to->socket.local.sun_path);
  if (pair_new(ends) < 0) return ERROR_SYSTEM;
  conn_init(conn, &worker->loop, &worker->chunks, ends[0]);
  conn->connecting = true;
  int mood = mood_of(spec, address, port);
  struct spec_peer *peer = mood == SPEC_ACCEPTS ? peer_new(spec, ends[1]) : NULL;
  if (peer) {
    arrive(spec, peer, address, port);
    ev_io_start(worker->loop.ev, &conn->writer);
    return 0;
  }
  if (mood != SPEC_ACCEPTS) close(ends[1]);
  if (mood == SPEC_SILENT) return 0;
  conn->failed = true;
  conn->reason = strdup("connect: Connection refused");
  ev_feed_event(worker->loop.ev, &conn->reader, EV_READ);
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

// ---- Peers -----------------------------------------------------------------------------------------------------------

static struct spec_peer *peer_find(const struct spec *spec, int number) {
  struct spec_peer *peer = number >= 0 && (uint32_t)number < spec->peer_count ? spec->peers[number] : NULL;
  return peer && peer->fd >= 0 ? peer : NULL;
}

static int peer_start_tls(struct spec *spec, struct spec_peer *peer, const char *server_name) {
  struct error error;
  struct tls_client_options client = {.verify = false};
  struct tls_server_options server = {.alpn = "http/1.1"};
  if (peer->is_service) {
    if (!spec->service_tls) spec->service_tls = tls_server_context_new(&server, &error);
    if (spec->service_tls) peer->tls = tls_server_new(spec->service_tls, peer->fd);
  } else {
    if (!spec->client_tls) spec->client_tls = tls_client_context_new(&client, &error);
    if (spec->client_tls) peer->tls = tls_client_new(spec->client_tls, peer->fd, server_name, NULL);
  }
  peer->shaking = true;
  return peer->tls ? 0 : SPEC_FAILED;
}

// A service finds out by the first byte which of the two the worker speaks.
static int peer_greet(struct spec *spec, struct spec_peer *peer) {
  uint8_t first;
  if (peer->greeted) return 0;
  ssize_t n = recv(peer->fd, &first, 1, MSG_PEEK);
  if (n < 0) return SPEC_AGAIN;
  peer->greeted = true;
  return n == 1 && first == TLS_HELLO ? peer_start_tls(spec, peer, NULL) : 0;
}

static int64_t peer_result(int64_t result) {
  if (result >= 0) return result;
  if (result == TLS_EOF) return SPEC_CLOSED;
  return result == TLS_FAILED ? SPEC_FAILED : SPEC_AGAIN;
}

static int64_t peer_handshake(struct spec_peer *peer) {
  struct error error;
  int result = tls_handshake(peer->tls, &error);
  if (result == 0) peer->shaking = false;
  return peer_result(result);
}

static int64_t socket_result(ssize_t n) {
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? SPEC_AGAIN : SPEC_FAILED;
}

int64_t spec_read(struct spec *spec, int number, char *data, uint32_t room) {
  struct spec_peer *peer = peer_find(spec, number);
  struct error error;
  if (!peer) return SPEC_FAILED;
  int64_t result = peer_greet(spec, peer);
  if (result == 0 && peer->shaking) result = peer_handshake(peer);
  if (result < 0) return result;
  if (peer->tls) return peer_result(tls_read(peer->tls, data, room, &error));
  result = socket_result(recv(peer->fd, data, room, 0));
  return result == 0 ? SPEC_CLOSED : result;
}

int64_t spec_write(struct spec *spec, int number, const char *data, uint32_t len) {
  struct spec_peer *peer = peer_find(spec, number);
  struct error error;
  if (!peer) return SPEC_FAILED;
  int64_t result = peer->shaking ? peer_handshake(peer) : 0;
  if (result < 0) return result;
  struct iovec piece = {.iov_base = (char *)(uintptr_t)data, .iov_len = len};
  if (peer->tls) return peer_result(tls_writev(peer->tls, &piece, 1, &error));
  return socket_result(send(peer->fd, data, len, MSG_NOSIGNAL));
}

void spec_finish(struct spec *spec, int number) {
  struct spec_peer *peer = peer_find(spec, number);
  if (!peer) return;
  if (peer->tls) tls_shutdown(peer->tls);
  shutdown(peer->fd, SHUT_WR);
}

void spec_close(struct spec *spec, int number) {
  struct spec_peer *peer = peer_find(spec, number);
  if (!peer) return;
  if (peer->tls) {
    if (!peer->shaking) tls_shutdown(peer->tls);
    tls_free(peer->tls);
    peer->tls = NULL;
  }
  close(peer->fd);
  peer->fd = -1;
}

int spec_client(struct spec *spec, int listener, const char *address, uint32_t port, const char *server_name) {
  struct address from;
  int ends[2];
  if (!address_parse(slice_of(address), (uint16_t)port, &from)) return SPEC_FAILED;
  if (listener < 0 || listener >= LISTENERS || pair_new(ends) < 0) return SPEC_FAILED;
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

static void on_pending(struct ev_loop *ev) {
  struct spec *spec = ev_userdata(ev);
  spec->events += ev_pending_count(ev);
  ev_invoke_pending(ev);
}

bool spec_turn(struct spec *spec) {
  struct loop *loop = &spec->worker->loop;
  bool due = spec->worker->jobs || timers_next(&loop->timers) <= loop->clock.mono_us;
  spec->events = 0;
  worker_turn(spec->worker, false);
  return due || spec->events > OWN_EVENTS || spec->worker->jobs;
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

static void worker_prepare(struct spec *spec, const struct spec_options *options) {
  struct worker *worker = spec->worker;
  worker->spec = spec;
  worker->connect = on_connect;
  worker->topics = topics_new(worker);
  worker->seeded = true;
  worker->random[0] = (uint64_t)options->seed * 0x9e3779b97f4a7c15u | 1;
  worker->random[1] = ~worker->random[0];
  worker->loop.clock.real_us = (int64_t)(options->time_s * 1e6);
  dns_answer_with(worker->dns, on_name, spec);
  ev_set_userdata(worker->loop.ev, spec);
  ev_set_invoke_pending_cb(worker->loop.ev, on_pending);
}

struct spec *spec_new(const struct spec_options *options, char *error, uint32_t error_bytes) {
  struct spec *spec = calloc(1, sizeof *spec);
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
  spec->arrivals_end = &spec->arrivals;
  spec->worker = worker_new(&raw, &cause);
  if (!spec->worker) {
    snprintf(error, error_bytes, "%s", cause.text);
    spec_free(spec);
    return NULL;
  }
  listeners_init(spec);
  worker_prepare(spec, options);
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

void spec_free(struct spec *spec) {
  for (uint32_t i = 0; i < spec->peer_count; i++) {
    spec_close(spec, (int)i);
    free(spec->peers[i]);
  }
  free(spec->peers);
  struct topics *topics = spec->worker ? spec->worker->topics : NULL;
  if (spec->worker) worker_free(spec->worker);
  if (topics) topics_free(topics); // after the VM, whose readers are closed when it collects them
  if (spec->client_tls) tls_context_free(spec->client_tls);
  if (spec->service_tls) tls_context_free(spec->service_tls);
  names_free(spec);
  text_free(&spec->log);
  free(spec);
}
