// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 codec. llhttp's callbacks only note what they saw and pause; h1_next turns the pauses into events.
#include "h1.h"

#include "error.h"

static int fail(struct h1 *h1, enum h1_problem problem, const char *reason) {
  h1->problem = (uint8_t)problem;
  h1->reason = reason;
  return HPE_USER;
}

// A span may come in pieces. In a head they are contiguous; elsewhere (trailers) they are gathered in the arena.
static int span_extend(struct h1 *h1, struct slice *slice, const char *data, size_t len) {
  if (!h1->message) return 0;
  if (h1->in_trailers) {
    char *both = arena_alloc(h1->arena, slice->len + len + 1);
    if (!both) return fail(h1, H1_PROBLEM_HEAD_LARGE, "trailers are too large");
    if (slice->len) memcpy(both, slice->data, slice->len);
    memcpy(both + slice->len, data, len);
    *slice = (struct slice){both, slice->len + (uint32_t)len};
    return 0;
  }
  if (!slice->data) slice->data = data;
  if (slice->data + slice->len != data) return fail(h1, H1_PROBLEM_SYNTAX, "a line is folded");
  slice->len += (uint32_t)len;
  return 0;
}

static int on_method(llhttp_t *parser, const char *data, size_t len) {
  struct h1 *h1 = parser->data;
  return span_extend(h1, &h1->message->method, data, len);
}

static int on_url(llhttp_t *parser, const char *data, size_t len) {
  struct h1 *h1 = parser->data;
  return span_extend(h1, &h1->message->target, data, len);
}

static int on_status(llhttp_t *parser, const char *data, size_t len) {
  struct h1 *h1 = parser->data;
  return span_extend(h1, &h1->message->reason, data, len);
}

static int on_name(llhttp_t *parser, const char *data, size_t len) {
  struct h1 *h1 = parser->data;
  return span_extend(h1, &h1->name, data, len);
}

static int on_value(llhttp_t *parser, const char *data, size_t len) {
  struct h1 *h1 = parser->data;
  return span_extend(h1, &h1->value, data, len);
}

