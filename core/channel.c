// SPDX-License-Identifier: Apache-2.0
// A window of messages, and seats that send them on: in jobs of the loop, a few seats each, never inside a call from
// Lua.
#include "channel.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "exchange_parts.h"
#include "worker.h"

enum {
  CHANNELS_MOST = 4096,
  SLOTS_MOST = 65536,
  WINDOW_MOST = 1 << 20,
  SEATS_A_TURN = 128,   // before other work of the loop
  MESSAGES_A_TURN = 64, // of one seat before the others'
  COPY_MOST = 4096,
  HANDLE_SLOTS = 4096
};

struct news {
  struct buffer id, text; // of the whole event both, in this order
  char *key;              // NULL: it has none
  uint32_t key_len;
  int32_t slot; // -1: at no position
  int64_t offset;
};

struct seats {
  struct seat *first, *last;
};

struct seat {
  struct channel *channel;   // NULL: it has left
  struct exchange *exchange; // NULL: it has ended
  struct seat *previous, *next;
  struct seats *list;
  uint64_t seq;       // of the next message
  int64_t *positions; // what it has had, where that differs from what the channel tells; NULL: it does not
  bool sending;       // on the stack: it is not freed before that ends
  uint32_t key_len;
  char key[]; // what it wants to see, unless the length is UINT32_MAX: everything
};

struct channel {
  struct worker *worker;
  uint32_t slot_index, serial; // the handle
  uint32_t slots;
  char **labels;      // of each slot, in ids
  int64_t *positions; // of the next record of each slot
  int64_t *first;     // the same before the first message of the window
  struct news *ring;  // `room` is a power of two
  uint32_t room;
  uint64_t seq_first, seq_next;
  size_t bytes, most_bytes;
  uint32_t most;
  struct chunk *chunk; // that is being filled with messages
  struct seats current, due, full, behind;
  uint32_t seat_count;
  double watcher; // coroutine, 0: none
  char *fallen;   // key of who was taken from `behind` last
  bool closing;
  struct job job;
};

struct channel_entry {
  struct channel *channel;
  uint32_t serial;
};

struct channels {
  struct channel_entry entries[CHANNELS_MOST];
};

// ---- Lists -----------------------------------------------------------------------------------------------------------

static void seats_add(struct seats *list, struct seat *seat) {
  assert(!seat->list);
  seat->list = list;
  seat->previous = list->last;
  seat->next = NULL;
  if (list->last)
    list->last->next = seat;
  else
    list->first = seat;
  list->last = seat;
}

static void seats_drop(struct seat *seat) {
  struct seats *list = seat->list;
  if (!list) return;
  if (seat->previous)
    seat->previous->next = seat->next;
  else
    list->first = seat->next;
  if (seat->next)
    seat->next->previous = seat->previous;
  else
    list->last = seat->previous;
  seat->list = NULL;
}

static void seats_move(struct seat *seat, struct seats *to) {
  seats_drop(seat);
  seats_add(to, seat);
}

// ---- The window ------------------------------------------------------------------------------------------------------

static struct news *news_at(const struct channel *channel, uint64_t seq) {
  return &channel->ring[seq & (channel->room - 1)];
}

static size_t news_bytes(const struct news *news) {
  return sizeof *news + news->id.bytes + news->text.bytes + news->key_len;
}

static void news_drop(struct news *news) {
  buffer_clear(&news->id);
  buffer_clear(&news->text);
  free(news->key);
}

// Where a seat stands that has had all messages before `seq`.
static int64_t *positions_at(const struct channel *channel, uint64_t seq) {
  int64_t *positions = malloc(channel->slots * sizeof *positions + 1);
  if (!positions) return NULL;
  memcpy(positions, channel->first, channel->slots * sizeof *positions);
  for (uint64_t at = channel->seq_first; at < seq; at++) {
    const struct news *news = news_at(channel, at);
    if (news->slot >= 0) positions[news->slot] = news->offset + 1;
  }
  return positions;
}

// While what it has had can still be told. Without memory it is lost as one that has had nothing of the window.
static void seat_remember(struct seat *seat) {
  struct channel *channel = seat->channel;
  if (!seat->positions && seat->seq >= channel->seq_first) seat->positions = positions_at(channel, seat->seq);
}

static void window_shift(struct channel *channel) {
  // Those whose turn has not come yet: the full ones have done so when they became full.
  for (struct seat *seat = channel->due.first; seat; seat = seat->next)
    if (seat->seq == channel->seq_first) seat_remember(seat);
  struct news *news = news_at(channel, channel->seq_first++);
  if (news->slot >= 0) channel->first[news->slot] = news->offset + 1;
  channel->bytes -= news_bytes(news);
  news_drop(news);
}

