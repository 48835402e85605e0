// SPDX-License-Identifier: Apache-2.0
// The spec kit's half in C: a worker inside the process of a spec, without sockets or a clock of its own. Its clients
// and its services are the other ends of socket pairs ("peers"), which the kit reads and writes; names are answered
// from a table; the log is kept in memory. Given to ffi.cdef as text, like bridge.h, which comes before it.
//
//   kit ── peer ══ pair ══ server ── worker ── link ══ pair ══ peer ── kit
#pragma once

struct kit;

enum { KIT_AGAIN = -1, KIT_CLOSED = -2, KIT_FAILED = -3 };

enum kit_listener { KIT_PROXY, KIT_PROXY_TLS, KIT_STATUS };

// What becomes of a connection to an address.
enum kit_mood { KIT_ACCEPTS, KIT_REFUSES, KIT_SILENT };

struct kit_options {
  const char *home, *state_dir;
  double time_s; // since 1970: what the clock shows at first
  double seed;
};

// A connection of the worker to a service.
struct kit_arrival {
  int32_t peer;
  uint32_t port;
  char address[48];
  char name[256]; // of which the address is, "" when the worker was given an address
};

// NULL, and why in `error`.
struct kit *kit_new(const struct kit_options *options, char *error, uint32_t error_bytes);
void kit_free(struct kit *kit);
struct worker *kit_worker(struct kit *kit);

// Builds the snapshot's generation; kit_report says what came of it, once the loop has been turned.
void kit_stage(struct kit *kit, double revision, const char *path);
// The plugins' last chance, as before a drain.
void kit_stop(struct kit *kit);
const char *kit_report(struct kit *kit); // "live 1", "failed 1 {json}", "" when there was none yet

// One turn of the loop. Whether there was, or is, anything to do besides waiting.
bool kit_turn(struct kit *kit);
void kit_advance(struct kit *kit, double seconds);
double kit_next(struct kit *kit); // seconds until the next timer; negative: there is none

// What was logged since the beginning; lives until the next call.
struct bytes kit_log(struct kit *kit);

// ---- Names ----

// The answer for a name; `count` 0: there is no such name; negative: the servers do not answer. Names that were not
// told have one address each, which nobody else has.
void kit_name(struct kit *kit, const char *name, int kind, const struct dns_record *records, int count);
// The address of a name that was not told; lives as long as the spec.
const char *kit_address(struct kit *kit, const char *name);
// An address of "" stands for all, a port of 0 too.
void kit_mood(struct kit *kit, const char *address, uint32_t port, int mood);

// ---- Kafka: see topics.h ----

void kit_topic(struct kit *kit, const char *name, uint32_t partitions);
void kit_topic_fails(struct kit *kit, const char *name, const char *error);
// A record from elsewhere (cluster NULL). OK, or INVALID: there is no such partition.
int kit_produce(struct kit *kit, const struct kafka_message *message);
bool kit_record(struct kit *kit, const char *topic, uint32_t index, struct kafka_record *out);

// ---- Peers: numbers from 0 ----

// A client that connects to a listener; TLS with this server name where the listener speaks it.
int kit_client(struct kit *kit, int listener, const char *address, uint32_t port, const char *server_name);
// The next connection to a service; false: there is none.
bool kit_accept(struct kit *kit, struct kit_arrival *out);
// Bytes read or taken, or KIT_*. A service speaks TLS when the worker does.
int64_t kit_read(struct kit *kit, int peer, char *data, uint32_t room);
int64_t kit_write(struct kit *kit, int peer, const char *data, uint32_t len);
void kit_finish(struct kit *kit, int peer); // no more will be written
void kit_close(struct kit *kit, int peer);

// ---- A gateway in a process of its own: see kit_remote.h for what its worker is asked ----

// Without a worker: for peers alone.
struct kit *kit_outside(void);
// Listens on a free port of 127.0.0.1, or on "unix:/path". The door's number, from 0, or KIT_FAILED.
int kit_door(struct kit *kit, const char *address, uint32_t *port);
// Who came to the door: a peer, or KIT_AGAIN. `*from_port`: of the other end.
int kit_door_accept(struct kit *kit, int door, uint32_t *from_port);
// A client's socket on a port of 127.0.0.1, which then connects to another.
int kit_socket(struct kit *kit, uint32_t *port);
int kit_connect(struct kit *kit, int peer, uint32_t port, const char *server_name); // NULL: plain. 0 or KIT_FAILED
// Waits until the peer (or, below 0, nothing) has something to read. False after `ms`.
bool kit_await(struct kit *kit, int peer, int ms);
// Of 127.0.0.1, where nobody listens: the first above that one (0: anywhere). 0: none.
uint32_t kit_free_port(uint32_t after);

// Starts a program: its arguments, and what its environment has beside ours ("NAME=value"; "NAME": removed), end with
// NULL; what it says goes to `log`. It gets SIGTERM when the kit's process ends. Its process id, or KIT_FAILED.
int kit_spawn(const char *const *arguments, const char *const *environment, const char *folder, const char *log);
// Its exit code (128 + signal when one ended it); KIT_AGAIN: it still runs.
int kit_reap(int pid);
void kit_kill(int pid, bool at_once); // SIGKILL, or SIGTERM
// A command for the control socket at `path`: the length of its answer in `out`; KIT_FAILED: why, instead.
int64_t kit_ask(const char *path, const char *line, int ms, char *out, uint32_t room);
