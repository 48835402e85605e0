// SPDX-License-Identifier: Apache-2.0
// The memory of one exchange: blocks of 4 KiB, larger ones for larger wishes.
#include "arena.h"

#include <stdlib.h>

#include "error.h"

enum { BLOCK_BYTES = 4096, ALIGN = 16 };

struct arena_block {
  struct arena_block *next;
  size_t size; // of data
  _Alignas(ALIGN) char data[];
};

struct arena_deferred {
  struct arena_deferred *next;
  void (*close)(void *what);
  void *what;
};

void arena_init(struct arena *arena, size_t limit) {
  *arena = (struct arena){.limit = limit};
}

enum { BLOCK_ROOM = BLOCK_BYTES - sizeof(struct arena_block) };

static int arena_add_block(struct arena *arena, size_t room) {
  struct arena_block *block = room == BLOCK_ROOM ? arena->spare : NULL;
  if (block)
    arena->spare = NULL;
  else
    block = malloc(sizeof *block + room);
  if (!block) return ERROR_MEMORY;
  block->next = arena->blocks;
  block->size = room;
  arena->blocks = block;
  arena->at = block->data;
  arena->end = block->data + room;
  return 0;
}

static int arena_grow(struct arena *arena, size_t size) {
  return arena_add_block(arena, size > BLOCK_ROOM ? size : BLOCK_ROOM);
}

int arena_init_exact(struct arena *arena, size_t limit, size_t size) {
  arena_init(arena, limit);
  return arena_add_block(arena, size);
}

void *arena_alloc(struct arena *arena, size_t size) {
  if (size > arena->limit - arena->used) return NULL; // before it is rounded up, which may wrap around
  size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
  if (size > arena->limit - arena->used) return NULL;
  if ((size_t)(arena->end - arena->at) < size && arena_grow(arena, size) < 0) return NULL;
  void *memory = arena->at;
  arena->at += size;
  arena->used += size;
  return memory;
}

struct slice arena_copy(struct arena *arena, const char *data, size_t len) {
  char *copy = len < UINT32_MAX ? arena_alloc(arena, len + 1) : NULL;
  if (!copy) return (struct slice){NULL, 0};
  if (len) memcpy(copy, data, len);
  copy[len] = 0;
  return (struct slice){copy, (uint32_t)len};
}

int arena_defer(struct arena *arena, void (*close)(void *what), void *what) {
  struct arena_deferred *deferred = arena_alloc(arena, sizeof *deferred);
  if (!deferred) return ERROR_MEMORY;
  *deferred = (struct arena_deferred){arena->deferred, close, what};
  arena->deferred = deferred;
  return 0;
}

static void arena_run_deferred(struct arena *arena) {
  while (arena->deferred) {
    struct arena_deferred *deferred = arena->deferred;
    arena->deferred = deferred->next;
    deferred->close(deferred->what);
  }
}

void arena_reset(struct arena *arena) {
  arena_run_deferred(arena);
  while (arena->blocks && arena->blocks->next) {
    struct arena_block *block = arena->blocks;
    arena->blocks = block->next;
    if (!arena->spare && block->size == BLOCK_ROOM)
      arena->spare = block;
    else
      free(block);
  }
  arena->used = 0;
  struct arena_block *first = arena->blocks;
  arena->at = first ? first->data : NULL;
  arena->end = first ? first->data + first->size : NULL;
}

void arena_close(struct arena *arena) {
  arena_reset(arena);
  free(arena->blocks);
  free(arena->spare);
  *arena = (struct arena){0};
}

static size_t deferred_size(void) {
  return (sizeof(struct arena_deferred) + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

size_t arena_deferred_bytes(const struct arena *arena) {
  size_t bytes = 0;
  for (const struct arena_deferred *deferred = arena->deferred; deferred; deferred = deferred->next)
    bytes += deferred_size();
  return bytes;
}

int arena_replace(struct arena *other, struct arena *arena) {
  struct arena_deferred **end = &arena->deferred;
  while (*end) end = &(*end)->next;
  struct arena_deferred **first = end;
  for (const struct arena_deferred *deferred = other->deferred; deferred; deferred = deferred->next) {
    *end = arena_alloc(arena, sizeof **end);
    if (!*end) {
      *first = NULL;
      return ERROR_MEMORY;
    }
    **end = (struct arena_deferred){NULL, deferred->close, deferred->what};
    end = &(*end)->next;
  }
  other->deferred = NULL;
  arena_close(other);
  *other = *arena;
  return 0;
}
