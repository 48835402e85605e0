// SPDX-License-Identifier: Apache-2.0
// Client sockets for Lua (http, redis and the like): connect with DNS and TLS, send, receive, each as a wait of the
// coroutine that asked. Slots and serials make a stale number harmless.
#include <stddef.h>
#include <stdlib.h>

#include "conn.h"
#include "dns.h"
#include "phase.h"
#include "tls.h"
#include "tls_cache.h"
#include "worker.h"

enum { SLOT_BITS = 20, LINE_STEP = 65536 };

enum client_wait { WAIT_NOTHING, WAIT_CONNECT, WAIT_SEND, WAIT_RECEIVE };

struct client {
  struct worker *worker;
  struct conn conn;
  struct dns_query query;
  struct tls_context *tls; // NULL: plain
  char *host, *tls_name;
  uint32_t slot, serial;
  uint32_t port;
  uint8_t wait; // enum client_wait
  bool has_conn;
  double coroutine;
  double connect_timeout_s, timeout_s;
  int64_t ends_us; // monotonic: no wait goes on past that; 0: none
  struct address addresses[TARGET_ADDRESSES];
  uint32_t address_count, address_at;
  char *gathered; // bytes for a receive longer than a chunk
  size_t gathered_len, gathered_room;
  uint32_t handed; // input that the last receive gave, to be consumed by the next call
  struct error error;
  struct grave grave;
};

static struct client *client_of(struct conn *conn) {
  return (struct client *)(void *)((char *)conn - offsetof(struct client, conn));
}

static double client_handle(const struct client *client) {
  return (double)(((uint64_t)client->serial << SLOT_BITS) | client->slot);
}

static struct client *client_find(struct worker *worker, double handle) {
  if (!(handle >= 0 && handle < 9007199254740992.0)) return NULL;
  uint32_t slot = (uint32_t)((uint64_t)handle & ((1u << SLOT_BITS) - 1));
  struct client *client = slot < worker->client_count ? worker->clients[slot] : NULL;
  return client && client_handle(client) == handle ? client : NULL;
}

// ---- Life --------------------------------------------------------------------------------------------------------

static struct client *client_new(struct worker *worker) {
  uint32_t slot = 0;
  while (slot < worker->client_count && worker->clients[slot]) slot++;
  if (slot == worker->client_count) {
    uint32_t count = worker->client_count ? worker->client_count * 2 : 16;
    if (count > 1u << SLOT_BITS) return NULL;
    struct client **clients = realloc(worker->clients, count * sizeof *clients);
    if (!clients) return NULL;
    memset(clients + worker->client_count, 0, (count - worker->client_count) * sizeof *clients);
    worker->clients = clients;
    worker->client_count = count;
  }
  struct client *client = calloc(1, sizeof *client);
  if (!client) return NULL;
  client->worker = worker;
  client->slot = slot;
  client->serial = ++worker->client_serial;
  worker->clients[slot] = client;
  return client;
}

static void client_free(struct client *client) {
  struct worker *worker = client->worker;
  if (worker->clients[client->slot] != client) return;
  worker->clients[client->slot] = NULL;
  dns_cancel(worker->dns, &client->query);
  if (client->has_conn) conn_close(&client->conn);
  if (client->tls) tls_context_free(client->tls);
  free(client->host);
  free(client->tls_name);
  free(client->gathered);
  worker_bury(worker, &client->grave, client);
}

void clients_close(struct worker *worker) {
  for (uint32_t i = 0; i < worker->client_count; i++)
    if (worker->clients[i]) client_free(worker->clients[i]);
  free(worker->clients);
  worker->clients = NULL;
  worker->client_count = 0;
}

static void client_timeout(struct client *client, double seconds) {
  int64_t ends_us = seconds > 0 ? client->worker->loop.clock.mono_us + (int64_t)(seconds * 1e6) : 0;
  if (client->ends_us && (!ends_us || client->ends_us < ends_us)) ends_us = client->ends_us;
  conn_deadline(&client->conn, ends_us);
}

// The coroutine that waits hears how it ended.
static void client_wake(struct client *client, int status) {
  double coroutine = client->coroutine, number = client_handle(client);
  client->wait = WAIT_NOTHING;
  client->coroutine = 0;
  if (client->has_conn && !client->conn.closed) conn_deadline(&client->conn, 0);
  if (coroutine != 0) worker_wake(client->worker, coroutine, status, number);
}

