// SPDX-License-Identifier: Apache-2.0
// The client's side of a TCP or TLS stream.
#include "tcp_server.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "client_hello.h"
#include "proxy_input.h"
#include "stream_router.h"
#include "tls.h"
#include "worker.h"

enum { LINGER_MS = 2000, LINGER_BYTES = 1 << 20, HELLO_AGAIN_US = 10000, DRAIN_GRACE_US = 1000000 };

static struct tcp_server *server_of_conn(struct conn *conn) {
  return (struct tcp_server *)(void *)((char *)conn - offsetof(struct tcp_server, conn));
}

static struct tcp_server *server_of_stream(const struct stream *stream) {
  return (struct tcp_server *)(void *)(uintptr_t)stream;
}

static struct tcp_server *server_of(const struct exchange *exchange) {
  return server_of_stream(exchange->stream);
}

static const struct limits *limits_of(const struct tcp_server *server) {
  const struct worker *worker = server->stream.worker;
  return worker->generation ? &worker->generation->limits : &worker->first_limits;
}

static void tcp_timeout(struct tcp_server *server, int64_t ms) {
  conn_deadline(&server->conn, ms > 0 ? server->stream.worker->loop.clock.mono_us + ms * 1000 : 0);
}

// ---- Closing -------------------------------------------------------------------------------------------------------

void tcp_server_close(struct tcp_server *server) {
  struct worker *worker = server->stream.worker;
  if (server->conn.closed) return;
  conn_close(&server->conn);
  struct exchange *exchange = server->exchange;
  server->exchange = NULL;
  if (exchange) exchange_on_gone(exchange);
  stream_close(&server->stream);
  proxy_input_free(server->proxy);
  server->proxy = NULL;
  if (server->previous)
    server->previous->next = server->next;
  else
    worker->tcp_servers = server->next;
  if (server->next) server->next->previous = server->previous;
  worker->server_count--;
  worker->board->connections_open--;
  worker_bury(worker, &server->grave, server);
}

