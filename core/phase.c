// SPDX-License-Identifier: Apache-2.0
// The only door into Lua: turns a phase, a chunk, a choice or an event into a job of the VM, and its answer into a
// phase_result. Only numbers (and a body's chunk) cross; lua/sluice/runtime.lua finds the rest by them.
#include "phase.h"

#include "vm.h"

enum {
  MAY_WAIT = 1 << PHASE_INIT_WORKER | 1 << PHASE_CERTIFICATE | 1 << PHASE_PREREAD | 1 << PHASE_REWRITE |
             1 << PHASE_ACCESS | 1 << PHASE_RESPONSE | 1 << PHASE_LOG | 1 << PHASE_WS_CLIENT_FRAME |
             1 << PHASE_WS_UPSTREAM_FRAME | 1 << PHASE_STREAM_LOG
};

static enum phase_result result_of(enum vm_result result, const struct vm_answer *answer) {
  if (result != VM_DONE) return PHASE_FAILED;
  return answer->code == PHASE_DONE || answer->code == PHASE_ANSWERED ? (enum phase_result)answer->code : PHASE_FAILED;
}

// A job that must end at once: one that waits is given up.
static enum phase_result run_now(struct vm *vm, const struct vm_job *job, struct vm_answer *answer) {
  enum vm_result result = vm_start(vm, job, answer);
  if (result == VM_WAITING) vm_refuse(vm, "a plugin waited in a phase that may not");
  return result_of(result, answer);
}

enum phase_result phase_run(struct worker *worker, double exchange, int generation, uint32_t route, enum phase phase) {
  struct vm *vm = worker_vm(worker);
  struct vm_job job = {.kind = VM_PHASE, .numbers = {exchange, generation, route, phase}};
  struct vm_answer answer;
  if (!(MAY_WAIT >> phase & 1)) return run_now(vm, &job, &answer);
  enum vm_result result = vm_start(vm, &job, &answer);
  return result == VM_WAITING ? PHASE_WAITING : result_of(result, &answer);
}

enum phase_result phase_body(struct worker *worker, double exchange, int generation, uint32_t route, struct slice chunk,
                             bool last, struct slice *out) {
  if (!chunk.data) chunk = SLICE("");
  struct vm_job job = {.kind = VM_BODY, .numbers = {exchange, generation, route, last}, .text = chunk};
  struct vm_answer answer;
  enum phase_result result = run_now(worker_vm(worker), &job, &answer);
  *out = result == PHASE_DONE && answer.has_text ? answer.text : SLICE("");
  return result;
}

static enum phase_result frame_result_of(enum vm_result result, const struct vm_answer *answer, struct slice *out) {
  if (result != VM_DONE) return PHASE_FAILED;
  *out = answer->has_text ? answer->text : (struct slice){NULL, 0};
  return answer->code == PHASE_DONE || answer->code == PHASE_DROPPED ? (enum phase_result)answer->code : PHASE_FAILED;
}

enum phase_result phase_frame(struct worker *worker, double exchange, int generation, uint32_t route, enum phase phase,
                              int opcode, struct slice data, struct slice *out) {
  if (!data.data) data = SLICE("");
  struct vm_job job = {.kind = VM_FRAME, .numbers = {exchange, generation, route, phase, opcode}, .text = data};
  struct vm_answer answer;
  enum vm_result result = vm_start(worker_vm(worker), &job, &answer);
  return result == VM_WAITING ? PHASE_WAITING : frame_result_of(result, &answer, out);
}

uint32_t phase_pick(struct worker *worker, double exchange, int generation, uint32_t upstream) {
  struct vm_job job = {.kind = VM_PICK, .numbers = {exchange, generation, upstream}};
  struct vm_answer answer;
  struct vm *vm = worker_vm(worker);
  enum vm_result result = vm_start(vm, &job, &answer);
  if (result == VM_WAITING) vm_refuse(vm, "a balancer's policy waited");
  return result == VM_DONE && answer.code > 0 ? (uint32_t)answer.code : 0;
}

void phase_event(struct worker *worker, enum phase_event event, double number, struct slice text) {
  if (!text.data) text = SLICE("");
  struct vm_job job = {.kind = VM_EVENT, .numbers = {event, number}, .text = text};
  struct vm_answer answer;
  vm_start(worker_vm(worker), &job, &answer);
}

void phase_limit_memory(struct worker *worker, uint32_t kilobytes) {
  vm_limit_memory(worker_vm(worker), kilobytes);
}

double phase_self(struct worker *worker) {
  return vm_self(worker_vm(worker));
}

void phase_resume(struct worker *worker, double coroutine, int status, double number) {
  struct vm_answer answer;
  enum vm_result result = vm_resume(worker_vm(worker), coroutine, status, number, &answer);
  if (result == VM_WAITING) return;
  if (answer.job.kind == VM_FRAME) {
    struct slice text = {NULL, 0};
    enum phase_result end = frame_result_of(result, &answer, &text);
    exchange_on_frame(worker, answer.job.numbers[0], (enum phase)answer.job.numbers[3], end, text);
    return;
  }
  if (answer.job.kind != VM_PHASE) return;
  exchange_on_phase(worker, answer.job.numbers[0], (enum phase)answer.job.numbers[3], result_of(result, &answer));
}

void phase_forget(struct worker *worker, double exchange) {
  vm_forget(worker_vm(worker), (uint32_t)((uint64_t)exchange % PHASE_SLOTS));
}
