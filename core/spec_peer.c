// SPDX-License-Identifier: Apache-2.0
// The kit's ends of connections: reads and writes that never wait, plain or TLS.
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "spec_parts.h"

#include "tls.h"

enum { TLS_HELLO = 0x16 };

struct spec_peer *peer_new(struct spec *spec, int fd) {
  struct spec_peer *peer = calloc(1, sizeof *peer);
  struct spec_peer **peers = realloc(spec->peers, (spec->peer_count + 1) * sizeof *peers);
  if (peers) spec->peers = peers;
  if (!peer || !peers) {
    free(peer);
    close(fd);
    return NULL;
  }
  peer->fd = fd;
  peer->arrival.peer = (int32_t)spec->peer_count;
  spec->peers[spec->peer_count++] = peer;
  return peer;
}

struct spec_peer *peer_find(const struct spec *spec, int number) {
  struct spec_peer *peer = number >= 0 && (uint32_t)number < spec->peer_count ? spec->peers[number] : NULL;
  return peer && peer->fd >= 0 ? peer : NULL;
}

int peer_start_tls(struct spec *spec, struct spec_peer *peer, const char *server_name) {
  struct error error;
  struct tls_client_options client = {.verify = false};
  struct tls_server_options server = {.alpn = "http/1.1"};
  if (peer->is_service) {
    if (!spec->service_tls) spec->service_tls = tls_server_context_new(&server, &error);
    if (spec->service_tls) peer->tls = tls_server_new(spec->service_tls, peer->fd);
  } else {
    if (!spec->client_tls) spec->client_tls = tls_client_context_new(&client, &error);
    if (spec->client_tls) peer->tls = tls_client_new(spec->client_tls, peer->fd, server_name, NULL);
  }
  peer->shaking = true;
  return peer->tls ? 0 : SPEC_FAILED;
}

// A service finds out by the first byte which of the two the worker speaks.
static int peer_greet(struct spec *spec, struct spec_peer *peer) {
  uint8_t first;
  if (peer->greeted) return 0;
  ssize_t n = recv(peer->fd, &first, 1, MSG_PEEK);
  if (n < 0) return SPEC_AGAIN;
  peer->greeted = true;
  return n == 1 && first == TLS_HELLO ? peer_start_tls(spec, peer, NULL) : 0;
}

static int64_t peer_result(int64_t result) {
  if (result >= 0) return result;
  if (result == TLS_EOF) return SPEC_CLOSED;
  return result == TLS_FAILED ? SPEC_FAILED : SPEC_AGAIN;
}

static int64_t peer_handshake(struct spec_peer *peer) {
  struct error error;
  int result = tls_handshake(peer->tls, &error);
  if (result == 0) peer->shaking = false;
  return peer_result(result);
}

static int64_t socket_result(ssize_t n) {
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? SPEC_AGAIN : SPEC_FAILED;
}

int64_t spec_read(struct spec *spec, int number, char *data, uint32_t room) {
  struct spec_peer *peer = peer_find(spec, number);
  struct error error;
  if (!peer) return SPEC_FAILED;
  int64_t result = peer_greet(spec, peer);
  if (result == 0 && peer->shaking) result = peer_handshake(peer);
  if (result < 0) return result;
  if (peer->tls) return peer_result(tls_read(peer->tls, data, room, &error));
  result = socket_result(recv(peer->fd, data, room, 0));
  return result == 0 ? SPEC_CLOSED : result;
}

int64_t spec_write(struct spec *spec, int number, const char *data, uint32_t len) {
  struct spec_peer *peer = peer_find(spec, number);
  struct error error;
  if (!peer) return SPEC_FAILED;
  int64_t result = peer->shaking ? peer_handshake(peer) : 0;
  if (result < 0) return result;
  struct iovec piece = {.iov_base = (char *)(uintptr_t)data, .iov_len = len};
  if (peer->tls) return peer_result(tls_writev(peer->tls, &piece, 1, &error));
  return socket_result(send(peer->fd, data, len, MSG_NOSIGNAL));
}

void spec_finish(struct spec *spec, int number) {
  struct spec_peer *peer = peer_find(spec, number);
  if (!peer) return;
  if (peer->tls) tls_shutdown(peer->tls);
  shutdown(peer->fd, SHUT_WR);
}

void spec_close(struct spec *spec, int number) {
  struct spec_peer *peer = peer_find(spec, number);
  if (!peer) return;
  if (peer->tls) {
    if (!peer->shaking) tls_shutdown(peer->tls);
    tls_free(peer->tls);
    peer->tls = NULL;
  }
  close(peer->fd);
  peer->fd = -1;
}

void peers_free(struct spec *spec) {
  for (uint32_t i = 0; i < spec->peer_count; i++) {
    spec_close(spec, (int)i);
    free(spec->peers[i]);
  }
  free(spec->peers);
  if (spec->client_tls) tls_context_free(spec->client_tls);
  if (spec->service_tls) tls_context_free(spec->service_tls);
}
