// SPDX-License-Identifier: Apache-2.0
// Six tables, changed together in one transaction:
//
//   objects  hash, id         -> { chunks, serial, cost, names, payload }
//   chunks   id, index        -> bytes
//   order    serial           -> hash, id   the one not used for the longest time first
//   names    name, 0, id      -> hash
//   dying    time, id         -> { chunks, cost, leased }   bodies without a record: given up, or being written
//   meta     "use"            -> entries, bytes, next serial
//
// A body goes a few chunks a transaction, for one of a gigabyte has 17,000 of them. All numbers in keys are big-endian.
#include "store_objects.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  FORMAT = 1,
  LEAST_BYTES = 4 << 20,
  READERS = 1200,
  PAGE = 4096,
  RECORD_OVERHEAD = 256,
  SWEEP_CHUNKS = 32, // deleted a transaction
  EVICT_STEPS = 256,
  SKIP_MOST = 64,
  COLD_SLACK = 8,
  LOOK_EVERY = 256
};

static const int64_t LEASE_US = 3600 * 1000000LL; // renewed while chunks come
static const int64_t GRACE_US = 60 * 1000000LL;   // for readers of what has been removed

struct record {
  uint32_t format, chunks;
  uint64_t serial, cost;
  uint32_t names_len, unused; // length and bytes of each, behind this; then the payload
};

struct place { // key of `objects`
  unsigned char hash[OBJECT_HASH];
  uint64_t id;
};

struct chunk_key {
  uint64_t id;
  uint32_t index;
} __attribute__((packed));

struct death {
  uint64_t time_us, id;
};

struct remains {
  uint64_t cost;
  uint32_t chunks, leased;
};

struct use {
  uint64_t entries, bytes, next;
};

struct objects {
  MDB_env *env;
  MDB_dbi records, chunks, order, names, dying, meta;
  MDB_txn *reader; // reset between uses
  MDB_cursor *cursor;
  unsigned char hash[OBJECT_HASH]; // that is walked
  uint64_t bytes_limit;
  struct use seen; // as of the last look
  uint32_t looks;
};

#define VAL(object) (&(MDB_val){sizeof(object), &(object)})

static int fail(struct error *error, const char *what, int code) {
  if (code == MDB_MAP_FULL) return error_set(error, ERROR_MEMORY, "cached responses: %s: full", what);
  return error_set(error, ERROR_SYSTEM, "cached responses: %s: %s", what, mdb_strerror(code));
}

// ---- Opening ----

static void path_in(const char *folder, const char *name, char out[4096]) {
  if (snprintf(out, 4096, "%s/%s", folder, name) >= 4096) out[0] = 0;
}

static void discard_files(const char *folder) {
  char path[4096];
  path_in(folder, "data.mdb", path);
  unlink(path);
  path_in(folder, "lock.mdb", path);
  unlink(path);
}

// What an earlier boot of the machine has left may be torn: it goes. The first worker to come sees to it.
static void discard_older_boot(const char *folder) {
  char path[4096], now[64] = {0}, then[64] = {0};
  int boot = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t len = boot < 0 ? 0 : read(boot, now, sizeof now - 1);
  if (boot >= 0) close(boot);
  path_in(folder, "boot", path);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  flock(fd, LOCK_EX);
  ssize_t known = pread(fd, then, sizeof then - 1, 0);
  if (len > 0 && (known != len || memcmp(now, then, (size_t)len) != 0)) {
    discard_files(folder);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, now, (size_t)len, 0) != len) unlink(path); // discarded again next time
  }
  close(fd);
}

static int open_tables(struct objects *objects) {
  MDB_txn *txn;
  int code = mdb_txn_begin(objects->env, NULL, 0, &txn);
  if (code) return code;
  struct {
    const char *name;
    MDB_dbi *table;
  } tables[] = {{"objects", &objects->records}, {"chunks", &objects->chunks}, {"order", &objects->order},
                {"names", &objects->names},     {"dying", &objects->dying},   {"meta", &objects->meta}};
  for (size_t i = 0; code == 0 && i < sizeof tables / sizeof *tables; i++)
    code = mdb_dbi_open(txn, tables[i].name, MDB_CREATE, tables[i].table);
  if (code == 0) return mdb_txn_commit(txn);
  mdb_txn_abort(txn);
  return code;
}

