// SPDX-License-Identifier: Apache-2.0
// The connection behind a stream: its greeting, its names and addresses.
#include "stream.h"

#include "conn.h"
#include "generation.h"
#include "tls.h"
#include "worker.h"

struct tls *stream_tls(const struct stream *stream) {
  return stream->conn->tls;
}

struct slice stream_sni(const struct stream *stream) {
  const char *sni = stream->peer.tls ? tls_sni(stream_tls(stream)) : NULL;
  return sni ? slice_of(sni) : (struct slice){NULL, 0};
}

bool stream_local_ip(const struct stream *stream, char out[46]) {
  struct sockaddr_storage address;
  socklen_t len = sizeof address;
  if (getsockname(stream->conn->fd, (struct sockaddr *)&address, &len) < 0) return false;
  if (address.ss_family != AF_INET && address.ss_family != AF_INET6) return false;
  address_text((struct sockaddr *)&address, out);
  return true;
}

void stream_open(struct stream *stream, struct worker *worker, const struct listener *listener, struct conn *conn,
                 const struct sockaddr *address) {
  stream->worker = worker;
  stream->listener = listener;
  stream->conn = conn;
  stream->peer.local_port = listener ? listener->port : 80;
  stream->peer.client_port = address_port(address);
  stream->peer.trusted = worker->generation && generation_trusts(worker->generation, address);
  address_text(address, stream->peer.client_ip);
}

// ---- Greeting ------------------------------------------------------------------------------------------------------

int stream_start_tls(struct stream *stream) {
  struct generation *generation = stream->worker->generation;
  struct tls *tls = generation ? tls_server_new(generation->tls, stream->conn->fd) : NULL;
  if (!tls) return ERROR_MEMORY;
  stream->peer.tls = true;
  stream->generation = generation_retain(generation);
  tls_set_owner(tls, stream);
  const struct listener *listener = stream->listener;
  if (!listener || !listener->http2) tls_offer_only(tls, listener && listener->kind == LISTEN_STREAM ? "" : "http/1.1");
  conn_start_tls(stream->conn, tls);
  return 0;
}

void stream_close(struct stream *stream) {
  struct exchange *exchange = stream->greeting;
  stream->greeting = NULL;
  if (exchange) exchange_on_gone(exchange);
  if (stream->generation) generation_release(stream->generation);
  stream->generation = NULL;
}

int stream_on_certificate(void *data, struct tls *tls) {
  (void)data;
  struct stream *stream = tls_owner(tls);
  return exchange_greet(stream->worker, stream, stream->generation);
}

void stream_greeted(struct stream *stream, bool good) {
  stream->greeting = NULL;
  if (!good) {
    stream->on_greeting_failed(stream);
    return;
  }
  tls_continue(stream->conn->tls);
  conn_continue_tls(stream->conn);
}
