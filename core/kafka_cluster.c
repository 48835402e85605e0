// SPDX-License-Identifier: Apache-2.0
// Named clusters: their properties over our defaults, their state as librdkafka's events tell it.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kafka_parts.h"
#include "tls.h"

static bool text_is(const char *a, const char *b) {
  return strcmp(a, b) == 0;
}

struct cluster *cluster_find(struct kafka *kafka, const char *name) {
  for (struct cluster *cluster = kafka->clusters; cluster; cluster = cluster->next)
    if (text_is(cluster->name, name)) return cluster;
  return NULL;
}

void cluster_hold(struct cluster *cluster) {
  cluster->refs++;
}

void cluster_release(struct cluster *cluster) {
  assert(cluster->refs > 0);
  if (--cluster->refs > 0) return;
  for (uint32_t i = 0; i < cluster->property_count; i++) {
    free(cluster->properties[i].key);
    free(cluster->properties[i].value);
  }
  kafka_mock_free(cluster->mock);
  tokens_free(cluster->tokens);
  counts_free(cluster);
  free(cluster);
}

void cluster_up(struct cluster *cluster) {
  if (cluster->state != CLUSTER_UP) cluster->logged[0] = 0; // the same trouble again is news
  cluster->state = CLUSTER_UP;
}

const char *cluster_property(const struct cluster *cluster, const char *key) {
  for (uint32_t i = 0; i < cluster->property_count; i++)
    if (text_is(cluster->properties[i].key, key)) return cluster->properties[i].value;
  return NULL;
}

// Ours, not librdkafka's: kept out of its configuration. Those of OIDC newer versions know too, but fetch tokens by
// blocking a thread.
static bool is_own_property(const char *key) {
  static const char *const own[] = {"embedded",
                                    "window_records",
                                    "window_bytes",
                                    "consumers_max",
                                    "https.ca.location",
                                    "sasl.oauthbearer.method",
                                    "sasl.oauthbearer.client.id",
                                    "sasl.oauthbearer.client.secret",
                                    "sasl.oauthbearer.scope",
                                    "sasl.oauthbearer.extensions",
                                    "sasl.oauthbearer.token.endpoint.url",
                                    "sasl.oauthbearer.token.endpoint.verify"};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    if (text_is(key, own[i])) return true;
  return false;
}

static bool property_is(const struct cluster *cluster, const char *key, const char *wanted) {
  const char *value = cluster_property(cluster, key);
  return value && strcasecmp(value, wanted) == 0;
}

// Whether the cluster wants tokens that we fetch.
static bool wants_tokens(const struct cluster *cluster) {
  bool by_token =
      property_is(cluster, "sasl.mechanism", "OAUTHBEARER") || property_is(cluster, "sasl.mechanisms", "OAUTHBEARER");
  return by_token && !property_is(cluster, "enable.sasl.oauthbearer.unsecure.jwt", "true");
}

// librdkafka takes a certificate without its key, and then shows brokers none.
static int certificate_check(const struct cluster *cluster, struct error *error) {
  static const char *const certificates[] = {"ssl.certificate.location", "ssl.certificate.pem"};
  bool has_key = cluster_property(cluster, "ssl.key.location") || cluster_property(cluster, "ssl.key.pem") ||
                 cluster_property(cluster, "ssl.engine.location");
  for (size_t i = 0; i < sizeof certificates / sizeof *certificates && !has_key; i++)
    if (cluster_property(cluster, certificates[i]))
      return error_set(error, ERROR_INVALID, "%s: expected ssl.key.location or ssl.key.pem beside it, found neither",
                       certificates[i]);
  return 0;
}

static int tokens_check(const struct cluster *cluster, struct error *error) {
  static const char *const needed[] = {"sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
                                       "sasl.oauthbearer.token.endpoint.url"};
  if (!wants_tokens(cluster)) return 0;
  if (!property_is(cluster, "sasl.oauthbearer.method", "oidc"))
    return error_set(error, ERROR_INVALID, "sasl.oauthbearer.method: expected oidc for OAUTHBEARER");
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    const char *value = cluster_property(cluster, needed[i]);
    if (!value || !*value) return error_set(error, ERROR_INVALID, "%s: expected a text, found nothing", needed[i]);
  }
  const char *url = cluster_property(cluster, "sasl.oauthbearer.token.endpoint.url");
  if (strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0) return 0;
  return error_set(error, ERROR_INVALID, "sasl.oauthbearer.token.endpoint.url: expected http:// or https://");
}

