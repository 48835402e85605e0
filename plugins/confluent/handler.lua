-- SPDX-License-Identifier: Apache-2.0
-- kafka-upstream with the login of Confluent Cloud: a request becomes a record.
local upstream = require "kafka-upstream.handler"

return { version = "1.0.0", priority = 752, configure = upstream.configure, access = upstream.access }
