// SPDX-License-Identifier: Apache-2.0
// Numbers shared by all workers: a table of 64-byte slots in anonymous shared memory, made before the fork. Adds are
// atomic and there are no locks, so a process killed at any moment leaves nothing behind that others wait for.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct counters;

enum counters_status {
  COUNTERS_OK = 0,
  COUNTERS_NEW = 1,     // add: the key was not there, or had expired: it began at 0
  COUNTERS_NONE = 2,    // get, compare-and-set: no such key
  COUNTERS_DIFFERS = 3, // compare-and-set: another value stands there
  COUNTERS_MORE = 5,    // walk: not at the end yet
  COUNTERS_FULL = -3    // no slot (or no text) left: nothing was changed
};

struct counters_use {
  uint32_t slots, used, named; // `used` counts live keys, named ones included
  uint64_t text_bytes, text_used;
  uint64_t refused; // adds that found the table full
};

// Makes the table; children of the process share it. `slots` is rounded up to a power of two; a quarter of them is for
// named counters, whose texts share `text_bytes`. NULL, and why.
struct counters *counters_new(uint32_t slots, uint32_t text_bytes, struct error *error);
void counters_free(struct counters *counters);

// Adds and returns the new value; values wrap at 64 bits. A key that is new begins at 0 and ends `ttl_us` after `now_us` (microseconds since
// 1970; 0: never); adding to a living one does not prolong it. Exact across processes. `*status` is COUNTERS_OK,
// COUNTERS_NEW or COUNTERS_FULL (and the result 0).
int64_t counters_add(struct counters *counters, const char *key, uint32_t len, int64_t delta, int64_t ttl_us,
                     int64_t now_us, int *status);
// The value; 0 with COUNTERS_NONE. `*expires_us` (may be NULL) gets the end, 0: never.
int64_t counters_get(struct counters *counters, const char *key, uint32_t len, int64_t now_us, int64_t *expires_us,
                     int *status);
// Sets the value, and the end too. COUNTERS_OK or COUNTERS_FULL.
int counters_set(struct counters *counters, const char *key, uint32_t len, int64_t value, int64_t ttl_us,
                 int64_t now_us);
// Sets the value where it is `expected`. COUNTERS_OK, COUNTERS_NONE, COUNTERS_DIFFERS; `*found` gets what stood there.
int counters_compare_set(struct counters *counters, const char *key, uint32_t len, int64_t expected, int64_t value,
                         int64_t now_us, int64_t *found);
// Ends the key now. COUNTERS_OK or COUNTERS_NONE.
int counters_delete(struct counters *counters, const char *key, uint32_t len, int64_t now_us);

// Named counters keep the text of their key, never expire and can be listed: metrics. The handle (above 0) stays good
// for the life of the table, so that adding costs no look-up; COUNTERS_FULL when there is no room. They are no keys of
// the functions above.
int64_t counters_name(struct counters *counters, const char *key, uint32_t len);
bool counters_is_handle(const struct counters *counters, int64_t handle);
int64_t counters_add_at(struct counters *counters, int64_t handle, int64_t delta); // the handle must be one
int64_t counters_at(struct counters *counters, int64_t handle);
// Sets the value where it is `expected`. False: another one stands there.
bool counters_swap_at(struct counters *counters, int64_t handle, int64_t expected, int64_t value);

// Of any bytes, with a secret that nobody outside knows: no keys can be found that collide.
uint64_t counters_hash(const struct counters *counters, const char *key, uint32_t len);
// Grows with each name: while it stands still a walk would find no new one.
uint64_t counters_names(const struct counters *counters);
// Walks the named counters whose text begins with `prefix`, in no particular order: begin with *cursor 0; of one that was
// found it is the handle. COUNTERS_OK; COUNTERS_NONE at the end; COUNTERS_MORE after `most` slots without one, for the
// table is large. `*key` points into the shared text and stays good.
int counters_next(struct counters *counters, const char *prefix, uint32_t prefix_len, uint32_t most, uint64_t *cursor,
                  const char **key, uint32_t *len, int64_t *value);

void counters_use(struct counters *counters, int64_t now_us, struct counters_use *out);
// The same a piece of `most` slots at a time, for the table is large: begin with *at 0. False when `out` is whole.
bool counters_use_some(struct counters *counters, int64_t now_us, uint32_t *at, uint32_t most,
                       struct counters_use *out);

// Leases: how many are in use of something, by all processes together. What a process holds is gone when it is: each
// joins as a holder before it begins (the master does that for it), and leaves when it has been reaped.
enum { COUNTERS_TAKEN = 4 }; // lease: all are in use

// The number of a new holder; 0: there are too many.
int64_t counters_join(struct counters *counters);
void counters_leave(struct counters *counters, int64_t holder);
// Takes one of `most` leases of that key. COUNTERS_OK, and `*lease` is what releases it; COUNTERS_TAKEN; COUNTERS_FULL.
// Never are more than `most` held; of processes that want the last one at the same moment, none may get it at first.
// `*held` gets how many are in use, this one included.
int counters_lease(struct counters *counters, int64_t holder, const char *key, uint32_t len, int64_t most,
                   int64_t now_us, uint64_t *lease, int64_t *held);
void counters_release(struct counters *counters, int64_t holder, uint64_t lease, int64_t now_us);
int64_t counters_leased(struct counters *counters, const char *key, uint32_t len, int64_t now_us);
