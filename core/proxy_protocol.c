// SPDX-License-Identifier: Apache-2.0
// The PROXY protocol as its authors specify it (haproxy's proxy-protocol.txt, sections 2.1 and 2.2), read strictly.
//
//   1:  PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CR LF
//   2:  signature (12) | version, command | family, transport | length (2) | addresses | fields (type, length, value)
#include "proxy_protocol.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum {
  LINE_MOST = 107,
  SIGNATURE = 12,
  FIXED = 16,
  COMMAND_LOCAL = 0x20,
  COMMAND_PROXY = 0x21,
  UNSPECIFIED = 0x00,
  TCP4 = 0x11,
  TCP6 = 0x21,
  LOCAL_STREAM = 0x31,
  BYTES_4 = 12,
  BYTES_6 = 36,
  BYTES_LOCAL = 216,
  FIELD_CRC32C = 0x03
};

static const char signature[SIGNATURE + 1] = "\r\n\r\n\0\r\nQUIT\n";

static void set_v4(struct address *out, const void *bytes, uint16_t port) {
  *out = (struct address){.len = sizeof out->socket.v4};
  out->socket.v4.sin_family = AF_INET;
  out->socket.v4.sin_port = htons(port);
  memcpy(&out->socket.v4.sin_addr, bytes, 4);
}

static void set_v6(struct address *out, const void *bytes, uint16_t port) {
  *out = (struct address){.len = sizeof out->socket.v6};
  out->socket.v6.sin6_family = AF_INET6;
  out->socket.v6.sin6_port = htons(port);
  memcpy(&out->socket.v6.sin6_addr, bytes, 16);
}

// ---- Version 1 -------------------------------------------------------------------------------------------------------

// The next word, ended by one space or by the end of the line; false when there is none.
static bool next_word(struct slice *line, char *word, size_t room) {
  const char *space = memchr(line->data, ' ', line->len);
  uint32_t len = space ? (uint32_t)(space - line->data) : line->len;
  if (len == 0 || len >= room || memchr(line->data, 0, len)) return false;
  memcpy(word, line->data, len);
  word[len] = 0;
  line->data += len + (space ? 1 : 0);
  line->len -= len + (space ? 1 : 0);
  return true;
}

static bool read_port(const char *word, uint16_t *port) {
  uint32_t value = 0;
  size_t len = strlen(word);
  if (len > 5 || (word[0] == '0' && len > 1)) return false;
  for (size_t i = 0; i < len; i++) {
    if (word[i] < '0' || word[i] > '9') return false;
    value = value * 10 + (uint32_t)(word[i] - '0');
  }
  *port = (uint16_t)value;
  return value <= 65535;
}

static bool read_address(int family, const char *word, uint16_t port, struct address *out) {
  uint8_t bytes[16];
  if (inet_pton(family, word, bytes) != 1) return false;
  if (family == AF_INET)
    set_v4(out, bytes, port);
  else
    set_v6(out, bytes, port);
  return true;
}

// Behind "PROXY ", without CR LF.
static bool read_line(struct slice line, struct proxy_header *out) {
  char protocol[8], source[48], destination[48], source_port[8], destination_port[8];
  uint16_t from, to;
  bool ended_by_space = line.len > 0 && line.data[line.len - 1] == ' ';
  if (!next_word(&line, protocol, sizeof protocol)) return false;
  if (strcmp(protocol, "UNKNOWN") == 0) return true;
  int family = strcmp(protocol, "TCP4") == 0 ? AF_INET : strcmp(protocol, "TCP6") == 0 ? AF_INET6 : 0;
  if (!family || ended_by_space) return false;
  if (!next_word(&line, source, sizeof source) || !next_word(&line, destination, sizeof destination) ||
      !next_word(&line, source_port, sizeof source_port) ||
      !next_word(&line, destination_port, sizeof destination_port) || line.len > 0)
    return false;
  out->known = true;
  return read_port(source_port, &from) && read_port(destination_port, &to) &&
         read_address(family, source, from, &out->source) && read_address(family, destination, to, &out->destination);
}

