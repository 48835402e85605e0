// SPDX-License-Identifier: Apache-2.0
// Keys, and the form in which a response is stored:
//
//   entry | fields of the response | fields of the request that Vary names | texts of them all | content, if short
//
// All of it may come from another version of the program, or be spoilt: a length that does not fit is a miss.
#include "cache.h"

#include <stdlib.h>

#include "exchange.h"
#include "forward.h"
#include "worker.h"

enum {
  FORMAT = 0x534c4301 + FIELD_ID_COUNT,
  KEY_MOST = 16384,
  ARGUMENTS_MOST = 128,
  VARIANTS_MOST = 64,
  ADDED = 8,
  FIELDS_MOST = 100000
};

struct span {
  uint32_t at, len;
};

struct stored_field {
  struct span name, value;
  uint32_t hash;
  uint8_t id, absent, unused[2];
};

struct entry {
  uint32_t format, head_len; // of all but the content
  struct stored stored;
  struct span key, url, reason, tags;
  uint32_t field_count, vary_count;
};

// ---- Hash: SipHash-1-3 with 128 bits; keys are compared whole, so that nobody gains by finding two that are alike ------

static uint64_t rotate(uint64_t word, int bits) {
  return word << bits | word >> (64 - bits);
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

void cache_hash(struct slice text, unsigned char hash[OBJECT_HASH]) {
  uint64_t v[4] = {0x736f6d6570736575, 0x646f72616e646f6d ^ 0xee, 0x6c7967656e657261, 0x7465646279746573};
  uint64_t word, last = (uint64_t)text.len << 56;
  uint32_t at = 0;
  for (; at + 8 <= text.len; at += 8) {
    memcpy(&word, text.data + at, 8);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
  }
  memcpy(&last, text.data + at, text.len - at);
  v[3] ^= last;
  sip_round(v);
  v[0] ^= last;
  v[2] ^= 0xee;
  for (int i = 0; i < 3; i++) sip_round(v);
  uint64_t first = v[0] ^ v[1] ^ v[2] ^ v[3];
  v[1] ^= 0xdd;
  for (int i = 0; i < 3; i++) sip_round(v);
  uint64_t second = v[0] ^ v[1] ^ v[2] ^ v[3];
  memcpy(hash, &first, 8);
  memcpy(hash + 8, &second, 8);
}

void cache_hex(const unsigned char hash[OBJECT_HASH], char out[CACHE_KEY_HEX]) {
  static const char digits[] = "0123456789abcdef";
  for (int i = 0; i < OBJECT_HASH; i++) {
    out[2 * i] = digits[hash[i] >> 4];
    out[2 * i + 1] = digits[hash[i] & 15];
  }
}

// ---- Keys ------------------------------------------------------------------------------------------------------------

struct key {
  char text[KEY_MOST];
  uint32_t len;
  bool full;
};

static void put(struct key *key, struct slice text) {
  if (text.len >= KEY_MOST - key->len) {
    key->full = true;
    return;
  }
  if (text.len) memcpy(key->text + key->len, text.data, text.len);
  key->len += text.len;
}

static void put_zero(struct key *key) {
  put(key, (struct slice){"", 1});
}

static struct slice of(struct bytes bytes) {
  return (struct slice){bytes.data, bytes.len};
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = ascii_lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Whether a name in a query is this one, however it is written.
static bool is_argument(struct slice name, struct slice wanted) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < name.len; i++, at++) {
    char c = name.data[i] == '+' ? ' ' : name.data[i];
    if (c == '%' && i + 2 < name.len && hex_digit(name.data[i + 1]) >= 0 && hex_digit(name.data[i + 2]) >= 0) {
      c = (char)(hex_digit(name.data[i + 1]) << 4 | hex_digit(name.data[i + 2]));
      i += 2;
    }
    if (at >= wanted.len || wanted.data[at] != c) return false;
  }
  return at == wanted.len;
}

static struct slice name_of(struct slice argument) {
  const char *equals = memchr(argument.data, '=', argument.len);
  return (struct slice){argument.data, equals ? (uint32_t)(equals - argument.data) : argument.len};
}

