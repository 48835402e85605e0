// SPDX-License-Identifier: Apache-2.0
// The memory of one exchange: bounded, released whole, with what must be closed deferred until then.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "slice.h"

struct arena_block;
struct arena_deferred;

struct arena {
  struct arena_block *blocks; // newest first; the oldest is kept by arena_reset
  struct arena_block *spare;  // and a second one, for who needs more than most
  char *at, *end;
  size_t used, limit; // bytes handed out, and the bound on them
  struct arena_deferred *deferred;
};

void arena_init(struct arena *arena, size_t limit);
// Memory aligned for any type, or NULL past the limit. Lives until arena_reset.
void *arena_alloc(struct arena *arena, size_t size);
// A copy of the bytes, with a zero behind them; data is NULL past the limit.
struct slice arena_copy(struct arena *arena, const char *data, size_t len);
// Calls close(what) at arena_reset, the last deferred first. 0, or ERROR_MEMORY (then nothing is deferred).
int arena_defer(struct arena *arena, void (*close)(void *what), void *what);
// Runs what was deferred and forgets everything; keeps two blocks for the next user.
void arena_reset(struct arena *arena);
// An arena whose first block has just this size. 0, or ERROR_MEMORY.
int arena_init_exact(struct arena *arena, size_t limit, size_t size);
// `arena` takes the place of `other`: what was deferred there is deferred here, and its memory is gone. Needs
// arena_deferred_bytes of room.
int arena_replace(struct arena *other, struct arena *arena);
size_t arena_deferred_bytes(const struct arena *arena);
void arena_close(struct arena *arena);
