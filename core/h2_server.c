// SPDX-License-Identifier: Apache-2.0
// A client's HTTP/2 connection: bytes in, streams, frames out, time and what is too much.
//
//   conn.in ──nghttp2──> callbacks ──> streams ──> exchanges      (a bounded share of it each turn)
//   exchanges ──> streams' queues ──nghttp2──> conn.out           (once each turn, in one write)
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "exchange.h"
#include "h2_server_parts.h"
#include "worker.h"

enum {
  FEED_BYTES = 1024, // given to nghttp2 at once, so that a turn's share can end
  REQUESTS_A_TURN = 64,
  BOMB_FACTOR = 16, // a header list so many times larger than allowed is meant to hurt
  CONTINUATIONS = 16,
  TICK_MOST_MS = 1000,
  TICK_LEAST_MS = 20,
  NOTICE_US = 200000, // between the two GOAWAYs: requests on their way arrive
  OFFENCE_LINES = 20  // of the log, then one a second
};

static void h2_on_write(struct conn *conn);

static struct h2_server *h2_of(struct conn *conn) {
  return ((struct server *)(void *)((char *)conn - offsetof(struct server, conn)))->h2;
}

static int64_t now_of(const struct h2_server *h2) {
  return h2->worker->loop.clock.mono_us;
}

// ---- The end ---------------------------------------------------------------------------------------------------------

static void end_streams(struct h2_server *h2) {
  while (h2->streams) h2_stream_free(h2->streams);
}

void h2_server_close(struct h2_server *h2) {
  assert(!h2->inside);
  end_streams(h2);
  worker_cancel(h2->worker, &h2->in_job);
  worker_cancel(h2->worker, &h2->out_job);
  worker_cancel(h2->worker, &h2->wake_job);
  if (h2->small) chunk_release(h2->small);
  nghttp2_session_del(h2->session);
  worker_bury(h2->worker, &h2->grave, h2);
}

// What is ready goes, then nothing more.
static void h2_finish(struct h2_server *h2) {
  if (h2->server->closing) return;
  end_streams(h2);
  h2_write(h2->session, h2->conn);
  conn_flush(h2->conn);
  server_close_after_write(h2->server);
}

static void tell_offence(struct h2_server *h2) {
  struct worker *worker = h2->worker;
  struct h2_bucket *lines = &worker->offence_lines;
  if (lines->most == 0) h2_bucket_init(lines, OFFENCE_LINES, 1, now_of(h2));
  if (!h2_bucket_spend(lines, 1, now_of(h2))) {
    worker->offences_untold++;
    return;
  }
  char untold[16];
  snprintf(untold, sizeof untold, "%u", worker->offences_untold);
  worker->offences_untold = 0;
  log_warn(&worker->log, "an HTTP/2 connection is closed", "cause", h2->offence, "client",
           h2->server->stream.peer.client_ip, "others_since", untold);
}

static void h2_offend(struct h2_server *h2) {
  tell_offence(h2);
  nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
  h2_finish(h2);
}

// ---- Output ----------------------------------------------------------------------------------------------------------

static void wake_streams(struct worker *worker, void *data) {
  (void)worker;
  struct h2_server *h2 = data;
  h2->congested = false;
  for (struct h2_stream *stream = h2->streams, *next; stream; stream = next) {
    next = stream->next;
    if (!stream->congested) continue;
    stream->congested = h2_stream_is_congested(stream);
    h2->congested |= stream->congested;
    if (!stream->congested && stream->exchange) exchange_on_drained(stream->exchange);
  }
}

static bool is_over(const struct h2_server *h2) {
  if (!nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session)) return true;
  return h2->state == H2_LEAVING && h2->stream_count == 0 && !nghttp2_session_want_write(h2->session);
}

