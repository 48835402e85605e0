// SPDX-License-Identifier: Apache-2.0
// Hedged requests: beside a try that has not been answered in time a second one begins, of another target. The first
// head of a response wins, and the other try is given up.
//
//   exchange ── try: the current one; what the exchange knows of a try (address, times, head) is of this one
//      └── hedge ── other: NULL, or the second one in flight, parked with what the exchange would know of it
//
// All that a try calls works on the current one. So whoever is called for a connection or stream (link.c, h2_call.c,
// the resolver) first makes its try the current one: hedge_swap.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "exchange.h"
#include "h1.h"

struct budget;
struct chunk;
struct endpoint;
struct try;

// What a request that was hedged came to.
enum hedged { HEDGED_NOT, HEDGED_REFUSED, HEDGED_LOST, HEDGED_WON };

// What the exchange knows of its current try, and has of the other one here.
struct parked {
  struct h1_message message;
  struct chunk *chunk;
  struct endpoint *endpoint;
  int64_t sent_us, begun_us;
  uint16_t port;
  bool judged;
  char ip[46];
};

// In the exchange's arena, until a response has come.
struct hedge {
  struct timer timer;
  struct exchange *exchange;
  struct budget *budget;
  struct try *second, *other;
  int64_t delay_us;
  struct parked parked; // of `other`
};

// Before the request goes: a second try is wanted when `delay_us` have passed since the first began, as far as the budget
// goes. 0, or ERROR_MEMORY.
int hedge_want(struct exchange *exchange, int64_t delay_us, struct budget *budget);
// The first try begins. Only requests without content that may come twice are hedged.
void hedge_arm(struct exchange *exchange);
// Makes the other try the current one.
void hedge_swap(struct exchange *exchange);
// A response has come, or none is wanted any more: the other try is given up, and there will be no second one.
void hedge_settle(struct exchange *exchange, bool answered);
// The current try has come to nothing, and has been dropped. False: it was the only one.
bool hedge_fall_back(struct exchange *exchange);
// Whether the current try is the second one of two.
bool hedge_is_second(const struct exchange *exchange);
// The second try cannot be made. Drops it, and the first goes on alone.
void hedge_withdraw(struct exchange *exchange);

// Whether two tries are in flight.
static inline bool hedge_is_on(const struct exchange *exchange) {
  return exchange->hedge && exchange->hedge->other;
}
