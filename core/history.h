// SPDX-License-Identifier: Apache-2.0
// What became of reloads: the last one and the last that failed, for `sluice status` and the log.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "log.h"
#include "text.h"

struct settings;

enum { REASON_BYTES = 256 };

struct outcome {
  bool known, ok;
  bool changed; // a new revision went live
  int64_t revision;
  int64_t at_us;             // since 1970, when it began
  int64_t took_us, check_us; // in all, and of that in the checker
  char reason[REASON_BYTES]; // "start", "command", "signal", "saved ./plugins/hello/handler.lua"
  struct text errors;        // a JSON array
};

struct history {
  struct outcome last, failure;
  int64_t loaded_us; // since 1970, when the running generation went live
  int64_t begun_us;  // monotonic, of the reload that runs
  struct outcome next;
};

void history_begin(struct history *history, struct clock *clock, const char *reason);
void history_checked(struct history *history, struct clock *clock);
void history_ok(struct history *history, struct clock *clock, int64_t revision, bool changed);
// `errors` is a JSON array.
void history_fail(struct history *history, struct clock *clock, const char *errors);
void history_close(struct history *history);

void outcome_describe(const struct outcome *outcome, struct text *out); // one JSON object, null when not known

// The errors of a check as a JSON array.
void errors_array(const struct settings *settings, struct text *out);
// One error as a person reads it, into an empty text: "sluice.yml:7: service x: port: expected a number, found a string".
void error_sentence(const char *json, struct text *out);
// One error, or warning, as a line of the log.
void error_log(struct log *log, const char *json);
void warning_log(struct log *log, const char *json);
