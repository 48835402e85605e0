// SPDX-License-Identifier: Apache-2.0
// Names to addresses, through c-ares on the loop. Answers come from a bounded cache that honours each record's TTL,
// remembers failures briefly, and serves the last good answer while the servers fail. However many ask for a name,
// one query is in flight for it.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"
#include "loop.h"
#include "slice.h"

struct dns;
struct dns_entry;

enum { DNS_READY = 0, DNS_WAITING = 1 };

enum { DNS_RECORDS = 64 }; // of one answer; more are dropped

struct dns_address {
  uint8_t family;                  // 4 or 6
  uint8_t bytes[16];               // network order; an IPv4 address has 4
  uint16_t port, priority, weight; // of SRV; else 0
};

// Embedded in what waits for the answer.
struct dns_query {
  void (*on_done)(struct dns_query *query); // set by the caller
  // The answer, readable during on_done or after DNS_READY, until the next call on this `dns`: copy what is needed.
  const struct dns_address *addresses;
  uint32_t count;
  double ttl_s;       // how long it still holds
  bool stale;         // the last good answer, because the servers fail now
  struct error error; // code 0: good; else no address
  // Private.
  struct dns_entry *entry; // what it waits for, NULL: nothing
  struct dns_query *previous, *next;
};

// Milliseconds, unless the name says otherwise. 0: the default in brackets.
struct dns_options {
  const char *servers;    // "127.0.0.1:53,[::1]:53"; NULL: as the system is configured
  const char *hosts_file; // NULL: /etc/hosts
  uint32_t timeout_ms;    // of one try [2000]
  uint32_t tries;         // [3]
  uint32_t stale_s;       // how long past its TTL an answer may stand in [3600]
  uint32_t negative_s;    // how long "no such name" is believed [1]
  uint32_t min_ttl_s;     // answers hold at least this long [0]
  uint32_t max_ttl_s;     // and at most this long [86400]
  uint32_t max_names;     // cached [10000]
};

struct dns_counts {
  uint64_t asked, hits, stale, queries, failures;
  uint32_t names;
};

// NULL, and why.
struct dns *dns_new(struct loop *loop, const struct dns_options *options, struct error *error);
// Whoever still waits is not told.
void dns_free(struct dns *dns);

// DNS_READY: the answer (or the error) is in `query`, on_done is not called. DNS_WAITING: on_done follows from the
// loop, never from inside this call; `query` must stay until then, or be cancelled. A name's error names it.
int dns_resolve(struct dns *dns, struct slice name, enum dns_kind kind, struct dns_query *query);
// Nothing happens when it does not wait.
void dns_cancel(struct dns *dns, struct dns_query *query);

// Keeps a copy of an answer (for Lua, which reads it piece by piece), in place of the one before. 0, or ERROR_MEMORY.
int dns_keep(struct dns *dns, const struct dns_query *query);
const struct dns_address *dns_kept(const struct dns *dns, uint32_t *count, double *ttl_s);

// Gives a name its answer for `ttl_s` seconds (of the loop's clock), as if the servers had said so; with the count 0
// they say that there is no such name. `DNS_ADDRESS` sets both A and AAAA. For the spec kit: see also dns_offline.
int dns_fake(struct dns *dns, struct slice name, enum dns_kind kind, const struct dns_address *addresses,
             uint32_t count, double ttl_s);
// From now on no server is asked: each query fails as if they did not answer.
void dns_offline(struct dns *dns, bool offline);
// From now on `answer` stands for the servers and the hosts file: it writes at most DNS_RECORDS addresses and says how
// many, 0 when there is no such name, or a negative number as if the servers did not answer.
void dns_answer_with(struct dns *dns,
                     int (*answer)(void *context, const char *name, enum dns_kind kind, struct dns_address *out),
                     void *context);
// Forgets every answer.
void dns_flush(struct dns *dns);
void dns_counts(const struct dns *dns, struct dns_counts *out);
