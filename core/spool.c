// SPDX-License-Identifier: Apache-2.0
// A list of blocks, each with one text after the other:
//
//   first -> [len text len text ...] -> [len text ...] <- last
//             ^ taken up to here                 ^ filled up to here
//
// A block is as large as a text that would not fit, and is given back when all of it has been taken: the system has its
// pages again then, since blocks are above what malloc keeps for itself.
#include "spool.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 256 * 1024, TEXT_MOST = INT32_MAX };

struct block {
  struct block *next;
  uint32_t room, filled, taken;
  char data[];
};

struct spool {
  struct block *first, *last;
  struct block *spent; // held the text that was taken last
  uint64_t bytes;
};

struct spool *spool_new(void) {
  return calloc(1, sizeof(struct spool));
}

static void block_free(struct spool *spool, struct block *block) {
  if (!block) return;
  spool->bytes -= sizeof *block + block->room;
  free(block);
}

static void drop_spent(struct spool *spool) {
  block_free(spool, spool->spent);
  spool->spent = NULL;
}

void spool_free(struct spool *spool) {
  drop_spent(spool);
  while (spool->first) {
    struct block *block = spool->first;
    spool->first = block->next;
    block_free(spool, block);
  }
  free(spool);
}

static struct block *block_add(struct spool *spool, uint32_t needed) {
  uint32_t room = needed > BLOCK_BYTES ? needed : BLOCK_BYTES;
  struct block *block = malloc(sizeof *block + room);
  if (!block) return NULL;
  block->next = NULL;
  block->room = room;
  block->filled = block->taken = 0;
  if (spool->last)
    spool->last->next = block;
  else
    spool->first = block;
  spool->last = block;
  spool->bytes += sizeof *block + room;
  return block;
}

bool spool_put(struct spool *spool, struct slice text) {
  uint32_t len = text.len;
  if (len > TEXT_MOST) return false;
  uint32_t needed = len + (uint32_t)sizeof len;
  struct block *block = spool->last;
  if (!block || block->room - block->filled < needed) block = block_add(spool, needed);
  if (!block) return false;
  memcpy(block->data + block->filled, &len, sizeof len);
  if (len) memcpy(block->data + block->filled + sizeof len, text.data, len);
  block->filled += needed;
  return true;
}

struct slice spool_take(struct spool *spool) {
  drop_spent(spool);
  struct block *block = spool->first;
  if (!block) return (struct slice){NULL, 0};
  uint32_t len;
  memcpy(&len, block->data + block->taken, sizeof len);
  struct slice text = {block->data + block->taken + sizeof len, len};
  block->taken += len + (uint32_t)sizeof len;
  if (block->taken == block->filled) {
    spool->first = block->next;
    if (!spool->first) spool->last = NULL;
    spool->spent = block;
  }
  return text;
}

uint64_t spool_bytes(const struct spool *spool) {
  return spool->bytes;
}
