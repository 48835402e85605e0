// SPDX-License-Identifier: Apache-2.0
// Text that grows: lines for the control socket and JSON for `sluice status`, built by the master.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
  char *data; // ends with a zero that `len` does not count; NULL while empty
  size_t len, room;
};

// Makes room for so many bytes more and the zero.
void text_reserve(struct text *text, size_t more);
void text_put(struct text *text, const char *data, size_t len);
void text_puts(struct text *text, const char *data);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
// As a JSON string with its quotes; NULL gives null.
void text_json(struct text *text, const char *value);
// What is left to read after the first `len` bytes were used.
void text_drop(struct text *text, size_t len);
void text_free(struct text *text);

// Copies the value of a member of a flat JSON object, strings unescaped and cut to fit. False when it has no such member.
bool text_json_member(const char *json, const char *name, char *out, size_t size);