// Frames that are ready become bytes, and those go in one write. What the socket does not take, it takes later.
static void h2_output(struct worker *worker, void *data) {
  struct h2_server *h2 = data;
  if (h2->server->closing) return; // finished since it was asked for
  h2->inside = true;
  int result = h2_write(h2->session, h2->conn);
  h2->inside = false;
  if (result < 0) h2->conn->failed = true;
  if (conn_flush(h2->conn) < 0) return; // heard of from the loop
  if (h2->queued == 0 && h2->small && h2->small->refs == 1) {
    chunk_release(h2->small);
    h2->small = NULL;
  }
  if (h2->congested) worker_give_way(worker, wake_streams, h2, &h2->wake_job);
  if (is_over(h2))
    h2_finish(h2);
  else if (h2->conn->out.bytes == 0 && nghttp2_session_want_write(h2->session))
    worker_give_way(worker, h2_output, h2, &h2->out_job);
}

void h2_wake(struct h2_server *h2) {
  worker_write_later(h2->worker, h2_output, h2, &h2->out_job);
}

static int on_data_frame(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t len,
                         nghttp2_data_source *source, void *data) {
  (void)session, (void)frame;
  struct h2_server *h2 = data;
  struct h2_stream *stream = source->ptr;
  int result = h2_write_data(h2->conn, head, &stream->out, len);
  if (result != 0) return result;
  h2->queued -= len;
  stream->sent_us = h2->progress_us = now_of(h2);
  h2_bucket_earn(&h2->calm, H2_EARNED_DATA);
  return 0;
}

// The response is whole before the request: the client need not send the rest (RFC 9113 8.1).
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  (void)data;
  bool content = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
  if (!content || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
  if (nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
  return 0;
}

// A head that could not be written leaves nothing to wait for.
static int on_frame_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error, void *data) {
  (void)data, (void)error;
  if (frame->hd.type == NGHTTP2_HEADERS && nghttp2_session_find_stream(session, frame->hd.stream_id))
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
  return 0;
}

// ---- Frames that come --------------------------------------------------------------------------------------------------

static int offence(struct h2_server *h2, const char *what) {
  h2->offence = what;
  return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static const char cancelled[] = "requests are cancelled as fast as they come";

static const char *flood_name(uint8_t type) {
  static const char *const names[] = {
      [NGHTTP2_DATA] = "a flood of empty DATA",
      [NGHTTP2_HEADERS] = "a flood of empty HEADERS",
      [NGHTTP2_PRIORITY] = "a flood of PRIORITY",
      [NGHTTP2_RST_STREAM] = cancelled,
      [NGHTTP2_SETTINGS] = "a flood of SETTINGS",
      [NGHTTP2_PUSH_PROMISE] = "a flood of PUSH_PROMISE",
      [NGHTTP2_PING] = "a flood of PING",
      [NGHTTP2_GOAWAY] = "a flood of GOAWAY",
      [NGHTTP2_WINDOW_UPDATE] = "a flood of WINDOW_UPDATE",
      [NGHTTP2_CONTINUATION] = "a flood of CONTINUATION",
  };
  return type < sizeof names / sizeof *names ? names[type] : "a flood of unknown frames";
}

// A stream that was left out is closed for good (RFC 9113 5.1.1), which nghttp2 does not notice.
static bool is_skipped(struct h2_server *h2, int32_t id) {
  if (id <= h2->last_id) return id >= h2->skipped_from && id < h2->skipped_to;
  if (id > h2->last_id + 2) {
    h2->skipped_from = h2->last_id + 1;
    h2->skipped_to = id;
  }
  h2->last_id = id;
  return false;
}

static bool on_frame_head(struct h2_server *h2) {
  const uint8_t *head = h2->frame_head;
  uint32_t length = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
  int32_t id = (int32_t)((uint32_t)(head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8]);
  uint8_t type = head[3];
  h2->frame_left = length;
  h2->frame_have = 0;
  if (type == NGHTTP2_HEADERS && is_skipped(h2, id)) return false;
  if (h2_bucket_spend(&h2->calm, h2_frame_cost(type, head[4], length), now_of(h2))) return true;
  h2->offence = flood_name(type);
  return false;
}

// Looks at the heads of all frames, before nghttp2 does: it tells of none that it ignores. False: too much.
static bool scan(struct h2_server *h2, const uint8_t *data, uint32_t len) {
  while (len > 0) {
    bool inside = h2->frame_left > 0;
    uint32_t wanted = inside ? h2->frame_left : (uint32_t)H2_FRAME_HEAD - h2->frame_have;
    uint32_t piece = wanted < len ? wanted : len;
    if (inside) {
      h2->frame_left -= piece;
    } else {
      memcpy(h2->frame_head + h2->frame_have, data, piece);
      h2->frame_have = (uint8_t)(h2->frame_have + piece);
      if (h2->frame_have == H2_FRAME_HEAD && !on_frame_head(h2)) return false;
    }
    data += piece;
    len -= piece;
  }
  return true;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *data) {
  (void)session;
  struct h2_server *h2 = data;
  if (head->type == NGHTTP2_HEADERS) h2->block_bytes = 0;
  h2->block_bytes += (uint32_t)head->length;
  return 0;
}

static int on_begin_head(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  struct h2_server *h2 = data;
  int32_t id = frame->hd.stream_id;
  h2->head_us = now_of(h2);
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
    h2->current = nghttp2_session_get_stream_user_data(session, id);
    if (h2->current) h2_stream_begin(h2->current); // these are its trailers
    return 0;
  }
  struct h2_stream *stream = h2_stream_new(h2, id);
  if (!stream) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  h2->current = stream;
  if (h2->turn_left > 0) h2->turn_left--;
  nghttp2_session_set_stream_user_data(session, id, stream);
  return 0;
}

