// SPDX-License-Identifier: Apache-2.0
// The kit's ends of connections: reads and writes that never wait, plain or TLS.
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kit_parts.h"

#include "tls.h"

enum { TLS_HELLO = 0x16 };

struct kit_peer *peer_new(struct kit *kit, int fd) {
  struct kit_peer *peer = calloc(1, sizeof *peer);
  struct kit_peer **peers = realloc(kit->peers, (kit->peer_count + 1) * sizeof *peers);
  if (peers) kit->peers = peers;
  if (!peer || !peers) {
    free(peer);
    close(fd);
    return NULL;
  }
  peer->fd = fd;
  peer->arrival.peer = (int32_t)kit->peer_count;
  kit->peers[kit->peer_count++] = peer;
  return peer;
}

struct kit_peer *peer_find(const struct kit *kit, int number) {
  struct kit_peer *peer = number >= 0 && (uint32_t)number < kit->peer_count ? kit->peers[number] : NULL;
  return peer && peer->fd >= 0 ? peer : NULL;
}

int peer_start_tls(struct kit *kit, struct kit_peer *peer, const char *server_name) {
  struct error error;
  struct tls_client_options client = {.verify_depth = -1};
  struct tls_server_options server = {.alpn = "http/1.1"};
  if (peer->is_service) {
    if (!kit->service_tls) kit->service_tls = tls_server_context_new(&server, &error);
    if (kit->service_tls) peer->tls = tls_server_new(kit->service_tls, peer->fd);
  } else {
    if (!kit->client_tls) kit->client_tls = tls_client_context_new(&client, &error);
    if (kit->client_tls) peer->tls = tls_client_new(kit->client_tls, peer->fd, server_name, NULL);
  }
  peer->shaking = true;
  return peer->tls ? 0 : KIT_FAILED;
}

// A service finds out by the first byte which of the two the worker speaks.
static int peer_greet(struct kit *kit, struct kit_peer *peer) {
  uint8_t first;
  if (peer->greeted) return 0;
  ssize_t n = recv(peer->fd, &first, 1, MSG_PEEK);
  if (n < 0) return KIT_AGAIN;
  peer->greeted = true;
  return n == 1 && first == TLS_HELLO ? peer_start_tls(kit, peer, NULL) : 0;
}

static int64_t peer_result(int64_t result) {
  if (result >= 0) return result;
  if (result == TLS_EOF) return KIT_CLOSED;
  return result == TLS_FAILED ? KIT_FAILED : KIT_AGAIN;
}

static int64_t peer_handshake(struct kit_peer *peer) {
  struct error error;
  int result = tls_handshake(peer->tls, &error);
  if (result == 0) peer->shaking = false;
  return peer_result(result);
}

static int64_t socket_result(ssize_t n) {
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? KIT_AGAIN : KIT_FAILED;
}

int64_t kit_read(struct kit *kit, int number, char *data, uint32_t room) {
  struct kit_peer *peer = peer_find(kit, number);
  struct error error;
  if (!peer) return KIT_FAILED;
  int64_t result = peer_greet(kit, peer);
  if (result == 0 && peer->shaking) result = peer_handshake(peer);
  if (result < 0) return result;
  if (peer->tls) return peer_result(tls_read(peer->tls, data, room, &error));
  result = socket_result(recv(peer->fd, data, room, 0));
  return result == 0 ? KIT_CLOSED : result;
}

int64_t kit_write(struct kit *kit, int number, const char *data, uint32_t len) {
  struct kit_peer *peer = peer_find(kit, number);
  struct error error;
  if (!peer) return KIT_FAILED;
  int64_t result = peer->shaking ? peer_handshake(peer) : 0;
  if (result < 0) return result;
  struct iovec piece = {.iov_base = (char *)(uintptr_t)data, .iov_len = len};
  if (peer->tls) return peer_result(tls_writev(peer->tls, &piece, 1, &error));
  return socket_result(send(peer->fd, data, len, MSG_NOSIGNAL));
}

void kit_finish(struct kit *kit, int number) {
  struct kit_peer *peer = peer_find(kit, number);
  if (!peer) return;
  if (peer->tls) tls_shutdown(peer->tls);
  shutdown(peer->fd, SHUT_WR);
}

void kit_close(struct kit *kit, int number) {
  struct kit_peer *peer = peer_find(kit, number);
  if (!peer) return;
  if (peer->tls) {
    if (!peer->shaking) tls_shutdown(peer->tls);
    tls_free(peer->tls);
    peer->tls = NULL;
  }
  close(peer->fd);
  peer->fd = -1;
}

void peers_free(struct kit *kit) {
  for (uint32_t i = 0; i < kit->peer_count; i++) {
    kit_close(kit, (int)i);
    free(kit->peers[i]);
  }
  free(kit->peers);
  if (kit->client_tls) tls_context_free(kit->client_tls);
  if (kit->service_tls) tls_context_free(kit->service_tls);
}
