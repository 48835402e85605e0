// SPDX-License-Identifier: Apache-2.0
// Schemas and messages, by libprotobuf's reflection.
//
// Its JSON converters alone would not do for what strangers send: the one to JSON takes truncated messages for whole
// ones and follows nested google.protobuf.Any until the stack ends, the other reads more than JSON. So a message is
// first parsed strictly, with its Anys counted, and a JSON text checked.
#include <google/protobuf/arena.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/type_resolver_util.h>

#include <climits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

extern "C" {
#include "json.h"
#include "protobuf.h"
}
#include "protobuf_nesting.h"

using namespace google::protobuf;

namespace {

constexpr char TYPE_URL[] = "type.googleapis.com";
constexpr int ANY_DEPTH_MOST = 8;          // of Anys within Anys
constexpr uint32_t JSON_DEPTH = 100;       // as deep as libprotobuf follows messages
constexpr size_t SCRATCH_KEPT = 256 << 10; // bytes of the last result that are not given back

// google.api.http: an extension of MethodOptions, and the fields of its type HttpRule.
constexpr int HTTP_EXTENSION = 72295728;
enum { RULE_GET = 2, RULE_PUT, RULE_POST, RULE_DELETE, RULE_PATCH, RULE_BODY, RULE_CUSTOM };
enum { RULE_ADDITIONAL = 11, RULE_RESPONSE_BODY = 12 };
enum { CUSTOM_KIND = 1, CUSTOM_PATH = 2 };

struct Rule {
  std::string verb, path, body, response_body;
};

struct Method {
  std::string path;
  const MethodDescriptor *descriptor;
  std::vector<Rule> rules;
};

bytes bytes_of(const std::string &text) {
  return {text.data(), static_cast<uint32_t>(text.size())};
}

std::string string_of(bytes text) {
  return std::string(text.data ? text.data : "", text.len);
}

int fail(error *error, const std::string &why) {
  return error_set(error, ERROR_INVALID, "%s", why.c_str());
}

// Collects what is wrong with a file of the set.
class Faults : public DescriptorPool::ErrorCollector {
public:
  void AddError(const std::string &file, const std::string &element, const Message *, ErrorLocation,
                const std::string &message) override {
    if (first.empty()) first = file + ": " + element + ": " + message;
  }
  std::string first;
};

// ---- HTTP rules ----

bool read_rule(const std::string &bytes, std::vector<Rule> *rules, bool additional);

void read_custom(const std::string &bytes, Rule *rule) {
  UnknownFieldSet fields;
  if (!fields.ParseFromString(bytes)) return;
  for (int i = 0; i < fields.field_count(); i++) {
    const UnknownField &field = fields.field(i);
    if (field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    if (field.number() == CUSTOM_KIND) rule->verb = field.length_delimited();
    if (field.number() == CUSTOM_PATH) rule->path = field.length_delimited();
  }
}

void read_rule_field(const UnknownField &field, Rule *rule, std::vector<std::string> *more) {
  static const char *const VERBS[] = {"", "", "GET", "PUT", "POST", "DELETE", "PATCH"};
  const std::string &text = field.length_delimited();
  switch (field.number()) {
  case RULE_GET:
  case RULE_PUT:
  case RULE_POST:
  case RULE_DELETE:
  case RULE_PATCH:
    rule->verb = VERBS[field.number()];
    rule->path = text;
    break;
  case RULE_BODY: rule->body = text; break;
  case RULE_CUSTOM: read_custom(text, rule); break;
  case RULE_ADDITIONAL: more->push_back(text); break;
  case RULE_RESPONSE_BODY: rule->response_body = text; break;
  default: break;
  }
}

// An HttpRule as bytes, with its additional bindings behind it, which have none of their own.
bool read_rule(const std::string &bytes, std::vector<Rule> *rules, bool additional) {
  UnknownFieldSet fields;
  Rule rule;
  std::vector<std::string> more;
  if (!fields.ParseFromString(bytes)) return false;
  for (int i = 0; i < fields.field_count(); i++)
    if (fields.field(i).type() == UnknownField::TYPE_LENGTH_DELIMITED) read_rule_field(fields.field(i), &rule, &more);
  if (!rule.path.empty()) rules->push_back(rule);
  for (const std::string &next : more)
    if (!additional) read_rule(next, rules, true);
  return true;
}

// The extension lies among the unknown fields, once for each time that the file sets a part of it.
std::vector<Rule> rules_of(const MethodDescriptor *method) {
  std::vector<Rule> rules;
  std::string merged;
  const MethodOptions &options = method->options();
  const UnknownFieldSet &unknown = options.GetReflection()->GetUnknownFields(options);
  for (int i = 0; i < unknown.field_count(); i++) {
    const UnknownField &field = unknown.field(i);
    if (field.number() == HTTP_EXTENSION && field.type() == UnknownField::TYPE_LENGTH_DELIMITED)
      merged += field.length_delimited();
  }
  if (!merged.empty()) read_rule(merged, &rules, false);
  return rules;
}

} // namespace

// ---- Schemas ---------------------------------------------------------------------------------------------------------

struct protobuf {
  DescriptorPool pool;
  std::unique_ptr<DynamicMessageFactory> factory;
  std::unique_ptr<util::TypeResolver> resolver;
  std::vector<Method> methods;
  const FileDescriptor *last = nullptr;                     // of the set: what was compiled, behind all that it imports
  std::unordered_map<const Descriptor *, bool> reaches_any; // whether an Any may lie in it
  std::string scratch;
};

namespace {

// Options that are still text are read when the file is built, and by recursion.
bool options_nest_deeply(const Message &message) {
  const Reflection *reflection = message.GetReflection();
  if (message.GetDescriptor() == UninterpretedOption::descriptor())
    return nests_deeply(static_cast<const UninterpretedOption &>(message).aggregate_value());
  std::vector<const FieldDescriptor *> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor *field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < count; i++)
      if (options_nest_deeply(field->is_repeated() ? reflection->GetRepeatedMessage(message, field, i)
                                                   : reflection->GetMessage(message, field)))
        return true;
  }
  return false;
}

