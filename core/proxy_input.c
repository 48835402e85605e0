// SPDX-License-Identifier: Apache-2.0
// The header is looked at in the kernel's buffer and taken out of it no further than it goes. What is the beginning of
// one is taken at once, so that the socket is readable only when more has come.
#include "proxy_input.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "conn.h"
#include "generation.h"
#include "stream.h"
#include "worker.h"

struct proxy_input {
  uint32_t len;
  char data[PROXY_PROTOCOL_MOST];
};

struct proxy_input *proxy_input_new(void) {
  return calloc(1, sizeof(struct proxy_input));
}

void proxy_input_free(struct proxy_input *input) {
  free(input);
}

static void follow(struct stream *stream, const struct proxy_header *header) {
  const struct sockaddr *source = &header->source.socket.base;
  struct peer *peer = &stream->peer;
  address_text(source, peer->client_ip);
  peer->client_port = address_port(source);
  peer->trusted = generation_trusts(stream->worker->generation, source);
}

int proxy_input_read(struct proxy_input *input, struct stream *stream, struct proxy_header *header) {
  int fd = stream->conn->fd;
  ssize_t n = recv(fd, input->data + input->len, sizeof input->data - input->len, MSG_PEEK);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (n <= 0) return ERROR_CLOSED;
  int used = proxy_protocol_read(input->data, input->len + (uint32_t)n, header);
  if (used < 0) return ERROR_INVALID;
  size_t take = used > 0 ? (size_t)used - input->len : (size_t)n;
  if (recv(fd, input->data + input->len, take, 0) != (ssize_t)take) return ERROR_CLOSED;
  input->len += (uint32_t)take;
  if (used == 0) return 0;
  // Whoever may connect could say anything: only the operator's own proxies are believed.
  if (!stream->peer.trusted) header->known = false;
  if (header->known) follow(stream, header);
  return 1;
}