static bool counts(struct slice argument, const struct cache_rules *rules) {
  if (rules->all_params) return argument.len > 0;
  for (uint32_t i = 0; i < rules->param_count; i++)
    if (is_argument(name_of(argument), of(rules->params[i]))) return true;
  return false;
}

static bool goes_before(struct slice a, struct slice b) {
  a = name_of(a);
  b = name_of(b);
  int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
  return order ? order < 0 : a.len < b.len;
}

// The arguments in the order of their names, those of one name in theirs. What has too many stays as it is.
static void put_query(struct key *key, struct slice query, const struct cache_rules *rules) {
  struct slice list[ARGUMENTS_MOST];
  uint32_t count = 0;
  for (const char *at = query.data, *end = query.data + query.len; at && at < end;) {
    const char *stop = memchr(at, '&', (size_t)(end - at));
    if (!stop) stop = end;
    struct slice one = {at, (uint32_t)(stop - at)};
    at = stop + 1;
    if (!counts(one, rules)) continue;
    if (count == ARGUMENTS_MOST) {
      put(key, SLICE("?"));
      put(key, query);
      return;
    }
    uint32_t place = count++;
    for (; place > 0 && goes_before(one, list[place - 1]); place--) list[place] = list[place - 1];
    list[place] = one;
  }
  for (uint32_t i = 0; i < count; i++) {
    put(key, i ? SLICE("&") : SLICE("?"));
    put(key, list[i]);
  }
}

// What the client asked for: host, port unless it is the usual one, path, query.
static void put_url(struct key *key, const struct exchange *exchange, const struct cache_rules *rules,
                    struct slice path, struct slice query) {
  char digits[DIGITS_MOST];
  put(key, exchange->host);
  if (exchange->port && exchange->port != (exchange->peer.tls ? 443 : 80)) {
    put(key, SLICE(":"));
    put(key, slice_of_number(exchange->port, digits));
  }
  uint32_t from = key->len;
  put(key, path);
  for (uint32_t i = from; rules->ignore_case && i < key->len; i++) key->text[i] = ascii_lower(key->text[i]);
  put_query(key, query, rules);
}

// All values of a field, as one.
static void put_field(struct key *key, const struct headers *headers, struct slice name) {
  struct field_name whole = headers_name(name);
  const struct field *field;
  for (uint32_t nth = 0; (field = headers_find_name(headers, &whole, nth)); nth++) {
    put(key, nth ? SLICE(",") : SLICE("="));
    put(key, field->value);
  }
  put_zero(key);
}

static int make_key(struct exchange *exchange, const struct cache_rules *rules, const struct cache_subject *subject) {
  struct caching *caching = exchange->caching;
  struct key key;
  key.len = 0;
  key.full = false;
  put_url(&key, exchange, rules, exchange->path, exchange->query);
  uint32_t url = key.len;
  put_zero(&key);
  put(&key, exchange->peer.tls ? SLICE("s") : SLICE("p"));
  put(&key, of(subject->method));
  put_zero(&key);
  put(&key, of(subject->scope));
  put_zero(&key);
  put(&key, of(subject->who));
  put_zero(&key);
  put(&key, of(subject->body));
  put_zero(&key);
  for (uint32_t i = 0; i < rules->header_count; i++) put_field(&key, &exchange->request.headers, of(rules->headers[i]));
  if (rules->by_authorization && (caching->asks & CACHE_ASKS_AUTHORIZATION))
    put_field(&key, &exchange->request.headers, SLICE("authorization"));
  if (key.full) return BRIDGE_FULL;
  if (slice_equal(caching->key, (struct slice){key.text, key.len})) return BRIDGE_OK; // looked up before
  caching->key = arena_copy(&exchange->arena, key.text, key.len);
  if (!caching->key.data) return BRIDGE_FULL;
  caching->url = (struct slice){caching->key.data, url};
  cache_hash(caching->key, caching->hash);
  return BRIDGE_OK;
}

