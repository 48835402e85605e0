// SPDX-License-Identifier: Apache-2.0
// What gRPC agrees on over HTTP (its HTTP/2 protocol description): which requests are its own, how an answer tells a
// status and a message, how a deadline is written. Texts and numbers only; exchange_grpc.c applies them.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "slice.h"

enum grpc_status {
  GRPC_OK = 0,
  GRPC_CANCELLED = 1,
  GRPC_UNKNOWN = 2,
  GRPC_INVALID_ARGUMENT = 3,
  GRPC_DEADLINE_EXCEEDED = 4,
  GRPC_NOT_FOUND = 5,
  GRPC_ALREADY_EXISTS = 6,
  GRPC_PERMISSION_DENIED = 7,
  GRPC_RESOURCE_EXHAUSTED = 8,
  GRPC_FAILED_PRECONDITION = 9,
  GRPC_ABORTED = 10,
  GRPC_OUT_OF_RANGE = 11,
  GRPC_UNIMPLEMENTED = 12,
  GRPC_INTERNAL = 13,
  GRPC_UNAVAILABLE = 14,
  GRPC_DATA_LOSS = 15,
  GRPC_UNAUTHENTICATED = 16
};

enum { GRPC_TIMEOUT_BYTES = 16, GRPC_TIMEOUT_MALFORMED = -1 };

// Whether a Content-Type is gRPC's: application/grpc, with any suffix (+proto) or parameter. application/grpc-web is
// another protocol.
bool grpc_is_content_type(struct slice type);
// The status that tells what an HTTP status of the gateway means.
enum grpc_status grpc_status_of(int http_status);
// The HTTP status that says the same of a service's health; 200 for errors that are the caller's.
int grpc_http_status(struct slice status);
// A message as grpc-message holds it: everything but visible ASCII, and the percent sign, as %XX. Writes up to `room`
// bytes (whole characters) to `out`; how many.
uint32_t grpc_message_encode(struct slice message, char *out, uint32_t room);
// The time that grpc-timeout allows, in microseconds (rounded up); GRPC_TIMEOUT_MALFORMED.
int64_t grpc_timeout_parse(struct slice value);
// The same as text, as exactly as its eight digits can say it; how many bytes.
uint32_t grpc_timeout_format(int64_t us, char out[16]);