static int client_waits(struct client *client, enum client_wait wait) {
  double coroutine = phase_self(client->worker);
  if (coroutine == 0 || client->wait != WAIT_NOTHING) return BRIDGE_INVALID;
  client->wait = (uint8_t)wait;
  client->coroutine = coroutine;
  return BRIDGE_AGAIN;
}

// ---- Connect -----------------------------------------------------------------------------------------------------

static void client_connect(struct client *client);

static void connect_failed(struct client *client, int status, const char *why) {
  error_set(&client->worker->error, ERROR_CLOSED, "%s", why);
  client_wake(client, status);
  client_free(client);
}

// This address does not answer: the next one, while there is one.
static void address_failed(struct client *client, int status, const char *why) {
  if (++client->address_at >= client->address_count) {
    connect_failed(client, status, why); // closes too: `why` is the connection's
    return;
  }
  conn_close(&client->conn);
  client->has_conn = false;
  client_connect(client);
}

static void client_on_read(struct conn *conn) {
  struct client *client = client_of(conn);
  if (client->wait == WAIT_CONNECT) {
    address_failed(client, BRIDGE_FAILED, conn->failed ? conn_reason(conn) : "the connection was closed");
    return;
  }
  if (client->wait == WAIT_RECEIVE) {
    client_wake(client, BRIDGE_OK); // bridge_socket_receive looks again
    conn_pause(conn);
    return;
  }
  if (client->wait == WAIT_SEND && conn->failed) {
    client_wake(client, BRIDGE_CLOSED);
    conn_pause(conn);
    return;
  }
  // Nobody reads: note the end, and leave bytes for the next receive.
  if (conn_fill(conn) != CONN_AGAIN) conn_pause(conn);
}

static bool start_tls(struct client *client) {
  struct conn *conn = &client->conn;
  struct tls *tls = tls_client_new(client->tls, conn->fd, client->tls_name, client->tls_name);
  if (!tls) return false;
  conn_start_tls(conn, tls);
  ev_feed_event(conn->loop->ev, &conn->reader, EV_READ); // the client speaks first
  return true;
}

static void client_on_write(struct conn *conn) {
  struct client *client = client_of(conn);
  if (client->wait == WAIT_CONNECT) {
    if (client->tls && !conn->tls) {
      if (!start_tls(client)) connect_failed(client, BRIDGE_FAILED, "no memory for TLS");
      return;
    }
    conn_pause(conn);
    client_wake(client, BRIDGE_OK);
  } else if (client->wait == WAIT_SEND && conn->out.bytes == 0) {
    client_wake(client, BRIDGE_OK);
  }
}

static void client_on_deadline(struct conn *conn) {
  struct client *client = client_of(conn);
  if (client->wait == WAIT_CONNECT)
    address_failed(client, BRIDGE_TIMEOUT, "the connection timed out");
  else
    client_wake(client, BRIDGE_TIMEOUT);
}

static void client_connect(struct client *client) {
  struct worker *worker = client->worker;
  struct address *address = &client->addresses[client->address_at];
  struct error error = {0};
  client->conn.on_read = client_on_read;
  client->conn.on_write = client_on_write;
  client->conn.on_deadline = client_on_deadline;
  int result = worker->connect ? worker->connect(worker, &client->conn, address)
                               : conn_connect(&client->conn, &worker->loop, &worker->chunks, &address->socket.base,
                                              address->len, &error);
  if (result < 0) {
    if (++client->address_at < client->address_count)
      client_connect(client);
    else
      connect_failed(client, BRIDGE_FAILED, error.code ? error.text : "no connection");
    return;
  }
  client->has_conn = true;
  client_timeout(client, client->connect_timeout_s);
}

static void client_on_dns(struct dns_query *query) {
  struct client *client = (struct client *)(void *)((char *)query - offsetof(struct client, query));
  if (query->error.code || query->count == 0) {
    connect_failed(client, BRIDGE_FAILED, query->error.code ? query->error.text : "name resolution failed");
    return;
  }
  client->address_count = addresses_take(client->addresses, query, (uint16_t)client->port);
  client_connect(client);
}

static void client_resolve(struct worker *worker, double handle) {
  struct client *client = client_find(worker, handle);
  if (!client) return;
  if (client->address_count > 0)
    client_connect(client);
  else if (dns_resolve(worker->dns, slice_of(client->host), DNS_ADDRESS, &client->query) == DNS_READY)
    client_on_dns(&client->query);
}

