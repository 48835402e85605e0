// SPDX-License-Identifier: Apache-2.0
// What librdkafka tells of a cluster: its state, and the cause of what goes wrong in words that say what to do. The cause
// stays where symptoms follow it, such as records that time out: librdkafka tells it again only after half a minute.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_parts.h"

enum {
  LOG_EVERY_US = 1000000,
  SAME_EVERY_US = 60 * 1000000, // what the log has been told already
  SCRAM_SINCE = 0x02060100,     // the first that Kafka 4 lets in: those before send a nonce that is not the server's
  LEVEL_ERROR = 3,              // as syslog's
  LEVEL_WARNING,
  AT_ONCE_MS = 2000
};

// Without librdkafka's word on how long and how often: "(after 2ms in state CONNECT, 30 identical error(s) suppressed)".
static size_t said_len(const char *text, size_t most) {
  const char *more = strstr(text, " (after ");
  size_t len = more ? (size_t)(more - text) : strlen(text);
  return len < most ? len : most;
}

static bool log_due(struct cluster *cluster, const char *text) {
  int64_t now = cluster->kafka->loop->clock.mono_us;
  size_t len = said_len(text, sizeof cluster->logged - 1);
  bool same = strlen(cluster->logged) == len && memcmp(cluster->logged, text, len) == 0;
  if (cluster->logged_us && now - cluster->logged_us < (same ? SAME_EVERY_US : LOG_EVERY_US)) return false;
  cluster->logged_us = now;
  memcpy(cluster->logged, text, len);
  cluster->logged[len] = 0;
  return true;
}

static bool holds(const char *text, const char *part) {
  return strstr(text, part) != NULL;
}

static void note(struct cluster *cluster, const char *text) {
  snprintf(cluster->error, sizeof cluster->error, "%s", text);
  cluster->error_at = (double)cluster->kafka->loop->clock.real_us / 1e6;
}

void cluster_trouble(struct cluster *cluster, const char *text) {
  note(cluster, text);
  if (log_due(cluster, text))
    log_warn(cluster->kafka->loop->log, "Kafka reports trouble", "cluster", cluster->name, "error", text);
}

// Whether an error may only follow from one that stands there.
static bool is_symptom(const struct cluster *cluster, rd_kafka_resp_err_t code) {
  bool late = code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT || code == RD_KAFKA_RESP_ERR__PURGE_QUEUE ||
              code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__TIMED_OUT;
  return late && cluster->error[0] && cluster->state != CLUSTER_UP;
}

void cluster_record_failed(struct cluster *cluster, rd_kafka_resp_err_t code) {
  if (!is_symptom(cluster, code)) note(cluster, rd_kafka_err2str(code));
}

void cluster_failed(struct cluster *cluster, rd_kafka_resp_err_t code, const char *text) {
  if (!is_symptom(cluster, code)) cluster_trouble(cluster, text);
}

// Whether a broker says by TLS that it does not like our certificate, or that there is none.
static bool is_alert_on_certificate(const char *text) {
  return holds(text, " alert ") &&
         (holds(text, "certificate") || holds(text, "unknown ca") || holds(text, "alert access denied"));
}

// The text of an error, with what it means here before it.
static void explain(struct cluster *cluster, rd_kafka_resp_err_t code, const char *text, char *out, size_t bytes) {
  bool scram = code == RD_KAFKA_RESP_ERR__AUTHENTICATION && holds(text, "SCRAM");
  if (scram && rd_kafka_version() < SCRAM_SINCE) { // else one would look for a wrong password
    snprintf(out, bytes, "librdkafka %s cannot log in by SCRAM at Kafka 4: build with `make LIBRDKAFKA=newer`; or: %s",
             rd_kafka_version_str(), text);
  } else if (is_alert_on_certificate(text)) {
    bool shown =
        cluster_property(cluster, "ssl.certificate.location") || cluster_property(cluster, "ssl.certificate.pem");
    snprintf(out, bytes, "%s: %s",
             shown ? "the broker refuses our certificate (ssl.certificate)"
                   : "the broker wants a certificate of us (ssl.certificate)",
             text);
  } else {
    snprintf(out, bytes, "%s", text);
  }
}

// Whether the cause of an error stands there already: see on_certificate_refused and on_failure_logged.
static bool is_told(const struct cluster *cluster, rd_kafka_resp_err_t code, const char *text) {
  static const char refused[] = "certificate verify failed";
  if (holds(text, refused)) return holds(cluster->error, refused);
  return code == RD_KAFKA_RESP_ERR__TRANSPORT && holds(text, "Send failed") &&
         holds(cluster->error, "security.protocol");
}