static int window_grow(struct channel *channel) {
  uint32_t room = channel->room ? channel->room * 2 : 16;
  struct news *ring = malloc(room * sizeof *ring);
  if (!ring) return BRIDGE_FULL;
  for (uint64_t seq = channel->seq_first; seq < channel->seq_next; seq++)
    ring[seq & (room - 1)] = *news_at(channel, seq);
  free(channel->ring);
  channel->ring = ring;
  channel->room = room;
  return BRIDGE_OK;
}

// Small messages lie behind each other in one chunk; who has not sent them yet refers to it.
static int append(struct channel *channel, struct buffer *to, const char *data, size_t len) {
  while (len > 0) {
    struct chunk *chunk = channel->chunk;
    if (!chunk || chunk->used == CHUNK_BYTES) {
      if (chunk) chunk_release(chunk);
      channel->chunk = chunk = chunk_take(&channel->worker->chunks);
      if (!chunk) return BRIDGE_FULL;
    }
    size_t piece = CHUNK_BYTES - chunk->used;
    if (piece > len) piece = len;
    memcpy(chunk->data + chunk->used, data, piece);
    if (buffer_append_ref(to, chunk, chunk->data + chunk->used, piece) < 0) return BRIDGE_FULL;
    chunk->used += (uint32_t)piece;
    data += piece;
    len -= piece;
  }
  return BRIDGE_OK;
}

// "id: 2/41,0/7": the message's own slot first, then the others, with the last offset of each.
static void put_id(struct text *out, const struct channel *channel, const int64_t *positions, int32_t own) {
  text_puts(out, "id: ");
  if (own >= 0) text_printf(out, "%s%lld", channel->labels[own], (long long)positions[own] - 1);
  for (uint32_t i = 0; i < channel->slots; i++)
    if ((int32_t)i != own)
      text_printf(out, "%s%s%lld", i || own >= 0 ? "," : "", channel->labels[i], (long long)positions[i] - 1);
  text_puts(out, "\n");
}

static int news_fill(struct channel *channel, struct news *news, const struct channel_message *message) {
  if (message->key.data) {
    news->key = malloc(message->key.len + 1);
    if (!news->key) return BRIDGE_FULL;
    memcpy(news->key, message->key.data, message->key.len);
    news->key_len = message->key.len;
  }
  int status = BRIDGE_OK;
  if (message->has_id) {
    struct text id = {0};
    put_id(&id, channel, channel->positions, message->slot);
    status = append(channel, &news->id, id.data, id.len);
    text_free(&id);
  }
  return status == BRIDGE_OK ? append(channel, &news->text, message->text.data, message->text.len) : status;
}

int channel_put(struct channel *channel, const struct channel_message *message) {
  if (message->slot >= 0) {
    if ((uint32_t)message->slot >= channel->slots) return BRIDGE_INVALID;
    channel->positions[message->slot] = (int64_t)message->offset + 1;
  }
  struct news news = {.slot = message->slot, .offset = (int64_t)message->offset};
  buffer_init(&news.id, &channel->worker->chunks);
  buffer_init(&news.text, &channel->worker->chunks);
  int status = news_fill(channel, &news, message);
  size_t size = news_bytes(&news);
  while (status == BRIDGE_OK && channel->seq_first < channel->seq_next &&
         (channel->seq_next - channel->seq_first >= channel->most || channel->bytes + size > channel->most_bytes))
    window_shift(channel);
  if (status == BRIDGE_OK && channel->seq_next - channel->seq_first == channel->room) status = window_grow(channel);
  if (status != BRIDGE_OK) {
    news_drop(&news);
    return status;
  }
  channel->bytes += size;
  *news_at(channel, channel->seq_next++) = news;
  return BRIDGE_OK;
}

int channel_move(struct channel *channel, uint32_t slot, double offset) {
  if (slot >= channel->slots) return BRIDGE_INVALID;
  int64_t position = (int64_t)offset;
  bool back = position < channel->positions[slot];
  if (back) {
    while (channel->seq_first < channel->seq_next) window_shift(channel);
    memcpy(channel->first, channel->positions, channel->slots * sizeof *channel->first);
    channel->first[slot] = position;
  }
  channel->positions[slot] = position;
  return BRIDGE_OK;
}

double channel_position(const struct channel *channel, uint32_t slot) {
  return slot < channel->slots ? (double)channel->positions[slot] : -1;
}

