-- SPDX-License-Identifier: Apache-2.0
-- What templates see.
return { "body", "raw", "headers", "query", "captures", "method", "path", "status", "shared" }
