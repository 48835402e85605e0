// SPDX-License-Identifier: Apache-2.0
// What a service says over HTTP/2, as the library reads it: callbacks that find the call and hand it on. A call may end
// in any of them, so each looks for it anew (client->current, a stream's user data).
#include <stdio.h>

#include "error.h"
#include "exchange.h"
#include "h2_client_parts.h"
#include "worker.h"

// The window of a connection holds nobody up: each stream's own bounds what can come.
enum { CONNECTION_WINDOW = 1 << 30 };

static struct h2_call *call_of(nghttp2_session *session, int32_t id) {
  return id ? nghttp2_session_get_stream_user_data(session, id) : NULL;
}

// ---- Heads ---------------------------------------------------------------------------------------------------------

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  struct h2_client *client = user;
  struct h2_call *call = call_of(session, frame->hd.stream_id);
  client->heading = call;
  if (!call) return 0;
  struct exchange *exchange = h2_call_enter(call);
  struct h1_message *message = &exchange->service_message;
  call->head_bytes = 0;
  uint32_t most = exchange->generation->limits.max_headers;
  if (call->head_over) {
    headers_init(&message->trailers, most);
    return 0;
  }
  *message = (struct h1_message){.major = 2, .keep_alive = true, .content_length = -1};
  headers_init(&message->headers, most);
  headers_init(&message->trailers, most);
  return 0;
}

static int64_t number_of(nghttp2_vec text) {
  int64_t number = 0;
  for (size_t i = 0; i < text.len; i++) number = number * 10 + (text.base[i] - '0'); // the library has checked it
  return number;
}

// The library's buffers go with its tables: bytes are copied, but for names that are its constants.
static int add_field(struct h2_call *call, nghttp2_rcbuf *name_buffer, nghttp2_vec name, nghttp2_vec value) {
  struct exchange *exchange = call->exchange;
  struct h1_message *message = &exchange->service_message;
  struct headers *headers = call->head_over ? &message->trailers : &message->headers;
  bool constant = nghttp2_rcbuf_is_static(name_buffer);
  char *copy = arena_alloc(&exchange->arena, value.len + (constant ? 0 : name.len) + 1);
  if (!copy) return ERROR_MEMORY;
  memcpy(copy, value.base, value.len);
  const char *kept = constant ? (const char *)name.base : copy + value.len;
  if (!constant) memcpy(copy + value.len, name.base, name.len);
  int result = headers_add(headers, &exchange->arena, (struct slice){kept, (uint32_t)name.len},
                           (struct slice){copy, (uint32_t)value.len});
  if (result < 0 || call->head_over) return result;
  if (headers->fields[headers->count - 1].id == FIELD_CONTENT_LENGTH) message->content_length = number_of(value);
  return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name_buffer,
                     nghttp2_rcbuf *value_buffer, uint8_t flags, void *user) {
  (void)session, (void)frame, (void)flags;
  struct h2_client *client = user;
  struct h2_call *call = client->heading;
  if (!call) return 0;
  h2_call_enter(call);
  nghttp2_vec name = nghttp2_rcbuf_get_buf(name_buffer), value = nghttp2_rcbuf_get_buf(value_buffer);
  if (name.len > 0 && name.base[0] == ':') { // :status, as the library lets no other through
    call->exchange->service_message.status = (int)number_of(value);
    return 0;
  }
  call->head_bytes += (uint32_t)(name.len + value.len) + H2_FIELD_OVERHEAD;
  if (call->head_bytes > call->exchange->generation->limits.max_head_bytes ||
      add_field(call, name_buffer, name, value) < 0)
    h2_call_refuse(call, "its header fields are too large or too many");
  return 0;
}

// A name in upper case, a control character in a value: such a message goes nowhere.
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                             nghttp2_rcbuf *value, uint8_t flags, void *user) {
  (void)session, (void)frame, (void)name, (void)value, (void)flags;
  struct h2_client *client = user;
  if (client->heading) h2_call_refuse(client->heading, "a header field has characters that are not allowed");
  return 0;
}

// ---- Frames --------------------------------------------------------------------------------------------------------

