// SPDX-License-Identifier: Apache-2.0
// Lines of the access log.
//
//   text  ADDRESS - - [23/Nov/2026:11:25:14 +0000] "GET /a?b HTTP/1.1" 200 12 "REFERER" "AGENT" MS SERVICE_MS TARGET ID
//         the combined format of other servers up to the agent; "-" for what there is not, \xHH for what may not stand
//         in a line
//   json  one object, whose members are left out when there is nothing to tell
#include "access_log.h"

#include <stdio.h>
#include <time.h>

#include "appender.h"
#include "exchange.h"
#include "forward.h"
#include "text.h"
#include "worker.h"

// ---- Pieces ----------------------------------------------------------------------------------------------------------

static void put_escaped(struct text *line, struct slice value) {
  uint32_t from = 0;
  for (uint32_t i = 0; i < value.len; i++) {
    unsigned char c = (unsigned char)value.data[i];
    if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') continue;
    text_put(line, value.data + from, i - from);
    text_printf(line, "\\x%02X", c);
    from = i + 1;
  }
  if (value.len > from) text_put(line, value.data + from, value.len - from);
}

static void put_text(struct text *line, struct slice value) {
  if (value.len)
    put_escaped(line, value);
  else
    text_puts(line, "-");
}

static void put_json(struct text *line, const char *name, struct slice value) {
  if (!value.data) return;
  text_printf(line, ",\"%s\":\"", name);
  for (uint32_t i = 0, from = 0; i <= value.len; i++) {
    unsigned char c = i < value.len ? (unsigned char)value.data[i] : 0;
    bool plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
    if (plain) continue;
    if (i > from) text_put(line, value.data + from, i - from);
    from = i + 1;
    if (i < value.len) text_printf(line, c == '"' || c == '\\' ? "\\%c" : "\\u%04x", c);
  }
  text_puts(line, "\"");
}

static struct slice request_field(const struct exchange *exchange, struct slice name) {
  const struct field *field = headers_find(&exchange->request.headers, name, 0);
  return field ? field->value : (struct slice){NULL, 0};
}

// The second in which a request began is that of many others: its text is kept.
static void put_time(struct text *line, const struct exchange *exchange, bool json) {
  struct worker *worker = exchange->worker;
  int64_t key = exchange->started_real_us / 1000000 * 2 + json;
  if (worker->access_time_key != key || worker->access_time_len == 0) {
    time_t seconds = (time_t)(key / 2);
    struct tm parts;
    const char *format = json ? "%Y-%m-%dT%H:%M:%S" : "%d/%b/%Y:%H:%M:%S +0000";
    worker->access_time_len =
        (uint32_t)strftime(worker->access_time, sizeof worker->access_time, format, gmtime_r(&seconds, &parts));
    worker->access_time_key = key;
  }
  text_put(line, worker->access_time, worker->access_time_len);
}

// Milliseconds with three digits behind the point, as "%.3f" writes microseconds.
static void put_ms(struct text *line, int64_t us) {
  char digits[24];
  int at = sizeof digits, behind = 0;
  uint64_t left = us > 0 ? (uint64_t)us : 0;
  do {
    if (behind++ == 3) digits[--at] = '.';
    digits[--at] = (char)('0' + left % 10);
    left /= 10;
  } while (left > 0 || behind < 4);
  text_put(line, digits + at, sizeof digits - (size_t)at);
}

// Until the service answered; -1: it did not.
static int64_t service_us(const struct exchange *exchange) {
  int64_t from = exchange->sent_us, to = exchange->first_byte_us;
  return from > 0 && to >= from ? to - from : -1;
}

static int64_t whole_us(const struct exchange *exchange) {
  return exchange->ended_us - exchange->started_us;
}

// ---- Lines -----------------------------------------------------------------------------------------------------------

static void put_request_line(struct text *line, const struct exchange *exchange) {
  const struct h1_message *request = &exchange->request;
  if (exchange->tcp) { // a stream: "tls db.example:9443"
    put_escaped(line, exchange->scheme);
    text_puts(line, " ");
    put_escaped(line, exchange->tls_sni);
    text_printf(line, ":%u", exchange->peer.local_port);
    return;
  }
  if (request->method.len == 0) { // nothing that could be read
    text_puts(line, "-");
    return;
  }
  put_escaped(line, request->method);
  text_puts(line, " ");
  put_escaped(line, request->target);
  text_printf(line, request->major >= 2 ? " HTTP/%u" : " HTTP/%u.%u", request->major, request->minor);
}

