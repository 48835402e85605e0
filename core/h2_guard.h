// SPDX-License-Identifier: Apache-2.0
// What a client may do over HTTP/2 that costs it little and us something, as a bucket that empties with each such thing and
// fills with time and with useful work: so that a lively connection is never taken for a flood.
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct h2_bucket {
  int64_t filled_us; // when time last filled it
  int32_t level;
  int32_t most, a_second; // what it holds, and what time adds
};

void h2_bucket_init(struct h2_bucket *bucket, int32_t most, int32_t a_second, int64_t now_us);
// False: it is empty, and what asks for more is a flood.
bool h2_bucket_spend(struct h2_bucket *bucket, int32_t cost, int64_t now_us);
// Something useful was done.
void h2_bucket_earn(struct h2_bucket *bucket, int32_t amount);
// What a frame costs from its head alone (RFC 9113 4.1). H2_COST_DATA is earned back by content.
int32_t h2_frame_cost(uint8_t type, uint8_t flags, uint32_t length);

enum { H2_FRAME_HEAD = 9 };

enum {
  H2_CALM_MOST = 4000,
  H2_CALM_A_SECOND = 400,
  H2_COST_SMALL = 2,  // WINDOW_UPDATE, PRIORITY, RST_STREAM, frames that nobody knows
  H2_COST_DATA = 4,   // earned back by content
  H2_COST_PIECE = 10, // CONTINUATION
  // PING, SETTINGS (they want an answer), GOAWAY, empty frames; HEADERS, earned back by those that begin a request or
  // its trailers; malformed requests
  H2_COST_LARGE = 20,
  H2_EARNED_DATA = 24, // for a DATA frame sent: two WINDOW_UPDATE and a PING may come back for it
  H2_EARNED_REQUEST = 40,
  H2_RESETS_MOST = 200, // requests that were cancelled at once
  H2_RESETS_A_SECOND = 50,
  H2_RAPID_US = 100000
};