struct slice cache_url(struct exchange *exchange, const struct cache_rules *rules, struct slice path) {
  struct key key;
  struct slice query = exchange->query;
  key.len = 0;
  key.full = false;
  if (path.data) {
    const char *mark = memchr(path.data, '?', path.len);
    uint32_t len = mark ? (uint32_t)(mark - path.data) : path.len;
    query = mark ? (struct slice){mark + 1, path.len - len - 1} : (struct slice){NULL, 0};
    path.len = len;
  } else {
    path = exchange->path;
  }
  put_url(&key, exchange, rules, path, query);
  return key.full ? (struct slice){NULL, 0} : arena_copy(&exchange->arena, key.text, key.len);
}

static uint32_t asks_of(const struct headers *headers) {
  static const struct {
    struct slice name;
    uint32_t asks;
  } names[] = {
      {SLICE("cache-control"), CACHE_ASKS_CONTROL},
      {SLICE("pragma"), CACHE_ASKS_CONTROL},
      {SLICE("if-none-match"), CACHE_ASKS_CONDITION},
      {SLICE("if-modified-since"), CACHE_ASKS_CONDITION},
      {SLICE("if-match"), CACHE_ASKS_PRECONDITION},
      {SLICE("if-unmodified-since"), CACHE_ASKS_PRECONDITION},
      {SLICE("range"), CACHE_ASKS_RANGE},
      {SLICE("if-range"), CACHE_ASKS_RANGE},
      {SLICE("authorization"), CACHE_ASKS_AUTHORIZATION},
  };
  uint32_t asks = 0;
  for (uint32_t i = 0; i < headers->count; i++) {
    if (headers->fields[i].id != FIELD_OTHER) continue;
    struct slice name = headers->fields[i].name;
    char first = name.len ? ascii_lower(name.data[0]) : 0;
    if (first != 'c' && first != 'p' && first != 'i' && first != 'r' && first != 'a') continue;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
      if (names[n].name.len == name.len && slice_equal_nocase(names[n].name, name)) asks |= names[n].asks;
  }
  return asks;
}

// ---- What is stored --------------------------------------------------------------------------------------------------

// Texts stand behind the tables, which end at `from`.
static bool is_inside(struct span span, uint64_t from, uint32_t len) {
  return span.at >= from && span.at <= len && span.len <= len - span.at;
}

static struct slice text_of(struct slice payload, struct span span) {
  return (struct slice){payload.data + span.at, span.len};
}

static void field_at(struct slice payload, uint32_t index, struct stored_field *out) {
  memcpy(out, payload.data + sizeof(struct entry) + index * sizeof *out, sizeof *out);
}

// Numbers that no sum of them can overflow.
static bool is_sane(const struct stored *stored) {
  const int64_t numbers[] = {stored->received_us, stored->lifetime_us, stored->age_us, stored->revalidate_us,
                             stored->error_us,    stored->end_us,      stored->first,  (int64_t)stored->length};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (numbers[i] < 0 || numbers[i] > (int64_t)1 << 53) return false;
  return stored->status >= 200 && stored->status <= 999 && stored->total >= -1 && stored->total <= (int64_t)1 << 53;
}

static uint64_t tables_end(const struct entry *entry) {
  return sizeof *entry + ((uint64_t)entry->field_count + entry->vary_count) * sizeof(struct stored_field);
}

static bool read_entry(struct slice payload, struct entry *entry) {
  if (payload.len < sizeof *entry) return false;
  memcpy(entry, payload.data, sizeof *entry);
  uint64_t from = tables_end(entry);
  uint32_t len = entry->head_len;
  return entry->format == FORMAT && is_sane(&entry->stored) && len <= payload.len && from <= len &&
         is_inside(entry->key, from, len) && is_inside(entry->url, from, len) && is_inside(entry->reason, from, len) &&
         is_inside(entry->tags, from, len);
}

static bool is_field(const struct stored_field *field, const struct entry *entry) {
  uint64_t from = tables_end(entry);
  return is_inside(field->name, from, entry->head_len) && is_inside(field->value, from, entry->head_len) &&
         field->id < FIELD_ID_COUNT;
}

