// SPDX-License-Identifier: Apache-2.0
// What Lua may call to edit JSON: thin bodies over json_edit, behind a check of the text.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "json.h"
#include "json_edit.h"
#include "worker.h"

static int answer(int result) {
  return result == 0 ? BRIDGE_OK : result == ERROR_MEMORY ? BRIDGE_FULL : BRIDGE_INVALID;
}

struct json_edits *bridge_json_edits_new(void) {
  return json_edits_new();
}

void bridge_json_edits_free(struct json_edits *edits) {
  json_edits_free(edits);
}

int bridge_json_edits_add(struct json_edits *edits, int step, const struct bytes *path, uint32_t count,
                          const char *value, uint32_t len) {
  return answer(json_edits_add(edits, step, path, count, (struct slice){value, len}));
}

int bridge_json_edits_value(struct json_edits *edits, uint32_t number, const char *value, uint32_t len) {
  return answer(json_edits_value(edits, number, (struct slice){value, len}));
}

int bridge_json_edits_run(struct worker *worker, struct json_edits *edits, const char *text, uint32_t len,
                          struct bytes *out) {
  struct slice result = {text, len};
  if (json_check_form(result, JSON_DEPTH_MOST, &worker->error) < 0) return BRIDGE_INVALID;
  int status = json_edits_run(edits, result, &result);
  if (status == 0) *out = (struct bytes){result.data, result.len};
  return answer(status);
}