static int read_v1(const char *data, uint32_t len, struct proxy_header *out) {
  uint32_t most = len < LINE_MOST ? len : LINE_MOST;
  const char *end = memchr(data, '\n', most);
  if (!end) return len < LINE_MOST && !memchr(data, '\r', len > 0 ? len - 1 : 0) ? PROXY_PROTOCOL_MORE : -1;
  uint32_t line_len = (uint32_t)(end - data);
  if (data[line_len - 1] != '\r' || memchr(data, '\r', line_len - 1)) return PROXY_PROTOCOL_BAD;
  out->version = 1;
  struct slice line = {data + 6, line_len - 7};
  return read_line(line, out) ? (int)line_len + 1 : PROXY_PROTOCOL_BAD;
}

// ---- Version 2 -------------------------------------------------------------------------------------------------------

static uint16_t read_16(const char *data) {
  return (uint16_t)((uint8_t)data[0] << 8 | (uint8_t)data[1]);
}

static uint32_t crc32c(uint32_t crc, const char *data, uint32_t len) {
  for (uint32_t i = 0; i < len; i++) {
    crc ^= (uint8_t)data[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
  }
  return crc;
}

// The checksum is that of the whole header with zeros in its own place.
static bool checksum_holds(const char *data, uint32_t len, uint32_t at) {
  uint32_t told = (uint32_t)read_16(data + at) << 16 | read_16(data + at + 2);
  uint32_t crc = crc32c(UINT32_MAX, data, at);
  crc = crc32c(crc, "\0\0\0\0", 4);
  crc = crc32c(crc, data + at + 4, len - at - 4);
  return (crc ^ UINT32_MAX) == told;
}

// What stands behind the addresses. Nothing of it is used, but it has to be whole.
static bool fields_are_whole(const char *data, uint32_t at, uint32_t end) {
  while (at < end) {
    if (end - at < 3) return false;
    uint32_t type = (uint8_t)data[at], len = read_16(data + at + 1);
    at += 3;
    if (len > end - at) return false;
    if (type == FIELD_CRC32C && (len != 4 || !checksum_holds(data, end, at))) return false;
    at += len;
  }
  return true;
}

static int address_bytes(int family) {
  switch (family) {
  case UNSPECIFIED: return 0;
  case TCP4: return BYTES_4;
  case TCP6: return BYTES_6;
  case LOCAL_STREAM: return BYTES_LOCAL;
  default: return -1;
  }
}

static void read_addresses(int family, const char *at, struct proxy_header *out) {
  if (family == TCP4) {
    set_v4(&out->source, at, read_16(at + 8));
    set_v4(&out->destination, at + 4, read_16(at + 10));
  } else {
    set_v6(&out->source, at, read_16(at + 32));
    set_v6(&out->destination, at + 16, read_16(at + 34));
  }
  out->known = true;
}

static int read_v2(const char *data, uint32_t len, struct proxy_header *out) {
  if (len > SIGNATURE && data[SIGNATURE] != COMMAND_LOCAL && data[SIGNATURE] != COMMAND_PROXY) return -1;
  if (len < FIXED) return PROXY_PROTOCOL_MORE;
  int family = (uint8_t)data[13], addresses = address_bytes(family);
  uint32_t whole = FIXED + (uint32_t)read_16(data + 14);
  if (whole > PROXY_PROTOCOL_MOST) return PROXY_PROTOCOL_BAD;
  bool local = data[SIGNATURE] == COMMAND_LOCAL;
  if (!local && (addresses < 0 || (uint32_t)addresses > whole - FIXED)) return PROXY_PROTOCOL_BAD;
  if (len < whole) return PROXY_PROTOCOL_MORE;
  out->version = 2;
  // What follows LOCAL is to be passed over, whatever it is; and what stands behind no addresses cannot be told apart.
  if (local || family == UNSPECIFIED) return (int)whole;
  if (!fields_are_whole(data, FIXED + (uint32_t)addresses, whole)) return PROXY_PROTOCOL_BAD;
  if (family != LOCAL_STREAM) read_addresses(family, data + FIXED, out);
  return (int)whole;
}

int proxy_protocol_read(const char *data, uint32_t len, struct proxy_header *out) {
  *out = (struct proxy_header){0};
  if (len == 0) return PROXY_PROTOCOL_MORE;
  bool second = data[0] == signature[0];
  const char *start = second ? signature : "PROXY ";
  uint32_t start_len = second ? SIGNATURE : 6;
  if (memcmp(data, start, len < start_len ? len : start_len) != 0) return PROXY_PROTOCOL_BAD;
  if (len < start_len) return PROXY_PROTOCOL_MORE;
  return second ? read_v2(data, len, out) : read_v1(data, len, out);
}

// ---- Writing ---------------------------------------------------------------------------------------------------------

// Both in one family; a pair of which one is IPv4 in IPv6 form stays as it is. 0: not to be told.
static int common_family(const struct address *source, const struct address *destination) {
  int family = source->socket.base.sa_family;
  if (destination->socket.base.sa_family != family) return 0;
  return family == AF_INET || family == AF_INET6 ? family : 0;
}

// As the line says its family, unlike address_text, which shows IPv4 in IPv6 form as IPv4.
static void ip_text(int family, const struct address *address, char out[INET6_ADDRSTRLEN]) {
  const void *bytes =
      family == AF_INET ? (const void *)&address->socket.v4.sin_addr : (const void *)&address->socket.v6.sin6_addr;
  inet_ntop(family, bytes, out, INET6_ADDRSTRLEN);
}

static uint32_t write_v1(int family, const struct address *source, const struct address *destination, char *out) {
  char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
  if (!family) {
    memcpy(out, "PROXY UNKNOWN\r\n", 15);
    return 15;
  }
  ip_text(family, source, from);
  ip_text(family, destination, to);
  int len = snprintf(out, PROXY_PROTOCOL_WRITE_MOST, "PROXY %s %s %s %u %u\r\n", family == AF_INET ? "TCP4" : "TCP6",
                     from, to, address_port(&source->socket.base), address_port(&destination->socket.base));
  return (uint32_t)len;
}

static char *put(char *at, const void *bytes, size_t len) {
  memcpy(at, bytes, len);
  return at + len;
}

static uint32_t write_v2(int family, const struct address *source, const struct address *destination, char *out) {
  char *at = put(out, signature, SIGNATURE);
  *at++ = family ? COMMAND_PROXY : COMMAND_LOCAL;
  *at++ = family == AF_INET ? TCP4 : family == AF_INET6 ? TCP6 : UNSPECIFIED;
  *at++ = 0;
  *at++ = family == AF_INET ? BYTES_4 : family == AF_INET6 ? BYTES_6 : 0;
  if (family == AF_INET) {
    at = put(at, &source->socket.v4.sin_addr, 4);
    at = put(at, &destination->socket.v4.sin_addr, 4);
    at = put(at, &source->socket.v4.sin_port, 2);
    at = put(at, &destination->socket.v4.sin_port, 2);
  } else if (family == AF_INET6) {
    at = put(at, &source->socket.v6.sin6_addr, 16);
    at = put(at, &destination->socket.v6.sin6_addr, 16);
    at = put(at, &source->socket.v6.sin6_port, 2);
    at = put(at, &destination->socket.v6.sin6_port, 2);
  }
  return (uint32_t)(at - out);
}

uint32_t proxy_protocol_write(int version, const struct address *source, const struct address *destination,
                              char out[PROXY_PROTOCOL_WRITE_MOST]) {
  int family = common_family(source, destination);
  return version == 1 ? write_v1(family, source, destination, out) : write_v2(family, source, destination, out);
}
