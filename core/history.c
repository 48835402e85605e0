// SPDX-License-Identifier: Apache-2.0
// What became of reloads.
#include "history.h"

#include <stdio.h>
#include <string.h>

#include "settings.h"

void history_begin(struct history *history, struct clock *clock, const char *reason) {
  clock_update(clock);
  history->begun_us = clock->mono_us;
  history->next = (struct outcome){.known = true, .at_us = clock->real_us};
  snprintf(history->next.reason, sizeof history->next.reason, "%s", reason);
}

void history_checked(struct history *history, struct clock *clock) {
  clock_update(clock);
  history->next.check_us = clock->mono_us - history->begun_us;
}

static void outcome_keep(struct outcome *place, const struct outcome *outcome) {
  text_free(&place->errors);
  *place = *outcome;
  place->errors = (struct text){0};
  if (outcome->errors.len) text_put(&place->errors, outcome->errors.data, outcome->errors.len);
}

static void history_end(struct history *history, struct clock *clock) {
  clock_update(clock);
  history->next.took_us = clock->mono_us - history->begun_us;
  outcome_keep(&history->last, &history->next);
  if (!history->next.ok) outcome_keep(&history->failure, &history->next);
  text_free(&history->next.errors);
}

void history_ok(struct history *history, struct clock *clock, int64_t revision, bool changed) {
  history->next.ok = true;
  history->next.changed = changed;
  history->next.revision = revision;
  history_end(history, clock);
  if (changed) history->loaded_us = clock->real_us;
}

void history_fail(struct history *history, struct clock *clock, const char *errors) {
  text_puts(&history->next.errors, errors);
  history_end(history, clock);
}

void history_close(struct history *history) {
  text_free(&history->last.errors);
  text_free(&history->failure.errors);
  text_free(&history->next.errors);
}

void outcome_describe(const struct outcome *outcome, struct text *out) {
  if (!outcome->known) {
    text_puts(out, "null");
    return;
  }
  text_printf(out,
              "{\"ok\":%s,\"changed\":%s,\"revision\":%lld,\"at\":%.3f,\"took_ms\":%.1f,\"check_ms\":%.1f,\"reason\":",
              outcome->ok ? "true" : "false", outcome->changed ? "true" : "false", (long long)outcome->revision,
              (double)outcome->at_us / 1e6, (double)outcome->took_us / 1e3, (double)outcome->check_us / 1e3);
  text_json(out, outcome->reason);
  text_printf(out, ",\"errors\":%s}", outcome->errors.len ? outcome->errors.data : "[]");
}

// ---- Errors -----------------------------------------------------------------------------------------------------

void errors_array(const struct settings *settings, struct text *out) {
  text_puts(out, "[");
  for (uint32_t i = 0; i < settings->error_count; i++) text_printf(out, "%s%s", i ? "," : "", settings->errors[i]);
  text_puts(out, "]");
}

static const char *member(const char *json, const char *name, char out[1024]) {
  text_json_member(json, name, out, 1024);
  return out;
}

// "sluice.yml:7", as far as it is known.
static void where_put(const char *json, struct text *out) {
  char file[1024], line[1024];
  text_puts(out, member(json, "file", file));
  if (*member(json, "line", line)) text_printf(out, ":%s", line);
}

static void what_put(const char *json, struct text *out) {
  char value[1024];
  if (*member(json, "entity", value)) text_printf(out, "%s: ", value);
  if (*member(json, "field", value)) text_printf(out, "%s: ", value);
  if (*member(json, "message", value)) {
    text_puts(out, value);
    return;
  }
  text_printf(out, "expected %s", member(json, "expected", value));
  text_printf(out, ", found %s", member(json, "found", value));
}

void error_sentence(const char *json, struct text *out) {
  where_put(json, out);
  if (out->len) text_puts(out, ": ");
  what_put(json, out);
}

static void problem_log(struct log *log, enum log_level level, const char *message, const char *json) {
  struct text where = {0}, what = {0};
  where_put(json, &where);
  what_put(json, &what);
  if (where.len)
    log_at(log, level, message, "at", where.data, "reason", what.data);
  else
    log_at(log, level, message, "reason", what.data);
  text_free(&where);
  text_free(&what);
}

void error_log(struct log *log, const char *json) {
  problem_log(log, LOG_ERROR, "configuration refused", json);
}

void warning_log(struct log *log, const char *json) {
  problem_log(log, LOG_WARN, "configuration looks wrong", json);
}
