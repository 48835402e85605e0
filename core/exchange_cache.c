// SPDX-License-Identifier: Apache-2.0
// An exchange and stored responses: answering from one, and storing one while it passes.
#include <stdlib.h>

#include "cache.h"
#include "exchange_parts.h"
#include "worker.h"

enum {
  JOINED_MOST = 4 << 20, // of what is stored, that is copied to be joined with more
  INLINE_MOST = 16384,   // content that is kept beside the fields
  PIECES_A_TURN = 16,
  FIELDS_MOST = 100000,
  SAY_EVERY_US = 10 * 1000 * 1000
};

// ---- Answering -------------------------------------------------------------------------------------------------------

// What of a stored response's fields goes with 304: nothing of the content that is not sent (RFC 9110 15.4.5).
static void drop_content_fields(struct headers *headers) {
  static const struct slice names[] = {SLICE("content-type"), SLICE("content-encoding"), SLICE("content-language"),
                                       SLICE("content-range")};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) headers_remove(headers, names[i]);
}

static uint64_t bytes_of(const struct cache_piece *piece) {
  uint64_t bytes = 0;
  for (; piece; piece = piece->next) bytes += piece->text.len + (piece->to - piece->from);
  return bytes;
}

static void answer_from_memory(struct exchange *exchange) {
  const struct found *found = exchange->caching->found;
  int failed = 0;
  for (const struct cache_piece *piece = exchange->caching->pieces; piece; piece = piece->next) {
    failed |= buffer_append(&exchange->answer, piece->text.data, piece->text.len);
    failed |= buffer_append(&exchange->answer, found->body.data + piece->from, (size_t)(piece->to - piece->from));
  }
  if (failed)
    exchange_fail(exchange, 500, UNEXPECTED);
  else
    exchange_answer(exchange);
}

void exchange_answer_stored(struct exchange *exchange) {
  struct caching *caching = exchange->caching;
  struct found *found = caching->found;
  bool whole = exchange->status == found->stored.status;
  exchange->response = found->fields;
  exchange->has_response = true;
  exchange->reason = whole ? found->reason : (struct slice){NULL, 0};
  if (exchange->status == 304) drop_content_fields(&exchange->response);
  exchange_merge_preset(exchange);
  buffer_clear(&exchange->answer);
  if (found->chunks == 0 || !caching->pieces) {
    answer_from_memory(exchange);
    return;
  }
  caching->piped = exchange_answer_head(exchange, (int64_t)bytes_of(caching->pieces));
  if (!caching->piped) return;
  if (exchange->no_body_out) caching->pieces = NULL;
  exchange_pump_stored(exchange);
}

// Sends the next piece, up to a chunk of it. False: what is stored has gone meanwhile.
static bool send_next(struct exchange *exchange) {
  struct caching *caching = exchange->caching;
  struct cache_piece *piece = caching->pieces;
  struct worker *worker = exchange->worker;
  if (piece->text.len) {
    struct slice text = piece->text;
    piece->text.len = 0;
    exchange_send_piece(exchange, NULL, text, false);
    return true;
  }
  struct chunk *chunk = chunk_take(&worker->chunks);
  if (!chunk) return false;
  uint32_t within = (uint32_t)(piece->from % OBJECT_CHUNK);
  int64_t len = objects_read(worker->objects, caching->found->id, (uint32_t)(piece->from / OBJECT_CHUNK), chunk->data);
  bool good = len > within;
  if (good) {
    uint64_t left = piece->to - piece->from, there = (uint64_t)len - within;
    struct slice data = {chunk->data + within, (uint32_t)(left < there ? left : there)};
    piece->from += data.len;
    exchange_send_piece(exchange, chunk, data, false);
  }
  chunk_release(chunk);
  return good;
}

static void pump_more(struct worker *worker, void *data) {
  (void)worker;
  exchange_pump_stored(data);
}

