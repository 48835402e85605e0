// SPDX-License-Identifier: Apache-2.0
// A connection to a service over HTTP/1.1.
//
//   pool or connect ──> head out, content out ──> head in, content in ──> pool
#include "link.h"

#include <stdio.h>
#include <stdlib.h>

#include "exchange.h"
#include "forward.h"
#include "hedge.h"
#include "tls.h"
#include "try.h"
#include "worker.h"

enum { HEAD_SLACK = 4096 };

static void link_on_read(struct conn *conn);
static void link_on_write(struct conn *conn);
static void link_on_deadline(struct conn *conn);

static struct link *link_of(struct conn *conn) {
  return (struct link *)(void *)((char *)conn - offsetof(struct link, conn));
}

// The exchange that the connection works for, with its try as the current one.
static struct exchange *link_enter(struct link *link) {
  struct exchange *exchange = link->exchange;
  if (exchange && hedge_is_on(exchange) && exchange->try->link != link) hedge_swap(exchange);
  return exchange;
}

static void link_timeout(struct link *link, int64_t ms) {
  conn_deadline(&link->conn, ms > 0 ? link->worker->loop.clock.mono_us + ms * 1000 : 0);
}

static void link_close(struct link *link) {
  if (link->idle) pool_remove(&link->worker->pool, link);
  if (link->conn.closed) return;
  queue_drop(&link->flush_job);
  conn_close(&link->conn);
  worker_bury(link->worker, &link->grave, link);
}

void link_close_idle(struct pool *pool) {
  while (pool->oldest) link_close(pool->oldest);
}

// ---- Request -------------------------------------------------------------------------------------------------------

static bool content_is_complete(const struct exchange *exchange) {
  return exchange->body_replaced || exchange->request_complete;
}

