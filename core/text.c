// SPDX-License-Identifier: Apache-2.0
// Text that grows. Out of memory is a crash: the master has no use for half a line, and its lines are small.
#include "text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_reserve(struct text *text, size_t more) {
  size_t need = text->len + more + 1;
  if (need <= text->room) return;
  size_t room = text->room ? text->room : 256;
  while (room < need) room *= 2;
  text->data = realloc(text->data, room);
  assert(text->data);
  text->room = room;
}

void text_put(struct text *text, const char *data, size_t len) {
  text_reserve(text, len);
  memcpy(text->data + text->len, data, len);
  text->len += len;
  text->data[text->len] = 0;
}

void text_puts(struct text *text, const char *data) {
  text_put(text, data, strlen(data));
}

void text_printf(struct text *text, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int len = vsnprintf(NULL, 0, format, args);
  va_end(args);
  assert(len >= 0);
  text_reserve(text, (size_t)len);
  vsnprintf(text->data + text->len, (size_t)len + 1, format, again);
  va_end(again);
  text->len += (size_t)len;
}

void text_json(struct text *text, const char *value) {
  if (!value) {
    text_puts(text, "null");
    return;
  }
  text_puts(text, "\"");
  for (const char *p = value; *p; p++) {
    unsigned char c = (unsigned char)*p;
    if (c == '"' || c == '\\')
      text_printf(text, "\\%c", c);
    else if (c < 0x20 || c == 0x7f)
      text_printf(text, "\\u%04x", c);
    else
      text_put(text, p, 1);
  }
  text_puts(text, "\"");
}

void text_drop(struct text *text, size_t len) {
  assert(len <= text->len);
  if (len == 0) return;
  memmove(text->data, text->data + len, text->len - len + 1);
  text->len -= len;
}

void text_free(struct text *text) {
  free(text->data);
  *text = (struct text){0};
}

// ---- Reading a flat object --------------------------------------------------------------------------------------

static size_t utf8_put(char out[4], unsigned code) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  if (code < 0x800) {
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
  }
  out[0] = (char)(0xe0 | code >> 12);
  out[1] = (char)(0x80 | (code >> 6 & 0x3f));
  out[2] = (char)(0x80 | (code & 0x3f));
  return 3;
}

static size_t unescape(const char **at, char out[4]) {
  const char *p = *at + 1; // behind the backslash
  unsigned code = 0;
  if (*p == 'u') {
    int used = 0;
    if (sscanf(p + 1, "%4x%n", &code, &used) != 1) used = 0;
    *at = p + 1 + used;
    return utf8_put(out, code);
  }
  static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
  const char *known = *p ? strchr(from, *p) : NULL;
  out[0] = known ? to[known - from] : *p;
  *at = *p ? p + 1 : p;
  return 1;
}

// Copies the string that starts at the quote `p`; gives the place behind its end.
static const char *string_read(const char *p, char *out, size_t size) {
  size_t len = 0;
  p++;
  while (*p && *p != '"' && strcmp(p, "\\") != 0) {
    char piece[4];
    size_t n = 1;
    if (*p == '\\')
      n = unescape(&p, piece);
    else
      piece[0] = *p++;
    if (len + n < size) {
      memcpy(out + len, piece, n);
      len += n;
    }
  }
  if (size) out[len] = 0;
  return *p ? p + 1 : p;
}

static const char *value_read(const char *p, char *out, size_t size) {
  if (*p == '"') return string_read(p, out, size);
  size_t len = strcspn(p, ",}");
  snprintf(out, size, "%.*s", (int)len, p);
  return p + len;
}

bool text_json_member(const char *json, const char *name, char *out, size_t size) {
  char key[64], rest[8];
  const char *p = strchr(json, '{');
  if (size) out[0] = 0;
  while (p && *p && (p = strchr(p, '"'))) {
    p = string_read(p, key, sizeof key);
    p += strspn(p, " \t:");
    bool wanted = strcmp(key, name) == 0;
    p = value_read(p, wanted ? out : rest, wanted ? size : sizeof rest);
    if (wanted) return true;
  }
  return false;
}