static bool is_piped(struct worker *worker, struct exchange *exchange, double handle) {
  return exchange_find(worker, handle) == exchange && exchange->state == EXCHANGE_SENDING && exchange->caching->piped;
}

static void end_pipe(struct exchange *exchange, double handle) {
  struct worker *worker = exchange->worker;
  if (exchange->filtering_body) exchange_send_piece(exchange, NULL, SLICE(""), true);
  if (!is_piped(worker, exchange, handle)) return;
  exchange->caching->piped = false;
  exchange_send_end(exchange);
}

// As much as the client takes, but not all at once: others wait, too.
void exchange_pump_stored(struct exchange *exchange) {
  struct worker *worker = exchange->worker;
  struct caching *caching = exchange->caching;
  double handle = exchange_handle(exchange);
  if (!is_piped(worker, exchange, handle)) return;
  for (int i = 0; i < PIECES_A_TURN; i++) {
    while (caching->pieces && caching->pieces->text.len == 0 && caching->pieces->from >= caching->pieces->to)
      caching->pieces = caching->pieces->next;
    if (!caching->pieces) {
      end_pipe(exchange, handle);
      return;
    }
    if (exchange->ops->is_congested(exchange)) exchange->ops->flush(exchange);
    if (!is_piped(worker, exchange, handle) || exchange->ops->is_congested(exchange)) return;
    if (!send_next(exchange)) {
      caching->piped = false;
      exchange_cut(exchange, 500, UNEXPECTED);
      return;
    }
    if (!is_piped(worker, exchange, handle)) return;
  }
  exchange->ops->flush(exchange);
  if (is_piped(worker, exchange, handle)) worker_give_way(worker, pump_more, exchange, &caching->more);
}

// ---- Storing ---------------------------------------------------------------------------------------------------------

struct capture {
  struct stored stored;
  struct object_writer writer;
  struct cache_lists lists;
  uint64_t replaces;         // number of the one that was found; 0: none
  uint64_t expected;         // bytes of a part
  uint64_t after, after_end; // of what was found, that goes behind it: in the whole
  bool part;
  uint64_t most;
  char *buffer; // not written yet
  uint32_t len, room;
};

static void capture_free(struct exchange *exchange) {
  struct capture *capture = exchange->caching->capture;
  exchange->caching->capture = NULL;
  free(capture->buffer);
  free(capture);
}

static void capture_drop(struct exchange *exchange) {
  objects_abandon(exchange->worker->objects, &exchange->caching->capture->writer);
  capture_free(exchange);
  exchange_land_flight(exchange, BRIDGE_NONE);
}

static struct slice copy(struct exchange *exchange, struct bytes text) {
  return arena_copy(&exchange->arena, text.data, text.len);
}

static bool copy_lists(struct exchange *exchange, const struct cache_how *how, struct cache_lists *lists) {
  struct slice now = {clock_http_date(&exchange->worker->loop.clock), 29};
  *lists = (struct cache_lists){
      .vary = copy(exchange, how->vary),
      .tags = copy(exchange, how->tags),
      .drop = copy(exchange, how->drop),
      .date = arena_copy(&exchange->arena, now.data, now.len),
  };
  return lists->vary.data && lists->tags.data && lists->drop.data && lists->date.data;
}

static void stored_set(struct stored *stored, const struct exchange *exchange, const struct cache_how *how) {
  int64_t now = exchange->worker->loop.clock.real_us;
  *stored = (struct stored){
      .received_us = now,
      .lifetime_us = cache_us(how->lifetime_s),
      .age_us = cache_us(how->age_s),
      .revalidate_us = cache_us(how->revalidate_s),
      .error_us = cache_us(how->error_s),
      .end_us = how->keep_s > 0 ? now + cache_us(how->keep_s) : 0,
      .first = (int64_t)how->first,
      .total = (int64_t)how->total,
      .flags = how->flags,
      .status = exchange->service_status,
  };
}

