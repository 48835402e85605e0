// SPDX-License-Identifier: Apache-2.0
// Connections to services over HTTP/2: found by key, shared by calls, closed when nobody has use for them.
//
//   call ──> waiting ──a stream is free──> active ──response whole──> gone
//   socket ──> session (h2_client_session.c) ──> calls           calls ──> session ──turn──> socket
//
// The library is written to at any time, but emptied once a turn of the loop: frames of many calls share a write.
#include "h2_client.h"

#include <stdio.h>
#include <stdlib.h>

#include "exchange.h"
#include "h2_client_parts.h"
#include "tls.h"
#include "try.h"
#include "worker.h"

enum { CONNECTIONS_MOST = 64, WAITING_MOST = 1024, PROBE_US = 5000000 };

static void client_on_read(struct conn *conn);
static void client_on_write(struct conn *conn);
static void client_on_deadline(struct conn *conn);
static void client_turn(struct worker *worker, void *data);

struct h2_client *h2_client_of(struct conn *conn) {
  return (struct h2_client *)(void *)((char *)conn - offsetof(struct h2_client, conn));
}

// ---- Lists ---------------------------------------------------------------------------------------------------------

void h2_calls_add(struct h2_calls *calls, struct h2_call *call) {
  call->next = NULL;
  call->previous = calls->last;
  *(calls->last ? &calls->last->next : &calls->first) = call;
  calls->last = call;
  calls->count++;
}

void h2_calls_remove(struct h2_calls *calls, struct h2_call *call) {
  *(call->previous ? &call->previous->next : &calls->first) = call->next;
  *(call->next ? &call->next->previous : &calls->last) = call->previous;
  calls->count--;
}

static void client_list(struct h2_client *client) {
  struct h2_client **bucket = &client->worker->h2.buckets[pool_key_hash(&client->key) % H2_BUCKETS];
  client->next = *bucket;
  if (client->next) client->next->previous = client;
  *bucket = client;
  client->listed = true;
}

void h2_client_unlist(struct h2_client *client) {
  if (!client->listed) return;
  struct h2_client **bucket = &client->worker->h2.buckets[pool_key_hash(&client->key) % H2_BUCKETS];
  *(client->previous ? &client->previous->next : bucket) = client->next;
  if (client->next) client->next->previous = client->previous;
  client->previous = client->next = NULL;
  client->listed = false;
}

// ---- The end -------------------------------------------------------------------------------------------------------

static void client_close(struct h2_client *client) {
  struct worker *worker = client->worker;
  if (client->conn.closed) return;
  h2_client_unlist(client);
  queue_drop(&client->turn);
  conn_close(&client->conn);
  nghttp2_session_del(client->session);
  client->session = NULL;
  if (client->tls) tls_context_free(client->tls);
  free(client->tls_name);
  worker->h2.count--;
  worker_bury(worker, &client->grave, client);
}

// Its calls fail with it: those whose request has gone out, and those that waited for a stream.
static void client_fail(struct h2_client *client, int status, const char *message) {
  h2_client_unlist(client); // before anybody tries again
  client->leaving = true;
  while (client->active.first) try_failed(h2_call_enter(client->active.first), status, message, false);
  while (client->waiting.first) try_failed(h2_call_enter(client->waiting.first), status, message, true);
  client_close(client);
}

static void client_not_connected(struct h2_client *client, int status, const char *why) {
  char message[320];
  snprintf(message, sizeof message, "No connection to the service: %s", why);
  client_fail(client, status, message);
}

static void client_broke(struct h2_client *client, const char *why) {
  char message[320];
  snprintf(message, sizeof message, "The service's connection failed: %s", why);
  client_fail(client, 502, message);
}

// ---- Writing -------------------------------------------------------------------------------------------------------

void h2_client_later(struct h2_client *client) {
  if (!client->conn.closed) worker_write_later(client->worker, client_turn, client, &client->turn);
}

static void client_settle(struct h2_client *client) {
  while (client->touched) h2_call_settle(client->touched);
}

// Calls that waited get streams.
static void client_promote(struct h2_client *client) {
  while (client->waiting.first && client->active.count < client->limit && !client->leaving)
    h2_call_begin(client->waiting.first);
}

