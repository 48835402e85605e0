// SPDX-License-Identifier: Apache-2.0
// One transport connection. The read watcher stays registered; writes are tried at once and only then wait.
#include "conn.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tls.h"

enum { IOV_MOST = 64, FILL_LEAST = 2048 };

// ---- Operations ----------------------------------------------------------------------------------------------------

// Few connections fail, so the reason is no part of each. `what` was tried; NULL: a connection, as whoever reads the
// reason knows.
static int conn_fail(struct conn *conn, const char *what, const char *why) {
  conn->failed = true;
  if (conn->reason) return CONN_FAILED;
  size_t room = (what ? strlen(what) : 0) + strlen(why) + 3;
  conn->reason = malloc(room);
  if (conn->reason) snprintf(conn->reason, room, "%s%s%s", what ? what : "", what ? ": " : "", why);
  return CONN_FAILED;
}

const char *conn_reason(const struct conn *conn) {
  return conn->reason ? conn->reason : "the connection broke";
}

static int64_t io_failed(struct conn *conn, const char *what) {
  if (errno == EAGAIN || errno == EWOULDBLOCK) return CONN_AGAIN;
  return conn_fail(conn, what, strerror(errno));
}

static int64_t plain_read(struct conn *conn, char *data, size_t room) {
  ssize_t n;
  do n = recv(conn->fd, data, room, 0);
  while (n < 0 && errno == EINTR);
  if (n > 0) return n;
  return n == 0 ? CONN_EOF : io_failed(conn, "read");
}

static int64_t plain_write(struct conn *conn, const struct iovec *iov, int count) {
  ssize_t n;
  struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
  do
    n = count == 1 ? send(conn->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                   : sendmsg(conn->fd, &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n >= 0 ? n : io_failed(conn, "write");
}

static int64_t tls_result(struct conn *conn, int64_t n, const struct error *error) {
  if (n > 0) return n;
  switch (n) {
  case TLS_WANT_READ: return CONN_AGAIN;
  case TLS_WANT_WRITE: ev_io_start(conn->loop->ev, &conn->writer); return CONN_AGAIN;
  case TLS_EOF: return CONN_EOF;
  default: return conn_fail(conn, "TLS", error->text);
  }
}

static int64_t secure_read(struct conn *conn, char *data, size_t room) {
  struct error error = {0};
  return tls_result(conn, tls_read(conn->tls, data, room, &error), &error);
}

static int64_t secure_write(struct conn *conn, const struct iovec *iov, int count) {
  struct error error = {0};
  return tls_result(conn, tls_writev(conn->tls, iov, count, &error), &error);
}

static const struct conn_ops plain_ops = {plain_read, plain_write};
static const struct conn_ops tls_ops = {secure_read, secure_write};

// ---- Opening -----------------------------------------------------------------------------------------------------

static void conn_handshake(struct conn *conn) {
  struct error error = {0};
  int result = tls_handshake(conn->tls, &error);
  if (result == TLS_WANT_READ) return;
  if (result == TLS_WANT_CERTIFICATE) { // conn_continue_tls goes on; what the client says meanwhile has to wait
    conn_pause(conn);
    return;
  }
  if (result == TLS_WANT_WRITE) {
    ev_io_start(conn->loop->ev, &conn->writer);
    return;
  }
  conn->handshaking = false;
  if (result < 0) {
    conn_fail(conn, "TLS handshake", error.text);
    conn->on_read(conn);
    return;
  }
  conn->on_write(conn);
  // Bytes that came with the end of the handshake lie in the TLS layer: no event will tell of them.
  if (!conn->closed && conn->reading && tls_pending(conn->tls)) conn->on_read(conn);
}

static void conn_on_reader(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev;
  (void)events;
  struct conn *conn = watcher->data;
  if (conn->handshaking) {
    conn_handshake(conn);
    return;
  }
  conn->on_read(conn);
  while (!conn->closed && conn->tls && conn->reading && !conn->failed && !conn->eof && tls_pending(conn->tls))
    conn->on_read(conn);
}

static void conn_established(struct conn *conn) {
  int cause = 0;
  socklen_t len = sizeof cause;
  getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &cause, &len);
  ev_io_stop(conn->loop->ev, &conn->writer);
  conn->connecting = false;
  if (cause) {
    conn_fail(conn, NULL, strerror(cause));
    conn->on_read(conn);
    return;
  }
  conn_resume(conn);
  conn->on_write(conn);
}

static void conn_on_writer(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)events;
  struct conn *conn = watcher->data;
  if (conn->connecting) {
    conn_established(conn);
    return;
  }
  ev_io_stop(ev, watcher);
  if (conn->handshaking) {
    conn_handshake(conn);
    return;
  }
  bool was_congested = conn->out.bytes > CONN_LOW_WATER;
  if (conn_flush(conn) < 0) return;
  if (conn->out.bytes == 0 || (was_congested && conn->out.bytes <= CONN_LOW_WATER)) conn->on_write(conn);
}