static bool make_room(struct capture *capture, uint32_t need) {
  uint32_t room = capture->room ? capture->room : 4096;
  while (room < need) room *= 2;
  if (room > OBJECT_CHUNK) room = OBJECT_CHUNK;
  if (room == capture->room) return true;
  char *buffer = realloc(capture->buffer, room);
  if (!buffer) return false;
  capture->buffer = buffer;
  capture->room = room;
  return true;
}

// That there is no room for one is no news; what else is wrong, a full disk, is so for all that come in a while.
static void tell_failure(const struct exchange *exchange, int result, const struct error *error) {
  struct worker *worker = exchange->worker;
  int64_t now_us = worker->loop.clock.mono_us;
  char number[32];
  if (result == ERROR_MEMORY) {
    log_info(&worker->log, "a response is not cached", "cause", error->text);
    return;
  }
  worker->uncached++;
  if (worker->uncached_said_us && now_us - worker->uncached_said_us < SAY_EVERY_US) return;
  log_warn(&worker->log, "responses are not cached", "cause", error->text, "responses",
           log_number(number, (int64_t)worker->uncached));
  worker->uncached_said_us = now_us;
  worker->uncached = 0;
}

static bool write_chunk(struct exchange *exchange) {
  struct capture *capture = exchange->caching->capture;
  struct error error;
  int result = objects_write(exchange->worker->objects, &capture->writer, (struct slice){capture->buffer, capture->len},
                             exchange->worker->loop.clock.real_us, &error);
  capture->len = 0;
  if (result < 0) tell_failure(exchange, result, &error);
  return result == 0;
}

static bool append(struct exchange *exchange, struct slice piece) {
  struct capture *capture = exchange->caching->capture;
  capture->stored.length += piece.len;
  bool good = capture->stored.length <= capture->most;
  while (good && piece.len > 0) {
    uint32_t room = OBJECT_CHUNK - capture->len, take = piece.len < room ? piece.len : room;
    good = make_room(capture, capture->len + take);
    if (!good) break;
    memcpy(capture->buffer + capture->len, piece.data, take);
    capture->len += take;
    piece.data += take;
    piece.len -= take;
    if (capture->len == OBJECT_CHUNK) good = write_chunk(exchange);
  }
  return good;
}

void exchange_store_piece(struct exchange *exchange, struct slice piece) {
  struct capture *capture = exchange->caching->capture;
  bool good = !capture->part || piece.len <= capture->expected;
  if (good && capture->part) capture->expected -= piece.len;
  if (!good || !append(exchange, piece)) capture_drop(exchange);
}

// ---- Parts of the same (RFC 9111 3.4) ----

// Appends what was found from `from` up to before `to`, counted in the whole.
static bool append_found(struct exchange *exchange, uint64_t from, uint64_t to) {
  const struct found *found = exchange->caching->found;
  uint64_t first = (uint64_t)found->stored.first;
  if (found->chunks == 0)
    return append(exchange, (struct slice){found->body.data + (from - first), (uint32_t)(to - from)});
  char *data = malloc(OBJECT_CHUNK);
  bool good = data != NULL;
  for (uint64_t at = from - first; good && at < to - first;) {
    uint64_t within = at % OBJECT_CHUNK, left = to - first - at;
    int64_t len = objects_read(exchange->worker->objects, found->id, (uint32_t)(at / OBJECT_CHUNK), data);
    good = len > (int64_t)within;
    if (!good) break;
    uint64_t there = (uint64_t)len - within, take = left < there ? left : there;
    good = append(exchange, (struct slice){data + within, (uint32_t)take});
    at += take;
  }
  free(data);
  return good;
}

