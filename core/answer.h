// SPDX-License-Identifier: Apache-2.0
// Answers that the gateway itself makes: a message as JSON, HTML, XML or text, as the client's Accept prefers.
#pragma once
#include "slice.h"

struct exchange;

// Makes the exchange's answer an error with this status and message: body, Content-Type, status. Sends nothing.
void answer_error(struct exchange *exchange, int status, struct slice message);
// The reason phrase of a status (RFC 9110 15); "" when there is none.
const char *answer_reason(int status);