static int on_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                    const uint8_t *value, size_t value_len, uint8_t flags, void *data) {
  (void)session, (void)flags;
  struct h2_server *h2 = data;
  struct h2_stream *stream = h2->current;
  if (!stream || stream->id != frame->hd.stream_id) return 0;
  h2_stream_on_field(stream, (struct slice){(const char *)name, (uint32_t)name_len},
                     (struct slice){(const char *)value, (uint32_t)value_len});
  uint64_t most = (uint64_t)worker_limits(h2->worker)->max_head_bytes * BOMB_FACTOR;
  return stream->head_bytes > most ? offence(h2, "a header list that never ends") : 0;
}

// nghttp2 would only leave the field out.
static int on_invalid_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                            const uint8_t *value, size_t value_len, uint8_t flags, void *data) {
  (void)session, (void)name, (void)name_len, (void)value, (void)value_len, (void)flags;
  struct h2_server *h2 = data;
  if (h2->current && h2->current->id == frame->hd.stream_id) h2->current->malformed = true;
  return 0;
}

static int on_head(struct h2_server *h2, const nghttp2_frame *frame) {
  struct h2_stream *stream = h2->current;
  bool last = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  h2->current = NULL;
  h2->head_us = 0;
  if (!stream || stream->id != frame->hd.stream_id) return 0;
  if (stream->malformed) {
    nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_PROTOCOL_ERROR);
    bool patient = h2_bucket_spend(&h2->calm, H2_COST_LARGE, now_of(h2));
    return patient ? 0 : offence(h2, "a flood of malformed requests");
  }
  if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
    h2_stream_on_head(stream, last);
  else if (last)
    h2_stream_on_request_end(stream);
  return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
  struct h2_server *h2 = data;
  if (frame->hd.type == NGHTTP2_HEADERS) return on_head(h2, frame);
  if (frame->hd.type == NGHTTP2_SETTINGS) h2->greeted = true;
  if (frame->hd.type != NGHTTP2_DATA || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
  struct h2_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (stream) h2_stream_on_request_end(stream);
  return 0;
}

static int on_content(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *content, size_t len,
                      void *data) {
  (void)flags;
  struct h2_server *h2 = data;
  struct h2_stream *stream = nghttp2_session_get_stream_user_data(session, id);
  h2_bucket_earn(&h2->calm, H2_COST_DATA);
  if (stream)
    h2_stream_on_content(stream, h2->conn->in, (struct slice){(const char *)content, (uint32_t)len});
  else
    nghttp2_session_consume(session, id, len);
  return 0;
}

