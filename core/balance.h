// SPDX-License-Identifier: Apache-2.0
// Which targets of a watched upstream take requests, and what its tries say of them. An upstream is watched when it has
// health checks, when its policy goes by load, or when a plugin wants its targets ejected; else nothing here is entered.
//
//   target ──bind──> endpoints (one an address, shared by all workers)
//   choice: targets with an endpoint that takes requests and that this exchange has not tried
//   try:    enter ── connected, head, trailers or failure: counted ── leave
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "endpoint.h"
#include "target.h"

struct exchange;
struct generation;
struct worker;

// An address of a target and what is known of it.
struct bound {
  struct address address;
  struct endpoint *endpoint; // NULL: the table is full; it takes requests
};

enum { STATUS_WORDS = 16 }; // a bit for each status below 1024

// In the generation's arena.
struct watch {
  struct upstream *upstream;
  struct generation *generation;
  uint32_t heeds;   // reasons that keep a target from taking requests
  uint32_t checks;  // tells one configuration of checks from another
  uint8_t spread;   // enum spread: among the addresses of a target
  bool passive;     // tries count
  double threshold; // percent of the weight that must take requests
  int64_t slow_start_us;
  struct check_limits passive_limits, active_limits;
  uint64_t healthy[STATUS_WORDS], unhealthy[STATUS_WORDS]; // of tries
  bool told_full;                                          // the log, that there is no room for an endpoint
  struct target_state *states;                             // made anew at each choice of Lua's
  uint32_t state_room;
};

// Watches the upstream, whose targets are all there. 0, or ERROR_MEMORY.
int balance_watch(struct generation *generation, struct upstream *upstream, const struct upstream_watch *conf);
// The addresses that a target has now.
void balance_bind(struct worker *worker, struct watch *watch, struct target *target, const struct address *addresses,
                  uint32_t count);
// Once in a while: endpoints of the running generation are still of use.
void balance_touch(struct worker *worker);

// The next target of the schedule that takes requests, NULL: there is none.
struct target *balance_next(struct exchange *exchange, struct upstream *upstream);
// The same by the choice of Lua's policy, an index from 1, as far as that takes requests.
struct target *balance_chosen(struct exchange *exchange, struct upstream *upstream, uint32_t index);
// What a policy chooses by: `*out` lives until the next call for this upstream. How many, 0: no target.
uint32_t balance_states(struct exchange *exchange, struct worker *worker, struct upstream *upstream,
                        const struct target_state **out);
// The target that the hash prefers among those that take requests, by its weight: an index from 1, 0: none. While a
// target is out, only what it had is spread over the others.
uint32_t balance_by_hash(struct exchange *exchange, struct upstream *upstream, uint64_t hash);
uint64_t balance_hash(struct slice text);
// Which of the try's addresses; negative: none takes requests.
int balance_address(struct exchange *exchange);

// A try: with the address that it goes to.
bool balance_enter(struct exchange *exchange, const struct address *address); // false: it takes none, choose again
void balance_leave(struct exchange *exchange);
void balance_on_connected(struct exchange *exchange); // of a stream
void balance_on_head(struct exchange *exchange);
void balance_on_end(struct exchange *exchange); // the response is whole
// Given up before there was an answer: it would have taken longer than it did so far.
void balance_on_dropped(struct exchange *exchange);
// `status`: what the client would be told; `stale`: a connection that had been idle, and may have been dead for long.
void balance_on_failed(struct exchange *exchange, int status, bool stale);

// The reasons among `heeds` for which it takes no requests; those whose time is over end here, and the log is told.
uint32_t balance_out(struct worker *worker, struct endpoint *endpoint, uint32_t heeds);
// A reason to be out, set or taken back, and told in the log. False: it was so before.
bool balance_set(struct worker *worker, struct endpoint *endpoint, uint32_t reason, bool out, int64_t until_us,
                 const char *why);
// The same of REASON_BREAKER, with probes: see endpoint_break.
bool balance_break(struct worker *worker, struct endpoint *endpoint, int64_t until_us, int64_t probe_us,
                   const char *why);
// The result of a check or a try.
void balance_count(struct worker *worker, struct endpoint *endpoint, const struct check_limits *limits,
                   enum endpoint_event event, const char *why);