// Adds files to the pool, each behind those it imports.
class Builder {
public:
  Builder(const FileDescriptorSet &set, DescriptorPool *pool) : pool_(pool) {
    for (const FileDescriptorProto &file : set.file()) files_[file.name()] = &file;
  }

  bool build(const std::string &name, const std::string &importer) {
    if (pool_->FindFileByName(name)) return true;
    FileDescriptorProto known;
    const FileDescriptorProto *file = find(name, &known);
    if (!file) return refuse(importer + " imports " + name + ", which is not in the descriptor set");
    if (!open_.insert(name).second || open_.size() > IMPORT_DEPTH_MOST) return refuse(name + " imports itself");
    for (const std::string &import : file->dependency())
      if (!build(import, name)) return false;
    open_.erase(name);
    Faults faults;
    return pool_->BuildFileCollectingErrors(*file, &faults) || refuse(faults.first);
  }

  std::string why;

private:
  static constexpr size_t IMPORT_DEPTH_MOST = 200;

  const FileDescriptorProto *find(const std::string &name, FileDescriptorProto *known) {
    auto found = files_.find(name);
    if (found != files_.end()) return found->second;
    const FileDescriptor *own = DescriptorPool::generated_pool()->FindFileByName(name);
    if (!own) return nullptr;
    own->CopyTo(known);
    return known;
  }

  bool refuse(const std::string &reason) {
    why = reason;
    return false;
  }

  DescriptorPool *pool_;
  std::map<std::string, const FileDescriptorProto *> files_;
  std::set<std::string> open_;
};

void add_methods(protobuf *protobuf, const FileDescriptor *file) {
  for (int i = 0; i < file->service_count(); i++) {
    const ServiceDescriptor *service = file->service(i);
    for (int k = 0; k < service->method_count(); k++) {
      const MethodDescriptor *method = service->method(k);
      protobuf->methods.push_back({"/" + service->full_name() + "/" + method->name(), method, rules_of(method)});
    }
  }
}