// Whether a field of this request is what it was in the one that the response was stored for (RFC 9111 4.1). Lists may
// differ in spaces.
static bool is_same_value(const struct headers *request, struct slice name, struct slice value, bool absent) {
  struct field_name whole = headers_name(name);
  const struct field *field = headers_find_name(request, &whole, 0);
  if (!field || absent) return !field && absent;
  uint32_t at = 0;
  for (uint32_t nth = 0; field; field = headers_find_name(request, &whole, ++nth)) {
    if (nth && (at >= value.len || value.data[at++] != ',')) return false;
    for (uint32_t i = 0; i < field->value.len; i++) {
      if (field->value.data[i] == ' ' || field->value.data[i] == '\t') continue;
      if (at >= value.len || value.data[at++] != field->value.data[i]) return false;
    }
  }
  return at == value.len;
}

static bool fits(struct slice payload, const struct entry *entry, const struct headers *request) {
  for (uint32_t i = 0; i < entry->vary_count; i++) {
    struct stored_field field;
    field_at(payload, entry->field_count + i, &field);
    if (!is_field(&field, entry)) return false;
    if (!is_same_value(request, text_of(payload, field.name), text_of(payload, field.value), field.absent))
      return false;
  }
  return true;
}

// Copies what is needed out of the map. NULL: no memory, or it is spoilt.
static struct found *take(struct exchange *exchange, const struct object *object, const struct entry *entry) {
  struct arena *arena = &exchange->arena;
  struct found *found = arena_alloc(arena, sizeof *found);
  struct field *fields = arena_alloc(arena, (entry->field_count + ADDED) * sizeof *fields);
  uint32_t table = (uint32_t)tables_end(entry);
  struct slice whole = arena_copy(arena, object->payload.data + table, object->payload.len - table);
  if (!found || !fields || !whole.data) return NULL;
  const char *base = whole.data - table; // spans count from the beginning of the payload
  *found = (struct found){.stored = entry->stored, .id = object->id, .chunks = object->chunks};
  found->fields = (struct headers){fields, 0, entry->field_count + ADDED, FIELDS_MOST, 0};
  for (uint32_t i = 0; i < entry->field_count; i++) {
    struct stored_field field;
    field_at(object->payload, i, &field);
    if (!is_field(&field, entry)) return NULL;
    fields[i] = (struct field){.name = {base + field.name.at, field.name.len},
                               .value = {base + field.value.at, field.value.len},
                               .hash = field.hash,
                               .id = field.id};
    found->fields.present |= 1u << field.id;
  }
  found->fields.count = entry->field_count;
  found->reason = (struct slice){entry->reason.len ? base + entry->reason.at : NULL, entry->reason.len};
  found->url = (struct slice){base + entry->url.at, entry->url.len};
  found->tags = (struct slice){base + entry->tags.at, entry->tags.len};
  if (object->chunks) return found;
  found->body = (struct slice){base + entry->head_len, object->payload.len - entry->head_len};
  return found->body.len == entry->stored.length ? found : NULL;
}

static void note_same(struct caching *caching, uint64_t id) {
  uint32_t most = sizeof caching->same / sizeof *caching->same;
  caching->same[caching->same_count++ % most] = id; // the last ones seen are the oldest
}

// The youngest that fits the request. Others are counted, so that there are never too many.
static int find_stored(struct exchange *exchange, struct objects *objects) {
  struct caching *caching = exchange->caching;
  struct object object;
  bool cold = false;
  uint32_t seen = 0;
  int status = objects_begin(objects, caching->hash, &object);
  if (status != STORE_OK) return status == STORE_NONE ? BRIDGE_NONE : BRIDGE_FAILED;
  for (; status == STORE_OK && !caching->found; status = objects_next(objects, &object)) {
    struct entry entry;
    if (++seen > VARIANTS_MOST) note_same(caching, object.id);
    bool mine = read_entry(object.payload, &entry) && slice_equal(text_of(object.payload, entry.key), caching->key);
    if (!mine) continue; // of another key with this hash, or spoilt
    if (entry.stored.end_us && entry.stored.end_us <= exchange->worker->loop.clock.real_us) {
      note_same(caching, object.id);
      continue;
    }
    if (!fits(object.payload, &entry, &exchange->request.headers)) continue;
    caching->found = take(exchange, &object, &entry);
    cold = object.cold;
  }
  objects_end(objects);
  if (caching->found && cold) objects_touch(objects, caching->hash, caching->found->id);
  return caching->found ? BRIDGE_OK : BRIDGE_NONE;
}

