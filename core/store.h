// SPDX-License-Identifier: Apache-2.0
// Key-value data that all workers share and that survives a restart: an LMDB environment in a folder. A cache, not a
// ledger: nothing waits for the disk, so a crash of the machine (not of a process) may cost all of it, and then it begins
// empty. Opened after the fork.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "slice.h"

struct store;

enum store_status { STORE_OK = 0, STORE_NONE = 2, STORE_DIFFERS = 3 };

enum { STORE_KEY_MAX = 480 };

struct store_use {
  uint64_t entries, bytes_used, bytes_limit;
  uint64_t evicted; // by this process, to make room
};

// Opens (or makes) the store in `folder`, which is made too, bounded to `bytes`. NULL, and why.
struct store *store_open(const char *folder, uint64_t bytes, struct error *error);
void store_close(struct store *store);

// Sets a value, which ends `ttl_us` after `now_us` (since 1970; 0: never). When the store is full, what has expired
// makes room, then the oldest. 0; ERROR_INVALID: key empty or too long; ERROR_MEMORY: larger than the store takes.
int store_set(struct store *store, struct slice key, struct slice value, int64_t ttl_us, int64_t now_us,
              struct error *error);
// Like store_set, but only where the key is not there (or has expired): STORE_DIFFERS else.
int store_add(struct store *store, struct slice key, struct slice value, int64_t ttl_us, int64_t now_us,
              struct error *error);
// The value, valid until the next call on this store. STORE_OK, STORE_NONE, or negative.
// `*expires_us` (may be NULL) gets the end, 0: never.
int store_get(struct store *store, struct slice key, int64_t now_us, struct slice *value, int64_t *expires_us,
              struct error *error);
int store_delete(struct store *store, struct slice key, struct error *error); // STORE_OK, STORE_NONE
// Deletes every key with that prefix, in bounded transactions. How many, or negative.
int64_t store_delete_prefix(struct store *store, struct slice prefix, struct error *error);

// The first key behind `after` (empty: the first of all) that begins with `prefix` and has not expired: so a walk holds
// nothing open between two steps. Valid until the next call on this store. STORE_OK, STORE_NONE, or negative.
int store_next(struct store *store, struct slice prefix, struct slice after, int64_t now_us, struct slice *key,
               struct slice *value, int64_t *expires_us, struct error *error);

void store_use(struct store *store, struct store_use *out);

// Takes the room on disk that LMDB's table of `readers` needs, which it writes through a map: on a disk that is full such
// a write would end the process. Before mdb_env_open in `folder`; 0, or an errno.
int store_reserve_readers(const char *folder, uint32_t readers);