// Before its time: by the client, or because of what the client did.
static bool tolerates_reset(struct h2_server *h2, const struct h2_stream *stream, uint32_t code) {
  if (!stream->exchange || code == NGHTTP2_NO_ERROR) return true;
  if (stream->exchange->state == EXCHANGE_HEAD) // it had not begun
    return h2_bucket_spend(&h2->calm, H2_COST_LARGE, now_of(h2));
  if (now_of(h2) - stream->began_us > H2_RAPID_US) return true;
  return h2_bucket_spend(&h2->resets, 1, now_of(h2));
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *data) {
  struct h2_server *h2 = data;
  struct h2_stream *stream = nghttp2_session_get_stream_user_data(session, id);
  if (!stream) return 0;
  bool tolerated = tolerates_reset(h2, stream, code);
  if (stream->unused) nghttp2_session_consume_connection(session, stream->unused);
  nghttp2_session_set_stream_user_data(session, id, NULL);
  h2_stream_free(stream);
  if (h2->stream_count == 0) h2->idle_us = now_of(h2);
  return tolerated ? 0 : offence(h2, cancelled);
}

// ---- Input -----------------------------------------------------------------------------------------------------------

static void h2_input(struct worker *worker, void *data);

void h2_touch(struct h2_stream *stream) {
  struct h2_server *h2 = stream->h2;
  if (stream->touched) return;
  stream->touched = true;
  stream->next_touched = NULL;
  *h2->touched_end = stream;
  h2->touched_end = &stream->next_touched;
  if (!h2->inside) worker_later_call(h2->worker, h2_input, h2, &h2->in_job);
}

static void settle_streams(struct h2_server *h2) {
  while (h2->touched) {
    struct h2_stream *stream = h2->touched;
    h2->touched = stream->next_touched;
    if (!h2->touched) h2->touched_end = &h2->touched;
    stream->touched = false;
    h2_stream_settle(stream);
  }
}

static const char *failure(int code) {
  return code == NGHTTP2_ERR_FLOODED                  ? "a flood of frames that want an answer"
         : code == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS ? "a flood of CONTINUATION"
                                                      : NULL;
}

// A piece of the input; false: the connection is at its end.
static bool h2_feed(struct h2_server *h2) {
  struct slice input = conn_input(h2->conn);
  uint32_t len = h2->frame_left > FEED_BYTES ? h2->frame_left : FEED_BYTES;
  if (len > input.len) len = input.len;
  ssize_t used = NGHTTP2_ERR_PROTO;
  h2->inside = true;
  if (scan(h2, (const uint8_t *)input.data, len))
    used = nghttp2_session_mem_recv(h2->session, (const uint8_t *)input.data, len);
  h2->inside = false;
  conn_consume(h2->conn, len);
  if (used >= 0) return true;
  if (!h2->offence) h2->offence = failure((int)used);
  if (h2->offence) {
    h2_offend(h2);
    return false;
  }
  // It does not speak HTTP/2, or there is no memory for it.
  nghttp2_session_terminate_session(h2->session,
                                    used == NGHTTP2_ERR_NOMEM ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_PROTOCOL_ERROR);
  h2_finish(h2);
  return false;
}

static void h2_tick(struct h2_server *h2);

// Uses up the input that is there, as far as this turn's share goes. Who does not read what it is sent has to wait.
static void h2_input(struct worker *worker, void *data) {
  struct h2_server *h2 = data;
  h2->turn_left = REQUESTS_A_TURN;
  bool waits = false;
  while (conn_input(h2->conn).len > 0 && !waits) {
    if (!h2_feed(h2)) return;
    waits = conn_is_congested(h2->conn);
    if (h2->turn_left > 0 || conn_input(h2->conn).len == 0) continue;
    worker_give_way(worker, h2_input, h2, &h2->in_job);
    waits = true;
  }
  settle_streams(h2);
  conn_release_input(h2->conn);
  if (waits)
    conn_pause(h2->conn);
  else
    conn_resume(h2->conn);
  if (worker->draining && h2->state == H2_OPEN) h2_server_retire(h2);
  h2_tick(h2);
  if (nghttp2_session_want_write(h2->session) || is_over(h2)) h2_wake(h2);
}

static void h2_on_read(struct conn *conn) {
  struct h2_server *h2 = h2_of(conn);
  int64_t n = conn->failed ? CONN_FAILED : conn_fill(conn);
  if (n > 0)
    h2_input(h2->worker, h2);
  else if (n != CONN_AGAIN)
    server_close(h2->server);
}

