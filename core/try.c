// SPDX-License-Identifier: Apache-2.0
// One try against one target.
//
//   target ──DNS──> address ──> carrier: connection, request out, response in
//      └── failed, and nothing is lost by asking again: the next target or address
#include "try.h"

#include <stdio.h>

#include "balance.h"
#include "budget.h"
#include "dns.h"
#include "exchange.h"
#include "forward.h"
#include "h2_client.h"
#include "hedge.h"
#include "link.h"
#include "tcp_link.h"
#include "tls.h"
#include "worker.h"

enum { REPLAY_MOST = 64 * 1024, MOVES_MOST = 16, FAILED_KEPT = 32 };

// ---- Talking to the carrier ----------------------------------------------------------------------------------------

void try_keep_content(struct exchange *exchange) {
  exchange->try->content_taken = true;
  if (!exchange->replayable) return;
  if (exchange->replay.bytes + exchange->request_body.bytes <= REPLAY_MOST &&
      buffer_share(&exchange->replay, &exchange->request_body) == 0)
    return;
  exchange->replayable = false;
  buffer_clear(&exchange->replay);
}

void try_on_request(struct exchange *exchange) {
  const struct carrier *carrier = exchange->try->carrier;
  if (carrier && carrier->on_request(exchange)) return;
  if (exchange->request_body.bytes > CONN_HIGH_WATER && exchange->stream) exchange->ops->want_body(exchange, false);
}

void try_resume(struct exchange *exchange) {
  if (exchange->try->carrier) exchange->try->carrier->resume(exchange);
}

// ---- Choosing where to go ------------------------------------------------------------------------------------------

bool try_is_idempotent(struct slice method) {
  static const struct slice methods[] = {SLICE("GET"),    SLICE("HEAD"),    SLICE("PUT"),
                                         SLICE("DELETE"), SLICE("OPTIONS"), SLICE("TRACE")};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
    if (slice_equal(method, methods[i])) return true;
  return false;
}

void try_drop(struct exchange *exchange) {
  struct try *try = exchange->try;
  if (exchange->endpoint && !try->response_seen) balance_on_dropped(exchange);
  if (exchange->endpoint) balance_leave(exchange);
  if (try->carrier) try->carrier->abandon(exchange);
  try->carrier = NULL;
  if (try->query) dns_cancel(exchange->worker->dns, try->query);
  try->query = NULL;
}

