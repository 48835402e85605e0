// SPDX-License-Identifier: Apache-2.0
// Counts brackets outside of comments and strings. What is no .proto file counts in some way as well: the parser tells.
#include "protobuf_nesting.h"

namespace {

constexpr size_t DEPTH_MOST = 100;

// Behind the string that begins at `at`; one that does not end on its line ends there, as the parser has it.
size_t skip_string(const std::string &text, size_t at) {
  char quote = text[at];
  for (at++; at < text.size() && text[at] != quote && text[at] != '\n'; at++)
    if (text[at] == '\\') at++;
  return at + 1;
}

// Behind the comment that begins with this slash, or behind the slash.
size_t skip_comment(const std::string &text, size_t at) {
  bool line = text.compare(at, 2, "//") == 0;
  if (!line && text.compare(at, 2, "/*") != 0) return at + 1;
  size_t end = line ? text.find('\n', at) : text.find("*/", at + 2);
  return end == std::string::npos ? text.size() : end + (line ? 1 : 2);
}

} // namespace

bool nests_deeply(const std::string &text) {
  size_t depth = 0, at = 0;
  while (at < text.size()) {
    char c = text[at];
    if (c == '"' || c == '\'') {
      at = skip_string(text, at);
      continue;
    }
    if (c == '/') {
      at = skip_comment(text, at);
      continue;
    }
    if (c == '{' || c == '[' || c == '<') depth++;
    if ((c == '}' || c == ']' || c == '>') && depth > 0) depth--;
    if (depth > DEPTH_MOST) return true;
    at++;
  }
  return false;
}
