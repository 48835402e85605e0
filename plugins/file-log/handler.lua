-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as a line in a file, as JSON or text.
local file = require "sluice.file"
local json = require "sluice.json"
local logging = require "sluice.logging"
local text = require "file-log.text"

local file_log = { version = "1.0.0", priority = 9 }

local states = setmetatable({}, { __mode = "k" }) -- by configuration: custom fields, lines lost

function file_log.configure(confs)
  for _, conf in ipairs(confs or {}) do
    states[conf] = states[conf] or { fields = logging.fields(conf), losses = logging.losses { path = conf.path } }
  end
end

function file_log.log(conf, exchange)
  local state = states[conf]
  local record = logging.record(state.fields, exchange)
  local line, err
  if conf.format == "text" then
    line = text.line(record, exchange, state.fields)
  else
    line, err = json.encode(record)
  end
  if line then line, err = file.append(conf.path, line, conf.reopen) end
  if not line then logging.lose(state.losses, err) end
end

return file_log
