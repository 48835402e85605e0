// SPDX-License-Identifier: Apache-2.0
// Memory for nghttp2's sessions: a list of spare blocks for each of few sizes.
#include "h2_memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SPARE_MOST = 512 }; // blocks of one size

// Whether one more is kept. None under the sanitizer, which is to see each use of what was given back.
static bool has_room(uint32_t count) {
#ifdef __SANITIZE_ADDRESS__
  (void)count;
  return false;
#else
  return count < SPARE_MOST;
#endif
}

// In front of each block, as large as its alignment asks.
union head {
  size_t size; // that the block has room for
  union head *next;
  max_align_t align;
};

static size_t step_of(size_t size) {
  return (size - 1) / H2_MEMORY_STEP;
}

void *h2_memory_take(size_t size, void *data) {
  struct h2_memory *memory = data;
  if (size == 0) size = 1;
  size_t step = step_of(size);
  if (step >= H2_MEMORY_SIZES) {
    if (size > SIZE_MAX - sizeof(union head)) return NULL;
  } else {
    size = (step + 1) * H2_MEMORY_STEP;
  }
  union head *head = step < H2_MEMORY_SIZES ? memory->spare[step] : NULL;
  if (head) {
    memory->spare[step] = head->next;
    memory->count[step]--;
  } else {
    head = malloc(sizeof *head + size);
    if (!head) return NULL;
  }
  head->size = size;
  return head + 1;
}

void h2_memory_give(void *block, void *data) {
  struct h2_memory *memory = data;
  if (!block) return;
  union head *head = (union head *)block - 1;
  size_t step = step_of(head->size);
  if (step >= H2_MEMORY_SIZES || !has_room(memory->count[step])) {
    free(head);
    return;
  }
  head->next = memory->spare[step];
  memory->spare[step] = head;
  memory->count[step]++;
}

void *h2_memory_take_zeroed(size_t count, size_t size, void *data) {
  if (size && count > SIZE_MAX / size) return NULL;
  void *block = h2_memory_take(count * size, data);
  return block ? memset(block, 0, count * size) : NULL;
}

void *h2_memory_resize(void *block, size_t size, void *data) {
  if (!block) return h2_memory_take(size, data);
  size_t before = ((union head *)block - 1)->size;
  if (size <= before) return block;
  void *larger = h2_memory_take(size, data);
  if (!larger) return NULL;
  memcpy(larger, block, before);
  h2_memory_give(block, data);
  return larger;
}

void h2_memory_close(struct h2_memory *memory) {
  for (size_t step = 0; step < H2_MEMORY_SIZES; step++) {
    while (memory->spare[step]) {
      union head *head = memory->spare[step];
      memory->spare[step] = head->next;
      free(head);
    }
    memory->count[step] = 0;
  }
}
