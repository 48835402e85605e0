// SPDX-License-Identifier: Apache-2.0
// How deeply brackets stand in each other in a .proto file or in the text of an option: libprotobuf's parsers recurse
// into them without a bound.
#pragma once
#include <string>

// Whether more than a hundred brackets are open at one place, as far as comments and strings tell.
bool nests_deeply(const std::string &text);