// Moves what has come of the content to the connection, in the framing that the head announced.
static void send_content(struct link *link, struct exchange *exchange) {
  struct buffer *out = &link->conn.out;
  bool chunked = exchange->request.chunked && !exchange->body_replaced && !link->tunnel;
  size_t len = exchange->request_body.bytes;
  int failed = 0;
  if (len > 0) {
    if (!link->tunnel) try_keep_content(exchange);
    char size[24];
    if (chunked) failed |= buffer_append(out, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", len));
    failed |= buffer_move(out, &exchange->request_body, len);
    if (chunked) failed |= buffer_append(out, "\r\n", 2);
  }
  if (link->tunnel && exchange->request_body.bytes == 0) buffer_clear(&exchange->request_body);
  if (!link->tunnel && !link->request_sent && content_is_complete(exchange)) {
    if (chunked) failed |= forward_last_chunk(&exchange->request.trailers, out);
    link->request_sent = true;
  }
  if (failed) link->conn.failed = true;
}

// It is the service's turn once it has the whole request; before that, the client's. A tunnel may be silent as long.
static void link_await(struct link *link) {
  link_timeout(link, link->request_sent ? link->exchange->read_timeout_ms : 0);
}

static void link_flush(struct link *link) {
  struct exchange *exchange = link->exchange;
  if (conn_flush(&link->conn) < 0) return; // heard of from the loop
  if (link->conn.out.bytes > 0) {
    link_timeout(link, exchange->send_timeout_ms);
    if (conn_is_congested(&link->conn)) exchange_hold_client(exchange);
    return;
  }
  link_await(link);
  if (!content_is_complete(exchange))
    exchange_on_service_drained(exchange);
  else if (link->tunnel)
    conn_finish(&link->conn);
}

static void link_flush_later(struct worker *worker, void *data) {
  (void)worker;
  link_flush(data);
}

// What is sent in this turn of the loop is written together at its end: a service that reads it is woken once, not for
// each request.
static void link_send(struct link *link) {
  send_content(link, link->exchange);
  if (link->conn.out.bytes < CONN_LOW_WATER)
    worker_write_later(link->worker, link_flush_later, link, &link->flush_job);
  else
    link_flush(link);
}

// The connection is ready: the request goes.
static void link_begin(struct link *link) {
  struct exchange *exchange = link->exchange;
  struct worker *worker = link->worker;
  uint32_t max_head = exchange->generation->limits.max_head_bytes;
  if (!link->reused) h1_init(&link->h1, H1_CLIENT, max_head);
  link->h1.max_head_bytes = max_head; // of this generation
  bool head_request = slice_equal(forward_method(exchange), SLICE("HEAD"));
  h1_begin(&link->h1, &exchange->service_message, &exchange->arena, exchange->generation->limits.max_headers,
           head_request);
  link->head_sent = link->head_comes = true;
  link->request_sent = link->response_head = link->interim = false;
  exchange->sent_us = worker->loop.clock.mono_us;
  if (forward_request_head(exchange, &link->conn.out) < 0) {
    try_failed(exchange, 500, "The request head is too large to forward", false);
    return;
  }
  link_send(link);
}

static bool link_on_request(struct exchange *exchange) {
  struct link *link = exchange->try->link;
  if (!link || !link->head_sent || link->conn.failed) return false;
  link_send(link);
  return true;
}

// ---- Response ------------------------------------------------------------------------------------------------------

// The response is whole. The connection serves again, if both sides left it in a known state.
static void link_release(struct link *link) {
  struct exchange *exchange = link->exchange;
  const struct h1_message *message = &exchange->service_message;
  struct worker *worker = link->worker;
  bool reusable = message->keep_alive && !message->until_close && link->request_sent && link->conn.out.bytes == 0 &&
                  conn_input(&link->conn).len == 0 && !link->conn.eof && !link->conn.failed && !link->tunnel &&
                  worker->pool.most > 0 && !worker->draining;
  exchange->try->link = NULL;
  exchange->try = NULL;
  link->exchange = NULL;
  if (!reusable) {
    link_close(link);
    return;
  }
  queue_drop(&link->flush_job);
  conn_release_input(&link->conn);
  conn_resume(&link->conn);
  link->paused = link->head_sent = false;
  link_timeout(link, exchange->generation->limits.upstream_idle_timeout_ms);
  if (pool_is_full(&worker->pool)) link_close(worker->pool.oldest);
  pool_put(&worker->pool, link);
}

static void link_on_head(struct link *link) {
  struct exchange *exchange = link->exchange;
  struct h1_message *message = &exchange->service_message;
  if (message->status == 101 && !forward_passes_upgrade(exchange)) {
    try_failed(exchange, 502, "The service switched protocols unasked", false);
  } else if (message->status == 101) {
    link->tunnel = link->request_sent = link->conn.frugal = true;
    link->response_head = true;
    exchange_on_service_head(exchange);
  } else if (message->status < 200) {
    link->interim = true;
    exchange_on_service_interim(exchange, message->status, &message->headers);
  } else {
    link->response_head = true;
    exchange_on_service_head(exchange);
  }
}

static void link_on_end(struct link *link) {
  struct exchange *exchange = link->exchange;
  if (link->interim) {
    bool head_request = link->h1.head_request;
    link->interim = false;
    link->head_comes = true;
    h1_begin(&link->h1, &exchange->service_message, &exchange->arena, exchange->generation->limits.max_headers,
             head_request);
    return;
  }
  if (link->tunnel) return;
  link_release(link);
  exchange_on_service_end(exchange);
}

static void link_on_problem(struct link *link) {
  char message[128];
  snprintf(message, sizeof message, "The service sent an invalid response: %s",
           link->h1.reason ? link->h1.reason : "syntax");
  try_failed(link->exchange, 502, message, false);
}

static void link_pump_tunnel(struct link *link) {
  struct slice input = conn_input(&link->conn);
  if (input.len == 0) return;
  exchange_on_service_body(link->exchange, link->conn.in, input);
  if (link->conn.closed) return;
  conn_consume(&link->conn, input.len);
  conn_release_input(&link->conn);
}

// The whole head will lie in one chunk, which stays as long as the exchange looks at it.
static bool hold_head(struct link *link) {
  if (conn_make_span(&link->conn, link->h1.max_head_bytes + HEAD_SLACK) < 0) return false;
  struct exchange *exchange = link->exchange;
  if (exchange->response_chunk) chunk_release(exchange->response_chunk);
  exchange->response_chunk = chunk_retain(link->conn.in);
  link->head_comes = false;
  return true;
}

// One event of the parser. False: the input is used up, or the link is no longer this exchange's.
static bool link_step(struct link *link) {
  if (link->tunnel) {
    link_pump_tunnel(link);
    return false;
  }
  struct exchange *exchange = link->exchange;
  if (link->head_comes && conn_input(&link->conn).len > 0 && !hold_head(link)) {
    try_failed(exchange, 500, "No memory for the response", false);
    return false;
  }
  uint32_t used;
  enum h1_event event = h1_next(&link->h1, conn_input(&link->conn), &used);
  struct chunk *chunk = link->conn.in;
  conn_consume(&link->conn, used);
  switch (event) {
  case H1_HEAD: link_on_head(link); break;
  case H1_BODY: exchange_on_service_body(exchange, chunk, link->h1.body); break;
  case H1_END: link_on_end(link); break;
  case H1_ERROR: link_on_problem(link); return false;
  case H1_NEED_MORE: return false;
  }
  return link->exchange == exchange && !link->conn.closed;
}

static void link_on_eof(struct link *link) {
  struct exchange *exchange = link->exchange;
  if (link->tunnel) {
    exchange->try = NULL;
    link->exchange = NULL;
    link_close(link);
    exchange_on_service_end(exchange);
    return;
  }
  if (link->response_head && h1_finish(&link->h1) == H1_END) {
    link_on_end(link);
    return;
  }
  if (exchange->try->response_seen)
    try_failed(exchange, 502, "The service closed the connection in the middle of its response", false);
  else
    try_failed(exchange, 502, "The service closed the connection without a response", false);
}

static void link_on_failure(struct link *link) {
  char message[320];
  if (!link->head_sent) {
    try_unreachable(link->exchange, conn_reason(&link->conn));
    return;
  }
  snprintf(message, sizeof message, "The service's connection failed: %s", conn_reason(&link->conn));
  try_failed(link->exchange, 502, message, false);
}

// Pieces that were handed over are written; a client that does not keep up stops the reading here.
static void link_settle(struct link *link) {
  struct exchange *exchange = link->exchange;
  if (!exchange || link->conn.closed || !exchange->head_sent || !exchange->stream) return;
  exchange->ops->flush(exchange);
  if (link->exchange != exchange || !exchange->stream) return;
  if (exchange_is_full(exchange)) {
    link->paused = true;
    conn_pause(&link->conn);
    link_timeout(link, 0); // it is the client, or a plugin, who makes us wait
  }
}

static void link_on_read(struct conn *conn) {
  struct link *link = link_of(conn);
  if (link->idle) { // closed by the service, or it speaks unasked: of no more use
    link_close(link);
    return;
  }
  struct exchange *exchange = link_enter(link);
  if (!exchange) return;
  int64_t n = conn_fill(conn);
  if (n == CONN_AGAIN) return;
  if (n == CONN_FAILED && !link->tunnel) {
    link_on_failure(link);
    return;
  }
  if (n == CONN_EOF || n == CONN_FAILED) {
    link_on_eof(link);
    return;
  }
  exchange->try->response_seen = true;
  link_await(link);
  while (link_step(link)) {
  }
  link_settle(link);
}

static void link_on_write(struct conn *conn) {
  struct link *link = link_of(conn);
  struct exchange *exchange = link_enter(link);
  if (!exchange) return;
  if (link->head_sent) {
    link_send(link);
    return;
  }
  // Established. TLS first, where the service speaks it; then on_write comes once more.
  if (exchange->try->tls && !conn->tls) {
    struct tls *tls = tls_client_new(exchange->try->tls, conn->fd, exchange->try->tls_name, exchange->try->tls_name);
    if (!tls) {
      try_failed(exchange, 502, "No memory for TLS", true);
      return;
    }
    conn_start_tls(conn, tls);
    ev_feed_event(conn->loop->ev, &conn->reader, EV_READ); // the client speaks first
    return;
  }
  link_begin(link);
}

// Whether the service takes what it is sent, however slowly.
static bool link_moves(struct link *link) {
  int64_t before = link->delivered;
  link->delivered = conn_delivered(&link->conn);
  return link->conn.out.bytes > 0 && link->delivered != before;
}

static void link_on_deadline(struct conn *conn) {
  struct link *link = link_of(conn);
  if (!link_enter(link)) {
    link_close(link);
  } else if (link->head_sent && link_moves(link)) {
    link_timeout(link, link->exchange->send_timeout_ms);
  } else if (link->tunnel) {
    link_on_eof(link);
  } else if (!link->head_sent) {
    try_failed(link->exchange, 504, "The connection to the service timed out", true);
  } else {
    try_failed(link->exchange, 504,
               link->conn.out.bytes ? "Sending to the service timed out" : "The service did not answer in time", false);
  }
}

static void link_resume(struct exchange *exchange) {
  struct link *link = exchange->try->link;
  if (!link || !link->paused) return;
  link->paused = false;
  link_await(link);
  conn_resume(&link->conn);
}

static void link_abandon(struct exchange *exchange) {
  struct link *link = exchange->try->link;
  exchange->try->link = NULL;
  if (!link) return;
  link->exchange = NULL;
  link_close(link);
}

// ---- Connecting ------------------------------------------------------------------------------------------------------

static struct link *link_new(struct worker *worker, const struct pool_key *key, struct error *error) {
  struct link *link = calloc(1, sizeof *link);
  if (!link) return NULL;
  link->worker = worker;
  link->key = *key;
  link->conn.on_read = link_on_read;
  link->conn.on_write = link_on_write;
  link->conn.on_deadline = link_on_deadline;
  if (try_open(worker, &link->conn, key, error) == 0) return link;
  free(link);
  return NULL;
}

static void link_start(struct exchange *exchange, const struct pool_key *key) {
  struct link *link = pool_take(&exchange->worker->pool, key);
  bool reused = link != NULL;
  struct error error = {.text = "refused"};
  if (!link) link = link_new(exchange->worker, key, &error);
  if (!link) {
    try_unreachable(exchange, error.text);
    return;
  }
  link->exchange = exchange;
  link->reused = exchange->try->reused = reused;
  link->head_sent = false;
  exchange->try->link = link;
  if (reused)
    link_begin(link);
  else
    link_timeout(link, exchange->connect_timeout_ms);
}

const struct carrier link_carrier = {
    .begin = link_start,
    .on_request = link_on_request,
    .resume = link_resume,
    .abandon = link_abandon,
};
