-- SPDX-License-Identifier: Apache-2.0
-- `sluice help [COMMAND]`: what each command does, the one place where it is written for users.

local suggest = require "sluice.config.suggest"

local help = {}

local CONFIG = "  -c, --config FILE   configuration, ./sluice.yml by default; may be repeated, and may be a folder\n"

-- In the order in which they are listed.
local pages = {
  {
    name = "run", usage = "[-c FILE]...", brief = "run in the foreground; SIGTERM drains and exits 0",
    text = "Logs to stderr. Configuration files and plugin folders are watched: what is saved is live at once, and\n" ..
      "what is broken changes nothing. SIGHUP reloads, SIGTERM and SIGINT drain (a second one stops at once),\n" ..
      "SIGUSR1 opens the log anew, SIGUSR2 upgrades the binary.\n\n" .. CONFIG,
  },
  {
    name = "start", usage = "[-c FILE]...", brief = "run in the background; returns once it serves",
    text = "The log is STATE_DIR/sluice.log. Exits 1, with the reason, when the gateway could not start.\n\n" .. CONFIG,
  },
  { name = "stop", usage = "[-c FILE]...", brief = "stop at once", text = CONFIG },
  {
    name = "quit", usage = "[-c FILE]...", brief = "finish what is in flight, then stop",
    text = "Returns when the gateway has gone; it waits for gateway.limits.drain_timeout, 30 s by default.\n\n" ..
      CONFIG,
  },
  {
    name = "reload", usage = "[-c FILE]...", brief = "load configuration and plugins anew",
    text = "Exits 0 once the new generation is live in every worker, or 1 with every error: then the running one\n" ..
      "stays.\n\n" .. CONFIG,
  },
  {
    name = "upgrade", usage = "[-c FILE]...", brief = "let a new binary take over the sockets",
    text = "Starts the binary that lies where this one was started from. Once its workers are live the old ones\n" ..
      "drain. No connection is refused. When the new one fails the old one goes on, and this exits 1.\n\n" .. CONFIG,
  },
  {
    name = "status", usage = "[-c FILE]... [--json]", brief = "one screen of state",
    text = CONFIG .. "  --json              everything there is to know, as one JSON object\n",
  },
  {
    name = "top", usage = "[-c FILE]... [--interval SECONDS] [--once] [--json]",
    brief = "live rates, latencies, CPU of workers and plugins",
    text = "Shows what happened in the last interval, again and again, until it is interrupted; once where the\n" ..
      "output is no terminal. CPU is of one core. Latencies, from a request's first byte to its response's\n" ..
      "last, are exact to a fifth; what took less than a turn of the worker's loop counts as 0. A plugin's CPU\n" ..
      "comes from samples, 5 ms apart.\n\n" .. CONFIG ..
      "  --interval SECONDS  1 by default\n" ..
      "  --once              one interval, then it ends\n" ..
      "  --json              one JSON object an interval\n",
  },
  {
    name = "profile", usage = "[-c FILE]... [--seconds N] [--output PREFIX]",
    brief = "where the CPU time of workers goes, as a flame graph",
    text = "Samples the stacks of all workers; writes PREFIX.folded (lines of `a;b;c MILLISECONDS`) and\n" ..
      "PREFIX.svg, for a browser: a click on a frame widens it. Lua stands under the plugin that runs, with files\n" ..
      "and lines, and upon it what C it calls; all else is C. Libraries without frame pointers hide who of theirs\n" ..
      "calls whom, and who called them is found by a search of the stack, which now and then takes what an\n" ..
      "earlier call has left for a frame. What could not be told is in [brackets]. Of two profiles at a time each\n" ..
      "gets a part of the samples.\n\n" ..
      CONFIG ..
      "  --seconds N         10 by default\n" ..
      "  -o, --output PREFIX ./sluice-profile by default\n",
  },
  {
    name = "check", usage = "FILE...", brief = "load as `run` would, start nothing, name every error",
    text = "Each error comes with file, line, entity, field, what was expected and what was found. Exits 0 or 1.\n",
  },
  {
    name = "explain",
    usage = "[-c FILE] METHOD URL [-H 'NAME: VALUE']... [--consumer NAME] | tcp|tls HOST:PORT [--from ADDRESS]",
    brief = "which route matches and why, its plugins, its upstream",
    text = CONFIG .. "  -H 'NAME: VALUE'    a field of the request\n" ..
      "  --consumer NAME     whom authentication found: marks the instance of each plugin that runs for it\n" ..
      "  --from ADDRESS      of a stream's client, 127.0.0.1 by default\n",
  },
  {
    name = "plugin", usage = "new NAME | list | test [NAME] [--watch] | docs NAME | compare FILE...",
    brief = "write, list and test plugins",
    text = "  new NAME [--dir DIR]      a plugin in ./plugins/NAME: handler, schema, README and a spec that passes\n" ..
      "  list [-c FILE]...         plugins that are loaded, or, when no gateway runs, those found in the folders\n" ..
      "  test [NAME] [--watch]     runs the specs of one plugin or of all; --watch runs them again at every save\n" ..
      "  docs NAME [--write]       the table of its options, from its schema; --write puts it into its README\n" ..
      "  compare FILE...           where plugins refuse what is valid by the JSON Schemas that Kong publishes\n" ..
      "                            (files such as RateLimiting.json), or have other defaults; fails if any does\n\n" ..
      "  --dir DIR                 folder of plugins, ./plugins by default\n",
  },
  {
    name = "password", usage = "[--cost N]", brief = "make the hash of a password, for basicauth_credentials",
    text = "Reads the password from the terminal, or one line of standard input, and prints a yescrypt hash as of\n" ..
      "crypt(5).\n\n" ..
      "  --cost N            1 to 11, 5 by default (20 ms, 16 MB); each more takes twice of both\n",
  },
  {
    name = "purge", usage = "[-c FILE]... [URL]... [--prefix URL] [--tag TAG] [--key KEY] [--all]",
    brief = "remove stored responses",
    text = "Of a URL, of all that begin so, with a tag, or with a key as X-Cache-Key tells it. All but -c may be\n" ..
      "repeated. Takes effect at once, whether the gateway runs or not.\n\n" .. CONFIG ..
      "  --prefix URL        such as https://host/path/\n" ..
      "  --tag TAG           that the service gave in Surrogate-Key or Cache-Tag\n" ..
      "  --key KEY           32 hexadecimal digits\n  --all               whatever is stored\n",
  },
  { name = "version", usage = "", brief = "version of this binary", text = "" },
  { name = "help", usage = "[COMMAND]", brief = "this list, or one command", text = "" },
}

