// SPDX-License-Identifier: Apache-2.0
// The state of the whole gateway as one line of JSON.
#include "status.h"

#include <unistd.h>

static void process_put(const struct status_facts *facts, struct text *out) {
  text_puts(out, "{\"version\":");
  text_json(out, facts->version);
  text_printf(out, ",\"pid\":%d,\"state\":\"%s\",\"started_at\":%.3f,\"uptime\":%.3f", (int)getpid(), facts->state,
              (double)facts->started_us / 1e6, (double)(facts->now_us - facts->started_us) / 1e6);
  text_puts(out, ",\"files\":[");
  for (uint32_t i = 0; i < facts->file_count; i++) {
    if (i) text_puts(out, ",");
    text_json(out, facts->files[i]);
  }
  text_puts(out, "],\"state_dir\":");
  text_json(out, facts->settings ? facts->settings->state_dir : NULL);
}

static void generation_put(const struct status_facts *facts, struct text *out) {
  const struct history *history = facts->history;
  text_printf(out, ",\"generation\":%lld,\"loaded_at\":%.3f",
              facts->settings ? (long long)facts->settings->revision : 0LL, (double)history->loaded_us / 1e6);
  text_puts(out, ",\"last_reload\":");
  outcome_describe(&history->last, out);
  text_puts(out, ",\"last_failure\":");
  outcome_describe(&history->failure, out);
}

static void listeners_put(const struct listeners *listeners, struct text *out) {
  bool comma = false;
  text_puts(out, ",\"listeners\":[");
  for (uint32_t i = 0; i < listeners->count; i++) {
    const struct listen_entry *entry = &listeners->all[i];
    if (entry->worker > 1) continue; // the same for each worker
    text_printf(out, "%s{\"for\":\"%s\",\"address\":", comma ? "," : "", listen_kind_name(entry->socket.kind));
    text_json(out, entry->socket.address);
    text_puts(out, ",\"flags\":");
    text_json(out, entry->socket.flags);
    text_puts(out, "}");
    comma = true;
  }
  text_puts(out, "]");
}

void status_describe(const struct status_facts *facts, struct text *out) {
  process_put(facts, out);
  generation_put(facts, out);
  listeners_put(facts->listeners, out);
  text_puts(out, ",\"workers\":");
  if (facts->workers)
    workers_describe(facts->workers, out);
  else
    text_puts(out, "[]");
  text_printf(out, ",\"worker\":%s}", facts->worker_json ? facts->worker_json : "null");
}