bool fill(protobuf *protobuf, bytes given, error *error) {
  FileDescriptorSet set;
  if (given.len > INT_MAX || !set.ParseFromArray(given.data, static_cast<int>(given.len)) || set.file_size() == 0) {
    fail(error, "not a FileDescriptorSet");
    return false;
  }
  if (options_nest_deeply(set)) {
    fail(error, "its options nest too deeply");
    return false;
  }
  Builder builder(set, &protobuf->pool);
  for (const FileDescriptorProto &file : set.file()) {
    if (!builder.build(file.name(), file.name())) {
      fail(error, builder.why);
      return false;
    }
    protobuf->last = protobuf->pool.FindFileByName(file.name());
    add_methods(protobuf, protobuf->last);
  }
  return true;
}

const Descriptor *find_message(const protobuf *protobuf, const std::string &name) {
  return protobuf->pool.FindMessageTypeByName(name);
}

} // namespace

struct protobuf *protobuf_new(bytes set, error *error) {
  LogSilencer silence;
  auto created = std::make_unique<protobuf>();
  if (!fill(created.get(), set, error)) return nullptr;
  created->factory = std::make_unique<DynamicMessageFactory>(&created->pool);
  created->resolver.reset(util::NewTypeResolverForDescriptorPool(TYPE_URL, &created->pool));
  return created.release();
}

void protobuf_free(protobuf *protobuf) {
  delete protobuf;
}

bool protobuf_has(const protobuf *protobuf, bytes message) {
  return find_message(protobuf, string_of(message)) != nullptr;
}

bool protobuf_method_at(const protobuf *protobuf, uint32_t index, struct protobuf_method *out) {
  if (index >= protobuf->methods.size()) return false;
  const Method &method = protobuf->methods[index];
  *out = {bytes_of(method.path), bytes_of(method.descriptor->input_type()->full_name()),
          bytes_of(method.descriptor->output_type()->full_name()), method.descriptor->client_streaming(),
          method.descriptor->server_streaming()};
  return true;
}

bool protobuf_rule_at(const protobuf *protobuf, uint32_t method, uint32_t index, struct protobuf_rule *out) {
  if (method >= protobuf->methods.size() || index >= protobuf->methods[method].rules.size()) return false;
  const Rule &rule = protobuf->methods[method].rules[index];
  *out = {bytes_of(rule.verb), bytes_of(rule.path), bytes_of(rule.body), bytes_of(rule.response_body)};
  return true;
}

bool protobuf_field_find(const protobuf *protobuf, const char *message, bytes name, struct protobuf_field *out) {
  const Descriptor *descriptor = find_message(protobuf, message);
  if (!descriptor) return false;
  const FieldDescriptor *field = descriptor->FindFieldByName(string_of(name));
  for (int i = 0; !field && i < descriptor->field_count(); i++)
    if (descriptor->field(i)->json_name() == string_of(name)) field = descriptor->field(i);
  if (!field) return false;
  const Descriptor *type = field->message_type();
  *out = {bytes_of(field->name()), bytes_of(field->json_name()), type ? bytes_of(type->full_name()) : bytes{"", 0},
          field->is_repeated(), field->is_map()};
  return true;
}

bool protobuf_message_at(const protobuf *protobuf, const int32_t *steps, uint32_t count, bytes *name) {
  const Descriptor *found = nullptr;
  for (uint32_t i = 0; i < count; i++) {
    int most = found ? found->nested_type_count() : protobuf->last->message_type_count();
    if (steps[i] < 0 || steps[i] >= most) return false;
    found = found ? found->nested_type(steps[i]) : protobuf->last->message_type(steps[i]);
  }
  if (found) *name = bytes_of(found->full_name());
  return found != nullptr;
}

uint32_t protobuf_message_place(const protobuf *protobuf, const char *message, int32_t *steps, uint32_t most) {
  const Descriptor *found = find_message(protobuf, message);
  if (!found || found->file() != protobuf->last) return 0;
  uint32_t count = 0;
  for (const Descriptor *at = found; at; at = at->containing_type()) count++;
  if (count > most) return 0;
  uint32_t place = count;
  for (const Descriptor *at = found; at; at = at->containing_type()) steps[--place] = at->index();
  return count;
}

// ---- Messages --------------------------------------------------------------------------------------------------------

