// SPDX-License-Identifier: Apache-2.0
// Why something failed, in the caller's struct.
#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void error_write(struct error *error, enum error_code code, const char *format, va_list args) {
  error->code = code;
  vsnprintf(error->text, sizeof error->text, format, args);
}

int error_set(struct error *error, enum error_code code, const char *format, ...) {
  if (error) {
    va_list args;
    va_start(args, format);
    error_write(error, code, format, args);
    va_end(args);
  }
  return code;
}

int error_system(struct error *error, const char *format, ...) {
  int cause = errno;
  if (error) {
    va_list args;
    va_start(args, format);
    error_write(error, ERROR_SYSTEM, format, args);
    va_end(args);
    size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof error->text - used, ": %s", strerror(cause));
  }
  return ERROR_SYSTEM;
}
