// SPDX-License-Identifier: Apache-2.0
// The client's side over HTTP/2 (RFC 9113): one downstream connection, its streams, each with an exchange. It begins as
// a struct server, which knows by ALPN or by the preface that this is what the client speaks.
#pragma once
#include <stdbool.h>

#include "slice.h"

struct h2_server;
struct server;

// Takes over the connection, with what has been read of it. Closes it when there is no memory.
void h2_server_start(struct server *server);
// The client is told to go elsewhere with what it asks next, in two steps: called until the connection has closed.
void h2_server_retire(struct h2_server *h2);
// The connection has closed: its exchanges hear that their client has gone.
void h2_server_close(struct h2_server *h2);
// Whether input begins as HTTP/2 does (RFC 9113 3.4): 1 it does, 0 not, -1 too little of it has come.
int h2_server_preface(struct slice input);
