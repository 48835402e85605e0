// SPDX-License-Identifier: Apache-2.0
// Trace contexts as W3C's `traceparent` carries them: "00-TRACE-SPAN-FLAGS", in hex digits.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "slice.h"

enum { TRACE_PARENT_BYTES = 55 };

// Reads the caller's context: `id`, `parent`, `flags`, and `sampled` as the caller decided. False when it is not one.
bool trace_parse(struct slice text, struct trace_ids *out);
// Writes what the service is told, under the span `next`.
void trace_print(const struct trace_ids *ids, char out[TRACE_PARENT_BYTES]);
// Writes `bytes` random bytes as hex digits, not all of them 0.
void trace_random(struct worker *worker, char *out, uint32_t bytes);
// Where the last 56 bits of the id stand between 0 and 1: what sampling goes by.
double trace_share(const struct trace_ids *ids);
