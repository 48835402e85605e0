// SPDX-License-Identifier: Apache-2.0
// Chunks counted by reference, and queues of pieces of them.
#include "buffer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { COPY_MOST = 4096 };

void chunk_pool_init(struct chunk_pool *pool, uint32_t free_most) {
  *pool = (struct chunk_pool){.free_most = free_most};
}

void chunk_pool_close(struct chunk_pool *pool) {
  while (pool->free) {
    struct chunk *chunk = pool->free;
    pool->free = chunk->next_free;
    free(chunk);
  }
  pool->free_count = 0;
}

struct chunk *chunk_take(struct chunk_pool *pool) {
  struct chunk *chunk = pool->free;
  if (chunk) {
    pool->free = chunk->next_free;
    pool->free_count--;
  } else {
    chunk = malloc(sizeof *chunk);
    if (!chunk) return NULL;
    chunk->pool = pool;
  }
  chunk->next_free = NULL;
  chunk->refs = 1;
  chunk->used = 0;
  pool->out++;
  return chunk;
}

void chunk_release(struct chunk *chunk) {
  assert(chunk->refs > 0);
  if (--chunk->refs > 0) return;
  struct chunk_pool *pool = chunk->pool;
  pool->out--;
  if (pool->free_count >= pool->free_most) {
    free(chunk);
    return;
  }
  chunk->next_free = pool->free;
  pool->free = chunk;
  pool->free_count++;
}

void buffer_init(struct buffer *buffer, struct chunk_pool *pool) {
  *buffer = (struct buffer){.pool = pool};
}

static void buffer_rewind(struct buffer *buffer) {
  buffer->head = 0;
  if (buffer->room <= 16) return; // a long queue's memory goes; a short one's is kept for the next bytes
  free(buffer->segments);
  buffer->segments = NULL;
  buffer->room = 0;
}

void buffer_clear(struct buffer *buffer) {
  for (uint32_t i = 0; i < buffer->count; i++) chunk_release(buffer->segments[buffer->head + i].chunk);
  free(buffer->segments);
  *buffer = (struct buffer){.pool = buffer->pool};
}

static int buffer_make_room(struct buffer *buffer) {
  if (buffer->head + buffer->count < buffer->room) return 0;
  if (buffer->head > 0) {
    memmove(buffer->segments, buffer->segments + buffer->head, buffer->count * sizeof *buffer->segments);
    buffer->head = 0;
    return 0;
  }
  uint32_t room = buffer->room ? buffer->room * 2 : 4;
  struct segment *segments = realloc(buffer->segments, room * sizeof *segments);
  if (!segments) return ERROR_MEMORY;
  buffer->segments = segments;
  buffer->room = room;
  return 0;
}

static struct segment *buffer_last(struct buffer *buffer) {
  return buffer->count ? &buffer->segments[buffer->head + buffer->count - 1] : NULL;
}

// Takes over one reference to the chunk (given back when it fails).
static int buffer_push(struct buffer *buffer, struct chunk *chunk, const char *data, size_t len) {
  struct segment *last = buffer_last(buffer);
  if (last && last->chunk == chunk && last->data + last->len == data) {
    last->len += (uint32_t)len;
    buffer->bytes += len;
    chunk_release(chunk);
    return 0;
  }
  if (buffer_make_room(buffer) < 0) {
    chunk_release(chunk);
    return ERROR_MEMORY;
  }
  buffer->segments[buffer->head + buffer->count++] = (struct segment){chunk, data, (uint32_t)len};
  buffer->bytes += len;
  return 0;
}

int buffer_append_ref(struct buffer *buffer, struct chunk *chunk, const char *data, size_t len) {
  if (len == 0) return 0;
  return buffer_push(buffer, chunk_retain(chunk), data, len);
}

