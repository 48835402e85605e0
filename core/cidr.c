// SPDX-License-Identifier: Apache-2.0
// Ranges of addresses.
#include "cidr.h"

#include <stdlib.h>

#include "target.h"

bool cidr_bytes(const struct sockaddr *address, uint8_t out[16]) {
  static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (address->sa_family == AF_INET) {
    memcpy(out, prefix, 12);
    memcpy(out + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    return true;
  }
  if (address->sa_family != AF_INET6) return false;
  memcpy(out, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
  return true;
}

int cidr_parse(struct slice text, struct cidr *out, struct error *error) {
  const char *slash = memchr(text.data, '/', text.len);
  struct slice host = {text.data, slash ? (uint32_t)(slash - text.data) : text.len};
  struct address address;
  *out = (struct cidr){.bits = 128};
  if (!address_parse(host, 0, &address) || !cidr_bytes(&address.socket.base, out->bytes))
    return error_set(error, ERROR_INVALID, "'%.*s' is no address", (int)text.len, text.data);
  uint32_t widest = address.socket.base.sa_family == AF_INET ? 32 : 128;
  if (slash) {
    char digits[4] = {0}, *end = digits;
    uint32_t len = text.len - host.len - 1;
    if (len > 0 && len < sizeof digits) memcpy(digits, slash + 1, len);
    unsigned long bits = strtoul(digits, &end, 10);
    if (digits[0] < '0' || digits[0] > '9' || *end || bits > widest)
      return error_set(error, ERROR_INVALID, "'%.*s' has no valid prefix length", (int)text.len, text.data);
    out->bits = (uint8_t)(bits + 128 - widest);
  }
  return 0;
}

bool cidr_has(const struct cidr *cidr, const uint8_t bytes[16]) {
  uint32_t whole = cidr->bits / 8, rest = cidr->bits % 8;
  if (memcmp(cidr->bytes, bytes, whole) != 0) return false;
  if (rest == 0) return true;
  uint8_t mask = (uint8_t)(0xff << (8 - rest));
  return ((cidr->bytes[whole] ^ bytes[whole]) & mask) == 0;
}