static int take_tls(struct client *client, const struct socket_options *options) {
  client->tls_name = strdup(options->tls_name);
  if (!client->tls_name) return BRIDGE_FULL;
  struct tls_client_options tls = {
      .verify = options->tls_verify,
      .verify_depth = -1,
      .alpn = options->alpn,
      .ca_pem = options->ca_pem,
      .certificate_pem = options->certificate_pem,
      .key_pem = options->key_pem,
  };
  uint64_t hash;
  client->tls = tls_cache_get(client->worker, &tls, &hash);
  if (!client->tls) return BRIDGE_FAILED;
  tls_context_retain(client->tls); // the cache may drop it before the connection stands
  return BRIDGE_OK;
}

static int take_options(struct client *client, struct slice host, const struct socket_options *options) {
  client->connect_timeout_s = options->connect_timeout_s;
  client->timeout_s = options->timeout_s;
  client->host = strndup(host.data, host.len);
  if (!client->host) return BRIDGE_FULL;
  return options->tls_name ? take_tls(client, options) : BRIDGE_OK;
}

int bridge_socket_connect(struct worker *worker, const char *host, uint32_t len, uint32_t port,
                          const struct socket_options *options) {
  if (len == 0 || len > 255 || port > 65535) return BRIDGE_INVALID;
  struct slice name = {host, len};
  struct client *client = client_new(worker);
  if (!client) return BRIDGE_FULL;
  client->port = port;
  client->query.on_done = client_on_dns;
  int status = take_options(client, name, options);
  if (status == BRIDGE_OK) status = client_waits(client, WAIT_CONNECT);
  if (status != BRIDGE_AGAIN) {
    client_free(client);
    return status;
  }
  if (address_parse(name, (uint16_t)port, &client->addresses[0]) || address_unix(name, &client->addresses[0]))
    client->address_count = 1;
  // The first step is taken by the loop: no wait may end before its coroutine has yielded.
  if (worker_later(worker, client_resolve, client_handle(client)) == 0) return BRIDGE_AGAIN;
  client_free(client);
  return BRIDGE_FULL;
}

// ---- Send and receive --------------------------------------------------------------------------------------------

int bridge_socket_send(struct worker *worker, double handle, const char *data, uint32_t len) {
  struct client *client = client_find(worker, handle);
  if (!client) return BRIDGE_STALE;
  if (client->conn.failed) return BRIDGE_CLOSED;
  if (buffer_append(&client->conn.out, data, len) < 0) return BRIDGE_FULL;
  if (conn_flush(&client->conn) < 0) return BRIDGE_CLOSED;
  if (client->conn.out.bytes == 0) return BRIDGE_OK;
  client_timeout(client, client->timeout_s);
  return client_waits(client, WAIT_SEND);
}

static void consume_handed(struct client *client) {
  if (client->handed == UINT32_MAX) {
    client->gathered_len = 0;
  } else if (client->handed > 0) {
    conn_consume(&client->conn, client->handed);
    conn_release_input(&client->conn);
  }
  client->handed = 0;
}

static int hand(struct client *client, struct slice text, uint32_t used, struct bytes *out) {
  client->handed = used;
  *out = (struct bytes){text.data ? text.data : "", text.len};
  return BRIDGE_OK;
}

// How much of the input the receive can take now: bytes to hand over, 0: more must come, -1: a line too long.
static int64_t ready_bytes(struct slice input, int mode, uint32_t limit) {
  if (mode == RECEIVE_SOME) return input.len < limit ? input.len : limit;
  if (mode == RECEIVE_EXACT) return input.len >= limit ? limit : 0;
  uint32_t most = input.len < limit ? input.len : limit;
  const char *end = most ? memchr(input.data, '\n', most) : NULL;
  if (end) return end - input.data + 1;
  return input.len >= limit ? -1 : 0;
}

static struct slice strip_line_end(struct slice line) {
  if (line.len && line.data[line.len - 1] == '\n') line.len--;
  if (line.len && line.data[line.len - 1] == '\r') line.len--;
  return line;
}

static int hand_ready(struct client *client, struct slice input, int mode, uint32_t ready, struct bytes *out) {
  struct slice text = {input.data, ready};
  return hand(client, mode == RECEIVE_LINE ? strip_line_end(text) : text, ready, out);
}

