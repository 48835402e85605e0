// SPDX-License-Identifier: Apache-2.0
// WebSocket frames and messages (RFC 6455 5). Every rule that a receiver has to enforce is here, with the code that the
// close frame will give.
#include "websocket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIN = 0x80, RSV = 0x70, RSV1 = 0x40, MASK = 0x80, ROOM_LEAST = 256 };

// ---- UTF-8 -----------------------------------------------------------------------------------------------------------

// The bounds of the byte after a leading one (Unicode 15, table 3-7); false: it cannot lead.
static bool utf8_lead(struct ws_utf8 *utf8, uint8_t byte) {
  utf8->low = 0x80;
  utf8->high = 0xbf;
  if (byte >= 0xc2 && byte <= 0xdf) {
    utf8->need = 1;
  } else if (byte >= 0xe0 && byte <= 0xef) {
    utf8->need = 2;
    if (byte == 0xe0) utf8->low = 0xa0;  // shorter forms exist
    if (byte == 0xed) utf8->high = 0x9f; // surrogates
  } else if (byte >= 0xf0 && byte <= 0xf4) {
    utf8->need = 3;
    if (byte == 0xf0) utf8->low = 0x90;
    if (byte == 0xf4) utf8->high = 0x8f; // beyond U+10FFFF
  } else {
    return false;
  }
  return true;
}

