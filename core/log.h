// SPDX-License-Identifier: Apache-2.0
// The process log: a constant message with keys, as text or JSON, one line a fact.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_NOTICE, LOG_WARN, LOG_ERROR, LOG_CRIT };

struct log {
  enum log_level level; // facts below it are dropped
  bool json;
  int fd;          // where lines go; -1: nowhere but `sink`
  char source[24]; // "master", "worker 1"
  // Specs read the log: when set, gets each finished line instead of `fd`.
  void (*sink)(void *context, const char *line, uint32_t len);
  void *sink_context;
};

// Writes one line. Pairs of (const char *key, const char *value), ended by NULL. A NULL value is written as empty.
// Control bytes in values are escaped, so that a value from the network cannot forge a line.
void log_write(struct log *log, enum log_level level, const char *message, ...) __attribute__((sentinel));

// The same with the pairs in an array of `pair_count` times two texts.
void log_pairs(struct log *log, enum log_level level, const char *message, const char *const *pairs,
               uint32_t pair_count);

// "notice" to LOG_NOTICE; -1 when there is no such level.
int log_level_parse(const char *name);

// A number as text in the caller's buffer, for use as a value.
const char *log_number(char buffer[32], int64_t number);

#define log_debug(log, ...) log_at(log, LOG_DEBUG, __VA_ARGS__)
#define log_info(log, ...) log_at(log, LOG_INFO, __VA_ARGS__)
#define log_notice(log, ...) log_at(log, LOG_NOTICE, __VA_ARGS__)
#define log_warn(log, ...) log_at(log, LOG_WARN, __VA_ARGS__)
#define log_error(log, ...) log_at(log, LOG_ERROR, __VA_ARGS__)
#define log_crit(log, ...) log_at(log, LOG_CRIT, __VA_ARGS__)
#define log_at(log_, level_, ...)                                                                                      \
  do {                                                                                                                 \
    if ((level_) >= (log_)->level) log_write((log_), (level_), __VA_ARGS__, (char *)0);                                \
  } while (0)
