// SPDX-License-Identifier: Apache-2.0
// Stored responses as an exchange deals with them: the key of a request, the stored response that answers it, storing
// one while it passes, and the flight of one request for all who want the same. What may be stored and what may be
// served is decided in Lua (plugins/proxy-cache); here is how.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "headers.h"
#include "queue.h"
#include "store_objects.h"

struct chunk;
struct exchange;
struct flight;
struct worker;

// What is known of a stored response besides its fields; times in microseconds, moments since 1970.
struct stored {
  int64_t received_us, lifetime_us, age_us; // age when it was received
  int64_t revalidate_us, error_us;          // how long past its lifetime it may be served meanwhile, or on errors
  int64_t end_us;                           // of its use for anything; 0: never
  int64_t first, total;                     // of a part: where it begins, and the length of the whole (-1: unknown)
  uint64_t length;                          // of the content that is stored
  uint32_t flags;                           // enum cache_flags
  int32_t status;
};

// One that has been found for an exchange. In its arena.
struct found {
  struct stored stored;
  struct headers fields;
  struct slice reason, url, tags, body; // body.data NULL: in chunks
  uint64_t id;
  uint32_t chunks;
};

// A piece of an answer: a text, then content [from, to) of the stored response.
struct cache_piece {
  struct cache_piece *next;
  struct slice text;
  uint64_t from, to;
};

struct caching {
  unsigned char hash[OBJECT_HASH];
  struct slice key, url;
  struct headers request; // as it was when the key was made: what Vary is about
  uint32_t asks;          // enum cache_asks
  struct found *found;    // NULL: nothing fits
  uint64_t same[8];       // numbers of others under the hash: from the oldest on they make room
  uint32_t same_count;

  // The answer
  bool answering, piped; // piped: its content goes chunk by chunk
  struct cache_piece *pieces, **pieces_end;
  struct job more; // goes on in the next turn

  // The response that is being stored; NULL: none
  struct capture *capture;
  struct flight *flight; // that this exchange leads
  struct slice hidden;   // names of fields that clients are not told, in a list
};

// The hash of a key: 128 bits that are the same on every start.
void cache_hash(struct slice text, unsigned char hash[OBJECT_HASH]);
void cache_hex(const unsigned char hash[OBJECT_HASH], char out[CACHE_KEY_HEX]);

// Makes the key and looks what is stored for it. BRIDGE_OK: exchange->caching->found; BRIDGE_NONE; BRIDGE_FULL: the key is
// too long; BRIDGE_FAILED.
int cache_look_up(struct exchange *exchange, const struct cache_rules *rules, const struct cache_subject *subject);
// What responses to a path (with its query; data NULL: the request's own) on the same host are named by.
struct slice cache_url(struct exchange *exchange, const struct cache_rules *rules, struct slice path);
int64_t cache_us(double seconds); // in microseconds, within bounds
int64_t cache_age_us(const struct exchange *exchange, const struct stored *stored);

// Lists of names that go with a response, and its Date where it has none itself (RFC 9110 6.6.1).
struct cache_lists {
  struct slice vary, tags, drop; // fields of the request; tags; fields that are not kept
  struct slice date;
};

// A stored response as bytes, ready to be put: the fields of `from` but for those that are not kept.
struct entry_text {
  char *data; // to be freed
  uint32_t len;
};
// NULL data: no memory, or too large.
struct entry_text cache_encode(const struct stored *stored, const struct caching *caching, const struct headers *from,
                               struct slice reason, const struct cache_lists *lists);
// The names that it can be purged by, in `out` (for 1 + CACHE_TAGS_MOST); the count, 0: too many, or one is too long.
uint32_t cache_names(const struct caching *caching, struct slice tags, struct slice *out, char **memory);
