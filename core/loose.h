// SPDX-License-Identifier: Apache-2.0
// How lenient servers may read a canonical path: parameters cut off, encoded slashes and backslashes taken for slashes.
// What such a reading leads to must not be guarded more than what the path itself leads to: router compares them.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "slice.h"

// What one reading does; the first four tell also what there is in a path to be read otherwise.
enum loose_reading {
  LOOSE_SLASH = 1,             // "%2F" is a slash
  LOOSE_BACKSLASH = 2,         // "%5C" is one
  LOOSE_SEMICOLON = 4,         // ";" begins parameters
  LOOSE_ESCAPED_SEMICOLON = 8, // "%3B" does
  LOOSE_KINDS = 15,
  LOOSE_PAST_SLASH = 16, // parameters go on past "%2F": they were cut off before it was decoded
  LOOSE_PAST_BACKSLASH = 32,
  LOOSE_READINGS = 64
};

// The kinds that occur in the path, 0: it can be read in one way only.
uint32_t loose_kinds(struct slice path);

// Whether a reading makes sense where these kinds occur: it does something, and nothing twice.
bool loose_applies(uint32_t reading, uint32_t kinds);

// Writes a reading, which is never longer than the path, to `out` and gives its length; -1 when dot segments come to
// light in it ("/a/..%2Fb"): no honest client sends those.
int64_t loose_read(struct slice path, uint32_t reading, char *out);
