// SPDX-License-Identifier: Apache-2.0
// Compiles .proto files, as protoc does, with libprotobuf's parser.
#include <google/protobuf/compiler/importer.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/descriptor_database.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <sys/stat.h>

#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

extern "C" {
#include "protobuf.h"
}
#include "protobuf_nesting.h"

using namespace google::protobuf;

namespace {

constexpr size_t FILE_BYTES_MOST = 16 << 20, FILES_MOST = 2000; // the parser recurses into imports
constexpr size_t FAULTS_MOST = 20;

// What services import to say how HTTP maps to their methods. The numbers are the interface.
const struct {
  const char *name, *text;
} OWN_FILES[] = {
    {"google/api/http.proto",
     "syntax = 'proto3'; package google.api;"
     "message Http { repeated HttpRule rules = 1; bool fully_decode_reserved_expansion = 2; }"
     "message HttpRule { string selector = 1;"
     "  oneof pattern { string get = 2; string put = 3; string post = 4; string delete = 5; string patch = 6;"
     "    CustomHttpPattern custom = 8; }"
     "  string body = 7; string response_body = 12; repeated HttpRule additional_bindings = 11; }"
     "message CustomHttpPattern { string kind = 1; string path = 2; }"},
    {"google/api/annotations.proto", "syntax = 'proto3'; package google.api;"
                                     "import 'google/api/http.proto'; import 'google/protobuf/descriptor.proto';"
                                     "extend google.protobuf.MethodOptions { HttpRule http = 72295728; }"},
    {"google/api/httpbody.proto",
     "syntax = 'proto3'; package google.api; import 'google/protobuf/any.proto';"
     "message HttpBody { string content_type = 1; bytes data = 2; repeated google.protobuf.Any extensions = 3; }"},
    {"google/rpc/status.proto",
     "syntax = 'proto3'; package google.rpc; import 'google/protobuf/any.proto';"
     "message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }"},
    {"google/rpc/error_details.proto",
     "syntax = 'proto3'; package google.rpc; import 'google/protobuf/duration.proto';"
     "message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }"
     "message RetryInfo { google.protobuf.Duration retry_delay = 1; }"
     "message DebugInfo { repeated string stack_entries = 1; string detail = 2; }"
     "message QuotaFailure { message Violation { string subject = 1; string description = 2; }"
     "  repeated Violation violations = 1; }"
     "message PreconditionFailure {"
     "  message Violation { string type = 1; string subject = 2; string description = 3; }"
     "  repeated Violation violations = 1; }"
     "message BadRequest { message FieldViolation { string field = 1; string description = 2; }"
     "  repeated FieldViolation field_violations = 1; }"
     "message RequestInfo { string request_id = 1; string serving_data = 2; }"
     "message ResourceInfo { string resource_type = 1; string resource_name = 2; string owner = 3;"
     "  string description = 4; }"
     "message Help { message Link { string description = 1; string url = 2; } repeated Link links = 1; }"
     "message LocalizedMessage { string locale = 1; string message = 2; }"},
};

// Names are looked up among the texts, then among the own files, then in the folders. Of Google's well-known types, those
// that the library was built with are used.
class Sources : public compiler::SourceTree {
public:
  io::ZeroCopyInputStream *Open(const std::string &name) override {
    why_ = "File not found.";
    if (DescriptorPool::generated_pool()->FindFileByName(name)) return nullptr;
    for (const auto &own : OWN_FILES)
      if (name == own.name) return new io::ArrayInputStream(own.text, static_cast<int>(strlen(own.text)));
    auto text = texts.find(name);
    if (text == texts.end() && !read_from_folders(name)) return nullptr;
    const std::string &content = texts[name];
    if (++opened_ > FILES_MOST) return refuse("Too many files.");
    if (content.size() > FILE_BYTES_MOST) return refuse("File too large.");
    if (nests_deeply(content)) return refuse("Nested too deeply.");
    return new io::ArrayInputStream(content.data(), static_cast<int>(content.size()));
  }

  std::string GetLastErrorMessage() override {
    return why_;
  }

  // Where a name was found, as an operator knows it.
  std::string path_of(const std::string &name) const {
    auto found = paths_.find(name);
    return found == paths_.end() ? name : found->second;
  }

