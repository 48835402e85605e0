// SPDX-License-Identifier: Apache-2.0
// The PROXY protocol, versions 1 and 2: a proxy in front tells, before anything else, whom it speaks for; the gateway
// tells services the same. Only reads and writes bytes; who is believed is decided elsewhere.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "target.h"

enum {
  PROXY_PROTOCOL_MOST = 4096,      // bytes of a header that are read; version 1 has at most 107
  PROXY_PROTOCOL_WRITE_MOST = 128, // that are written
  PROXY_PROTOCOL_MORE = 0,         // what has come is the beginning of a header
  PROXY_PROTOCOL_BAD = -1
};

struct proxy_header {
  int version;
  bool known; // false: the proxy speaks for itself (LOCAL), or cannot tell (UNKNOWN): the connection's addresses hold
  struct address source, destination;
};

// The bytes that the header takes, PROXY_PROTOCOL_MORE or PROXY_PROTOCOL_BAD. Whatever does not begin as a header does
// is bad at its first wrong byte.
int proxy_protocol_read(const char *data, uint32_t len, struct proxy_header *out);

// Writes a header of that version for a connection from `source` to `destination`; the bytes written. Addresses that
// are no IP addresses of one family are told as unknown.
uint32_t proxy_protocol_write(int version, const struct address *source, const struct address *destination,
                              char out[PROXY_PROTOCOL_WRITE_MOST]);
