// SPDX-License-Identifier: Apache-2.0
// Spools: texts that wait, the oldest first, outside of the collector's memory. What Lua holds for long it pays for several
// times over, in marking and in garbage beside it; here a byte that waits takes a byte.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "slice.h"

struct spool;
struct worker;

struct spool *spool_new(void); // NULL: no memory
void spool_free(struct spool *spool);
// At the end, copied. False: no memory, or longer than 2^31 bytes.
bool spool_put(struct spool *spool, struct slice text);
// The oldest, which is the caller's to read until the next call. Data is NULL when none is left.
struct slice spool_take(struct spool *spool);
// Bytes that it takes, blocks and all.
uint64_t spool_bytes(const struct spool *spool);

// Those of a worker that ends, see bridge_spool.c.
void spools_close(struct worker *worker);