static void conn_on_timer(struct timer *timer) {
  struct conn *conn = (struct conn *)((char *)timer - offsetof(struct conn, timer));
  if (conn->deadline_us == 0 || conn->closed) return;
  if (conn->deadline_us > conn->loop->clock.mono_us) {
    timer_set(&conn->loop->timers, timer, conn->deadline_us);
    return;
  }
  conn->deadline_us = 0;
  conn->on_deadline(conn);
}

void conn_init(struct conn *conn, struct loop *loop, struct chunk_pool *pool, int fd) {
  void (*on_read)(struct conn *) = conn->on_read;
  void (*on_write)(struct conn *) = conn->on_write;
  void (*on_deadline)(struct conn *) = conn->on_deadline;
  *conn = (struct conn){.loop = loop, .ops = &plain_ops, .pool = pool, .fd = fd};
  conn->on_read = on_read;
  conn->on_write = on_write;
  conn->on_deadline = on_deadline;
  buffer_init(&conn->out, pool);
  timer_init(&conn->timer, conn_on_timer);
  ev_io_init(&conn->reader, conn_on_reader, fd, EV_READ);
  ev_io_init(&conn->writer, conn_on_writer, fd, EV_WRITE);
  conn->reader.data = conn->writer.data = conn;
}

int conn_connect(struct conn *conn, struct loop *loop, struct chunk_pool *pool, const struct sockaddr *address,
                 socklen_t len, struct error *error) {
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return error_system(error, "socket");
  if (address->sa_family != AF_UNIX) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (connect(fd, address, len) < 0 && errno != EINPROGRESS) {
    error_set(error, ERROR_CLOSED, "%s", strerror(errno));
    close(fd);
    return ERROR_CLOSED;
  }
  conn_init(conn, loop, pool, fd);
  conn->connecting = true;
  ev_io_start(loop->ev, &conn->writer);
  return 0;
}

void conn_start_tls(struct conn *conn, struct tls *tls) {
  conn->tls = tls;
  conn->ops = &tls_ops;
  conn->handshaking = true;
  conn_resume(conn);
}

void conn_continue_tls(struct conn *conn) {
  if (!conn->handshaking || conn->closed) return;
  conn_resume(conn);
  conn_handshake(conn);
}

// ---- Reading -------------------------------------------------------------------------------------------------------

static int conn_replace_input(struct conn *conn) {
  struct chunk *chunk = chunk_take(conn->pool);
  if (!chunk) return ERROR_MEMORY;
  uint32_t unread = conn->in_end - conn->in_start;
  if (conn->in) {
    memcpy(chunk->data, conn->in->data + conn->in_start, unread);
    chunk_release(conn->in);
  }
  conn->in = chunk;
  conn->in_start = 0;
  conn->in_end = unread;
  return 0;
}

int conn_make_room(struct conn *conn, uint32_t room) {
  if (conn->in && conn->in_start == conn->in_end && conn->in->refs == 1) conn->in_start = conn->in_end = 0;
  if (conn->in && CHUNK_BYTES - conn->in_end >= room) return 0;
  if (conn_replace_input(conn) < 0) return ERROR_MEMORY;
  return CHUNK_BYTES - conn->in_end >= room ? 0 : ERROR_MEMORY;
}

int conn_make_span(struct conn *conn, uint32_t room) {
  if (conn->in && CHUNK_BYTES - conn->in_start >= room) return 0;
  return conn_replace_input(conn);
}