int cluster_conf_set(rd_kafka_conf_t *conf, const char *key, const char *value, struct error *error) {
  char text[200];
  if (rd_kafka_conf_set(conf, key, value, text, sizeof text) == RD_KAFKA_CONF_OK) return 0;
  return error_set(error, ERROR_INVALID, "%s: %s", key, text);
}

struct setting {
  const char *key, *value;
};

static int conf_set_all(rd_kafka_conf_t *conf, const struct setting *settings, struct error *error) {
  for (; settings->key; settings++)
    if (cluster_conf_set(conf, settings->key, settings->value, error)) return ERROR_INVALID;
  return 0;
}

// Suits a gateway: somebody waits for each record, and a broker that comes back is wanted at once.
static const struct setting defaults_of_both[] = {
    {"client.id", "sluice"},
    {"socket.nagle.disable", "true"},
    {"socket.keepalive.enable", "true"},
    {"reconnect.backoff.ms", "50"},
    {"reconnect.backoff.max.ms", "1000"},
    {"statistics.interval.ms", "2000"},
    {NULL, NULL},
};
// The partitioner is that of Java's clients, so that a key goes to one partition whoever produced it.
static const struct setting defaults_of_producer[] = {
    {"linger.ms", "0.5"},
    {"queue.buffering.max.kbytes", "65536"},
    {"message.timeout.ms", "30000"},
    {"topic.metadata.propagation.max.ms", "5000"},
    {"partitioner", "murmur2_random"},
    {NULL, NULL},
};
static const struct setting defaults_of_consumer[] = {
    {"fetch.wait.max.ms", "500"},
    {"fetch.error.backoff.ms", "100"},
    {"queued.max.messages.kbytes", "8192"},
    {"topic.metadata.refresh.interval.ms", "30000"}, // and how soon a partition is read that a topic got
    {NULL, NULL},
};
// What feeds rely on.
static const struct setting musts_of_consumer[] = {
    {"enable.auto.commit", "false"},
    {"enable.auto.offset.store", "false"},
    {"enable.partition.eof", "true"},
    {"auto.offset.reset", "earliest"}, // what was deleted while nobody read it is told as a gap
    {NULL, NULL},
};

// Idempotence demands acks=all: who asks for less gets it.
static bool wants_idempotence(const struct cluster *cluster) {
  const char *acks = cluster_property(cluster, "acks");
  if (!acks) acks = cluster_property(cluster, "request.required.acks");
  return !acks || text_is(acks, "-1") || text_is(acks, "all");
}

// A slow reader's fetches are to be small; librdkafka raises its own limit by itself for larger messages.
static int conf_fetch_limit(rd_kafka_conf_t *conf, const struct cluster *cluster, struct error *error) {
  if (cluster_property(cluster, "message.max.bytes")) return 0;
  return cluster_conf_set(conf, "fetch.max.bytes", "8388608", error);
}

// The mock answers a fetch of nothing only when its wait is over, whatever arrives meanwhile; and when a member leaves or
// comes it lets the group wait for a whole session, which must be longer than the 3 s it gives a new group.
static const struct setting defaults_of_embedded[] = {
    {"allow.auto.create.topics", "true"},
    {"fetch.wait.max.ms", "20"},
    {"session.timeout.ms", "4500"},
    {"heartbeat.interval.ms", "500"},
    {NULL, NULL},
};

static int conf_defaults(rd_kafka_conf_t *conf, const struct cluster *cluster, rd_kafka_type_t type,
                         struct error *error) {
  if (conf_set_all(conf, defaults_of_both, error)) return ERROR_INVALID;
  if (type == RD_KAFKA_CONSUMER) {
    if (conf_set_all(conf, defaults_of_consumer, error) || conf_fetch_limit(conf, cluster, error)) return ERROR_INVALID;
    return cluster->embedded ? conf_set_all(conf, defaults_of_embedded, error) : 0;
  }
  if (conf_set_all(conf, defaults_of_producer, error)) return ERROR_INVALID;
  return cluster_conf_set(conf, "enable.idempotence", wants_idempotence(cluster) ? "true" : "false", error);
}

