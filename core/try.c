// SPDX-License-Identifier: Apache-2.0
// One try against one target.
//
//   target ──DNS──> address ──pool or connect──> link: head out, content out, head in, content in ──> pool
//      └── failed, and nothing is lost by asking again: the next target or address
#include "try.h"

#include <stdio.h>
#include <stdlib.h>

#include "dns.h"
#include "exchange.h"
#include "forward.h"
#include "tls.h"
#include "worker.h"

enum { REPLAY_MOST = 64 * 1024, HEAD_SLACK = 4096 };

static void try_connect(struct exchange *exchange);
static void try_failed(struct exchange *exchange, int status, const char *message, bool unsent);
static void link_on_read(struct conn *conn);
static void link_on_write(struct conn *conn);
static void link_on_deadline(struct conn *conn);

static struct link *link_of(struct conn *conn) {
  return (struct link *)(void *)((char *)conn - offsetof(struct link, conn));
}

static void link_timeout(struct link *link, int64_t ms) {
  conn_deadline(&link->conn, ms > 0 ? link->worker->loop.clock.mono_us + ms * 1000 : 0);
}

static void link_close(struct link *link) {
  if (link->idle) pool_remove(&link->worker->pool, link);
  if (link->conn.closed) return;
  conn_close(&link->conn);
  worker_bury(link->worker, &link->grave, link);
}

void try_close_idle(struct pool *pool) {
  while (pool->oldest) link_close(pool->oldest);
}

// ---- Request -------------------------------------------------------------------------------------------------------

static bool content_is_complete(const struct exchange *exchange) {
  return exchange->body_replaced || exchange->request_complete;
}

static void keep_for_replay(struct exchange *exchange) {
  if (!exchange->replayable) return;
  if (exchange->replay.bytes + exchange->request_body.bytes <= REPLAY_MOST &&
      buffer_share(&exchange->replay, &exchange->request_body) == 0)
    return;
  exchange->replayable = false;
  buffer_clear(&exchange->replay);
}

