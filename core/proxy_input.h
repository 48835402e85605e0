// SPDX-License-Identifier: Apache-2.0
// The PROXY protocol's header taken off a socket to the byte: what stands behind it may be TLS, which reads for itself.
#pragma once
#include "proxy_protocol.h"

struct proxy_input;
struct stream;

struct proxy_input *proxy_input_new(void); // NULL without memory
void proxy_input_free(struct proxy_input *input);

// Reads what has come: 1 when the header is whole and the stream's peer follows it, 0 when there is more to come,
// negative when there is none to be had. The addresses are believed when the connection comes from trusted_ips; else
// `header` has none.
int proxy_input_read(struct proxy_input *input, struct stream *stream, struct proxy_header *header);
