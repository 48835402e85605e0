// SPDX-License-Identifier: Apache-2.0
// The spec kit's half in C: a worker inside the process of a spec, without sockets or a clock of its own. Its clients
// and its services are the other ends of socket pairs ("peers"), which the kit reads and writes; names are answered
// from a table; the log is kept in memory. Given to ffi.cdef as text, like bridge.h, which comes before it.
//
//   kit ── peer ══ pair ══ server ── worker ── link ══ pair ══ peer ── kit
#pragma once

struct spec;

enum { SPEC_AGAIN = -1, SPEC_CLOSED = -2, SPEC_FAILED = -3 };

enum spec_listener { SPEC_PROXY, SPEC_PROXY_TLS, SPEC_STATUS };

// What becomes of a connection to an address.
enum spec_mood { SPEC_ACCEPTS, SPEC_REFUSES, SPEC_SILENT };

struct spec_options {
  const char *home, *state_dir;
  double time_s; // since 1970: what the clock shows at first
  double seed;
};

// A connection of the worker to a service.
struct spec_arrival {
  int32_t peer;
  uint32_t port;
  char address[48];
  char name[256]; // of which the address is, "" when the worker was given an address
};

// NULL, and why in `error`.
struct spec *spec_new(const struct spec_options *options, char *error, uint32_t error_bytes);
void spec_free(struct spec *spec);
struct worker *spec_worker(struct spec *spec);

// Builds the snapshot's generation; spec_report says what came of it, once the loop has been turned.
void spec_stage(struct spec *spec, double revision, const char *path);
// The plugins' last chance, as before a drain.
void spec_stop(struct spec *spec);
const char *spec_report(struct spec *spec); // "live 1", "failed 1 {json}", "" when there was none yet

// One turn of the loop. Whether there was, or is, anything to do besides waiting.
bool spec_turn(struct spec *spec);
void spec_advance(struct spec *spec, double seconds);
double spec_next(struct spec *spec); // seconds until the next timer; negative: there is none

// What was logged since the beginning; lives until the next call.
struct bytes spec_log(struct spec *spec);

// ---- Names ----

// The answer for a name; `count` 0: there is no such name; negative: the servers do not answer. Names that were not
// told have one address each, which nobody else has.
void spec_name(struct spec *spec, const char *name, int kind, const struct dns_record *records, int count);
// The address of a name that was not told; lives as long as the spec.
const char *spec_address(struct spec *spec, const char *name);
// An address of "" stands for all, a port of 0 too.
void spec_mood(struct spec *spec, const char *address, uint32_t port, int mood);

// ---- Kafka: see topics.h ----

void spec_topic(struct spec *spec, const char *name, uint32_t partitions);
void spec_topic_fails(struct spec *spec, const char *name, const char *error);
// A record from elsewhere (cluster NULL). OK, or INVALID: there is no such partition.
int spec_produce(struct spec *spec, const struct kafka_message *message);
bool spec_record(struct spec *spec, const char *topic, uint32_t index, struct kafka_record *out);

// ---- Peers: numbers from 0 ----

// A client that connects to a listener; TLS with this server name where the listener speaks it.
int spec_client(struct spec *spec, int listener, const char *address, uint32_t port, const char *server_name);
// The next connection to a service; false: there is none.
bool spec_accept(struct spec *spec, struct spec_arrival *out);
// Bytes read or taken, or SPEC_*. A service speaks TLS when the worker does.
int64_t spec_read(struct spec *spec, int peer, char *data, uint32_t room);
int64_t spec_write(struct spec *spec, int peer, const char *data, uint32_t len);
void spec_finish(struct spec *spec, int peer); // no more will be written
void spec_close(struct spec *spec, int peer);

// ---- A gateway in a process of its own: see spec_remote.h for what its worker is asked ----

// Without a worker: for peers alone.
struct spec *spec_outside(void);
// Listens on a free port of 127.0.0.1, or on "unix:/path". The door's number, from 0, or SPEC_FAILED.
int spec_door(struct spec *spec, const char *address, uint32_t *port);
// Who came to the door: a peer, or SPEC_AGAIN. `*from_port`: of the other end.
int spec_door_accept(struct spec *spec, int door, uint32_t *from_port);
// A client's socket on a port of 127.0.0.1, which then connects to another.
int spec_socket(struct spec *spec, uint32_t *port);
int spec_connect(struct spec *spec, int peer, uint32_t port, const char *server_name); // NULL: plain. 0 or SPEC_FAILED
// Waits until the peer (or, below 0, nothing) has something to read. False after `ms`.
bool spec_await(struct spec *spec, int peer, int ms);
// Of 127.0.0.1, where nobody listens: the first above that one (0: anywhere). 0: none.
uint32_t spec_free_port(uint32_t after);

// Starts a program: its arguments, and what its environment has beside ours ("NAME=value"; "NAME": removed), end with
// NULL; what it says goes to `log`. It gets SIGTERM when the kit's process ends. Its process id, or SPEC_FAILED.
int spec_spawn(const char *const *arguments, const char *const *environment, const char *folder, const char *log);
// Its exit code (128 + signal when one ended it); SPEC_AGAIN: it still runs.
int spec_reap(int pid);
void spec_kill(int pid, bool at_once); // SIGKILL, or SIGTERM
