// SPDX-License-Identifier: Apache-2.0
// Lines of the access log.
//
//   text  ADDRESS - - [23/Nov/2026:11:25:14 +0000] "GET /a?b HTTP/1.1" 200 12 "REFERER" "AGENT" MS SERVICE_MS TARGET ID
//         the combined format of other servers up to the agent; "-" for what there is not, \xHH for what may not stand
//         in a line
//   json  one object, whose members are left out when there is nothing to tell
#include "access_log.h"

#include <string.h>
#include <time.h>

#include "appender.h"
#include "exchange.h"
#include "forward.h"
#include "text.h"
#include "worker.h"

// ---- Pieces ----------------------------------------------------------------------------------------------------------

static void put(struct text *line, struct slice piece) {
  if (line->room - line->len <= piece.len) text_reserve(line, piece.len);
  memcpy(line->data + line->len, piece.data, piece.len);
  line->len += piece.len;
}

static void put_number(struct text *line, uint64_t number) {
  char digits[DIGITS_MOST];
  put(line, slice_of_number(number, digits));
}

static bool is_plain(unsigned char c) {
  return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

// Not 0 when one of the word's bytes is 0 (or, behind such a one, 1).
static uint64_t zero_bytes(uint64_t word) {
  return (word - 0x0101010101010101u) & ~word & 0x8080808080808080u;
}

// Not 0 when one of the word's bytes is not plain.
static uint64_t odd_bytes(uint64_t word) {
  uint64_t low = (word - 0x2020202020202020u) & ~word & 0x8080808080808080u;
  return (word & 0x8080808080808080u) | low | zero_bytes(word ^ 0x7f7f7f7f7f7f7f7fu) |
         zero_bytes(word ^ 0x2222222222222222u) | zero_bytes(word ^ 0x5c5c5c5c5c5c5c5cu);
}

// How many bytes can be taken as they are before one that cannot; most texts have none such.
static uint32_t plain_bytes(struct slice value) {
  uint32_t at = 0;
  for (uint64_t word; at + sizeof word <= value.len; at += (uint32_t)sizeof word) {
    memcpy(&word, value.data + at, sizeof word);
    if (odd_bytes(word)) break;
  }
  while (at < value.len && is_plain((unsigned char)value.data[at])) at++;
  return at;
}

static void put_odd_byte(struct text *line, unsigned char c, bool json) {
  static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
  if (json && (c == '"' || c == '\\'))
    put(line, (struct slice){(char[]){'\\', (char)c}, 2});
  else if (json)
    put(line, (struct slice){(char[]){'\\', 'u', '0', '0', lower[c >> 4], lower[c & 15]}, 6});
  else
    put(line, (struct slice){(char[]){'\\', 'x', upper[c >> 4], upper[c & 15]}, 4});
}

static void put_escaped(struct text *line, struct slice value, bool json) {
  while (value.len > 0) {
    uint32_t plain = plain_bytes(value);
    put(line, (struct slice){value.data, plain});
    if (plain == value.len) return;
    put_odd_byte(line, (unsigned char)value.data[plain], json);
    value = (struct slice){value.data + plain + 1, value.len - plain - 1};
  }
}

static void put_text(struct text *line, struct slice value) {
  if (value.len)
    put_escaped(line, value, false);
  else
    put(line, SLICE("-"));
}

static void put_name(struct text *line, struct slice name) {
  put(line, SLICE(",\""));
  put(line, name);
  put(line, SLICE("\":"));
}

static void put_json(struct text *line, struct slice name, struct slice value) {
  if (!value.data) return;
  put_name(line, name);
  put(line, SLICE("\""));
  put_escaped(line, value, true);
  put(line, SLICE("\""));
}

static void put_json_number(struct text *line, struct slice name, uint64_t number) {
  put_name(line, name);
  put_number(line, number);
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
  put(line, (struct slice){worker->access_time, worker->access_time_len});
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
  put(line, (struct slice){digits + at, (uint32_t)sizeof digits - (uint32_t)at});
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
    put_escaped(line, exchange->scheme, false);
    put(line, SLICE(" "));
    put_escaped(line, exchange->tls_sni, false);
    put(line, SLICE(":"));
    put_number(line, exchange->peer.local_port);
    return;
  }
  if (request->method.len == 0) { // nothing that could be read
    put(line, SLICE("-"));
    return;
  }
  put_escaped(line, request->method, false);
  put(line, SLICE(" "));
  put_escaped(line, request->target, false);
  put(line, SLICE(" HTTP/"));
  put_number(line, request->major);
  if (request->major >= 2) return;
  put(line, SLICE("."));
  put_number(line, request->minor);
}

static void put_target(struct text *line, const struct exchange *exchange) {
  if (!exchange->target_port) {
    put(line, SLICE("-"));
    return;
  }
  struct slice ip = slice_of(exchange->target_ip);
  bool bracketed = memchr(ip.data, ':', ip.len) != NULL;
  if (bracketed) put(line, SLICE("["));
  put(line, ip);
  put(line, bracketed ? SLICE("]:") : SLICE(":"));
  put_number(line, exchange->target_port);
}