// Those that cannot get one here go elsewhere.
static void client_spread(struct h2_client *client) {
  uint32_t left = client->waiting.count, kept = client->active.count;
  struct error error;
  while (left-- > 0 && client->waiting.first) {
    struct h2_call *call = client->waiting.first;
    h2_call_enter(call);
    h2_calls_remove(&client->waiting, call);
    bool stays = !client->leaving && kept++ < client->limit;
    if (!stays && h2_client_join(call, &client->key, &error) == 0) continue;
    h2_calls_add(&client->waiting, call);
    if (!stays) try_unreachable(call->exchange, error.text);
  }
}

static void client_goodbye(struct h2_client *client) {
  if (!client->conn.failed && !client->conn.eof) {
    nghttp2_session_terminate_session(client->session, NGHTTP2_NO_ERROR);
    h2_write(client->session, &client->conn);
    conn_flush(&client->conn);
  }
  client_close(client);
}

// Nobody has use for it just now.
static void client_rest(struct h2_client *client) {
  struct worker *worker = client->worker;
  if (client->leaving || worker->draining || worker->h2.count > worker->pool.most) {
    client_goodbye(client);
    return;
  }
  conn_release_input(&client->conn);
  if (client->suspect) return;
  int64_t idle_ms = worker->generation ? worker->generation->limits.upstream_idle_timeout_ms : 1;
  conn_deadline(&client->conn, worker->loop.clock.mono_us + idle_ms * 1000);
}

// Once a turn, when everybody has had a say.
static void client_turn(struct worker *worker, void *data) {
  (void)worker;
  struct h2_client *client = data;
  if (!client->session) return;
  if (client->leaving) client_spread(client);
  client_promote(client);
  int result = h2_write(client->session, &client->conn);
  if (result < 0) {
    client_broke(client, nghttp2_strerror(result));
    return;
  }
  client_settle(client);
  conn_flush(&client->conn); // a failure is heard of from the loop
  if (client->conn.closed) return;
  if (!nghttp2_session_want_read(client->session) && client->active.count > 0) {
    char message[256];
    snprintf(message, sizeof message, "The service sent invalid HTTP/2: %s",
             client->reason[0] ? client->reason : "protocol error");
    client_fail(client, 502, message);
  } else if (!nghttp2_session_want_read(client->session) && client->waiting.count == 0) {
    client_close(client);
  } else if (client->active.count + client->waiting.count == 0) {
    client_rest(client);
  }
}

// ---- Reading -------------------------------------------------------------------------------------------------------

static bool speaks_http_1(const struct h2_client *client, struct slice input) {
  return !client->served && input.len >= 5 && memcmp(input.data, "HTTP/", 5) == 0;
}

static void client_read(struct h2_client *client) {
  struct slice input = conn_input(&client->conn);
  if (speaks_http_1(client, input)) {
    client_fail(client, 502, "The service does not speak HTTP/2: it answers in HTTP/1");
    return;
  }
  client->served = true;
  if (client->suspect) conn_deadline(&client->conn, 0);
  client->suspect = false;
  ssize_t n = nghttp2_session_mem_recv(client->session, (const uint8_t *)input.data, input.len);
  client->current = NULL;
  conn_consume(&client->conn, input.len);
  client_settle(client);
  if (n < 0 && nghttp2_is_fatal((int)n)) {
    client_broke(client, nghttp2_strerror((int)n));
    return;
  }
  if (client->waiting.count > 0 && client->active.count >= client->limit) client_spread(client);
  h2_client_later(client);
}

static void client_on_read(struct conn *conn) {
  struct h2_client *client = h2_client_of(conn);
  int64_t n = conn_fill(conn);
  if (n == CONN_AGAIN) return;
  if (!client->session)
    client_not_connected(client, 502, n == CONN_EOF ? "it was closed" : conn_reason(conn));
  else if (n == CONN_EOF)
    client_fail(client, 502, "The service closed the connection");
  else if (n == CONN_FAILED)
    client_broke(client, conn_reason(conn));
  else
    client_read(client);
}

static void client_start_tls(struct h2_client *client) {
  struct conn *conn = &client->conn;
  struct tls *tls = tls_client_new(client->tls, conn->fd, client->tls_name, client->tls_name);
  if (!tls) {
    client_not_connected(client, 502, "No memory for TLS");
    return;
  }
  conn_start_tls(conn, tls);
  ev_feed_event(conn->loop->ev, &conn->reader, EV_READ); // the client speaks first
}

