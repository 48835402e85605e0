// SPDX-License-Identifier: Apache-2.0
// The exchange: a request and its response as a machine of few states. Here are its states, its handle, its phases and
// its end; exchange_request.c has the way to the service, exchange_response.c the way back.
#include "exchange.h"

#include <assert.h>
#include <stdlib.h>

#include "access_log.h"
#include "balance.h"
#include "channel.h"
#include "exchange_parts.h"
#include "exchange_talk.h"
#include "lease.h"
#include "stream.h"
#include "trace.h"
#include "try.h"
#include "worker.h"

enum { ARENA_LIMIT = 4 << 20, SPARE_MOST = 256, PRESET_MOST = 100 };

// ---- States --------------------------------------------------------------------------------------------------------

#define STATE(name) (1u << EXCHANGE_##name)

static const uint32_t legal_moves[] = {
    [EXCHANGE_FREE] = STATE(HEAD),
    [EXCHANGE_HEAD] = STATE(PREREAD) | STATE(REWRITE) | STATE(SENDING) | STATE(LOG),
    [EXCHANGE_PREREAD] = STATE(SERVICE) | STATE(SENDING) | STATE(LOG),
    [EXCHANGE_REWRITE] = STATE(ACCESS) | STATE(SENDING) | STATE(LOG),
    [EXCHANGE_ACCESS] = STATE(SERVICE) | STATE(STREAM) | STATE(TUNNEL) | STATE(SENDING) | STATE(LOG),
    [EXCHANGE_SERVICE] = STATE(RESPONSE) | STATE(SENDING) | STATE(TUNNEL) | STATE(LOG),
    [EXCHANGE_RESPONSE] = STATE(SENDING) | STATE(LOG),
    [EXCHANGE_STREAM] = STATE(LOG),
    [EXCHANGE_SENDING] = STATE(SENDING) | STATE(LOG),
    [EXCHANGE_TUNNEL] = STATE(LOG),
    [EXCHANGE_LOG] = STATE(ENDED),
    [EXCHANGE_ENDED] = STATE(FREE),
};

void exchange_move(struct exchange *exchange, enum exchange_state state) {
  assert(legal_moves[exchange->state] & (1u << state));
  exchange->state = (uint8_t)state;
}

// ---- Slots and handles -----------------------------------------------------------------------------------------------

enum { SLOT_BITS = 20 };

double exchange_handle(const struct exchange *exchange) {
  return (double)(((uint64_t)exchange->serial << SLOT_BITS) | exchange->slot);
}

struct exchange *exchange_find(struct worker *worker, double handle) {
  if (!(handle >= 0 && handle < 9007199254740992.0)) return NULL;
  uint64_t number = (uint64_t)handle;
  uint32_t slot = (uint32_t)(number & ((1u << SLOT_BITS) - 1));
  if (slot >= worker->slot_count) return NULL;
  struct exchange *exchange = worker->slots[slot];
  return exchange && exchange->serial == (uint32_t)(number >> SLOT_BITS) && exchange->state != EXCHANGE_FREE ? exchange
                                                                                                             : NULL;
}

static int slots_grow(struct worker *worker) {
  uint32_t count = worker->slot_count ? worker->slot_count * 2 : 64;
  if (count > 1u << SLOT_BITS) return ERROR_MEMORY;
  struct exchange **slots = realloc(worker->slots, count * sizeof *slots);
  if (slots) worker->slots = slots;
  uint32_t *free_slots = realloc(worker->free_slots, count * sizeof *free_slots);
  if (free_slots) worker->free_slots = free_slots;
  if (!slots || !free_slots) return ERROR_MEMORY;
  for (uint32_t i = count; i > worker->slot_count; i--) {
    worker->slots[i - 1] = NULL;
    worker->free_slots[worker->free_slot_count++] = i - 1;
  }
  worker->slot_count = count;
  return 0;
}

static struct exchange *exchange_take(struct worker *worker) {
  struct exchange *exchange = worker->spare;
  if (exchange) {
    worker->spare = exchange->spare;
    worker->spare_count--;
    return exchange;
  }
  if (worker->free_slot_count == 0 && slots_grow(worker) < 0) return NULL;
  exchange = calloc(1, sizeof *exchange);
  if (!exchange) return NULL;
  exchange->slot = worker->free_slots[--worker->free_slot_count];
  exchange->serial = (uint32_t)worker_random(worker) >> 2; // so that handles of an earlier owner of the slot are stale
  worker->slots[exchange->slot] = exchange;
  arena_init(&exchange->arena, ARENA_LIMIT);
  return exchange;
}

