// SPDX-License-Identifier: Apache-2.0
// A view of bytes that somebody else owns: nothing here is ever freed or terminated by zero.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct slice {
  const char *data;
  uint32_t len;
};

#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})

static inline struct slice slice_of(const char *text) {
  return (struct slice){text, (uint32_t)strlen(text)};
}

enum { DIGITS_MOST = 20 };

// The number in decimal digits, at the end of `room`.
static inline struct slice slice_of_number(uint64_t number, char room[DIGITS_MOST]) {
  uint32_t at = DIGITS_MOST;
  do room[--at] = (char)('0' + number % 10);
  while (number /= 10);
  return (struct slice){room + at, DIGITS_MOST - at};
}

static inline bool slice_equal(struct slice a, struct slice b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

// Equal but for the case of ASCII letters, as field names and hosts are compared (RFC 9110 5.1, 4.2.3).
static inline bool slice_equal_nocase(struct slice a, struct slice b) {
  if (a.len != b.len) return false;
  for (uint32_t i = 0; i < a.len; i++)
    if (ascii_lower(a.data[i]) != ascii_lower(b.data[i])) return false;
  return true;
}
