// SPDX-License-Identifier: Apache-2.0
// A WebSocket whose other end is a plugin.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "slice.h"

struct chunk;
struct exchange;

// From the bridge; see there.
int talk_accept(struct exchange *exchange);
bool talk_is_asked(const struct exchange *exchange);
int talk_send(struct exchange *exchange, int opcode, struct slice data);
int talk_receive(struct exchange *exchange, double timeout_s, struct talk_message *out);
int talk_close(struct exchange *exchange, int code, struct slice reason);
// What the client has closed with; 0: it has not.
int talk_end_code(const struct exchange *exchange);

// From the exchange.
void talk_on_client(struct exchange *exchange, struct chunk *chunk, struct slice piece);
void talk_on_client_end(struct exchange *exchange);
void talk_on_phase_end(struct exchange *exchange, bool failed); // the plugin's: it is closed, unless it has been
void talk_drain(struct exchange *exchange);
void talk_end(struct exchange *exchange); // frees it