// ---- Seats -----------------------------------------------------------------------------------------------------------

static void channel_run(struct worker *worker, void *data);

static void channel_start(struct channel *channel) {
  worker_later_call(channel->worker, channel_run, channel, &channel->job);
}

static void channel_free(struct channel *channel) {
  struct worker *worker = channel->worker;
  queue_drop(&channel->job);
  while (channel->seq_first < channel->seq_next) window_shift(channel);
  if (channel->chunk) chunk_release(channel->chunk);
  for (uint32_t i = 0; channel->labels && i < channel->slots; i++) free(channel->labels[i]);
  free(channel->labels);
  free(channel->positions);
  free(channel->first);
  free(channel->ring);
  free(channel->fallen);
  struct channel_entry *entry = worker->channels ? &worker->channels->entries[channel->slot_index] : NULL;
  if (entry && entry->channel == channel) entry->channel = NULL;
  free(channel);
}

static void wake_watcher(struct channel *channel) {
  if (channel->watcher != 0) bridge_wake(channel->worker, channel->watcher, BRIDGE_OK, 0);
  channel->watcher = 0;
}

static void seat_drop(struct seat *seat) {
  struct channel *channel = seat->channel;
  seats_drop(seat);
  seat->channel = NULL;
  channel->seat_count--;
  if (channel->seat_count > 0) return;
  wake_watcher(channel);
  if (channel->closing) channel_start(channel); // which was to wait for it
}

static void seat_free(struct seat *seat) {
  if (seat->sending) return; // who sends frees it
  free(seat->positions);
  free(seat);
}

void seat_leave(struct seat *seat) {
  seat->exchange->seat = NULL;
  seat->exchange = NULL;
  if (seat->channel) seat_drop(seat);
  seat_free(seat);
}

static bool seat_wants(const struct seat *seat, const struct news *news) {
  if (news->slot >= 0 && seat->positions && news->offset < seat->positions[news->slot]) return false;
  if (news->slot < 0 || seat->key_len == UINT32_MAX) return true;
  return news->key && news->key_len == seat->key_len && memcmp(news->key, seat->key, seat->key_len) == 0;
}

static void put_buffer(struct seat *seat, const struct buffer *buffer) {
  for (uint32_t i = 0; i < buffer->count && seat->exchange; i++) {
    const struct segment *segment = &buffer->segments[buffer->head + i];
    exchange_put_body(seat->exchange, segment->chunk, (struct slice){segment->data, segment->len}, true);
  }
}

// Id and text lie in one piece where neither crosses a chunk's end: then they go as one.
static void put_whole(struct seat *seat, const struct news *news) {
  const struct segment *id = news->id.count ? &news->id.segments[news->id.head] : NULL;
  const struct segment *text = news->text.count ? &news->text.segments[news->text.head] : NULL;
  if (id && text && news->id.count == 1 && news->text.count == 1 && id->data + id->len == text->data) {
    exchange_put_body(seat->exchange, id->chunk, (struct slice){id->data, id->len + text->len}, true);
    return;
  }
  put_buffer(seat, &news->id);
  if (seat->exchange) put_buffer(seat, &news->text);
}

static void seat_send(struct seat *seat, const struct news *news) {
  struct exchange *exchange = seat->exchange; // which may end with the first piece
  if (!seat->positions || news->id.bytes == 0) {
    put_whole(seat, news);
    return;
  }
  // A small event is copied behind its id, to go as one piece.
  const struct segment *only = news->text.count == 1 ? &news->text.segments[news->text.head] : NULL;
  bool copies = only && only->len <= COPY_MOST;
  struct text id = {0};
  put_id(&id, seat->channel, seat->positions, news->slot);
  if (copies) text_put(&id, only->data, only->len);
  exchange_put_body(exchange, NULL, (struct slice){id.data, (uint32_t)id.len}, true);
  text_free(&id);
  if (!copies && seat->exchange) put_buffer(seat, &news->text);
}

// At the window's end: is all that it has had told by the channel's own positions?
static void seat_level(struct seat *seat) {
  const struct channel *channel = seat->channel;
  if (!seat->positions) return;
  for (uint32_t i = 0; i < channel->slots; i++)
    if (seat->positions[i] > channel->positions[i]) return;
  free(seat->positions);
  seat->positions = NULL;
}

