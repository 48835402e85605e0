// SPDX-License-Identifier: Apache-2.0
// The store: one LMDB environment with four tables, changed together in one transaction.
//
//   data   key                      -> { end, serial, value }
//   order  serial                   -> key     the oldest first
//   ends   end, serial              -> key     what ends next first; without those that never end
//   meta   "use"                    -> entries, bytes, next serial
//
// The bound is on bytes as counted in `meta`; the map is twice as large, so that there is always room to delete.
// Values are copied out of the map: a reader that holds a page keeps all later ones from being reused.
#include "store.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EVICT_BATCH = 1000, LEAST_BYTES = 1 << 20, PAGE = 4096, TABLE_OVERHEAD = 96, READERS = 1024 };
enum { READER_BYTES = 64 }; // LMDB: a line of the CPU's cache for each, and two for all

struct head {     // of a value in `data`
  int64_t end_us; // 0: never
  uint64_t serial;
};

struct use {
  uint64_t entries, bytes, next_serial;
};

struct end_key { // big-endian, so that they sort
  uint64_t end_us, serial;
};

struct store {
  MDB_env *env;
  MDB_dbi data, order, ends, meta;
  uint64_t bytes_limit, evicted;
  char *buffer; // what store_get and store_next have copied
  size_t buffer_room;
};

static int fail(struct error *error, const char *what, int code) {
  if (code == MDB_MAP_FULL) return error_set(error, ERROR_MEMORY, "store: %s: full", what);
  if (code < 0 && code > -1000) code = -code; // errno, on its way as a negative result
  return error_set(error, ERROR_SYSTEM, "store: %s: %s", what, mdb_strerror(code));
}

static MDB_val val_of(struct slice slice) {
  return (MDB_val){slice.len, (void *)(uintptr_t)slice.data};
}

#define VAL(object) (&(MDB_val){sizeof(object), &(object)})

// ---- Opening ----

// Its length stays LMDB's to set. Where the file system knows no reserving, nothing is lost but the guard.
int store_reserve_readers(const char *folder, uint32_t readers) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/lock.mdb", folder) >= (int)sizeof path) return ENAMETOOLONG;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return errno;
  off_t bytes = (off_t)(readers + 2) * READER_BYTES;
  int code = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (bytes + PAGE - 1) / PAGE * PAGE) < 0 ? errno : 0;
  close(fd);
  return code == EOPNOTSUPP || code == ENOSYS ? 0 : code;
}

static int open_tables(struct store *store) {
  MDB_txn *txn;
  int code = mdb_txn_begin(store->env, NULL, 0, &txn);
  if (code) return code;
  if ((code = mdb_dbi_open(txn, "data", MDB_CREATE, &store->data)) == 0 &&
      (code = mdb_dbi_open(txn, "order", MDB_CREATE, &store->order)) == 0 &&
      (code = mdb_dbi_open(txn, "ends", MDB_CREATE, &store->ends)) == 0)
    code = mdb_dbi_open(txn, "meta", MDB_CREATE, &store->meta);
  if (code == 0) return mdb_txn_commit(txn);
  mdb_txn_abort(txn);
  return code;
}