int cache_look_up(struct exchange *exchange, const struct cache_rules *rules, const struct cache_subject *subject) {
  struct objects *objects = worker_objects(exchange->worker);
  if (!objects) return BRIDGE_FAILED;
  if (!exchange->caching) {
    exchange->caching = arena_alloc(&exchange->arena, sizeof *exchange->caching);
    if (!exchange->caching) return BRIDGE_FULL;
    *exchange->caching = (struct caching){.asks = asks_of(&exchange->request.headers)};
  }
  struct caching *caching = exchange->caching;
  if (caching->capture) return BRIDGE_LATE;
  caching->found = NULL;
  caching->same_count = 0;
  int status = make_key(exchange, rules, subject);
  return status == BRIDGE_OK ? find_stored(exchange, objects) : status;
}

int64_t cache_us(double seconds) {
  const double most = 1e9;
  if (!(seconds > 0)) return 0;
  return (int64_t)((seconds < most ? seconds : most) * 1e6);
}

int64_t cache_age_us(const struct exchange *exchange, const struct stored *stored) {
  int64_t resident = exchange->worker->loop.clock.real_us - stored->received_us;
  return stored->age_us + (resident > 0 ? resident : 0);
}

// ---- Storing ---------------------------------------------------------------------------------------------------------

// Never stored (RFC 9111 3.1), or made anew for each answer.
static bool is_own(const struct field *field) {
  static const struct slice names[] = {SLICE("age"), SLICE("proxy-authenticate"), SLICE("proxy-authentication-info"),
                                       SLICE("proxy-authorization")};
  if (forward_is_hop_by_hop(field) || field->id == FIELD_CONTENT_LENGTH || field->id == FIELD_TRAILER) return true;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (slice_equal_nocase(field->name, names[i])) return true;
  return false;
}

struct encoder {
  char *data;
  uint32_t at; // of the next text
};

static struct span put_text(struct encoder *encoder, struct slice text) {
  struct span span = {encoder->at, text.len};
  if (text.len) memcpy(encoder->data + encoder->at, text.data, text.len);
  encoder->at += text.len;
  return span;
}

// The values of a field in one, without spaces.
static struct span put_values(struct encoder *encoder, const struct headers *headers, struct slice name, bool *absent) {
  struct span span = {encoder->at, 0};
  const struct field *field;
  for (uint32_t nth = 0; (field = headers_find(headers, name, nth)); nth++) {
    if (nth) encoder->data[encoder->at++] = ',';
    for (uint32_t i = 0; i < field->value.len; i++)
      if (field->value.data[i] != ' ' && field->value.data[i] != '\t')
        encoder->data[encoder->at++] = field->value.data[i];
  }
  span.len = encoder->at - span.at;
  *absent = headers_find(headers, name, 0) == NULL;
  return span;
}

// The next item of a list; false: there is none.
static bool next_item(struct slice *list, struct slice *item) {
  while (list->len && (*list->data == ',' || *list->data == ' ' || *list->data == '\t')) list->data++, list->len--;
  uint32_t len = 0;
  while (len < list->len && list->data[len] != ',' && list->data[len] != ' ' && list->data[len] != '\t') len++;
  *item = (struct slice){list->data, len};
  list->data += len;
  list->len -= len;
  return len > 0;
}

static uint32_t count_items(struct slice list) {
  struct slice item;
  uint32_t count = 0;
  while (next_item(&list, &item)) count++;
  return count;
}

static size_t bound_of(const struct caching *caching, const struct headers *from, struct slice vary) {
  size_t bound = sizeof(struct entry) + caching->key.len + 64;
  bound += (from->count + 1 + count_items(vary)) * sizeof(struct stored_field) + vary.len;
  for (uint32_t i = 0; i < from->count; i++) bound += from->fields[i].name.len + from->fields[i].value.len;
  for (uint32_t i = 0; i < caching->request.count; i++) bound += caching->request.fields[i].value.len + 1;
  return bound;
}

