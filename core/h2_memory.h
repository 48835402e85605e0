// SPDX-License-Identifier: Apache-2.0
// Memory for nghttp2's sessions: each stream takes a dozen small blocks, which the one before it has just given back.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { H2_MEMORY_STEP = 64, H2_MEMORY_SIZES = 16 };

// A worker's spare blocks, by size in steps.
struct h2_memory {
  void *spare[H2_MEMORY_SIZES];
  uint32_t count[H2_MEMORY_SIZES];
};

// What nghttp2_mem calls, with the worker's struct h2_memory as its user data.
void *h2_memory_take(size_t size, void *memory);
void *h2_memory_take_zeroed(size_t count, size_t size, void *memory);
void *h2_memory_resize(void *block, size_t size, void *memory);
void h2_memory_give(void *block, void *memory);
// When no session is left.
void h2_memory_close(struct h2_memory *memory);
