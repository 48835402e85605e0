// SPDX-License-Identifier: Apache-2.0
// Regular expressions, by PCRE2 with its JIT compiler: the one place that names that library. A match is bounded in
// steps and memory, so no expression and no subject can hold a worker.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "slice.h"

struct regex;
struct regex_scratch; // what a match works in: one for many expressions

enum {
  REGEX_ANCHORED = 1, // matches at the start of the subject or not at all
  REGEX_CASELESS = 2
};

enum { REGEX_OVERRUN = -1, REGEX_NO_MATCH = 0 };

// NULL, with the reason and place, when the pattern is no expression.
struct regex *regex_new(struct slice pattern, unsigned flags, struct error *error);
void regex_free(struct regex *regex);
// Compiles to machine code: slow (tens of microseconds), optional.
void regex_jit(struct regex *regex);

// Keeps the spans of `groups` groups beside the whole match. NULL without memory.
struct regex_scratch *regex_scratch_new(uint32_t groups);
void regex_scratch_free(struct regex_scratch *scratch);

// The number of spans kept (1: the whole match, then its groups), REGEX_NO_MATCH, or REGEX_OVERRUN when a limit was
// passed and it is not known whether the subject matches.
int regex_match(const struct regex *regex, struct slice subject, struct regex_scratch *scratch);
int regex_match_from(const struct regex *regex, struct slice subject, uint32_t from, struct regex_scratch *scratch);
// Where span `index` (0: the whole match) of the last match begins and ends; both UINT32_MAX: it took no part.
void regex_span(const struct regex_scratch *scratch, uint32_t index, uint32_t *from, uint32_t *to);

uint32_t regex_group_count(const struct regex *regex);
// Named groups: `index` from 0, `group` from 1. False past the last.
bool regex_group_name(const struct regex *regex, uint32_t index, struct slice *name, uint32_t *group);

// Length of the text at the start of the pattern that stands for itself, without which no subject can match when the
// expression is anchored: the key under which an index may file it. 0 in doubt.
uint32_t regex_literal_prefix(struct slice pattern);