// Moves what has come of the content to the connection, in the framing that the head announced.
static void send_content(struct link *link, struct exchange *exchange) {
  struct buffer *out = &link->conn.out;
  bool chunked = exchange->request.chunked && !exchange->body_replaced && !link->tunnel;
  size_t len = exchange->request_body.bytes;
  int failed = 0;
  if (len > 0) {
    if (!link->tunnel) keep_for_replay(exchange);
    char size[24];
    if (chunked) failed |= buffer_append(out, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", len));
    failed |= buffer_move(out, &exchange->request_body, len);
    if (chunked) failed |= buffer_append(out, "\r\n", 2);
  }
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

static void link_send(struct link *link) {
  struct exchange *exchange = link->exchange;
  send_content(link, exchange);
  if (conn_flush(&link->conn) < 0) return; // heard of from the loop
  if (link->conn.out.bytes > 0) {
    link_timeout(link, exchange->send_timeout_ms);
    if (conn_is_congested(&link->conn) && exchange->stream) exchange->ops->want_body(exchange, false);
    return;
  }
  link_await(link);
  if (!content_is_complete(exchange))
    exchange_on_service_drained(exchange);
  else if (link->tunnel)
    conn_finish(&link->conn);
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
  link->request_sent = link->response_begun = link->response_head = link->interim = false;
  exchange->sent_us = worker->loop.clock.mono_us;
  if (forward_request_head(exchange, &link->conn.out) < 0) {
    try_failed(exchange, 500, "The request head is too large to forward", false);
    return;
  }
  link_send(link);
}

void try_on_request(struct exchange *exchange) {
  struct link *link = exchange->try->link;
  if (link && link->head_sent && !link->conn.failed)
    link_send(link);
  else if (exchange->request_body.bytes > CONN_HIGH_WATER && exchange->stream)
    exchange->ops->want_body(exchange, false);
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
    link->tunnel = link->request_sent = true;
    link->response_head = true;
    exchange_on_service_head(exchange);
  } else if (message->status < 200) {
    link->interim = true;
    exchange_on_service_interim(exchange, message->status, &message->headers);
  } else {
    link->response_head = true;
    buffer_clear(&exchange->replay);
    exchange->replayable = false;
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
  if (!link->conn.closed) conn_consume(&link->conn, input.len);
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
  if (link->response_begun)
    try_failed(exchange, 502, "The service closed the connection in the middle of its response", false);
  else
    try_failed(exchange, 502, "The service closed the connection without a response", false);
}

static void try_not_connected(struct exchange *exchange, const char *why) {
  char message[320];
  snprintf(message, sizeof message, "No connection to the service: %s", why);
  try_failed(exchange, 502, message, true);
}

static void link_on_failure(struct link *link) {
  char message[320];
  if (!link->head_sent) {
    try_not_connected(link->exchange, conn_reason(&link->conn));
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
  if (exchange->ops->is_congested(exchange)) {
    link->paused = true;
    conn_pause(&link->conn);
    link_timeout(link, 0); // it is the client who makes us wait
  }
}

static void link_on_read(struct conn *conn) {
  struct link *link = link_of(conn);
  if (link->idle) { // closed by the service, or it speaks unasked: of no more use
    link_close(link);
    return;
  }
  struct exchange *exchange = link->exchange;
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
  link->response_begun = true;
  link_await(link);
  while (link_step(link)) {
  }
  link_settle(link);
}

static void link_on_write(struct conn *conn) {
  struct link *link = link_of(conn);
  struct exchange *exchange = link->exchange;
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
  if (!link->exchange) {
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

void try_resume(struct exchange *exchange) {
  struct link *link = exchange->try->link;
  if (!link || !link->paused) return;
  link->paused = false;
  link_await(link);
  conn_resume(&link->conn);
}

// ---- Choosing where to go ------------------------------------------------------------------------------------------

static bool method_is_idempotent(struct slice method) {
  static const struct slice methods[] = {SLICE("GET"),    SLICE("HEAD"),    SLICE("PUT"),
                                         SLICE("DELETE"), SLICE("OPTIONS"), SLICE("TRACE")};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
    if (slice_equal(method, methods[i])) return true;
  return false;
}

// The link and the query of this try end, whatever they were at.
static void try_drop(struct try *try) {
  struct link *link = try->link;
  try->link = NULL;
  if (link) {
    link->exchange = NULL;
    link_close(link);
  }
  if (try->query) dns_cancel(try->exchange->worker->dns, try->query);
  try->query = NULL;
}

void try_abandon(struct exchange *exchange) {
  struct try *try = exchange->try;
  exchange->try = NULL;
  if (try) try_drop(try);
}

// Content that was sent goes in front of what has come since.
static void rewind_content(struct exchange *exchange) {
  struct buffer rest = exchange->request_body;
  buffer_init(&exchange->request_body, &exchange->worker->chunks);
  buffer_share(&exchange->request_body, &exchange->replay);
  buffer_move(&exchange->request_body, &rest, rest.bytes);
  buffer_clear(&rest);
  buffer_clear(&exchange->replay);
}

// Kong's `retries`: another try when the request has not been sent, or when sending it twice does no harm.
static bool may_retry(const struct exchange *exchange, bool unsent) {
  if (exchange->head_sent || exchange->try->response_seen || !exchange->stream) return false;
  bool stale = exchange->try->reused && !unsent && exchange->tries <= 1; // an idle connection that died under us
  if (exchange->tries > exchange->retries && !stale) return false;
  return unsent || (exchange->replayable && method_is_idempotent(forward_method(exchange)));
}

static void try_again(struct worker *worker, void *data) {
  (void)worker;
  struct exchange *exchange = data;
  if (exchange->try) try_begin(exchange);
}

static void try_failed(struct exchange *exchange, int status, const char *message, bool unsent) {
  struct try *try = exchange->try;
  char text[320];
  snprintf(text, sizeof text, "%s", message);
  try->response_seen = try->link && try->link->response_begun;
  try->reused = try->link && try->link->reused;
  bool again = may_retry(exchange, unsent);
  log_warn(&exchange->worker->log, "a try failed", "cause", text, "service",
           exchange->service ? exchange->service->name.data : "", "address", exchange->target_ip, "request",
           exchange_id(exchange), "retrying", again ? "yes" : "no");
  try_drop(try);
  if (!again) {
    exchange->try = NULL;
    exchange_on_service_failed(exchange, status, text);
    return;
  }
  if (!unsent) rewind_content(exchange);
  // In the next turn: there may be thousands, each failing at once.
  worker_give_way(exchange->worker, try_again, exchange, &exchange->next_try);
}

static struct link *link_new(struct exchange *exchange, const struct pool_key *key, struct error *error) {
  struct worker *worker = exchange->worker;
  struct link *link = calloc(1, sizeof *link);
  if (!link) return NULL;
  link->worker = worker;
  link->key = *key;
  link->conn.on_read = link_on_read;
  link->conn.on_write = link_on_write;
  link->conn.on_deadline = link_on_deadline;
  int result = worker->connect ? worker->connect(worker, &link->conn, &key->address)
                               : conn_connect(&link->conn, &worker->loop, &worker->chunks, &key->address.socket.base,
                                              key->address.len, error);
  if (result == 0) return link;
  free(link);
  return NULL;
}

static void try_connect(struct exchange *exchange) {
  struct try *try = exchange->try;
  struct pool_key key = {.address = try->addresses[try->address_at % try->address_count], .tls = try->tls_key};
  address_text(&key.address.socket.base, exchange->target_ip);
  exchange->target_port = address_port(&key.address.socket.base);
  struct link *link = pool_take(&exchange->worker->pool, &key);
  bool reused = link != NULL;
  struct error error = {.text = "refused"};
  if (!link) link = link_new(exchange, &key, &error);
  if (!link) {
    try_not_connected(exchange, error.text);
    return;
  }
  link->reused = reused;
  link->exchange = exchange;
  link->head_sent = link->response_begun = false;
  try->link = link;
  if (reused)
    link_begin(link);
  else
    link_timeout(link, exchange->connect_timeout_ms);
}

static void try_resolved(struct exchange *exchange) {
  struct try *try = exchange->try;
  struct dns_query *query = try->query;
  try->query = NULL;
  if (query->error.code || query->count == 0) {
    // Another try asks the same servers again: only another target can help.
    bool other = try->upstream && try->upstream->target_count > 1;
    if (!other) exchange->retries = 0;
    try_failed(exchange, 503, query->error.code ? query->error.text : "name resolution failed", true);
    return;
  }
  try->address_count = addresses_take(try->addresses, query, try->target->port);
  try->address_at = try->target->turn++;
  try_connect(exchange);
}

static void try_on_dns(struct dns_query *query) {
  struct exchange *exchange = ((struct waiting_query *)(void *)query)->exchange;
  if (exchange->try && exchange->try->query == query) try_resolved(exchange);
}

// An SRV record answers where a name has one and no port says otherwise; else A and AAAA.
static void try_resolve(struct exchange *exchange) {
  struct try *try = exchange->try;
  struct target *target = try->target;
  if (target->literal) {
    try->addresses[0] = target->fixed;
    try->address_count = 1;
    try->address_at = 0;
    try_connect(exchange);
    return;
  }
  struct waiting_query *waiting = arena_alloc(&exchange->arena, sizeof *waiting);
  if (!waiting) {
    try_failed(exchange, 500, "No memory for a DNS query", true);
    return;
  }
  *waiting = (struct waiting_query){.query = {.on_done = try_on_dns}, .exchange = exchange};
  try->query = &waiting->query;
  enum dns_kind kind = target->host.len > 0 && target->host.data[0] == '_' ? DNS_SRV : DNS_ADDRESS;
  if (dns_resolve(exchange->worker->dns, target->host, kind, &waiting->query) == DNS_READY) try_resolved(exchange);
}

// A target that a plugin named: host and port of this exchange alone.
static struct target *own_target(struct exchange *exchange) {
  struct target *target = arena_alloc(&exchange->arena, sizeof *target);
  if (!target) return NULL;
  uint16_t port = exchange->service_port ? exchange->service_port : exchange->service_tls > 0 ? 443 : 80;
  *target = (struct target){.host = exchange->service_host, .port = port, .weight = 1};
  target->literal = address_parse(target->host, port, &target->fixed);
  return target;
}

static struct target *choose_target(struct exchange *exchange, struct upstream *upstream) {
  if (!upstream) return NULL;
  bool ask = upstream->index > 0 && (upstream->schedule_count == 0);
  if (!ask) return upstream_next(upstream);
  exchange->entered_lua = true;
  uint32_t index = phase_pick(exchange->worker, exchange_handle(exchange), exchange->generation->id, upstream->index);
  return index > 0 && index <= upstream->target_count ? &upstream->targets[index - 1] : NULL;
}

// The name that TLS asks for and checks, ended by zero. NULL: no memory.
static const char *choose_tls_name(struct exchange *exchange) {
  struct slice name = exchange->service_host.len ? exchange->service_host : exchange->try->target->host;
  if (exchange->route->preserve_host && exchange->host.len) name = exchange->host;
  if (exchange->upstream && exchange->upstream->host_header.len) name = exchange->upstream->host_header;
  return arena_copy(&exchange->arena, name.data, name.len).data;
}

static void drop_context(void *context) {
  tls_context_free(context);
}

// Whether the try may go on: plain, or in TLS with all that it takes. One that cannot must not go on in the clear.
static bool choose_tls(struct exchange *exchange) {
  struct try *try = exchange->try;
  const struct service *service = exchange->service;
  bool tls = exchange->service_tls >= 0 ? exchange->service_tls : service && service->tls;
  if (!tls) return true;
  try->tls_name = choose_tls_name(exchange);
  if (!try->tls_name) return false;
  try->tls = generation_client_tls(exchange->generation, service, exchange->service_verify, slice_of(try->tls_name),
                                   &try->tls_key);
  if (!try->tls) return false;
  // The cache may drop it while the name is resolved.
  tls_context_retain(try->tls);
  if (arena_defer(&exchange->arena, drop_context, try->tls) == 0) return true;
  tls_context_free(try->tls);
  return false;
}

static void try_refused(struct exchange *exchange, int status, const char *message) {
  exchange->try = NULL;
  exchange_on_service_failed(exchange, status, message);
}

// Plugins of phase balancer, before each try.
static bool run_balancer(struct exchange *exchange) {
  if (!(exchange->phases & (1u << PHASE_BALANCER))) return true;
  exchange->entered_lua = true;
  return phase_run(exchange->worker, exchange_handle(exchange), exchange->generation->id, exchange->route_index,
                   PHASE_BALANCER) != PHASE_FAILED;
}

void try_begin(struct exchange *exchange) {
  if (!exchange->try) {
    exchange->try = arena_alloc(&exchange->arena, sizeof *exchange->try);
    if (!exchange->try) {
      exchange_on_service_failed(exchange, 500, "No memory for the request");
      return;
    }
    exchange->replayable = true;
  }
  struct try *try = exchange->try;
  *try = (struct try){.exchange = exchange};
  exchange->tries++;
  if (!exchange->upstream && exchange->service && !exchange->service_host.len)
    exchange->upstream = exchange->service->upstream;
  if (!run_balancer(exchange)) {
    try_refused(exchange, 500, "An unexpected error occurred");
    return;
  }
  try->upstream = exchange->service_host.len ? NULL : exchange->upstream;
  try->target = exchange->service_host.len ? own_target(exchange) : choose_target(exchange, exchange->upstream);
  if (!try->target)
    try_refused(exchange, 503, "failure to get a peer from the balancer");
  else if (!choose_tls(exchange))
    try_refused(exchange, 500, "An unexpected error occurred");
  else
    try_resolve(exchange);
}