// A file shorter than it says would end the process at a touch.
static int check_length(const struct objects *objects) {
  MDB_envinfo info;
  struct stat file;
  int fd;
  int code = mdb_env_info(objects->env, &info);
  if (code == 0) code = mdb_env_get_fd(objects->env, &fd);
  if (code) return code;
  if (fstat(fd, &file) < 0) return errno;
  return info.me_last_pgno > 1 && file.st_size < (off_t)((info.me_last_pgno + 1) * PAGE) ? MDB_CORRUPTED : 0;
}

static int open_reader(struct objects *objects) {
  int code = mdb_txn_begin(objects->env, NULL, MDB_RDONLY, &objects->reader);
  if (code == 0) code = mdb_cursor_open(objects->reader, objects->records, &objects->cursor);
  if (objects->reader) mdb_txn_reset(objects->reader);
  return code;
}

static void close_environment(struct objects *objects) {
  if (objects->cursor) mdb_cursor_close(objects->cursor);
  if (objects->reader) mdb_txn_abort(objects->reader);
  if (objects->env) mdb_env_close(objects->env);
  objects->cursor = NULL;
  objects->reader = NULL;
  objects->env = NULL;
}

static int open_environment(struct objects *objects, const char *folder) {
  int code = mdb_env_create(&objects->env);
  if (code) return code;
  mdb_env_set_maxdbs(objects->env, 8);
  mdb_env_set_maxreaders(objects->env, READERS);
  mdb_env_set_mapsize(objects->env, (size_t)objects->bytes_limit * 2 + LEAST_BYTES);
  code = store_reserve_readers(folder, READERS);
  if (code == 0) code = mdb_env_open(objects->env, folder, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
  if (code == 0) code = mdb_reader_check(objects->env, NULL); // slots of processes that were killed
  if (code == 0) code = check_length(objects);
  if (code == 0) code = open_tables(objects);
  return code ? code : open_reader(objects);
}

static bool is_spoilt(int code) {
  return code == MDB_CORRUPTED || code == MDB_INVALID || code == MDB_VERSION_MISMATCH || code == MDB_PAGE_NOTFOUND ||
         code == MDB_INCOMPATIBLE || code == MDB_BAD_DBI;
}

struct objects *objects_open(const char *folder, uint64_t bytes, struct error *error) {
  struct objects *objects = calloc(1, sizeof *objects);
  if (!objects) {
    error_set(error, ERROR_MEMORY, "no memory for cached responses");
    return NULL;
  }
  objects->bytes_limit = (bytes < LEAST_BYTES ? LEAST_BYTES : bytes) / PAGE * PAGE;
  if (mkdir(folder, 0700) < 0 && errno != EEXIST) {
    error_system(error, "cached responses: %s", folder);
    objects_close(objects);
    return NULL;
  }
  discard_older_boot(folder);
  int code = open_environment(objects, folder);
  if (is_spoilt(code)) {
    close_environment(objects);
    discard_files(folder);
    code = open_environment(objects, folder);
  }
  if (code == 0) return objects;
  fail(error, folder, code);
  objects_close(objects);
  return NULL;
}

void objects_close(struct objects *objects) {
  close_environment(objects);
  free(objects);
}

// ---- Transactions ----

static int begin_write(struct objects *objects, MDB_txn **txn, struct use *use) {
  int code = mdb_txn_begin(objects->env, NULL, 0, txn);
  if (code == MDB_MAP_RESIZED) { // another worker was started with a larger bound
    mdb_env_set_mapsize(objects->env, 0);
    code = mdb_txn_begin(objects->env, NULL, 0, txn);
  }
  if (code) return code;
  MDB_val value;
  *use = (struct use){.next = 1};
  code = mdb_get(*txn, objects->meta, &(MDB_val){3, (void *)(uintptr_t) "use"}, &value);
  if (code == 0 && value.mv_size == sizeof *use) memcpy(use, value.mv_data, sizeof *use);
  if (code == 0 || code == MDB_NOTFOUND) return 0;
  mdb_txn_abort(*txn);
  return code;
}

static int end_write(struct objects *objects, MDB_txn *txn, struct use *use, int code) {
  if (code == 0) code = mdb_put(txn, objects->meta, &(MDB_val){3, (void *)(uintptr_t) "use"}, VAL(*use), 0);
  if (code) {
    mdb_txn_abort(txn);
    return code;
  }
  code = mdb_txn_commit(txn);
  if (code == 0) objects->seen = *use;
  return code;
}

static uint64_t pages(uint64_t bytes) {
  return (bytes + 16 + PAGE - 1) / PAGE * PAGE;
}

// ---- Bodies without a record ----

static int mourn(struct objects *objects, MDB_txn *txn, int64_t time_us, uint64_t id, struct remains remains) {
  struct death death = {htobe64((uint64_t)time_us), htobe64(id)};
  return mdb_put(txn, objects->dying, VAL(death), VAL(remains), 0);
}

static int unmourn(struct objects *objects, MDB_txn *txn, int64_t time_us, uint64_t id) {
  struct death death = {htobe64((uint64_t)time_us), htobe64(id)};
  int code = mdb_del(txn, objects->dying, VAL(death), NULL);
  return code == MDB_NOTFOUND ? 0 : code;
}

// Deletes the last chunks of a body, up to a few. How many are left.
static uint32_t shorten(struct objects *objects, MDB_txn *txn, uint64_t id, uint32_t chunks) {
  for (int i = 0; i < SWEEP_CHUNKS && chunks > 0; i++) {
    struct chunk_key key = {htobe64(id), htobe32(--chunks)};
    mdb_del(txn, objects->chunks, VAL(key), NULL);
  }
  return chunks;
}

// The first that may go: whose time has come or, when room is `needed`, any but those that are being written.
static bool find_dead(MDB_cursor *cursor, int64_t now_us, bool needed, struct death *death, struct remains *remains) {
  MDB_val key, value;
  int code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
  for (int i = 0; i < SKIP_MOST && code == 0; i++) {
    if (key.mv_size != sizeof *death || value.mv_size != sizeof *remains) return false;
    memcpy(death, key.mv_data, sizeof *death);
    memcpy(remains, value.mv_data, sizeof *remains);
    if ((int64_t)be64toh(death->time_us) <= now_us || (needed && !remains->leased)) return true;
    if (!needed) return false;
    code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  return false;
}

// Buries a few chunks. 1: some; 0: there are none; negative of LMDB's code.
static int sweep(struct objects *objects, MDB_txn *txn, struct use *use, int64_t now_us, bool needed) {
  MDB_cursor *cursor;
  struct death death;
  struct remains remains;
  int code = mdb_cursor_open(txn, objects->dying, &cursor);
  if (code) return code > 0 ? -code : code;
  bool found = find_dead(cursor, now_us, needed, &death, &remains);
  mdb_cursor_close(cursor);
  if (!found) return 0;
  uint32_t left = shorten(objects, txn, be64toh(death.id), remains.chunks);
  uint64_t freed = remains.chunks ? remains.cost / remains.chunks * (remains.chunks - left) : 0;
  if (left == 0) freed = remains.cost;
  use->bytes -= freed < use->bytes ? freed : use->bytes;
  remains = (struct remains){remains.cost - freed, left, remains.leased};
  code =
      left ? mdb_put(txn, objects->dying, VAL(death), VAL(remains), 0) : mdb_del(txn, objects->dying, VAL(death), NULL);
  return code ? (code > 0 ? -code : code) : 1;
}

// ---- Records within a transaction ----

static bool read_record(const MDB_val *stored, struct record *record) {
  if (stored->mv_size < sizeof *record) return false;
  memcpy(record, stored->mv_data, sizeof *record);
  return record->format == FORMAT && record->names_len <= stored->mv_size - sizeof *record;
}

struct name_key {
  char bytes[OBJECT_NAME_MAX + 1 + 1 + 8];
  size_t len;
};

static void name_key(struct name_key *key, struct slice name, uint64_t id) {
  uint64_t number = htobe64(id);
  size_t len = name.len > OBJECT_NAME_MAX + 1 ? OBJECT_NAME_MAX + 1 : name.len;
  memcpy(key->bytes, name.data, len);
  key->bytes[len++] = 0;
  memcpy(key->bytes + len, &number, sizeof number);
  key->len = len + sizeof number;
}

static int unname(struct objects *objects, MDB_txn *txn, const char *names, uint32_t len, uint64_t id) {
  uint32_t at = 0;
  while (at + 2 <= len) {
    uint16_t one;
    struct name_key key;
    memcpy(&one, names + at, sizeof one);
    at += (uint32_t)sizeof one;
    if (one > len - at) break;
    name_key(&key, (struct slice){names + at, one}, id);
    MDB_val found = {.mv_size = key.len, .mv_data = key.bytes};
    int code = mdb_del(txn, objects->names, &found, NULL);
    if (code && code != MDB_NOTFOUND) return code;
    at += one;
  }
  return 0;
}

// Takes a record out of all tables; its chunks die, unless they go on with another record.
static int unlink_record(struct objects *objects, MDB_txn *txn, struct use *use, const struct place *place,
                         int64_t now_us, struct record *keep) {
  MDB_val stored;
  struct record record;
  struct place key = *place;
  int code = mdb_get(txn, objects->records, VAL(key), &stored);
  if (code) return code;
  if (!read_record(&stored, &record)) return mdb_del(txn, objects->records, VAL(key), NULL);
  uint64_t id = be64toh(place->id), serial = htobe64(record.serial);
  char *names = malloc(record.names_len + 1); // the page may move under it
  if (!names) return ENOMEM;
  memcpy(names, (char *)stored.mv_data + sizeof record, record.names_len);
  code = unname(objects, txn, names, record.names_len, id);
  free(names);
  uint64_t body = (uint64_t)record.chunks * pages(OBJECT_CHUNK);
  uint64_t own = record.cost - (body < record.cost ? body : record.cost);
  if (code == 0) code = mdb_del(txn, objects->records, VAL(key), NULL);
  if (code == 0) code = mdb_del(txn, objects->order, VAL(serial), NULL);
  if (code == MDB_NOTFOUND) code = 0;
  if (code) return code;
  use->entries -= use->entries > 0;
  use->bytes -= own < use->bytes ? own : use->bytes;
  if (keep) *keep = record;
  if (keep || record.chunks == 0) return 0;
  return mourn(objects, txn, now_us + GRACE_US, id, (struct remains){body, record.chunks, 0});
}

// Gives up the object that was not used for the longest time. False: there is none, or it failed.
static bool drop_oldest(struct objects *objects, MDB_txn *txn, struct use *use, int64_t now_us) {
  MDB_cursor *cursor;
  MDB_val key, value;
  struct place place;
  if (mdb_cursor_open(txn, objects->order, &cursor)) return false;
  bool have = mdb_cursor_get(cursor, &key, &value, MDB_FIRST) == 0 && value.mv_size == sizeof place;
  if (have) memcpy(&place, value.mv_data, sizeof place);
  int code = have ? unlink_record(objects, txn, use, &place, now_us, NULL) : 0;
  if (code == MDB_NOTFOUND) code = mdb_cursor_del(cursor, 0); // of a record that is none
  mdb_cursor_close(cursor);
  return have && code == 0;
}

// Makes room for `need` bytes. 0, MDB_MAP_FULL, or another code.
static int evict(struct objects *objects, MDB_txn *txn, struct use *use, uint64_t need, int64_t now_us) {
  int swept = sweep(objects, txn, use, now_us, false);
  if (swept < 0) return swept;
  for (int steps = 0; use->bytes + need > objects->bytes_limit; steps++) {
    if (steps == EVICT_STEPS) return MDB_MAP_FULL;
    swept = sweep(objects, txn, use, now_us, true);
    if (swept < 0) return swept;
    if (swept == 0 && !drop_oldest(objects, txn, use, now_us)) return MDB_MAP_FULL;
  }
  return 0;
}

// The map is full although the count said otherwise (free pages in pieces): gives some back.
static int evict_more(struct objects *objects, int64_t now_us) {
  MDB_txn *txn;
  struct use use;
  int code = begin_write(objects, &txn, &use);
  if (code) return code;
  uint64_t need = objects->bytes_limit - (use.bytes < objects->bytes_limit ? use.bytes : objects->bytes_limit);
  code = evict(objects, txn, &use, need + use.bytes / 8, now_us);
  return end_write(objects, txn, &use, code == MDB_MAP_FULL ? 0 : code);
}

// ---- Writing ----

static int write_chunk(struct objects *objects, struct object_writer *writer, struct slice data, int64_t now_us) {
  MDB_txn *txn;
  struct use use;
  uint64_t cost = pages(OBJECT_CHUNK);
  int code = begin_write(objects, &txn, &use);
  if (code) return code;
  struct object_writer next = *writer;
  if (next.id == 0) next.id = use.next++;
  struct chunk_key key = {htobe64(next.id), htobe32(next.chunks)};
  next.chunks++;
  next.bytes += data.len;
  next.cost += cost;
  code = evict(objects, txn, &use, cost, now_us);
  MDB_val value = {data.len, (void *)(uintptr_t)data.data};
  if (code == 0) code = mdb_put(txn, objects->chunks, VAL(key), &value, 0);
  if (code == 0 && (next.lease_us - now_us < LEASE_US / 2 || next.lease_us - now_us > LEASE_US)) {
    if (next.lease_us) code = unmourn(objects, txn, next.lease_us, next.id);
    next.lease_us = now_us + LEASE_US;
  }
  if (code == 0) code = mourn(objects, txn, next.lease_us, next.id, (struct remains){next.cost, next.chunks, 1});
  use.bytes += cost;
  code = end_write(objects, txn, &use, code);
  if (code == 0) *writer = next;
  return code;
}

int objects_write(struct objects *objects, struct object_writer *writer, struct slice data, int64_t now_us,
                  struct error *error) {
  if (writer->cost + pages(OBJECT_CHUNK) > objects->bytes_limit / 2)
    return error_set(error, ERROR_MEMORY, "a response is larger than half of what may be cached");
  int code = write_chunk(objects, writer, data, now_us);
  for (int tries = 0; code == MDB_MAP_FULL && tries < 4; tries++) {
    code = evict_more(objects, now_us);
    if (code == 0) code = write_chunk(objects, writer, data, now_us);
  }
  return code ? fail(error, "write", code) : 0;
}

void objects_abandon(struct objects *objects, struct object_writer *writer) {
  MDB_txn *txn;
  struct use use;
  if (writer->chunks == 0 || begin_write(objects, &txn, &use)) return;
  int code = unmourn(objects, txn, writer->lease_us, writer->id);
  if (code == 0) code = mourn(objects, txn, 0, writer->id, (struct remains){writer->cost, writer->chunks, 0});
  int swept = code == 0 ? sweep(objects, txn, &use, 0, false) : 0;
  end_write(objects, txn, &use, swept < 0 ? swept : code);
  *writer = (struct object_writer){0};
}

static uint32_t names_bytes(const struct object_put *put) {
  uint32_t bytes = 0;
  for (uint32_t i = 0; i < put->name_count; i++) bytes += put->names[i].len + (uint32_t)sizeof(uint16_t);
  return bytes;
}

static char *put_bytes(char *at, const void *bytes, size_t len) {
  if (len) memcpy(at, bytes, len);
  return at + len;
}

// Writes the record and what leads to it.
static int link_record(struct objects *objects, MDB_txn *txn, const struct object_put *put, const struct place *place,
                       const struct record *record) {
  struct place key = *place;
  uint64_t serial = htobe64(record->serial);
  MDB_val room = {sizeof *record + record->names_len + put->head.len + put->rest.len, NULL};
  int code = mdb_put(txn, objects->records, VAL(key), &room, MDB_RESERVE);
  if (code) return code;
  char *at = put_bytes(room.mv_data, record, sizeof *record);
  for (uint32_t i = 0; i < put->name_count; i++) {
    uint16_t len = (uint16_t)put->names[i].len;
    at = put_bytes(at, &len, sizeof len);
    at = put_bytes(at, put->names[i].data, len);
  }
  at = put_bytes(at, put->head.data, put->head.len);
  put_bytes(at, put->rest.data, put->rest.len);
  code = mdb_put(txn, objects->order, VAL(serial), VAL(key), 0);
  for (uint32_t i = 0; code == 0 && i < put->name_count; i++) {
    struct name_key name;
    name_key(&name, put->names[i], be64toh(place->id));
    MDB_val from = {name.len, name.bytes}, to = {OBJECT_HASH, key.hash};
    code = mdb_put(txn, objects->names, &from, &to, 0);
  }
  return code;
}

static int remove_replaced(struct objects *objects, MDB_txn *txn, struct use *use, const struct object_put *put,
                           int64_t now_us) {
  struct place place;
  memcpy(place.hash, put->hash, OBJECT_HASH);
  for (uint32_t i = 0; i < put->replace_count; i++) {
    place.id = htobe64(put->replaces[i]);
    if (put->replaces[i] == put->id) continue;
    int code = unlink_record(objects, txn, use, &place, now_us, NULL);
    if (code && code != MDB_NOTFOUND) return code;
  }
  return 0;
}

static int put_once(struct objects *objects, const struct object_put *put, int64_t now_us, uint64_t *id) {
  MDB_txn *txn;
  struct use use;
  struct record old = {0}, record = {.format = FORMAT, .names_len = names_bytes(put)};
  struct place place;
  uint64_t own = pages(sizeof record + record.names_len + put->head.len + put->rest.len) + RECORD_OVERHEAD +
                 2 * (uint64_t)record.names_len;
  if (own < PAGE) own += PAGE;
  int code = begin_write(objects, &txn, &use);
  if (code) return code;
  *id = put->id ? put->id : put->body && put->body->id ? put->body->id : use.next++;
  memcpy(place.hash, put->hash, OBJECT_HASH);
  place.id = htobe64(*id);
  if (put->id) code = unlink_record(objects, txn, &use, &place, now_us, &old);
  record.chunks = put->id ? old.chunks : put->body ? put->body->chunks : 0;
  record.cost = own + (uint64_t)record.chunks * pages(OBJECT_CHUNK);
  if (code == 0) code = remove_replaced(objects, txn, &use, put, now_us);
  if (code == 0) code = evict(objects, txn, &use, own, now_us);
  if (code == 0 && put->body && put->body->chunks) code = unmourn(objects, txn, put->body->lease_us, *id);
  record.serial = use.next++;
  if (code == 0) code = link_record(objects, txn, put, &place, &record);
  use.entries++;
  use.bytes += own;
  return end_write(objects, txn, &use, code);
}

int objects_put(struct objects *objects, const struct object_put *put, int64_t now_us, uint64_t *id,
                struct error *error) {
  for (uint32_t i = 0; i < put->name_count; i++)
    if (put->names[i].len > OBJECT_NAME_MAX + 1)
      return error_set(error, ERROR_INVALID, "cached responses: a name has up to %d bytes", OBJECT_NAME_MAX);
  int code = put_once(objects, put, now_us, id);
  for (int tries = 0; code == MDB_MAP_FULL && tries < 4; tries++) {
    code = evict_more(objects, now_us);
    if (code == 0) code = put_once(objects, put, now_us, id);
  }
  return code ? fail(error, "put", code) : 0;
}

// ---- Removing ----

// The numbers under a hash, up to `most`.
static uint32_t ids_of(struct objects *objects, MDB_txn *txn, const unsigned char *hash, uint64_t *ids, uint32_t most) {
  MDB_cursor *cursor;
  struct place from = {.id = 0}, found;
  MDB_val key = {sizeof from, &from}, value;
  uint32_t count = 0;
  memcpy(from.hash, hash, OBJECT_HASH);
  if (mdb_cursor_open(txn, objects->records, &cursor)) return 0;
  int code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
  while (code == 0 && count < most && key.mv_size == sizeof found && memcmp(key.mv_data, hash, OBJECT_HASH) == 0) {
    memcpy(&found, key.mv_data, sizeof found);
    ids[count++] = found.id;
    code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  return count;
}

int64_t objects_remove(struct objects *objects, const unsigned char *hash, uint64_t id, int64_t now_us) {
  MDB_txn *txn;
  struct use use;
  uint64_t ids[OBJECT_PURGE_BATCH] = {htobe64(id)};
  int64_t removed = 0;
  int code = begin_write(objects, &txn, &use);
  if (code) return code > 0 ? -code : code;
  uint32_t count = id ? 1 : ids_of(objects, txn, hash, ids, OBJECT_PURGE_BATCH);
  for (uint32_t i = 0; i < count && code == 0; i++) {
    struct place place = {.id = ids[i]};
    memcpy(place.hash, hash, OBJECT_HASH);
    code = unlink_record(objects, txn, &use, &place, now_us, NULL);
    if (code == 0) removed++;
    if (code == MDB_NOTFOUND) code = 0;
  }
  code = end_write(objects, txn, &use, code);
  return code ? (code > 0 ? -code : code) : removed;
}

// The first place that a name leads to. False: there is none (any more).
static bool first_named(MDB_cursor *cursor, const struct name_key *from, struct place *place, struct name_key *found) {
  MDB_val key = {from->len, (void *)(uintptr_t)from->bytes}, value;
  if (mdb_cursor_get(cursor, &key, &value, from->len ? MDB_SET_RANGE : MDB_FIRST)) return false;
  if (key.mv_size < from->len + 8 || key.mv_size > sizeof found->bytes || value.mv_size != OBJECT_HASH) return false;
  if (memcmp(key.mv_data, from->bytes, from->len) != 0) return false;
  memcpy(found->bytes, key.mv_data, key.mv_size);
  found->len = key.mv_size;
  memcpy(place->hash, value.mv_data, OBJECT_HASH);
  memcpy(&place->id, found->bytes + found->len - 8, 8);
  return true;
}

int64_t objects_purge(struct objects *objects, struct slice name, bool prefix, int64_t now_us) {
  MDB_txn *txn;
  MDB_cursor *cursor = NULL;
  struct use use;
  struct place place;
  struct name_key from, found;
  int64_t removed = 0;
  name_key(&from, name, 0);
  from.len -= prefix ? 9 : 8; // without the number, and the zero before it
  int code = begin_write(objects, &txn, &use);
  if (code) return code > 0 ? -code : code;
  code = mdb_cursor_open(txn, objects->names, &cursor);
  while (code == 0 && removed < OBJECT_PURGE_BATCH && first_named(cursor, &from, &place, &found)) {
    code = unlink_record(objects, txn, &use, &place, now_us, NULL);
    MDB_val leftover = {found.len, found.bytes};
    if (code == MDB_NOTFOUND) code = mdb_del(txn, objects->names, &leftover, NULL);
    removed++;
  }
  if (cursor) mdb_cursor_close(cursor);
  code = end_write(objects, txn, &use, code);
  return code ? (code > 0 ? -code : code) : removed;
}

// ---- Reading ----

static int begin_read(struct objects *objects) {
  int code = mdb_txn_renew(objects->reader);
  if (code != MDB_MAP_RESIZED) return code;
  mdb_env_set_mapsize(objects->env, 0);
  return mdb_txn_renew(objects->reader);
}

static void look_at_use(struct objects *objects) {
  MDB_val value;
  if (objects->looks++ % LOOK_EVERY) return;
  if (mdb_get(objects->reader, objects->meta, &(MDB_val){3, (void *)(uintptr_t) "use"}, &value) == 0 &&
      value.mv_size == sizeof objects->seen)
    memcpy(&objects->seen, value.mv_data, sizeof objects->seen);
}

// What the cursor stands on, if it is of the hash; what is no record is passed over.
static int current(struct objects *objects, MDB_val *key, MDB_val *value, struct object *out) {
  struct record record;
  struct place place;
  int code = 0;
  while (code == 0) {
    if (key->mv_size != sizeof place || memcmp(key->mv_data, objects->hash, OBJECT_HASH) != 0) return STORE_NONE;
    if (read_record(value, &record)) break;
    code = mdb_cursor_get(objects->cursor, key, value, MDB_PREV);
  }
  if (code) return code == MDB_NOTFOUND ? STORE_NONE : ERROR_SYSTEM;
  memcpy(&place, key->mv_data, sizeof place);
  size_t before = sizeof record + record.names_len;
  const struct use *use = &objects->seen;
  *out = (struct object){
      .id = be64toh(place.id),
      .payload = {(const char *)value->mv_data + before, (uint32_t)(value->mv_size - before)},
      .chunks = record.chunks,
      .cold = use->bytes > objects->bytes_limit / 2 && use->next > record.serial &&
              use->next - record.serial > use->entries / 2 + COLD_SLACK,
  };
  return STORE_OK;
}

int objects_begin(struct objects *objects, const unsigned char *hash, struct object *out) {
  struct place last;
  if (begin_read(objects)) return ERROR_SYSTEM;
  memcpy(objects->hash, hash, OBJECT_HASH);
  memcpy(last.hash, hash, OBJECT_HASH);
  last.id = UINT64_MAX;
  MDB_val key = {sizeof last, &last}, value;
  look_at_use(objects);
  int code = mdb_cursor_renew(objects->reader, objects->cursor);
  if (code == 0) {
    code = mdb_cursor_get(objects->cursor, &key, &value, MDB_SET_RANGE);
    code = mdb_cursor_get(objects->cursor, &key, &value, code == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
  }
  int result = code == 0 ? current(objects, &key, &value, out) : code == MDB_NOTFOUND ? STORE_NONE : ERROR_SYSTEM;
  if (result != STORE_OK) mdb_txn_reset(objects->reader);
  return result;
}

int objects_next(struct objects *objects, struct object *out) {
  MDB_val key, value;
  int code = mdb_cursor_get(objects->cursor, &key, &value, MDB_PREV);
  if (code) return code == MDB_NOTFOUND ? STORE_NONE : ERROR_SYSTEM;
  return current(objects, &key, &value, out);
}

void objects_end(struct objects *objects) {
  mdb_txn_reset(objects->reader);
}

int64_t objects_read(struct objects *objects, uint64_t id, uint32_t index, char *out) {
  struct chunk_key key = {htobe64(id), htobe32(index)};
  MDB_val value;
  if (begin_read(objects)) return -1;
  int code = mdb_get(objects->reader, objects->chunks, VAL(key), &value);
  if (code == 0 && value.mv_size > OBJECT_CHUNK) code = MDB_BAD_VALSIZE;
  if (code == 0) memcpy(out, value.mv_data, value.mv_size);
  mdb_txn_reset(objects->reader);
  return code ? -1 : (int64_t)value.mv_size;
}

void objects_touch(struct objects *objects, const unsigned char *hash, uint64_t id) {
  MDB_txn *txn;
  MDB_val stored;
  struct use use;
  struct record record;
  struct place place = {.id = htobe64(id)};
  memcpy(place.hash, hash, OBJECT_HASH);
  if (begin_write(objects, &txn, &use)) return;
  int code = mdb_get(txn, objects->records, VAL(place), &stored);
  if (code == 0 && !read_record(&stored, &record)) code = MDB_NOTFOUND;
  if (code == 0) {
    uint64_t serial = htobe64(record.serial);
    code = mdb_del(txn, objects->order, VAL(serial), NULL);
  }
  if (code == 0) {
    record.serial = use.next++;
    uint64_t serial = htobe64(record.serial);
    code = mdb_put(txn, objects->order, VAL(serial), VAL(place), 0);
  }
  MDB_val copy = {stored.mv_size, NULL};
  char *whole = code == 0 ? malloc(stored.mv_size) : NULL;
  if (code == 0 && !whole) code = ENOMEM;
  if (code == 0 && (code = mdb_get(txn, objects->records, VAL(place), &stored)) == 0) {
    memcpy(whole, stored.mv_data, stored.mv_size);
    memcpy(whole, &record, sizeof record);
    copy.mv_data = whole;
    code = mdb_put(txn, objects->records, VAL(place), &copy, 0);
  }
  end_write(objects, txn, &use, code);
  free(whole);
}

void objects_use(struct objects *objects, struct objects_use *out) {
  *out = (struct objects_use){.bytes_limit = objects->bytes_limit};
  if (begin_read(objects)) return;
  objects->looks = 0;
  look_at_use(objects);
  mdb_txn_reset(objects->reader);
  out->entries = objects->seen.entries;
  out->bytes_used = objects->seen.bytes;
}