// The chunk at the end of the queue whose free tail starts right behind the last segment, and which nobody else fills.
static struct chunk *buffer_tail(struct buffer *buffer, size_t len) {
  struct segment *last = buffer_last(buffer);
  if (!last || last->chunk->refs != 1) return NULL;
  struct chunk *chunk = last->chunk;
  if (last->data + last->len != chunk->data + chunk->used) return NULL;
  return CHUNK_BYTES - chunk->used >= len ? chunk : NULL;
}

char *buffer_reserve(struct buffer *buffer, size_t len) {
  assert(len <= CHUNK_BYTES);
  struct chunk *tail = buffer_tail(buffer, len);
  if (tail) return tail->data + tail->used;
  struct chunk *chunk = chunk_take(buffer->pool);
  if (!chunk) return NULL;
  // An empty segment holds the new chunk until the commit; its bytes are not counted yet.
  if (buffer_push(buffer, chunk, chunk->data, 0) < 0) return NULL;
  return chunk->data;
}

int buffer_commit(struct buffer *buffer, size_t len) {
  struct segment *last = buffer_last(buffer);
  assert(last && last->data + last->len == last->chunk->data + last->chunk->used);
  last->len += (uint32_t)len;
  last->chunk->used += (uint32_t)len;
  buffer->bytes += len;
  return 0;
}

int buffer_append(struct buffer *buffer, const char *data, size_t len) {
  while (len > 0) {
    size_t piece = len;
    struct segment *last = buffer_last(buffer);
    struct chunk *tail = last ? buffer_tail(buffer, 1) : NULL;
    size_t room = tail ? CHUNK_BYTES - tail->used : CHUNK_BYTES;
    if (piece > room) piece = room;
    char *to = buffer_reserve(buffer, piece);
    if (!to) return ERROR_MEMORY;
    memcpy(to, data, piece);
    buffer_commit(buffer, piece);
    data += piece;
    len -= piece;
  }
  return 0;
}

int buffer_append_piece(struct buffer *buffer, struct chunk *chunk, const char *data, size_t len) {
  bool small = len <= COPY_MOST && buffer->bytes > 0;
  return small ? buffer_append(buffer, data, len) : buffer_append_ref(buffer, chunk, data, len);
}

void buffer_consume(struct buffer *buffer, size_t len) {
  assert(len <= buffer->bytes);
  buffer->bytes -= len;
  while (buffer->count > 0) {
    struct segment *first = &buffer->segments[buffer->head];
    if (len < first->len) {
      first->data += len;
      first->len -= (uint32_t)len;
      return;
    }
    len -= first->len;
    chunk_release(first->chunk);
    buffer->head++;
    buffer->count--;
  }
  buffer_rewind(buffer);
}

int buffer_move(struct buffer *to, struct buffer *from, size_t most) {
  while (most > 0 && from->count > 0) {
    struct segment first = from->segments[from->head];
    size_t len = first.len < most ? first.len : most;
    if (buffer_append_ref(to, first.chunk, first.data, len) < 0) return ERROR_MEMORY;
    buffer_consume(from, len);
    most -= len;
  }
  return 0;
}

int buffer_share(struct buffer *to, const struct buffer *from) {
  for (uint32_t i = 0; i < from->count; i++) {
    struct segment *segment = &from->segments[from->head + i];
    if (buffer_append_ref(to, segment->chunk, segment->data, segment->len) < 0) return ERROR_MEMORY;
  }
  return 0;
}

int buffer_iov(const struct buffer *buffer, struct iovec *iov, int most) {
  int filled = 0;
  for (uint32_t i = 0; i < buffer->count && filled < most; i++) {
    const struct segment *segment = &buffer->segments[buffer->head + i];
    if (segment->len == 0) continue;
    iov[filled++] = (struct iovec){(void *)(uintptr_t)segment->data, segment->len};
  }
  return filled;
}

void buffer_copy_out(const struct buffer *buffer, char *out) {
  for (uint32_t i = 0; i < buffer->count; i++) {
    const struct segment *segment = &buffer->segments[buffer->head + i];
    memcpy(out, segment->data, segment->len);
    out += segment->len;
  }
}
