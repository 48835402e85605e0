// SPDX-License-Identifier: Apache-2.0
// What Lua may call of files: lines to their ends.
#include "appender.h"
#include "worker.h"

int bridge_file_append(struct worker *worker, const char *path, const char *line, uint32_t len, bool reopen) {
  struct appender *appender = worker_appender(worker);
  if (!appender) return BRIDGE_FULL;
  struct appended appended = {.path = path, .line = line, .len = len, .reopen = reopen};
  return appender_put(appender, &appended);
}
