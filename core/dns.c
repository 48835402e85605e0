// SPDX-License-Identifier: Apache-2.0
// The cache of answers and those who wait for them.
#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "dns_parts.h"

// ---- Entries: a hash table, and a list by last use ----

static uint64_t hash_key(const char *name, uint32_t len, uint8_t kind) {
  uint64_t hash = 14695981039346656037u ^ kind;
  for (uint32_t i = 0; i < len; i++) hash = (hash ^ (uint8_t)name[i]) * 1099511628211u;
  return hash ^ hash >> 29;
}

static struct dns_entry **bucket_of(struct dns *dns, uint64_t hash) {
  return &dns->buckets[hash & (dns->bucket_count - 1)];
}

static void use_unlink(struct dns_entry *entry) {
  struct dns *dns = entry->dns;
  if (entry->newer)
    entry->newer->older = entry->older;
  else
    dns->newest = entry->older;
  if (entry->older)
    entry->older->newer = entry->newer;
  else
    dns->oldest = entry->newer;
}

static void use_front(struct dns_entry *entry) {
  struct dns *dns = entry->dns;
  entry->newer = NULL;
  entry->older = dns->newest;
  if (dns->newest) dns->newest->newer = entry;
  dns->newest = entry;
  if (!dns->oldest) dns->oldest = entry;
}

static void entry_free(struct dns_entry *entry) {
  struct dns *dns = entry->dns;
  struct dns_entry **at = bucket_of(dns, entry->hash);
  while (*at != entry) at = &(*at)->chain;
  *at = entry->chain;
  use_unlink(entry);
  dns->counts.names--;
  timer_cancel(&dns->loop->timers, &entry->patience);
  dns_forget_targets(entry);
  free(entry->addresses);
  free(entry->name);
  free(entry);
}

static bool is_busy(const struct dns_entry *entry) {
  return entry->in_flight || entry->done || entry->telling || entry->waiting;
}

// Room for one more: the one that was used longest ago goes, unless somebody waits for it.
static bool make_room(struct dns *dns) {
  if (dns->counts.names < dns->options.max_names) return true;
  struct dns_entry *entry = dns->oldest;
  while (entry && is_busy(entry)) entry = entry->newer;
  if (!entry) return false;
  entry_free(entry);
  return true;
}

static void tell_entry(struct dns_entry *entry);

// Whoever waits takes the last good answer; the search goes on for those who come later.
static void on_patience(struct timer *timer) {
  struct dns_entry *entry = (struct dns_entry *)(void *)((char *)timer - offsetof(struct dns_entry, patience));
  tell_entry(entry);
}

static struct dns_entry *entry_new(struct dns *dns, const char *name, uint32_t len, uint8_t kind, uint64_t hash) {
  if (!make_room(dns)) return NULL;
  struct dns_entry *entry = calloc(1, sizeof *entry);
  char *text = strndup(name, len);
  if (!entry || !text) {
    free(entry);
    free(text);
    return NULL;
  }
  *entry = (struct dns_entry){.dns = dns, .name = text, .name_len = len, .kind = kind, .hash = hash};
  timer_init(&entry->patience, on_patience);
  struct dns_entry **bucket = bucket_of(dns, hash);
  entry->chain = *bucket;
  *bucket = entry;
  use_front(entry);
  dns->counts.names++;
  return entry;
}

static struct dns_entry *entry_find(struct dns *dns, const char *name, uint32_t len, uint8_t kind) {
  uint64_t hash = hash_key(name, len, kind);
  for (struct dns_entry *entry = *bucket_of(dns, hash); entry; entry = entry->chain) {
    if (entry->hash != hash || entry->kind != kind || entry->name_len != len || memcmp(entry->name, name, len) != 0)
      continue;
    if (dns->newest != entry) {
      use_unlink(entry);
      use_front(entry);
    }
    return entry;
  }
  return entry_new(dns, name, len, kind, hash);
}

// ---- Those who wait ----

