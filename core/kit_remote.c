// SPDX-License-Identifier: Apache-2.0
// The worker's end of a spec that drives a gateway process.
#include "kit_remote.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kit_parts.h"

#include "control.h"
#include "topics.h"

enum { WORDS_MOST = 256 };

// A line, cut into words.
struct words {
  char *at[WORDS_MOST];
  int count;
};

static void cut(struct words *words, char *line) {
  words->count = 0;
  for (char *word = strsep(&line, " "); word && words->count < WORDS_MOST; word = strsep(&line, " "))
    words->at[words->count++] = word;
}

static const char *word_at(const struct words *words, int index) {
  return index < words->count ? words->at[index] : "";
}

static int64_t number_at(const struct words *words, int index) {
  return strtoll(word_at(words, index), NULL, 10);
}

// "-" stands for what is empty, or for all.
static const char *name_at(const struct words *words, int index) {
  const char *word = word_at(words, index);
  return strcmp(word, "-") == 0 ? "" : word;
}

static void say(struct kit *kit, const struct text *text) {
  control_send(kit->control, text->data, (uint32_t)text->len);
}

static void say_ok(struct kit *kit) {
  control_send(kit->control, "ok", 2);
}

// ---- Bytes as hexadecimal digits; "-" is none --------------------------------------------------------------------------

