// SPDX-License-Identifier: Apache-2.0
// What Lua may call of regular expressions: thin bodies over the module.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bridge.h"
#include "regex.h"

struct regex *bridge_regex_new(const char *pattern, uint32_t len, bool caseless, bool anchored, char *why,
                               uint32_t why_bytes) {
  struct error error = {0};
  unsigned flags = (caseless ? REGEX_CASELESS : 0u) | (anchored ? REGEX_ANCHORED : 0u);
  struct regex *regex = regex_new((struct slice){pattern, len}, flags, &error);
  if (regex)
    regex_jit(regex);
  else
    snprintf(why, why_bytes, "%s", error.text);
  return regex;
}

void bridge_regex_free(struct regex *regex) {
  regex_free(regex);
}

struct regex_scratch *bridge_regex_scratch_new(uint32_t groups) {
  return regex_scratch_new(groups);
}

void bridge_regex_scratch_free(struct regex_scratch *scratch) {
  regex_scratch_free(scratch);
}

int bridge_regex_match(const struct regex *regex, const char *subject, uint32_t len, uint32_t from,
                       struct regex_scratch *scratch) {
  return from <= len ? regex_match_from(regex, (struct slice){subject, len}, from, scratch) : 0;
}

void bridge_regex_span(const struct regex_scratch *scratch, uint32_t index, uint32_t *from, uint32_t *to) {
  regex_span(scratch, index, from, to);
}

uint32_t bridge_regex_groups(const struct regex *regex) {
  return regex_group_count(regex);
}

bool bridge_regex_group_name(const struct regex *regex, uint32_t index, struct bytes *name, uint32_t *group) {
  struct slice found;
  if (!regex_group_name(regex, index, &found, group)) return false;
  *name = (struct bytes){found.data, found.len};
  return true;
}