static void query_link(struct dns_query *query, struct dns_entry *entry) {
  query->entry = entry;
  query->previous = NULL;
  query->next = entry->waiting;
  if (entry->waiting) entry->waiting->previous = query;
  entry->waiting = query;
}

static void query_unlink(struct dns_query *query) {
  struct dns_entry *entry = query->entry;
  if (query->previous)
    query->previous->next = query->next;
  else if (entry->waiting == query)
    entry->waiting = query->next;
  else
    entry->told = query->next;
  if (query->next) query->next->previous = query->previous;
  query->entry = NULL;
  query->previous = query->next = NULL;
}

static void query_fail(struct dns_query *query, const char *name, const char *why) {
  query->addresses = NULL;
  query->count = 0;
  query->ttl_s = 0;
  query->stale = false;
  error_set(&query->error, ERROR_DNS, "%s cannot be resolved: %s", name, why);
}

static bool has_stale(const struct dns_entry *entry) {
  return entry->count > 0 && entry->dns->loop->clock.mono_us < entry->stale_us;
}

static void query_fill(struct dns_query *query, struct dns_entry *entry) {
  int64_t now = entry->dns->loop->clock.mono_us;
  if (!has_stale(entry)) {
    query_fail(query, entry->name, ares_strerror(entry->status));
    return;
  }
  query->addresses = entry->addresses;
  query->count = entry->count;
  query->stale = now > entry->fresh_us;
  query->ttl_s = query->stale ? 0 : (double)(entry->fresh_us - now) / 1e6;
  query->error.code = ERROR_NONE;
  query->error.text[0] = 0;
  if (query->stale) entry->dns->counts.stale++;
}

// A query that begins to wait meanwhile, from inside an on_done, is not told: hence the second list.
static void tell_entry(struct dns_entry *entry) {
  if (entry->telling) return; // further up the stack
  entry->telling = true;      // and so it is not evicted by what they do
  entry->told = entry->waiting;
  entry->waiting = NULL;
  while (entry->told) {
    struct dns_query *query = entry->told;
    query_unlink(query);
    query_fill(query, entry);
    query->on_done(query);
  }
  entry->telling = false;
}

void dns_tell(struct dns *dns) {
  while (dns->done) {
    struct dns_entry *entry = dns->done;
    dns->done = entry->done_next;
    entry->done = false;
    tell_entry(entry);
  }
}

static int64_t hold_us(const struct dns *dns, double ttl_s) {
  double most = dns->options.max_ttl_s, least = dns->options.min_ttl_s;
  return (int64_t)((ttl_s > most ? most : ttl_s < least ? least : ttl_s) * 1e6);
}

static void take_good(struct dns_entry *entry, struct dns_address *addresses, uint32_t count, int64_t hold) {
  free(entry->addresses);
  entry->addresses = addresses;
  entry->count = count;
  entry->status = ARES_SUCCESS;
  entry->failing = false;
  entry->fresh_us = entry->dns->loop->clock.mono_us + hold;
  // At least a moment, so that an answer with a TTL of 0 can be told to those who waited for it.
  entry->stale_us = entry->fresh_us + (int64_t)entry->dns->options.stale_s * 1000000 + 1;
}

static void take_bad(struct dns_entry *entry, int status) {
  struct dns *dns = entry->dns;
  int64_t now = dns->loop->clock.mono_us;
  bool denied = status == ARES_ENOTFOUND || status == ARES_ENODATA;
  dns->counts.failures++;
  entry->status = status;
  entry->failing = !denied;
  if (!denied && has_stale(entry)) {
    entry->retry_us = now + DNS_RETRY_US;
    return;
  }
  free(entry->addresses);
  entry->addresses = NULL;
  entry->count = 0;
  entry->fresh_us = now + (int64_t)dns->options.negative_s * 1000000;
}

void dns_complete(struct dns_entry *entry, int status, struct dns_address *addresses, uint32_t count, double ttl_s) {
  struct dns *dns = entry->dns;
  assert(entry->in_flight);
  entry->in_flight = false;
  timer_cancel(&dns->loop->timers, &entry->patience);
  if (status == ARES_SUCCESS)
    take_good(entry, addresses, count, hold_us(dns, ttl_s));
  else
    take_bad(entry, status);
  if (entry->done || !entry->waiting) return;
  entry->done = true;
  entry->done_next = dns->done;
  dns->done = entry;
}

