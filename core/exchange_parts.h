// SPDX-License-Identifier: Apache-2.0
// What the parts of the exchange (exchange*.c) call of each other; nobody else includes this.
#pragma once
#include "exchange.h"

#define UNEXPECTED "An unexpected error occurred"

// exchange.c
void exchange_move(struct exchange *exchange, enum exchange_state state);
// Runs a phase. False: it waits, and exchange_on_phase will tell.
bool exchange_run(struct exchange *exchange, uint32_t route, enum phase phase, enum phase_result *result);
void exchange_wake(struct exchange *exchange, double *waiter, int status);
void exchange_finish(struct exchange *exchange);
// The response breaks off, and the client must see that it does; `status` and `message`: what it would have been told
// before the head went.
void exchange_cut(struct exchange *exchange, int status, const char *message);
// The copy of the request's content, see exchange_copy.c: the next piece of it; it is of no use any more.
void exchange_copy_piece(struct exchange *exchange, struct slice piece);
void exchange_drop_copy(struct exchange *exchange);
// As a plugin has asked for: no response, or no more of it.
void exchange_break_off(struct exchange *exchange);

// exchange_request.c
// What a phase before the service came to: an answer, a failure, or `next`.
void exchange_after_phase(struct exchange *exchange, enum phase_result result, void (*next)(struct exchange *));
void exchange_route(struct exchange *exchange);
void exchange_take_route(struct exchange *exchange, uint32_t index);
// For a call that goes nowhere: it has its route, and runs no phase by itself. False: it has been answered instead.
bool exchange_stand(struct exchange *exchange);
void exchange_note_tls(struct exchange *exchange);
void exchange_forward(struct exchange *exchange);

// exchange_response.c
// Sends exchange->status, the response's fields and exchange->answer, through header_filter and body_filter. A filter
// that fails makes it a bare 500.
void exchange_answer(struct exchange *exchange);
// The response is whole; exchange->trailers go behind it as far as the client takes them.
void exchange_send_end(struct exchange *exchange);
// Content for the client, through the content coding that a plugin chose; `chunk` (may be NULL) holds the bytes. `flush`:
// what has come so far is to be readable at the other end.
void exchange_put_body(struct exchange *exchange, struct chunk *chunk, struct slice piece, bool flush);
// An answer that a plugin gives piece by piece: its fields are those that plugins have set so far.
void exchange_begin_answer(struct exchange *exchange, int status);
// header_filter. False: a plugin failed.
bool exchange_filter_head(struct exchange *exchange);
// The streamed answer ends in the next step of the loop.
int exchange_stream_finish(struct exchange *exchange);
// Content of exchange->answer, as it is.
void exchange_send_answer(struct exchange *exchange);
// The same for an answer of the gateway's own, with the fields that plugins have set so far.
void exchange_respond(struct exchange *exchange);
// The same for an error.
void exchange_fail(struct exchange *exchange, int status, const char *message);

// Fields that plugins set before there was a response go over it.
void exchange_merge_preset(struct exchange *exchange);
// The head of an answer whose content comes piece by piece. False: it became another answer, which has been sent.
bool exchange_answer_head(struct exchange *exchange, int64_t length);
void exchange_send_piece(struct exchange *exchange, struct chunk *chunk, struct slice piece, bool last);

// exchange_tell.c
// Adds the fields of enum tells that `what` asks for.
void exchange_tell(struct exchange *exchange, uint32_t what);

// exchange_grpc.c
// Looks at the request's fields for who sent it.
void exchange_note_grpc(struct exchange *exchange);
// Sets the deadline that they ask for. False: it has been answered.
bool exchange_take_deadline(struct exchange *exchange);
void exchange_drop_deadline(struct exchange *exchange);
// Whether the service's head says that it cannot serve now, and nothing else, and another target is asked instead.
bool exchange_retry_grpc(struct exchange *exchange);
// Turns the answer that is about to be sent, an error, into one of gRPC's.
void exchange_answer_grpc(struct exchange *exchange);
// Whether a response that breaks off can end regularly, with the reason in its trailers.
bool exchange_can_end_by_trailers(const struct exchange *exchange);
bool exchange_end_grpc(struct exchange *exchange, int status, const char *message); // false: no memory

// exchange_slim.c
// From here on the exchange is a tunnel, or one streamed answer, and keeps no more than that takes.
void exchange_slim(struct exchange *exchange);
// The same, and Lua's object goes where no plugin will ask for it.
void exchange_rest(struct exchange *exchange);

// exchange_websocket.c
// The request is about to go to a service: whether its messages will be read, and what is offered for that.
void exchange_offer_websocket(struct exchange *exchange);
// The service has switched protocols. False: not as it should, and the client has been told.
bool exchange_open_websocket(struct exchange *exchange);
// A tunnel: its frames are counted where that is of use.
void exchange_track_websocket(struct exchange *exchange);
void websocket_begin(struct exchange *exchange); // the client has been told, too
void websocket_on_client(struct exchange *exchange, struct chunk *chunk, struct slice piece);
void websocket_on_service(struct exchange *exchange, struct chunk *chunk, struct slice piece);
void websocket_on_client_end(struct exchange *exchange);
void websocket_on_service_end(struct exchange *exchange);
void websocket_on_drained(struct exchange *exchange); // one of the two can take more
bool websocket_holds_service(const struct exchange *exchange);
bool websocket_waits(const struct exchange *exchange); // for a plugin
void websocket_on_phase(struct exchange *exchange, enum phase phase, enum phase_result result, struct slice text);
void websocket_end(struct exchange *exchange); // forgets the exchange
void websocket_free(struct exchange *exchange);

// exchange_flight.c
// Those who wait for what this exchange was to store are told how that ended.
void exchange_land_flight(struct exchange *exchange, int status);
bool exchange_flight_is_free(struct exchange *exchange); // nobody of this worker fetches the same

// exchange_tcp.c
// What exchange_respond is to a request: the stream ends, behind what a plugin has said.
void exchange_close_stream(struct exchange *exchange);