namespace {

bool is_any(const Descriptor *type) {
  return type->well_known_type() == Descriptor::WELLKNOWNTYPE_ANY;
}

// Not by recursion: types may form a chain as long as a schema.
bool search_any(const Descriptor *from) {
  std::set<const Descriptor *> seen = {from};
  std::vector<const Descriptor *> next = {from};
  while (!next.empty()) {
    const Descriptor *type = next.back();
    next.pop_back();
    if (is_any(type)) return true;
    for (int i = 0; i < type->field_count(); i++) {
      const Descriptor *inner = type->field(i)->message_type();
      if (inner && seen.insert(inner).second) next.push_back(inner);
    }
  }
  return false;
}

bool reaches_any(protobuf *protobuf, const Descriptor *type) {
  auto known = protobuf->reaches_any.find(type);
  if (known != protobuf->reaches_any.end()) return known->second;
  return protobuf->reaches_any[type] = search_any(type);
}

const char *check_content(protobuf *protobuf, const Message &message, int anys);

// Parses what an Any holds; NULL when all is well.
const char *check_any(protobuf *protobuf, const Message &any, int anys) {
  const Descriptor *type = any.GetDescriptor();
  const FieldDescriptor *url = type->FindFieldByNumber(1), *value = type->FindFieldByNumber(2);
  if (!url || !value || url->cpp_type() != FieldDescriptor::CPPTYPE_STRING || url->is_repeated() ||
      value->cpp_type() != FieldDescriptor::CPPTYPE_STRING || value->is_repeated())
    return "google.protobuf.Any is not Google's";
  const Reflection *reflection = any.GetReflection();
  std::string name = reflection->GetString(any, url), scratch;
  size_t slash = name.rfind('/');
  if (slash != std::string::npos) name.erase(0, slash + 1);
  const Descriptor *held = protobuf->pool.FindMessageTypeByName(name);
  if (!held) return nullptr; // the converter says so, unless the Any is empty
  if (anys >= ANY_DEPTH_MOST) return "too many google.protobuf.Any within each other";
  Arena arena;
  Message *content = protobuf->factory->GetPrototype(held)->New(&arena);
  if (!content->ParsePartialFromString(reflection->GetStringReference(any, value, &scratch)))
    return "malformed content of a google.protobuf.Any";
  return reaches_any(protobuf, held) ? check_content(protobuf, *content, anys + 1) : nullptr;
}

const char *check_field(protobuf *protobuf, const Message &message, const FieldDescriptor *field, int anys) {
  const Reflection *reflection = message.GetReflection();
  if (!field->is_repeated()) return check_content(protobuf, reflection->GetMessage(message, field), anys);
  int count = reflection->FieldSize(message, field);
  for (int i = 0; i < count; i++) {
    const char *why = check_content(protobuf, reflection->GetRepeatedMessage(message, field, i), anys);
    if (why) return why;
  }
  return nullptr;
}

// Every Any in a message that has been parsed (which bounds its depth).
const char *check_content(protobuf *protobuf, const Message &message, int anys) {
  if (is_any(message.GetDescriptor())) return check_any(protobuf, message, anys);
  std::vector<const FieldDescriptor *> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor *field : fields) {
    if (!field->message_type() || !reaches_any(protobuf, field->message_type())) continue;
    const char *why = check_field(protobuf, message, field, anys);
    if (why) return why;
  }
  return nullptr;
}

// Parses a message, and gives it in canonical form: the converter does not merge what comes in parts.
const char *check_message(protobuf *protobuf, const Descriptor *type, bytes in, std::string *canonical) {
  if (in.len > INT_MAX) return "too large";
  Arena arena;
  Message *message = protobuf->factory->GetPrototype(type)->New(&arena);
  if (!message->ParsePartialFromArray(in.data, static_cast<int>(in.len))) return "malformed";
  const char *why = reaches_any(protobuf, type) ? check_content(protobuf, *message, 0) : nullptr;
  if (!why && !message->SerializePartialToString(canonical)) why = "too large";
  return why;
}

// A large result of the call before is given back.
std::string *fresh_scratch(protobuf *protobuf) {
  if (protobuf->scratch.capacity() > SCRATCH_KEPT) std::string().swap(protobuf->scratch);
  protobuf->scratch.clear();
  return &protobuf->scratch;
}

