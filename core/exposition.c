// SPDX-License-Identifier: Apache-2.0
// Arrays that grow, and places in them for pointers:
//
//   families -> rows (series) -> cells          a row is found by its family and labels; `heads` holds them by hash
//
// Texts are those of the names in shared memory, which stay where they are.
#include "exposition.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "counters.h"

enum {
  SEP = '\1',
  FAMILIES_MOST = 4096,
  FIRST_ROOM = 64,
  NUMBER_BYTES = 40,
};

#define NAME_PREFIX SLICE("m\1")

struct cell {
  int64_t handle;
  double scale;
  double bound;       // of a bucket
  struct slice extra; // of a bucket: its bound as text
  uint32_t next;      // of the same list; 0: none
};

struct row {
  struct slice labels;
  uint64_t hash;
  uint32_t family;  // index
  uint32_t next;    // of the family
  uint32_t chained; // of the same hash
  uint32_t cells;   // whose sum, or highest, it is
  uint32_t buckets; // of a histogram
};

struct family {
  struct slice name;
  char kind;
  uint32_t series, first_row, last_row;
};

// What grows: places from 1.
struct exposition {
  struct counters *counters;
  struct family *families;
  struct row *rows;
  struct cell *cells;
  uint32_t *heads; // `head_room` chains of rows, a power of two
  uint8_t *seen;   // by handle
  uint32_t family_count, family_room, row_count, row_room, cell_count, cell_room, head_room;
  uint64_t seen_room;
  uint64_t cursor;          // of the look that is under way; 0: none
  uint64_t names, expected; // as of the last whole look, and of this one
  bool short_of_memory;     // in this look
  char *text;
  size_t text_len, text_room;
};

struct exposition *exposition_new(struct counters *counters) {
  struct exposition *exposition = calloc(1, sizeof *exposition);
  if (exposition) exposition->counters = counters;
  return exposition;
}

void exposition_free(struct exposition *exposition) {
  if (!exposition) return;
  free(exposition->families);
  free(exposition->rows);
  free(exposition->cells);
  free(exposition->heads);
  free(exposition->seen);
  free(exposition->text);
  free(exposition);
}

// Room for one more behind `count`, in an array whose place 0 is not used.
static bool has_room(void **array, uint32_t count, uint32_t *room, size_t size) {
  if (count + 1 < *room) return true;
  uint32_t wanted = *room ? *room * 2 : FIRST_ROOM;
  void *larger = realloc(*array, wanted * size);
  if (!larger) return false;
  *array = larger;
  *room = wanted;
  return true;
}

// ---- What a name says ----

struct name {
  char kind;
  double scale;
  struct slice family, labels, extra;
};

static struct slice field(struct slice *rest) {
  const char *end = memchr(rest->data, SEP, rest->len);
  struct slice it = {rest->data, end ? (uint32_t)(end - rest->data) : rest->len};
  uint32_t taken = end ? it.len + 1 : it.len;
  *rest = (struct slice){rest->data + taken, rest->len - taken};
  return it;
}

// The number that a whole text is; NAN: it is none.
static double number_of(struct slice text) {
  char digits[NUMBER_BYTES], *end;
  if (text.len == 0 || text.len >= sizeof digits) return NAN;
  memcpy(digits, text.data, text.len);
  digits[text.len] = '\0';
  double number = strtod(digits, &end);
  return *end ? NAN : number;
}

static bool name_parse(struct slice rest, struct name *out) {
  struct slice kind = field(&rest);
  out->kind = kind.len == 1 ? kind.data[0] : '\0';
  out->scale = number_of(field(&rest));
  out->family = field(&rest);
  out->labels = field(&rest);
  out->extra = rest;
  return out->kind && memchr("cgxh", out->kind, 4) && out->scale > 0 && out->family.len > 0;
}

// ---- Families, rows, cells ----

// Index from 1; 0: no memory.
static uint32_t family_of(struct exposition *exposition, const struct name *name) {
  for (uint32_t i = 1; i <= exposition->family_count; i++) {
    const struct family *family = &exposition->families[i];
    if (family->kind == name->kind && slice_equal(family->name, name->family)) return i;
  }
  if (exposition->family_count == FAMILIES_MOST) return 0;
  if (!has_room((void **)&exposition->families, exposition->family_count, &exposition->family_room,
                sizeof *exposition->families))
    return 0;
  exposition->families[++exposition->family_count] = (struct family){.name = name->family, .kind = name->kind};
  return exposition->family_count;
}

static void chain(struct exposition *exposition, uint32_t place) {
  struct row *row = &exposition->rows[place];
  uint32_t *head = &exposition->heads[row->hash & (exposition->head_room - 1)];
  row->chained = *head;
  *head = place;
}

