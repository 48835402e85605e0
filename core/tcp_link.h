// SPDX-License-Identifier: Apache-2.0
// The service's side of a TCP or TLS stream: one connection, made for it and closed with it.
#pragma once

struct carrier;

extern const struct carrier tcp_carrier;
