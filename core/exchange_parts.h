// SPDX-License-Identifier: Apache-2.0
// What the parts of the exchange (exchange*.c) call of each other; nobody else includes this.
#pragma once
#include "exchange.h"

// exchange.c
void exchange_move(struct exchange *exchange, enum exchange_state state);
// Runs a phase. False: it waits, and exchange_on_phase will tell.
bool exchange_run(struct exchange *exchange, uint32_t route, enum phase phase, enum phase_result *result);
void exchange_wake(struct exchange *exchange, double *waiter, int status);
void exchange_finish(struct exchange *exchange);
// The response breaks off, and the client must see that it does.
void exchange_cut(struct exchange *exchange);

// exchange_request.c
// What a phase before the service came to: an answer, a failure, or `next`.
void exchange_after_phase(struct exchange *exchange, enum phase_result result, void (*next)(struct exchange *));
void exchange_route(struct exchange *exchange);
void exchange_forward(struct exchange *exchange);

// exchange_response.c
// Sends exchange->status, the response's fields and exchange->answer, through header_filter and body_filter. A filter
// that fails makes it a bare 500.
void exchange_answer(struct exchange *exchange);
void exchange_send_end(struct exchange *exchange, const struct headers *trailers);
// The same for an answer of the gateway's own, with the fields that plugins have set so far.
void exchange_respond(struct exchange *exchange);
// The same for an error.
void exchange_fail(struct exchange *exchange, int status, const char *message);