// Puts what was found in front of the new part and behind it, where they touch. False: it cannot be stored.
static bool join(struct exchange *exchange) {
  struct capture *capture = exchange->caching->capture;
  const struct stored *old = &exchange->caching->found->stored, *stored = &capture->stored;
  uint64_t from = (uint64_t)stored->first, to = from + capture->expected;
  uint64_t old_from = (uint64_t)old->first, old_to = old_from + old->length;
  if (from > old_to || to < old_from || old->length > JOINED_MOST || old->total != stored->total) return true;
  if (old_to > to) {
    capture->after = to;
    capture->after_end = old_to;
  }
  if (old_from >= from) return true;
  capture->stored.first = old->first;
  return append_found(exchange, old_from, from);
}

// The new part has come: behind it goes what is known of the rest. False: it is not as long as it said.
static bool end_part(struct exchange *exchange) {
  struct capture *capture = exchange->caching->capture;
  struct stored *stored = &capture->stored;
  if (capture->expected != 0) return false;
  if (capture->after < capture->after_end && !append_found(exchange, capture->after, capture->after_end)) return false;
  if (stored->first == 0 && (int64_t)stored->length == stored->total) stored->status = 200;
  return true;
}

int bridge_cache_store(struct worker *worker, double handle, const struct cache_how *how) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct caching *caching = exchange->caching;
  if (!caching || caching->capture || exchange->state != EXCHANGE_SERVICE || exchange->service_status == 0)
    return BRIDGE_LATE;
  struct slice names[CACHE_TAGS_MOST + 1];
  char *memory;
  uint32_t count = cache_names(caching, (struct slice){how->tags.data, how->tags.len}, names, &memory);
  free(memory);
  if (count == 0) return BRIDGE_INVALID;
  if (how->most_bytes > 0 && (double)exchange->service_message.content_length > how->most_bytes) return BRIDGE_FULL;
  struct capture *capture = calloc(1, sizeof *capture);
  if (!capture) return BRIDGE_FULL;
  if (!copy_lists(exchange, how, &capture->lists)) {
    free(capture);
    return BRIDGE_FULL;
  }
  stored_set(&capture->stored, exchange, how);
  capture->part = how->length > 0;
  capture->expected = capture->part ? (uint64_t)how->length : 0;
  capture->most = how->most_bytes > 0 ? (uint64_t)how->most_bytes : UINT64_MAX;
  capture->replaces = caching->found ? caching->found->id : 0;
  caching->capture = capture;
  if (!how->joins || !caching->found || join(exchange)) return BRIDGE_OK;
  objects_abandon(worker->objects, &capture->writer);
  capture_free(exchange);
  return BRIDGE_FULL;
}

// Makes a record with this text visible.
static int put_record(struct exchange *exchange, struct object_put *put, struct slice tags, struct error *error) {
  struct caching *caching = exchange->caching;
  struct slice names[CACHE_TAGS_MOST + 1];
  uint64_t replaces[sizeof caching->same / sizeof *caching->same + 1], id;
  uint32_t most = sizeof caching->same / sizeof *caching->same;
  uint32_t count = caching->same_count < most ? caching->same_count : most;
  char *memory;
  memcpy(replaces, caching->same, count * sizeof *replaces);
  if (put->replace_count) replaces[count] = *put->replaces;
  put->replace_count += count;
  put->replaces = replaces;
  put->hash = caching->hash;
  put->names = names;
  put->name_count = cache_names(caching, tags, names, &memory);
  int result = objects_put(exchange->worker->objects, put, exchange->worker->loop.clock.real_us, &id, error);
  free(memory);
  return result;
}

static int store_record(struct exchange *exchange, struct error *error) {
  struct caching *caching = exchange->caching;
  struct capture *capture = caching->capture;
  struct entry_text head = cache_encode(&capture->stored, caching, &exchange->service_response,
                                        capture->part ? SLICE("") : exchange->service_message.reason, &capture->lists);
  if (!head.data) return error_set(error, ERROR_MEMORY, "its head is too large");
  struct object_put put = {.body = capture->writer.chunks ? &capture->writer : NULL,
                           .head = {head.data, head.len},
                           .rest = {capture->buffer, capture->len},
                           .replaces = &capture->replaces,
                           .replace_count = capture->replaces != 0};
  int result = put_record(exchange, &put, capture->lists.tags, error);
  free(head.data);
  return result;
}

