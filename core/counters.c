// SPDX-License-Identifier: Apache-2.0
// Counters in shared memory, without locks.
//
// A slot is two pairs of words, each changed as one (compare-and-swap of 16 bytes):
//
//   count  { tag, value }     tag: 56 bits of the key's hash and 8 that count the slot's lives
//   end    { tag, time }      speaks for the count only while both tags are equal
//
// One swap of `count` begins a life: of a new key in a free or expired slot, or of the same key anew. From then on the
// old `end` no longer fits, and whoever comes first sets it. A slot whose end does not fit yet holds no adds (they come
// after it), so it may be taken by others: a process that dies between the two swaps leaves nothing behind. An add swaps
// { tag, value } for { tag, value + delta }: it cannot hit another life of the slot, whatever happened in between.
//
// Two processes that miss the same key at the same time may take two slots for it. So each looks again once it has one;
// at least one of them sees both, and pours the later slot (in the order in which all look) into the earlier.
//
// The end of a lease's counter is that of its holder, and stands as the holder's number below 0: a process that is gone
// takes its leases with it. How many are in use is the sum over the holders there are.
//
// Named counters live in a part of the table of their own and never end, so their slots are only ever taken once.
#include "counters.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#if defined(__x86_64__)
#define WIDE_SWAP __attribute__((target("cx16")))
#else
#define WIDE_SWAP
#endif

enum {
  WINDOW = 64, // how many slots a key may lie in
  LIVES = 0xff,
  HOLDERS = 1024,     // at a time
  LEASE_ATTEMPTS = 4, // of one of several who want the last lease
};

union pair {
  struct {
    uint64_t tag;
    int64_t number;
  };
  unsigned __int128 wide;
};

struct slot {
  union pair count, end;
  uint64_t name; // of a named counter: place of its text << 24 | length; 0: none yet
  uint64_t unused[3];
} __attribute__((aligned(64)));

struct shared {
  uint64_t text_used; // counts on past the end when full
  uint64_t refused;
  uint64_t joined;       // holders so far
  uint64_t holders_used; // places up to the last one that was ever used
  uint64_t names;        // that have been given so far
  uint64_t unused[3];
  int64_t holders[HOLDERS]; // numbers of those who are alive; a number modulo HOLDERS is its place. 0: nobody
};

struct counters {
  struct shared *shared;
  struct slot *slots; // first the named ones
  char *text;
  size_t bytes;
  uint32_t named, keyed; // how many slots of each
  uint32_t text_bytes;
  uint64_t secret[2]; // of the hash: nobody outside can look for keys that collide
};

_Static_assert(sizeof(struct slot) == 64, "one cache line a slot");

// ---- Words ----

WIDE_SWAP static bool swap(union pair *at, union pair seen, union pair wanted) {
  return __sync_bool_compare_and_swap(&at->wide, seen.wide, wanted.wide);
}

// The halves may be of two moments; then the swap that follows fails. The tag is read again, so that a number that is
// only looked at belongs to it.
static union pair look(const union pair *at) {
  union pair seen;
  do {
    seen.tag = __atomic_load_n(&at->tag, __ATOMIC_SEQ_CST);
    seen.number = __atomic_load_n(&at->number, __ATOMIC_SEQ_CST);
  } while (seen.tag != __atomic_load_n(&at->tag, __ATOMIC_SEQ_CST));
  return seen;
}

static uint64_t rotate(uint64_t x, int bits) {
  return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4]) {
  v[0] += v[1];
  v[2] += v[3];
  v[1] = rotate(v[1], 13) ^ v[0];
  v[3] = rotate(v[3], 16) ^ v[2];
  v[0] = rotate(v[0], 32);
  v[2] += v[1];
  v[0] += v[3];
  v[1] = rotate(v[1], 17) ^ v[2];
  v[3] = rotate(v[3], 21) ^ v[0];
  v[2] = rotate(v[2], 32);
}

