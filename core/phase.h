// SPDX-License-Identifier: Apache-2.0
// The only door from C into Lua: runs the plugins of a phase, events and timers in pooled coroutines.
// Uses vm (the LuaJIT state, budgets, samples). Everything here runs on the worker's loop thread.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "slice.h"

// Lua keeps its object of an exchange in an array by slot, which is the handle modulo this.
enum { PHASE_SLOTS = 1 << 20 };

// Routes that are none: what no route matched, and the status listener's (its handler is sluice.status_api).
enum { ROUTE_NONE = 0 };
#define ROUTE_STATUS UINT32_MAX

enum phase_result {
  PHASE_DONE,     // every plugin of the phase has run
  PHASE_ANSWERED, // a plugin answered (bridge_exit): go to header_filter with that answer
  PHASE_WAITING,  // a plugin waits; exchange_on_phase is called when the phase ends
  PHASE_FAILED,   // a plugin raised or passed its budget; logged already: answer 500
  PHASE_DROPPED   // of a frame phase: the message goes no further
};

// Events that are not part of an exchange. Each runs in a coroutine of its own and may wait.
enum phase_event {
  EVENT_START,          // once, after the VM is up: number = worker id
  EVENT_STAGE,          // text = path of a snapshot: build the generation in slices, go live, report
  EVENT_GENERATION_END, // number = generation whose last exchange ended: cancel its timers, forget it
  EVENT_TIMER,          // number = id given to bridge_timer
  EVENT_STATUS,         // number = request id: report "status ID {json}"
  EVENT_STOP,           // the worker drains: plugins' last chance; no new timers
  EVENT_KAFKA_TOKEN     // text = a cluster's name: see bridge_kafka_token
};

// Runs `phase` of the plan of `route` (0: the plan for no route) in `generation` for an exchange. Called by exchange
// only when the plan's mask has the phase. While a plugin waits in access with a streamed answer, header_filter and
// body_filter of the same exchange run; else nothing runs for an exchange whose phase waits.
enum phase_result phase_run(struct worker *worker, double exchange, int generation, uint32_t route, enum phase phase);

// body_filter: one chunk through the plugins. `out` (valid until the next call into Lua) gets what to pass on.
enum phase_result phase_body(struct worker *worker, double exchange, int generation, uint32_t route, struct slice chunk,
                             bool last, struct slice *out);

// A frame phase: one message of a WebSocket through the plugins. PHASE_DONE: it goes on, with the content of `out` where
// that has any (valid until the next call into Lua). PHASE_WAITING: exchange_on_frame is called when it ends.
enum phase_result phase_frame(struct worker *worker, double exchange, int generation, uint32_t route, enum phase phase,
                              int opcode, struct slice data, struct slice *out);

// Asks the upstream's Lua policy for a target: its index from 1, 0 when there is none. Never waits.
uint32_t phase_pick(struct worker *worker, double exchange, int generation, uint32_t upstream);

// The exchange has ended: its Lua object, if it had one, is forgotten.
void phase_forget(struct worker *worker, double exchange);

// Fires an event. Failures are logged, never returned.
void phase_event(struct worker *worker, enum phase_event event, double number, struct slice text);

// The running coroutine, to be given to phase_resume when what it waits for has happened. 0: none runs.
double phase_self(struct worker *worker);
void phase_limit_memory(struct worker *worker, uint32_t kilobytes); // see vm_limit_memory
// Resumes a waiting coroutine with (status, number): from the loop only, never from inside a bridge function.
void phase_resume(struct worker *worker, double coroutine, int status, double number);

// Implemented by exchange: a phase that had answered PHASE_WAITING has ended. exchange_on_frame: one of phase_frame.
void exchange_on_phase(struct worker *worker, double exchange, enum phase phase, enum phase_result result);
void exchange_on_frame(struct worker *worker, double exchange, enum phase phase, enum phase_result result,
                       struct slice text);