// An exact receive longer than a chunk: moved piece by piece into memory of its own.
static int gather(struct client *client, uint32_t limit, struct bytes *out) {
  if (client->gathered_room < limit) {
    char *bigger = realloc(client->gathered, limit);
    if (!bigger) return BRIDGE_FULL;
    client->gathered = bigger;
    client->gathered_room = limit;
  }
  struct slice input = conn_input(&client->conn);
  uint32_t wanted = limit - (uint32_t)client->gathered_len;
  uint32_t piece = input.len < wanted ? input.len : wanted;
  if (piece) memcpy(client->gathered + client->gathered_len, input.data, piece);
  client->gathered_len += piece;
  conn_consume(&client->conn, piece);
  if (client->gathered_len < limit) return BRIDGE_AGAIN;
  return hand(client, (struct slice){client->gathered, limit}, UINT32_MAX, out);
}

static int take_ready(struct client *client, int mode, uint32_t limit, struct bytes *out) {
  if (mode == RECEIVE_EXACT && (limit > LINE_STEP / 2 || client->gathered_len > 0)) return gather(client, limit, out);
  struct slice input = conn_input(&client->conn);
  int64_t ready = ready_bytes(input, mode, limit);
  if (ready < 0) return BRIDGE_FULL;
  return ready > 0 ? hand_ready(client, input, mode, (uint32_t)ready, out) : BRIDGE_AGAIN;
}

int bridge_socket_receive(struct worker *worker, double handle, int mode, uint32_t limit, struct bytes *out) {
  struct client *client = client_find(worker, handle);
  if (!client) return BRIDGE_STALE;
  consume_handed(client);
  if (limit == 0) return mode == RECEIVE_LINE ? BRIDGE_INVALID : hand(client, SLICE(""), 0, out);
  for (;;) {
    int status = take_ready(client, mode, limit, out);
    if (status != BRIDGE_AGAIN) return status;
    uint32_t before = conn_input(&client->conn).len;
    if (mode == RECEIVE_LINE && before > LINE_STEP / 2) return BRIDGE_FULL;
    int64_t n = conn_fill(&client->conn);
    if (n == CONN_EOF || n == CONN_FAILED) return BRIDGE_CLOSED;
    if (n == CONN_AGAIN) break;
  }
  conn_resume(&client->conn);
  client_timeout(client, client->timeout_s);
  return client_waits(client, WAIT_RECEIVE);
}

int bridge_socket_tls(struct worker *worker, double handle, const struct socket_options *options) {
  struct client *client = client_find(worker, handle);
  if (!client) return BRIDGE_STALE;
  if (client->tls_name || !options->tls_name) return BRIDGE_INVALID;
  consume_handed(client);
  // What has come already was not encrypted, and is nothing that the peer of the handshake said.
  if (client->conn.failed || client->conn.eof || conn_input(&client->conn).len > 0 || client->conn.out.bytes > 0)
    return BRIDGE_CLOSED;
  int status = take_tls(client, options);
  if (status == BRIDGE_OK) status = client_waits(client, WAIT_CONNECT);
  if (status != BRIDGE_AGAIN) return status;
  client->address_count = client->address_at + 1; // no other one is tried: this one has been spoken to
  client_timeout(client, options->connect_timeout_s);
  if (start_tls(client)) return BRIDGE_AGAIN;
  client->wait = WAIT_NOTHING;
  client->coroutine = 0;
  return BRIDGE_FULL;
}

int bridge_socket_timeout(struct worker *worker, double handle, double seconds) {
  struct client *client = client_find(worker, handle);
  if (!client) return BRIDGE_STALE;
  client->timeout_s = seconds;
  return BRIDGE_OK;
}

int bridge_socket_deadline(struct worker *worker, double handle, double seconds) {
  struct client *client = client_find(worker, handle);
  if (!client) return BRIDGE_STALE;
  client->ends_us = seconds > 0 ? (int64_t)(seconds * 1e6) : 0;
  return BRIDGE_OK;
}

int bridge_socket_alive(struct worker *worker, double handle) {
  struct client *client = client_find(worker, handle);
  if (!client) return BRIDGE_STALE;
  consume_handed(client);
  if (client->conn.failed || client->conn.eof || conn_input(&client->conn).len > 0 || client->conn.out.bytes > 0)
    return BRIDGE_CLOSED;
  conn_resume(&client->conn); // so that a close is seen while it lies in a pool
  return BRIDGE_OK;
}

int bridge_socket_close(struct worker *worker, double handle) {
  struct client *client = client_find(worker, handle);
  if (!client) return BRIDGE_STALE;
  if (client->wait != WAIT_NOTHING) client_wake(client, BRIDGE_CLOSED);
  client_free(client);
  return BRIDGE_OK;
}