static void on_error(struct cluster *cluster, rd_kafka_event_t *event) {
  rd_kafka_resp_err_t code = rd_kafka_event_error(event);
  if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
    cluster->state = CLUSTER_DOWN;
    if (cluster->error[0]) return; // which says more: who, and why
  }
  const char *text = rd_kafka_event_error_string(event);
  if (is_told(cluster, code, text)) return;
  char more[sizeof cluster->error];
  explain(cluster, code, text, more, sizeof more);
  cluster_trouble(cluster, more);
}

// Each statistics document names every broker with its state; one that is up is enough.
static void on_stats(struct cluster *cluster, rd_kafka_event_t *event) {
  const char *json = rd_kafka_event_stats(event);
  count_brokers(cluster, json);
  if (strstr(json, "\"state\":\"UP\""))
    cluster_up(cluster);
  else if (cluster->state == CLUSTER_UP)
    cluster->state = CLUSTER_DOWN;
}

// The text of a line of librdkafka's log behind the thread that it came from: "[thrd:NAME]: ...".
static const char *without_thread(const char *text) {
  const char *end = strncmp(text, "[thrd:", 6) == 0 ? strstr(text, "]: ") : NULL;
  return end ? end + 3 : text;
}

// BROKER: Certificate (subject=..., issuer=...) verification callback failed: REASON
static void on_certificate_refused(struct cluster *cluster, const char *text) {
  static const char before[] = ": Certificate (", behind[] = ") verification callback failed: ";
  text = without_thread(text);
  const char *names = strstr(text, before), *reason = strstr(text, behind);
  char said[sizeof cluster->error];
  if (names && reason && names < reason) {
    int names_bytes = (int)(reason - names) - (int)strlen(before);
    snprintf(said, sizeof said, "%.*s: certificate verify failed: %s (%.*s)", (int)(names - text), text,
             reason + strlen(behind), names_bytes, names + strlen(before));
  } else {
    snprintf(said, sizeof said, "certificate verify failed: %s", text);
  }
  cluster_trouble(cluster, said);
}

// Whether a broker closed a connection as soon as it was there: "... (after 12ms in state UP)".
static bool is_closed_at_once(const char *text) {
  const char *after = strstr(text, "(after ");
  bool early = after && strtol(after + strlen("(after "), NULL, 10) < AT_ONCE_MS;
  return early && holds(text, "Disconnected") && (holds(after, "state APIVERSION_QUERY") || holds(after, "state UP"));
}

// A failed connection comes as an error too, unless the broker only closed it. By that it answers who speaks to it
// without TLS or a login where it expects them: some versions of librdkafka say so, some do not.
static void on_failure_logged(struct cluster *cluster, const char *text, int level) {
  if (level <= LEVEL_ERROR || cluster->state == CLUSTER_UP) return;
  if (holds(text, "security.protocol")) {
    cluster_trouble(cluster, without_thread(text));
  } else if (is_closed_at_once(text)) {
    char said[sizeof cluster->error];
    snprintf(said, sizeof said, "the broker closes connections at once, security.protocol may be wrong: %s",
             without_thread(text));
    cluster_trouble(cluster, said);
  }
}

static void on_log(struct cluster *cluster, rd_kafka_event_t *event) {
  const char *facility, *text;
  int level;
  if (rd_kafka_event_log(event, &facility, &text, &level) != 0) return;
  if (strcmp(facility, "CONFWARN") == 0) return; // properties of the other kind of client
  if (strcmp(facility, "FAIL") == 0) {
    on_failure_logged(cluster, text, level);
    return;
  }
  if (strcmp(facility, "SSLCERTVRFY") == 0) {
    on_certificate_refused(cluster, text);
    return;
  }
  // The brokers inside make any topic that is named, and say so by being of an old version.
  if (cluster->embedded && strcmp(facility, "AUTOCREATE") == 0) return;
  if (level > LEVEL_WARNING) {
    log_debug(cluster->kafka->loop->log, "librdkafka", "cluster", cluster->name, "facility", facility, "text", text);
    return;
  }
  if (log_due(cluster, text))
    log_warn(cluster->kafka->loop->log, "librdkafka", "cluster", cluster->name, "facility", facility, "text", text);
}

void cluster_on_event(struct cluster *cluster, rd_kafka_event_t *event) {
  switch (rd_kafka_event_type(event)) {
  case RD_KAFKA_EVENT_ERROR: on_error(cluster, event); break;
  case RD_KAFKA_EVENT_STATS: on_stats(cluster, event); break;
  case RD_KAFKA_EVENT_LOG: on_log(cluster, event); break;
  default: break;
  }
}
