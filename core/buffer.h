// SPDX-License-Identifier: Apache-2.0
// Bytes on their way: 64 KiB chunks that are counted by reference, and queues of pieces of them.
// A body is read into a chunk once and written from it; only its references move from queue to queue.
//
//   conn.in ──> chunk ◄── segment ── buffer (conn.out of the other side)
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { CHUNK_BYTES = 65536 - 64 }; // with the allocator's and our own header under 64 KiB

struct chunk_pool;

struct chunk {
  struct chunk_pool *pool;
  struct chunk *next_free;
  uint32_t refs;
  uint32_t used; // bytes at the front that are taken
  char data[CHUNK_BYTES];
};

// Chunks that are free for the next user, so that a busy worker touches the same warm pages again and again.
struct chunk_pool {
  struct chunk *free;
  uint32_t free_count, free_most;
  uint64_t out; // chunks in use
};

struct segment {
  struct chunk *chunk;
  const char *data;
  uint32_t len;
};

// A queue of segments. Empty, it owns no memory.
struct buffer {
  struct chunk_pool *pool;
  struct segment *segments; // room of them; head..head+count are live
  uint32_t head, count, room;
  size_t bytes;
};

void chunk_pool_init(struct chunk_pool *pool, uint32_t free_most);
void chunk_pool_close(struct chunk_pool *pool);
// A chunk with one reference, or NULL.
struct chunk *chunk_take(struct chunk_pool *pool);
void chunk_release(struct chunk *chunk);
static inline struct chunk *chunk_retain(struct chunk *chunk) {
  chunk->refs++;
  return chunk;
}

void buffer_init(struct buffer *buffer, struct chunk_pool *pool);
void buffer_clear(struct buffer *buffer); // drops the content and all memory
// Appends bytes of a chunk without copying; takes a reference of its own. 0, or ERROR_MEMORY.
int buffer_append_ref(struct buffer *buffer, struct chunk *chunk, const char *data, size_t len);
// Appends a copy, packed behind the last copy where that has room.
int buffer_append(struct buffer *buffer, const char *data, size_t len);
// Appends bytes of a chunk in the cheaper way: small pieces behind others are copied, so that a queue of many is neither
// long nor keeps their chunks.
int buffer_append_piece(struct buffer *buffer, struct chunk *chunk, const char *data, size_t len);
// Room for at least `len` (up to CHUNK_BYTES) contiguous bytes, to be filled and then taken by buffer_commit. NULL: no memory.
char *buffer_reserve(struct buffer *buffer, size_t len);
int buffer_commit(struct buffer *buffer, size_t len);
// Moves up to `most` bytes to the end of another queue. 0, or ERROR_MEMORY (then `to` has a whole prefix of it).
int buffer_move(struct buffer *to, struct buffer *from, size_t most);
// Appends references to all of `from`, which keeps its content.
int buffer_share(struct buffer *to, const struct buffer *from);
void buffer_consume(struct buffer *buffer, size_t len);
// Fills up to `most` vectors with the front of the queue; the count filled.
int buffer_iov(const struct buffer *buffer, struct iovec *iov, int most);
// The whole content copied to `out`, which has room for buffer->bytes.
void buffer_copy_out(const struct buffer *buffer, char *out);