static void h2_on_write(struct conn *conn) {
  struct h2_server *h2 = h2_of(conn);
  h2_wake(h2);
  if (conn_input(conn).len > 0 || !conn->reading) worker_later_call(h2->worker, h2_input, h2, &h2->in_job);
}

// ---- Time ------------------------------------------------------------------------------------------------------------

static bool is_idle(const struct h2_server *h2) {
  return h2->greeted && h2->stream_count == 0 && h2->head_us == 0 && h2->conn->out.bytes == 0 && h2->state == H2_OPEN;
}

static int64_t least_ms(int64_t a, int64_t b) {
  return a <= 0 || (b > 0 && b < a) ? b : a;
}

// How often a busy connection is looked at: often enough for its shortest limit.
static int64_t tick_us(const struct limits *limits) {
  int64_t ms = least_ms(least_ms(limits->header_timeout_ms, limits->body_timeout_ms), limits->send_timeout_ms) / 4;
  if (ms < TICK_LEAST_MS) ms = TICK_LEAST_MS;
  return (ms < TICK_MOST_MS ? ms : TICK_MOST_MS) * 1000;
}

// A look that is due is never put off: a client that sends a little now and then would never be looked at.
static void h2_tick(struct h2_server *h2) {
  const struct limits *limits = worker_limits(h2->worker);
  int64_t due = h2->conn->deadline_us, at = now_of(h2) + tick_us(limits);
  if (is_idle(h2)) at = limits->keepalive_timeout_ms > 0 ? h2->idle_us + limits->keepalive_timeout_ms * 1000 : 0;
  if (due <= now_of(h2) || at < due) conn_deadline(h2->conn, at);
}

static bool is_past(int64_t since_us, int64_t limit_ms, int64_t now_us) {
  return since_us > 0 && limit_ms > 0 && now_us - since_us >= limit_ms * 1000;
}

// The client owes content that somebody waits for. Once the response has begun it may be as silent as it likes: in a
// call that streams both ways, that is how a client waits.
static bool owes_content(const struct h2_stream *stream) {
  const struct exchange *exchange = stream->exchange;
  return exchange && stream->request_open && stream->want_body && stream->unused == 0 && !stream->tunnel_asked &&
         exchange->state != EXCHANGE_HEAD && !exchange->head_sent && !exchange_is_grpc(exchange);
}

static bool owes_room(const struct h2_stream *stream) {
  return stream->out.bytes > 0 || (stream->ended && !stream->head_pending);
}

static void check_stream(struct h2_stream *stream, const struct limits *limits, int64_t now) {
  struct h2_server *h2 = stream->h2;
  if (owes_content(stream) && is_past(stream->content_us, limits->body_timeout_ms, now))
    exchange_on_late_body(stream->exchange);
  else if (owes_room(stream) && is_past(stream->sent_us, limits->send_timeout_ms, now))
    nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
}

// Whether the socket has taken nothing for too long.
static bool is_stuck(struct h2_server *h2, const struct limits *limits, int64_t now) {
  int64_t before = h2->delivered;
  h2->delivered = conn_delivered(h2->conn);
  if (h2->conn->out.bytes == 0)
    h2->stuck_us = 0;
  else if (h2->stuck_us == 0 || h2->delivered != before)
    h2->stuck_us = now;
  return is_past(h2->stuck_us, limits->send_timeout_ms, now);
}

// Whether the client has opened no window for too long, on no stream.
static bool is_stalled(const struct h2_server *h2, const struct limits *limits, int64_t now) {
  return h2->queued > 0 && h2->conn->out.bytes == 0 && is_past(h2->progress_us, limits->send_timeout_ms, now);
}

static void check_streams(struct h2_server *h2, const struct limits *limits, int64_t now) {
  for (struct h2_stream *stream = h2->streams, *next; stream; stream = next) {
    next = stream->next;
    check_stream(stream, limits, now);
  }
  if (nghttp2_session_want_write(h2->session)) h2_wake(h2);
}

static void h2_leave(struct h2_server *h2) {
  h2->state = H2_LEAVING;
  nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                        NGHTTP2_NO_ERROR, NULL, 0);
  h2_wake(h2);
}

