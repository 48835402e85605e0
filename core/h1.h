// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 codec, both directions (RFC 9112), over llhttp in its strict mode. Bytes go in, events come out; the caller
// pulls, so that nothing of it runs inside a parser's callback.
//
//   h1_next: NEED_MORE ... HEAD, BODY*, END, then the next message (or ERROR, or UPGRADED)
#pragma once
#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "headers.h"
#include "slice.h"

enum h1_event {
  H1_NEED_MORE, // all input was used
  H1_HEAD,      // `message` is filled; its slices point into the input, which must stay
  H1_BODY,      // `body` is a piece of content, pointing into the input
  H1_END,       // the message is whole; trailers are in `message.trailers`
  H1_ERROR      // `error` says what is wrong with the input; no more events
};

enum h1_problem {
  H1_PROBLEM_NONE,
  H1_PROBLEM_SYNTAX,      // 400
  H1_PROBLEM_TARGET_LONG, // 414
  H1_PROBLEM_HEAD_LARGE,  // 431
  H1_PROBLEM_METHOD,      // 501
  H1_PROBLEM_CODING,      // 501: a transfer coding besides chunked
  H1_PROBLEM_VERSION      // 505
};

struct h1_message {
  struct slice method, target; // of a request
  struct slice reason;         // of a response
  int status;
  uint8_t major, minor;
  bool keep_alive; // as the version and Connection say
  bool upgrade;    // asks for (or, with status 101, agrees to) another protocol
  bool chunked;
  bool until_close;       // a response that ends with the connection
  int64_t content_length; // -1: not given
  struct headers headers, trailers;
};

struct h1 {
  llhttp_t parser;
  struct arena *arena; // of the message in work
  struct h1_message *message;
  struct slice name, value, body;
  uint32_t head_bytes; // of the message in work, so far
  uint32_t max_head_bytes;
  uint8_t problem; // enum h1_problem
  bool in_head, in_trailers, head_request, pending_head, pending_end;
  bool poke;          // the parser has more to say without more input
  const char *reason; // text of the problem
};

enum h1_role { H1_SERVER, H1_CLIENT };

void h1_init(struct h1 *h1, enum h1_role role, uint32_t max_head_bytes);
// Gets ready for the next message, whose fields are kept in `arena`. `head_request`: the response answers HEAD.
void h1_begin(struct h1 *h1, struct h1_message *message, struct arena *arena, uint32_t max_headers, bool head_request);
// The message's owner goes before its last byte has come: what follows of it is parsed and kept nowhere.
void h1_abandon(struct h1 *h1);
// Parses up to the next event; `*used` bytes of the input are done with. A head's input must be contiguous in memory
// from call to call, until H1_HEAD.
// A granted upgrade ends the use of the codec: the rest of the input is the other protocol's.
enum h1_event h1_next(struct h1 *h1, struct slice input, uint32_t *used);
// The peer has closed: H1_END where that ends a message, H1_NEED_MORE between messages, H1_ERROR inside of one.
enum h1_event h1_finish(struct h1 *h1);
