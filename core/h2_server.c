// SPDX-License-Identifier: Apache-2.0
// A client's HTTP/2 connection: its beginning and end, frames that go out, time. What comes in is h2_server_input.c's.
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
  CONTINUATIONS = 16,
  TICK_MOST_MS = 1000,
  TICK_LEAST_MS = 20,
  NOTICE_US = 200000, // between the two GOAWAYs: requests on their way arrive
  OFFENCE_LINES = 20  // of the log, then one a second
};

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
  queue_drop(&h2->in_job);
  queue_drop(&h2->out_job);
  queue_drop(&h2->wake_job);
  if (h2->small) chunk_release(h2->small);
  nghttp2_session_del(h2->session);
  worker_bury(h2->worker, &h2->grave, h2);
}

void h2_finish(struct h2_server *h2) {
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

void h2_offend(struct h2_server *h2) {
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

bool h2_is_over(const struct h2_server *h2) {
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
  if (result < 0 && h2->offence) { // what it did came to light when its stream was reset
    h2_offend(h2);
    return;
  }
  if (result < 0) h2->conn->failed = true;
  if (conn_flush(h2->conn) < 0) return; // heard of from the loop
  if (h2->queued == 0 && h2->small && h2->small->refs == 1) {
    chunk_release(h2->small);
    h2->small = NULL;
  }
  if (h2->congested) worker_give_way(worker, wake_streams, h2, &h2->wake_job);
  if (h2_is_over(h2))
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
void h2_tick(struct h2_server *h2) {
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
  h2_set_input(callbacks);
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
    nghttp2_mem memory = h2_mem(&h2->worker->h2_memory);
    result = nghttp2_session_server_new3(&h2->session, callbacks, h2, options, &memory);
  }
  if (callbacks) nghttp2_session_callbacks_del(callbacks);
  if (options) nghttp2_option_del(options);
  return result ? result : submit_settings(h2);
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
