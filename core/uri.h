// SPDX-License-Identifier: Apache-2.0
// Request targets and hosts: parsing (RFC 9112 3.2, RFC 3986) and the one canonical path that is matched, checked by
// plugins and forwarded, so that no second spelling of a path leads around a plugin.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "slice.h"

enum uri_form {
  URI_ORIGIN,    // "/path?query"
  URI_ABSOLUTE,  // "http://host/path?query"
  URI_AUTHORITY, // "host:port", of CONNECT only
  URI_ASTERISK   // "*", of OPTIONS only
};

enum uri_host_kind { URI_HOST_NAME, URI_HOST_IPV4, URI_HOST_IPV6 };

struct uri_host {
  struct slice name; // without the root's dot at its end; an IPv6 address has its brackets
  uint16_t port;     // 0: none given
  uint8_t kind;      // enum uri_host_kind
  bool has_upper;    // holds letters that uri_lower_host would change
};

// Slices of the target that was parsed.
struct uri {
  enum uri_form form;
  struct slice scheme; // absolute-form: as received; else empty
  struct slice host;   // absolute-form and authority-form: host and port as received, for uri_parse_host; else empty
  struct slice path;   // raw; "/" when absolute-form has none; "*" in asterisk-form; empty in authority-form
  struct slice query;  // without "?"
  bool has_query;      // "?" with nothing behind it is a query too
};

enum { URI_HOST_MAX = 255 };

// Parses a request target. `method` decides which forms are allowed. Control bytes, space, DEL and "#" are refused;
// bytes from 0x80 on pass in path and query. 0, or ERROR_INVALID.
int uri_parse_target(struct slice method, struct slice target, struct uri *out, struct error *error);

// Parses a Host field or the authority of a target: a name, IPv4 or [IPv6], and a port. Empty, user information,
// percent-encoding, empty labels and anything but letters, digits, "-", "_", "." are refused. 0, or ERROR_INVALID.
int uri_parse_host(struct slice field, struct uri_host *out, struct error *error);

// The host's name in lower case: itself where it has no upper case, else a copy in the caller's buffer.
struct slice uri_lower_host(const struct uri_host *host, char out[URI_HOST_MAX + 1]);

// Whether a raw path is its own canonical form, so that it needs no copy: true exactly where uri_normalise would give
// the same bytes.
bool uri_is_canonical(struct slice raw_path);

// Writes the canonical form of a raw path (it begins with "/") to `out`; three times its length always suffices.
//   decoded          %41 -> A: letters, digits, "-", ".", "_", "~"
//   kept, upper case %2f -> %2F: everything else, so an encoded slash never becomes a separator
//   encoded          raw bytes that no URI may hold: 0x80 and up, and "\"<>[]\\^`{|}": so "\" is never a separator
//   merged           // -> /
//   removed          dot segments, also spelt %2e or with parameters behind them ("/..;x/"), as servers that cut
//                    parameters off would see them; parameters of other segments belong to them and stay
//   refused          %00, a "%" without two hex digits, control bytes, space, DEL, "?", "#"
// 0; ERROR_INVALID; ERROR_MEMORY when `room` is too small.
int uri_normalise(struct slice raw_path, char *out, uint32_t room, uint32_t *out_len, struct error *error);