static void put_text_line(struct text *line, struct exchange *exchange) {
  put_text(line, forward_ip(exchange));
  text_puts(line, " - - [");
  put_time(line, exchange, false);
  text_puts(line, "] \"");
  put_request_line(line, exchange);
  text_printf(line, "\" %d %llu \"", exchange->status, (unsigned long long)exchange->response_body_bytes);
  put_text(line, request_field(exchange, SLICE("referer")));
  text_puts(line, "\" \"");
  put_text(line, request_field(exchange, SLICE("user-agent")));
  text_puts(line, "\" ");
  put_ms(line, whole_us(exchange));
  text_puts(line, " ");
  if (service_us(exchange) >= 0)
    put_ms(line, service_us(exchange));
  else
    text_puts(line, "-");
  text_puts(line, " ");
  if (exchange->target_port)
    text_printf(line, strchr(exchange->target_ip, ':') ? "[%s]:%u" : "%s:%u", exchange->target_ip,
                exchange->target_port);
  else
    text_puts(line, "-");
  text_printf(line, " %s", exchange_id(exchange));
}

static struct slice grpc_status(const struct exchange *exchange) {
  if (!exchange_is_grpc(exchange)) return (struct slice){NULL, 0};
  const struct field *field = headers_find(&exchange->trailers, SLICE("grpc-status"), 0);
  if (!field) field = headers_find(&exchange->response, SLICE("grpc-status"), 0);
  return field ? field->value : (struct slice){NULL, 0};
}

static void put_json_service(struct text *line, const struct exchange *exchange) {
  if (exchange->service) put_json(line, "service", exchange->service->name);
  if (exchange->target_port) {
    put_json(line, "target_ip", slice_of(exchange->target_ip));
    text_printf(line, ",\"target_port\":%u,\"tries\":%u", exchange->target_port, exchange->tries);
  }
  if (exchange->service_status) text_printf(line, ",\"service_status\":%d", exchange->service_status);
  if (service_us(exchange) < 0) return;
  text_puts(line, ",\"service_ms\":");
  put_ms(line, service_us(exchange));
}

// Whom the request was authenticated as, by the name that the service is told; none when nobody vouches for it.
static struct slice consumer_of(const struct exchange *exchange) {
  if (!exchange->vouched) return (struct slice){NULL, 0};
  struct slice name = request_field(exchange, SLICE("x-consumer-username"));
  if (!name.data) name = request_field(exchange, SLICE("x-consumer-custom-id"));
  return name.data ? name : request_field(exchange, SLICE("x-consumer-id"));
}

static void put_json_line(struct text *line, struct exchange *exchange) {
  const struct h1_message *request = &exchange->request;
  text_puts(line, "{\"time\":\"");
  put_time(line, exchange, true);
  text_printf(line, ".%03dZ\",\"id\":\"%s\"", (int)(exchange->started_real_us / 1000 % 1000), exchange_id(exchange));
  put_json(line, "client_ip", forward_ip(exchange));
  put_json(line, "method", request->method);
  put_json(line, "scheme", exchange->scheme);
  put_json(line, "host", exchange->host);
  put_json(line, "target", request->target);
  if (exchange->tcp) {
    put_json(line, "sni", exchange->tls_sni);
    text_printf(line, ",\"port\":%u", exchange->peer.local_port);
  }
  if (request->method.len) text_printf(line, ",\"version\":\"%u.%u\"", request->major, request->minor);
  text_printf(line, ",\"status\":%d,\"bytes\":%llu,\"request_bytes\":%llu,\"ms\":", exchange->status,
              (unsigned long long)exchange->response_body_bytes, (unsigned long long)exchange->request_bytes);
  put_ms(line, whole_us(exchange));
  put_json(line, "referer", request_field(exchange, SLICE("referer")));
  put_json(line, "user_agent", request_field(exchange, SLICE("user-agent")));
  if (exchange->route) put_json(line, "route", exchange->route->name);
  put_json(line, "consumer", consumer_of(exchange));
  put_json_service(line, exchange);
  put_json(line, "grpc_status", grpc_status(exchange));
  put_json(line, "error", exchange->error);
  if (exchange->failed_response) text_puts(line, ",\"cut\":true");
  text_puts(line, "}");
}

void access_log_write(struct exchange *exchange) {
  struct worker *worker = exchange->worker;
  const struct generation *generation = exchange->generation;
  struct appender *appender = worker_appender(worker);
  if (!appender || exchange->route_index == ROUTE_STATUS) return;
  struct text *line = &worker->access_line;
  line->len = 0;
  if (generation->access_log_json)
    put_json_line(line, exchange);
  else
    put_text_line(line, exchange);
  struct appended appended = {.path = generation->access_log, .line = line->data, .len = (uint32_t)line->len};
  appender_put(appender, &appended); // which tells of what it loses
}
