// SPDX-License-Identifier: Apache-2.0
// The master's control socket.
#include "desk.h"

#include <assert.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"

static const char *const command_names[DESK_COUNT] = {"status", "top", "profile", "reload", "upgrade", "quit", "stop"};

struct client {
  struct client *next;
  struct desk *desk;
  struct control *control;
  enum desk_command command; // DESK_COUNT: none yet
  bool begun;
};

struct desk {
  ev_io acceptable;
  struct loop *loop;
  int fd;
  void (*on_command)(void *context, enum desk_command command);
  void *context;
  struct client *first;
};

static void client_close(struct client *client) {
  for (struct client **at = &client->desk->first; *at; at = &(*at)->next) {
    if (*at != client) continue;
    *at = client->next;
    break;
  }
  control_close(client->control);
  free(client);
}

static void on_client_line(void *context, char *line, uint32_t len) {
  static const char unknown[] = "{\"ok\":false,\"errors\":[{\"message\":\"there is no such command\"}]}";
  (void)len;
  struct client *client = context;
  if (client->command != DESK_COUNT) return; // one command a connection
  for (int i = 0; i < DESK_COUNT; i++)
    if (strcmp(line, command_names[i]) == 0) client->command = (enum desk_command)i;
  if (client->command != DESK_COUNT) {
    client->desk->on_command(client->desk->context, client->command);
    return;
  }
  control_send(client->control, unknown, sizeof unknown - 1);
  control_finish(client->control);
}

static void on_client_close(void *context) {
  client_close(context);
}

static const struct control_handler client_handler = {on_client_line, on_client_close};

static void on_acceptable(struct ev_loop *ev, ev_io *watcher, int events) {
  (void)ev, (void)events;
  struct desk *desk = watcher->data;
  int fd = accept4(desk->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  struct client *client = calloc(1, sizeof *client);
  assert(client);
  *client = (struct client){.next = desk->first, .desk = desk, .command = DESK_COUNT};
  client->control = control_open(desk->loop, fd, &client_handler, client);
  assert(client->control);
  desk->first = client;
}

struct desk *desk_open(struct loop *loop, const char *path,
                       void (*on_command)(void *context, enum desk_command command), void *context,
                       struct error *error) {
  int fd = control_listen(path, error);
  if (fd < 0) return NULL;
  struct desk *desk = calloc(1, sizeof *desk);
  assert(desk);
  *desk = (struct desk){.loop = loop, .fd = fd, .on_command = on_command, .context = context};
  ev_io_init(&desk->acceptable, on_acceptable, fd, EV_READ);
  desk->acceptable.data = desk;
  ev_io_start(loop->ev, &desk->acceptable);
  return desk;
}

void desk_begin(struct desk *desk, enum desk_command command) {
  for (struct client *client = desk->first; client; client = client->next)
    if (client->command == command) client->begun = true;
}

bool desk_waits(const struct desk *desk, enum desk_command command) {
  for (struct client *client = desk->first; client; client = client->next)
    if (client->command == command && !client->begun) return true;
  return false;
}

void desk_answer(struct desk *desk, enum desk_command command, const char *json) {
  for (struct client *client = desk->first; client; client = client->next) {
    if (client->command != command || !client->begun) continue;
    control_send(client->control, json, (uint32_t)strlen(json));
    client->begun = false;
    client->command = DESK_COUNT;
    if (command != DESK_QUIT && command != DESK_STOP) control_finish(client->control);
  }
}

void desk_close(struct desk *desk) {
  ev_io_stop(desk->loop->ev, &desk->acceptable);
  close(desk->fd);
  while (desk->first) client_close(desk->first);
  free(desk);
}
