// SPDX-License-Identifier: Apache-2.0
// Datagrams for Lua: statsd, syslog and the like. One unconnected socket a family serves all destinations, so there is
// nothing to keep per destination, and a receiver that is not there costs its datagrams only.
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "target.h"
#include "worker.h"

static int *socket_of(struct worker *worker, int family) {
  int *fd = &worker->datagrams[family == AF_INET ? 0 : family == AF_INET6 ? 1 : 2];
  if (*fd > 0) return fd;
  int opened = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (opened >= 0) *fd = opened;
  return opened >= 0 ? fd : NULL;
}

void datagrams_close(struct worker *worker) {
  for (int i = 0; i < DATAGRAM_FAMILIES; i++)
    if (worker->datagrams[i] > 0) close(worker->datagrams[i]);
}

int bridge_datagram_send(struct worker *worker, const char *host, uint32_t host_len, uint32_t port, const char *data,
                         uint32_t len) {
  struct address address;
  struct slice name = {host, host_len};
  if (port > 65535) return BRIDGE_INVALID;
  if (!address_unix(name, &address) && !address_parse(name, (uint16_t)port, &address)) {
    error_set(&worker->error, ERROR_INVALID, "not an address");
    return BRIDGE_INVALID;
  }
  int *fd = socket_of(worker, address.socket.base.sa_family);
  if (fd && sendto(*fd, data, len, MSG_NOSIGNAL, &address.socket.base, address.len) >= 0) return BRIDGE_OK;
  if (fd && (errno == EAGAIN || errno == ENOBUFS)) return BRIDGE_FULL;
  error_set(&worker->error, ERROR_CLOSED, "%s", strerror(errno));
  return BRIDGE_FAILED;
}
