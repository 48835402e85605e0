// SPDX-License-Identifier: Apache-2.0
// What both directions of HTTP/2 share.
#include "h2.h"

#include "conn.h"
#include "error.h"
#include "forward.h"

enum { FRAME_HEAD = 9, COPY_MOST = 2048 };

// ---- Fields ----------------------------------------------------------------------------------------------------------

int h2_fields_init(struct h2_fields *fields, struct arena *arena, uint32_t room) {
  *fields = (struct h2_fields){.list = arena_alloc(arena, room * sizeof *fields->list), .room = room};
  return fields->list ? 0 : ERROR_MEMORY;
}

static bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

void h2_put(struct h2_fields *fields, struct slice name, struct slice value) {
  while (value.len && is_blank(value.data[0])) value.data++, value.len--;
  while (value.len && is_blank(value.data[value.len - 1])) value.len--;
  fields->list[fields->count++] = (nghttp2_nv){
      .name = (uint8_t *)(uintptr_t)name.data,
      .value = (uint8_t *)(uintptr_t)(value.len ? value.data : ""),
      .namelen = name.len,
      .valuelen = value.len,
  };
  fields->bytes += name.len + value.len + H2_FIELD_OVERHEAD;
}

void h2_put_headers(struct h2_fields *fields, const struct headers *headers, uint32_t except) {
  for (uint32_t i = 0; i < headers->count && fields->count < fields->room; i++) {
    const struct field *field = &headers->fields[i];
    if (((except >> field->id) & 1) || forward_is_hop_by_hop(field)) continue;
    h2_put(fields, field->name, field->value);
  }
}

void h2_put_trailers(struct h2_fields *fields, const struct headers *trailers) {
  for (uint32_t i = 0; i < trailers->count && fields->count < fields->room; i++) {
    const struct field *field = &trailers->fields[i];
    if (forward_is_trailer(field) && !field->named_by_connection) h2_put(fields, field->name, field->value);
  }
}

int h2_take(struct headers *to, struct arena *arena, const uint8_t *name, size_t name_len, const uint8_t *value,
            size_t value_len) {
  char *copy = arena_alloc(arena, name_len + value_len + 1);
  if (!copy) return ERROR_MEMORY;
  memcpy(copy, name, name_len);
  memcpy(copy + name_len, value, value_len);
  copy[name_len + value_len] = 0;
  return headers_add(to, arena, (struct slice){copy, (uint32_t)name_len},
                     (struct slice){copy + name_len, (uint32_t)value_len});
}

// ---- Frames ----------------------------------------------------------------------------------------------------------

nghttp2_mem h2_mem(struct h2_memory *memory) {
  return (nghttp2_mem){memory, h2_memory_take, h2_memory_give, h2_memory_take_zeroed, h2_memory_resize};
}

nghttp2_option *h2_options(void) {
  nghttp2_option *option;
  if (nghttp2_option_new(&option) != 0) return NULL;
  nghttp2_option_set_no_auto_window_update(option, 1); // windows open as content is used up
  nghttp2_option_set_max_send_header_block_length(option, CHUNK_BYTES);
  return option;
}

int h2_write(nghttp2_session *session, struct conn *conn) {
  while (!conn_is_congested(conn)) {
    const uint8_t *data;
    ssize_t len = nghttp2_session_mem_send(session, &data);
    if (len < 0) return (int)len;
    if (len == 0) return 0;
    if (buffer_append(&conn->out, (const char *)data, (size_t)len) < 0) return NGHTTP2_ERR_NOMEM;
  }
  return 0;
}

// Small content is copied behind the frame's head, so that a write is not made of many little pieces.
int h2_write_data(struct conn *conn, const uint8_t *head, struct buffer *content, size_t len) {
  if (conn_is_congested(conn)) return NGHTTP2_ERR_WOULDBLOCK;
  if (buffer_append(&conn->out, (const char *)head, FRAME_HEAD) < 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
  while (len > 0) {
    const struct segment *first = &content->segments[content->head];
    size_t piece = first->len < len ? first->len : len;
    int failed = piece <= COPY_MOST ? buffer_append(&conn->out, first->data, piece)
                                    : buffer_append_ref(&conn->out, first->chunk, first->data, piece);
    if (failed) return NGHTTP2_ERR_CALLBACK_FAILURE;
    buffer_consume(content, piece);
    len -= piece;
  }
  return 0;
}

const char *h2_error_name(uint32_t code) {
  static const char *const names[] = {
      "NO_ERROR",
      "PROTOCOL_ERROR",
      "INTERNAL_ERROR",
      "FLOW_CONTROL_ERROR",
      "SETTINGS_TIMEOUT",
      "STREAM_CLOSED",
      "FRAME_SIZE_ERROR",
      "REFUSED_STREAM",
      "CANCEL",
      "COMPRESSION_ERROR",
      "CONNECT_ERROR",
      "ENHANCE_YOUR_CALM",
      "INADEQUATE_SECURITY",
      "HTTP_1_1_REQUIRED",
  };
  return code < sizeof names / sizeof *names ? names[code] : "unknown";
}