// Where the seat goes after its turn.
static void seat_settle(struct seat *seat) {
  struct channel *channel = seat->channel;
  struct exchange *exchange = seat->exchange;
  if (seat->seq < channel->seq_first) {
    seats_move(seat, &channel->behind);
    wake_watcher(channel);
  } else if (seat->seq < channel->seq_next && exchange->ops->is_congested(exchange)) {
    seat_remember(seat);
    seats_move(seat, &channel->full);
  } else if (seat->seq < channel->seq_next) {
    seats_move(seat, &channel->due);
  } else if (channel->closing) {
    seat_drop(seat);
    exchange_stream_finish(exchange);
  } else {
    seat_level(seat);
    seats_move(seat, &channel->current);
  }
}

// Sends what it has not had. The exchange may end on the way.
static void seat_pump(struct seat *seat) {
  struct channel *channel = seat->channel;
  struct exchange *exchange = seat->exchange;
  bool sent = false;
  seat->sending = true;
  for (int left = MESSAGES_A_TURN; left > 0 && seat->exchange; left--) {
    if (seat->seq < channel->seq_first || seat->seq == channel->seq_next) break;
    if (exchange->ops->is_congested(exchange)) break;
    const struct news *news = news_at(channel, seat->seq++);
    if (!seat_wants(seat, news)) continue;
    if (seat->positions && news->slot >= 0) seat->positions[news->slot] = news->offset + 1;
    seat_send(seat, news);
    sent = true;
  }
  if (sent && seat->exchange) exchange->ops->flush(exchange);
  seat->sending = false;
  if (seat->exchange)
    seat_settle(seat);
  else
    seat_free(seat);
}

static void channel_run(struct worker *worker, void *data) {
  struct channel *channel = data;
  (void)worker;
  for (int left = SEATS_A_TURN; left > 0 && channel->due.first; left--) seat_pump(channel->due.first);
  if (channel->closing) {
    // Nobody will look after these any more.
    while (channel->behind.first) {
      struct seat *seat = channel->behind.first;
      seat_drop(seat);
      exchange_stream_finish(seat->exchange);
    }
    if (channel->seat_count == 0) {
      channel_free(channel);
      return;
    }
  }
  if (channel->due.first) worker_give_way(channel->worker, channel_run, channel, &channel->job);
}

void channel_flush(struct channel *channel) {
  struct seats *due = &channel->due, *current = &channel->current;
  while (current->first) seats_move(current->first, due);
  if (due->first) channel_start(channel);
}

bool channel_is_busy(const struct channel *channel) {
  return channel->due.first != NULL;
}

void seat_on_drained(struct seat *seat) {
  struct channel *channel = seat->channel;
  if (!channel || seat->list != &channel->full) return;
  seats_move(seat, &channel->due);
  channel_start(channel);
}

// ---- Joining ---------------------------------------------------------------------------------------------------------

// How far the positions lie within the window: where to begin, and whether they are what the channel tells anyway.
static bool window_covers(const struct channel *channel, const struct channel_seat *wanted, bool *level) {
  *level = true;
  for (uint32_t i = 0; i < channel->slots; i++) {
    int64_t position = (int64_t)wanted->positions[i];
    if (position < channel->first[i]) return false;
    if (position > channel->positions[i] && !wanted->ahead) return false;
    if (position != channel->positions[i]) *level = false;
  }
  return true;
}

static int seat_place(struct channel *channel, struct seat *seat, const struct channel_seat *wanted) {
  bool level;
  seat->seq = channel->seq_next;
  if (!wanted->positions) return BRIDGE_OK;
  if (!window_covers(channel, wanted, &level)) return BRIDGE_NONE;
  if (level) return BRIDGE_OK;
  seat->positions = malloc(channel->slots * sizeof *seat->positions + 1);
  if (!seat->positions) return BRIDGE_FULL;
  for (uint32_t i = 0; i < channel->slots; i++) seat->positions[i] = (int64_t)wanted->positions[i];
  seat->seq = channel->seq_first;
  return BRIDGE_OK;
}

int channel_join(struct channel *channel, struct exchange *exchange, const struct channel_seat *wanted) {
  if (exchange->state != EXCHANGE_STREAM || !exchange->stream) return BRIDGE_CLOSED;
  if (exchange->seat || channel->closing) return BRIDGE_INVALID;
  struct seat *seat = malloc(sizeof *seat + (wanted->key.data ? wanted->key.len : 0) + 1);
  if (!seat) return BRIDGE_FULL;
  *seat = (struct seat){.exchange = exchange, .key_len = wanted->key.data ? wanted->key.len : UINT32_MAX};
  if (wanted->key.data && wanted->key.len) memcpy(seat->key, wanted->key.data, wanted->key.len);
  int status = seat_place(channel, seat, wanted);
  if (status != BRIDGE_OK) {
    free(seat);
    return status;
  }
  seat->channel = channel;
  exchange->seat = seat;
  exchange->detached = true;
  channel->seat_count++;
  seats_add(&channel->due, seat);
  channel_start(channel);
  return BRIDGE_OK;
}

