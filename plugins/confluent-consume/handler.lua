-- SPDX-License-Identifier: Apache-2.0
-- kafka-consume with the login of Confluent Cloud: topics for HTTP clients.
local consume = require "kafka-consume.handler"

return { version = "1.0.0", priority = 754, configure = consume.configure, access = consume.access }
