// SPDX-License-Identifier: Apache-2.0
// What both directions of HTTP/2 (RFC 9113) have in common: lists of fields for nghttp2 and from it, frames on their way
// to a connection, names of errors. Only h2*.c include this, for it shows nghttp2.
#pragma once
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "buffer.h"
#include "h2_memory.h"
#include "headers.h"
#include "slice.h"

struct conn;

enum {
  H2_STREAM_WINDOW = 256 * 1024, // of content that the peer may send before we say that we used it up
  H2_CONNECTION_WINDOW = 1024 * 1024,
  H2_FIELD_OVERHEAD = 4, // counted with each field, as HTTP/1.1 would need them: ": " and CRLF
};

// Fields as nghttp2 takes them. It copies names (in lower case, as HTTP/2 wants them) and values when it is given them.
struct h2_fields {
  nghttp2_nv *list;
  uint32_t count, room;
  size_t bytes; // names, values and overhead
};

// Room for so many fields, in the arena. 0, or ERROR_MEMORY.
int h2_fields_init(struct h2_fields *fields, struct arena *arena, uint32_t room);
// Appends a field; there must be room. White space around the value stays behind: HTTP/2 forbids it.
void h2_put(struct h2_fields *fields, struct slice name, struct slice value);
// Appends those that may go further: none that is of one connection only, none whose id is in the mask `except`.
void h2_put_headers(struct h2_fields *fields, const struct headers *headers, uint32_t except);
// Appends what may stand in trailers (RFC 9110 6.5.1).
void h2_put_trailers(struct h2_fields *fields, const struct headers *trailers);

// Copies a field that came into the arena and appends it. As headers_add.
int h2_take(struct headers *to, struct arena *arena, const uint8_t *name, size_t name_len, const uint8_t *value,
            size_t value_len);

// Where sessions take their memory from.
nghttp2_mem h2_mem(struct h2_memory *memory);
// Settings and options of every session. NULL: no memory.
nghttp2_option *h2_options(void);
// Moves frames that are ready to the connection's queue, until that is congested. 0, or what nghttp2 said.
int h2_write(nghttp2_session *session, struct conn *conn);
// One DATA frame: its head, and `len` bytes from the front of `content`. For nghttp2_send_data_callback, whose result
// this is.
int h2_write_data(struct conn *conn, const uint8_t *head, struct buffer *content, size_t len);

// "ENHANCE_YOUR_CALM"; "unknown" for a code that RFC 9113 7 does not have.
const char *h2_error_name(uint32_t code);
