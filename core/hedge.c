// SPDX-License-Identifier: Apache-2.0
// A second try beside the first.
#include "hedge.h"

#include <stddef.h>
#include <string.h>

#include "budget.h"
#include "buffer.h"
#include "error.h"
#include "forward.h"
#include "target.h"
#include "try.h"
#include "worker.h"

// ---- Two tries -------------------------------------------------------------------------------------------------------

static struct parked park(const struct exchange *exchange) {
  struct parked parked = {.message = exchange->service_message,
                          .chunk = exchange->response_chunk,
                          .endpoint = exchange->endpoint,
                          .sent_us = exchange->sent_us,
                          .begun_us = exchange->try_begun_us,
                          .port = exchange->target_port,
                          .judged = exchange->judged};
  memcpy(parked.ip, exchange->target_ip, sizeof parked.ip);
  return parked;
}

static void unpark(struct exchange *exchange, const struct parked *parked) {
  exchange->service_message = parked->message;
  exchange->response_chunk = parked->chunk;
  exchange->endpoint = parked->endpoint;
  exchange->sent_us = parked->sent_us;
  exchange->try_begun_us = parked->begun_us;
  exchange->target_port = parked->port;
  exchange->judged = parked->judged;
  memcpy(exchange->target_ip, parked->ip, sizeof parked->ip);
}

void hedge_swap(struct exchange *exchange) {
  struct hedge *hedge = exchange->hedge;
  struct try *other = hedge->other;
  struct parked parked = hedge->parked;
  hedge->parked = park(exchange);
  hedge->other = exchange->try;
  unpark(exchange, &parked);
  exchange->try = other;
}

static void release_chunk(struct chunk **chunk) {
  if (*chunk) chunk_release(*chunk);
  *chunk = NULL;
}

bool hedge_fall_back(struct exchange *exchange) {
  if (!hedge_is_on(exchange)) return false;
  release_chunk(&exchange->response_chunk);
  hedge_swap(exchange);
  exchange->hedge->other = NULL;
  exchange->last_failed = false; // the one that goes on
  return true;
}

bool hedge_is_second(const struct exchange *exchange) {
  return hedge_is_on(exchange) && exchange->try == exchange->hedge->second;
}

void hedge_withdraw(struct exchange *exchange) {
  struct hedge *hedge = exchange->hedge;
  try_drop(exchange);
  hedge_fall_back(exchange);
  hedge->second = NULL;
  budget_give_back(exchange->worker, hedge->budget);
}

void hedge_settle(struct exchange *exchange, bool answered) {
  struct hedge *hedge = exchange->hedge;
  timer_cancel(&exchange->worker->loop.timers, &hedge->timer);
  if (hedge->second) exchange->hedged = answered && exchange->try == hedge->second ? HEDGED_WON : HEDGED_LOST;
  if (hedge->other) {
    hedge_swap(exchange);
    try_drop(exchange);
    hedge_fall_back(exchange);
  }
  exchange->hedge = NULL;
}

// ---- Beginning the second --------------------------------------------------------------------------------------------

// Whether there is anywhere else to go.
static bool has_elsewhere(const struct try *try) {
  return (try->upstream && try->upstream->target_count > 1) || try->address_count > 1;
}

static bool may_begin(const struct exchange *exchange) {
  const struct try *try = exchange->try;
  if (exchange->state != EXCHANGE_SERVICE || !exchange->stream || exchange->head_sent || !try || !try->carrier)
    return false;
  return exchange->request_complete && exchange->body_received == 0 && !try->response_seen && has_elsewhere(try);
}

static void begin(struct hedge *hedge) {
  struct exchange *exchange = hedge->exchange;
  uint32_t tries = exchange->tries; // a retry is another matter
  hedge->parked = park(exchange);
  hedge->other = exchange->try;
  exchange->try = hedge->second = arena_alloc(&exchange->arena, sizeof *exchange->try);
  if (!exchange->try) {
    unpark(exchange, &hedge->parked);
    exchange->try = hedge->other;
    hedge->other = NULL;
    return;
  }
  exchange->service_message = (struct h1_message){0};
  exchange->response_chunk = NULL;
  exchange->endpoint = NULL;
  try_begin(exchange);
  exchange->tries = tries;
}

static void on_time(struct timer *timer) {
  struct hedge *hedge = (struct hedge *)(void *)((char *)timer - offsetof(struct hedge, timer));
  struct exchange *exchange = hedge->exchange;
  if (!may_begin(exchange)) return;
  if (budget_spend(exchange->worker, hedge->budget))
    begin(hedge);
  else
    exchange->hedged = HEDGED_REFUSED;
}

int hedge_want(struct exchange *exchange, int64_t delay_us, struct budget *budget) {
  struct hedge *hedge = exchange->hedge;
  if (!hedge) hedge = arena_alloc(&exchange->arena, sizeof *hedge);
  if (!hedge) return ERROR_MEMORY;
  *hedge = (struct hedge){.exchange = exchange, .budget = budget, .delay_us = delay_us};
  timer_init(&hedge->timer, on_time);
  exchange->hedge = hedge;
  return 0;
}

void hedge_arm(struct exchange *exchange) {
  struct hedge *hedge = exchange->hedge;
  bool good = !exchange->tcp && !exchange->request.upgrade && !forward_has_content(exchange) &&
              try_is_idempotent(forward_method(exchange));
  int64_t at_us = exchange->worker->loop.clock.mono_us + hedge->delay_us;
  if (!good || timer_set(&exchange->worker->loop.timers, &hedge->timer, at_us) < 0) exchange->hedge = NULL;
}