static int open_environment(struct store *store, const char *folder) {
  int code = mdb_env_create(&store->env);
  if (code) return code;
  mdb_env_set_maxdbs(store->env, 4);
  mdb_env_set_maxreaders(store->env, READERS);
  mdb_env_set_mapsize(store->env, (size_t)store->bytes_limit * 2 + LEAST_BYTES);
  code = store_reserve_readers(folder, READERS);
  if (code == 0) code = mdb_env_open(store->env, folder, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
  if (code == 0) code = mdb_reader_check(store->env, NULL); // slots of processes that were killed
  return code ? code : open_tables(store);
}

static void discard_files(const char *folder) {
  char path[4096];
  const char *names[] = {"data.mdb", "lock.mdb"};
  for (int i = 0; i < 2; i++) {
    if (snprintf(path, sizeof path, "%s/%s", folder, names[i]) < (int)sizeof path) unlink(path);
  }
}

struct store *store_open(const char *folder, uint64_t bytes, struct error *error) {
  struct store *store = calloc(1, sizeof *store);
  if (!store) goto no_memory;
  store->bytes_limit = (bytes < LEAST_BYTES ? LEAST_BYTES : bytes) / PAGE * PAGE;
  if (mkdir(folder, 0700) < 0 && errno != EEXIST) {
    error_system(error, "store: %s", folder);
    store_close(store);
    return NULL;
  }
  int code = open_environment(store, folder);
  if (code == MDB_CORRUPTED || code == MDB_INVALID || code == MDB_VERSION_MISMATCH || code == MDB_PAGE_NOTFOUND) {
    mdb_env_close(store->env);
    store->env = NULL;
    discard_files(folder);
    code = open_environment(store, folder);
  }
  if (code == 0) return store;
  fail(error, folder, code);
  store_close(store);
  return NULL;
no_memory:
  error_set(error, ERROR_MEMORY, "no memory for the store");
  return NULL;
}

void store_close(struct store *store) {
  if (store->env) mdb_env_close(store->env);
  free(store->buffer);
  free(store);
}

// ---- Entries within a transaction ----

// What an entry takes, roughly: large values have pages of their own.
static uint64_t entry_bytes(size_t key, size_t value) {
  size_t stored = value + sizeof(struct head);
  if (stored > PAGE / 2 - 64) stored = (stored + 16 + PAGE - 1) / PAGE * PAGE;
  return stored + 3 * key + TABLE_OVERHEAD;
}

static int use_read(struct store *store, MDB_txn *txn, struct use *use) {
  MDB_val value;
  *use = (struct use){0};
  int code = mdb_get(txn, store->meta, &(MDB_val){3, (void *)(uintptr_t) "use"}, &value);
  if (code == 0 && value.mv_size == sizeof *use) memcpy(use, value.mv_data, sizeof *use);
  return code == MDB_NOTFOUND ? 0 : code;
}

static int use_write(struct store *store, MDB_txn *txn, struct use *use) {
  return mdb_put(txn, store->meta, &(MDB_val){3, (void *)(uintptr_t) "use"}, VAL(*use), 0);
}

static struct end_key end_key(const struct head *head) {
  return (struct end_key){htobe64((uint64_t)head->end_us), htobe64(head->serial)};
}

// Ends one entry, whose head and value are given.
static int entry_remove(struct store *store, MDB_txn *txn, struct use *use, MDB_val *key, const MDB_val *stored) {
  struct head head;
  memcpy(&head, stored->mv_data, sizeof head);
  uint64_t serial = htobe64(head.serial), bytes = entry_bytes(key->mv_size, stored->mv_size - sizeof head);
  struct end_key end = end_key(&head);
  int code = mdb_del(txn, store->order, VAL(serial), NULL);
  if (code == 0 && head.end_us) code = mdb_del(txn, store->ends, VAL(end), NULL);
  if (code == 0) code = mdb_del(txn, store->data, key, NULL);
  use->entries--;
  use->bytes -= bytes < use->bytes ? bytes : use->bytes;
  return code;
}

static int entry_write(struct store *store, MDB_txn *txn, struct use *use, MDB_val *key, struct slice value,
                       int64_t end_us) {
  struct head head = {end_us, use->next_serial++};
  uint64_t serial = htobe64(head.serial);
  struct end_key end = end_key(&head);
  MDB_val place = {sizeof head + value.len, NULL};
  int code = mdb_put(txn, store->data, key, &place, MDB_RESERVE);
  if (code) return code;
  memcpy(place.mv_data, &head, sizeof head);
  if (value.len) memcpy((char *)place.mv_data + sizeof head, value.data, value.len);
  use->entries++;
  use->bytes += entry_bytes(key->mv_size, value.len);
  code = mdb_put(txn, store->order, VAL(serial), key, 0);
  return code == 0 && end_us ? mdb_put(txn, store->ends, VAL(end), key, 0) : code;
}

static bool has_ended(const MDB_val *stored, int64_t now_us) {
  struct head head;
  memcpy(&head, stored->mv_data, sizeof head);
  return head.end_us && head.end_us <= now_us;
}

// The key of the first entry of `ends` that is over, or of `order`. False: there is none.
static bool first_victim(MDB_txn *txn, MDB_dbi table, int64_t now_us, bool ended, char *copy, MDB_val *key) {
  MDB_cursor *cursor;
  MDB_val index, found;
  if (mdb_cursor_open(txn, table, &cursor)) return false;
  bool have = mdb_cursor_get(cursor, &index, &found, MDB_FIRST) == 0;
  if (have && ended) {
    struct end_key end;
    memcpy(&end, index.mv_data, sizeof end);
    have = (int64_t)be64toh(end.end_us) <= now_us;
  }
  if (have) {
    memcpy(copy, found.mv_data, found.mv_size); // the page may move under it
    *key = (MDB_val){found.mv_size, copy};
  }
  mdb_cursor_close(cursor);
  return have;
}

// Makes room: what has ended goes, then the oldest, until `need` more bytes fit.
static int evict(struct store *store, MDB_txn *txn, struct use *use, uint64_t need, int64_t now_us) {
  char copy[STORE_KEY_MAX];
  MDB_val key, stored;
  while (use->entries > 0 && use->bytes + need > store->bytes_limit) {
    if (!first_victim(txn, store->ends, now_us, true, copy, &key) &&
        !first_victim(txn, store->order, now_us, false, copy, &key))
      return 0;
    int code = mdb_get(txn, store->data, &key, &stored);
    if (code == 0) code = entry_remove(store, txn, use, &key, &stored);
    if (code) return code;
    store->evicted++;
  }
  return 0;
}

// ---- Writing ----

// One write in a transaction of its own. STORE_OK, STORE_DIFFERS, or a code of LMDB.
static int write_once(struct store *store, struct slice key_text, struct slice value, int64_t end_us, int64_t now_us,
                      bool only_new) {
  MDB_txn *txn;
  MDB_val key = val_of(key_text), stored;
  struct use use;
  uint64_t need = entry_bytes(key_text.len, value.len);
  int code = mdb_txn_begin(store->env, NULL, 0, &txn);
  if (code) return code;
  if ((code = use_read(store, txn, &use))) goto fail;
  code = mdb_get(txn, store->data, &key, &stored);
  if (code == 0 && only_new && !has_ended(&stored, now_us)) {
    mdb_txn_abort(txn);
    return STORE_DIFFERS;
  }
  if (code == 0) code = entry_remove(store, txn, &use, &key, &stored);
  if (code && code != MDB_NOTFOUND) goto fail;
  if ((code = evict(store, txn, &use, need, now_us))) goto fail;
  if ((code = entry_write(store, txn, &use, &key, value, end_us))) goto fail;
  if ((code = use_write(store, txn, &use))) goto fail;
  return mdb_txn_commit(txn);
fail:
  mdb_txn_abort(txn);
  return code;
}

// The map is full although the count said otherwise (pages in pieces): gives an eighth back.
static int evict_more(struct store *store, int64_t now_us) {
  MDB_txn *txn;
  struct use use;
  int code = mdb_txn_begin(store->env, NULL, 0, &txn);
  if (code) return code;
  code = use_read(store, txn, &use);
  uint64_t need = store->bytes_limit - use.bytes + use.bytes / 8;
  if (code == 0) code = evict(store, txn, &use, need, now_us);
  if (code == 0) code = use_write(store, txn, &use);
  if (code == 0) return mdb_txn_commit(txn);
  mdb_txn_abort(txn);
  return code;
}

static int write_entry(struct store *store, struct slice key, struct slice value, int64_t ttl_us, int64_t now_us,
                       bool only_new, struct error *error) {
  if (key.len == 0 || key.len > STORE_KEY_MAX)
    return error_set(error, ERROR_INVALID, "store: a key has 1 to %d bytes", STORE_KEY_MAX);
  if (entry_bytes(key.len, value.len) > store->bytes_limit / 2)
    return error_set(error, ERROR_MEMORY, "store: %u bytes are more than it takes", value.len);
  int64_t end_us = ttl_us ? now_us + ttl_us : 0;
  int code = write_once(store, key, value, end_us, now_us, only_new);
  for (int tries = 0; code == MDB_MAP_FULL && tries < 4; tries++) {
    code = evict_more(store, now_us);
    if (code == 0) code = write_once(store, key, value, end_us, now_us, only_new);
  }
  return code == 0 || code == STORE_DIFFERS ? code : fail(error, "set", code);
}

int store_set(struct store *store, struct slice key, struct slice value, int64_t ttl_us, int64_t now_us,
              struct error *error) {
  return write_entry(store, key, value, ttl_us, now_us, false, error);
}

int store_add(struct store *store, struct slice key, struct slice value, int64_t ttl_us, int64_t now_us,
              struct error *error) {
  return write_entry(store, key, value, ttl_us, now_us, true, error);
}

static bool has_prefix(const MDB_val *key, struct slice prefix) {
  return key->mv_size >= prefix.len && memcmp(key->mv_data, prefix.data, prefix.len) == 0;
}

// Removes the entry of exactly this key, or up to a batch of those that begin with it. How many, or a negative code.
static int64_t remove_batch(struct store *store, struct slice text, bool exact) {
  MDB_txn *txn;
  MDB_val key, stored;
  struct use use;
  char copy[STORE_KEY_MAX];
  int64_t count = 0;
  int code = mdb_txn_begin(store->env, NULL, 0, &txn);
  if (code) return code > 0 ? -code : code;
  MDB_cursor *cursor = NULL;
  if ((code = use_read(store, txn, &use)) || (code = mdb_cursor_open(txn, store->data, &cursor))) goto fail;
  while (count < EVICT_BATCH) {
    key = text.len ? val_of(text) : (MDB_val){0};
    code = mdb_cursor_get(cursor, &key, &stored, text.len ? MDB_SET_RANGE : MDB_FIRST);
    if (code == MDB_NOTFOUND || (code == 0 && exact && key.mv_size != text.len)) break;
    if (code) goto fail;
    if (!has_prefix(&key, text)) break;
    memcpy(copy, key.mv_data, key.mv_size);
    key.mv_data = copy;
    if ((code = entry_remove(store, txn, &use, &key, &stored))) goto fail;
    count++;
    if (exact) break;
  }
  mdb_cursor_close(cursor);
  cursor = NULL;
  if ((code = use_write(store, txn, &use))) goto fail;
  code = mdb_txn_commit(txn);
  if (code == 0) return count;
  return code > 0 ? -code : code;
fail:
  if (cursor) mdb_cursor_close(cursor);
  mdb_txn_abort(txn);
  return code > 0 ? -code : code;
}

int store_delete(struct store *store, struct slice key, struct error *error) {
  if (key.len == 0 || key.len > STORE_KEY_MAX) return STORE_NONE;
  int64_t count = remove_batch(store, key, true);
  if (count < 0) return fail(error, "delete", (int)count);
  return count ? STORE_OK : STORE_NONE;
}

int64_t store_delete_prefix(struct store *store, struct slice prefix, struct error *error) {
  int64_t total = 0, count;
  if (prefix.len > STORE_KEY_MAX) return 0;
  do {
    count = remove_batch(store, prefix, false);
    if (count < 0) return fail(error, "delete", (int)count);
    total += count;
  } while (count == EVICT_BATCH);
  return total;
}

// ---- Reading ----

static char *buffer_for(struct store *store, size_t bytes) {
  if (bytes > store->buffer_room) {
    char *buffer = realloc(store->buffer, bytes);
    if (!buffer) return NULL;
    store->buffer = buffer;
    store->buffer_room = bytes;
  }
  return store->buffer;
}

// Copies key and value out of the map.
static int copy_out(struct store *store, const MDB_val *key, const MDB_val *stored, struct slice *key_out,
                    struct slice *value_out, int64_t *end_us) {
  struct head head;
  size_t value = stored->mv_size - sizeof head;
  char *buffer = buffer_for(store, key->mv_size + value + 1);
  if (!buffer) return ENOMEM;
  memcpy(&head, stored->mv_data, sizeof head);
  memcpy(buffer, key->mv_data, key->mv_size);
  memcpy(buffer + key->mv_size, (const char *)stored->mv_data + sizeof head, value);
  if (key_out) *key_out = (struct slice){buffer, (uint32_t)key->mv_size};
  *value_out = (struct slice){buffer + key->mv_size, (uint32_t)value};
  if (end_us) *end_us = head.end_us;
  return 0;
}

int store_get(struct store *store, struct slice key_text, int64_t now_us, struct slice *value, int64_t *expires_us,
              struct error *error) {
  MDB_txn *txn;
  MDB_val key = val_of(key_text), stored;
  if (key_text.len == 0 || key_text.len > STORE_KEY_MAX) return STORE_NONE;
  int code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
  if (code) return fail(error, "get", code);
  code = mdb_get(txn, store->data, &key, &stored);
  if (code == 0 && has_ended(&stored, now_us)) code = MDB_NOTFOUND;
  if (code == 0) code = copy_out(store, &key, &stored, NULL, value, expires_us);
  mdb_txn_abort(txn);
  if (code == MDB_NOTFOUND) return STORE_NONE;
  return code ? fail(error, "get", code) : STORE_OK;
}

// Moves to the first living key behind `after` that begins with the prefix.
static int seek(MDB_cursor *cursor, struct slice prefix, struct slice after, int64_t now_us, MDB_val *key,
                MDB_val *stored) {
  struct slice from = after.len ? after : prefix;
  *key = val_of(from);
  int code = mdb_cursor_get(cursor, key, stored, from.len ? MDB_SET_RANGE : MDB_FIRST);
  if (code == 0 && after.len && key->mv_size == after.len && memcmp(key->mv_data, after.data, after.len) == 0)
    code = mdb_cursor_get(cursor, key, stored, MDB_NEXT);
  while (code == 0 && has_prefix(key, prefix) && has_ended(stored, now_us))
    code = mdb_cursor_get(cursor, key, stored, MDB_NEXT);
  return code == 0 && !has_prefix(key, prefix) ? MDB_NOTFOUND : code;
}

int store_next(struct store *store, struct slice prefix, struct slice after, int64_t now_us, struct slice *key_out,
               struct slice *value, int64_t *expires_us, struct error *error) {
  MDB_txn *txn;
  MDB_cursor *cursor;
  MDB_val key, stored;
  char copy[STORE_KEY_MAX];
  if (prefix.len > STORE_KEY_MAX || after.len > STORE_KEY_MAX) return STORE_NONE;
  if (after.len) memcpy(copy, after.data, after.len); // it may well be what the last call has given
  after.data = copy;
  int code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
  if (code) return fail(error, "next", code);
  code = mdb_cursor_open(txn, store->data, &cursor);
  if (code == 0) {
    code = seek(cursor, prefix, after, now_us, &key, &stored);
    if (code == 0) code = copy_out(store, &key, &stored, key_out, value, expires_us);
    mdb_cursor_close(cursor);
  }
  mdb_txn_abort(txn);
  if (code == MDB_NOTFOUND) return STORE_NONE;
  return code ? fail(error, "next", code) : STORE_OK;
}

void store_use(struct store *store, struct store_use *out) {
  MDB_txn *txn;
  struct use use = {0};
  if (mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn) == 0) {
    use_read(store, txn, &use);
    mdb_txn_abort(txn);
  }
  *out = (struct store_use){use.entries, use.bytes, store->bytes_limit, store->evicted};
}
