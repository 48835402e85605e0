-- SPDX-License-Identifier: Apache-2.0
-- The text of an error answer in the four forms that Kong knows, for a plugin that chooses the form itself. The core
-- writes the same forms when the client's Accept chooses.

local json = require "sluice.json"

local find, format, gsub, lower = string.find, string.format, string.gsub, string.lower

local error_answer = {}

local MESSAGES = {
  [400] = "Bad request",
  [401] = "Unauthorized",
  [402] = "Payment required",
  [403] = "Forbidden",
  [404] = "Not found",
  [405] = "Method not allowed",
  [406] = "Not acceptable",
  [408] = "Request timeout",
  [409] = "Conflict",
  [410] = "Gone",
  [411] = "Length required",
  [412] = "Precondition failed",
  [413] = "Payload too large",
  [414] = "URI too long",
  [415] = "Unsupported media type",
  [417] = "Expectation failed",
  [422] = "Unprocessable entity",
  [426] = "Upgrade required",
  [429] = "Too many requests",
  [494] = "Request header or cookie too large",
  [500] = "An unexpected error occurred",
  [501] = "Not implemented",
  [502] = "An invalid response was received from the upstream server",
  [503] = "The upstream server is currently unavailable",
  [504] = "The upstream server is timing out",
}

---@param status integer
---@return string
function error_answer.message(status)
  return MESSAGES[status] or ("The upstream server responded with " .. status)
end

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function markup(text)
  return (gsub(text, '[&<>"]', ENTITIES))
end

local HTML = "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  </head>\n"
  .. "  <body>\n    <h1>Error</h1>\n    <p>%s.</p>\n    <p>request_id: %s</p>\n  </body>\n</html>\n"
local XML = '<?xml version="1.0" encoding="UTF-8"?>\n<error>\n  <message>%s</message>\n'
  .. "  <requestid>%s</requestid>\n</error>\n"

---@param content_type string
---@param message string
---@param request_id string
---@return string
function error_answer.body(content_type, message, request_id)
  local kind = lower(content_type)
  if find(kind, "text/html", 1, true) then return format(HTML, markup(message), request_id) end
  if find(kind, "xml", 1, true) then return format(XML, markup(message), request_id) end
  if find(kind, "text/plain", 1, true) then return format("%s\nrequest_id: %s\n", message, request_id) end
  return format('{"message":%s,"request_id":%s}', json.encode(message), json.encode(request_id))
end

-- A template of the operator's: its first %s is the message, its second the request id.
---@param template string
---@return string
function error_answer.from_template(template, message, request_id)
  local values, at = { message, request_id }, 0
  return (gsub(template, "%%([s%%])", function(mark)
    if mark == "%" then return "%" end
    at = at + 1
    return values[at] or ""
  end))
end

return error_answer
