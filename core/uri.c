// SPDX-License-Identifier: Apache-2.0
// Targets, hosts and canonical paths. One table says what each byte may be; everything else reads it.
#include "uri.h"

#include <arpa/inet.h>
#include <assert.h>

enum {
  UNRESERVED = 1, // decoded where it is percent-encoded (RFC 3986 2.3)
  PATH = 2,       // stands in a canonical path as it is
  HOST = 4,       // stands in a name
  TARGET = 8,     // may be received in a path or query
  UPPER_HEX = 16,
  LOWER_HEX = 32
};

#define PLAIN (UNRESERVED | PATH | TARGET)
#define DELIMITER (PATH | TARGET)

static const uint8_t classes[256] = {
    ['!'] = DELIMITER,
    ['"'] = TARGET, // "#" is left out: a fragment is never sent
    ['$'] = DELIMITER,
    ['%'] = TARGET,
    ['&' ... ','] = DELIMITER,
    ['-' ... '.'] = PLAIN | HOST,
    ['/'] = DELIMITER,
    ['0' ... '9'] = PLAIN | HOST | UPPER_HEX,
    [':' ... ';'] = DELIMITER,
    ['<'] = TARGET,
    ['='] = DELIMITER,
    ['>' ... '?'] = TARGET,
    ['@'] = DELIMITER,
    ['A' ... 'F'] = PLAIN | HOST | UPPER_HEX,
    ['G' ... 'Z'] = PLAIN | HOST,
    ['[' ... '^'] = TARGET,
    ['_'] = PLAIN | HOST,
    ['`'] = TARGET,
    ['a' ... 'f'] = PLAIN | HOST | LOWER_HEX,
    ['g' ... 'z'] = PLAIN | HOST,
    ['{' ... '}'] = TARGET,
    ['~'] = PLAIN,
    [0x80 ... 0xff] = TARGET,
};

static inline uint8_t class_of(char c) {
  return classes[(uint8_t)c];
}

static struct slice slice_between(const char *from, const char *to) {
  return (struct slice){from, (uint32_t)(to - from)};
}

// ---- Targets ----

static int split_query(struct slice rest, struct uri *out, struct error *error) {
  const char *end = rest.data + rest.len, *mark = NULL;
  for (const char *c = rest.data; c < end; c++) {
    if (!(class_of(*c) & TARGET)) return error_set(error, ERROR_INVALID, "byte 0x%02x in the target", (uint8_t)*c);
    if (*c == '?' && !mark) mark = c;
  }
  out->path = slice_between(rest.data, mark ? mark : end);
  out->has_query = mark != NULL;
  if (mark) out->query = slice_between(mark + 1, end);
  return 0;
}

static uint32_t scheme_len(struct slice target) {
  if (target.len > 7 && slice_equal_nocase((struct slice){target.data, 7}, SLICE("http://"))) return 4;
  if (target.len > 8 && slice_equal_nocase((struct slice){target.data, 8}, SLICE("https://"))) return 5;
  return 0;
}

static int parse_absolute(struct slice target, struct uri *out, struct error *error) {
  uint32_t scheme = scheme_len(target);
  if (!scheme) return error_set(error, ERROR_INVALID, "the target is neither a path nor an http URI");
  out->form = URI_ABSOLUTE;
  out->scheme = (struct slice){target.data, scheme};
  const char *host = target.data + scheme + 3, *end = target.data + target.len, *at = host;
  while (at < end && *at != '/' && *at != '?' && *at != '#') at++;
  out->host = slice_between(host, at);
  if (out->host.len == 0) return error_set(error, ERROR_INVALID, "the target has no host");
  if (split_query(slice_between(at, end), out, error) < 0) return ERROR_INVALID;
  if (out->path.len == 0) out->path = SLICE("/");
  return 0;
}

int uri_parse_target(struct slice method, struct slice target, struct uri *out, struct error *error) {
  *out = (struct uri){0};
  if (target.len == 0) return error_set(error, ERROR_INVALID, "the target is empty");
  if (slice_equal(method, SLICE("CONNECT"))) {
    out->form = URI_AUTHORITY;
    out->host = target;
    return 0;
  }
  if (target.data[0] == '/') return split_query(target, out, error);
  if (target.len == 1 && target.data[0] == '*') {
    if (!slice_equal(method, SLICE("OPTIONS"))) return error_set(error, ERROR_INVALID, "* is for OPTIONS only");
    out->form = URI_ASTERISK;
    out->path = target;
    return 0;
  }
  return parse_absolute(target, out, error);
}