struct exchange *exchange_new(struct worker *worker, struct stream *stream, const struct stream_ops *ops) {
  struct exchange *exchange = exchange_take(worker);
  if (!exchange) return NULL;
  uint32_t slot = exchange->slot, serial = exchange->serial + 1;
  struct arena arena = exchange->arena;
  *exchange = (struct exchange){.worker = worker, .slot = slot, .serial = serial, .arena = arena, .stream = stream};
  exchange->ops = ops;
  exchange->peer = stream->peer;
  exchange->service_tls = -1;
  exchange->response_length = -1;
  exchange->started_us = worker->loop.clock.mono_us;
  exchange->started_real_us = worker->loop.clock.real_us;
  buffer_init(&exchange->request_body, &worker->chunks);
  buffer_init(&exchange->replay, &worker->chunks);
  buffer_init(&exchange->answer, &worker->chunks);
  headers_init(&exchange->preset, PRESET_MOST);
  headers_init(&exchange->trailers, PRESET_MOST);
  exchange_move(exchange, EXCHANGE_HEAD);
  worker->board->exchanges++;
  worker->board->exchanges_open++;
  return exchange;
}

static void exchange_free(struct exchange *exchange) {
  struct worker *worker = exchange->worker;
  if (exchange->websocket) websocket_free(exchange);
  if (exchange->caching) exchange_forget_cache(exchange);
  if (exchange->leases) lease_end_all(exchange); // taken by a plugin that was still at work when the client had left
  exchange_move(exchange, EXCHANGE_ENDED);
  queue_drop(&exchange->next_try);
  if (exchange->entered_lua) phase_forget(worker, exchange_handle(exchange));
  exchange_drop_copy(exchange);
  arena_reset(&exchange->arena);
  if (exchange->slim) { // its block is of no use to the next
    arena_close(&exchange->arena);
    arena_init(&exchange->arena, ARENA_LIMIT);
  }
  buffer_clear(&exchange->request_body);
  buffer_clear(&exchange->replay);
  buffer_clear(&exchange->answer);
  if (exchange->head_chunk) chunk_release(exchange->head_chunk);
  if (exchange->response_chunk) chunk_release(exchange->response_chunk);
  struct generation *generation = exchange->generation;
  exchange_move(exchange, EXCHANGE_FREE);
  worker->board->exchanges_open--;
  if (exchange->tcp) worker->board->streams_open--;
  if (worker->spare_count < SPARE_MOST) {
    exchange->spare = worker->spare;
    worker->spare = exchange;
    worker->spare_count++;
  } else {
    worker->slots[exchange->slot] = NULL;
    worker->free_slots[worker->free_slot_count++] = exchange->slot;
    arena_close(&exchange->arena);
    free(exchange);
  }
  if (generation) generation_release(generation);
}

const char *exchange_id(struct exchange *exchange) {
  if (!exchange->id[0]) trace_random(exchange->worker, exchange->id, (sizeof exchange->id - 1) / 2);
  return exchange->id;
}

// ---- The end ---------------------------------------------------------------------------------------------------------

bool exchange_run(struct exchange *exchange, uint32_t route, enum phase phase, enum phase_result *result) {
  exchange->entered_lua = true;
  *result = phase_run(exchange->worker, exchange_handle(exchange), exchange->generation->id, route, phase);
  exchange->waiting = *result == PHASE_WAITING;
  return !exchange->waiting;
}

void exchange_wake(struct exchange *exchange, double *waiter, int status) {
  if (*waiter != 0) worker_wake(exchange->worker, *waiter, status, 0);
  *waiter = 0;
}

static void exchange_log(struct exchange *exchange) {
  enum phase_result result;
  enum phase phase = exchange->tcp ? PHASE_STREAM_LOG : PHASE_LOG;
  if (!(exchange->phases & (1u << phase)) || !exchange->generation ||
      exchange_run(exchange, exchange->route_index, phase, &result))
    exchange_free(exchange);
}

// Where a duration is counted: 0 to 3 are those microseconds, then there are four steps to each doubling.
static uint32_t latency_step(int64_t us) {
  if (us < 4) return us > 0 ? (uint32_t)us : 0;
  uint32_t doublings = 63 - (uint32_t)__builtin_clzll((unsigned long long)us);
  uint32_t step = (doublings - 1) * 4 + (uint32_t)(us >> (doublings - 2) & 3);
  return step < BOARD_LATENCIES ? step : BOARD_LATENCIES - 1;
}

// For `sluice top`. A tunnel lasts as long as it lasts, and tells nothing of how quick the gateway is.
static void count_on_board(const struct exchange *exchange) {
  struct board *board = exchange->worker->board;
  int digit = exchange->status / 100;
  if (exchange->tcp || exchange->still || exchange->route_index == ROUTE_STATUS) return;
  board->statuses[digit > 0 && digit < BOARD_STATUSES ? digit : 0]++;
  if (digit != 1) board->latencies[latency_step(exchange->ended_us - exchange->started_us)]++;
}

