// SPDX-License-Identifier: Apache-2.0
// Regular expressions, by PCRE2.
//
// Patterns come from the configuration, subjects from clients: so a match may take MATCH_STEPS steps and HEAP_KIB of
// memory, after which the answer is REGEX_OVERRUN, not "no match". The dialect is Kong's as far as PCRE2 allows: "$"
// matches at the very end only, characters are Unicode's where the pattern itself leaves ASCII.
#include "regex.h"

#include <assert.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MATCH_STEPS = 100000, HEAP_KIB = 1024, JIT_STACK_BYTES = 32 * 1024, JIT_STACK_MAX_BYTES = 512 * 1024 };

struct regex {
  pcre2_code *code;
  const char *names; // PCRE2's table: entries of two bytes of group number, then the name, ended by zero
  uint32_t name_count, name_entry_bytes, group_count;
};

struct regex_scratch {
  pcre2_match_data *data;
  pcre2_match_context *limits;
  pcre2_jit_stack *stack;
};

static bool has_wide(struct slice text) {
  for (uint32_t i = 0; i < text.len; i++)
    if ((unsigned char)text.data[i] >= 0x80) return true;
  return false;
}

static uint32_t compile_options(struct slice pattern, unsigned flags) {
  uint32_t options = PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C;
  if (flags & REGEX_ANCHORED) options |= PCRE2_ANCHORED;
  if (flags & REGEX_CASELESS) options |= PCRE2_CASELESS;
  if (has_wide(pattern)) options |= PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF;
  return options;
}

static void read_properties(struct regex *regex) {
  PCRE2_SPTR names = NULL;
  pcre2_pattern_info(regex->code, PCRE2_INFO_CAPTURECOUNT, &regex->group_count);
  pcre2_pattern_info(regex->code, PCRE2_INFO_NAMECOUNT, &regex->name_count);
  pcre2_pattern_info(regex->code, PCRE2_INFO_NAMEENTRYSIZE, &regex->name_entry_bytes);
  pcre2_pattern_info(regex->code, PCRE2_INFO_NAMETABLE, &names);
  regex->names = (const char *)names;
}

struct regex *regex_new(struct slice pattern, unsigned flags, struct error *error) {
  int code = 0;
  PCRE2_SIZE at = 0;
  pcre2_code *compiled =
      pcre2_compile((PCRE2_SPTR)pattern.data, pattern.len, compile_options(pattern, flags), &code, &at, NULL);
  if (!compiled) {
    PCRE2_UCHAR reason[128] = "";
    pcre2_get_error_message(code, reason, sizeof reason);
    error_set(error, ERROR_INVALID, "invalid regex: %s at character %zu", (const char *)reason, at + 1);
    return NULL;
  }
  struct regex *regex = calloc(1, sizeof *regex);
  if (!regex) {
    pcre2_code_free(compiled);
    error_set(error, ERROR_MEMORY, "no memory for a regex");
    return NULL;
  }
  regex->code = compiled;
  read_properties(regex);
  return regex;
}

void regex_free(struct regex *regex) {
  if (!regex) return;
  pcre2_code_free(regex->code);
  free(regex);
}

void regex_jit(struct regex *regex) {
  // A failure (no executable memory, an item that the JIT lacks) leaves the interpreter, which gives the same answers.
  (void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
}

struct regex_scratch *regex_scratch_new(uint32_t groups) {
  struct regex_scratch *scratch = calloc(1, sizeof *scratch);
  if (!scratch) return NULL;
  scratch->data = pcre2_match_data_create(groups + 1, NULL);
  scratch->limits = pcre2_match_context_create(NULL);
  scratch->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_MAX_BYTES, NULL);
  if (!scratch->data || !scratch->limits || !scratch->stack) {
    regex_scratch_free(scratch);
    return NULL;
  }
  pcre2_set_match_limit(scratch->limits, MATCH_STEPS);
  pcre2_set_heap_limit(scratch->limits, HEAP_KIB);
  pcre2_jit_stack_assign(scratch->limits, NULL, scratch->stack);
  return scratch;
}

