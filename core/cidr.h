// SPDX-License-Identifier: Apache-2.0
// Ranges of addresses: "10.0.0.0/8", "fd00::/8", or one address. IPv4 is held in IPv6 form, so that both compare alike.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "slice.h"

struct sockaddr;

struct cidr {
  uint8_t bytes[16];
  uint8_t bits; // of the prefix, 0 to 128
};

// 0, or ERROR_INVALID and why.
int cidr_parse(struct slice text, struct cidr *out, struct error *error);
// The 16 bytes that are compared with a range; false when the address is no IP address.
bool cidr_bytes(const struct sockaddr *address, uint8_t out[16]);
bool cidr_has(const struct cidr *cidr, const uint8_t bytes[16]);
