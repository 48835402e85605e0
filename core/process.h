// SPDX-License-Identifier: Apache-2.0
// What the master hands to a worker: everything that was made before the fork. The worker owns none of it; it lives as
// long as the process. VM, loop, DNS, LMDB and Kafka handles are made by the worker, after the fork.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "log.h"

struct board;     // bridge.h
struct counters;  // counters.h
struct endpoints; // endpoint.h

enum listen_kind { LISTEN_PROXY, LISTEN_STATUS, LISTEN_STREAM, LISTEN_PEERS };

enum {
  LISTEN_ADDRESS_BYTES = 128,
  LISTEN_FLAGS_BYTES = 96,
  LIMIT_NAME_BYTES = 48,
  TICKET_KEYS = 3,
  TICKET_KEY_BYTES = 80 // 16 of name, 32 for the HMAC, 32 for AES-256
};

// One listening socket of one worker: bound with SO_REUSEPORT, listening, non-blocking, close-on-exec, TCP_NODELAY (which
// accepted sockets inherit). The master keeps it open too, so what the kernel queued survives the worker.
struct listen_socket {
  int32_t fd;
  int32_t kind;                       // enum listen_kind
  char address[LISTEN_ADDRESS_BYTES]; // "0.0.0.0:8443", "[::1]:8000" or "unix:/path"
  char flags[LISTEN_FLAGS_BYTES];     // words of Kong's syntax: "ssl http2 proxy_protocol", "" when there are none
};

// TLS session tickets, in memory shared by the master (who writes) and all workers: seal with keys[current], open with
// whichever has the ticket's name. A rotation overwrites the oldest key first and moves `current` (an atomic store) last.
struct ticket_keys {
  uint32_t current;
  uint8_t keys[TICKET_KEYS][TICKET_KEY_BYTES];
};

// A process-wide number of the configuration: gateway.limits.NAME, or plugin_cpu_budget_ms.
struct limit {
  char name[LIMIT_NAME_BYTES];
  double value;
};

// An embedded Kafka cluster that the master runs: gateway.kafka.NAME with embedded: true.
struct embedded_cluster {
  char name[128];
  char servers[128]; // its bootstrap.servers
};

struct worker_options {
  int32_t id; // from 1
  int32_t worker_count;
  int32_t control_fd; // stream socket to the master: lines, see control.h
  const struct listen_socket *sockets;
  uint32_t socket_count;
  struct board *board; // zeroed but for pid; heartbeat_us at least once a second, idle or not: the watchdog reads it
  struct counters *counters;
  int64_t holder; // of leases, in `counters`
  struct endpoints *endpoints;
  const struct ticket_keys *tickets;
  const struct limit *limits;
  uint32_t limit_count;
  const struct embedded_cluster *embedded;
  uint32_t embedded_count;
  const char *home;      // folder that holds lua/ and plugins/
  const char *state_dir; // absolute
  struct log log;        // to be copied; source is "worker N"
  const char *log_path;  // what log.fd writes to, opened anew on "reopen" (dup2 onto log.fd); NULL: stderr, stays
  int64_t revision;      // staged first; 0: none
  const char *snapshot;  // its path
  bool manual_clock;     // specs move the clock
};

// In worker.c: runs a worker until it has drained or its control socket closes; returns the process's exit code.
// Lines it gets: "stage REVISION PATH", "drain MS", "status ID", "profile ID", "reopen", "log LEVEL text|json".
// Lines it sends: "live REVISION", "failed REVISION {json}", "status ID {json}",
// "profile ID {json}".
int worker_main(const struct worker_options *options);