void exchange_store_end(struct exchange *exchange) {
  struct capture *capture = exchange->caching->capture;
  struct error error = {0};
  if (capture->part && !end_part(exchange)) {
    capture_drop(exchange);
    return;
  }
  bool keep_beside = capture->writer.chunks == 0 && capture->len <= INLINE_MOST;
  if (!keep_beside && capture->len > 0 && !write_chunk(exchange)) {
    capture_drop(exchange);
    return;
  }
  int result = store_record(exchange, &error);
  if (result < 0) {
    tell_failure(exchange, result, &error);
    capture_drop(exchange);
    return;
  }
  capture_free(exchange);
  exchange_land_flight(exchange, BRIDGE_OK);
}

// Of what a 304 or a response to HEAD says, what takes the place of what is stored (RFC 9111 3.2). The content is still
// the old one, and so is what describes it.
static bool updates(const struct field *field) {
  static const struct slice content[] = {SLICE("content-encoding"), SLICE("content-type"), SLICE("content-range")};
  for (size_t i = 0; i < sizeof content / sizeof *content; i++)
    if (slice_equal_nocase(field->name, content[i])) return false;
  return field->id != FIELD_CONTENT_LENGTH;
}

static int merge_update(struct exchange *exchange, struct headers *out) {
  const struct headers *update = &exchange->service_response;
  struct headers *old = &exchange->caching->found->fields;
  struct arena *arena = &exchange->arena;
  int failed = 0;
  headers_init(out, FIELDS_MOST);
  for (uint32_t i = 0; i < old->count; i++) {
    const struct field *field = &old->fields[i];
    if (field->id == FIELD_DATE || (updates(field) && headers_find(update, field->name, 0))) continue;
    failed |= headers_add(out, arena, field->name, field->value);
  }
  for (uint32_t i = 0; i < update->count; i++) {
    const struct field *field = &update->fields[i];
    if (updates(field) && !field->named_by_connection) failed |= headers_add(out, arena, field->name, field->value);
  }
  return failed;
}

int bridge_cache_refresh(struct worker *worker, double handle, const struct cache_how *how) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct caching *caching = exchange->caching;
  if (!caching || !caching->found || exchange->state != EXCHANGE_SERVICE) return BRIDGE_LATE;
  struct found *found = caching->found;
  struct stored stored;
  struct headers fields;
  struct error error;
  stored_set(&stored, exchange, how);
  stored.status = found->stored.status;
  stored.length = found->stored.length;
  stored.first = found->stored.first;
  stored.total = found->stored.total;
  if (merge_update(exchange, &fields) < 0) return BRIDGE_FULL;
  struct cache_lists lists;
  if (!copy_lists(exchange, how, &lists)) return BRIDGE_FULL;
  if (lists.tags.len == 0) lists.tags = found->tags; // a 304 need not repeat them
  struct entry_text head = cache_encode(&stored, caching, &fields, found->reason, &lists);
  if (!head.data) return BRIDGE_FULL;
  struct object_put put = {.id = found->id, .head = {head.data, head.len}, .rest = found->body};
  int result = put_record(exchange, &put, lists.tags, &error);
  free(head.data);
  found->stored = stored;
  found->fields = fields;
  exchange_land_flight(exchange, result < 0 ? BRIDGE_NONE : BRIDGE_OK);
  return BRIDGE_OK;
}

void exchange_forget_cache(struct exchange *exchange) {
  struct caching *caching = exchange->caching;
  queue_drop(&caching->more);
  caching->piped = false;
  if (caching->capture) {
    objects_abandon(exchange->worker->objects, &caching->capture->writer);
    capture_free(exchange);
  }
  exchange_land_flight(exchange, BRIDGE_CLOSED);
}
