// SPDX-License-Identifier: Apache-2.0
// The service's side over HTTP/2: connections that each carry many calls, one an exchange (RFC 9113).
#pragma once
#include <stdint.h>

struct carrier;
struct h2_client;
struct nghttp2_option;
struct nghttp2_session_callbacks;
struct worker;

enum { H2_BUCKETS = 64 };

// A worker's connections that take more calls, by pool key; empty until there is the first.
struct h2_pool {
  struct h2_client *buckets[H2_BUCKETS];
  uint32_t count; // of all that live
  struct nghttp2_session_callbacks *callbacks;
  struct nghttp2_option *option;
};

extern const struct carrier h2_carrier;

// At the worker's end, when no exchange is left.
void h2_client_close_all(struct worker *worker);
