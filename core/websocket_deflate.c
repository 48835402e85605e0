// SPDX-License-Identifier: Apache-2.0
// permessage-deflate (RFC 7692) over zlib: negotiation, and whole messages in and out. Without context takeover each
// message begins anew, so that streams are shared by all connections of a worker, and made when first needed.
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "error.h"
#include "websocket.h"

// zlib has no raw deflate with a window of 8 bits.
enum { BITS_LEAST = 9, MEMORY_LEVEL = 8, OUT_LEAST = 1024 };

struct ws_zip {
  z_stream reader, writers[WS_WINDOW_BITS + 1]; // by bits of the window
  bool has_reader, has_writer[WS_WINDOW_BITS + 1];
};

struct ws_zip *ws_zip_new(void) {
  return calloc(1, sizeof(struct ws_zip));
}

void ws_zip_free(struct ws_zip *zip) {
  if (!zip) return;
  if (zip->has_reader) inflateEnd(&zip->reader);
  for (int bits = BITS_LEAST; bits <= WS_WINDOW_BITS; bits++)
    if (zip->has_writer[bits]) deflateEnd(&zip->writers[bits]);
  free(zip);
}

// ---- Messages --------------------------------------------------------------------------------------------------------

// Bytes that grow as a stream fills them, up to a bound.
struct growing {
  char *data;
  size_t room, most;
};

// Room for more behind what the stream has written. False: the bound was reached, or there is no memory.
static bool make_room(struct growing *out, z_stream *stream) {
  if (stream->avail_out > 0) return true;
  if (out->room >= out->most) return false;
  size_t room = out->room ? out->room * 2 : OUT_LEAST;
  if (room > out->most) room = out->most;
  char *data = realloc(out->data, room);
  if (!data) return false;
  out->data = data;
  stream->next_out = (Bytef *)data + out->room;
  stream->avail_out = (uInt)(room - out->room);
  out->room = room;
  return true;
}

static z_stream *reader_of(struct ws_zip *zip) {
  if (zip->has_reader) return inflateReset(&zip->reader) == Z_OK ? &zip->reader : NULL;
  zip->has_reader = inflateInit2(&zip->reader, -WS_WINDOW_BITS) == Z_OK;
  return zip->has_reader ? &zip->reader : NULL;
}

// Feeds all of `input`. The code to close with, or 0.
static uint16_t inflate_all(z_stream *stream, struct slice input, struct growing *out) {
  stream->next_in = (Bytef *)(uintptr_t)input.data;
  stream->avail_in = input.len;
  for (;;) {
    if (!make_room(out, stream)) return WS_TOO_BIG;
    int result = inflate(stream, Z_SYNC_FLUSH);
    // Behind a block that says to be the last one the rest is a stream of its own (RFC 7692 7.2.3.4).
    if (result == Z_STREAM_END) result = inflateReset(stream);
    if (result != Z_OK && result != Z_BUF_ERROR) return WS_BAD_DATA;
    if (stream->avail_in == 0 && stream->avail_out > 0) return 0;
  }
}

uint16_t ws_unpack(struct ws_zip *zip, struct slice packed, uint32_t most, char **out, uint32_t *len) {
  static const struct slice tail = SLICE("\x00\x00\xff\xff"); // cut off by the sender (RFC 7692 7.2.2)
  z_stream *stream = reader_of(zip);
  struct growing bytes = {.most = (size_t)most + 1}; // one more than allowed: then it is too much
  if (!stream) return WS_INTERNAL_ERROR;
  stream->avail_out = 0;
  uint16_t problem = inflate_all(stream, packed, &bytes);
  if (!problem) problem = inflate_all(stream, tail, &bytes);
  size_t whole = bytes.room - stream->avail_out;
  if (!problem && whole > most) problem = WS_TOO_BIG;
  if (problem) {
    free(bytes.data);
    return problem;
  }
  *out = bytes.data;
  *len = (uint32_t)whole;
  return 0;
}