static void put_table(struct encoder *encoder, uint32_t index, const struct stored_field *field) {
  memcpy(encoder->data + sizeof(struct entry) + index * sizeof *field, field, sizeof *field);
}

static uint32_t kept_fields(const struct headers *from, const struct cache_lists *lists) {
  uint32_t count = !headers_has(from, FIELD_DATE);
  for (uint32_t i = 0; i < from->count; i++)
    count += !is_own(&from->fields[i]) && !headers_list_has(lists->drop, from->fields[i].name);
  return count;
}

static void put_kept(struct encoder *encoder, uint32_t index, struct slice name, struct slice value) {
  struct stored_field stored = {.hash = headers_hash(name), .id = (uint8_t)headers_id(name)};
  stored.name = put_text(encoder, name);
  stored.value = put_text(encoder, value);
  put_table(encoder, index, &stored);
}

static void put_fields(struct encoder *encoder, const struct headers *from, const struct cache_lists *lists) {
  uint32_t index = 0;
  for (uint32_t i = 0; i < from->count; i++) {
    const struct field *field = &from->fields[i];
    if (is_own(field) || headers_list_has(lists->drop, field->name)) continue;
    put_kept(encoder, index++, field->name, field->value);
  }
  if (!headers_has(from, FIELD_DATE)) put_kept(encoder, index, SLICE("Date"), lists->date);
}

struct entry_text cache_encode(const struct stored *stored, const struct caching *caching, const struct headers *from,
                               struct slice reason, const struct cache_lists *lists) {
  size_t bound = bound_of(caching, from, lists->vary) + reason.len + lists->tags.len + lists->date.len + 64;
  if (bound > OBJECT_CHUNK) return (struct entry_text){NULL, 0};
  struct encoder encoder = {.data = malloc(bound)};
  if (!encoder.data) return (struct entry_text){NULL, 0};
  struct slice vary = lists->vary, name;
  struct entry entry = {.format = FORMAT, .stored = *stored};
  entry.field_count = kept_fields(from, lists);
  entry.vary_count = count_items(vary);
  encoder.at = (uint32_t)(sizeof entry + (entry.field_count + entry.vary_count) * sizeof(struct stored_field));
  put_fields(&encoder, from, lists);
  for (uint32_t i = 0; next_item(&vary, &name); i++) {
    bool absent;
    struct stored_field field = {.name = put_text(&encoder, name)};
    field.value = put_values(&encoder, &caching->request, name, &absent);
    field.absent = absent;
    put_table(&encoder, entry.field_count + i, &field);
  }
  entry.reason = put_text(&encoder, reason);
  entry.key = put_text(&encoder, caching->key);
  entry.url = (struct span){entry.key.at, caching->url.len};
  entry.tags = put_text(&encoder, lists->tags);
  entry.head_len = encoder.at;
  memcpy(encoder.data, &entry, sizeof entry);
  return (struct entry_text){encoder.data, encoder.at};
}

uint32_t cache_names(const struct caching *caching, struct slice tags, struct slice *out, char **memory) {
  struct slice item;
  size_t room = caching->url.len + 1 + (size_t)tags.len + CACHE_TAGS_MOST + 1;
  char *at = *memory = malloc(room);
  if (!at) return 0;
  uint32_t url = caching->url.len > OBJECT_NAME_MAX ? OBJECT_NAME_MAX : caching->url.len, count = 0;
  *at = CACHE_NAME_URL;
  memcpy(at + 1, caching->url.data, url);
  out[count++] = (struct slice){at, url + 1};
  at += url + 1;
  while (next_item(&tags, &item)) {
    if (count > CACHE_TAGS_MOST || item.len > OBJECT_NAME_MAX) return 0;
    *at = CACHE_NAME_TAG;
    memcpy(at + 1, item.data, item.len);
    out[count++] = (struct slice){at, item.len + 1};
    at += item.len + 1;
  }
  return count;
}
