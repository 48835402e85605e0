// SPDX-License-Identifier: Apache-2.0
// What Lua may call of traces: those of requests that carry W3C's context or none. Other formats are Lua's business.
#include <string.h>

#include "exchange.h"
#include "trace.h"
#include "worker.h"

static const struct field *find_field(const struct exchange *exchange, uint32_t number) {
  const struct worker *worker = exchange->worker;
  if (number == 0 || number > worker->field_name_count) return NULL;
  return headers_find_name(&exchange->request.headers, &worker->field_names[number - 1], 0);
}

static bool has_other(const struct exchange *exchange, const struct trace_options *options) {
  for (uint32_t i = 0; i < options->other_count; i++)
    if (find_field(exchange, options->others[i])) return true;
  return false;
}

// What the caller dropped is dropped; what it sampled is sampled where it is followed; else the rate decides.
static bool decide(const struct trace_ids *ids, const struct trace_options *options) {
  if (ids->has_parent && !ids->sampled) return false;
  if (ids->has_parent && options->follow) return true;
  return trace_share(ids) >= 1 - options->rate;
}

int bridge_trace_begin(struct worker *worker, double handle, const struct trace_options *options,
                       struct trace_ids *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange->trace) return BRIDGE_DIFFERS;
  if (has_other(exchange, options)) return BRIDGE_NONE;
  struct trace_ids *ids = arena_alloc(&exchange->arena, sizeof *ids);
  if (!ids) return BRIDGE_FULL;
  memset(ids, 0, sizeof *ids);
  const struct field *field = options->extract ? find_field(exchange, options->traceparent) : NULL;
  if (!field || !trace_parse(field->value, ids)) trace_random(worker, ids->id, sizeof ids->id / 2);
  trace_random(worker, ids->root, sizeof ids->root / 2);
  trace_random(worker, ids->next, sizeof ids->next / 2);
  ids->sampled = decide(ids, options);
  char text[TRACE_PARENT_BYTES];
  trace_print(ids, text);
  int status = bridge_field_set(worker, handle, MESSAGE_REQUEST, options->traceparent, text, sizeof text);
  if (status != BRIDGE_OK) return status;
  exchange->trace = ids;
  *out = *ids;
  return BRIDGE_OK;
}

int bridge_trace(struct worker *worker, double handle, struct trace_ids *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (!exchange->trace) return BRIDGE_NONE;
  *out = *exchange->trace;
  return BRIDGE_OK;
}
