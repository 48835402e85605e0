// SPDX-License-Identifier: Apache-2.0
// Protocol buffers whose types are known at run time only, by libprotobuf: the protobuf*.cc files alone name that
// library. Compiles .proto files to descriptor sets, and turns messages into JSON and back (the proto3 JSON mapping).
// What comes from the network is bounded: malformed or endlessly nested input is an error, never a crash.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bridge.h"
#include "error.h"

// ---- Compiling ----

// NULL: no memory. What a compiler gives lives as long as it.
struct protobuf_compiler *protobuf_compiler_new(void);
void protobuf_compiler_free(struct protobuf_compiler *compiler);
// A folder in which imports are looked for, behind those added before.
void protobuf_compiler_folder(struct protobuf_compiler *compiler, const char *path);
// A file that is not on disk, found before any that is.
void protobuf_compiler_text(struct protobuf_compiler *compiler, const char *name, struct bytes text);
// Compiles the file of that name, with all that it imports, to a FileDescriptorSet. Google's well-known types, its HTTP
// annotations and its error details need not be there. Once a compiler. Negative: `out` gets a fault a line, such as
// "file:line:column: what".
int protobuf_compile(struct protobuf_compiler *compiler, const char *name, struct bytes *out);
// The paths of the files that were read from folders, from 0. False past the last.
bool protobuf_compiler_read(const struct protobuf_compiler *compiler, uint32_t index, struct bytes *path);

// ---- Schemas ----

// From a FileDescriptorSet, in any order; of what it imports, Google's well-known types may be missing. NULL, with the
// reason, when it is none.
struct protobuf *protobuf_new(struct bytes set, struct error *error);
void protobuf_free(struct protobuf *protobuf);
// By its full name, such as "bank.Account".
bool protobuf_has(const struct protobuf *protobuf, struct bytes message);
// Methods of all services in the order of the set, from 0. False past the last.
bool protobuf_method_at(const struct protobuf *protobuf, uint32_t index, struct protobuf_method *out);
// The HTTP rules (google.api.http) of a method, additional bindings behind the first. False past the last.
bool protobuf_rule_at(const struct protobuf *protobuf, uint32_t method, uint32_t index, struct protobuf_rule *out);
// A field by its name in either spelling.
bool protobuf_field_find(const struct protobuf *protobuf, const char *message, struct bytes field,
                         struct protobuf_field *out);
// A message of the set's last file by where it stands: its index in the file, then in the message that it lies in, and
// so on, each from 0. False: there is none.
bool protobuf_message_at(const struct protobuf *protobuf, const int32_t *steps, uint32_t count, struct bytes *name);
// The way back, up to `most` steps: how many there are, 0 when it is none of that file's.
uint32_t protobuf_message_place(const struct protobuf *protobuf, const char *message, int32_t *steps, uint32_t most);

// ---- Messages ----

// Both answer 0 with bytes that live until the next call, or negative with the reason in their place. JSON is strict
// (RFC 8259). `flags`: PROTOBUF_*.
int protobuf_to_json(struct protobuf *protobuf, const char *message, struct bytes in, unsigned flags,
                     struct bytes *out);
// `field` (may be NULL): `in` is the JSON value of this field alone.
int protobuf_to_binary(struct protobuf *protobuf, const char *message, const char *field, struct bytes in,
                       unsigned flags, struct bytes *out);