static int digit(char c) {
  return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

// In place: the bytes are half as long as their digits.
static struct bytes bytes_at(const struct words *words, int index) {
  char *word = index < words->count ? words->at[index] : NULL;
  if (!word || strcmp(word, "-") == 0) return (struct bytes){NULL, 0};
  uint32_t len = (uint32_t)strlen(word) / 2;
  for (uint32_t i = 0; i < len; i++) word[i] = (char)(digit(word[2 * i]) << 4 | digit(word[2 * i + 1]));
  return (struct bytes){word, len};
}

static void put_bytes(struct text *text, struct bytes bytes) {
  text_puts(text, bytes.data ? " " : " -");
  for (uint32_t i = 0; i < bytes.len; i++) text_printf(text, "%02x", (uint8_t)bytes.data[i]);
}

// ---- Connections to services ---------------------------------------------------------------------------------------

static void tell_arrival(struct kit *kit, int fd, const char *address, uint32_t port) {
  struct sockaddr_in from = {0};
  socklen_t len = sizeof from;
  struct text line = {0};
  getsockname(fd, (struct sockaddr *)&from, &len);
  text_printf(&line, "arrival %u %u %s %s", ntohs(from.sin_port), port, address, kit_name_of(kit, address));
  say(kit, &line);
  text_free(&line);
}

static int on_connect(struct worker *worker, struct conn *conn, const struct address *to) {
  struct kit *kit = worker->kit;
  char address[48];
  uint32_t port;
  struct error error = {0};
  int mood = kit_mood_of(kit, to, address, &port);
  if (mood != KIT_ACCEPTS) return kit_turn_away(kit, conn, mood);
  struct sockaddr_in home = {.sin_family = AF_INET, .sin_port = htons((uint16_t)kit->kit_port)};
  home.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int result = conn_connect(conn, &worker->loop, &worker->chunks, (const struct sockaddr *)&home, sizeof home, &error);
  if (result == 0) tell_arrival(kit, conn->fd, address, port);
  return result;
}

static void take_origin(struct kit *kit, const struct words *words) {
  struct kit_origin *origin = calloc(1, sizeof *origin);
  if (!origin) return;
  origin->port = (uint32_t)number_at(words, 1);
  snprintf(origin->address, sizeof origin->address, "%s", word_at(words, 2));
  origin->client_port = (uint32_t)number_at(words, 3);
  origin->next = kit->origins; // a port may come again: the last word counts
  kit->origins = origin;
}

void kit_client_address(const struct kit *kit, struct sockaddr_storage *storage) {
  uint32_t port = address_port((const struct sockaddr *)storage);
  const struct kit_origin *origin = kit->origins;
  while (origin && origin->port != port) origin = origin->next;
  struct address address;
  if (!origin || !address_parse(slice_of(origin->address), (uint16_t)origin->client_port, &address)) return;
  memcpy(storage, &address.socket, address.len);
}

// ---- Lines -------------------------------------------------------------------------------------------------------------

static void take_name(struct kit *kit, const struct words *words) {
  struct dns_record records[DNS_RECORDS] = {0};
  int count = (int)number_at(words, 3);
  for (int i = 0; i < count && i < DNS_RECORDS; i++) {
    snprintf(records[i].address, sizeof records[i].address, "%s", word_at(words, 4 + i * 4));
    records[i].port = (uint32_t)number_at(words, 5 + i * 4);
    records[i].priority = (uint32_t)number_at(words, 6 + i * 4);
    records[i].weight = (uint32_t)number_at(words, 7 + i * 4);
  }
  kit_name(kit, word_at(words, 1), (int)number_at(words, 2), records, count < DNS_RECORDS ? count : DNS_RECORDS);
}

static int take_record(struct kit *kit, const struct words *words) {
  struct bytes headers[WORDS_MOST];
  struct kafka_message message = {.topic = word_at(words, 1),
                                  .partition = (int32_t)number_at(words, 2),
                                  .timestamp_ms = (double)number_at(words, 3),
                                  .headers = headers};
  message.key = bytes_at(words, 4);
  message.value = bytes_at(words, 5);
  for (int i = 6; i + 1 < words->count; i += 2) {
    headers[i - 6] = bytes_at(words, i);
    headers[i - 5] = bytes_at(words, i + 1);
    message.header_count++;
  }
  return kit_produce(kit, &message);
}

static void say_record(struct kit *kit, const struct words *words) {
  struct kafka_record record;
  struct text line = {0};
  if (kit_record(kit, word_at(words, 1), (uint32_t)number_at(words, 2), &record)) {
    text_printf(&line, "record %d %.0f %.0f", record.partition, record.offset, record.timestamp_ms);
    put_bytes(&line, record.key);
    put_bytes(&line, record.value);
    for (uint32_t i = 0; i < record.header_count * 2; i++) put_bytes(&line, record.headers[i]);
  } else {
    text_puts(&line, "none");
  }
  say(kit, &line);
  text_free(&line);
}

// Whether anything happened since the kit last asked, and where the worker stands.
static void say_turned(struct kit *kit) {
  struct worker *worker = kit->worker;
  bool busy = kit->events > 1 || kit_is_busy(kit); // 1: this line
  struct text line = {0};
  text_printf(&line, "turned %d %.6f %.6f %u %lld", busy, kit_next(kit), (double)worker->loop.clock.real_us / 1e6,
              worker->board->generation, (long long)worker->board->exchanges_open);
  kit->events = 0;
  say(kit, &line);
  text_free(&line);
}

static void say_address(struct kit *kit, const struct words *words) {
  const char *address = kit_address(kit, word_at(words, 1));
  control_send(kit->control, address, (uint32_t)strlen(address));
}

static void begin(struct kit *kit, const struct words *words) {
  kit_take_over(kit, (double)number_at(words, 1), (double)number_at(words, 2));
  kit->kit_port = (uint32_t)number_at(words, 3);
  kit->worker->connect = on_connect;
}

// Commands that are answered by "ok".
static bool obey(struct kit *kit, const struct words *words) {
  const char *command = word_at(words, 0);
  if (strcmp(command, "begin") == 0)
    begin(kit, words);
  else if (strcmp(command, "advance") == 0)
    clock_advance(&kit->worker->loop.clock, number_at(words, 1));
  else if (strcmp(command, "name") == 0)
    take_name(kit, words);
  else if (strcmp(command, "mood") == 0)
    kit_mood(kit, name_at(words, 1), (uint32_t)number_at(words, 2), (int)number_at(words, 3));
  else if (strcmp(command, "origin") == 0)
    take_origin(kit, words);
  else if (strcmp(command, "topic") == 0)
    kit_topic(kit, word_at(words, 1), (uint32_t)number_at(words, 2));
  else if (strcmp(command, "fails") == 0)
    kit_topic_fails(kit, name_at(words, 1), name_at(words, 2));
  else if (strcmp(command, "produce") == 0)
    return take_record(kit, words) == BRIDGE_OK;
  else
    return false;
  return true;
}

static void on_line(void *context, char *line, uint32_t len) {
  struct kit *kit = context;
  struct words words;
  (void)len;
  cut(&words, line);
  if (strcmp(word_at(&words, 0), "turn") == 0)
    say_turned(kit);
  else if (strcmp(word_at(&words, 0), "record") == 0)
    say_record(kit, &words);
  else if (strcmp(word_at(&words, 0), "address") == 0)
    say_address(kit, &words);
  else if (obey(kit, &words))
    say_ok(kit);
  else
    control_send(kit->control, "no", 2);
}

static void on_kit_gone(void *context) {
  struct kit *kit = context;
  control_close(kit->control);
  kit->control = NULL;
  kit->worker->stopped = true;
  ev_break(kit->worker->loop.ev, EVBREAK_ALL);
}

// ---- Life --------------------------------------------------------------------------------------------------------------

static int socket_to(const char *path) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (const struct sockaddr *)&name, sizeof name) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

struct kit *kit_attach(struct worker *worker) {
  static const struct control_handler handler = {on_line, on_kit_gone};
  const char *path = getenv("SLUICE_SPEC_SOCKET");
  int fd = path ? socket_to(path) : -1;
  struct kit *kit = fd >= 0 ? kit_empty() : NULL;
  if (!kit) return NULL;
  kit->worker = worker;
  kit->control = control_open(&worker->loop, fd, &handler, kit);
  while (!worker->kit && !worker->stopped) ev_run(worker->loop.ev, EVRUN_ONCE);
  return kit;
}

void kit_detach(struct kit *kit) {
  if (!kit) return;
  while (kit->origins) {
    struct kit_origin *origin = kit->origins;
    kit->origins = origin->next;
    free(origin);
  }
  kit_drop(kit);
}
