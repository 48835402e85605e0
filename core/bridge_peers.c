// SPDX-License-Identifier: Apache-2.0
// Workers that ask each other, over sockets in the state_dir: what one of them holds (a member of a consumer group) may
// be asked for by a client whose connection another one has.
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "process.h"
#include "worker.h"

enum { PEERS_BACKLOG = 256 };

int bridge_worker_count(struct worker *worker) {
  return worker->options.worker_count > 0 ? worker->options.worker_count : 1;
}

void bridge_peer_path(struct worker *worker, int id, char *out, uint32_t size) {
  snprintf(out, size, "unix:%s/worker-%d.sock", worker->options.state_dir ? worker->options.state_dir : "", id);
}

static int peers_socket(const char *path, struct error *error) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path)
    return error_set(error, ERROR_INVALID, "%.100s...: the path of state_dir is too long", path);
  strcpy(address.sun_path, path);
  unlink(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return error_system(error, "no socket for other workers");
  mode_t before = umask(077); // nobody else is to ask
  int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
  umask(before);
  if (bound == 0 && listen(fd, PEERS_BACKLOG) == 0) return fd;
  error_system(error, "cannot listen on %s", path);
  close(fd);
  return ERROR_SYSTEM;
}

int bridge_peers_open(struct worker *worker) {
  char path[256];
  if (worker->peers) return BRIDGE_OK;
  if (!worker->options.state_dir) return BRIDGE_NONE;
  bridge_peer_path(worker, worker->options.id, path, sizeof path);
  int fd = peers_socket(path + strlen("unix:"), &worker->error);
  if (fd < 0) return BRIDGE_FAILED;
  worker_listen_peers(worker, fd);
  return BRIDGE_OK;
}