static void put_text_line(struct text *line, struct exchange *exchange) {
  put_text(line, forward_ip(exchange));
  put(line, SLICE(" - - ["));
  put_time(line, exchange, false);
  put(line, SLICE("] \""));
  put_request_line(line, exchange);
  put(line, SLICE("\" "));
  put_number(line, (uint64_t)exchange->status);
  put(line, SLICE(" "));
  put_number(line, exchange->response_body_bytes);
  put(line, SLICE(" \""));
  put_text(line, request_field(exchange, SLICE("referer")));
  put(line, SLICE("\" \""));
  put_text(line, request_field(exchange, SLICE("user-agent")));
  put(line, SLICE("\" "));
  put_ms(line, whole_us(exchange));
  put(line, SLICE(" "));
  if (service_us(exchange) >= 0)
    put_ms(line, service_us(exchange));
  else
    put(line, SLICE("-"));
  put(line, SLICE(" "));
  put_target(line, exchange);
  put(line, SLICE(" "));
  put(line, slice_of(exchange_id(exchange)));
}

static struct slice grpc_status(const struct exchange *exchange) {
  if (!exchange_is_grpc(exchange)) return (struct slice){NULL, 0};
  const struct field *field = headers_find(&exchange->trailers, SLICE("grpc-status"), 0);
  if (!field) field = headers_find(&exchange->response, SLICE("grpc-status"), 0);
  return field ? field->value : (struct slice){NULL, 0};
}

static void put_json_service(struct text *line, const struct exchange *exchange) {
  if (exchange->service) put_json(line, SLICE("service"), exchange->service->name);
  if (exchange->target_port) {
    put_json(line, SLICE("target_ip"), slice_of(exchange->target_ip));
    put_json_number(line, SLICE("target_port"), exchange->target_port);
    put_json_number(line, SLICE("tries"), exchange->tries);
  }
  if (exchange->service_status) put_json_number(line, SLICE("service_status"), (uint64_t)exchange->service_status);
  if (service_us(exchange) < 0) return;
  put(line, SLICE(",\"service_ms\":"));
  put_ms(line, service_us(exchange));
}

// Whom the request was authenticated as, by the name that the service is told; none when nobody vouches for it.
static struct slice consumer_of(const struct exchange *exchange) {
  if (!exchange->vouched) return (struct slice){NULL, 0};
  struct slice name = request_field(exchange, SLICE("x-consumer-username"));
  if (!name.data) name = request_field(exchange, SLICE("x-consumer-custom-id"));
  return name.data ? name : request_field(exchange, SLICE("x-consumer-id"));
}

// Milliseconds of the second.
static void put_json_fraction(struct text *line, int64_t real_us) {
  int ms = (int)(real_us / 1000 % 1000);
  char digits[] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10)};
  put(line, (struct slice){digits, sizeof digits});
}

static void put_json_version(struct text *line, const struct h1_message *request) {
  if (request->method.len == 0) return;
  put_name(line, SLICE("version"));
  put(line, SLICE("\""));
  put_number(line, request->major);
  put(line, SLICE("."));
  put_number(line, request->minor);
  put(line, SLICE("\""));
}

static void put_json_line(struct text *line, struct exchange *exchange) {
  const struct h1_message *request = &exchange->request;
  put(line, SLICE("{\"time\":\""));
  put_time(line, exchange, true);
  put_json_fraction(line, exchange->started_real_us);
  put(line, SLICE("Z\""));
  put_json(line, SLICE("id"), slice_of(exchange_id(exchange)));
  put_json(line, SLICE("client_ip"), forward_ip(exchange));
  put_json(line, SLICE("method"), request->method);
  put_json(line, SLICE("scheme"), exchange->scheme);
  put_json(line, SLICE("host"), exchange->host);
  put_json(line, SLICE("target"), request->target);
  if (exchange->tcp) {
    put_json(line, SLICE("sni"), exchange->tls_sni);
    put_json_number(line, SLICE("port"), exchange->peer.local_port);
  }
  put_json_version(line, request);
  put_json_number(line, SLICE("status"), (uint64_t)exchange->status);
  put_json_number(line, SLICE("bytes"), exchange->response_body_bytes);
  put_json_number(line, SLICE("request_bytes"), exchange->request_bytes);
  put(line, SLICE(",\"ms\":"));
  put_ms(line, whole_us(exchange));
  put_json(line, SLICE("referer"), request_field(exchange, SLICE("referer")));
  put_json(line, SLICE("user_agent"), request_field(exchange, SLICE("user-agent")));
  if (exchange->route) put_json(line, SLICE("route"), exchange->route->name);
  put_json(line, SLICE("consumer"), consumer_of(exchange));
  put_json_service(line, exchange);
  put_json(line, SLICE("grpc_status"), grpc_status(exchange));
  put_json(line, SLICE("error"), exchange->error);
  if (exchange->failed_response) put(line, SLICE(",\"cut\":true"));
  put(line, SLICE("}"));
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
  put(line, SLICE("\n"));
  struct appended appended = {.path = generation->access_log, .line = line->data, .len = (uint32_t)line->len};
  appender_put(appender, &appended); // which tells of what it loses
}
