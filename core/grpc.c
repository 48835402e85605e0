// SPDX-License-Identifier: Apache-2.0
// What gRPC agrees on over HTTP.
#include "grpc.h"

#include <stdio.h>

bool grpc_is_content_type(struct slice type) {
  static const struct slice name = SLICE("application/grpc");
  if (type.len < name.len || !slice_equal_nocase((struct slice){type.data, name.len}, name)) return false;
  if (type.len == name.len) return true;
  char next = type.data[name.len];
  return next == '+' || next == ';' || next == ' ' || next == '\t';
}

// Kong's choices where it has one; for the rest, the code whose meaning is the status's.
enum grpc_status grpc_status_of(int http_status) {
  switch (http_status) {
  case 400: return GRPC_INVALID_ARGUMENT;
  case 401: return GRPC_UNAUTHENTICATED;
  case 403: return GRPC_PERMISSION_DENIED;
  case 404: return GRPC_NOT_FOUND;
  case 405: return GRPC_UNIMPLEMENTED;
  case 408: return GRPC_DEADLINE_EXCEEDED;
  case 409: return GRPC_ALREADY_EXISTS;
  case 412: return GRPC_FAILED_PRECONDITION;
  case 413: return GRPC_RESOURCE_EXHAUSTED;
  case 416: return GRPC_OUT_OF_RANGE;
  case 429: return GRPC_RESOURCE_EXHAUSTED;
  case 431: return GRPC_RESOURCE_EXHAUSTED;
  case 499: return GRPC_CANCELLED;
  case 500: return GRPC_INTERNAL;
  case 501: return GRPC_UNIMPLEMENTED;
  case 502: return GRPC_UNAVAILABLE;
  case 503: return GRPC_UNAVAILABLE;
  case 504: return GRPC_DEADLINE_EXCEEDED;
  default: return http_status < 400 ? GRPC_OK : GRPC_UNKNOWN;
  }
}

int grpc_http_status(struct slice status) {
  static const struct {
    struct slice text;
    int http;
  } failures[] = {{SLICE("2"), 500},  {SLICE("4"), 504},  {SLICE("8"), 429}, {SLICE("12"), 501},
                  {SLICE("13"), 500}, {SLICE("14"), 503}, {SLICE("15"), 500}};
  for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
    if (slice_equal(failures[i].text, status)) return failures[i].http;
  return 200;
}

uint32_t grpc_message_encode(struct slice message, char *out, uint32_t room) {
  static const char digits[] = "0123456789ABCDEF";
  uint32_t len = 0;
  for (uint32_t i = 0; i < message.len; i++) {
    unsigned char c = (unsigned char)message.data[i];
    bool plain = c >= 0x20 && c <= 0x7e && c != '%';
    if (len + (plain ? 1 : 3) > room) break;
    if (plain) {
      out[len++] = (char)c;
      continue;
    }
    out[len++] = '%';
    out[len++] = digits[c >> 4];
    out[len++] = digits[c & 15];
  }
  return len;
}

int64_t grpc_timeout_parse(struct slice value) {
  if (value.len < 2 || value.len > 9) return GRPC_TIMEOUT_MALFORMED;
  int64_t number = 0;
  for (uint32_t i = 0; i + 1 < value.len; i++) {
    if (value.data[i] < '0' || value.data[i] > '9') return GRPC_TIMEOUT_MALFORMED;
    number = number * 10 + (value.data[i] - '0');
  }
  switch (value.data[value.len - 1]) {
  case 'n': return (number + 999) / 1000;
  case 'u': return number;
  case 'm': return number * 1000;
  case 'S': return number * 1000000;
  case 'M': return number * 60000000;
  case 'H': return number * 3600000000;
  default: return GRPC_TIMEOUT_MALFORMED;
  }
}

uint32_t grpc_timeout_format(int64_t us, char out[16]) {
  static const struct {
    char name;
    int64_t us;
  } units[] = {{'u', 1}, {'m', 1000}, {'S', 1000000}, {'M', 60000000}, {'H', 3600000000}};
  uint32_t unit = 0;
  if (us < 0) us = 0;
  while (unit < sizeof units / sizeof *units - 1 && us / units[unit].us > 99999999) unit++;
  int64_t number = us / units[unit].us;
  if (number > 99999999) number = 99999999;
  return (uint32_t)snprintf(out, 16, "%lld%c", (long long)number, units[unit].name);
}
