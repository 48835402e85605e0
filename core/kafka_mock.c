// SPDX-License-Identifier: Apache-2.0
// The built-in cluster: librdkafka's mock brokers. They keep at most 5 MB or 100,000 batches of a partition and nothing
// on disk: good for a demo and for specs, never for data.
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdlib.h>

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

void kafka_mock_fail(struct kafka_mock *mock, int16_t kind, int16_t code, int32_t count) {
  const rd_kafka_resp_err_t error = (rd_kafka_resp_err_t)code;
  for (int32_t i = 0; i < count; i++) rd_kafka_mock_push_request_errors_array(mock->cluster, kind, 1, &error);
}
