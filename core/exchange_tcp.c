// SPDX-License-Identifier: Apache-2.0
// A TCP or TLS stream as an exchange: routed, let through by plugins of preread, then bytes both ways.
#include <string.h>

#include "balance.h"
#include "exchange_parts.h"
#include "stream_router.h"
#include "worker.h"

enum { REASON_MOST = 1024 };

// As routes name it.
static struct slice scheme_of(uint32_t protocol) {
  return protocol == PROTOCOL_TCP ? SLICE("tcp") : protocol == PROTOCOL_TLS ? SLICE("tls") : SLICE("tls_passthrough");
}

static bool keep_ends(struct exchange *exchange, const struct ends *ends, struct slice sni) {
  struct ends *copy = arena_alloc(&exchange->arena, sizeof *copy);
  if (!copy) return false;
  *copy = *ends;
  exchange->ends = copy;
  if (sni.len > 0) exchange->tls_sni = arena_copy(&exchange->arena, sni.data, sni.len);
  return sni.len == 0 || exchange->tls_sni.data;
}

static uint32_t find_route(const struct exchange *exchange, uint32_t protocol) {
  struct stream_request request = {.protocols = protocol,
                                   .sni = exchange->tls_sni,
                                   .source = &exchange->ends->source.socket.base,
                                   .destination = &exchange->ends->here.socket.base};
  const struct stream_router *router = exchange->generation->stream_router;
  return router ? stream_router_find(router, &request, NULL) : 0;
}

static void preread(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_PREREAD);
  enum phase_result result = PHASE_DONE;
  if (!(exchange->phases & (1u << PHASE_PREREAD)))
    exchange_forward(exchange);
  else if (exchange_run(exchange, exchange->route_index, PHASE_PREREAD, &result))
    exchange_after_phase(exchange, result, exchange_forward);
}

void exchange_on_connection(struct exchange *exchange, const struct ends *ends, uint32_t protocol, struct slice sni) {
  struct worker *worker = exchange->worker;
  exchange->tcp = true;
  exchange->scheme = scheme_of(protocol);
  exchange->request.content_length = -1;
  worker->board->streams++;
  worker->board->streams_open++;
  if (!worker->generation || !keep_ends(exchange, ends, sni)) {
    exchange_fail(exchange, 503, "The gateway is starting");
    return;
  }
  exchange->generation = generation_retain(worker->generation);
  exchange->route = exchange->generation->routes;
  if (exchange->peer.tls) exchange_note_tls(exchange);
  uint32_t route = find_route(exchange, protocol);
  if (route == 0) {
    log_info(&worker->log, "a stream without a route", "client", exchange->peer.client_ip, "protocol",
             exchange->scheme.data, "sni", exchange->tls_sni.len ? exchange->tls_sni.data : "");
    exchange_fail(exchange, 404, "no Route matched with those values");
    return;
  }
  exchange_take_route(exchange, route);
  preread(exchange);
}

void exchange_on_service_connected(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_TUNNEL);
  exchange->first_byte_us = exchange->worker->loop.clock.mono_us;
  if (exchange->endpoint) balance_on_connected(exchange);
  exchange->status = 200;
  exchange->source = SOURCE_SERVICE;
  exchange->head_sent = true; // no other target from here on
  exchange->ops->tunnel(exchange);
}

// What a plugin says of its refusal, for the log.
static void note_reason(struct exchange *exchange) {
  char reason[REASON_MOST];
  if (exchange->answer.bytes == 0 || exchange->answer.bytes > sizeof reason) return;
  uint32_t len = (uint32_t)exchange->answer.bytes;
  buffer_copy_out(&exchange->answer, reason);
  exchange->error = arena_copy(&exchange->arena, reason, len);
}

void exchange_close_stream(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_SENDING);
  bool refused = exchange->source == SOURCE_EXIT && exchange->status >= 400;
  if (refused) note_reason(exchange);
  // Only what a plugin means for the client goes to it: there is no form in which a stream tells an error.
  if (refused || exchange->source != SOURCE_EXIT) buffer_clear(&exchange->answer);
  if (exchange->stream) exchange_send_answer(exchange);
  exchange_send_end(exchange);
}
