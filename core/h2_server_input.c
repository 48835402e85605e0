// SPDX-License-Identifier: Apache-2.0
// What a client sends over HTTP/2: each frame's head is looked at and paid for, then nghttp2 reads it and tells of what
// is in it.
//
//   conn.in ──1 KB at a time──> scan ──> nghttp2 ──callbacks──> streams ──when all is read──> exchanges
#include "exchange.h"
#include "h2_server_parts.h"
#include "worker.h"

enum {
  FEED_BYTES = 1024, // given to nghttp2 at once, so that a turn's share can end
  REQUESTS_A_TURN = 64,
  BOMB_FACTOR = 16 // a header list so many times larger than allowed is meant to hurt
};

static int64_t now_of(const struct h2_server *h2) {
  return h2->worker->loop.clock.mono_us;
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
      [NGHTTP2_HEADERS] = "a flood of HEADERS",
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
  h2_bucket_earn(&h2->calm, H2_COST_LARGE); // it is not one that nghttp2 refuses
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
    h2->current = nghttp2_session_get_stream_user_data(session, id);
    if (h2->current) h2_stream_begin(h2->current); // these are its trailers
    return 0;
  }
  struct h2_stream *stream = h2_stream_new(h2, id);
  if (!stream) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  h2->current = stream;
  if (h2->turn_left > 0) h2->turn_left--;
  uint32_t most = worker_limits(h2->worker)->keepalive_requests;
  if (most > 0 && stream->stream.peer.requests >= most && h2->state == H2_OPEN) h2_server_retire(h2);
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

// Uses up the input that is there, as far as this turn's share goes. Who does not read what it is sent has to wait.
void h2_input(struct worker *worker, void *data) {
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
  if (nghttp2_session_want_write(h2->session) || h2_is_over(h2)) h2_wake(h2);
}

void h2_set_input(nghttp2_session_callbacks *callbacks) {
  nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_head);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_field);
  nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_field);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_content);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}
