// SPDX-License-Identifier: Apache-2.0
// What an exchange holds of something that may be in use so many times at once, over all workers (see counters.h). It
// ends when its plugin says so, at the latest when the response is whole or cut off; with a worker that dies, when the
// master has reaped it. So nothing that a plugin does or fails to do keeps one.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "slice.h"

struct exchange;
struct lease;

// Takes one of `most` for the exchange. COUNTERS_OK; COUNTERS_TAKEN: all are in use; COUNTERS_FULL: there is no memory
// for it, or the exchange holds too many. `*held` gets how many are in use.
int lease_take(struct exchange *exchange, struct slice key, int64_t most, int64_t *held);
// Gives back one of that key; false when the exchange holds none.
bool lease_end(struct exchange *exchange, struct slice key);
void lease_end_all(struct exchange *exchange);