help.names = {}
for _, page in ipairs(pages) do help.names[#help.names + 1] = page.name end

function help.page(name)
  for _, page in ipairs(pages) do
    if page.name == name then
      local head = ("Usage: sluice %s %s"):format(page.name, page.usage):gsub(" +$", "")
      local text = page.text ~= "" and "\n" .. page.text or ""
      return ("%s\n\n%s.\n%s"):format(head, (page.brief:gsub("^%l", string.upper)), text)
    end
  end
end

function help.overview()
  local lines = { "Sluice, an API gateway and an event gateway.", "", "Usage: sluice COMMAND [OPTION]...", "" }
  for _, page in ipairs(pages) do lines[#lines + 1] = ("  %-9s %s"):format(page.name, page.brief) end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "`sluice help COMMAND` tells more."
  return table.concat(lines, "\n") .. "\n"
end

function help.unknown(name)
  return ("unknown command %s%s\n`sluice help` lists the commands."):format(name, suggest.phrase(name, help.names))
end

function help.run(args)
  local name = args[1]
  if not name then
    io.write(help.overview())
    return 0
  end
  local page = help.page(name)
  if not page then
    io.stderr:write("sluice: ", help.unknown(name), "\n")
    return 2
  end
  io.write(page)
  return 0
end

return help