static struct bytes keep_key(struct channel *channel, const struct seat *seat) {
  free(channel->fallen);
  channel->fallen = NULL;
  if (seat->key_len == UINT32_MAX) return (struct bytes){NULL, 0};
  channel->fallen = malloc(seat->key_len + 1);
  if (channel->fallen) memcpy(channel->fallen, seat->key, seat->key_len);
  return (struct bytes){channel->fallen, channel->fallen ? seat->key_len : 0};
}

int channel_take_behind(struct channel *channel, struct channel_fallen *out, double *positions) {
  struct seat *seat = channel->behind.first;
  if (!seat) return BRIDGE_NONE;
  *out = (struct channel_fallen){.exchange = exchange_handle(seat->exchange), .key = keep_key(channel, seat)};
  // What was never noted had no memory: it goes on with what is left, and is told of the gap as anybody would be.
  const int64_t *had = seat->positions ? seat->positions : channel->first;
  for (uint32_t i = 0; i < channel->slots; i++) positions[i] = (double)had[i];
  seat_leave(seat);
  return BRIDGE_OK;
}

void channel_watch(struct channel *channel, double coroutine) {
  channel->watcher = coroutine;
}

uint32_t channel_seats(const struct channel *channel) {
  return channel->seat_count;
}

// ---- Life ------------------------------------------------------------------------------------------------------------

static int entry_take(struct worker *worker, struct channel *channel) {
  if (!worker->channels) worker->channels = calloc(1, sizeof *worker->channels);
  if (!worker->channels) return BRIDGE_FULL;
  for (uint32_t i = 0; i < CHANNELS_MOST; i++) {
    struct channel_entry *entry = &worker->channels->entries[i];
    if (entry->channel) continue;
    entry->channel = channel;
    channel->slot_index = i;
    channel->serial = ++entry->serial;
    return BRIDGE_OK;
  }
  return BRIDGE_FULL;
}

static int channel_fill(struct channel *channel, const struct channel_options *options) {
  channel->positions = calloc(options->slots + 1, sizeof *channel->positions);
  channel->first = calloc(options->slots + 1, sizeof *channel->first);
  channel->labels = calloc(options->slots + 1, sizeof *channel->labels);
  if (!channel->positions || !channel->first || !channel->labels) return BRIDGE_FULL;
  channel->slots = options->slots;
  for (uint32_t i = 0; i < options->slots; i++) {
    channel->positions[i] = channel->first[i] = (int64_t)options->positions[i];
    channel->labels[i] = strndup(options->labels[i].data, options->labels[i].len);
    if (!channel->labels[i]) return BRIDGE_FULL;
  }
  return BRIDGE_OK;
}

double channel_new(struct worker *worker, const struct channel_options *options) {
  if (options->slots > SLOTS_MOST) return 0;
  struct channel *channel = calloc(1, sizeof *channel);
  if (!channel) return 0;
  channel->worker = worker;
  channel->most = options->messages < 1 ? 1 : options->messages > WINDOW_MOST ? WINDOW_MOST : options->messages;
  channel->most_bytes = options->bytes;
  if (channel_fill(channel, options) != BRIDGE_OK || entry_take(worker, channel) != BRIDGE_OK) {
    channel_free(channel);
    return 0;
  }
  return (double)((uint64_t)channel->serial * HANDLE_SLOTS + channel->slot_index);
}

struct channel *channel_find(struct worker *worker, double handle) {
  if (!worker->channels || !(handle >= 0 && handle < 9007199254740992.0)) return NULL;
  uint64_t number = (uint64_t)handle;
  const struct channel_entry *entry = &worker->channels->entries[number % HANDLE_SLOTS];
  return entry->serial == number / HANDLE_SLOTS && entry->channel && !entry->channel->closing ? entry->channel : NULL;
}

void channel_close(struct channel *channel) {
  channel->closing = true;
  wake_watcher(channel);
  struct seats *due = &channel->due;
  while (channel->current.first) seats_move(channel->current.first, due);
  channel_start(channel);
}

// The exchanges have ended, and their seats with them.
void channels_close(struct worker *worker) {
  if (!worker->channels) return;
  for (uint32_t i = 0; i < CHANNELS_MOST; i++)
    if (worker->channels->entries[i].channel) channel_free(worker->channels->entries[i].channel);
  free(worker->channels);
  worker->channels = NULL;
}
