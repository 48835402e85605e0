// SPDX-License-Identifier: Apache-2.0
// What the files of the spec kit share: its tables (spec.c), peers (spec_peer.c), the worker's end when the gateway is a
// process of its own (spec_remote.c) and the kit's end then (spec_process.c).
#pragma once
#include <stdint.h>

#include "worker.h"

#include "spec.h"
#include "text.h"

struct tls;
struct tls_context;

enum { SPEC_LISTENERS = 3, SPEC_DOORS = 8 };

struct spec_peer {
  struct spec_peer *next_arrival;
  struct spec_arrival arrival;
  struct tls *tls;
  int fd; // -1: free
  bool is_service, greeted, shaking;
};

struct spec_name {
  struct spec_name *next;
  char *name;
  int kind, count; // kind -1: made up
  struct dns_address *records;
  char address[48];
};

struct spec_place {
  struct spec_place *next;
  char address[48];
  uint32_t port;
  int mood;
};

struct spec {
  struct worker *worker; // NULL: the kit's end of a gateway that is a process of its own
  struct text log;
  struct listener listeners[SPEC_LISTENERS];
  struct spec_peer **peers;
  uint32_t peer_count;
  struct spec_peer *arrivals, **arrivals_end;
  struct spec_name *names;
  uint32_t made_up;
  struct spec_place *places;
  struct topics *topics; // the worker's, freed behind it
  struct tls_context *client_tls, *service_tls;
  uint32_t events;         // of this turn
  struct control *control; // to the kit, in a gateway that is a process of its own
  struct spec_origin *origins;
  uint32_t kit_port;
  int doors[SPEC_DOORS]; // listening sockets of the kit, -1: closed
  uint32_t door_count;
};

// Which client a connection from this port of the kit stands for.
struct spec_origin {
  struct spec_origin *next;
  uint32_t port;
  char address[48];
  uint32_t client_port;
};

// spec_peer.c: the kit's end of a connection; NULL, and the socket closed, when there is no memory.
struct spec_peer *peer_new(struct spec *spec, int fd);
struct spec_peer *peer_find(const struct spec *spec, int number);
// 0 or SPEC_FAILED.
int peer_start_tls(struct spec *spec, struct spec_peer *peer, const char *server_name);
void peers_free(struct spec *spec);

// spec.c
struct spec *spec_empty(void);
// The worker's clock, names, randomness and Kafka are the spec's from now on.
void spec_take_over(struct spec *spec, double time_s, double seed);
void spec_drop(struct spec *spec); // what is left, behind the worker
// What becomes of a connection: `text` gets where it goes.
int spec_mood_of(const struct spec *spec, const struct address *to, char text[48], uint32_t *port);
const char *spec_name_of(const struct spec *spec, const char *address);
// In place of conn_connect: the connection is refused, or never comes about.
int spec_turn_away(struct spec *spec, struct conn *conn, int mood);