// The last byte of the response has been handed over, or will never be. Nothing of the stream is touched from here on.
void exchange_finish(struct exchange *exchange) {
  if (exchange->state >= EXCHANGE_LOG) return;
  if (exchange->state == EXCHANGE_TUNNEL && !exchange->tcp) exchange->generation->tunnels--;
  exchange_move(exchange, EXCHANGE_LOG);
  exchange->stream = NULL;
  exchange->ended_us = exchange->worker->loop.clock.mono_us;
  count_on_board(exchange);
  if (exchange->deadline_us) exchange_drop_deadline(exchange);
  if (exchange->caching) exchange_forget_cache(exchange);
  if (exchange->leases) lease_end_all(exchange);
  if (exchange->generation && exchange->generation->access_log && exchange->ops && !exchange->unlogged)
    access_log_write(exchange);
  if (exchange->try || exchange->hedge) try_abandon(exchange);
  if (exchange->endpoint) balance_leave(exchange);
  // A coroutine that waits for the body or for room to send will get none.
  exchange_wake(exchange, &exchange->body_waiter, BRIDGE_CLOSED);
  exchange_wake(exchange, &exchange->stream_waiter, BRIDGE_CLOSED);
  if (exchange->seat) seat_leave(exchange->seat);
  if (exchange->talk) talk_end(exchange);
  if (exchange->websocket) {
    websocket_end(exchange);
    exchange->waiting = websocket_waits(exchange);
  }
  if (!exchange->waiting) exchange_log(exchange); // else the phase in work ends first, see exchange_on_phase
}

void exchange_cut(struct exchange *exchange, int status, const char *message) {
  exchange->failed_response = true;
  bool ended =
      exchange->stream && exchange_can_end_by_trailers(exchange) && exchange_end_grpc(exchange, status, message);
  if (exchange->stream && !ended) exchange->ops->abort(exchange);
  exchange_finish(exchange);
}

void exchange_break_off(struct exchange *exchange) {
  if (!exchange->head_sent) exchange->status = 444; // for the log, as nginx calls it
  exchange->failed_response = true;
  if (exchange->stream) exchange->ops->abort(exchange);
  exchange_finish(exchange);
}

// ---- Phases that waited ----------------------------------------------------------------------------------------------

// Told by the phase runner: a phase that waited has ended.
void exchange_on_phase(struct worker *worker, double handle, enum phase phase, enum phase_result result) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return;
  exchange->waiting = false;
  if (phase == PHASE_LOG || phase == PHASE_STREAM_LOG) {
    exchange_free(exchange);
  } else if (exchange->state == EXCHANGE_LOG) { // the client left while the plugin waited
    exchange_log(exchange);
  } else if (phase == PHASE_CERTIFICATE) {
    struct stream *stream = exchange->stream;
    exchange_finish(exchange);
    stream_greeted(stream, result != PHASE_FAILED);
  } else if (phase == PHASE_REWRITE) {
    exchange_after_phase(exchange, result, exchange_route);
  } else if (phase == PHASE_ACCESS || phase == PHASE_PREREAD) {
    exchange_after_phase(exchange, result, exchange_forward);
  } else if (phase == PHASE_RESPONSE) {
    if (result == PHASE_FAILED)
      exchange_fail(exchange, 500, UNEXPECTED);
    else
      exchange_answer(exchange);
  }
}

// The same of a frame phase; there may be one for each direction.
void exchange_on_frame(struct worker *worker, double handle, enum phase phase, enum phase_result result,
                       struct slice text) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange || !exchange->websocket) return;
  websocket_on_phase(exchange, phase, result, text);
  if (exchange_find(worker, handle) != exchange || exchange->state != EXCHANGE_LOG || !exchange->waiting) return;
  exchange->waiting = websocket_waits(exchange);
  if (!exchange->waiting) exchange_log(exchange);
}

int exchange_greet(struct worker *worker, struct stream *stream, struct generation *generation) {
  if (!(generation->routes[0].phases & (1u << PHASE_CERTIFICATE))) return 0;
  struct exchange *exchange = exchange_new(worker, stream, NULL);
  if (!exchange) return ERROR_MEMORY;
  exchange->generation = generation_retain(generation);
  exchange->route = generation->routes;
  exchange->tls_sni = stream_sni(stream);
  enum phase_result result;
  if (!exchange_run(exchange, ROUTE_NONE, PHASE_CERTIFICATE, &result)) {
    stream->greeting = exchange;
    return 1;
  }
  exchange_finish(exchange);
  return result == PHASE_FAILED ? ERROR_INVALID : 0;
}

// ---- The client's side -----------------------------------------------------------------------------------------------

bool exchange_is_full(const struct exchange *exchange) {
  return exchange->ops->is_congested(exchange) || (exchange->websocket && websocket_holds_service(exchange));
}

void exchange_hold_client(struct exchange *exchange) {
  exchange->service_full = true;
  if (exchange->stream) exchange->ops->want_body(exchange, false);
}

void exchange_on_drained(struct exchange *exchange) {
  if (exchange->websocket)
    websocket_on_drained(exchange);
  else if (exchange->seat)
    seat_on_drained(exchange->seat);
  else if (exchange->try)
    try_resume(exchange);
  else if (exchange->caching)
    exchange_pump_stored(exchange);
  exchange_wake(exchange, &exchange->stream_waiter, BRIDGE_OK);
}

void exchange_on_gone(struct exchange *exchange) {
  if (!exchange->head_sent) exchange->status = 499;
  exchange->failed_response = true;
  exchange->stream = NULL;
  exchange_finish(exchange);
}
