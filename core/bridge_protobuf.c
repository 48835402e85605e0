// SPDX-License-Identifier: Apache-2.0
// What Lua may call of protocol buffers: thin bodies over the module.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bridge.h"
#include "protobuf.h"

struct protobuf_compiler *bridge_protobuf_compiler_new(void) {
  return protobuf_compiler_new();
}

void bridge_protobuf_compiler_free(struct protobuf_compiler *compiler) {
  protobuf_compiler_free(compiler);
}

void bridge_protobuf_compiler_folder(struct protobuf_compiler *compiler, const char *path) {
  protobuf_compiler_folder(compiler, path);
}

void bridge_protobuf_compiler_text(struct protobuf_compiler *compiler, const char *name, const char *text,
                                   uint32_t len) {
  protobuf_compiler_text(compiler, name, (struct bytes){text, len});
}

int bridge_protobuf_compile(struct protobuf_compiler *compiler, const char *name, struct bytes *out) {
  return protobuf_compile(compiler, name, out) < 0 ? BRIDGE_INVALID : BRIDGE_OK;
}

bool bridge_protobuf_compiler_read(const struct protobuf_compiler *compiler, uint32_t index, struct bytes *path) {
  return protobuf_compiler_read(compiler, index, path);
}

struct protobuf *bridge_protobuf_new(const char *set, uint32_t len, char *why, uint32_t why_bytes) {
  struct error error = {0};
  struct protobuf *protobuf = protobuf_new((struct bytes){set, len}, &error);
  if (!protobuf) snprintf(why, why_bytes, "%s", error.text);
  return protobuf;
}

void bridge_protobuf_free(struct protobuf *protobuf) {
  protobuf_free(protobuf);
}

bool bridge_protobuf_has(const struct protobuf *protobuf, const char *message, uint32_t len) {
  return protobuf_has(protobuf, (struct bytes){message, len});
}

bool bridge_protobuf_method(const struct protobuf *protobuf, uint32_t index, struct protobuf_method *out) {
  return protobuf_method_at(protobuf, index, out);
}

bool bridge_protobuf_rule(const struct protobuf *protobuf, uint32_t method, uint32_t index, struct protobuf_rule *out) {
  return protobuf_rule_at(protobuf, method, index, out);
}

bool bridge_protobuf_field(const struct protobuf *protobuf, const char *message, const struct bytes *field,
                           struct protobuf_field *out) {
  return protobuf_field_find(protobuf, message, *field, out);
}

bool bridge_protobuf_message_at(const struct protobuf *protobuf, const int32_t *steps, uint32_t count,
                                struct bytes *name) {
  return protobuf_message_at(protobuf, steps, count, name);
}

uint32_t bridge_protobuf_message_place(const struct protobuf *protobuf, const char *message, int32_t *steps,
                                       uint32_t most) {
  return protobuf_message_place(protobuf, message, steps, most);
}

int bridge_protobuf_to_json(struct protobuf *protobuf, const char *message, const struct bytes *in, uint32_t flags,
                            struct bytes *out) {
  return protobuf_to_json(protobuf, message, *in, flags, out) < 0 ? BRIDGE_INVALID : BRIDGE_OK;
}

int bridge_protobuf_to_binary(struct protobuf *protobuf, const char *message, const char *field, const struct bytes *in,
                              uint32_t flags, struct bytes *out) {
  return protobuf_to_binary(protobuf, message, field, *in, flags, out) < 0 ? BRIDGE_INVALID : BRIDGE_OK;
}