static int conf_properties(rd_kafka_conf_t *conf, const struct cluster *cluster, struct error *error) {
  for (uint32_t i = 0; i < cluster->property_count; i++) {
    const struct property *property = &cluster->properties[i];
    if (is_own_property(property->key)) continue;
    if (cluster_conf_set(conf, property->key, property->value, error)) return ERROR_INVALID;
  }
  return 0;
}

void cluster_conf_events(const struct cluster *cluster, rd_kafka_conf_t *conf, int more) {
  more |= RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG | RD_KAFKA_EVENT_STATS;
  if (wants_tokens(cluster)) more |= RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH; // and we refresh in our own time
  rd_kafka_conf_set_events(conf, more);
}

// With whom no fault is found goes on. On a thread of librdkafka's, which logs what is said here.
static int on_certificate(rd_kafka_t *rk, const char *broker, int32_t id, int *verdict, int depth, const char *der,
                          size_t der_bytes, char *why, size_t why_bytes, void *opaque) {
  (void)rk, (void)broker, (void)id, (void)depth, (void)der, (void)der_bytes, (void)opaque;
  if (*verdict == 0) return 1;
  snprintf(why, why_bytes, "%s", tls_verdict_text(*verdict));
  return 0;
}

// librdkafka by itself says the same of a wrong name, an old certificate and an unknown authority. A build without TLS
// takes no such function, and needs none.
static void conf_certificates(rd_kafka_conf_t *conf, const struct cluster *cluster) {
  if (!property_is(cluster, "enable.ssl.certificate.verification", "false"))
    rd_kafka_conf_set_ssl_cert_verify_cb(conf, on_certificate);
}

rd_kafka_conf_t *cluster_conf(const struct cluster *cluster, rd_kafka_type_t type, struct error *error) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  if (conf_defaults(conf, cluster, type, error)) goto fail;
  if (conf_properties(conf, cluster, error)) goto fail;
  if (type == RD_KAFKA_CONSUMER && conf_set_all(conf, musts_of_consumer, error)) goto fail;
  if (cluster_conf_set(conf, "log.queue", "true", error)) goto fail;
  if (cluster->embedded && cluster_conf_set(conf, "bootstrap.servers", cluster->servers, error)) goto fail;
  cluster_conf_events(cluster, conf, RD_KAFKA_EVENT_DR);
  conf_certificates(conf, cluster);
  return conf;
fail:
  rd_kafka_conf_destroy(conf);
  return NULL;
}

static int cluster_check(const struct cluster *cluster, struct error *error) {
  rd_kafka_conf_t *producer = cluster_conf(cluster, RD_KAFKA_PRODUCER, error);
  if (!producer) return ERROR_INVALID;
  rd_kafka_conf_destroy(producer);
  rd_kafka_conf_t *consumer = cluster_conf(cluster, RD_KAFKA_CONSUMER, error);
  if (!consumer) return ERROR_INVALID;
  rd_kafka_conf_destroy(consumer);
  return 0;
}

static uint32_t property_number(const struct cluster *cluster, const char *key, uint32_t otherwise) {
  const char *value = cluster_property(cluster, key);
  unsigned long number = value ? strtoul(value, NULL, 10) : otherwise;
  return number > 0 && number < UINT32_MAX ? (uint32_t)number : otherwise;
}

int kafka_embedded(struct kafka *kafka, const char *name, const char *servers) {
  struct embedded *embedded = calloc(1, sizeof *embedded);
  if (!embedded) return ERROR_MEMORY;
  snprintf(embedded->name, sizeof embedded->name, "%s", name);
  snprintf(embedded->servers, sizeof embedded->servers, "%s", servers);
  embedded->next = kafka->embedded; // the last told is found first
  kafka->embedded = embedded;
  return 0;
}

static int cluster_embed(struct cluster *cluster, struct error *error) {
  const char *servers = NULL;
  for (struct embedded *e = cluster->kafka->embedded; e && !servers; e = e->next)
    if (text_is(e->name, cluster->name)) servers = e->servers;
  if (!servers) {
    cluster->mock = kafka_mock_new(1, error);
    if (!cluster->mock) return ERROR_SYSTEM;
    servers = kafka_mock_servers(cluster->mock);
  }
  snprintf(cluster->servers, sizeof cluster->servers, "%s", servers);
  return 0;
}

