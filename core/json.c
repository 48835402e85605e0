// SPDX-License-Identifier: Apache-2.0
// A walk over JSON that keeps nothing but its place.
#include "json.h"

struct walk {
  const char *data, *end, *p;
  uint8_t levels[JSON_DEPTH_MOST / 8]; // a bit each: set for an object
  uint32_t depth, most;
  bool any_bytes; // beyond ASCII
  struct error *error;
};

static int wrong(struct walk *walk, const char *what) {
  return error_set(walk->error, ERROR_INVALID, "%s at byte %lu", what, (unsigned long)(walk->p - walk->data) + 1);
}

static void skip_space(struct walk *walk) {
  while (walk->p < walk->end && (*walk->p == ' ' || *walk->p == '\n' || *walk->p == '\r' || *walk->p == '\t'))
    walk->p++;
}

// The next byte, 0 at the end (a NUL is no part of JSON outside of strings either).
static char peek(const struct walk *walk) {
  return walk->p < walk->end ? *walk->p : 0;
}

static bool in_object(const struct walk *walk) {
  uint32_t level = walk->depth - 1;
  return (walk->levels[level / 8] >> (level % 8)) & 1;
}

static int hex4(const char *p, const char *end) {
  if (end - p < 4) return -1;
  int value = 0;
  for (int i = 0; i < 4; i++) {
    char c = ascii_lower(p[i]);
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

// Behind a backslash. Halves of a surrogate pair stand for nothing alone.
static int skip_escape(struct walk *walk) {
  char c = peek(walk);
  if (c && strchr("\"\\/bfnrt", c)) {
    walk->p++;
    return 0;
  }
  int code = c == 'u' ? hex4(walk->p + 1, walk->end) : -1;
  if (code < 0) return wrong(walk, "an invalid escape");
  if (code >= 0xdc00 && code <= 0xdfff) return wrong(walk, "half of a surrogate pair");
  walk->p += 5;
  if (code < 0xd800 || code > 0xdbff) return 0;
  bool pair = walk->end - walk->p >= 6 && walk->p[0] == '\\' && walk->p[1] == 'u';
  int low = pair ? hex4(walk->p + 2, walk->end) : -1;
  if (low < 0xdc00 || low > 0xdfff) return wrong(walk, "half of a surrogate pair");
  walk->p += 6;
  return 0;
}

// One character beyond ASCII: neither overlong nor a surrogate (RFC 3629).
static int skip_utf8(struct walk *walk) {
  const uint8_t *p = (const uint8_t *)walk->p;
  if (walk->any_bytes) {
    walk->p++;
    return 0;
  }
  int more = p[0] >= 0xc2 && p[0] <= 0xdf ? 1 : (p[0] & 0xf0) == 0xe0 ? 2 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 3 : 0;
  if (more == 0 || walk->end - walk->p <= more) return wrong(walk, "invalid UTF-8");
  uint8_t low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
  uint8_t high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
  if (p[1] < low || p[1] > high) return wrong(walk, "invalid UTF-8");
  for (int i = 2; i <= more; i++)
    if ((p[i] & 0xc0) != 0x80) return wrong(walk, "invalid UTF-8");
  walk->p += more + 1;
  return 0;
}

static int skip_string(struct walk *walk) {
  walk->p++;
  while (walk->p < walk->end) {
    uint8_t c = (uint8_t)*walk->p;
    int status = 0;
    if (c == '"') {
      walk->p++;
      return 0;
    }
    if (c < 0x20) return wrong(walk, "a control character in a string");
    if (c >= 0x80) {
      status = skip_utf8(walk);
    } else {
      walk->p++;
      if (c == '\\') status = skip_escape(walk);
    }
    if (status < 0) return status;
  }
  return wrong(walk, "a string without an end");
}

static bool skip_digits(struct walk *walk) {
  const char *from = walk->p;
  while (peek(walk) >= '0' && peek(walk) <= '9') walk->p++;
  return walk->p > from;
}

static int skip_number(struct walk *walk) {
  if (peek(walk) == '-') walk->p++;
  bool zero = peek(walk) == '0';
  const char *from = walk->p;
  if (!skip_digits(walk) || (zero && walk->p - from > 1)) return wrong(walk, "an invalid number");
  if (peek(walk) == '.') {
    walk->p++;
    if (!skip_digits(walk)) return wrong(walk, "an invalid number");
  }
  if (peek(walk) == 'e' || peek(walk) == 'E') {
    walk->p++;
    if (peek(walk) == '+' || peek(walk) == '-') walk->p++;
    if (!skip_digits(walk)) return wrong(walk, "an invalid number");
  }
  return 0;
}

static int skip_word(struct walk *walk) {
  static const struct slice words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (walk->end - walk->p < words[i].len || memcmp(walk->p, words[i].data, words[i].len) != 0) continue;
    walk->p += words[i].len;
    return 0;
  }
  return wrong(walk, "expected a value");
}

static int open_level(struct walk *walk, bool object) {
  if (walk->depth >= walk->most) return wrong(walk, "nested too deeply");
  uint8_t bit = (uint8_t)(1u << (walk->depth % 8));
  uint8_t *place = &walk->levels[walk->depth / 8];
  *place = (uint8_t)(object ? *place | bit : *place & ~bit);
  walk->depth++;
  walk->p++;
  return 0;
}

// `"name":` of a member.
static int skip_name(struct walk *walk) {
  skip_space(walk);
  if (peek(walk) != '"') return wrong(walk, "expected a name");
  if (skip_string(walk) < 0) return ERROR_INVALID;
  skip_space(walk);
  if (peek(walk) != ':') return wrong(walk, "expected :");
  walk->p++;
  return 0;
}

static int skip_scalar(struct walk *walk) {
  char c = peek(walk);
  if (c == '"') return skip_string(walk);
  if (c == '-' || (c >= '0' && c <= '9')) return skip_number(walk);
  return skip_word(walk);
}

// A value up to where the next one may begin. 1: it is a container that has been entered, and is not empty.
static int skip_value(struct walk *walk) {
  skip_space(walk);
  char c = peek(walk);
  if (c != '{' && c != '[') return skip_scalar(walk);
  if (open_level(walk, c == '{') < 0) return ERROR_INVALID;
  skip_space(walk);
  if (peek(walk) != (c == '{' ? '}' : ']')) return 1;
  walk->p++;
  walk->depth--;
  return 0;
}

// Behind a value: leaves the containers that end here. 1: another value follows.
static int leave(struct walk *walk) {
  while (walk->depth > 0) {
    skip_space(walk);
    char c = peek(walk);
    if (c == ',') {
      walk->p++;
      return 1;
    }
    if (c != (in_object(walk) ? '}' : ']')) return wrong(walk, in_object(walk) ? "expected , or }" : "expected , or ]");
    walk->p++;
    walk->depth--;
  }
  return 0;
}

static int check(struct slice text, uint32_t depth, bool any_bytes, struct error *error) {
  struct walk walk = {.data = text.data, .p = text.data, .end = text.data + text.len, .error = error};
  walk.most = depth < JSON_DEPTH_MOST ? depth : JSON_DEPTH_MOST;
  walk.any_bytes = any_bytes;
  int more = 1;
  while (more > 0) {
    if (walk.depth > 0 && in_object(&walk) && skip_name(&walk) < 0) return ERROR_INVALID;
    more = skip_value(&walk);
    if (more == 0) more = leave(&walk);
  }
  if (more < 0) return ERROR_INVALID;
  skip_space(&walk);
  return walk.p == walk.end ? 0 : wrong(&walk, "something follows the value");
}

int json_check(struct slice text, uint32_t depth, struct error *error) {
  return check(text, depth, false, error);
}

int json_check_form(struct slice text, uint32_t depth, struct error *error) {
  return check(text, depth, true, error);
}