int refuse(protobuf *protobuf, const std::string &why, bytes *out) {
  protobuf->scratch = why;
  *out = bytes_of(protobuf->scratch);
  return ERROR_INVALID;
}

int unknown_message(protobuf *protobuf, const char *name, bytes *out) {
  return refuse(protobuf, std::string("there is no message ") + name, out);
}

// The library shows the place in the text on further lines.
int finish(protobuf *protobuf, const char *message, const util::Status &status, bytes *out) {
  std::string why = std::string(message) + ": " + status.message().ToString();
  if (!status.ok()) return refuse(protobuf, why.substr(0, why.find('\n')), out);
  *out = bytes_of(protobuf->scratch);
  return 0;
}

std::string url_of(const Descriptor *type) {
  return std::string(TYPE_URL) + "/" + type->full_name();
}

} // namespace

int protobuf_to_json(protobuf *protobuf, const char *message, bytes in, unsigned flags, bytes *out) {
  LogSilencer silence;
  const Descriptor *type = find_message(protobuf, message);
  if (!type) return unknown_message(protobuf, message, out);
  std::string canonical;
  const char *why = check_message(protobuf, type, in, &canonical);
  if (why) return refuse(protobuf, std::string(message) + ": " + why, out);
  util::JsonPrintOptions options;
  options.always_print_primitive_fields = (flags & PROTOBUF_DEFAULTS) != 0;
  options.preserve_proto_field_names = (flags & PROTOBUF_PROTO_NAMES) != 0;
  options.always_print_enums_as_ints = (flags & PROTOBUF_ENUM_NUMBERS) != 0;
  io::ArrayInputStream input(canonical.data(), static_cast<int>(canonical.size()));
  util::Status status;
  {
    io::StringOutputStream output(fresh_scratch(protobuf));
    status = util::BinaryToJsonStream(protobuf->resolver.get(), url_of(type), &input, &output, options);
  }
  return finish(protobuf, message, status, out);
}

// Fields by their numbers, maps by their keys.
static const char *put_in_order(protobuf *protobuf, const Descriptor *type) {
  Arena arena;
  Message *message = protobuf->factory->GetPrototype(type)->New(&arena);
  if (!message->ParsePartialFromString(protobuf->scratch)) return "an object where a single value is expected";
  if (!message->IsInitialized()) return "a required field is missing";
  protobuf->scratch.clear();
  io::StringOutputStream output(&protobuf->scratch);
  io::CodedOutputStream coded(&output);
  coded.SetSerializationDeterministic(true);
  return message->SerializePartialToCodedStream(&coded) ? nullptr : "too large";
}

// The JSON value of one field as an object around it.
static std::string around(const char *field, bytes value) {
  return std::string("{\"") + field + "\":" + string_of(value) + "}";
}

int protobuf_to_binary(protobuf *protobuf, const char *message, const char *field, bytes in, unsigned flags,
                       bytes *out) {
  LogSilencer silence;
  error wrong;
  const Descriptor *type = find_message(protobuf, message);
  if (!type) return unknown_message(protobuf, message, out);
  if (in.len > INT_MAX / 2) return refuse(protobuf, "too large", out);
  if (json_check({in.data, in.len}, JSON_DEPTH, &wrong) < 0) return refuse(protobuf, wrong.text, out);
  if (field && !type->FindFieldByName(field)) return refuse(protobuf, std::string("there is no field ") + field, out);
  util::JsonParseOptions options;
  options.ignore_unknown_fields = (flags & PROTOBUF_KNOWN_ONLY) == 0;
  std::string text = field ? around(field, in) : std::string();
  if (field) in = bytes_of(text);
  io::ArrayInputStream input(in.data, static_cast<int>(in.len));
  util::Status status;
  {
    io::StringOutputStream output(fresh_scratch(protobuf));
    status = util::JsonToBinaryStream(protobuf->resolver.get(), url_of(type), &input, &output, options);
  }
  const char *why = status.ok() && (flags & PROTOBUF_ORDERED) != 0 ? put_in_order(protobuf, type) : nullptr;
  return why ? refuse(protobuf, std::string(message) + ": " + why, out) : finish(protobuf, message, status, out);
}
