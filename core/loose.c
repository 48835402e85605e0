// SPDX-License-Identifier: Apache-2.0
// Other readings of a path. RFC 3986 makes "%2F" and ";x" part of a segment, and so does the canonical form; but servers
// behind a gateway decode first and split then, or throw parameters away, in this order or in that.
#include "loose.h"

static bool is_escape(const char *at, const char *end, const char *digits) {
  return end - at >= 3 && at[0] == '%' && at[1] == digits[0] && at[2] == digits[1];
}

static uint32_t kind_at(const char *at, const char *end) {
  if (*at == ';') return LOOSE_SEMICOLON;
  if (*at != '%') return 0;
  if (is_escape(at, end, "2F")) return LOOSE_SLASH;
  if (is_escape(at, end, "5C")) return LOOSE_BACKSLASH;
  return is_escape(at, end, "3B") ? LOOSE_ESCAPED_SEMICOLON : 0;
}

uint32_t loose_kinds(struct slice path) {
  if (path.len == 0) return 0;
  uint32_t kinds = memchr(path.data, ';', path.len) ? LOOSE_SEMICOLON : 0;
  const char *at = path.data, *end = at + path.len;
  while ((at = memchr(at, '%', (size_t)(end - at)))) kinds |= kind_at(at++, end);
  return kinds;
}

bool loose_applies(uint32_t reading, uint32_t kinds) {
  uint32_t does = reading & LOOSE_KINDS;
  bool cuts = does & (LOOSE_SEMICOLON | LOOSE_ESCAPED_SEMICOLON);
  if (does == 0 || (does & ~kinds)) return false;
  if (reading & LOOSE_PAST_SLASH && !(cuts && does & LOOSE_SLASH)) return false;
  return !(reading & LOOSE_PAST_BACKSLASH) || (cuts && does & LOOSE_BACKSLASH);
}

static bool is_dots(const char *from, const char *to) {
  return (to - from == 1 && from[0] == '.') || (to - from == 2 && from[0] == '.' && from[1] == '.');
}

// Whether what is at `at` ends a segment, within parameters or outside of them.
static bool is_separator(char c, uint32_t kind, uint32_t reading, bool within) {
  if (c == '/') return true;
  if (!(kind & reading & (LOOSE_SLASH | LOOSE_BACKSLASH))) return false;
  return !within || !(reading & (kind == LOOSE_SLASH ? LOOSE_PAST_SLASH : LOOSE_PAST_BACKSLASH));
}

int64_t loose_read(struct slice path, uint32_t reading, char *out) {
  const char *at = path.data, *end = at + path.len;
  char *to = out, *segment = out;
  bool within = false; // parameters
  while (at < end) {
    uint32_t kind = kind_at(at, end);
    if (is_separator(*at, kind, reading, within)) {
      if (is_dots(segment, to)) return -1;
      if (to == out || to[-1] != '/') *to++ = '/';
      segment = to;
      within = false;
      at += kind ? 3 : 1;
      continue;
    }
    within = within || kind & reading & (LOOSE_SEMICOLON | LOOSE_ESCAPED_SEMICOLON);
    if (!within) *to++ = *at;
    at++;
  }
  return is_dots(segment, to) ? -1 : to - out;
}
