// SPDX-License-Identifier: Apache-2.0
// What the checker told the master about a configuration.
#include "settings.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

enum { WORKERS_MAX = 1024 };

struct settings *settings_new(void) {
  struct settings *settings = calloc(1, sizeof *settings);
  assert(settings);
  settings->workers = 1;
  settings->log_level = LOG_NOTICE;
  return settings;
}

static void strings_free(char **strings, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) free(strings[i]);
  free(strings);
}

void settings_free(struct settings *settings) {
  if (!settings) return;
  free(settings->snapshot);
  free(settings->state_dir);
  free(settings->listens);
  free(settings->limits);
  strings_free(settings->embedded, settings->embedded_count);
  strings_free(settings->watch, settings->watch_count);
  strings_free(settings->errors, settings->error_count);
  strings_free(settings->warnings, settings->warning_count);
  free(settings);
}

static void string_add(char ***strings, uint32_t *count, const char *value) {
  *strings = realloc(*strings, (*count + 1) * sizeof **strings);
  assert(*strings);
  (*strings)[(*count)++] = strdup(value);
}

void settings_refuse(struct settings *settings, const char *json) {
  string_add(&settings->errors, &settings->error_count, json);
}

void settings_fail(struct settings *settings, const char *format, ...) {
  char message[512];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  struct text json = {0};
  text_puts(&json, "{\"message\":");
  text_json(&json, message);
  text_puts(&json, "}");
  settings_refuse(settings, json.data);
  text_free(&json);
}

static void listen_add(struct settings *settings, enum listen_kind kind, const char *value) {
  struct error error;
  struct listen_spec spec;
  if (listen_spec_parse(value, kind, &spec, &error) < 0) {
    settings_fail(settings, "%s", error.text);
    return;
  }
  settings->listens = realloc(settings->listens, (settings->listen_count + 1) * sizeof spec);
  assert(settings->listens);
  settings->listens[settings->listen_count++] = spec;
}

static void limit_add(struct settings *settings, const char *name, size_t name_len, const char *value) {
  struct limit limit = {.value = strtod(value, NULL)};
  if (name_len >= sizeof limit.name) return;
  memcpy(limit.name, name, name_len);
  settings->limits = realloc(settings->limits, (settings->limit_count + 1) * sizeof limit);
  assert(settings->limits);
  settings->limits[settings->limit_count++] = limit;
}

static void text_set(char **field, const char *value) {
  free(*field);
  *field = strdup(value);
}

static void workers_set(struct settings *settings, const char *value) {
  long count = strtol(value, NULL, 10);
  if (count < 1 || count > WORKERS_MAX)
    settings_fail(settings, "gateway.workers: expected 1 to %d, found %s", WORKERS_MAX, value);
  else
    settings->workers = (int32_t)count;
}

static bool key_is(const char *line, const char *key) {
  return strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == '=';
}

void settings_line(struct settings *settings, const char *line) {
  const char *equals = strchr(line, '=');
  if (!equals) return;
  const char *value = equals + 1;
  if (key_is(line, "revision"))
    settings->revision = strtoll(value, NULL, 10);
  else if (key_is(line, "snapshot"))
    text_set(&settings->snapshot, value);
  else if (key_is(line, "state_dir"))
    text_set(&settings->state_dir, value);
  else if (key_is(line, "workers"))
    workers_set(settings, value);
  else if (key_is(line, "listen.proxy"))
    listen_add(settings, LISTEN_PROXY, value);
  else if (key_is(line, "listen.stream"))
    listen_add(settings, LISTEN_STREAM, value);
  else if (key_is(line, "listen.status"))
    listen_add(settings, LISTEN_STATUS, value);
  else if (key_is(line, "kafka.embedded"))
    string_add(&settings->embedded, &settings->embedded_count, value);
  else if (key_is(line, "watch"))
    string_add(&settings->watch, &settings->watch_count, value);
  else if (key_is(line, "error"))
    string_add(&settings->errors, &settings->error_count, value);
  else if (key_is(line, "warning"))
    string_add(&settings->warnings, &settings->warning_count, value);
  else if (key_is(line, "log.level"))
    settings->log_level = log_level_parse(value) < 0 ? LOG_NOTICE : log_level_parse(value);
  else if (key_is(line, "log.format"))
    settings->log_json = strcmp(value, "json") == 0;
  else if (strncmp(line, "limit.", 6) == 0)
    limit_add(settings, line + 6, (size_t)(equals - line) - 6, value);
}

double settings_limit(const struct settings *settings, const char *name, double otherwise) {
  for (uint32_t i = 0; i < settings->limit_count; i++)
    if (strcmp(settings->limits[i].name, name) == 0) return settings->limits[i].value;
  return otherwise;
}

bool settings_differ(const struct settings *a, const struct settings *b) {
  if (a->workers != b->workers || a->listen_count != b->listen_count) return true;
  if (a->embedded_count != b->embedded_count) return true;
  for (uint32_t i = 0; i < a->embedded_count; i++)
    if (strcmp(a->embedded[i], b->embedded[i]) != 0) return true;
  for (uint32_t i = 0; i < a->listen_count; i++) {
    const struct listen_spec *x = &a->listens[i], *y = &b->listens[i];
    if (x->kind != y->kind || strcmp(x->address, y->address) != 0 || strcmp(x->flags, y->flags) != 0) return true;
  }
  return false;
}
