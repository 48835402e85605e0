// SPDX-License-Identifier: Apache-2.0
// Listening sockets: opened by the master, one SO_REUSEPORT set a worker, kept over reloads, restarts and upgrades.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "process.h"

struct text;

// One listener as configured: "0.0.0.0:8443 ssl http2".
struct listen_spec {
  int32_t kind; // enum listen_kind
  char address[LISTEN_ADDRESS_BYTES];
  char flags[LISTEN_FLAGS_BYTES];
};

// One socket that is open. A unix socket belongs to all workers (worker 0), any other to one.
struct listen_entry {
  struct listen_socket socket;
  struct listen_spec spec; // as configured: port 0 stays 0 here, the socket's address has the real one
  int32_t worker;
};

struct listeners {
  struct listen_entry *all;
  uint32_t count;
};

// "proxy", "status" or "stream".
const char *listen_kind_name(int32_t kind);

// "ADDRESS flags..." into `spec`. ERROR_INVALID when it is too long or has no port.
int listen_spec_parse(const char *text, enum listen_kind kind, struct listen_spec *spec, struct error *error);

// Fills `next` with a socket for each of the specs and workers: taken from `now` where it has that one, else opened. On
// failure closes what it opened and leaves `next` empty; `now` is never changed.
int listeners_open(struct listeners *next, const struct listeners *now, const struct listen_spec *specs, uint32_t count,
                   int32_t workers, struct error *error);

// Closes those sockets of `old` that `kept` (which may be NULL) does not share, and frees the table.
void listeners_close(struct listeners *old, const struct listeners *kept);

// The sockets of one worker, into the caller's array of at least `listeners->count`; gives how many.
uint32_t listeners_of(const struct listeners *listeners, int32_t worker, struct listen_socket *out);

// For an upgrade: each socket as one line "listen=FD WORKER KIND ADDRESS FLAGS", and such a line read back (without
// "listen=") into the table of the new process.
void listeners_export(const struct listeners *listeners, struct text *out);
int listeners_import(struct listeners *listeners, const char *line, struct error *error);