static void on_settings(struct h2_client *client) {
  uint32_t most = nghttp2_session_get_remote_settings(client->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  client->limit = most;
  client->greeted = true;
}

static void on_call_frame(struct h2_client *client, struct h2_call *call, const nghttp2_frame *frame) {
  bool last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
  client->current = call;
  if (frame->hd.type == NGHTTP2_HEADERS && !call->head_over) h2_call_on_head(call, last);
  if (last && client->current == call) h2_call_on_end(call);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  struct h2_client *client = user;
  switch (frame->hd.type) {
  case NGHTTP2_DATA:
  case NGHTTP2_HEADERS: {
    struct h2_call *call = call_of(session, frame->hd.stream_id);
    if (call) on_call_frame(client, call, frame);
    break;
  }
  case NGHTTP2_SETTINGS:
    if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) on_settings(client);
    break;
  case NGHTTP2_GOAWAY:
    client->leaving = true;
    h2_client_unlist(client);
    break;
  default: break;
  }
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *user) {
  (void)flags;
  struct h2_client *client = user;
  struct h2_call *call = call_of(session, id);
  nghttp2_session_consume_connection(session, len);
  if (!call) {
    nghttp2_session_consume_stream(session, id, len);
    return 0;
  }
  client->current = call;
  h2_call_on_body(call, (const char *)data, (uint32_t)len);
  return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user) {
  (void)user;
  struct h2_call *call = call_of(session, id);
  if (call) h2_call_on_closed(call, error_code);
  return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user) {
  (void)user;
  struct h2_call *call = call_of(session, frame->hd.stream_id);
  if (call) h2_call_refuse(call, nghttp2_strerror(code));
  return 0;
}

static int on_error(nghttp2_session *session, int code, const char *message, size_t len, void *user) {
  (void)session, (void)code;
  struct h2_client *client = user;
  snprintf(client->reason, sizeof client->reason, "%.*s", (int)len, message);
  return 0;
}

// The library may come back to a frame for which there was no room: its call may have gone.
static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t len,
                     nghttp2_data_source *source, void *user) {
  (void)source, (void)user;
  struct h2_call *call = call_of(session, frame->hd.stream_id);
  return call ? h2_call_send_data(call, head, len) : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

// ---- Sessions ------------------------------------------------------------------------------------------------------

// What all sessions of a worker share.
static int pool_open(struct h2_pool *pool) {
  if (pool->callbacks) return 0;
  nghttp2_session_callbacks *callbacks;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) return ERROR_MEMORY;
  nghttp2_option *option = h2_options();
  if (!option) {
    nghttp2_session_callbacks_del(callbacks);
    return ERROR_MEMORY;
  }
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
  nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
  nghttp2_session_callbacks_set_error_callback2(callbacks, on_error);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
  nghttp2_option_set_peer_max_concurrent_streams(option, H2_STREAMS_AT_FIRST);
  pool->callbacks = callbacks;
  pool->option = option;
  return 0;
}

void h2_session_pool_close(struct h2_pool *pool) {
  nghttp2_session_callbacks_del(pool->callbacks);
  nghttp2_option_del(pool->option);
  pool->callbacks = NULL;
  pool->option = NULL;
}

int h2_session_open(struct h2_client *client) {
  struct worker *worker = client->worker;
  struct h2_pool *pool = &worker->h2;
  if (pool_open(pool) < 0) return ERROR_MEMORY;
  nghttp2_mem memory = h2_mem(&worker->h2_memory);
  if (nghttp2_session_client_new3(&client->session, pool->callbacks, client, pool->option, &memory) != 0)
    return ERROR_MEMORY;
  const struct limits *limits = worker->generation ? &worker->generation->limits : &worker->first_limits;
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits->max_head_bytes},
  };
  if (nghttp2_submit_settings(client->session, 0, settings, sizeof settings / sizeof *settings) == 0 &&
      nghttp2_session_set_local_window_size(client->session, 0, 0, CONNECTION_WINDOW) == 0)
    return 0;
  nghttp2_session_del(client->session);
  client->session = NULL;
  return ERROR_MEMORY;
}