// ---- What others call ----

static bool lower_name(struct slice name, char out[DNS_NAME_MAX + 1]) {
  if (name.len > 1 && name.data[0] == '[' && name.data[name.len - 1] == ']')
    name = (struct slice){name.data + 1, name.len - 2};
  if (name.len == 0 || name.len > DNS_NAME_MAX) return false;
  for (uint32_t i = 0; i < name.len; i++) {
    if ((uint8_t)name.data[i] <= ' ' || name.data[i] == 127) return false;
    out[i] = ascii_lower(name.data[i]);
  }
  out[name.len] = 0;
  return true;
}

static int answer_literal(struct dns *dns, enum dns_kind kind, struct dns_query *query, const char *name) {
  bool fits = kind == DNS_ADDRESS || (kind == DNS_A && dns->literal.family == 4) ||
              (kind == DNS_AAAA && dns->literal.family == 6);
  if (!fits) {
    query_fail(query, name, "it is an address");
    return DNS_READY;
  }
  query->addresses = &dns->literal;
  query->count = 1;
  query->ttl_s = dns->options.max_ttl_s;
  query->stale = false;
  query->error.code = ERROR_NONE;
  return DNS_READY;
}

static int answer_from(struct dns_entry *entry, struct dns_query *query) {
  query_fill(query, entry);
  return DNS_READY;
}

static int resolve_entry(struct dns_entry *entry, struct dns_query *query) {
  struct dns *dns = entry->dns;
  int64_t now = dns->loop->clock.mono_us;
  if (now < entry->fresh_us) {
    dns->counts.hits++;
    return answer_from(entry, query);
  }
  if (!entry->in_flight && (now >= entry->retry_us || !has_stale(entry))) {
    entry->in_flight = true;
    entry->asked_v6 = false;
    dns_ask(entry);
    if (!entry->in_flight) return answer_from(entry, query);
  }
  if (entry->failing && has_stale(entry)) return answer_from(entry, query);
  if (has_stale(entry) && entry->patience.slot < 0)
    timer_set(&dns->loop->timers, &entry->patience, now + DNS_PATIENCE_US);
  query_link(query, entry);
  return DNS_WAITING;
}

int dns_resolve(struct dns *dns, struct slice name, enum dns_kind kind, struct dns_query *query) {
  char lower[DNS_NAME_MAX + 1];
  query->entry = NULL;
  dns->counts.asked++;
  if (!lower_name(name, lower)) {
    query_fail(query, "a name that is none", "bad name");
    return DNS_READY;
  }
  if (dns_parse_literal(lower, &dns->literal)) return answer_literal(dns, kind, query, lower);
  struct dns_entry *entry = entry_find(dns, lower, (uint32_t)strlen(lower), (uint8_t)kind);
  if (!entry) {
    query_fail(query, lower, "too many names at once");
    return DNS_READY;
  }
  return resolve_entry(entry, query);
}

void dns_cancel(struct dns *dns, struct dns_query *query) {
  (void)dns;
  if (query->entry) query_unlink(query);
}

int dns_keep(struct dns *dns, const struct dns_query *query) {
  struct dns_address *kept = query->count ? malloc(query->count * sizeof *kept) : NULL;
  if (query->count && !kept) return ERROR_MEMORY;
  if (kept) memcpy(kept, query->addresses, query->count * sizeof *kept);
  free(dns->kept);
  dns->kept = kept;
  dns->kept_count = query->count;
  dns->kept_ttl_s = query->ttl_s;
  return 0;
}

const struct dns_address *dns_kept(const struct dns *dns, uint32_t *count, double *ttl_s) {
  *count = dns->kept_count;
  *ttl_s = dns->kept_ttl_s;
  return dns->kept;
}

