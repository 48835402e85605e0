// SPDX-License-Identifier: Apache-2.0
// The access log: a line for each request that has been answered, or was given up, made and written without Lua.
#pragma once

struct exchange;

// Appends the line of an exchange that ends to the file that its generation names.
void access_log_write(struct exchange *exchange);