static const char *skip_ascii(const char *at, const char *end) {
  uint64_t word;
  for (; end - at >= 8; at += 8) {
    memcpy(&word, at, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (at < end && !(*at & 0x80)) at++;
  return at;
}

// False as soon as no continuation could make it valid.
static bool utf8_feed(struct ws_utf8 *utf8, const char *at, size_t len) {
  for (const char *end = at + len; at < end; at++) {
    if (utf8->need == 0) at = skip_ascii(at, end);
    if (at == end) break;
    uint8_t byte = (uint8_t)*at;
    if (utf8->need == 0) {
      if (!utf8_lead(utf8, byte)) return false;
      continue;
    }
    if (byte < utf8->low || byte > utf8->high) return false;
    utf8->need--;
    utf8->low = 0x80;
    utf8->high = 0xbf;
  }
  return true;
}

bool ws_utf8_is_valid(struct slice text) {
  struct ws_utf8 utf8 = {0};
  return utf8_feed(&utf8, text.data, text.len) && utf8.need == 0;
}

// ---- Heads, masks, closes --------------------------------------------------------------------------------------------

void ws_mask(char *to, const char *from, size_t len, const uint8_t mask[4], uint64_t at) {
  uint8_t turned[8];
  for (size_t i = 0; i < 8; i++) turned[i] = mask[(at + i) & 3];
  uint64_t key, word;
  memcpy(&key, turned, 8);
  size_t i = 0;
  for (; len - i >= 8; i += 8) {
    memcpy(&word, from + i, 8);
    word ^= key;
    memcpy(to + i, &word, 8);
  }
  for (; i < len; i++) to[i] = (char)((uint8_t)from[i] ^ turned[i & 7]);
}

uint32_t ws_head(char out[WS_HEAD_MOST], enum ws_opcode opcode, bool packed, uint64_t len, const uint8_t *mask) {
  uint32_t at = 0, digits = len <= 125 ? 0 : len <= UINT16_MAX ? 2 : 8;
  out[at++] = (char)(FIN | (packed ? RSV1 : 0) | opcode);
  uint8_t first = digits == 0 ? (uint8_t)len : digits == 2 ? 126 : 127;
  out[at++] = (char)((mask ? MASK : 0) | first);
  for (uint32_t digit = digits; digit > 0; digit--) out[at++] = (char)(uint8_t)(len >> (8 * (digit - 1)));
  if (mask) memcpy(out + at, mask, 4);
  return at + (mask ? 4 : 0);
}

bool ws_code_is_valid(uint16_t code) {
  if (code >= 3000 && code <= 4999) return true;
  return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

uint16_t ws_close_code(struct slice payload, struct slice *reason) {
  *reason = (struct slice){"", 0};
  if (payload.len < 2) return WS_NO_STATUS;
  *reason = (struct slice){payload.data + 2, payload.len - 2};
  return (uint16_t)((uint8_t)payload.data[0] << 8 | (uint8_t)payload.data[1]);
}

uint32_t ws_close_payload(char out[WS_CONTROL_MOST], uint16_t code, struct slice reason) {
  if (code == WS_NO_STATUS) return 0;
  out[0] = (char)(code >> 8);
  out[1] = (char)(code & 0xff);
  if (reason.len > WS_CONTROL_MOST - 2) {
    reason.len = WS_CONTROL_MOST - 2;
    while (reason.len > 0 && ((uint8_t)reason.data[reason.len] & 0xc0) == 0x80) reason.len--;
  }
  if (reason.len) memcpy(out + 2, reason.data, reason.len);
  return reason.len + 2;
}

// How long a head is, as far as the `len` bytes of it that are there tell.
static uint32_t head_needs(const uint8_t *head, uint32_t len) {
  if (len < 2) return 2;
  uint32_t digits = (head[1] & 0x7f) == 126 ? 2 : (head[1] & 0x7f) == 127 ? 8 : 0;
  return 2 + digits + (head[1] & MASK ? 4 : 0);
}

static uint64_t head_payload(const uint8_t *head) {
  uint32_t first = head[1] & 0x7f, digits = first == 126 ? 2 : first == 127 ? 8 : 0;
  if (!digits) return first;
  uint64_t len = 0;
  for (uint32_t i = 0; i < digits; i++) len = len << 8 | head[2 + i];
  return len;
}

// Gathers a frame's head. True: it is whole.
static bool take_head(uint8_t head[WS_HEAD_MOST], uint8_t *head_len, struct slice input, uint32_t *used) {
  uint32_t need;
  while ((need = head_needs(head, *head_len)) > *head_len) {
    if (*used == input.len) return false;
    uint32_t piece = need - *head_len;
    if (piece > input.len - *used) piece = input.len - *used;
    memcpy(head + *head_len, input.data + *used, piece);
    *head_len = (uint8_t)(*head_len + piece);
    *used += piece;
  }
  return true;
}

uint32_t ws_track(struct ws_tracker *tracker, struct slice input) {
  uint32_t used = 0;
  while (used < input.len) {
    if (tracker->left == 0) {
      if (!take_head(tracker->head, &tracker->head_len, input, &used)) break;
      tracker->left = head_payload(tracker->head);
      if (!(tracker->head[0] & 8)) tracker->in_message = !(tracker->head[0] & FIN);
      tracker->head_len = 0;
      if (tracker->left == 0) return used;
    }
    uint64_t piece = input.len - used < tracker->left ? input.len - used : tracker->left;
    used += (uint32_t)piece;
    tracker->left -= piece;
    if (tracker->left == 0) return used;
  }
  return used;
}

// ---- Reading ---------------------------------------------------------------------------------------------------------

void ws_reader_init(struct ws_reader *reader, bool masked, uint32_t most) {
  *reader = (struct ws_reader){.masked = masked, .most = most};
}

static void reader_release(struct ws_reader *reader) {
  free(reader->data);
  free(reader->plain);
  free(reader->control);
  reader->data = reader->plain = reader->control = NULL;
  reader->len = reader->room = 0;
}

void ws_reader_close(struct ws_reader *reader) {
  reader_release(reader);
}

bool ws_is_midway(const struct ws_reader *reader) {
  return reader->in_frame || reader->head_len > 0 || reader->message_opcode != 0;
}

static enum ws_event fail(struct ws_reader *reader, uint16_t code, const char *reason) {
  reader->failed = true;
  reader->code = code;
  reader->reason = reason;
  reader_release(reader);
  return WS_ERROR;
}

static bool is_control(uint8_t opcode) {
  return opcode >= WS_CLOSE;
}

// What is wrong with a frame's head; NULL: nothing.
static const char *head_problem(const struct ws_reader *reader) {
  uint8_t first = reader->head[0], opcode = first & 15;
  bool data = opcode <= WS_BINARY, control = opcode >= WS_CLOSE && opcode <= WS_PONG;
  uint8_t allowed = reader->zip && (opcode == WS_TEXT || opcode == WS_BINARY) ? RSV1 : 0;
  uint64_t len = head_payload(reader->head);
  uint32_t shortest = (reader->head[1] & 0x7f) == 126 ? 126 : (reader->head[1] & 0x7f) == 127 ? UINT16_MAX + 1 : 0;
  if (!data && !control) return "unknown opcode";
  if (first & RSV & ~allowed) return "reserved bits are set";
  if (((reader->head[1] & MASK) != 0) != reader->masked) return reader->masked ? "unmasked frame" : "masked frame";
  if (len < shortest || len >> 63) return "length not in its shortest form";
  if (control && !(first & FIN)) return "fragmented control frame";
  if (control && len > WS_CONTROL_MOST) return "control frame too long";
  if (opcode == WS_CONTINUATION && !reader->message_opcode) return "continuation of nothing";
  if (data && opcode != WS_CONTINUATION && reader->message_opcode) return "message inside of a message";
  if (opcode == WS_CLOSE && len == 1) return "close frame with half a code";
  return NULL;
}

// A whole head has come. False: the reader has failed.
static bool begin_frame(struct ws_reader *reader) {
  const char *problem = head_problem(reader);
  if (problem) {
    fail(reader, WS_PROTOCOL_ERROR, problem);
    return false;
  }
  reader->opcode = reader->head[0] & 15;
  reader->fin = reader->head[0] & FIN;
  reader->left = head_payload(reader->head);
  reader->frame_at = 0;
  if (reader->masked) memcpy(reader->mask, reader->head + reader->head_len - 4, 4);
  reader->head_len = 0;
  reader->in_frame = true;
  reader->control_len = 0;
  if (is_control(reader->opcode)) return true;
  if (reader->opcode != WS_CONTINUATION) {
    reader->message_opcode = reader->opcode;
    reader->packed = reader->head[0] & RSV1;
    reader->utf8 = (struct ws_utf8){0};
    reader->len = 0;
  }
  // What cannot be compressed grows a little by it.
  uint64_t most = reader->packed ? (uint64_t)reader->most + reader->most / 1024 + 64 : reader->most;
  if (reader->len <= most && reader->left <= most - reader->len) return true;
  fail(reader, WS_TOO_BIG, "Payload Too Large");
  return false;
}

static bool reader_grow(struct ws_reader *reader, size_t more) {
  size_t need = reader->len + more;
  if (need <= reader->room) return true;
  size_t room = reader->room ? reader->room * 2 : ROOM_LEAST;
  // One frame that is the whole message: no more than that, once a good part of it is here.
  size_t whole = reader->fin ? reader->len + reader->left : 0;
  if (whole >= need && whole <= room + room) room = whole;
  if (room < need) room = need;
  char *data = realloc(reader->data, room);
  if (!data) return false;
  reader->data = data;
  reader->room = room;
  return true;
}

// A piece of a data frame's payload. False: the reader has failed.
static bool take_data(struct ws_reader *reader, const char *from, size_t len) {
  if (!reader_grow(reader, len)) {
    fail(reader, WS_INTERNAL_ERROR, "no memory");
    return false;
  }
  char *to = reader->data + reader->len;
  if (reader->masked)
    ws_mask(to, from, len, reader->mask, reader->frame_at);
  else if (len > 0) // of the head's piece nothing may be left
    memcpy(to, from, len);
  reader->len += len;
  if (reader->message_opcode != WS_TEXT || reader->packed || utf8_feed(&reader->utf8, to, len)) return true;
  fail(reader, WS_BAD_DATA, "text is not UTF-8");
  return false;
}

static bool take_control(struct ws_reader *reader, const char *from, size_t len) {
  if (!reader->control) reader->control = malloc(WS_CONTROL_MOST);
  if (!reader->control) {
    fail(reader, WS_INTERNAL_ERROR, "no memory");
    return false;
  }
  char *to = reader->control + reader->control_len;
  if (reader->masked)
    ws_mask(to, from, len, reader->mask, reader->frame_at);
  else
    memcpy(to, from, len);
  reader->control_len = (uint8_t)(reader->control_len + len);
  return true;
}

struct ws_message ws_message(const struct ws_reader *reader) {
  struct slice control = {reader->control ? reader->control : "", reader->control_len};
  struct slice data = {reader->data ? reader->data : "", (uint32_t)reader->len};
  if (is_control(reader->whole)) return (struct ws_message){.opcode = reader->whole, .data = control};
  if (!reader->packed) return (struct ws_message){.opcode = reader->whole, .data = data};
  return (struct ws_message){.opcode = reader->whole, .data = {reader->plain, reader->plain_len}, .packed = data};
}

static enum ws_event control_whole(struct ws_reader *reader) {
  reader->whole = reader->opcode;
  struct slice payload = ws_message(reader).data, reason;
  if (reader->opcode != WS_CLOSE || payload.len == 0) return WS_MESSAGE;
  if (!ws_code_is_valid(ws_close_code(payload, &reason)))
    return fail(reader, WS_PROTOCOL_ERROR, "close frame with an invalid code");
  if (!ws_utf8_is_valid(reason)) return fail(reader, WS_BAD_DATA, "the reason of a close is not UTF-8");
  return WS_MESSAGE;
}

static enum ws_event unpack(struct ws_reader *reader) {
  struct slice packed = {reader->data ? reader->data : "", (uint32_t)reader->len};
  uint16_t problem = ws_unpack(reader->zip, packed, reader->most, &reader->plain, &reader->plain_len);
  if (problem == WS_TOO_BIG) return fail(reader, problem, "Payload Too Large");
  if (problem) return fail(reader, problem, "compressed data is broken");
  if (reader->whole == WS_TEXT && !ws_utf8_is_valid((struct slice){reader->plain, reader->plain_len}))
    return fail(reader, WS_BAD_DATA, "text is not UTF-8");
  return WS_MESSAGE;
}

// A frame is whole. WS_MORE: its message is not.
static enum ws_event frame_whole(struct ws_reader *reader) {
  reader->in_frame = false;
  if (is_control(reader->opcode)) return control_whole(reader);
  if (!reader->fin) return WS_MORE;
  reader->whole = reader->message_opcode;
  reader->message_opcode = 0;
  if (reader->packed) return unpack(reader);
  if (reader->whole == WS_TEXT && reader->utf8.need)
    return fail(reader, WS_BAD_DATA, "text ends inside of a character");
  return WS_MESSAGE;
}

// Uses payload that has come. False: the reader has failed.
static bool take_payload(struct ws_reader *reader, struct slice input, uint32_t *used) {
  size_t piece = input.len - *used;
  if (piece > reader->left) piece = (size_t)reader->left;
  const char *from = input.data + *used;
  *used += (uint32_t)piece;
  reader->left -= piece;
  bool good = is_control(reader->opcode) ? take_control(reader, from, piece) : take_data(reader, from, piece);
  if (!good) return false;
  reader->frame_at += piece;
  return true;
}

enum ws_event ws_next(struct ws_reader *reader, struct slice input, uint32_t *used) {
  *used = 0;
  if (reader->failed) return WS_ERROR;
  free(reader->plain);
  reader->plain = NULL;
  while (*used < input.len || (reader->in_frame && reader->left == 0)) {
    if (!reader->in_frame) {
      if (!take_head(reader->head, &reader->head_len, input, used)) break;
      if (!begin_frame(reader)) return WS_ERROR;
    }
    if (reader->left > 0 && !take_payload(reader, input, used)) return WS_ERROR;
    if (reader->left > 0) break;
    enum ws_event event = frame_whole(reader);
    if (event != WS_MORE) return event;
  }
  // Room is kept while messages follow at once.
  if (!reader->in_frame) {
    free(reader->control);
    reader->control = NULL;
    if (!reader->message_opcode && reader->data) reader_release(reader);
  }
  return WS_MORE;
}