// As many chains as rows have room.
static bool has_heads(struct exposition *exposition) {
  if (exposition->head_room >= exposition->row_room) return true;
  uint32_t *heads = calloc(exposition->row_room, sizeof *heads);
  if (!heads) return false;
  free(exposition->heads);
  exposition->heads = heads;
  exposition->head_room = exposition->row_room;
  for (uint32_t i = 1; i <= exposition->row_count; i++) chain(exposition, i);
  return true;
}

static uint32_t row_add(struct exposition *exposition, uint32_t index, struct slice labels, uint64_t hash) {
  if (!has_room((void **)&exposition->rows, exposition->row_count, &exposition->row_room, sizeof *exposition->rows) ||
      !has_heads(exposition))
    return 0;
  uint32_t place = ++exposition->row_count;
  struct family *family = &exposition->families[index];
  exposition->rows[place] = (struct row){.labels = labels, .hash = hash, .family = index};
  chain(exposition, place);
  if (family->last_row)
    exposition->rows[family->last_row].next = place;
  else
    family->first_row = place;
  family->last_row = place;
  family->series++;
  return place;
}

// 0: no memory.
static uint32_t row_of(struct exposition *exposition, uint32_t family, struct slice labels) {
  uint64_t hash = counters_hash(exposition->counters, labels.data, labels.len) + family;
  uint32_t place = exposition->head_room ? exposition->heads[hash & (exposition->head_room - 1)] : 0;
  for (; place; place = exposition->rows[place].chained) {
    const struct row *row = &exposition->rows[place];
    if (row->hash == hash && row->family == family && slice_equal(row->labels, labels)) return place;
  }
  return row_add(exposition, family, labels, hash);
}

static bool cell_add(struct exposition *exposition, uint32_t row, const struct name *name, int64_t handle) {
  if (!has_room((void **)&exposition->cells, exposition->cell_count, &exposition->cell_room, sizeof *exposition->cells))
    return false;
  bool is_bucket = name->kind == 'h' && !slice_equal(name->extra, SLICE("sum"));
  double bound = is_bucket ? number_of(name->extra) : 0; // "+Inf" is a number too
  if (isnan(bound)) return true;
  uint32_t place = ++exposition->cell_count;
  uint32_t *link = is_bucket ? &exposition->rows[row].buckets : &exposition->rows[row].cells;
  while (*link && is_bucket && exposition->cells[*link].bound <= bound) link = &exposition->cells[*link].next;
  exposition->cells[place] = (struct cell){handle, name->scale, bound, name->extra, *link};
  *link = place;
  return true;
}

static bool take_in(struct exposition *exposition, int64_t handle, struct slice text) {
  struct name name;
  if (!name_parse(text, &name)) return true;
  uint32_t family = family_of(exposition, &name);
  uint32_t row = family ? row_of(exposition, family, name.labels) : 0;
  return row && cell_add(exposition, row, &name, handle);
}

// ---- Looking for new ones ----

static bool has_seen_room(struct exposition *exposition, uint64_t handle) {
  if (handle < exposition->seen_room) return true;
  uint64_t room = handle * 2;
  uint8_t *seen = realloc(exposition->seen, room);
  if (!seen) return false;
  memset(seen + exposition->seen_room, 0, room - exposition->seen_room);
  exposition->seen = seen;
  exposition->seen_room = room;
  return true;
}

static void meet(struct exposition *exposition, uint64_t handle, struct slice text) {
  if (!has_seen_room(exposition, handle)) {
    exposition->short_of_memory = true;
    return;
  }
  if (exposition->seen[handle]) return;
  if (take_in(exposition, (int64_t)handle, text))
    exposition->seen[handle] = 1;
  else
    exposition->short_of_memory = true;
}

static int look_end(struct exposition *exposition) {
  exposition->cursor = 0;
  if (exposition->short_of_memory) return EXPOSITION_MEMORY;
  exposition->names = exposition->expected;
  return EXPOSITION_OK;
}

int exposition_look(struct exposition *exposition, uint32_t most) {
  struct counters *counters = exposition->counters;
  if (exposition->cursor == 0) {
    exposition->expected = counters_names(counters);
    if (exposition->expected == exposition->names) return EXPOSITION_OK;
    exposition->short_of_memory = false;
  }
  uint64_t end = exposition->cursor + most;
  while (exposition->cursor < end) {
    struct slice text;
    int64_t value;
    int status = counters_next(counters, NAME_PREFIX.data, NAME_PREFIX.len, (uint32_t)(end - exposition->cursor),
                               &exposition->cursor, &text.data, &text.len, &value);
    if (status == COUNTERS_NONE) return look_end(exposition);
    if (status != COUNTERS_OK) break;
    text.data += NAME_PREFIX.len;
    text.len -= NAME_PREFIX.len;
    meet(exposition, exposition->cursor, text);
  }
  return EXPOSITION_MORE;
}

// ---- One by one ----

static bool is_row(const struct exposition *exposition, uint32_t row) {
  return row > 0 && row <= exposition->row_count;
}

