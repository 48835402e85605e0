// SPDX-License-Identifier: Apache-2.0
// The gateway's own answers.
#include "answer.h"

#include <stdio.h>

#include "exchange.h"

enum { BODY_MOST = 2048 };

const char *answer_reason(int status) {
  static const struct {
    int status;
    const char *reason;
  } reasons[] = {
      {100, "Continue"},
      {101, "Switching Protocols"},
      {103, "Early Hints"},
      {200, "OK"},
      {201, "Created"},
      {202, "Accepted"},
      {204, "No Content"},
      {206, "Partial Content"},
      {301, "Moved Permanently"},
      {302, "Found"},
      {303, "See Other"},
      {304, "Not Modified"},
      {307, "Temporary Redirect"},
      {308, "Permanent Redirect"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {402, "Payment Required"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {406, "Not Acceptable"},
      {408, "Request Timeout"},
      {409, "Conflict"},
      {410, "Gone"},
      {411, "Length Required"},
      {412, "Precondition Failed"},
      {413, "Content Too Large"},
      {414, "URI Too Long"},
      {415, "Unsupported Media Type"},
      {416, "Range Not Satisfiable"},
      {417, "Expectation Failed"},
      {421, "Misdirected Request"},
      {422, "Unprocessable Content"},
      {425, "Too Early"},
      {426, "Upgrade Required"},
      {428, "Precondition Required"},
      {429, "Too Many Requests"},
      {431, "Request Header Fields Too Large"},
      {451, "Unavailable For Legal Reasons"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {502, "Bad Gateway"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
      {505, "HTTP Version Not Supported"},
  };
  for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
    if (reasons[i].status == status) return reasons[i].reason;
  return "";
}

// One error in each form: the type that is asked for and sent, and the text with the message and the id in it.
struct form {
  const char *type, *text;
  char escape; // how the message is escaped: 'j'son, 'm'arkup, 't'ext
};

static const struct form forms[] = {
    {"application/json", "{\"message\":\"%s\",\"request_id\":\"%s\"}", 'j'},
    {"text/html",
     "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>Error</title></head>"
     "<body><h1>Error</h1><p>%s.</p><p>request_id: %s</p></body></html>\n",
     'm'},
    {"application/xml",
     "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error><message>%s</message><requestid>%s</requestid></error>\n",
     'm'},
    {"text/plain", "%s\nrequest_id: %s\n", 't'},
};
enum { FORM_COUNT = sizeof forms / sizeof *forms };

// How well a media range ("text/*") fits a type: 0 not, 1 by "*/*", 2 by the main type, 3 exactly.
static int range_fits(struct slice range, struct slice type) {
  if (slice_equal_nocase(range, type)) return 3;
  if (slice_equal(range, SLICE("*/*")) || slice_equal(range, SLICE("*"))) return 1;
  if (range.len < 2 || range.data[range.len - 1] != '*' || range.data[range.len - 2] != '/') return 0;
  return type.len >= range.len &&
                 slice_equal_nocase((struct slice){type.data, range.len - 1}, (struct slice){range.data, range.len - 1})
             ? 2
             : 0;
}

static double quality_of(const char *p, const char *end) {
  for (; p + 2 < end; p++) {
    if (ascii_lower(p[0]) != 'q' || p[1] != '=') continue;
    double quality = p[2] == '0' ? 0 : 1, scale = 0.1;
    if (p + 3 < end && p[3] == '.')
      for (p += 4; p < end && *p >= '0' && *p <= '9'; p++, scale /= 10) quality += (*p - '0') * scale;
    return quality;
  }
  return 1;
}

// The first form of the highest quality that Accept gives (RFC 9110 12.5.1); JSON where nothing else fits.
static const struct form *choose_form(struct slice accept) {
  const struct form *best = &forms[0];
  double best_quality = 0;
  const char *p = accept.data, *end = accept.data + accept.len;
  while (p < end) {
    while (p < end && (*p == ' ' || *p == ',' || *p == '\t')) p++;
    const char *start = p;
    while (p < end && *p != ',') p++;
    const char *stop = start;
    while (stop < p && *stop != ';' && *stop != ' ') stop++;
    double quality = quality_of(stop, p);
    for (int i = 0; i < FORM_COUNT && quality > best_quality; i++) {
      if (!range_fits((struct slice){start, (uint32_t)(stop - start)}, slice_of(forms[i].type))) continue;
      best = &forms[i];
      best_quality = quality;
    }
  }
  return best;
}

static uint32_t put(char *out, uint32_t at, const char *text) {
  uint32_t len = (uint32_t)strlen(text);
  if (at + len >= BODY_MOST / 2) return at;
  memcpy(out + at, text, len);
  return at + len;
}

static void escape(struct slice message, char how, char out[BODY_MOST / 2]) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < message.len; i++) {
    char one[8] = {message.data[i], 0};
    const char *as = one;
    if (how == 'j' && (one[0] == '"' || one[0] == '\\'))
      snprintf(one, sizeof one, "\\%c", message.data[i]);
    else if (how == 'j' && (unsigned char)one[0] < 0x20)
      snprintf(one, sizeof one, "\\u%04x", (unsigned)message.data[i]);
    else if (how == 'm' && one[0] == '<')
      as = "&lt;";
    else if (how == 'm' && one[0] == '&')
      as = "&amp;";
    else if (how == 't' && (unsigned char)one[0] < 0x20)
      as = " ";
    at = put(out, at, as);
  }
  out[at] = 0;
}

void answer_error(struct exchange *exchange, int status, struct slice message) {
  struct field *accept = headers_find_id(&exchange->request.headers, FIELD_ACCEPT);
  const struct form *form = choose_form(accept ? accept->value : SLICE(""));
  char escaped[BODY_MOST / 2], body[BODY_MOST];
  escape(message, form->escape, escaped);
  int len = snprintf(body, sizeof body, form->text, escaped, exchange_id(exchange));
  exchange->status = status;
  exchange->reason = (struct slice){NULL, 0};
  exchange->message =
      exchange->grpc ? arena_copy(&exchange->arena, message.data, message.len) : (struct slice){NULL, 0};
  buffer_clear(&exchange->answer);
  buffer_append(&exchange->answer, body, (size_t)len);
  headers_remove(&exchange->preset, SLICE("content-type"));
  char type[64];
  int type_len = snprintf(type, sizeof type, "%s; charset=utf-8", form->type);
  struct slice value = arena_copy(&exchange->arena, type, (size_t)type_len);
  if (value.data) headers_add(&exchange->preset, &exchange->arena, SLICE("Content-Type"), value);
}