static z_stream *writer_of(struct ws_zip *zip, int bits) {
  z_stream *writer = &zip->writers[bits];
  if (zip->has_writer[bits]) return deflateReset(writer) == Z_OK ? writer : NULL;
  zip->has_writer[bits] =
      deflateInit2(writer, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -bits, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK;
  return zip->has_writer[bits] ? writer : NULL;
}

int ws_pack(struct ws_zip *zip, int bits, struct slice data, char **out, uint32_t *len) {
  z_stream *stream = writer_of(zip, bits);
  if (!stream) return ERROR_MEMORY;
  size_t room = deflateBound(stream, data.len) + 16;
  char *bytes = malloc(room);
  if (!bytes) return ERROR_MEMORY;
  stream->next_in = (Bytef *)(uintptr_t)data.data;
  stream->avail_in = data.len;
  stream->next_out = (Bytef *)bytes;
  stream->avail_out = (uInt)room;
  int result = deflate(stream, Z_SYNC_FLUSH);
  if (result != Z_OK || stream->avail_in > 0 || stream->avail_out == 0 || stream->total_out < 4) {
    free(bytes);
    return ERROR_MEMORY;
  }
  *out = bytes;
  *len = (uint32_t)stream->total_out - 4; // 00 00 ff ff, which the reader puts back
  return 0;
}

// ---- Negotiation -----------------------------------------------------------------------------------------------------

// What one offer or answer says.
struct params {
  bool named, good;                // is permessage-deflate; has nothing unknown, twice or out of range
  bool server_alone, client_alone; // *_no_context_takeover
  bool has_client_bits;
  int server_bits; // 0: not said
};

static struct slice trim(struct slice text) {
  while (text.len && (*text.data == ' ' || *text.data == '\t')) text.data++, text.len--;
  while (text.len && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t')) text.len--;
  return text;
}

// Cuts off the front of `rest` up to `mark`; false: there is no more.
static bool next_part(struct slice *rest, char mark, struct slice *part) {
  if (!rest->data) return false;
  const char *end = rest->len ? memchr(rest->data, mark, rest->len) : NULL;
  uint32_t len = end ? (uint32_t)(end - rest->data) : rest->len;
  *part = trim((struct slice){rest->data, len});
  *rest = end ? (struct slice){end + 1, rest->len - len - 1} : (struct slice){NULL, 0};
  return true;
}

// 8 to 15, perhaps quoted; -1: it is neither.
static int read_bits(struct slice value) {
  if (value.len >= 2 && value.data[0] == '"' && value.data[value.len - 1] == '"')
    value = (struct slice){value.data + 1, value.len - 2};
  if (value.len == 1 && (value.data[0] == '8' || value.data[0] == '9')) return value.data[0] - '0';
  if (value.len == 2 && value.data[0] == '1' && value.data[1] >= '0' && value.data[1] <= '5')
    return 10 + value.data[1] - '0';
  return -1;
}

static bool read_param(struct params *params, struct slice param) {
  struct slice name, rest = param;
  next_part(&rest, '=', &name);
  bool has_value = rest.data != NULL;
  int bits = has_value ? read_bits(trim(rest)) : 0;
  if (slice_equal_nocase(name, SLICE("server_no_context_takeover"))) {
    if (params->server_alone || has_value) return false;
    return params->server_alone = true;
  }
  if (slice_equal_nocase(name, SLICE("client_no_context_takeover"))) {
    if (params->client_alone || has_value) return false;
    return params->client_alone = true;
  }
  if (slice_equal_nocase(name, SLICE("server_max_window_bits"))) {
    if (params->server_bits || bits <= 0) return false;
    params->server_bits = bits;
    return true;
  }
  if (!slice_equal_nocase(name, SLICE("client_max_window_bits"))) return false;
  if (params->has_client_bits || bits < 0) return false;
  return params->has_client_bits = true;
}

static struct params read_offer(struct slice offer) {
  struct params params = {.good = true};
  struct slice part;
  next_part(&offer, ';', &part);
  params.named = slice_equal_nocase(part, SLICE("permessage-deflate"));
  while (params.named && params.good && next_part(&offer, ';', &part)) params.good = read_param(&params, part);
  return params;
}

bool ws_find_offer(struct slice field, int *bits) {
  struct slice offer;
  while (next_part(&field, ',', &offer)) {
    struct params params = read_offer(offer);
    if (!params.named || !params.good || (params.server_bits && params.server_bits < BITS_LEAST)) continue;
    *bits = params.server_bits ? params.server_bits : WS_WINDOW_BITS;
    return true;
  }
  return false;
}

uint32_t ws_answer_offer(char out[WS_EXTENSIONS_MOST], int bits) {
  static const char start[] = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
  static const char window[] = "; server_max_window_bits=";
  uint32_t len = sizeof start - 1;
  memcpy(out, start, len);
  if (bits == WS_WINDOW_BITS) return len;
  memcpy(out + len, window, sizeof window - 1);
  len += sizeof window - 1;
  if (bits >= 10) out[len++] = '1';
  out[len++] = (char)('0' + bits % 10);
  return len;
}

bool ws_is_agreed(struct slice field) {
  struct slice answer, other;
  if (!next_part(&field, ',', &answer) || next_part(&field, ',', &other)) return false;
  struct params params = read_offer(answer);
  // A smaller window of the service's is its own affair; one of ours was not offered.
  return params.named && params.good && params.server_alone && !params.has_client_bits;
}