int64_t conn_fill(struct conn *conn) {
  if (conn->failed && !conn->unwritable) return CONN_FAILED;
  if (conn->eof) return CONN_EOF;
  if (conn_make_room(conn, FILL_LEAST) < 0) {
    // No room behind unread bytes: the owner has to take some first. No memory at all: a failure.
    if (conn->in) return CONN_AGAIN;
    return conn_fail(conn, "read", "no memory");
  }
  int64_t n = conn->ops->read(conn, conn->in->data + conn->in_end, CHUNK_BYTES - conn->in_end);
  if (n > 0) {
    conn->in_end += (uint32_t)n;
    conn->in->used = conn->in_end;
  } else if (n == CONN_EOF) {
    conn->eof = true;
  }
  return n == CONN_AGAIN && conn->unwritable ? CONN_FAILED : n; // the peer has gone: nothing comes after that
}

void conn_consume(struct conn *conn, uint32_t len) {
  assert(len <= conn->in_end - conn->in_start);
  conn->in_start += len;
}

void conn_release_input(struct conn *conn) {
  if (!conn->in || conn->in_start < conn->in_end) return;
  chunk_release(conn->in);
  conn->in = NULL;
  conn->in_start = conn->in_end = 0;
}

void conn_pause(struct conn *conn) {
  if (!conn->reading) return;
  conn->reading = false;
  ev_io_stop(conn->loop->ev, &conn->reader);
}

void conn_resume(struct conn *conn) {
  if (conn->reading || conn->closed) return;
  conn->reading = true;
  ev_io_start(conn->loop->ev, &conn->reader);
  // Decrypted bytes that wait in the TLS layer wake nobody: ask for one more turn.
  if (conn->tls && !conn->handshaking && tls_pending(conn->tls)) ev_feed_event(conn->loop->ev, &conn->reader, EV_READ);
}

// ---- Writing -------------------------------------------------------------------------------------------------------

// Whoever flushes may be in the middle of something: the owner hears of a failure from the loop. What the peer had sent
// before it left can still be read.
static int flush_failed(struct conn *conn) {
  conn->failed = conn->unwritable = true;
  if (!conn->closed) ev_feed_event(conn->loop->ev, &conn->reader, EV_READ);
  return CONN_FAILED;
}

int conn_flush(struct conn *conn) {
  if (conn->failed || conn->closed) return flush_failed(conn);
  if (conn->connecting || conn->handshaking) return 0;
  struct iovec iov[IOV_MOST];
  while (conn->out.bytes > 0) {
    int count = buffer_iov(&conn->out, iov, IOV_MOST);
    size_t offered = 0;
    for (int i = 0; i < count; i++) offered += iov[i].iov_len;
    int64_t n = conn->ops->write(conn, iov, count);
    if (n == CONN_FAILED || n == CONN_EOF) return flush_failed(conn);
    if (n > 0) {
      buffer_consume(&conn->out, (size_t)n);
      conn->written += (uint64_t)n;
    }
    if (n < 0 || (!conn->tls && (size_t)n < offered)) {
      ev_io_start(conn->loop->ev, &conn->writer);
      return 0;
    }
  }
  if (conn->frugal) buffer_clear(&conn->out);
  return 0;
}

int64_t conn_delivered(const struct conn *conn) {
  int queued = 0;
  if (ioctl(conn->fd, SIOCOUTQ, &queued) < 0) queued = 0;
  return (int64_t)conn->written - queued;
}

void conn_finish(struct conn *conn) {
  if (conn->closed || conn->failed) return;
  if (conn->tls) tls_shutdown(conn->tls);
  shutdown(conn->fd, SHUT_WR);
}

void conn_deadline(struct conn *conn, int64_t at_us) {
  conn->deadline_us = at_us;
  if (at_us == 0) return;
  if (conn->timer.slot < 0 || conn->timer.at_us > at_us) timer_set(&conn->loop->timers, &conn->timer, at_us);
}

void conn_close(struct conn *conn) {
  if (conn->closed) return;
  conn->closed = true;
  conn->reading = false;
  ev_io_stop(conn->loop->ev, &conn->reader);
  ev_io_stop(conn->loop->ev, &conn->writer);
  timer_cancel(&conn->loop->timers, &conn->timer);
  if (conn->tls) {
    if (!conn->failed && !conn->handshaking) tls_shutdown(conn->tls);
    tls_free(conn->tls);
    conn->tls = NULL;
  }
  if (conn->in) chunk_release(conn->in);
  conn->in = NULL;
  conn->in_start = conn->in_end = 0;
  buffer_clear(&conn->out);
  free(conn->reason);
  conn->reason = NULL;
  if (conn->fd >= 0) close(conn->fd);
  conn->fd = -1;
}