static int fake_one(struct dns *dns, const char *name, uint8_t kind, const struct dns_address *addresses,
                    uint32_t count, double ttl_s) {
  struct dns_entry *entry = entry_find(dns, name, (uint32_t)strlen(name), kind);
  struct dns_address *kept = malloc((count + 1) * sizeof *kept);
  uint32_t used = 0;
  if (!entry || !kept) {
    free(kept);
    return ERROR_MEMORY;
  }
  uint8_t family = kind == DNS_A ? 4 : kind == DNS_AAAA ? 6 : 0;
  for (uint32_t i = 0; i < count; i++)
    if (family == 0 || addresses[i].family == family) kept[used++] = addresses[i];
  take_good(entry, kept, used, (int64_t)(ttl_s * 1e6));
  if (used == 0) entry->status = ARES_ENOTFOUND;
  return 0;
}

int dns_fake(struct dns *dns, struct slice name, enum dns_kind kind, const struct dns_address *addresses,
             uint32_t count, double ttl_s) {
  char lower[DNS_NAME_MAX + 1];
  if (!lower_name(name, lower)) return ERROR_INVALID;
  if (kind != DNS_ADDRESS) return fake_one(dns, lower, (uint8_t)kind, addresses, count, ttl_s);
  int result = fake_one(dns, lower, DNS_ADDRESS, addresses, count, ttl_s);
  if (result == 0) result = fake_one(dns, lower, DNS_A, addresses, count, ttl_s);
  return result == 0 ? fake_one(dns, lower, DNS_AAAA, addresses, count, ttl_s) : result;
}

void dns_offline(struct dns *dns, bool offline) {
  dns->offline = offline;
}

void dns_answer_with(struct dns *dns,
                     int (*answer)(void *context, const char *name, enum dns_kind kind, struct dns_address *out),
                     void *context) {
  dns->answer = answer;
  dns->answer_context = context;
}

void dns_flush(struct dns *dns) {
  for (struct dns_entry *entry = dns->oldest, *next; entry; entry = next) {
    next = entry->newer;
    if (!is_busy(entry)) {
      entry_free(entry);
      continue;
    }
    entry->count = 0;
    entry->fresh_us = entry->retry_us = 0;
  }
}

void dns_counts(const struct dns *dns, struct dns_counts *out) {
  *out = dns->counts;
}

static uint32_t or_default(uint32_t given, uint32_t fallback) {
  return given ? given : fallback;
}

static void set_options(struct dns *dns, const struct dns_options *options) {
  dns->options = (struct dns_options){.timeout_ms = or_default(options->timeout_ms, 2000),
                                      .tries = or_default(options->tries, 3),
                                      .stale_s = or_default(options->stale_s, 3600),
                                      .negative_s = or_default(options->negative_s, 1),
                                      .min_ttl_s = options->min_ttl_s,
                                      .max_ttl_s = or_default(options->max_ttl_s, 86400),
                                      .max_names = or_default(options->max_names, 10000)};
  dns->bucket_count = 64;
  while (dns->bucket_count < dns->options.max_names && dns->bucket_count < 65536) dns->bucket_count *= 2;
}

struct dns *dns_new(struct loop *loop, const struct dns_options *options, struct error *error) {
  struct dns *dns = calloc(1, sizeof *dns);
  if (dns) {
    dns->loop = loop;
    set_options(dns, options);
    dns->buckets = calloc(dns->bucket_count, sizeof *dns->buckets);
  }
  if (!dns || !dns->buckets) {
    free(dns);
    error_set(error, ERROR_MEMORY, "no memory for DNS");
    return NULL;
  }
  if (dns_ask_open(dns, options, error) == 0) return dns;
  dns_free(dns);
  return NULL;
}

void dns_free(struct dns *dns) {
  dns->closing = true;
  dns_ask_close(dns);
  for (struct dns_entry *entry = dns->oldest; entry; entry = entry->newer) dns_forget_targets(entry);
  while (dns->oldest) entry_free(dns->oldest);
  free(dns->buckets);
  free(dns->kept);
  free(dns);
}
