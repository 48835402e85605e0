// SPDX-License-Identifier: Apache-2.0
// Why something failed: written where the cause is known, into a struct that the caller owns.
#pragma once
#include <stdarg.h>

enum error_code {
  ERROR_NONE = 0,
  ERROR_INVALID = -1, // the input is wrong
  ERROR_MEMORY = -2,  // a bound on memory was reached
  ERROR_CLOSED = -3,  // the peer is gone
  ERROR_TIMEOUT = -4,
  ERROR_SYSTEM = -5, // a system call failed
  ERROR_TLS = -6,
  ERROR_DNS = -7,
};

struct error {
  enum error_code code;
  char text[256];
};

// Fills `error` (which may be NULL) and returns `code`, so that a function can end with `return error_set(...)`.
int error_set(struct error *error, enum error_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

// Like error_set with ERROR_SYSTEM, with the text of the current errno behind the message.
int error_system(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