// The client is to see that the stream broke off.
static void tcp_reset(struct tcp_server *server) {
  struct linger reset = {1, 0};
  if (server->conn.fd >= 0) setsockopt(server->conn.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  server->conn.failed = true; // and no close_notify
  tcp_server_close(server);
}

// All has been written. What the client still sends is read for a while: closing over it would reset the connection,
// and could destroy what is on its way.
static void tcp_linger(struct tcp_server *server) {
  if (server->client_done || server->conn.eof) {
    tcp_server_close(server);
    return;
  }
  if (!server->finished) conn_finish(&server->conn);
  server->finished = true;
  server->delivered = LINGER_BYTES;
  tcp_timeout(server, LINGER_MS);
  conn_resume(&server->conn);
}

static void drop_input(struct tcp_server *server) {
  int64_t n = conn_fill(&server->conn);
  if (n == CONN_AGAIN) return;
  server->delivered -= n > 0 ? n : 0;
  if (n <= 0 || server->delivered < 0) {
    tcp_server_close(server);
    return;
  }
  conn_consume(&server->conn, (uint32_t)n);
}

// ---- From the exchange ---------------------------------------------------------------------------------------------

static void tcp_head(struct exchange *exchange) {
  (void)exchange;
}

static void tcp_interim(struct exchange *exchange, int status, const struct headers *fields) {
  (void)exchange, (void)status, (void)fields;
}

static void tcp_body(struct exchange *exchange, struct chunk *chunk, const char *data, uint32_t len) {
  struct tcp_server *server = server_of(exchange);
  struct buffer *out = &server->conn.out;
  exchange->response_bytes += len;
  server->stream.worker->board->stream_bytes_out += len;
  if ((chunk ? buffer_append_piece(out, chunk, data, len) : buffer_append(out, data, len)) < 0)
    server->conn.failed = true;
}

// Writes; when all is written and nothing follows, says so.
static void tcp_flush(struct exchange *exchange) {
  struct tcp_server *server = server_of(exchange);
  conn_flush(&server->conn);
  if (server->conn.out.bytes > 0) {
    tcp_timeout(server, limits_of(server)->send_timeout_ms);
  } else if (server->finish && !server->finished) {
    server->finished = true;
    conn_finish(&server->conn);
  }
}

static void tcp_finish(struct exchange *exchange) {
  server_of(exchange)->finish = true;
  tcp_flush(exchange);
}

static void tcp_end(struct exchange *exchange, const struct headers *trailers) {
  struct tcp_server *server = server_of(exchange);
  (void)trailers;
  server->exchange = NULL;
  server->stage = TCP_ENDS;
  conn_flush(&server->conn);
  if (server->conn.failed) return; // the loop closes it
  conn_pause(&server->conn);
  tcp_timeout(server, limits_of(server)->send_timeout_ms);
  if (server->conn.out.bytes == 0) tcp_linger(server);
}

static void tcp_abort(struct exchange *exchange) {
  struct tcp_server *server = server_of(exchange);
  server->exchange = NULL;
  conn_flush(&server->conn);
  tcp_reset(server);
}

static bool tcp_is_congested(const struct exchange *exchange) {
  return conn_is_congested(&server_of(exchange)->conn);
}

static void tcp_want_body(struct exchange *exchange, bool wanted) {
  struct tcp_server *server = server_of(exchange);
  if (server->client_done || !server->tunnel) return;
  if (wanted)
    conn_resume(&server->conn);
  else
    conn_pause(&server->conn);
}

static void tcp_tunnel(struct exchange *exchange) {
  server_of(exchange)->tunnel = true;
  tcp_want_body(exchange, true);
}

static const struct stream_ops tcp_ops = {
    .head = tcp_head,
    .interim = tcp_interim,
    .body = tcp_body,
    .end = tcp_end,
    .abort = tcp_abort,
    .flush = tcp_flush,
    .is_congested = tcp_is_congested,
    .want_body = tcp_want_body,
    .tunnel = tcp_tunnel,
    .finish = tcp_finish,
};

// ---- Before the exchange -------------------------------------------------------------------------------------------

static void tcp_begin(struct tcp_server *server, uint32_t protocols, struct slice sni) {
  conn_pause(&server->conn); // until somebody takes what comes
  tcp_timeout(server, 0);
  server->stage = TCP_CARRIES;
  server->stream.peer.requests = 1;
  server->exchange = exchange_new(server->stream.worker, &server->stream, &tcp_ops);
  if (server->exchange)
    exchange_on_connection(server->exchange, &server->ends, protocols, sni);
  else
    tcp_server_close(server);
}

static void tcp_greet(struct tcp_server *server) {
  server->stage = TCP_GREETS;
  if (stream_start_tls(&server->stream) < 0) tcp_server_close(server);
}

// Whether a route passes a client with that name through, TLS and all.
static bool passes_through(const struct tcp_server *server, struct slice sni) {
  struct stream_request request = {.protocols = PROTOCOL_TLS | PROTOCOL_TLS_PASSTHROUGH,
                                   .sni = sni,
                                   .source = &server->ends.source.socket.base,
                                   .destination = &server->ends.here.socket.base};
  uint32_t protocol = 0;
  stream_router_find(server->stream.worker->generation->stream_router, &request, &protocol);
  return (protocol & PROTOCOL_TLS_PASSTHROUGH) != 0;
}

static void set_low_water(const struct tcp_server *server, int bytes) {
  setsockopt(server->conn.fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

// More of it has to come. The socket, which holds what has come, is not readable before; where that cannot be had (a
// unix socket), it is looked at again after a moment.
static void await_hello(struct tcp_server *server, uint32_t bytes) {
  struct pollfd gone = {.fd = server->conn.fd, .events = POLLRDHUP};
  int64_t now = server->stream.worker->loop.clock.mono_us;
  if (poll(&gone, 1, 0) > 0) {
    tcp_server_close(server);
    return;
  }
  if (bytes > server->hello_bytes) {
    server->hello_bytes = bytes;
    set_low_water(server, (int)bytes + 1);
    return;
  }
  conn_pause(&server->conn);
  conn_deadline(&server->conn,
                now + HELLO_AGAIN_US < server->greet_until_us ? now + HELLO_AGAIN_US : server->greet_until_us);
}

static void read_hello(struct tcp_server *server) {
  char data[CLIENT_HELLO_MOST];
  struct client_hello hello;
  ssize_t n = recv(server->conn.fd, data, sizeof data, MSG_PEEK);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    tcp_server_close(server);
    return;
  }
  enum client_hello_result result = client_hello_read(data, (uint32_t)n, &hello);
  if (result == CLIENT_HELLO_MORE) {
    await_hello(server, (uint32_t)n);
    return;
  }
  if (server->hello_bytes) set_low_water(server, 1);
  struct slice sni = {hello.sni, hello.sni_len};
  if (result == CLIENT_HELLO_WHOLE && passes_through(server, sni))
    tcp_begin(server, PROTOCOL_TLS_PASSTHROUGH, sni);
  else
    tcp_greet(server); // OpenSSL says what is wrong with one that is bad
}

static bool may_pass_through(const struct tcp_server *server) {
  const struct generation *generation = server->stream.worker->generation;
  return generation && generation->stream_router &&
         (stream_router_protocols(generation->stream_router) & PROTOCOL_TLS_PASSTHROUGH);
}

// The addresses are known.
static void tcp_start(struct tcp_server *server) {
  if (!server->stream.listener->tls) {
    tcp_begin(server, PROTOCOL_TCP, (struct slice){NULL, 0});
  } else if (may_pass_through(server)) {
    server->stage = TCP_AWAITS_HELLO;
    conn_resume(&server->conn);
  } else {
    tcp_greet(server);
  }
}

static void read_proxy(struct tcp_server *server) {
  struct proxy_header header;
  int result = proxy_input_read(server->proxy, &server->stream, &header);
  if (result == 0) return;
  if (result < 0) {
    tcp_server_close(server);
    return;
  }
  if (header.known) {
    server->ends.source = header.source;
    server->ends.destination = header.destination;
  }
  proxy_input_free(server->proxy);
  server->proxy = NULL;
  tcp_start(server);
}

// ---- Bytes ---------------------------------------------------------------------------------------------------------

static void take_bytes(struct tcp_server *server) {
  struct conn *conn = &server->conn;
  struct slice input = conn_input(conn);
  server->stream.worker->board->stream_bytes_in += input.len;
  exchange_on_body(server->exchange, conn->in, input);
  if (conn->closed) return;
  conn_consume(conn, input.len);
  conn_release_input(conn);
  if (server->exchange) exchange_on_body_settled(server->exchange);
}

static void client_is_done(struct tcp_server *server) {
  conn_pause(&server->conn);
  server->client_done = true;
  exchange_on_request_end(server->exchange);
}

static void read_bytes(struct tcp_server *server) {
  struct conn *conn = &server->conn;
  if (conn->failed && !conn->unwritable) {
    tcp_server_close(server);
    return;
  }
  if (!server->exchange || server->client_done || !server->tunnel) { // only a failure brings us here
    if (conn->failed) tcp_server_close(server);
    return;
  }
  int64_t n = conn_fill(conn);
  if (n == CONN_AGAIN) return;
  bool cut = n == CONN_FAILED && conn->tls && tls_is_cut_off(conn->tls);
  if (n > 0)
    take_bytes(server);
  else if (n == CONN_EOF || cut)
    client_is_done(server);
  else
    tcp_server_close(server);
}

static void tcp_on_read(struct conn *conn) {
  struct tcp_server *server = server_of_conn(conn);
  switch ((enum tcp_stage)server->stage) {
  case TCP_AWAITS_PROXY: read_proxy(server); break;
  case TCP_AWAITS_HELLO: read_hello(server); break;
  case TCP_GREETS: // it failed
    if (conn->failed) tcp_server_close(server);
    break;
  case TCP_CARRIES: read_bytes(server); break;
  case TCP_ENDS:
    if (conn->failed)
      tcp_server_close(server);
    else
      drop_input(server);
    break;
  }
}

static void tcp_on_write(struct conn *conn) {
  struct tcp_server *server = server_of_conn(conn);
  if (server->stage == TCP_GREETS) {
    tcp_begin(server, PROTOCOL_TLS, stream_sni(&server->stream));
  } else if (server->stage == TCP_ENDS) {
    if (conn->out.bytes == 0) tcp_linger(server);
  } else if (server->exchange) {
    if (conn->out.bytes == 0) tcp_timeout(server, 0);
    tcp_flush(server->exchange);
    exchange_on_drained(server->exchange);
  }
}

// Whether the client takes what it is sent, however slowly.
static bool tcp_moves(struct tcp_server *server) {
  int64_t before = server->delivered;
  server->delivered = conn_delivered(&server->conn);
  return server->conn.out.bytes > 0 && server->delivered != before;
}

static void tcp_on_deadline(struct conn *conn) {
  struct tcp_server *server = server_of_conn(conn);
  if (server->stage == TCP_AWAITS_HELLO && server->stream.worker->loop.clock.mono_us < server->greet_until_us) {
    conn_deadline(conn, server->greet_until_us);
    conn_resume(conn);
  } else if (conn->out.bytes > 0 && tcp_moves(server)) {
    tcp_timeout(server, limits_of(server)->send_timeout_ms);
  } else {
    tcp_server_close(server);
  }
}

// ---- Accepting -----------------------------------------------------------------------------------------------------

static void tcp_on_greeting_failed(struct stream *stream) {
  tcp_server_close(server_of_stream(stream));
}

static struct address address_of(const struct sockaddr *address, socklen_t len) {
  struct address copy = {.len = len < sizeof copy.socket ? len : 0};
  memcpy(&copy.socket, address, copy.len);
  return copy;
}

static struct ends ends_of(int fd, const struct sockaddr *client) {
  struct sockaddr_storage local = {0};
  socklen_t len = sizeof local;
  getsockname(fd, (struct sockaddr *)&local, &len);
  socklen_t client_len = client->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
                         : client->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                         : sizeof client->sa_family;
  struct address here = address_of((struct sockaddr *)&local, len);
  return (struct ends){address_of(client, client_len), here, here};
}

static void tcp_enlist(struct tcp_server *server) {
  struct worker *worker = server->stream.worker;
  server->next = worker->tcp_servers;
  if (server->next) server->next->previous = server;
  worker->tcp_servers = server;
  worker->server_count++;
  server->stream.peer.number = ++worker->board->connections;
  worker->board->connections_open++;
}

void tcp_server_open(struct worker *worker, const struct listener *listener, int fd, const struct sockaddr *address) {
  struct tcp_server *server = calloc(1, sizeof *server);
  if (!server) {
    close(fd);
    return;
  }
  stream_open(&server->stream, worker, listener, &server->conn, address);
  server->stream.on_greeting_failed = tcp_on_greeting_failed;
  server->conn.on_read = tcp_on_read;
  server->conn.on_write = tcp_on_write;
  server->conn.on_deadline = tcp_on_deadline;
  server->ends = ends_of(fd, address);
  conn_init(&server->conn, &worker->loop, &worker->chunks, fd);
  tcp_enlist(server);
  server->greet_until_us = worker->loop.clock.mono_us + limits_of(server)->header_timeout_ms * 1000;
  tcp_timeout(server, limits_of(server)->header_timeout_ms);
  if (!listener->proxy_protocol) {
    tcp_start(server);
    return;
  }
  server->proxy = proxy_input_new();
  if (server->proxy)
    conn_resume(&server->conn);
  else
    tcp_server_close(server);
}

void tcp_servers_drain(struct worker *worker, bool all) {
  for (struct tcp_server *server = worker->tcp_servers, *next; server; server = next) {
    next = server->next;
    bool greets = server->stage < TCP_CARRIES && worker->loop.clock.mono_us >= worker->drain_from_us + DRAIN_GRACE_US;
    if (all || greets) tcp_server_close(server);
  }
}
