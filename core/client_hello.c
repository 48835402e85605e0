// SPDX-License-Identifier: Apache-2.0
// The ClientHello (RFC 8446 4.1.2), which may be spread over several records (5.1).
//
//   record: type 22 | version 3.x | length     handshake: type 1 | length (3)     hello: version | random (32) |
//   session (<=32) | suites | compressions | extensions: { type | length | ... }   0: server_name (RFC 6066 3)
//
// Bytes are taken one by one through the records, so nothing is gathered and no length is trusted before its bytes are
// there.
#include "client_hello.h"

#include <stdbool.h>
#include <string.h>

#include "slice.h"

enum { RECORD_HANDSHAKE = 22, RECORD_MOST = 16384, HELLO = 1, RANDOM = 32, EXTENSION_SNI = 0, NAME_HOST = 0 };

struct reader {
  const uint8_t *data;
  uint32_t len, at;
  uint32_t record; // bytes left of the record
  enum client_hello_result state;
};

static bool stop(struct reader *reader, enum client_hello_result state) {
  if (reader->state == CLIENT_HELLO_WHOLE) reader->state = state;
  return false;
}

// Begins the next record. An empty one is not allowed in a handshake.
static bool next_record(struct reader *reader) {
  const uint8_t *at = reader->data + reader->at;
  uint32_t left = reader->len - reader->at;
  if (left > 0 && at[0] != RECORD_HANDSHAKE) return stop(reader, CLIENT_HELLO_BAD);
  if (left > 1 && at[1] != 3) return stop(reader, CLIENT_HELLO_BAD);
  if (left < 5) return stop(reader, CLIENT_HELLO_MORE);
  reader->record = (uint32_t)at[3] << 8 | at[4];
  if (reader->record == 0 || reader->record > RECORD_MOST) return stop(reader, CLIENT_HELLO_BAD);
  reader->at += 5;
  return true;
}

// The next byte, 0 when there is none: `state` tells then.
static uint8_t take(struct reader *reader) {
  if (reader->state != CLIENT_HELLO_WHOLE) return 0;
  if (reader->record == 0 && !next_record(reader)) return 0;
  if (reader->at == reader->len) {
    stop(reader, CLIENT_HELLO_MORE);
    return 0;
  }
  reader->record--;
  return reader->data[reader->at++];
}

static uint32_t take_number(struct reader *reader, int bytes) {
  uint32_t number = 0;
  while (bytes-- > 0) number = number << 8 | take(reader);
  return number;
}

// A part of the message: a count of bytes that what is read in it has to stay within.
struct part {
  struct reader *reader;
  uint32_t left;
};

static uint32_t part_number(struct part *part, int bytes) {
  if (part->left < (uint32_t)bytes) {
    stop(part->reader, CLIENT_HELLO_BAD);
    return 0;
  }
  part->left -= (uint32_t)bytes;
  return take_number(part->reader, bytes);
}

static void part_skip(struct part *part, uint32_t bytes) {
  if (part->left < bytes) {
    stop(part->reader, CLIENT_HELLO_BAD);
    return;
  }
  part->left -= bytes;
  for (; bytes > 0 && part->reader->state == CLIENT_HELLO_WHOLE; bytes--) take(part->reader);
}

// A part of this one, whose length stands in front.
static struct part part_inner(struct part *part, int length_bytes) {
  struct part inner = {part->reader, part_number(part, length_bytes)};
  if (inner.left > part->left) stop(part->reader, CLIENT_HELLO_BAD);
  if (part->reader->state != CLIENT_HELLO_WHOLE) inner.left = 0;
  part->left -= inner.left;
  return inner;
}

static bool goes_on(const struct part *part) {
  return part->reader->state == CLIENT_HELLO_WHOLE && part->left > 0;
}

static bool is_name_byte(uint8_t byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_';
}

static void read_name(struct part *name, struct client_hello *out) {
  if (name->left == 0 || name->left >= CLIENT_HELLO_NAME) {
    stop(name->reader, CLIENT_HELLO_BAD);
    return;
  }
  uint32_t len = 0;
  while (goes_on(name)) {
    uint8_t byte = (uint8_t)ascii_lower((char)part_number(name, 1));
    if (name->reader->state == CLIENT_HELLO_WHOLE && !is_name_byte(byte)) stop(name->reader, CLIENT_HELLO_BAD);
    out->sni[len++] = (char)byte;
  }
  if (len > 1 && out->sni[len - 1] == '.') len--;
  out->sni[len] = 0;
  out->sni_len = len;
}

// A list of names, of which there may be one of each type; only host names were ever defined.
static void read_server_names(struct part *extension, struct client_hello *out) {
  struct part list = part_inner(extension, 2);
  if (extension->left > 0 || out->sni_len > 0) stop(extension->reader, CLIENT_HELLO_BAD);
  while (goes_on(&list)) {
    uint32_t type = part_number(&list, 1);
    struct part name = part_inner(&list, 2);
    if (type != NAME_HOST)
      part_skip(&name, name.left);
    else if (out->sni_len > 0)
      stop(list.reader, CLIENT_HELLO_BAD);
    else if (list.reader->state == CLIENT_HELLO_WHOLE)
      read_name(&name, out);
  }
}

static void read_extensions(struct part *hello, struct client_hello *out) {
  struct part all = part_inner(hello, 2);
  if (hello->left > 0) stop(hello->reader, CLIENT_HELLO_BAD);
  while (goes_on(&all)) {
    uint32_t type = part_number(&all, 2);
    struct part extension = part_inner(&all, 2);
    if (type == EXTENSION_SNI && all.reader->state == CLIENT_HELLO_WHOLE) read_server_names(&extension, out);
    part_skip(&extension, extension.left);
  }
}

static void read_hello(struct part *hello, struct client_hello *out) {
  uint32_t version = part_number(hello, 2);
  if (hello->reader->state == CLIENT_HELLO_WHOLE && version >> 8 != 3) stop(hello->reader, CLIENT_HELLO_BAD);
  part_skip(hello, RANDOM);
  for (int i = 0; i < 3; i++) { // session, suites, compressions
    struct part piece = part_inner(hello, i == 1 ? 2 : 1);
    part_skip(&piece, piece.left);
  }
  if (goes_on(hello)) read_extensions(hello, out);
}

enum client_hello_result client_hello_read(const char *data, uint32_t len, struct client_hello *out) {
  if (len > CLIENT_HELLO_MOST) len = CLIENT_HELLO_MOST;
  struct reader reader = {.data = (const uint8_t *)data, .len = len, .state = CLIENT_HELLO_WHOLE};
  *out = (struct client_hello){.sni_len = 0};
  uint8_t type = take(&reader);
  if (reader.state == CLIENT_HELLO_WHOLE && type != HELLO) stop(&reader, CLIENT_HELLO_BAD);
  struct part hello = {&reader, take_number(&reader, 3)};
  if (hello.left > CLIENT_HELLO_MOST) stop(&reader, CLIENT_HELLO_BAD);
  read_hello(&hello, out);
  if (reader.state == CLIENT_HELLO_MORE && len >= CLIENT_HELLO_MOST) return CLIENT_HELLO_BAD;
  return reader.state;
}