static int cluster_set_up(struct cluster *cluster, struct error *error) {
  const char *embedded = cluster_property(cluster, "embedded");
  cluster->embedded = embedded && text_is(embedded, "true");
  cluster->window_records = property_number(cluster, "window_records", 8192);
  cluster->members_max = property_number(cluster, "consumers_max", 64);
  cluster->queue_bytes = (size_t)property_number(cluster, "queue.buffering.max.kbytes", 65536) * 1024;
  cluster->window_bytes = property_number(cluster, "window_bytes", 8 * 1024 * 1024);
  cluster->own_timeout =
      cluster_property(cluster, "message.timeout.ms") || cluster_property(cluster, "delivery.timeout.ms");
  const char *linger_ms = cluster_property(cluster, "linger.ms");
  if (!linger_ms) linger_ms = cluster_property(cluster, "queue.buffering.max.ms");
  cluster->linger_ms = linger_ms ? (int32_t)strtod(linger_ms, NULL) : 0; // librdkafka takes 900000 at most
  if (cluster->embedded) return 0;
  const char *servers = cluster_property(cluster, "bootstrap.servers");
  if (!servers) servers = cluster_property(cluster, "metadata.broker.list");
  if (!servers) return error_set(error, ERROR_INVALID, "bootstrap.servers: expected host:port, found nothing");
  snprintf(cluster->servers, sizeof cluster->servers, "%s", servers);
  return 0;
}

static int cluster_copy(struct cluster *cluster, const char *const *pairs, uint32_t count, struct error *error) {
  if (count > PROPERTIES_MAX) return error_set(error, ERROR_INVALID, "more than %d properties", PROPERTIES_MAX);
  for (uint32_t i = 0; i < count; i++) {
    struct property *property = &cluster->properties[cluster->property_count++];
    property->key = strdup(pairs[2 * i]);
    property->value = strdup(pairs[2 * i + 1]);
    if (!property->key || !property->value) return error_set(error, ERROR_MEMORY, "out of memory");
  }
  return 0;
}

// Of no worker yet, and without brokers if it is to be embedded.
static struct cluster *cluster_new(const char *name, const char *const *pairs, uint32_t count, struct error *error) {
  struct cluster *cluster = calloc(1, sizeof *cluster);
  if (!cluster) return NULL;
  cluster->refs = 1;
  snprintf(cluster->name, sizeof cluster->name, "%s", name);
  if (cluster_copy(cluster, pairs, count, error)) goto fail;
  if (cluster_set_up(cluster, error) || certificate_check(cluster, error)) goto fail;
  if (tokens_check(cluster, error) || cluster_check(cluster, error)) goto fail;
  return cluster;
fail:
  cluster_release(cluster);
  return NULL;
}

int kafka_cluster_check(const char *const *pairs, uint32_t pair_count, struct error *error) {
  struct cluster *cluster = cluster_new("check", pairs, pair_count, error);
  if (!cluster) return ERROR_INVALID;
  cluster_release(cluster);
  return 0;
}

static bool cluster_same(const struct cluster *cluster, const char *const *pairs, uint32_t count) {
  if (cluster->property_count != count) return false;
  for (uint32_t i = 0; i < count; i++) {
    const char *value = cluster_property(cluster, pairs[2 * i]);
    if (!value || !text_is(value, pairs[2 * i + 1])) return false;
  }
  return true;
}

int kafka_cluster(struct kafka *kafka, const char *name, const char *const *pairs, uint32_t pair_count,
                  struct error *error) {
  if (strlen(name) >= CLUSTER_NAME_BYTES || !*name)
    return error_set(error, ERROR_INVALID, "name of a cluster: expected 1 to %d bytes", CLUSTER_NAME_BYTES - 1);
  struct cluster *before = cluster_find(kafka, name);
  if (before && cluster_same(before, pairs, pair_count)) return 0;
  struct cluster *cluster = cluster_new(name, pairs, pair_count, error);
  if (!cluster) return ERROR_INVALID;
  cluster->kafka = kafka;
  if (wants_tokens(cluster)) cluster->tokens = tokens_new(kafka->wake.fd);
  if (cluster->embedded && cluster_embed(cluster, error)) {
    cluster_release(cluster);
    return ERROR_SYSTEM;
  }
  if (before) kafka_cluster_drop(kafka, name);
  cluster->next = kafka->clusters;
  kafka->clusters = cluster;
  return 0;
}
