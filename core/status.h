// SPDX-License-Identifier: Apache-2.0
// The state of the whole gateway as one line of JSON, for `sluice status`.
#pragma once
#include <stdint.h>

#include "history.h"
#include "listen.h"
#include "settings.h"
#include "text.h"
#include "workers.h"

struct status_facts {
  const char *version;
  const char *state;
  int64_t started_us, now_us; // since 1970
  const char *const *files;
  uint32_t file_count;
  const struct settings *settings; // NULL before the first generation
  const struct history *history;
  const struct listeners *listeners;
  const struct workers *workers; // NULL before the first generation
  const char *worker_json;       // what one worker says of plugins, targets and clusters; NULL: none answered
};

void status_describe(const struct status_facts *facts, struct text *out);