  std::map<std::string, std::string> texts; // by name
  std::vector<std::string> folders, read;   // `read`: paths in the order of reading

private:
  io::ZeroCopyInputStream *refuse(const char *why) {
    why_ = why;
    return nullptr;
  }

  static bool leaves_folder(const std::string &name) {
    return name.empty() || name[0] == '/' || ("/" + name + "/").find("/../") != std::string::npos ||
           name.find('\0') != std::string::npos;
  }

  bool read_from_folders(const std::string &name) {
    if (leaves_folder(name)) return false;
    for (const std::string &folder : folders) {
      std::string path = folder + "/" + name;
      struct stat found;
      if (stat(path.c_str(), &found) < 0 || !S_ISREG(found.st_mode)) continue; // a pipe would hold us
      std::ifstream file(path, std::ios::binary);
      if (!file) continue;
      std::string &text = texts[name];
      text.resize(FILE_BYTES_MOST + 1);
      file.read(&text[0], static_cast<std::streamsize>(text.size()));
      text.resize(static_cast<size_t>(file.gcount()));
      paths_[name] = path;
      read.push_back(path);
      return true;
    }
    return false;
  }

  std::map<std::string, std::string> paths_; // by name
  std::string why_;
  size_t opened_ = 0;
};

// One fault a line, those with a place first: a file that is missing is told at its import.
class Faults : public compiler::MultiFileErrorCollector {
public:
  explicit Faults(const Sources *sources) : sources_(sources) {
  }

  void AddError(const std::string &file, int line, int column, const std::string &message) override {
    if (placed_.size() + others_.size() >= FAULTS_MOST) return;
    std::string text = sources_->path_of(file);
    if (line >= 0) text += ":" + std::to_string(line + 1) + ":" + std::to_string(column + 1);
    (line >= 0 ? placed_ : others_).push_back(text + ": " + message);
  }

  std::string text() const {
    std::string lines;
    for (const auto *list : {&placed_, &others_})
      for (const std::string &line : *list) lines += (lines.empty() ? "" : "\n") + line;
    return lines;
  }

private:
  const Sources *sources_;
  std::vector<std::string> placed_, others_;
};

// A file behind all that it imports.
void add_file(const FileDescriptor *file, std::set<const FileDescriptor *> *added, FileDescriptorSet *set) {
  if (!added->insert(file).second) return;
  for (int i = 0; i < file->dependency_count(); i++) add_file(file->dependency(i), added, set);
  FileDescriptorProto *copy = set->add_file();
  file->CopyTo(copy);
  file->CopyJsonNameTo(copy);
}

bytes bytes_of(const std::string &text) {
  return {text.data(), static_cast<uint32_t>(text.size())};
}

} // namespace

struct protobuf_compiler {
  Sources sources;
  std::string result; // the set, or the faults
};

protobuf_compiler *protobuf_compiler_new(void) {
  return new protobuf_compiler;
}

void protobuf_compiler_free(protobuf_compiler *compiler) {
  delete compiler;
}

void protobuf_compiler_folder(protobuf_compiler *compiler, const char *path) {
  compiler->sources.folders.push_back(path);
}

void protobuf_compiler_text(protobuf_compiler *compiler, const char *name, bytes text) {
  compiler->sources.texts[name] = std::string(text.data, text.len);
}

int protobuf_compile(protobuf_compiler *compiler, const char *name, bytes *out) {
  LogSilencer silence;
  Faults faults(&compiler->sources);
  DescriptorPoolDatabase known(*DescriptorPool::generated_pool());
  compiler::SourceTreeDescriptorDatabase database(&compiler->sources, &known);
  database.RecordErrorsTo(&faults);
  DescriptorPool pool(&database, database.GetValidationErrorCollector());
  const FileDescriptor *file = pool.FindFileByName(name);
  if (file) {
    FileDescriptorSet all;
    std::set<const FileDescriptor *> added;
    add_file(file, &added, &all);
    compiler->result = all.SerializeAsString();
  } else {
    compiler->result = faults.text();
    if (compiler->result.empty()) compiler->result = std::string(name) + ": cannot be read";
  }
  *out = bytes_of(compiler->result);
  return file ? 0 : ERROR_INVALID;
}

bool protobuf_compiler_read(const protobuf_compiler *compiler, uint32_t index, bytes *path) {
  if (index >= compiler->sources.read.size()) return false;
  *path = bytes_of(compiler->sources.read[index]);
  return true;
}
