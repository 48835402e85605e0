// SPDX-License-Identifier: Apache-2.0
// Buckets against floods over HTTP/2.
#include "h2_guard.h"

#include <nghttp2/nghttp2.h>

void h2_bucket_init(struct h2_bucket *bucket, int32_t most, int32_t a_second, int64_t now_us) {
  *bucket = (struct h2_bucket){.filled_us = now_us, .level = most, .most = most, .a_second = a_second};
}

// Time is looked at only when the bucket seems empty.
bool h2_bucket_spend(struct h2_bucket *bucket, int32_t cost, int64_t now_us) {
  bucket->level -= cost;
  if (bucket->level >= 0) return true;
  int64_t gained = (now_us - bucket->filled_us) / 1000 * bucket->a_second / 1000;
  if (gained > 0) {
    bucket->filled_us = now_us;
    h2_bucket_earn(bucket, gained > bucket->most ? bucket->most : (int32_t)gained);
  }
  if (bucket->level >= 0) return true;
  bucket->level += cost; // nothing was done that it would pay for
  return false;
}

void h2_bucket_earn(struct h2_bucket *bucket, int32_t amount) {
  bucket->level = bucket->level < bucket->most - amount ? bucket->level + amount : bucket->most;
}

int32_t h2_frame_cost(uint8_t type, uint8_t flags, uint32_t length) {
  bool ends = (flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (type) {
  case NGHTTP2_DATA: return length == 0 && !ends ? H2_COST_LARGE : H2_COST_DATA;
  case NGHTTP2_CONTINUATION: return length == 0 ? H2_COST_LARGE : H2_COST_PIECE;
  case NGHTTP2_HEADERS:
  case NGHTTP2_SETTINGS:
  case NGHTTP2_PING:
  case NGHTTP2_GOAWAY: return H2_COST_LARGE;
  default: return H2_COST_SMALL;
  }
}