static double value_of(const struct exposition *exposition, const struct row *row) {
  bool is_highest = exposition->families[row->family].kind == 'x';
  double value = 0;
  for (uint32_t at = row->cells; at; at = exposition->cells[at].next) {
    const struct cell *cell = &exposition->cells[at];
    double one = (double)counters_at(exposition->counters, cell->handle) / cell->scale;
    if (!is_highest)
      value += one;
    else if (at == row->cells || one > value)
      value = one;
  }
  return value;
}

bool exposition_family(const struct exposition *exposition, uint32_t index, struct exposition_family *out) {
  if (index >= exposition->family_count) return false;
  const struct family *family = &exposition->families[index + 1];
  *out = (struct exposition_family){family->name, family->kind, family->series, family->first_row};
  return true;
}

bool exposition_series(const struct exposition *exposition, uint32_t row, struct exposition_series *out) {
  if (!is_row(exposition, row)) return false;
  const struct row *it = &exposition->rows[row];
  *out = (struct exposition_series){it->labels, value_of(exposition, it), it->next};
  return true;
}

bool exposition_bucket(const struct exposition *exposition, uint32_t row, uint32_t index, double *bound,
                       uint64_t *count) {
  uint32_t at = is_row(exposition, row) ? exposition->rows[row].buckets : 0;
  while (at && index-- > 0) at = exposition->cells[at].next;
  if (!at) return false;
  *bound = exposition->cells[at].bound;
  *count = (uint64_t)counters_at(exposition->counters, exposition->cells[at].handle);
  return true;
}

// ---- The text ----

static bool has_text_room(struct exposition *exposition, size_t len) {
  size_t wanted = exposition->text_len + len;
  if (wanted <= exposition->text_room) return true;
  char *text = realloc(exposition->text, wanted * 2);
  if (!text) return false;
  exposition->text = text;
  exposition->text_room = wanted * 2;
  return true;
}

static void put(struct exposition *exposition, struct slice text) {
  if (text.len) memcpy(exposition->text + exposition->text_len, text.data, text.len);
  exposition->text_len += text.len;
}

// As short as gives the same number when it is read.
static void put_number(struct exposition *exposition, double value) {
  char room[NUMBER_BYTES];
  if (value >= 0 && value < 1e15 && value == floor(value)) {
    put(exposition, slice_of_number((uint64_t)value, room));
    return;
  }
  int len = snprintf(room, sizeof room, "%.15g", value);
  if (strtod(room, NULL) != value) len = snprintf(room, sizeof room, "%.17g", value);
  put(exposition, (struct slice){room, (uint32_t)len});
}

struct line {
  struct slice suffix; // of the family's name
  struct slice le;     // of a bucket; empty: none
  double value;
};

// NAME SUFFIX {LABELS,le="BOUND"} VALUE
static bool put_line(struct exposition *exposition, const struct row *row, const struct line *line) {
  struct slice name = exposition->families[row->family].name;
  if (!has_text_room(exposition, name.len + row->labels.len + line->suffix.len + line->le.len + NUMBER_BYTES + 16))
    return false;
  put(exposition, name);
  put(exposition, line->suffix);
  if (row->labels.len || line->le.len) put(exposition, SLICE("{"));
  put(exposition, row->labels);
  if (line->le.len) {
    put(exposition, row->labels.len ? SLICE(",le=\"") : SLICE("le=\""));
    put(exposition, line->le);
    put(exposition, SLICE("\""));
  }
  put(exposition, row->labels.len || line->le.len ? SLICE("} ") : SLICE(" "));
  put_number(exposition, line->value);
  put(exposition, SLICE("\n"));
  return true;
}

static bool put_row(struct exposition *exposition, const struct row *row) {
  double value = value_of(exposition, row), total = 0;
  if (exposition->families[row->family].kind != 'h') return put_line(exposition, row, &(struct line){.value = value});
  for (uint32_t at = row->buckets; at; at = exposition->cells[at].next) {
    const struct cell *cell = &exposition->cells[at];
    total += (double)counters_at(exposition->counters, cell->handle);
    if (!put_line(exposition, row, &(struct line){SLICE("_bucket"), cell->extra, total})) return false;
  }
  return put_line(exposition, row, &(struct line){SLICE("_sum"), {0}, value}) &&
         put_line(exposition, row, &(struct line){SLICE("_count"), {0}, total});
}

struct slice exposition_text(struct exposition *exposition, uint32_t *row, uint32_t most) {
  exposition->text_len = 0;
  if (!has_text_room(exposition, NUMBER_BYTES)) return (struct slice){0};
  for (; is_row(exposition, *row) && most > 0; most--) {
    const struct row *it = &exposition->rows[*row];
    if (!put_row(exposition, it)) return (struct slice){0};
    *row = it->next;
  }
  return (struct slice){exposition->text, (uint32_t)exposition->text_len};
}
