// SPDX-License-Identifier: Apache-2.0
// What a response tells of the gateway besides, where the setting `headers` asks for it: how long things took, as far as
// is known when the head goes, and for whom.
#include <stdio.h>

#include "exchange_parts.h"
#include "worker.h"

struct span {
  int64_t gateway_us, service_us; // -1: no service answered
};

static void tell(struct exchange *exchange, struct slice name, const char *text) {
  struct slice value = arena_copy(&exchange->arena, text, strlen(text));
  if (value.data) headers_set(&exchange->response, &exchange->arena, name, value);
}

static void tell_number(struct exchange *exchange, struct slice name, int64_t number) {
  char text[24];
  snprintf(text, sizeof text, "%lld", (long long)number);
  tell(exchange, name, text);
}

// Server-Timing is a list: the service's own stays, ours comes behind it.
static void tell_timing(struct exchange *exchange, const struct span *span) {
  char text[96];
  int len = snprintf(text, sizeof text, "gateway;dur=%.1f", (double)span->gateway_us / 1000);
  if (span->service_us >= 0)
    snprintf(text + len, sizeof text - (size_t)len, ", upstream;dur=%.1f", (double)span->service_us / 1000);
  struct slice value = arena_copy(&exchange->arena, text, strlen(text));
  if (value.data) headers_add(&exchange->response, &exchange->arena, SLICE("Server-Timing"), value);
}

void exchange_tell(struct exchange *exchange, uint32_t what) {
  bool served = exchange->source == SOURCE_SERVICE;
  int64_t whole_us = exchange->worker->loop.clock.mono_us - exchange->started_us;
  struct span span = {whole_us, -1};
  if (exchange->first_byte_us) {
    span.service_us = exchange->first_byte_us - exchange->sent_us;
    span.gateway_us = whole_us - span.service_us;
  }
  if (exchange_fork_response(exchange) < 0) return;
  exchange->response.most += 8;
  if (served && (what & TELL_UPSTREAM_LATENCY))
    tell_number(exchange, SLICE("X-Kong-Upstream-Latency"), span.service_us / 1000);
  if (served && (what & TELL_PROXY_LATENCY))
    tell_number(exchange, SLICE("X-Kong-Proxy-Latency"), (exchange->sent_us - exchange->started_us) / 1000);
  if (!served && (what & TELL_RESPONSE_LATENCY))
    tell_number(exchange, SLICE("X-Kong-Response-Latency"), whole_us / 1000);
  if (exchange->service_status && (what & TELL_UPSTREAM_STATUS))
    tell_number(exchange, SLICE("X-Kong-Upstream-Status"), exchange->service_status);
  if (what & TELL_REQUEST_ID) tell(exchange, SLICE("X-Kong-Request-Id"), exchange_id(exchange));
  if (what & TELL_SERVER_TIMING) tell_timing(exchange, &span);
}
