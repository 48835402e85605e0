// SPDX-License-Identifier: Apache-2.0
// Objects that all workers share and that survive a restart: cached responses, in an LMDB environment of their own. An
// object is a record, found by a hash and told from others of that hash by its number, and a body in chunks that was
// written piece by piece before the record made it visible. Bounded: what was not used for the longest time goes first.
//
// Nothing waits for the disk. After a crash of the machine the files may hold anything, so those of an earlier boot are
// thrown away.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "slice.h"
#include "store.h"

struct objects;

enum { OBJECT_HASH = 16, OBJECT_CHUNK = 60 * 1024, OBJECT_NAME_MAX = 400, OBJECT_PURGE_BATCH = 200 };

struct object {
  uint64_t id;
  struct slice payload; // in the map: until objects_end
  uint32_t chunks;
  bool cold; // many others have been used since: objects_touch
};

// Of one who writes a body; all zero in the beginning.
struct object_writer {
  uint64_t id;
  int64_t lease_us; // until then the chunks are kept although no record has them
  uint64_t bytes, cost;
  uint32_t chunks;
};

struct object_put {
  const unsigned char *hash;
  uint64_t id;                // of the record that this one takes the place of, keeping its body; 0: a new one
  struct object_writer *body; // of a new one; NULL: no chunks
  struct slice head, rest;    // the payload, in two pieces
  const struct slice *names;  // what it can be purged by: a letter for the kind, then up to OBJECT_NAME_MAX bytes
  uint32_t name_count;
  const uint64_t *replaces; // numbers under the same hash that go
  uint32_t replace_count;
};

struct objects_use {
  uint64_t entries, bytes_used, bytes_limit;
};

// Opens (or makes) the objects in `folder`, which is made too. NULL, and why.
struct objects *objects_open(const char *folder, uint64_t bytes, struct error *error);
void objects_close(struct objects *objects);

// The records of a hash, the youngest first. STORE_OK (then objects_end must follow soon: until then no page that is
// given up can be used again), STORE_NONE, or negative.
int objects_begin(struct objects *objects, const unsigned char *hash, struct object *out);
int objects_next(struct objects *objects, struct object *out);
void objects_end(struct objects *objects);
// Copies a chunk of a body to `out`, which has room for OBJECT_CHUNK. Its length; negative: it is gone.
int64_t objects_read(struct objects *objects, uint64_t id, uint32_t index, char *out);
// The object has been used: it is the youngest again.
void objects_touch(struct objects *objects, const unsigned char *hash, uint64_t id);

// The next chunk of a body: all but the last have OBJECT_CHUNK bytes. 0, or negative.
int objects_write(struct objects *objects, struct object_writer *writer, struct slice data, int64_t now_us,
                  struct error *error);
// The body will have no record.
void objects_abandon(struct objects *objects, struct object_writer *writer);
// Makes an object visible. Its number in `*id`. 0, or negative (its chunks are still the writer's).
int objects_put(struct objects *objects, const struct object_put *put, int64_t now_us, uint64_t *id,
                struct error *error);
// Removes the object, or with `id` 0 all of this hash. How many; negative: it failed. Whoever reads one at this moment
// gets its body for some time to come.
int64_t objects_remove(struct objects *objects, const unsigned char *hash, uint64_t id, int64_t now_us);
// Removes those with exactly this name, or with a name that begins so, up to OBJECT_PURGE_BATCH: then call again. How
// many, or negative.
int64_t objects_purge(struct objects *objects, struct slice name, bool prefix, int64_t now_us);

void objects_use(struct objects *objects, struct objects_use *out);
