// SPDX-License-Identifier: Apache-2.0
// Trace contexts. In C, because most requests are not sampled, and those must not cost Lua a string.
#include "trace.h"

#include <string.h>

#include "worker.h"

enum { VERSION_AT = 0, ID_AT = 3, SPAN_AT = 36, FLAGS_AT = 53, SAMPLED = 1, RANDOM = 2 };

static const char HEX[] = "0123456789abcdef";

static int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Digits in lower case, as the format demands them.
static bool is_hex(const char *text, uint32_t len) {
  for (uint32_t i = 0; i < len; i++)
    if (digit_of(text[i]) < 0) return false;
  return true;
}

// The same, and not all of them 0.
static bool is_id(const char *text, uint32_t len) {
  if (!is_hex(text, len)) return false;
  for (uint32_t i = 0; i < len; i++)
    if (text[i] != '0') return true;
  return false;
}

bool trace_parse(struct slice text, struct trace_ids *out) {
  const char *at = text.data;
  if (text.len < TRACE_PARENT_BYTES || at[2] != '-' || at[35] != '-' || at[52] != '-') return false;
  if (!is_hex(at, 2) || memcmp(at, "ff", 2) == 0 || !is_hex(at + FLAGS_AT, 2)) return false;
  // A later version may have more behind it.
  bool longer = text.len > TRACE_PARENT_BYTES;
  if (longer && (memcmp(at, "00", 2) == 0 || at[TRACE_PARENT_BYTES] != '-')) return false;
  if (!is_id(at + ID_AT, sizeof out->id) || !is_id(at + SPAN_AT, sizeof out->parent)) return false;
  memcpy(out->id, at + ID_AT, sizeof out->id);
  memcpy(out->parent, at + SPAN_AT, sizeof out->parent);
  out->has_parent = true;
  out->flags = (uint8_t)(digit_of(at[FLAGS_AT]) * 16 + digit_of(at[FLAGS_AT + 1]));
  out->sampled = out->flags & SAMPLED;
  return true;
}

void trace_print(const struct trace_ids *ids, char out[TRACE_PARENT_BYTES]) {
  memcpy(out + VERSION_AT, "00-", 3);
  memcpy(out + ID_AT, ids->id, sizeof ids->id);
  out[SPAN_AT - 1] = '-';
  memcpy(out + SPAN_AT, ids->next, sizeof ids->next);
  out[FLAGS_AT - 1] = '-';
  out[FLAGS_AT] = '0';
  out[FLAGS_AT + 1] = HEX[(ids->flags & RANDOM) | (ids->sampled ? SAMPLED : 0)];
}

void trace_random(struct worker *worker, char *out, uint32_t bytes) {
  for (uint32_t done = 0; done < bytes; done += 8) {
    uint64_t word = worker_random(worker) | 1;
    for (int i = 0; i < 16; i++, word >>= 4) *out++ = HEX[word & 15];
  }
}

double trace_share(const struct trace_ids *ids) {
  uint64_t last = 0;
  for (uint32_t i = sizeof ids->id - 14; i < sizeof ids->id; i++) last = last << 4 | (uint64_t)digit_of(ids->id[i]);
  return (double)last / 72057594037927936.0; // 2^56
}