static void h2_on_deadline(struct conn *conn) {
  struct h2_server *h2 = h2_of(conn);
  const struct limits *limits = worker_limits(h2->worker);
  int64_t now = now_of(h2);
  if ((!h2->greeted && is_past(h2->idle_us, limits->header_timeout_ms, now)) ||
      is_past(h2->head_us, limits->header_timeout_ms, now) || is_stuck(h2, limits, now)) {
    server_close(h2->server);
    return;
  }
  if (is_idle(h2) && is_past(h2->idle_us, limits->keepalive_timeout_ms, now)) {
    h2_leave(h2);
  } else if (is_stalled(h2, limits, now)) {
    h2->offence = "windows that stay shut";
    h2_offend(h2);
    return;
  } else {
    check_streams(h2, limits, now);
  }
  if (h2->state == H2_NOTICED) h2_server_retire(h2);
  h2_tick(h2);
}

void h2_server_retire(struct h2_server *h2) {
  if (h2->state == H2_OPEN) {
    h2->state = H2_NOTICED;
    h2->noticed_us = now_of(h2);
    nghttp2_submit_shutdown_notice(h2->session);
    h2_wake(h2);
    h2_tick(h2);
  } else if (h2->state == H2_NOTICED && now_of(h2) - h2->noticed_us >= NOTICE_US) {
    h2_leave(h2);
  }
}

// ---- The beginning ---------------------------------------------------------------------------------------------------

int h2_server_preface(struct slice input) {
  static const char preface[] = NGHTTP2_CLIENT_MAGIC;
  uint32_t len = input.len < NGHTTP2_CLIENT_MAGIC_LEN ? input.len : NGHTTP2_CLIENT_MAGIC_LEN;
  if (memcmp(input.data, preface, len) != 0) return 0;
  return len == NGHTTP2_CLIENT_MAGIC_LEN ? 1 : -1;
}

static nghttp2_session_callbacks *make_callbacks(void) {
  nghttp2_session_callbacks *callbacks;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) return NULL;
  nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_head);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_field);
  nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_field);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_content);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, on_data_frame);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
  nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_sent);
  return callbacks;
}

static int submit_settings(struct h2_server *h2) {
  const struct limits *limits = worker_limits(h2->worker);
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits->max_streams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits->max_head_bytes},
      {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}, // RFC 8441
  };
  int result = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings);
  return result ? result
                : nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW);
}

static int open_session(struct h2_server *h2) {
  nghttp2_session_callbacks *callbacks = make_callbacks();
  nghttp2_option *options = h2_options();
  int result = NGHTTP2_ERR_NOMEM;
  if (callbacks && options) {
    nghttp2_option_set_max_continuations(options, CONTINUATIONS);
    nghttp2_option_set_stream_reset_rate_limit(options, UINT64_MAX, UINT64_MAX); // we know better which ones matter
    result = nghttp2_session_server_new2(&h2->session, callbacks, h2, options);
  }
  if (callbacks) nghttp2_session_callbacks_del(callbacks);
  if (options) nghttp2_option_del(options);
  return result ? result : submit_settings(h2);
}

void h2_server_start(struct server *server) {
  struct worker *worker = server->stream.worker;
  struct h2_server *h2 = calloc(1, sizeof *h2);
  if (!h2) {
    server_close(server);
    return;
  }
  h2->server = server;
  h2->worker = worker;
  h2->conn = &server->conn;
  h2->touched_end = &h2->touched;
  h2->frame_left = NGHTTP2_CLIENT_MAGIC_LEN;
  h2->idle_us = now_of(h2);
  h2_bucket_init(&h2->calm, H2_CALM_MOST, H2_CALM_A_SECOND, now_of(h2));
  h2_bucket_init(&h2->resets, H2_RESETS_MOST, H2_RESETS_A_SECOND, now_of(h2));
  if (open_session(h2) != 0) {
    nghttp2_session_del(h2->session);
    free(h2);
    server_close(server);
    return;
  }
  server->h2 = h2;
  server->conn.on_read = h2_on_read;
  server->conn.on_write = h2_on_write;
  server->conn.on_deadline = h2_on_deadline;
  h2_input(worker, h2);
}
