// SPDX-License-Identifier: Apache-2.0
// What all workers know of each address that an upstream's targets have: whether it takes requests and, if not, for
// which reasons; failures in a row; requests in flight; how fast it answers. In shared memory, made before the fork and
// kept for the life of the gateway, so that it outlives reloads and workers. A change is seen by every worker at its next
// choice, for each looks at the endpoint itself.
//
// An endpoint is out for a set of reasons, each set and taken back by whoever it belongs to (health checks, a circuit
// breaker); it takes requests again when none is left. A process killed at any moment leaves nothing behind
// that others wait for.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "slice.h"

struct address;
struct endpoints;

enum {
  ENDPOINT_REASONS = 2,  // bits of enum endpoint_reason
  ENDPOINT_COLUMNS = 64, // of requests in flight, one a worker
  ENDPOINT_UPSTREAM_ROOM = 128,
  ENDPOINT_TARGET_ROOM = 128,
  ENDPOINT_ADDRESS_ROOM = 64 // "[v6]:port"
};

struct endpoint {
  // Read at each choice, rarely written
  uint64_t upstream; // hash of its name
  uint32_t out;      // bits of enum endpoint_reason; 0: takes requests
  uint32_t checks;
  int64_t until_us[ENDPOINT_REASONS]; // when a reason ends by itself; 0: it does not
  int64_t reserved[2];
  int64_t since_us;   // when it last began to take requests, or ceased to
  int64_t touched_us; // when somebody last had a use for it
  // Written by tries
  uint64_t counts; // four of 16 bits: successes, TCP failures, HTTP failures, timeouts
  int64_t latency_us, latency_at_us;
  int64_t check_at_us;  // the next check of its health
  uint64_t revision;    // of the configuration that `checks` is from
  int64_t probe_us;     // above 0: behind the time of REASON_BREAKER one request is let through in each so many
  uint32_t check_owner; // worker that makes it now; 0: none
  uint32_t unused;
  uint64_t reserve;
  int32_t in_flight[ENDPOINT_COLUMNS];
  char upstream_name[ENDPOINT_UPSTREAM_ROOM], target[ENDPOINT_TARGET_ROOM], address[ENDPOINT_ADDRESS_ROOM];
} __attribute__((aligned(64)));

// Times are of the monotonic clock, which all workers share.
struct endpoints *endpoints_new(uint32_t slots, struct error *error); // a power of two; NULL, and why
void endpoints_free(struct endpoints *endpoints);
// Worker `id` has just begun: what its predecessor had in flight, and the checks that it was making, are no more.
void endpoints_begin_worker(struct endpoints *endpoints, uint32_t id);

// The endpoint of an address of the upstream, made when there is none. NULL: no room.
struct endpoint *endpoints_take(struct endpoints *endpoints, struct slice upstream, struct slice target,
                                const struct address *address, int64_t now_us);
// A number for Lua, above 0, and back; NULL: it is none in use.
double endpoints_handle(const struct endpoints *endpoints, const struct endpoint *endpoint);
struct endpoint *endpoints_at(struct endpoints *endpoints, double handle);
// Those of an upstream (all of them when the name is empty) that are still of use: begin with *cursor 0. NULL: the end.
struct endpoint *endpoints_next(struct endpoints *endpoints, struct slice upstream, uint64_t *cursor, int64_t now_us);
uint64_t endpoint_name_hash(struct slice upstream);

// Keeps the endpoint from being given to another address.
void endpoint_touch(struct endpoint *endpoint, int64_t now_us);
// Its health belongs to this configuration of checks: another one than before, of a later revision, begins anew.
void endpoint_adopt(struct endpoint *endpoint, uint32_t checks, double revision, int64_t now_us);

// The reasons among `heeds` for which it takes no requests, 0: it takes them. Reasons whose time is over are taken back:
// `*ended` gets those that this call took.
uint32_t endpoint_out(struct endpoint *endpoint, uint32_t heeds, int64_t now_us, uint32_t *ended);
// Sets or takes back a reason, until `until_us` (0: it is taken back). True when that changed anything.
bool endpoint_set(struct endpoint *endpoint, uint32_t reason, bool out, int64_t until_us, int64_t now_us);

// REASON_BREAKER until `until_us`. Behind that the reason stays, but the endpoint takes one request, a probe, and the next
// one `probe_us` later at the earliest; whoever broke it decides by what comes of them. True when it was not set before.
bool endpoint_break(struct endpoint *endpoint, int64_t until_us, int64_t probe_us, int64_t now_us);
// A request is about to go there. False: it must not, for another has just begun as a probe.
bool endpoint_admit(struct endpoint *endpoint, int64_t now_us);

// Counts what became of a check or a try. True: the reason REASON_CHECKS has come or gone.
bool endpoint_count(struct endpoint *endpoint, const struct check_limits *limits, enum endpoint_event event,
                    int64_t now_us);

// Requests in flight, of worker `id` and of all.
void endpoint_enter(struct endpoint *endpoint, uint32_t id);
void endpoint_leave(struct endpoint *endpoint, uint32_t id);
int32_t endpoint_in_flight(const struct endpoints *endpoints, const struct endpoint *endpoint);
// Peak EWMA: a slower answer counts at once, faster ones by and by, and silence lets it fade.
void endpoint_answered_in(struct endpoint *endpoint, int64_t us, int64_t now_us);
int64_t endpoint_latency(const struct endpoint *endpoint, int64_t now_us); // 0: not known

// 0 for one worker, when the time of a check has come, and the next is due in `lease_us`, unless endpoint_check_at says
// otherwise: whoever dies over it has delayed it by that much at most, for its successor gives it free. Else how long until
// one is due.
int64_t endpoint_claim_check(struct endpoint *endpoint, uint32_t id, int64_t lease_us, int64_t now_us);
void endpoint_check_at(struct endpoint *endpoint, int64_t at_us);
