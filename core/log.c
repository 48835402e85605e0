// SPDX-License-Identifier: Apache-2.0
// The process log. A line is built on the stack and written by one call, so lines of several processes never mix.
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
  LINE_MAX_BYTES = 8192,
  LINE_END_BYTES = 8, // kept free for what ends a line
  PAIRS_MOST = 16
};

struct line {
  uint32_t len;
  char text[LINE_MAX_BYTES];
};

static const char *const level_names[] = {"debug", "info", "notice", "warn", "error", "crit"};

static size_t line_room(const struct line *line) {
  return sizeof line->text - LINE_END_BYTES - line->len;
}

static void line_put(struct line *line, const char *text, size_t len) {
  if (len > line_room(line)) len = line_room(line);
  memcpy(line->text + line->len, text, len);
  line->len += (uint32_t)len;
}

static void line_puts(struct line *line, const char *text) {
  line_put(line, text, strlen(text));
}

// Where the line is full the text is cut off between two characters, with room for the quote behind it.
static void line_put_escaped(struct line *line, const char *text) {
  for (const char *p = text; *p; p++) {
    char one[8] = {*p};
    unsigned char c = (unsigned char)*p;
    if (c == '"' || c == '\\')
      snprintf(one, sizeof one, "\\%c", c);
    else if (c == '\n')
      snprintf(one, sizeof one, "\\n");
    else if (c < 0x20 || c == 0x7f)
      snprintf(one, sizeof one, "\\u%04x", c);
    if (line_room(line) <= strlen(one)) return;
    line_puts(line, one);
  }
}

static void line_put_quoted(struct line *line, const char *text) {
  line_puts(line, "\"");
  line_put_escaped(line, text);
  line_puts(line, "\"");
}

static bool is_plain_word(const char *text) {
  if (!*text) return false;
  for (const char *p = text; *p; p++)
    if ((unsigned char)*p <= ' ' || *p == '"' || *p == '=' || *p == '\\' || *p == 0x7f) return false;
  return true;
}

static void line_put_time(struct line *line) {
  struct timespec now;
  struct tm utc;
  char text[40];
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1000000);
  line_puts(line, text);
}

// Keys and values in turns, `count` of both together.
struct pairs {
  const char *const *texts;
  uint32_t count;
};

static void put_text(struct line *line, const struct log *log, enum log_level level, const char *message,
                     struct pairs pairs) {
  line_put_time(line);
  line_puts(line, " ");
  line_puts(line, level_names[level]);
  line_puts(line, " ");
  line_puts(line, log->source);
  line_puts(line, ": ");
  line_put_escaped(line, message);
  for (uint32_t i = 0; i + 1 < pairs.count; i += 2) {
    const char *value = pairs.texts[i + 1] ? pairs.texts[i + 1] : "";
    line_puts(line, " ");
    line_put_escaped(line, pairs.texts[i]);
    line_puts(line, "=");
    if (is_plain_word(value))
      line_puts(line, value);
    else
      line_put_quoted(line, value);
  }
}

static void put_json(struct line *line, const struct log *log, enum log_level level, const char *message,
                     struct pairs pairs) {
  line_puts(line, "{\"time\":\"");
  line_put_time(line);
  line_puts(line, "\",\"level\":\"");
  line_puts(line, level_names[level]);
  line_puts(line, "\",\"source\":");
  line_put_quoted(line, log->source);
  line_puts(line, ",\"message\":");
  line_put_quoted(line, message);
  for (uint32_t i = 0; i + 1 < pairs.count; i += 2) {
    if (line_room(line) < strlen(pairs.texts[i]) * 6 + sizeof ",\"\":\"\"") break; // escaped, a byte may take six
    line_puts(line, ",");
    line_put_quoted(line, pairs.texts[i]);
    line_puts(line, ":");
    line_put_quoted(line, pairs.texts[i + 1] ? pairs.texts[i + 1] : "");
  }
  line->text[line->len++] = '}';
}

static void log_line(struct log *log, enum log_level level, const char *message, struct pairs pairs) {
  struct line line;
  line.len = 0;
  if (log->json)
    put_json(&line, log, level, message, pairs);
  else
    put_text(&line, log, level, message, pairs);
  if (log->sink) {
    log->sink(log->sink_context, line.text, line.len);
    return;
  }
  line.text[line.len++] = '\n';
  if (log->fd >= 0 && write(log->fd, line.text, line.len) < 0) {
    // A log that cannot be written has nowhere to be reported.
  }
}

void log_write(struct log *log, enum log_level level, const char *message, ...) {
  if (level < log->level) return;
  const char *texts[PAIRS_MOST * 2];
  uint32_t count = 0;
  va_list list;
  va_start(list, message);
  for (const char *key; count < PAIRS_MOST * 2 && (key = va_arg(list, const char *));) {
    texts[count++] = key;
    texts[count++] = va_arg(list, const char *);
  }
  va_end(list);
  log_line(log, level, message, (struct pairs){texts, count});
}

void log_pairs(struct log *log, enum log_level level, const char *message, const char *const *pairs,
               uint32_t pair_count) {
  if (level >= log->level) log_line(log, level, message, (struct pairs){pairs, pair_count * 2});
}

int log_level_parse(const char *name) {
  for (int i = 0; i < (int)(sizeof level_names / sizeof *level_names); i++)
    if (strcmp(name, level_names[i]) == 0) return i;
  return -1;
}

const char *log_number(char buffer[32], int64_t number) {
  snprintf(buffer, 32, "%lld", (long long)number);
  return buffer;
}