void regex_scratch_free(struct regex_scratch *scratch) {
  if (!scratch) return;
  pcre2_jit_stack_free(scratch->stack);
  pcre2_match_context_free(scratch->limits);
  pcre2_match_data_free(scratch->data);
  free(scratch);
}

int regex_match(const struct regex *regex, struct slice subject, struct regex_scratch *scratch) {
  return regex_match_from(regex, subject, 0, scratch);
}

int regex_match_from(const struct regex *regex, struct slice subject, uint32_t from, struct regex_scratch *scratch) {
  PCRE2_SPTR text = (PCRE2_SPTR)(subject.data ? subject.data : "");
  int count = pcre2_match(regex->code, text, subject.len, from, 0, scratch->data, scratch->limits);
  if (count > 0) return count;
  // 0: it matched, with more groups than the scratch keeps.
  if (count == 0) return (int)pcre2_get_ovector_count(scratch->data);
  return count == PCRE2_ERROR_NOMATCH ? REGEX_NO_MATCH : REGEX_OVERRUN;
}

void regex_span(const struct regex_scratch *scratch, uint32_t index, uint32_t *from, uint32_t *to) {
  assert(index < pcre2_get_ovector_count(scratch->data));
  const PCRE2_SIZE *pairs = pcre2_get_ovector_pointer(scratch->data);
  // PCRE2_UNSET is all ones in any width.
  *from = (uint32_t)pairs[2 * index];
  *to = (uint32_t)pairs[2 * index + 1];
}

uint32_t regex_group_count(const struct regex *regex) {
  return regex->group_count;
}

bool regex_group_name(const struct regex *regex, uint32_t index, struct slice *name, uint32_t *group) {
  if (index >= regex->name_count) return false;
  const char *entry = regex->names + (size_t)index * regex->name_entry_bytes;
  *group = ((uint32_t)(unsigned char)entry[0] << 8) | (unsigned char)entry[1];
  *name = slice_of(entry + 2);
  return true;
}

// ---- The literal prefix ----

// Bytes past ASCII count as special too: a quantifier behind one takes several.
static bool is_special(char c) {
  return (unsigned char)c <= ' ' || (unsigned char)c >= 0x80 || strchr("\\^$.[]|()*+?{}#", c) != NULL;
}

// From the bracket at `at` to its closing one, which stands for itself when it comes first. False: a rare form.
static bool skip_class(struct slice pattern, uint32_t *at) {
  uint32_t i = *at + 1;
  if (i < pattern.len && pattern.data[i] == '^') i++;
  for (uint32_t first = i; i < pattern.len && (i == first || pattern.data[i] != ']'); i++) {
    if (pattern.data[i] == '[') return false;
    if (pattern.data[i] == '\\') i++;
  }
  *at = i;
  return true;
}

// A group that neither sets options nor commands the matcher; `behind` is what follows its parenthesis.
static bool is_plain_group(const char *behind, uint32_t len) {
  if (len == 0 || behind[0] == '*') return false;
  return behind[0] != '?' || (len > 1 && behind[1] && strchr(":P<=!>", behind[1]));
}

// Whether no alternative and no setting can make the start of the pattern optional or mean something else. Only what is
// plain to see passes.
static bool start_is_certain(struct slice pattern) {
  int depth = 0;
  for (uint32_t i = 0; i < pattern.len; i++) {
    uint32_t left = pattern.len - i - 1;
    const char *behind = pattern.data + i + 1;
    switch (pattern.data[i]) {
    case '\\':
      if (left > 0 && strchr("QEc", behind[0])) return false;
      i++;
      break;
    case '[':
      if (!skip_class(pattern, &i)) return false;
      break;
    case '(':
      if (!is_plain_group(behind, left)) return false;
      depth++;
      break;
    case ')': depth--; break;
    case '|':
      if (depth == 0) return false;
      break;
    default: break;
    }
  }
  return depth == 0;
}

uint32_t regex_literal_prefix(struct slice pattern) {
  uint32_t len = 0;
  while (len < pattern.len && !is_special(pattern.data[len])) len++;
  // The last character belongs to a quantifier behind it.
  if (len > 0 && len < pattern.len && strchr("*+?{", pattern.data[len])) len--;
  return len > 0 && start_is_certain(pattern) ? len : 0;
}
