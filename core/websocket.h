// SPDX-License-Identifier: Apache-2.0
// WebSocket codec (RFC 6455) with permessage-deflate (RFC 7692), one direction of one connection at a time. Bytes go
// in, whole messages come out, checked; the caller pulls. Memory grows with what has come, never with what is announced.
//
//   ws_next: MORE ... MESSAGE (text, binary: put together from its fragments; ping, pong, close between them) ... ERROR
//
// Compression never keeps state from one message to the next (both sides agree to no_context_takeover), so an idle
// connection has no stream of zlib's: a worker has one set for all.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "slice.h"

struct ws_zip;

enum ws_opcode { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

enum ws_code {
  WS_NORMAL = 1000,
  WS_GOING_AWAY = 1001,
  WS_PROTOCOL_ERROR = 1002,
  WS_NO_STATUS = 1005, // never on the wire: a close without a code
  WS_BAD_DATA = 1007,
  WS_POLICY = 1008,
  WS_TOO_BIG = 1009,
  WS_INTERNAL_ERROR = 1011
};

enum { WS_CONTROL_MOST = 125, WS_HEAD_MOST = 14 };

enum ws_event {
  WS_MORE,    // all input was used
  WS_MESSAGE, // ws_message gives it, until the next call
  WS_ERROR    // `code` and `reason` say what is wrong; no more events
};

struct ws_message {
  uint8_t opcode;      // of its first frame
  struct slice data;   // as meant: unmasked, unpacked
  struct slice packed; // as it came when it was compressed; NULL data: it was not
};

// Where a text stands in UTF-8: how many bytes the character in work still needs, and the bounds of the next one.
struct ws_utf8 {
  uint8_t need, low, high;
};

// The reading end of one direction.
struct ws_reader {
  struct ws_zip *zip; // NULL: permessage-deflate was not agreed
  uint32_t most;      // bytes of a message
  bool masked;        // frames are, as from a client; else none is
  bool fin, packed, in_frame, failed;
  uint8_t head[WS_HEAD_MOST], head_len;
  uint8_t opcode;          // of the frame in work
  uint8_t message_opcode;  // of the message in work; 0: none
  uint8_t control_len;     // bytes of `control` that have come
  uint8_t mask[4];         //
  uint64_t frame_at, left; // bytes of the frame's payload that have come, and that are to come
  struct ws_utf8 utf8;
  char *data; // of the message in work; NULL while there is none
  size_t len, room;
  char *plain; // unpacked
  uint32_t plain_len;
  uint8_t whole; // opcode of the message that is
  uint16_t code; // of an error
  const char *reason;
  char *control; // payload of the control frame in work; NULL while there is none
};

void ws_reader_init(struct ws_reader *reader, bool masked, uint32_t most);
void ws_reader_close(struct ws_reader *reader);
// The next event of the input; `*used` bytes of it are done with.
enum ws_event ws_next(struct ws_reader *reader, struct slice input, uint32_t *used);
// After WS_MESSAGE; the same until the next call.
struct ws_message ws_message(const struct ws_reader *reader);
// Whether a message or a frame has begun and is not whole.
bool ws_is_midway(const struct ws_reader *reader);

// The head of a frame that is a whole message; its bytes. `mask` NULL: unmasked.
uint32_t ws_head(char out[WS_HEAD_MOST], enum ws_opcode opcode, bool packed, uint64_t len, const uint8_t *mask);
// Masks or unmasks `len` bytes, the first of which is the `at`th of its payload. `to` may be `from`.
void ws_mask(char *to, const char *from, size_t len, const uint8_t mask[4], uint64_t at);

// Code and reason out of a close frame's payload; WS_NO_STATUS when it is empty.
uint16_t ws_close_code(struct slice payload, struct slice *reason);
// A close frame's payload. Its bytes: a reason that is too long is cut between characters.
uint32_t ws_close_payload(char out[WS_CONTROL_MOST], uint16_t code, struct slice reason);
// Whether a close frame may say that.
bool ws_code_is_valid(uint16_t code);
bool ws_utf8_is_valid(struct slice text);

// Counts frames without reading them: how many bytes of the input may pass before something may be put between two
// frames. 0: here it may.
struct ws_tracker {
  uint64_t left;
  uint8_t head[WS_HEAD_MOST], head_len;
  bool in_message; // between fragments, where only control frames may go
};
uint32_t ws_track(struct ws_tracker *tracker, struct slice input);
static inline bool ws_tracker_is_between(const struct ws_tracker *tracker) {
  return tracker->left == 0 && tracker->head_len == 0;
}

// ---- permessage-deflate ---------------------------------------------------------------------------------------------

enum { WS_WINDOW_BITS = 15, WS_EXTENSIONS_MOST = 128 };

// What we offer to a service.
#define WS_OFFER SLICE("permessage-deflate; server_no_context_takeover; client_no_context_takeover")

// Looks for an offer that we can take, in one field of Sec-WebSocket-Extensions. `*bits`: of the window that the client
// asks us for. False: there is none.
bool ws_find_offer(struct slice field, int *bits);
// Our answer to it; its bytes.
uint32_t ws_answer_offer(char out[WS_EXTENSIONS_MOST], int bits);
// Whether a service's answer is one to our offer, with nothing beyond it.
bool ws_is_agreed(struct slice field);

struct ws_zip *ws_zip_new(void);
void ws_zip_free(struct ws_zip *zip);
// Both give malloc'ed bytes. 0, or the code to close with: more than `most` come out of it, or it is no deflate.
uint16_t ws_unpack(struct ws_zip *zip, struct slice packed, uint32_t most, char **out, uint32_t *len);
// 0, or negative: no memory.
int ws_pack(struct ws_zip *zip, int bits, struct slice data, char **out, uint32_t *len);