// ---- Hosts ----

static int parse_port(struct slice digits, uint16_t *out, struct error *error) {
  uint32_t port = 0;
  if (digits.len > 5) return error_set(error, ERROR_INVALID, "the port of the host is no port");
  for (uint32_t i = 0; i < digits.len; i++) {
    if (digits.data[i] < '0' || digits.data[i] > '9')
      return error_set(error, ERROR_INVALID, "the port of the host is no number");
    port = port * 10 + (uint32_t)(digits.data[i] - '0');
  }
  if (port > 65535 || (port == 0 && digits.len > 0))
    return error_set(error, ERROR_INVALID, "the port of the host is no port");
  *out = (uint16_t)port;
  return 0;
}

// What an address parser of the system accepts; it wants a terminated copy.
static bool is_address(int family, struct slice text) {
  char copy[INET6_ADDRSTRLEN];
  uint8_t bytes[16];
  if (text.len == 0 || text.len >= sizeof copy) return false;
  memcpy(copy, text.data, text.len);
  copy[text.len] = 0;
  return inet_pton(family, copy, bytes) == 1;
}

static int parse_bracketed(struct slice field, struct uri_host *out, struct error *error) {
  const char *close = memchr(field.data, ']', field.len);
  if (!close || !is_address(AF_INET6, slice_between(field.data + 1, close)))
    return error_set(error, ERROR_INVALID, "the host is no IPv6 address");
  out->kind = URI_HOST_IPV6;
  out->name = slice_between(field.data, close + 1);
  for (uint32_t i = 0; i < out->name.len; i++) out->has_upper |= out->name.data[i] != ascii_lower(out->name.data[i]);
  struct slice rest = slice_between(close + 1, field.data + field.len);
  if (rest.len == 0) return 0;
  if (rest.data[0] != ':') return error_set(error, ERROR_INVALID, "the host goes on behind its IPv6 address");
  return parse_port((struct slice){rest.data + 1, rest.len - 1}, &out->port, error);
}

static int check_name(struct uri_host *out, struct error *error) {
  bool numeric = true, label_empty = true;
  uint32_t dots = 0;
  for (uint32_t i = 0; i < out->name.len; i++) {
    char c = out->name.data[i];
    if (!(class_of(c) & HOST)) return error_set(error, ERROR_INVALID, "byte 0x%02x in the host", (uint8_t)c);
    if (c == '.' && label_empty) return error_set(error, ERROR_INVALID, "the host has an empty label");
    label_empty = c == '.';
    dots += c == '.';
    numeric &= c == '.' || (c >= '0' && c <= '9');
    out->has_upper |= c >= 'A' && c <= 'Z';
  }
  if (numeric && dots > 0) {
    // Some resolvers read "127.1" or "0177.0.0.1" as addresses: nothing may disagree about what this is.
    if (!is_address(AF_INET, out->name)) return error_set(error, ERROR_INVALID, "the host is no IPv4 address");
    out->kind = URI_HOST_IPV4;
  }
  return 0;
}

int uri_parse_host(struct slice field, struct uri_host *out, struct error *error) {
  *out = (struct uri_host){0};
  if (field.len > 0 && field.data[0] == '[') return parse_bracketed(field, out, error);
  const char *colon = field.len ? memchr(field.data, ':', field.len) : NULL;
  out->name = field;
  if (colon) {
    out->name = slice_between(field.data, colon);
    if (parse_port(slice_between(colon + 1, field.data + field.len), &out->port, error) < 0) return ERROR_INVALID;
  }
  // "a.example." is the same name as "a.example", and must meet the same route.
  if (out->name.len > 1 && out->name.data[out->name.len - 1] == '.') out->name.len--;
  if (out->name.len == 0) return error_set(error, ERROR_INVALID, "the host is empty");
  if (out->name.len > URI_HOST_MAX) return error_set(error, ERROR_INVALID, "the host is too long");
  return check_name(out, error);
}

struct slice uri_lower_host(const struct uri_host *host, char out[URI_HOST_MAX + 1]) {
  if (!host->has_upper) return host->name;
  assert(host->name.len <= URI_HOST_MAX);
  for (uint32_t i = 0; i < host->name.len; i++) out[i] = ascii_lower(host->name.data[i]);
  out[host->name.len] = 0;
  return (struct slice){out, host->name.len};
}

