// SPDX-License-Identifier: Apache-2.0
// The worker's end of a spec that drives a gateway process.
#include "spec_remote.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "spec_parts.h"

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

static void say(struct spec *spec, const struct text *text) {
  control_send(spec->control, text->data, (uint32_t)text->len);
}

static void say_ok(struct spec *spec) {
  control_send(spec->control, "ok", 2);
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

static void tell_arrival(struct spec *spec, int fd, const char *address, uint32_t port) {
  struct sockaddr_in from = {0};
  socklen_t len = sizeof from;
  struct text line = {0};
  getsockname(fd, (struct sockaddr *)&from, &len);
  text_printf(&line, "arrival %u %u %s %s", ntohs(from.sin_port), port, address, spec_name_of(spec, address));
  say(spec, &line);
  text_free(&line);
}

static int on_connect(struct worker *worker, struct conn *conn, const struct address *to) {
  struct spec *spec = worker->spec;
  char address[48];
  uint32_t port;
  struct error error = {0};
  int mood = spec_mood_of(spec, to, address, &port);
  if (mood != SPEC_ACCEPTS) return spec_turn_away(spec, conn, mood);
  struct sockaddr_in kit = {.sin_family = AF_INET, .sin_port = htons((uint16_t)spec->kit_port)};
  kit.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int result = conn_connect(conn, &worker->loop, &worker->chunks, (const struct sockaddr *)&kit, sizeof kit, &error);
  if (result == 0) tell_arrival(spec, conn->fd, address, port);
  return result;
}

static void take_origin(struct spec *spec, const struct words *words) {
  struct spec_origin *origin = calloc(1, sizeof *origin);
  if (!origin) return;
  origin->port = (uint32_t)number_at(words, 1);
  snprintf(origin->address, sizeof origin->address, "%s", word_at(words, 2));
  origin->client_port = (uint32_t)number_at(words, 3);
  origin->next = spec->origins; // a port may come again: the last word counts
  spec->origins = origin;
}

void spec_client_address(const struct spec *spec, struct sockaddr_storage *storage) {
  uint32_t port = address_port((const struct sockaddr *)storage);
  const struct spec_origin *origin = spec->origins;
  while (origin && origin->port != port) origin = origin->next;
  struct address address;
  if (!origin || !address_parse(slice_of(origin->address), (uint16_t)origin->client_port, &address)) return;
  memcpy(storage, &address.socket, address.len);
}

// ---- Lines -------------------------------------------------------------------------------------------------------------

static void take_name(struct spec *spec, const struct words *words) {
  struct dns_record records[DNS_RECORDS] = {0};
  int count = (int)number_at(words, 3);
  for (int i = 0; i < count && i < DNS_RECORDS; i++) {
    snprintf(records[i].address, sizeof records[i].address, "%s", word_at(words, 4 + i * 4));
    records[i].port = (uint32_t)number_at(words, 5 + i * 4);
    records[i].priority = (uint32_t)number_at(words, 6 + i * 4);
    records[i].weight = (uint32_t)number_at(words, 7 + i * 4);
  }
  spec_name(spec, word_at(words, 1), (int)number_at(words, 2), records, count < DNS_RECORDS ? count : DNS_RECORDS);
}

static int take_record(struct spec *spec, const struct words *words) {
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
  return spec_produce(spec, &message);
}

static void say_record(struct spec *spec, const struct words *words) {
  struct kafka_record record;
  struct text line = {0};
  if (spec_record(spec, word_at(words, 1), (uint32_t)number_at(words, 2), &record)) {
    text_printf(&line, "record %d %.0f %.0f", record.partition, record.offset, record.timestamp_ms);
    put_bytes(&line, record.key);
    put_bytes(&line, record.value);
    for (uint32_t i = 0; i < record.header_count * 2; i++) put_bytes(&line, record.headers[i]);
  } else {
    text_puts(&line, "none");
  }
  say(spec, &line);
  text_free(&line);
}

// Whether anything happened since the kit last asked, and where the worker stands.
static void say_turned(struct spec *spec) {
  struct worker *worker = spec->worker;
  const struct loop *loop = &worker->loop;
  bool busy = spec->events > 1 || worker->jobs || timers_next(&loop->timers) <= loop->clock.mono_us; // 1: this line
  struct text line = {0};
  text_printf(&line, "turned %d %.6f %.6f %u %lld", busy, spec_next(spec), (double)loop->clock.real_us / 1e6,
              worker->board->generation, (long long)worker->board->exchanges_open);
  spec->events = 0;
  say(spec, &line);
  text_free(&line);
}

static void say_address(struct spec *spec, const struct words *words) {
  const char *address = spec_address(spec, word_at(words, 1));
  control_send(spec->control, address, (uint32_t)strlen(address));
}

static void begin(struct spec *spec, const struct words *words) {
  spec_take_over(spec, (double)number_at(words, 1), (double)number_at(words, 2));
  spec->kit_port = (uint32_t)number_at(words, 3);
  spec->worker->connect = on_connect;
}

// Commands that are answered by "ok".
static bool obey(struct spec *spec, const struct words *words) {
  const char *command = word_at(words, 0);
  if (strcmp(command, "begin") == 0)
    begin(spec, words);
  else if (strcmp(command, "advance") == 0)
    clock_advance(&spec->worker->loop.clock, number_at(words, 1));
  else if (strcmp(command, "name") == 0)
    take_name(spec, words);
  else if (strcmp(command, "mood") == 0)
    spec_mood(spec, name_at(words, 1), (uint32_t)number_at(words, 2), (int)number_at(words, 3));
  else if (strcmp(command, "origin") == 0)
    take_origin(spec, words);
  else if (strcmp(command, "topic") == 0)
    spec_topic(spec, word_at(words, 1), (uint32_t)number_at(words, 2));
  else if (strcmp(command, "fails") == 0)
    spec_topic_fails(spec, name_at(words, 1), name_at(words, 2));
  else if (strcmp(command, "produce") == 0)
    return take_record(spec, words) == BRIDGE_OK;
  else
    return false;
  return true;
}

static void on_line(void *context, char *line, uint32_t len) {
  struct spec *spec = context;
  struct words words;
  (void)len;
  cut(&words, line);
  if (strcmp(word_at(&words, 0), "turn") == 0)
    say_turned(spec);
  else if (strcmp(word_at(&words, 0), "record") == 0)
    say_record(spec, &words);
  else if (strcmp(word_at(&words, 0), "address") == 0)
    say_address(spec, &words);
  else if (obey(spec, &words))
    say_ok(spec);
  else
    control_send(spec->control, "no", 2);
}

static void on_kit_gone(void *context) {
  struct spec *spec = context;
  control_close(spec->control);
  spec->control = NULL;
  spec->worker->stopped = true;
  ev_break(spec->worker->loop.ev, EVBREAK_ALL);
}

// ---- Life --------------------------------------------------------------------------------------------------------------

static int kit_connect(const char *path) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (const struct sockaddr *)&name, sizeof name) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

struct spec *spec_attach(struct worker *worker) {
  static const struct control_handler handler = {on_line, on_kit_gone};
  const char *path = getenv("SLUICE_SPEC_SOCKET");
  int fd = path ? kit_connect(path) : -1;
  struct spec *spec = fd >= 0 ? spec_empty() : NULL;
  if (!spec) return NULL;
  spec->worker = worker;
  spec->control = control_open(&worker->loop, fd, &handler, spec);
  while (!worker->spec && !worker->stopped) ev_run(worker->loop.ev, EVRUN_ONCE);
  return spec;
}

void spec_detach(struct spec *spec) {
  if (!spec) return;
  while (spec->origins) {
    struct spec_origin *origin = spec->origins;
    spec->origins = origin->next;
    free(origin);
  }
  spec_drop(spec);
}
