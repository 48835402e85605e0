// SPDX-License-Identifier: Apache-2.0
// One transport connection, downstream or upstream, plain or TLS: reads into a chunk, writes a queue, one deadline.
// It is embedded in what it serves (server, upstream connection, client socket), which it tells through three callbacks.
//
//   socket ──> in: chunk [start..end) ──> owner          owner ──> out: queue of segments ──> socket
#pragma once
#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "buffer.h"
#include "error.h"
#include "loop.h"
#include "slice.h"

struct tls;
struct tls_context;
struct conn;

enum conn_io { CONN_AGAIN = -1, CONN_EOF = -2, CONN_FAILED = -3 };

// How bytes pass: one table for plain sockets, one for TLS. Reads and writes answer bytes or enum conn_io.
struct conn_ops {
  int64_t (*read)(struct conn *conn, char *data, size_t room);
  int64_t (*write)(struct conn *conn, const struct iovec *iov, int count);
};

struct conn {
  struct loop *loop;
  const struct conn_ops *ops;
  struct tls *tls; // NULL: plain
  struct chunk_pool *pool;
  ev_io reader, writer;
  int fd;
  uint32_t in_start, in_end; // unread bytes of `in`
  struct chunk *in;          // NULL while idle
  struct buffer out;
  uint64_t written;    // bytes of `out` that the socket has taken so far
  struct timer timer;  // follows `deadline_us` lazily: moving the deadline later costs nothing
  int64_t deadline_us; // 0: none
  bool connecting, handshaking, eof, reading, closed;
  bool failed;     // of no more use; see conn_reason
  bool frugal;     // nothing may happen on it for long: what holds no bytes is given back at once
  bool unwritable; // failed in writing: what had come before that can be read
  char *reason;    // why `failed`
  // Bytes may have come (or the end, or a failure: see conn_fill). Also called when a connect or handshake failed.
  void (*on_read)(struct conn *conn);
  // `out` went below the low watermark, or the connection is established and ready for use.
  void (*on_write)(struct conn *conn);
  void (*on_deadline)(struct conn *conn);
};

enum { CONN_HIGH_WATER = 256 * 1024, CONN_LOW_WATER = 64 * 1024 };

// Takes over `fd` (non-blocking). Watches for reading at once, unless connecting.
void conn_init(struct conn *conn, struct loop *loop, struct chunk_pool *pool, int fd);
// A new socket on its way to `address`; on_write when established, on_read when it failed. 0, or ERROR_*.
int conn_connect(struct conn *conn, struct loop *loop, struct chunk_pool *pool, const struct sockaddr *address,
                 socklen_t len, struct error *error);
// Speaks TLS from here on (takes over `tls`); the handshake runs by itself, on_write tells when it is done.
void conn_start_tls(struct conn *conn, struct tls *tls);
// Goes on with a handshake that waited for a certificate.
void conn_continue_tls(struct conn *conn);

// Reads once into `in`. Bytes read, or enum conn_io. Never blocks.
int64_t conn_fill(struct conn *conn);
// Makes sure that `in` has at least `room` bytes behind what is unread, moving the unread bytes to a new chunk if needed.
int conn_make_room(struct conn *conn, uint32_t room);
// Makes sure that `room` bytes from the first unread one on lie, or will lie, in one piece.
int conn_make_span(struct conn *conn, uint32_t room);
// Forgets the first `len` unread bytes; an emptied chunk is given back by conn_release_input.
void conn_consume(struct conn *conn, uint32_t len);
void conn_release_input(struct conn *conn);
void conn_pause(struct conn *conn);
void conn_resume(struct conn *conn);

// Why the connection failed; until conn_close.
const char *conn_reason(const struct conn *conn);
// Writes what it can of `out`; the rest goes by itself as the socket takes it. 0, or CONN_FAILED.
int conn_flush(struct conn *conn);
// A measure of what the peer has taken, to be compared with an earlier one: the socket alone tells of progress only
// after a third of its buffer.
int64_t conn_delivered(const struct conn *conn);
// No more will be written; reading goes on. `out` must be empty.
void conn_finish(struct conn *conn);
void conn_deadline(struct conn *conn, int64_t at_us); // 0: none
// Sends close_notify where TLS, closes the socket, frees buffers. The struct remains the owner's.
void conn_close(struct conn *conn);

static inline struct slice conn_input(const struct conn *conn) {
  return (struct slice){conn->in ? conn->in->data + conn->in_start : NULL, conn->in_end - conn->in_start};
}
static inline bool conn_is_congested(const struct conn *conn) {
  return conn->out.bytes > CONN_HIGH_WATER;
}