// ---- Paths ----

// 0: no dot segment, 1: ".", 2: "..". Parameters behind the dots do not make it another segment.
static uint32_t segment_dots(const char *segment, const char *end) {
  uint32_t dots = 0;
  while (segment < end && *segment == '.') {
    dots++;
    segment++;
  }
  if (dots == 0 || dots > 2) return 0;
  if (segment == end || *segment == ';') return dots;
  return end - segment >= 3 && memcmp(segment, "%3B", 3) == 0 ? dots : 0;
}

static uint32_t hex_value(char c) {
  return (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

// The byte behind a "%"; -1 when it is none.
static int decode(const char *at, const char *end) {
  if (end - at < 3 || !(class_of(at[1]) & (UPPER_HEX | LOWER_HEX)) || !(class_of(at[2]) & (UPPER_HEX | LOWER_HEX)))
    return -1;
  return (int)(hex_value(at[1]) << 4 | hex_value(at[2]));
}

static bool is_canonical_escape(const char *at, const char *end) {
  int byte = decode(at, end);
  return byte > 0 && !(classes[byte] & UNRESERVED) && !((class_of(at[1]) | class_of(at[2])) & LOWER_HEX);
}

bool uri_is_canonical(struct slice raw_path) {
  const char *at = raw_path.data, *end = at + raw_path.len;
  if (raw_path.len == 0 || *at != '/') return false;
  while (at < end) {
    if (*at == '/') {
      at++;
      if (at < end && *at == '/') return false;
      if (at < end && *at == '.') {
        const char *close = memchr(at, '/', (size_t)(end - at));
        if (segment_dots(at, close ? close : end)) return false;
      }
    } else if (class_of(*at) & PATH) {
      at++;
    } else {
      if (*at != '%' || !is_canonical_escape(at, end)) return false;
      at += 3;
    }
  }
  return true;
}

struct writer {
  char *out;
  uint32_t len, room;
};

static void put(struct writer *writer, char c) {
  if (writer->len < writer->room) writer->out[writer->len] = c;
  writer->len++;
}

static void put_escape(struct writer *writer, uint8_t byte) {
  static const char digits[] = "0123456789ABCDEF";
  put(writer, '%');
  put(writer, digits[byte >> 4]);
  put(writer, digits[byte & 15]);
}

// One byte or escape of a segment. How many bytes it took; 0: refused.
static uint32_t put_piece(struct writer *writer, const char *at, const char *end) {
  if (*at == '%') {
    int byte = decode(at, end);
    if (byte <= 0) return 0;
    if (classes[byte] & UNRESERVED)
      put(writer, (char)byte);
    else
      put_escape(writer, (uint8_t)byte);
    return 3;
  }
  if (!(class_of(*at) & TARGET) || *at == '?') return 0;
  if (class_of(*at) & PATH)
    put(writer, *at);
  else
    put_escape(writer, (uint8_t)*at);
  return 1;
}

// Takes back the segment that begins at `start` when it is a dot segment, and for ".." the one before it. What remains
// ends with the slash in front.
static void end_segment(struct writer *writer, uint32_t start) {
  uint32_t dots = segment_dots(writer->out + start, writer->out + writer->len);
  if (dots == 0) return;
  writer->len = start;
  if (dots == 1 || start == 1) return;
  writer->len--;
  while (writer->out[writer->len - 1] != '/') writer->len--;
}

int uri_normalise(struct slice raw_path, char *out, uint32_t room, uint32_t *out_len, struct error *error) {
  struct writer writer = {out, 0, room};
  const char *at = raw_path.data, *end = at + raw_path.len;
  if (raw_path.len == 0 || *at != '/') return error_set(error, ERROR_INVALID, "the path does not begin with a slash");
  while (at < end) {
    while (at < end && *at == '/') at++;
    if (writer.len == 0 || writer.out[writer.len - 1] != '/') put(&writer, '/');
    uint32_t start = writer.len;
    while (at < end && *at != '/') {
      uint32_t taken = put_piece(&writer, at, end);
      if (taken == 0) return error_set(error, ERROR_INVALID, "byte 0x%02x in the path is no part of one", (uint8_t)*at);
      at += taken;
    }
    if (writer.len > room) return error_set(error, ERROR_MEMORY, "the path is too long");
    end_segment(&writer, start);
  }
  *out_len = writer.len;
  return 0;
}
