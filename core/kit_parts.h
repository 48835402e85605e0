// SPDX-License-Identifier: Apache-2.0
// What the files of the spec kit share: its tables (kit.c), peers (kit_peer.c), the worker's end when the gateway is a
// process of its own (kit_remote.c) and the kit's end then (kit_process.c).
#pragma once
#include <stdint.h>

#include "worker.h"

#include "kit.h"
#include "text.h"

struct tls;
struct tls_context;

enum { KIT_LISTENERS = 3, KIT_DOORS = 8 };

struct kit_peer {
  struct kit_peer *next_arrival;
  struct kit_arrival arrival;
  struct tls *tls;
  int fd; // -1: free
  bool is_service, greeted, shaking;
};

struct kit_name {
  struct kit_name *next;
  char *name;
  int kind, count; // kind -1: made up
  struct dns_address *records;
  char address[48];
};

struct kit_place {
  struct kit_place *next;
  char address[48];
  uint32_t port;
  int mood;
};

struct kit {
  struct worker *worker; // NULL: the kit's end of a gateway that is a process of its own
  struct text log;
  struct listener listeners[KIT_LISTENERS];
  struct kit_peer **peers;
  uint32_t peer_count;
  struct kit_peer *arrivals, **arrivals_end;
  struct kit_name *names;
  uint32_t made_up;
  struct kit_place *places;
  struct topics *topics; // the worker's, freed behind it
  struct tls_context *client_tls, *service_tls;
  uint32_t events;         // of this turn
  struct control *control; // to the kit, in a gateway that is a process of its own
  struct kit_origin *origins;
  uint32_t kit_port;
  int doors[KIT_DOORS]; // listening sockets of the kit
  uint32_t door_count;
};

// Which client a connection from this port of the kit stands for.
struct kit_origin {
  struct kit_origin *next;
  uint32_t port;
  char address[48];
  uint32_t client_port;
};

// kit_peer.c: the kit's end of a connection; NULL, and the socket closed, when there is no memory.
struct kit_peer *peer_new(struct kit *kit, int fd);
struct kit_peer *peer_find(const struct kit *kit, int number);
// 0 or KIT_FAILED.
int peer_start_tls(struct kit *kit, struct kit_peer *peer, const char *server_name);
void peers_free(struct kit *kit);

// kit.c
struct kit *kit_empty(void);
// The worker's clock, names, randomness and Kafka are the spec's from now on.
void kit_take_over(struct kit *kit, double time_s, double seed);
void kit_drop(struct kit *kit); // what is left, behind the worker
// Something is due at this moment of the clock, or happens on a helper thread.
bool kit_is_busy(const struct kit *kit);
// What becomes of a connection: `text` gets where it goes.
int kit_mood_of(const struct kit *kit, const struct address *to, char text[48], uint32_t *port);
const char *kit_name_of(const struct kit *kit, const char *address);
// In place of conn_connect: the connection is refused, or never comes about.
int kit_turn_away(struct kit *kit, struct conn *conn, int mood);
