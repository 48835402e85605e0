// SPDX-License-Identifier: Apache-2.0
// Embedded Kafka clusters as the master runs them.
#include "embedded.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "child.h"
#include "kafka.h"
#include "title.h"

void embedded_init(struct embedded *embedded, struct title *title) {
  *embedded = (struct embedded){.title = title};
}

static _Noreturn void serve(const struct embedded *embedded, const char *name, int fd) {
  char text[96];
  struct error error = {0};
  snprintf(text, sizeof text, "sluice: kafka %.64s", name);
  if (embedded->title) title_set(embedded->title, text);
  struct kafka_mock *mock = kafka_mock_new(1, &error);
  if (!mock) _exit(1);
  const char *servers = kafka_mock_servers(mock);
  if (write(fd, servers, strlen(servers)) < 0) _exit(1);
  close(fd);
  for (;;) pause(); // SIGTERM ends it, and so does its parent's end
}

static uint32_t read_all(int fd, char *out, uint32_t room) {
  uint32_t len = 0;
  while (len + 1 < room) {
    ssize_t n = read(fd, out + len, room - 1 - len);
    if (n <= 0) break;
    len += (uint32_t)n;
  }
  out[len] = '\0';
  return len;
}

static int start(struct embedded *embedded, const char *name, struct error *error) {
  int ends[2];
  struct embedded_cluster *cluster = &embedded->clusters[embedded->count];
  if (embedded->count == EMBEDDED_MAX || strlen(name) >= sizeof cluster->name)
    return error_set(error, ERROR_INVALID, "embedded Kafka %.64s: too many, or too long a name", name);
  if (pipe(ends) < 0) return error_system(error, "no pipe for an embedded Kafka");
  int32_t pid = child_fork(&ends[1], 1);
  if (pid == 0) serve(embedded, name, ends[1]);
  close(ends[1]);
  uint32_t len = pid > 0 ? read_all(ends[0], cluster->servers, sizeof cluster->servers) : 0;
  close(ends[0]);
  if (len == 0) return error_set(error, ERROR_SYSTEM, "the embedded Kafka %s did not start", name);
  snprintf(cluster->name, sizeof cluster->name, "%s", name);
  embedded->pids[embedded->count++] = pid;
  return 0;
}

static bool is_among(const char *name, const char *const *names, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (strcmp(names[i], name) == 0) return true;
  return false;
}

static bool is_running(const struct embedded *embedded, const char *name) {
  for (uint32_t i = 0; i < embedded->count; i++)
    if (strcmp(embedded->clusters[i].name, name) == 0) return true;
  return false;
}

int embedded_run(struct embedded *embedded, const char *const *names, uint32_t count, struct error *error) {
  for (uint32_t i = 0; i < count; i++) {
    if (is_running(embedded, names[i])) continue;
    int failed = start(embedded, names[i], error);
    if (failed) return failed;
  }
  return 0;
}

static void forget(struct embedded *embedded, uint32_t index) {
  uint32_t last = --embedded->count;
  embedded->clusters[index] = embedded->clusters[last];
  embedded->pids[index] = embedded->pids[last];
}

void embedded_keep(struct embedded *embedded, const char *const *names, uint32_t count) {
  for (uint32_t i = embedded->count; i-- > 0;) {
    if (is_among(embedded->clusters[i].name, names, count)) continue;
    kill(embedded->pids[i], SIGTERM);
    forget(embedded, i);
  }
}

void embedded_close(struct embedded *embedded) {
  embedded_keep(embedded, NULL, 0);
}

const char *embedded_reap(struct embedded *embedded, int32_t pid) {
  for (uint32_t i = 0; i < embedded->count; i++) {
    if (embedded->pids[i] != pid) continue;
    struct embedded_cluster gone = embedded->clusters[i];
    forget(embedded, i);
    embedded->clusters[embedded->count] = gone; // the place behind the last holds its name for the caller
    return embedded->clusters[embedded->count].name;
  }
  return NULL;
}
