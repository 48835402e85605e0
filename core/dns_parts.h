// SPDX-License-Identifier: Apache-2.0
// What the halves of DNS share: the cache and those who wait (dns.c), and how answers are found (dns_ask.c).
//
//   dns_resolve ──> entry ──(fresh)──> answer
//                     │
//                     └──> dns_ask: hosts file, else c-ares ──> dns_complete ──> everyone who waits
#pragma once
#include <ares.h>
#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dns.h"

enum {
  DNS_NAME_MAX = 255,
  DNS_PATIENCE_US = 300000, // how long somebody waits who could have the last good answer
  DNS_RETRY_US = 5000000,   // between attempts while the last good answer stands in
  DNS_HOSTS_TTL_S = 5,
  DNS_ANSWER_TTL_S = 60 // of what dns_answer_with's function says
};

// A target of SRV whose addresses are being looked for.
struct dns_srv {
  struct dns_query query;
  struct dns_entry *owner;
  uint16_t port, priority, weight;
  char *name;
  struct dns_address *found;
  uint32_t found_count;
};

// One name and kind. In the cache, or on its way out of it when the last waiter has been told.
struct dns_entry {
  struct dns *dns;
  struct dns_entry *chain;         // in its bucket
  struct dns_entry *newer, *older; // by last use
  struct dns_entry *done_next;     // waits for its waiters to be told
  bool done;
  bool telling; // its waiters are being told
  char *name;   // lower case
  uint32_t name_len;
  uint64_t hash;
  uint8_t kind; // enum dns_kind
  bool in_flight;
  bool failing;                  // the servers failed when last asked
  bool asked_v6;                 // DNS_ADDRESS: A gave nothing
  int status;                    // of c-ares, last time; 0: good
  struct dns_address *addresses; // the last good answer
  uint32_t count;
  int64_t fresh_us; // until then the last answer, good or not, holds
  int64_t stale_us; // until then the last good one may stand in
  int64_t retry_us;
  struct timer patience;
  struct dns_query *waiting, *told; // those to be told, and those being told right now
  struct dns_srv *targets;
  uint32_t target_count, targets_left;
  double targets_ttl_s;
};

struct dns_socket {
  ev_io watcher;
  struct dns *dns;
  struct dns_socket *next;
};

struct dns {
  struct loop *loop;
  struct dns_options options; // texts: not kept
  struct dns_counts counts;
  struct dns_entry **buckets;
  uint32_t bucket_count;
  struct dns_entry *newest, *oldest;
  struct dns_entry *done;
  struct dns_address literal;
  struct dns_address *kept; // dns_keep
  uint32_t kept_count;
  double kept_ttl_s;
  bool offline, closing;
  int (*answer)(void *context, const char *name, enum dns_kind kind, struct dns_address *out); // NULL: the servers do
  void *answer_context;
  ares_channel channel;
  ev_timer timer;
  struct dns_socket *sockets;
  char *hosts_path, *hosts; // the file's text
  int64_t hosts_mtime_ns;
};

// dns_ask.c
int dns_ask_open(struct dns *dns, const struct dns_options *options, struct error *error);
void dns_ask_close(struct dns *dns);
// Looks for an answer; ends in dns_complete, perhaps before it returns.
void dns_ask(struct dns_entry *entry);
void dns_forget_targets(struct dns_entry *entry);
// Address texts; 0: it is none.
uint8_t dns_parse_literal(const char *text, struct dns_address *out);

// dns.c: an answer has come (`status` 0; takes over `addresses`, from malloc), or none.
void dns_complete(struct dns_entry *entry, int status, struct dns_address *addresses, uint32_t count, double ttl_s);
// Tells everyone whose answer has come. From the loop only.
void dns_tell(struct dns *dns);