// SipHash-1-3.
uint64_t counters_hash(const struct counters *counters, const char *key, uint32_t len) {
  uint64_t v[4] = {counters->secret[0] ^ 0x736f6d6570736575, counters->secret[1] ^ 0x646f72616e646f6d,
                   counters->secret[0] ^ 0x6c7967656e657261, counters->secret[1] ^ 0x7465646279746573};
  uint64_t word, last = (uint64_t)len << 56;
  uint32_t at = 0;
  for (; at + 8 <= len; at += 8) {
    memcpy(&word, key + at, 8);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
  }
  memcpy(&last, key + at, len - at);
  v[3] ^= last;
  sip_round(v);
  v[0] ^= last;
  v[2] ^= 0xff;
  for (int i = 0; i < 3; i++) sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

// The tag of a key with no lives yet; never 0 in its upper bits, which says "free".
static uint64_t tag_of(uint64_t hash) {
  uint64_t tag = hash & ~(uint64_t)LIVES;
  return tag ? tag : LIVES + 1;
}

static bool is_of(uint64_t tag, uint64_t key_tag) {
  return (tag & ~(uint64_t)LIVES) == key_tag;
}

// The next life of a slot. 0 in all bits means "never used", so a life is never 0.
static uint64_t next_life(uint64_t tag, uint64_t key_tag) {
  uint64_t life = (tag + 1) & LIVES;
  return key_tag | (life ? life : 1);
}

// ---- Looking ----

enum slot_state { SLOT_LIVE, SLOT_ENDED, SLOT_UNSET, SLOT_FREE };

static bool is_held(const struct counters *counters, int64_t holder) {
  return __atomic_load_n(&counters->shared->holders[holder % HOLDERS], __ATOMIC_ACQUIRE) == holder;
}

static bool has_come(const struct counters *counters, int64_t end, int64_t now_us) {
  if (end < 0) return !is_held(counters, -end);
  return end != 0 && now_us >= end;
}

static enum slot_state state_of(const struct counters *counters, const struct slot *slot, union pair count,
                                int64_t now_us, int64_t *end_us) {
  if (is_of(count.tag, 0)) return SLOT_FREE;
  union pair end = look(&slot->end);
  if (end.tag != count.tag) return SLOT_UNSET;
  *end_us = end.number;
  return has_come(counters, end.number, now_us) ? SLOT_ENDED : SLOT_LIVE;
}

struct place {
  struct slot *slot; // of the key, NULL: none
  union pair count;
  enum slot_state state;
  int64_t end_us;
  struct slot *spare; // the best slot to take, NULL: none
  union pair spare_count;
};

// Steps grow, so that keys whose homes are near each other do not crowd: of 196,608 slots some 170,000 are taken when the
// first key finds no room; with steps of one, some 120,000. A small table is searched one by one, for growing steps might
// come to a slot twice.
static struct slot *slot_at(const struct counters *counters, uint64_t hash, uint32_t step) {
  uint32_t offset = counters->keyed > WINDOW * (WINDOW + 1) / 2 ? step * (step + 1) / 2 : step;
  return &counters->slots[counters->named + ((uint32_t)(hash >> 32) + offset) % counters->keyed];
}

static uint32_t window(const struct counters *counters) {
  return counters->keyed < WINDOW ? counters->keyed : WINDOW;
}

static void consider_spare(struct place *place, struct slot *slot, union pair count, enum slot_state state) {
  // One that is only half made is somebody's who lives, most likely: the last choice.
  if (state == SLOT_LIVE || (state == SLOT_UNSET && place->spare)) return;
  if (place->spare && !(place->state == SLOT_UNSET && state != SLOT_UNSET)) return;
  place->spare = slot;
  place->spare_count = count;
  place->state = state;
}

static struct place find(const struct counters *counters, uint64_t hash, int64_t now_us) {
  struct place place = {0};
  uint64_t tag = tag_of(hash);
  for (uint32_t step = 0; step < window(counters); step++) {
    struct slot *slot = slot_at(counters, hash, step);
    union pair count = look(&slot->count);
    int64_t end_us = 0;
    enum slot_state state = state_of(counters, slot, count, now_us, &end_us);
    if (is_of(count.tag, tag)) {
      place.slot = slot;
      place.count = count;
      place.state = state;
      place.end_us = end_us;
      return place;
    }
    consider_spare(&place, slot, count, state);
    if (count.tag == 0) break; // never used: the key lies nowhere behind it
  }
  return place;
}

// Looks for a second slot of the key behind the first, and pours it out. What it held is returned.
static int64_t pour_doubles(const struct counters *counters, uint64_t hash, int64_t now_us) {
  struct slot *first = NULL;
  uint64_t tag = tag_of(hash);
  int64_t poured = 0;
  for (uint32_t step = 0; step < window(counters); step++) {
    struct slot *slot = slot_at(counters, hash, step);
    union pair count = look(&slot->count);
    if (count.tag == 0) break;
    if (!is_of(count.tag, tag)) continue;
    if (!first) {
      first = slot;
      continue;
    }
    int64_t end_us;
    enum slot_state state = state_of(counters, slot, count, now_us, &end_us);
    union pair free_pair = {.tag = next_life(count.tag, 0), .number = 0};
    if (!swap(&slot->count, count, free_pair))
      step--; // it has changed: look at it again
    else if (state == SLOT_LIVE)
      poured += count.number;
  }
  return poured;
}

// Takes a slot for a key that has none.
static bool take(const struct place *place, uint64_t hash) {
  union pair wanted = {.tag = next_life(place->spare_count.tag, tag_of(hash)), .number = 0};
  return swap(&place->spare->count, place->spare_count, wanted);
}

static int64_t end_after(int64_t ttl_us, int64_t now_us) {
  return ttl_us ? now_us + ttl_us : 0;
}

static void set_end(struct slot *slot, uint64_t tag, int64_t end_us) {
  union pair end = look(&slot->end), wanted = {.tag = tag, .number = end_us};
  // Nothing is lost when it fails: somebody else has set it for this life, or the life is over.
  if (end.tag != tag) swap(&slot->end, end, wanted);
}

// ---- Changing ----

static void refuse(struct counters *counters) {
  __atomic_fetch_add(&counters->shared->refused, 1, __ATOMIC_RELAXED);
}

struct begun {
  bool life;      // we have begun a life of the key
  int64_t poured; // what doubles of its slot held
};

// Brings the key one step nearer to a living slot. False when there is no room.
static bool advance(struct counters *counters, struct place *place, uint64_t hash, int64_t end_us, int64_t now_us,
                    struct begun *begun) {
  if (!place->slot) {
    if (!place->spare) return false;
    if (take(place, hash)) {
      begun->life = true;
      begun->poured += pour_doubles(counters, hash, now_us);
    }
  } else if (place->state == SLOT_UNSET) {
    set_end(place->slot, place->count.tag, end_us);
  } else {
    union pair anew = {.tag = next_life(place->count.tag, tag_of(hash)), .number = 0};
    begun->life |= swap(&place->slot->count, place->count, anew);
  }
  return true;
}

static int64_t add_at(struct counters *counters, uint64_t hash, int64_t delta, int64_t end_us, int64_t now_us,
                      int *status) {
  struct begun begun = {0};
  for (;;) {
    struct place place = find(counters, hash, now_us);
    if (place.slot && place.state == SLOT_LIVE) {
      union pair wanted = {.tag = place.count.tag,
                           .number =
                               (int64_t)((uint64_t)place.count.number + (uint64_t)delta + (uint64_t)begun.poured)};
      *status = begun.life ? COUNTERS_NEW : COUNTERS_OK;
      if (swap(&place.slot->count, place.count, wanted)) return wanted.number;
      continue;
    }
    if (advance(counters, &place, hash, end_us, now_us, &begun)) continue;
    refuse(counters);
    *status = COUNTERS_FULL;
    return 0;
  }
}

int64_t counters_add(struct counters *counters, const char *key, uint32_t len, int64_t delta, int64_t ttl_us,
                     int64_t now_us, int *status) {
  return add_at(counters, counters_hash(counters, key, len), delta, end_after(ttl_us, now_us), now_us, status);
}

int64_t counters_get(struct counters *counters, const char *key, uint32_t len, int64_t now_us, int64_t *expires_us,
                     int *status) {
  struct place place = find(counters, counters_hash(counters, key, len), now_us);
  bool lives = place.slot && place.state == SLOT_LIVE;
  *status = lives ? COUNTERS_OK : COUNTERS_NONE;
  if (expires_us) *expires_us = lives ? place.end_us : 0;
  return lives ? place.count.number : 0;
}

int counters_set(struct counters *counters, const char *key, uint32_t len, int64_t value, int64_t ttl_us,
                 int64_t now_us) {
  uint64_t hash = counters_hash(counters, key, len);
  struct begun begun = {0};
  for (;;) {
    struct place place = find(counters, hash, now_us);
    if (!place.slot) {
      if (advance(counters, &place, hash, end_after(ttl_us, now_us), now_us, &begun)) continue;
      refuse(counters);
      return COUNTERS_FULL;
    }
    // A new life that begins with the value, so that the end is set anew with it.
    union pair anew = {.tag = next_life(place.count.tag, tag_of(hash)), .number = value};
    if (!swap(&place.slot->count, place.count, anew)) continue;
    set_end(place.slot, anew.tag, end_after(ttl_us, now_us));
    if (look(&place.slot->count).tag == anew.tag) return COUNTERS_OK; // nobody took it before it had its end
  }
}

int counters_compare_set(struct counters *counters, const char *key, uint32_t len, int64_t expected, int64_t value,
                         int64_t now_us, int64_t *found) {
  uint64_t hash = counters_hash(counters, key, len);
  for (;;) {
    struct place place = find(counters, hash, now_us);
    if (!place.slot || place.state != SLOT_LIVE) return COUNTERS_NONE;
    *found = place.count.number;
    if (*found != expected) return COUNTERS_DIFFERS;
    union pair wanted = {.tag = place.count.tag, .number = value};
    if (swap(&place.slot->count, place.count, wanted)) return COUNTERS_OK;
  }
}

static int delete_at(struct counters *counters, uint64_t hash, int64_t now_us) {
  for (;;) {
    struct place place = find(counters, hash, now_us);
    if (!place.slot || place.state != SLOT_LIVE) return COUNTERS_NONE;
    union pair free_pair = {.tag = next_life(place.count.tag, 0), .number = 0};
    if (swap(&place.slot->count, place.count, free_pair)) return COUNTERS_OK;
  }
}

int counters_delete(struct counters *counters, const char *key, uint32_t len, int64_t now_us) {
  return delete_at(counters, counters_hash(counters, key, len), now_us);
}

// ---- Leases ----

// Each holder counts its own under a hash of its own, so that nobody else writes there.
static uint64_t hash_of_holder(uint64_t hash, int64_t holder) {
  uint64_t mixed = hash + (uint64_t)holder * 0x9e3779b97f4a7c15;
  mixed = (mixed ^ mixed >> 33) * 0xff51afd7ed558ccd;
  mixed = (mixed ^ mixed >> 33) * 0xc4ceb9fe1a85ec53;
  return mixed ^ mixed >> 33;
}

// The master alone joins and leaves.
int64_t counters_join(struct counters *counters) {
  struct shared *shared = counters->shared;
  for (int i = 0; i < HOLDERS; i++) {
    int64_t holder = (int64_t)++shared->joined;
    uint64_t place = (uint64_t)holder % HOLDERS;
    if (shared->holders[place]) continue;
    if (place >= shared->holders_used) __atomic_store_n(&shared->holders_used, place + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&shared->holders[place], holder, __ATOMIC_RELEASE);
    return holder;
  }
  return 0;
}

void counters_leave(struct counters *counters, int64_t holder) {
  if (is_held(counters, holder)) __atomic_store_n(&counters->shared->holders[holder % HOLDERS], 0, __ATOMIC_RELEASE);
}

static int64_t held_by(const struct counters *counters, uint64_t hash, int64_t holder, int64_t now_us) {
  struct place place = find(counters, hash_of_holder(hash, holder), now_us);
  return place.slot && place.state == SLOT_LIVE ? place.count.number : 0;
}

static int64_t held_by_all(const struct counters *counters, uint64_t hash, int64_t now_us) {
  int64_t sum = 0;
  uint64_t places = __atomic_load_n(&counters->shared->holders_used, __ATOMIC_ACQUIRE);
  for (uint64_t i = 0; i < places; i++) {
    int64_t holder = __atomic_load_n(&counters->shared->holders[i], __ATOMIC_ACQUIRE);
    if (holder) sum += held_by(counters, hash, holder, now_us);
  }
  return sum;
}

void counters_release(struct counters *counters, int64_t holder, uint64_t lease, int64_t now_us) {
  uint64_t hash = hash_of_holder(lease, holder);
  int status;
  // Only this process writes there, so nothing comes between the two.
  if (add_at(counters, hash, -1, -holder, now_us, &status) <= 0) delete_at(counters, hash, now_us);
}

// Counts itself first and looks then: so two who want the last one see each other. Both step back, and look whether
// the other has.
int counters_lease(struct counters *counters, int64_t holder, const char *key, uint32_t len, int64_t most,
                   int64_t now_us, uint64_t *lease, int64_t *held) {
  int status;
  *lease = counters_hash(counters, key, len);
  for (int i = 0; i < LEASE_ATTEMPTS; i++) {
    add_at(counters, hash_of_holder(*lease, holder), 1, -holder, now_us, &status);
    if (status == COUNTERS_FULL) return COUNTERS_FULL;
    *held = held_by_all(counters, *lease, now_us);
    if (*held <= most) return COUNTERS_OK;
    counters_release(counters, holder, *lease, now_us);
    *held = held_by_all(counters, *lease, now_us);
    if (*held >= most) break;
  }
  return COUNTERS_TAKEN;
}

int64_t counters_leased(struct counters *counters, const char *key, uint32_t len, int64_t now_us) {
  return held_by_all(counters, counters_hash(counters, key, len), now_us);
}

// ---- Named counters ----

static struct slot *named_at(const struct counters *counters, uint64_t hash, uint32_t step) {
  return &counters->slots[((uint32_t)(hash >> 32) + step) % counters->named];
}

// The slot of a name: its own, or the first that was never used. A name is only ever put there, so two processes that
// miss it want the same slot, and one of them gets it.
static struct slot *named_take(struct counters *counters, uint64_t hash) {
  uint64_t tag = tag_of(hash);
  for (uint32_t step = 0; step < counters->named; step++) {
    struct slot *slot = named_at(counters, hash, step);
    union pair count = look(&slot->count), wanted = {.tag = tag, .number = 0};
    if (count.tag == 0 && swap(&slot->count, count, wanted)) return slot;
    if (look(&slot->count).tag == tag) return slot;
  }
  return NULL;
}

// Copies the text and publishes it in the slot; a process that dies before has wasted its bytes.
static bool put_name(struct counters *counters, struct slot *slot, const char *key, uint32_t len) {
  uint64_t none = 0;
  if (__atomic_load_n(&slot->name, __ATOMIC_ACQUIRE)) return true;
  uint64_t at = __atomic_fetch_add(&counters->shared->text_used, len, __ATOMIC_RELAXED);
  if (at + len > counters->text_bytes) return false;
  memcpy(counters->text + at, key, len);
  uint64_t name = at << 24 | len;
  __atomic_compare_exchange_n(&slot->name, &none, name, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
  __atomic_fetch_add(&counters->shared->names, 1, __ATOMIC_RELEASE); // now that it can be seen
  return true;
}

uint64_t counters_names(const struct counters *counters) {
  return __atomic_load_n(&counters->shared->names, __ATOMIC_ACQUIRE);
}

static bool has_text_room(const struct counters *counters, uint32_t len) {
  return __atomic_load_n(&counters->shared->text_used, __ATOMIC_RELAXED) + len <= counters->text_bytes;
}

static struct slot *named_find(const struct counters *counters, uint64_t hash) {
  uint64_t tag = tag_of(hash);
  for (uint32_t step = 0; step < counters->named; step++) {
    struct slot *slot = named_at(counters, hash, step);
    uint64_t there = look(&slot->count).tag;
    if (there == tag) return slot;
    if (there == 0) return NULL;
  }
  return NULL;
}

int64_t counters_name(struct counters *counters, const char *key, uint32_t len) {
  uint64_t hash = counters_hash(counters, key, len);
  struct slot *slot = named_find(counters, hash);
  if (!slot && len > 0 && len < 1 << 24 && has_text_room(counters, len)) slot = named_take(counters, hash);
  if (slot && put_name(counters, slot, key, len)) return slot - counters->slots + 1;
  refuse(counters);
  return COUNTERS_FULL;
}

bool counters_is_handle(const struct counters *counters, int64_t handle) {
  return handle > 0 && handle <= counters->named;
}

// The tag of a named slot never changes, so one word is enough.
int64_t counters_add_at(struct counters *counters, int64_t handle, int64_t delta) {
  assert(counters_is_handle(counters, handle));
  return __atomic_add_fetch(&counters->slots[handle - 1].count.number, delta, __ATOMIC_RELAXED);
}

int64_t counters_at(struct counters *counters, int64_t handle) {
  assert(counters_is_handle(counters, handle));
  return __atomic_load_n(&counters->slots[handle - 1].count.number, __ATOMIC_RELAXED);
}

bool counters_swap_at(struct counters *counters, int64_t handle, int64_t expected, int64_t value) {
  assert(counters_is_handle(counters, handle));
  return __atomic_compare_exchange_n(&counters->slots[handle - 1].count.number, &expected, value, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

int counters_next(struct counters *counters, const char *prefix, uint32_t prefix_len, uint32_t most, uint64_t *cursor,
                  const char **key, uint32_t *len, int64_t *value) {
  for (; *cursor < counters->named; most--) {
    if (most == 0) return COUNTERS_MORE;
    const struct slot *slot = &counters->slots[(*cursor)++];
    uint64_t name = __atomic_load_n(&slot->name, __ATOMIC_ACQUIRE);
    *key = counters->text + (name >> 24);
    *len = (uint32_t)(name & 0xffffff);
    if (*len < prefix_len || *len == 0 || memcmp(*key, prefix, prefix_len) != 0) continue;
    *value = __atomic_load_n(&slot->count.number, __ATOMIC_RELAXED);
    return COUNTERS_OK;
  }
  return COUNTERS_NONE;
}

// ---- The table ----

bool counters_use_some(struct counters *counters, int64_t now_us, uint32_t *at, uint32_t most,
                       struct counters_use *out) {
  uint32_t slots = counters->named + counters->keyed;
  if (*at == 0) {
    uint64_t text_used = __atomic_load_n(&counters->shared->text_used, __ATOMIC_RELAXED);
    *out = (struct counters_use){.slots = slots,
                                 .text_bytes = counters->text_bytes,
                                 .text_used = text_used < counters->text_bytes ? text_used : counters->text_bytes,
                                 .refused = __atomic_load_n(&counters->shared->refused, __ATOMIC_RELAXED)};
  }
  for (; *at < slots && most > 0; ++*at, most--) {
    const struct slot *slot = &counters->slots[*at];
    if (*at < counters->named) {
      out->named += slot->name != 0;
      out->used += slot->name != 0;
      continue;
    }
    int64_t end_us;
    union pair count = look(&counters->slots[*at].count);
    out->used += state_of(counters, &counters->slots[*at], count, now_us, &end_us) == SLOT_LIVE;
  }
  return *at < slots;
}

void counters_use(struct counters *counters, int64_t now_us, struct counters_use *out) {
  uint32_t at = 0;
  while (counters_use_some(counters, now_us, &at, UINT32_MAX, out)) {
  }
}

static uint32_t power_of_two(uint32_t at_least) {
  uint32_t n = 1;
  while (n < at_least) n *= 2;
  return n;
}

struct counters *counters_new(uint32_t slots, uint32_t text_bytes, struct error *error) {
  struct counters *counters = calloc(1, sizeof *counters);
  if (slots < 16 || slots > 1u << 28 || !counters) {
    free(counters);
    error_set(error, ERROR_INVALID, "counters: no table of %u slots", slots);
    return NULL;
  }
  slots = power_of_two(slots);
  *counters = (struct counters){.named = slots / 4, .keyed = slots - slots / 4, .text_bytes = text_bytes};
  counters->bytes = sizeof(struct shared) + (size_t)slots * sizeof(struct slot) + text_bytes;
  void *memory = mmap(NULL, counters->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || getrandom(counters->secret, sizeof counters->secret, 0) != sizeof counters->secret) {
    error_system(error, "shared memory for counters");
    free(counters);
    return NULL;
  }
  counters->shared = memory;
  counters->slots = (struct slot *)(void *)((char *)memory + sizeof(struct shared));
  counters->text = (char *)(counters->slots + slots);
  return counters;
}

void counters_free(struct counters *counters) {
  munmap(counters->shared, counters->bytes);
  free(counters);
}