static bool agreed_to_h2(struct h2_client *client) {
  struct tls_info info;
  if (!client->tls) return true;
  tls_info(client->conn.tls, &info);
  return info.alpn && info.alpn_len == 2 && memcmp(info.alpn, "h2", 2) == 0;
}

static void client_on_write(struct conn *conn) {
  struct h2_client *client = h2_client_of(conn);
  if (client->session) {
    h2_client_later(client);
  } else if (client->tls && !conn->tls) {
    client_start_tls(client);
  } else if (!agreed_to_h2(client)) {
    client_not_connected(client, 502, "the service does not speak HTTP/2 (TLS agreed on no ALPN protocol h2)");
  } else if (h2_session_open(client) < 0) {
    client_not_connected(client, 502, "no memory");
  } else {
    conn_deadline(conn, 0);
    h2_client_later(client);
  }
}

void h2_client_probe(struct h2_client *client) {
  if (client->suspect || !client->session) return;
  client->suspect = true;
  nghttp2_submit_ping(client->session, NGHTTP2_FLAG_NONE, NULL);
  conn_deadline(&client->conn, client->worker->loop.clock.mono_us + PROBE_US);
  h2_client_later(client);
}

static void client_on_deadline(struct conn *conn) {
  struct h2_client *client = h2_client_of(conn);
  if (!client->session)
    client_fail(client, 504, "The connection to the service timed out");
  else if (client->suspect)
    client_fail(client, 504, "The service's connection is dead");
  else if (client->active.count + client->waiting.count == 0)
    client_goodbye(client);
}

// ---- Finding and making --------------------------------------------------------------------------------------------

static struct h2_client *client_fill(struct h2_client *client, struct h2_call *call, const struct pool_key *key) {
  struct try *try = call->exchange->try;
  client->worker = call->exchange->worker;
  client->key = *key;
  client->limit = H2_STREAMS_AT_FIRST;
  client->conn.on_read = client_on_read;
  client->conn.on_write = client_on_write;
  client->conn.on_deadline = client_on_deadline;
  if (!try->tls) return client;
  client->tls_name = strdup(try->tls_name);
  if (!client->tls_name) return NULL;
  client->tls = try->tls;
  tls_context_retain(client->tls);
  return client;
}

static struct h2_client *client_new(struct h2_call *call, const struct pool_key *key, struct error *error) {
  struct worker *worker = call->exchange->worker;
  struct h2_client *client = calloc(1, sizeof *client);
  error_set(error, ERROR_CLOSED, "refused");
  if (client && client_fill(client, call, key) && try_open(worker, &client->conn, key, error) == 0) {
    worker->h2.count++;
    client_list(client);
    conn_deadline(&client->conn, worker->loop.clock.mono_us + (int64_t)call->exchange->connect_timeout_ms * 1000);
    return client;
  }
  if (client && client->tls) tls_context_free(client->tls);
  if (client) free(client->tls_name);
  free(client);
  return NULL;
}

// The first with a stream to spare; else a new one; where there are enough of them, the one with the shortest queue.
static struct h2_client *client_find(struct h2_call *call, const struct pool_key *key, struct error *error) {
  uint32_t count = 0;
  struct h2_client *least = NULL;
  struct h2_client *client = call->exchange->worker->h2.buckets[pool_key_hash(key) % H2_BUCKETS];
  for (; client; client = client->next) {
    if (!pool_key_equal(&client->key, key) || client->suspect || client->conn.failed || client->conn.eof) continue;
    if (client->active.count + client->waiting.count < client->limit) return client;
    if (!least || client->waiting.count < least->waiting.count) least = client;
    count++;
  }
  if (count < CONNECTIONS_MOST) return client_new(call, key, error);
  if (least->waiting.count < WAITING_MOST) return least;
  error_set(error, ERROR_MEMORY, "too many requests wait for it");
  return NULL;
}

int h2_client_join(struct h2_call *call, const struct pool_key *key, struct error *error) {
  struct h2_client *client = client_find(call, key, error);
  if (!client) return error->code;
  call->client = client;
  h2_calls_add(&client->waiting, call);
  if (client->session && client->active.count < client->limit) h2_call_begin(client->waiting.first);
  return 0;
}

void h2_client_close_all(struct worker *worker) {
  for (uint32_t i = 0; i < H2_BUCKETS; i++)
    while (worker->h2.buckets[i]) client_close(worker->h2.buckets[i]);
  h2_session_pool_close(&worker->h2);
}