static struct slice trim_right(struct slice value) {
  while (value.len && (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t')) value.len--;
  return value;
}

static int on_value_complete(llhttp_t *parser) {
  struct h1 *h1 = parser->data;
  if (!h1->message) return 0;
  struct headers *to = h1->in_trailers ? &h1->message->trailers : &h1->message->headers;
  struct slice value = h1->value.data ? trim_right(h1->value) : SLICE("");
  int result = headers_add(to, h1->arena, h1->name, value);
  h1->name = h1->value = (struct slice){NULL, 0};
  return result < 0 ? fail(h1, H1_PROBLEM_HEAD_LARGE, "too many fields") : 0;
}

static bool response_ends_with_connection(const struct h1 *h1) {
  const llhttp_t *parser = &h1->parser;
  if (h1->head_request || parser->status_code / 100 == 1 || parser->status_code == 204 || parser->status_code == 304)
    return false;
  return !(parser->flags & (F_CHUNKED | F_CONTENT_LENGTH));
}

// Whoever passes the content on has to have undone its coding, and knows only one.
static int check_coding(struct h1 *h1) {
  struct field *coding = headers_find_id(&h1->message->headers, FIELD_TRANSFER_ENCODING);
  if (!coding) return 0;
  if (headers_find(&h1->message->headers, coding->name, 1))
    return fail(h1, H1_PROBLEM_SYNTAX, "more than one Transfer-Encoding");
  if (slice_equal_nocase(coding->value, SLICE("chunked"))) return 0;
  return fail(h1, H1_PROBLEM_CODING, "a transfer coding besides chunked");
}

// What llhttp lets pass or sees too late, but leaves room for two readings (RFC 9112 3, 6.1).
static int check_request(struct h1 *h1) {
  const struct h1_message *message = h1->message;
  if (message->target.data != message->method.data + message->method.len + 1)
    return fail(h1, H1_PROBLEM_SYNTAX, "more than one space in the request line");
  if (!(h1->parser.flags & F_TRANSFER_ENCODING)) return 0;
  if (!(h1->parser.flags & F_CHUNKED))
    return fail(h1, H1_PROBLEM_SYNTAX, "Transfer-Encoding does not end with chunked");
  return check_coding(h1);
}

static int check_head(struct h1 *h1) {
  // It would pass for a message without length.
  if (h1->parser.flags & F_CONTENT_LENGTH && h1->parser.content_length > INT64_MAX)
    return fail(h1, H1_PROBLEM_SYNTAX, "Content-Length is too large");
  return h1->parser.type == HTTP_REQUEST ? check_request(h1) : check_coding(h1);
}

static int on_headers_complete(llhttp_t *parser) {
  struct h1 *h1 = parser->data;
  struct h1_message *message = h1->message;
  if (check_head(h1) != 0) return -1;
  message->major = parser->http_major;
  message->minor = parser->http_minor;
  message->upgrade = parser->upgrade;
  message->chunked = (parser->flags & F_CHUNKED) != 0;
  message->content_length = parser->flags & F_CONTENT_LENGTH ? (int64_t)parser->content_length : -1;
  message->keep_alive = llhttp_should_keep_alive(parser);
  if (parser->type == HTTP_RESPONSE) {
    message->status = parser->status_code;
    message->until_close = response_ends_with_connection(h1);
    // A response to HEAD has the fields of a body and none; so has one to GET with 304.
    if (h1->head_request) {
      parser->flags |= F_SKIPBODY;
      message->keep_alive =
          headers_has(&message->headers, FIELD_CONNECTION)
              ? !headers_list_has(headers_find_id(&message->headers, FIELD_CONNECTION)->value, SLICE("close"))
              : parser->http_minor > 0;
    }
  }
  h1->in_head = false;
  h1->pending_head = true;
  return HPE_PAUSED;
}

static int on_body(llhttp_t *parser, const char *data, size_t len) {
  struct h1 *h1 = parser->data;
  if (len == 0) return 0; // at the end of each input the parser closes its span, empty or not
  h1->body = (struct slice){data, (uint32_t)len};
  return HPE_PAUSED;
}

static int on_chunk_header(llhttp_t *parser) {
  struct h1 *h1 = parser->data;
  if (parser->content_length == 0) h1->in_trailers = true;
  return 0;
}

static int on_message_complete(llhttp_t *parser) {
  struct h1 *h1 = parser->data;
  h1->pending_end = true;
  return HPE_PAUSED;
}

// One table for both roles; llhttp only reads it.
static const llhttp_settings_t settings = {
    .on_method = on_method,
    .on_url = on_url,
    .on_status = on_status,
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

void h1_init(struct h1 *h1, enum h1_role role, uint32_t max_head_bytes) {
  *h1 = (struct h1){.max_head_bytes = max_head_bytes};
  llhttp_init(&h1->parser, role == H1_SERVER ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
  h1->parser.data = h1;
}

void h1_begin(struct h1 *h1, struct h1_message *message, struct arena *arena, uint32_t max_headers, bool head_request) {
  *message = (struct h1_message){.content_length = -1};
  headers_init(&message->headers, max_headers);
  headers_init(&message->trailers, max_headers);
  h1->message = message;
  h1->arena = arena;
  h1->name = h1->value = h1->body = (struct slice){NULL, 0};
  h1->head_bytes = 0;
  h1->in_head = true;
  h1->in_trailers = h1->pending_head = h1->pending_end = false;
  h1->head_request = head_request;
}

void h1_abandon(struct h1 *h1) {
  h1->message = NULL;
  h1->arena = NULL;
}

// Whether a head begins with a token and a space: then it is a method, if an unknown one.
static bool begins_with_token(struct slice input) {
  const char *space = memchr(input.data, ' ', input.len);
  return space && headers_name_is_valid((struct slice){input.data, (uint32_t)(space - input.data)});
}

static enum h1_event problem(struct h1 *h1, llhttp_errno_t code, struct slice input) {
  if (h1->problem) return H1_ERROR;
  bool known_version = h1->parser.http_major == 1 && h1->parser.http_minor <= 1;
  h1->reason = llhttp_get_error_reason(&h1->parser);
  h1->problem = H1_PROBLEM_SYNTAX;
  if (code == HPE_INVALID_METHOD && begins_with_token(input)) h1->problem = H1_PROBLEM_METHOD;
  if (code == HPE_INVALID_VERSION && !known_version) h1->problem = H1_PROBLEM_VERSION;
  return H1_ERROR;
}

// The bytes of a head (or of trailers) are bounded, whatever pieces they come in.
static enum h1_event need_more(struct h1 *h1) {
  if (h1->head_bytes > h1->max_head_bytes) {
    bool in_target = h1->message && h1->message->target.len > h1->max_head_bytes / 2; // what made it so
    fail(h1, in_target ? H1_PROBLEM_TARGET_LONG : H1_PROBLEM_HEAD_LARGE,
         in_target ? "the request target is too long" : "the head is too large");
    return H1_ERROR;
  }
  return H1_NEED_MORE;
}

// One run of the parser, up to where it paused. A pause for an upgrade comes behind the message that asked for it:
// whoever still pulls has not granted it, so the next message follows.
static llhttp_errno_t execute(struct h1 *h1, struct slice input, uint32_t *used) {
  llhttp_errno_t code = llhttp_execute(&h1->parser, input.data, input.len);
  if (code == HPE_PAUSED_UPGRADE) {
    const char *at = llhttp_get_error_pos(&h1->parser);
    llhttp_resume_after_upgrade(&h1->parser);
    code = llhttp_execute(&h1->parser, at, (size_t)(input.data + input.len - at));
  }
  *used = code == HPE_OK ? input.len : (uint32_t)(llhttp_get_error_pos(&h1->parser) - input.data);
  return code;
}

enum h1_event h1_next(struct h1 *h1, struct slice input, uint32_t *used) {
  *used = 0;
  if (h1->problem) return H1_ERROR;
  if (input.len == 0 && !h1->poke) return H1_NEED_MORE;
  bool counts = h1->in_head || h1->in_trailers;
  h1->poke = false;
  h1->body.len = 0;
  llhttp_errno_t code = execute(h1, input, used);
  if (counts) h1->head_bytes += *used;
  if (code == HPE_OK) return need_more(h1);
  if (code != HPE_PAUSED) return problem(h1, code, input);
  llhttp_resume(&h1->parser);
  if (h1->body.len) {
    h1->poke = true;
    return H1_BODY;
  }
  if (h1->pending_head) {
    h1->pending_head = false;
    h1->poke = true;
    return need_more(h1) == H1_ERROR ? H1_ERROR : H1_HEAD;
  }
  h1->pending_end = false;
  return H1_END;
}

enum h1_event h1_finish(struct h1 *h1) {
  if (h1->problem) return H1_ERROR;
  if (h1->in_head && h1->head_bytes == 0) return H1_NEED_MORE;
  llhttp_errno_t code = llhttp_finish(&h1->parser);
  if (code == HPE_OK || code == HPE_PAUSED) {
    if (h1->pending_end) {
      h1->pending_end = false;
      return H1_END;
    }
    return H1_NEED_MORE;
  }
  return problem(h1, code, SLICE(""));
}
