// SPDX-License-Identifier: Apache-2.0
// What the checker told the master about a configuration: all that the master ever knows of it. Lines "key=value".
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "listen.h"
#include "process.h"

struct settings {
  int64_t revision;
  char *snapshot;  // path
  char *state_dir; // absolute
  int32_t workers;
  struct listen_spec *listens;
  uint32_t listen_count;
  struct limit *limits;
  uint32_t limit_count;
  char **embedded; // names of Kafka clusters that the master runs
  uint32_t embedded_count;
  char **watch; // files and folders
  uint32_t watch_count;
  char **errors; // each a JSON object: file, line, entity, field, expected, found, message
  uint32_t error_count;
  char **warnings; // likewise
  uint32_t warning_count;
  int32_t log_level; // enum log_level
  bool log_json;
};

struct settings *settings_new(void);
void settings_free(struct settings *settings); // NULL is fine

// Takes one line of the checker; a key it does not know is ignored, a line that is wrong becomes an error of its own.
void settings_line(struct settings *settings, const char *line);
// Adds an error that is a JSON object already.
void settings_refuse(struct settings *settings, const char *json);
// Adds an error that has nothing but a message.
void settings_fail(struct settings *settings, const char *format, ...) __attribute__((format(printf, 2, 3)));

// gateway.limits.NAME, or `otherwise` when it was not told.
double settings_limit(const struct settings *settings, const char *name, double otherwise);

// True when workers have to be replaced to get from `a` to `b`: their sockets, their number or the embedded Kafka
// clusters differ.
bool settings_differ(const struct settings *a, const struct settings *b);
