// SPDX-License-Identifier: Apache-2.0
// The built-in cluster: librdkafka's mock brokers. They keep at most 5 MB or 100,000 batches of a partition and nothing
// on disk: good for a demo and for specs, never for data.
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "kafka_parts.h"

struct kafka_mock {
  rd_kafka_t *rk; // what the mock needs to live in; connects to nothing
  rd_kafka_mock_cluster_t *cluster;
};

struct kafka_mock *kafka_mock_new(int32_t brokers, struct error *error) {
  char text[200] = "out of memory";
  struct kafka_mock *mock = calloc(1, sizeof *mock);
  if (!mock) return NULL;
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "log_level", "3", NULL, 0); // nothing but its want of bootstrap.servers would be logged
  mock->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
  if (!mock->rk) {
    rd_kafka_conf_destroy(conf);
    goto fail;
  }
  mock->cluster = rd_kafka_mock_cluster_new(mock->rk, brokers);
  if (mock->cluster) return mock;
fail:
  error_set(error, ERROR_SYSTEM, "no embedded Kafka: %s", text);
  kafka_mock_free(mock);
  return NULL;
}

void kafka_mock_free(struct kafka_mock *mock) {
  if (!mock) return;
  if (mock->cluster) rd_kafka_mock_cluster_destroy(mock->cluster);
  if (mock->rk) rd_kafka_destroy(mock->rk);
  free(mock);
}

const char *kafka_mock_servers(const struct kafka_mock *mock) {
  return rd_kafka_mock_cluster_bootstraps(mock->cluster);
}

int kafka_mock_topic(struct kafka_mock *mock, const char *topic, int32_t partitions) {
  return rd_kafka_mock_topic_create(mock->cluster, topic, partitions, 1) ? ERROR_INVALID : 0;
}

void kafka_mock_down(struct kafka_mock *mock, bool down) {
  if (down)
    rd_kafka_mock_broker_set_down(mock->cluster, -1);
  else
    rd_kafka_mock_broker_set_up(mock->cluster, -1);
}

// Only its own end or its parent's ends it: SIGINT from a terminal reaches the whole group, and the workers that still
// drain need their brokers.
static _Noreturn void mock_serve(int32_t brokers, int fd, pid_t parent) {
  struct error error = {0};
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  prctl(PR_SET_NAME, "sluice: kafka");
  // The master's sockets are not this process's to keep open.
  if (dup2(fd, 3) != 3 || close_range(4, ~0u, 0) != 0) _exit(1);
  fd = 3;
  struct kafka_mock *mock = kafka_mock_new(brokers, &error);
  if (!mock) _exit(1);
  const char *servers = kafka_mock_servers(mock);
  if (write(fd, servers, strlen(servers)) < 0) _exit(1);
  close(fd);
  for (;;) pause();
}

static int32_t read_all(int fd, char *out, uint32_t room) {
  uint32_t len = 0;
  while (len + 1 < room) {
    ssize_t n = read(fd, out + len, room - 1 - len);
    if (n <= 0) break;
    len += (uint32_t)n;
  }
  out[len] = '\0';
  return (int32_t)len;
}

int32_t kafka_mock_fork(int32_t brokers, char *servers, uint32_t servers_bytes, struct error *error) {
  int ends[2];
  pid_t parent = getpid();
  if (pipe(ends) < 0) return error_system(error, "no pipe for the embedded Kafka");
  pid_t pid = fork();
  if (pid < 0) {
    close(ends[0]);
    close(ends[1]);
    return error_system(error, "no process for the embedded Kafka");
  }
  if (pid == 0) {
    close(ends[0]);
    mock_serve(brokers, ends[1], parent);
  }
  close(ends[1]);
  int32_t len = read_all(ends[0], servers, servers_bytes);
  close(ends[0]);
  return len > 0 ? (int32_t)pid : error_set(error, ERROR_SYSTEM, "the embedded Kafka did not start");
}