void try_abandon(struct exchange *exchange) {
  if (exchange->hedge) hedge_settle(exchange, false);
  if (exchange->try) try_drop(exchange);
  exchange->try = NULL;
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

static bool has_budget(struct exchange *exchange) {
  return !exchange->retry_budget || budget_spend(exchange->worker, exchange->retry_budget);
}

// Kong's `retries`: another try when the request has not been sent, or when sending it twice does no harm.
static bool take_retry(struct exchange *exchange, bool unsent) {
  if (exchange->head_sent || exchange->try->response_seen || !exchange->stream) return false;
  bool stale = exchange->try->reused && !unsent && exchange->tries <= 1; // an idle connection that died under us
  if (exchange->tries > exchange->retries && !stale) return false;
  if (exchange->try->content_taken && !exchange->replayable) return false;
  if (!unsent && !try_is_idempotent(forward_method(exchange))) return false;
  return stale || has_budget(exchange);
}

static void try_again(struct worker *worker, void *data) {
  (void)worker;
  struct exchange *exchange = data;
  if (exchange->try) try_begin(exchange);
}

static void note_failure(struct exchange *exchange, int status, bool answered) {
  exchange->last_failed = true;
  if (exchange->failed_count == FAILED_KEPT) return;
  struct failed_try *failed = arena_alloc(&exchange->arena, sizeof *failed);
  if (!failed) return;
  *failed = (struct failed_try){.begun_us = exchange->try->begun_us, .status = status, .answered = answered};
  failed->endpoint = exchange->endpoint;
  if (exchange->try->carrier) {
    memcpy(failed->ip, exchange->target_ip, sizeof failed->ip);
    failed->port = exchange->target_port;
  }
  *(exchange->failed_count++ ? exchange->failed_end : &exchange->failed_tries) = failed;
  exchange->failed_end = &failed->next;
}

void try_failed(struct exchange *exchange, int status, const char *message, bool unsent) {
  struct try *try = exchange->try;
  char text[320];
  snprintf(text, sizeof text, "%s", message);
  bool other = hedge_is_on(exchange), again = !other && take_retry(exchange, unsent);
  log_warn(&exchange->worker->log, "a try failed", "cause", text, "service",
           exchange->service ? exchange->service->name.data : "", "address", exchange->target_ip, "request",
           exchange_id(exchange), "retrying", again || other ? "yes" : "no");
  note_failure(exchange, status, false);
  if (exchange->endpoint) balance_on_failed(exchange, status, try->reused && !try->response_seen && status == 502);
  try_drop(exchange);
  if (hedge_fall_back(exchange)) return;
  if (!again) {
    exchange->try = NULL;
    exchange_on_service_failed(exchange, status, text);
    return;
  }
  if (try->content_taken) rewind_content(exchange);
  // In the next turn: there may be thousands, each failing at once.
  worker_give_way(exchange->worker, try_again, exchange, &exchange->next_try);
}

bool try_elsewhere(struct exchange *exchange, const char *cause) {
  struct try *try = exchange->try;
  uint32_t places = try->upstream && try->upstream->target_count > 1 ? try->upstream->target_count : try->address_count;
  if (!exchange->stream || !exchange->replayable || exchange->tries > exchange->retries || exchange->tries >= places)
    return false;
  if (!has_budget(exchange)) return false;
  log_warn(&exchange->worker->log, "a try failed", "cause", cause, "service",
           exchange->service ? exchange->service->name.data : "", "address", exchange->target_ip, "request",
           exchange_id(exchange), "retrying", "yes");
  note_failure(exchange, 503, true);
  try_drop(exchange);
  if (try->content_taken) rewind_content(exchange);
  worker_give_way(exchange->worker, try_again, exchange, &exchange->next_try);
  return true;
}

bool try_move(struct exchange *exchange) {
  struct try *try = exchange->try;
  if (exchange->head_sent || try->response_seen || !exchange->stream || exchange->moves >= MOVES_MOST) return false;
  if (try->content_taken && !exchange->replayable) return false;
  exchange->moves++;
  bool taken = try->content_taken;
  try_drop(exchange);
  if (hedge_fall_back(exchange)) return true;
  exchange->tries--;
  if (taken) rewind_content(exchange);
  worker_give_way(exchange->worker, try_again, exchange, &exchange->next_try);
  return true;
}

void try_unreachable(struct exchange *exchange, const char *why) {
  char message[320];
  snprintf(message, sizeof message, "No connection to the service: %s", why);
  try_failed(exchange, 502, message, true);
}

int try_open(struct worker *worker, struct conn *conn, const struct pool_key *key, struct error *error) {
  if (worker->connect) return worker->connect(worker, conn, &key->address);
  return conn_connect(conn, &worker->loop, &worker->chunks, &key->address.socket.base, key->address.len, error);
}

// The target that was chosen takes no requests after all.
static void choose_again(struct exchange *exchange) {
  if (hedge_is_second(exchange)) {
    hedge_withdraw(exchange);
  } else if (exchange->moves >= MOVES_MOST) {
    try_failed(exchange, 503, "No target takes requests", true);
  } else {
    exchange->moves++;
    exchange->tries--;
    worker_give_way(exchange->worker, try_again, exchange, &exchange->next_try);
  }
}

// A second try goes to another address than the first. False: there is none.
static bool avoid_first(struct try *try, const struct try *first) {
  const struct address *taken = &first->addresses[first->address_at % first->address_count];
  // Of a watched upstream, others may take no requests.
  uint32_t turns = try->upstream && try->upstream->watch ? 1 : try->address_count;
  for (uint32_t i = 0; i < turns; i++, try->address_at++) {
    const struct address *address = &try->addresses[try->address_at % try->address_count];
    if (address->len != taken->len || memcmp(&address->socket, &taken->socket, taken->len) != 0) return true;
  }
  return false;
}

static void try_connect(struct exchange *exchange) {
  struct try *try = exchange->try;
  if (hedge_is_second(exchange) && !avoid_first(try, exchange->hedge->other)) {
    hedge_withdraw(exchange);
    return;
  }
  struct pool_key key = {.address = try->addresses[try->address_at % try->address_count], .tls = try->tls_key};
  address_text(&key.address.socket.base, exchange->target_ip);
  exchange->target_port = address_port(&key.address.socket.base);
  if (try->upstream && try->upstream->watch && !balance_enter(exchange, &key.address)) {
    choose_again(exchange);
    return;
  }
  try->carrier = exchange->tcp                                   ? &tcp_carrier
                 : exchange->service && exchange->service->http2 ? &h2_carrier
                                                                 : &link_carrier;
  try->carrier->begin(exchange, &key);
}

// Of an upstream that is watched. False: none of them takes requests.
static bool choose_address(struct exchange *exchange) {
  struct try *try = exchange->try;
  balance_bind(exchange->worker, try->upstream->watch, try->target, try->addresses, try->address_count);
  int at = balance_address(exchange);
  if (at >= 0) try->address_at = (uint32_t)at;
  return at >= 0;
}

static void try_resolved(struct exchange *exchange) {
  struct try *try = exchange->try;
  struct dns_query *query = try->query;
  try->query = NULL;
  if (query->error.code || query->count == 0) {
    // Another try asks the same servers again: only another target can help.
    bool other = try->upstream && try->upstream->target_count > 1;
    if (!other && !hedge_is_on(exchange)) exchange->retries = 0;
    try_failed(exchange, 503, query->error.code ? query->error.text : "name resolution failed", true);
    return;
  }
  try->address_count = addresses_take(try->addresses, query, try->target->port);
  try->address_at = addresses_first(query, try->address_count, try->target->turn++, worker_random(exchange->worker));
  if (try->upstream && try->upstream->watch && !choose_address(exchange)) {
    try_failed(exchange, 503, "No address of the target takes requests", true);
    return;
  }
  try_connect(exchange);
}

static void try_on_dns(struct dns_query *query) {
  struct exchange *exchange = ((struct waiting_query *)(void *)query)->exchange;
  if (hedge_is_on(exchange) && exchange->hedge->other->query == query) hedge_swap(exchange);
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

// The next one in turn; for a second try, the next that is another one.
static struct target *next_target(const struct exchange *exchange, struct upstream *upstream) {
  struct target *target = upstream_next(upstream);
  if (!hedge_is_second(exchange)) return target;
  for (uint32_t i = 1; i < upstream->schedule_count && target == exchange->hedge->other->target; i++)
    target = upstream_next(upstream);
  return target;
}

static struct target *choose_target(struct exchange *exchange, struct upstream *upstream) {
  if (!upstream) return NULL;
  bool ask = upstream->index > 0 && (upstream->schedule_count == 0);
  if (!ask) return upstream->watch ? balance_next(exchange, upstream) : next_target(exchange, upstream);
  exchange->entered_lua = true;
  uint32_t index = phase_pick(exchange->worker, exchange_handle(exchange), exchange->generation->id, upstream->index);
  if (upstream->watch) return balance_chosen(exchange, upstream, index);
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
  try->tls = generation_client_tls(exchange->generation, service, exchange->tls_choice, slice_of(try->tls_name),
                                   &try->tls_key);
  if (!try->tls) return false;
  // The cache may drop it while the name is resolved.
  tls_context_retain(try->tls);
  if (arena_defer(&exchange->arena, drop_context, try->tls) == 0) return true;
  tls_context_free(try->tls);
  return false;
}

static void try_refused(struct exchange *exchange, int status, const char *message) {
  if (hedge_is_second(exchange)) {
    hedge_withdraw(exchange);
    return;
  }
  exchange->try = NULL;
  exchange_on_service_failed(exchange, status, message);
}

// Plugins of phase balancer, before each try.
static bool run_balancer(struct exchange *exchange) {
  enum phase phase = exchange->tcp ? PHASE_STREAM_BALANCER : PHASE_BALANCER;
  if (!(exchange->phases & (1u << phase))) return true;
  exchange->entered_lua = true;
  return phase_run(exchange->worker, exchange_handle(exchange), exchange->generation->id, exchange->route_index,
                   phase) != PHASE_FAILED;
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
  *try = (struct try){.exchange = exchange, .begun_us = exchange->worker->loop.clock.mono_us};
  exchange->try_begun_us = try->begun_us;
  if (exchange->tries++ == 0 && exchange->hedge) hedge_arm(exchange);
  exchange->last_failed = false;
  exchange->target_ip[0] = 0;
  exchange->target_port = 0;
  exchange_tell_deadline(exchange);
  if (!exchange->upstream && exchange->service && !exchange->service_host.len)
    exchange->upstream = exchange->service->upstream;
  if (!run_balancer(exchange)) {
    try_refused(exchange, 500, "An unexpected error occurred");
    return;
  }
  try->upstream = exchange->service_host.len ? NULL : exchange->upstream;
  try->target = exchange->service_host.len ? own_target(exchange) : choose_target(exchange, exchange->upstream);
  if (!try->target)
    try_refused(exchange, 503, "failure to get a peer from the ring-balancer");
  else if (!choose_tls(exchange))
    try_refused(exchange, 500, "An unexpected error occurred");
  else
    try_resolve(exchange);
}
