-- SPDX-License-Identifier: Apache-2.0
local columns = require "sluice.cli.columns"
local options = require "sluice.cli.options"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

describe("sluice.cli.options", function()
  local declared = {
    { "-c", "--config", key = "files", value = "FILE", many = true },
    { "--json", key = "json" },
    { "-n", "--number", key = "number", value = "N" },
  }

  local function refusal(...)
    local ok, why = pcall(options.parse, { ... }, declared, 1)
    assert.is_false(ok)
    assert.is_true(options.is_usage_error(why))
    return why.message
  end

  it("reads switches, values in both forms, and operands", function()
    local parsed = options.parse({ "-c", "a", "x", "--config=b", "--json", "-n", "3" }, declared, 1)
    assert.same({ "x", files = { "a", "b" }, json = true, number = "3" }, parsed)
  end)

  it("takes everything behind -- as operands, and - as one", function()
    assert.same({ "--json", "-" }, options.parse({ "--", "--json", "-" }, declared, 2))
  end)

  it("names the option that was probably meant", function()
    assert.equal('unknown option --confg, did you mean "--config"?', refusal("--confg"))
  end)

  it("says what is missing or too much", function()
    assert.equal("-c needs a FILE", refusal("-c"))
    assert.equal("--json takes no value", refusal("--json=1"))
    assert.equal("unexpected argument b", refusal("a", "b"))
  end)
end)

describe("sluice.cli.columns", function()
  it("makes every column as wide as its widest text", function()
    assert.equal("NAME  N\na     1\nlong  22\n", columns.format({ "NAME", "N" }, { { "a", 1 }, { "long", 22 } }))
  end)

  it("puts numbers to the right", function()
    assert.equal(" N\n 1\n22\n", columns.format({ "N" }, { { 1 }, { 22 } }, { true }))
  end)

  it("says durations in at most two units", function()
    local said = {}
    for index, seconds in ipairs { -1, 0.4, 59, 60, 93.2, 3600, 7260, 90000 } do
      said[index] = columns.duration(seconds)
    end
    assert.same({ "0 s", "0 s", "59 s", "1 min", "1 min 33 s", "1 h", "2 h 1 min", "1 d 1 h" }, said)
  end)
end)

describe("sluice.cli.help", function()
  local help = require "sluice.cli.help"

  it("has a page for every command that it lists, and a module for each", function()
    for _, name in ipairs(help.names) do
      assert.matches("^Usage: sluice " .. name, help.page(name))
      assert.truthy(package.searchpath("sluice.cli." .. name, package.path), name)
    end
  end)
end)

describe("sluice.cli.gateway", function()
  local gateway = require "sluice.cli.gateway"
  local dir

  before_each(function() dir = posix.temporary_directory() end)
  after_each(function() process.remove(dir) end)

  local function found(text, name)
    local path = dir .. "/" .. (name or "sluice.yml")
    process.write_file(path, text)
    return gateway.state_dir({ path })
  end

  it("finds the state_dir in any way of writing it, in a file that does not load", function()
    assert.equal("/run/a", found("gateway:\n  state_dir: /run/a\n  broken: [\n"))
    assert.equal("/run/a b", found('gateway:\n  state_dir: "/run/a b" # why\n'))
    assert.equal("/run/a", found("gateway: { workers: 1, state_dir: /run/a }\n"))
    assert.equal("/run/a", found('{"gateway":{"state_dir":"/run/a","workers":1}}', "sluice.json"))
  end)

  it("takes the default when no file says it", function()
    assert.equal(dir .. "/.sluice", found("services: []\n# state_dir: /no\n"))
    assert.equal(dir .. "/.sluice", gateway.state_dir({ dir .. "/none.yml" }))
    assert.equal("./.sluice", gateway.state_dir({ "./none.yml" }))
    assert.equal("./.sluice", gateway.state_dir({ "none.yml" }))
  end)

  it("takes a relative one for what it is to the gateway: beside the file that says it", function()
    assert.equal(dir .. "/state", found("gateway:\n  state_dir: ./state\n"))
    assert.equal(dir .. "/../state", found("gateway: { state_dir: ../state }\n"))
  end)

  it("looks into a folder of files", function()
    found("gateway:\n  state_dir: /run/b\n", "b.yaml")
    assert.equal("/run/b", gateway.state_dir({ dir }))
  end)

  it("says errors as `sluice check` does", function()
    assert.equal('a.yml:7: service "x": port: expected a number, found a string', gateway.sentence {
      file = "a.yml", line = 7, entity = 'service "x"', field = "port", expected = "a number", found = "a string",
    })
  end)
end)

describe("sluice password", function()
  local password = require "sluice.config.password"
  local binary = require("spec.support.gateway").binary

  local function run(text, arguments)
    local command = ("printf '%s' | %s password %s"):format(text, binary, arguments or "")
    return process.run { "sh", "-c", command }
  end

  it("makes a hash of the line that it reads, another one each time", function()
    local status, hash = run("open sesame\nrest", "--cost 1")
    assert.equal(0, status)
    assert.is_true(password.fits("open sesame", hash:match("^(.*)\n$")))
    assert.equal("crypt", password.kind(hash:match("^(.*)\n$")))
    assert.not_equal(hash, select(2, run("open sesame\n", "--cost 1")))
    assert.matches("^%$y%$j9T%$", select(2, run("x")))
  end)

  it("says what is no password, and no cost", function()
    local status, _, err = run("")
    assert.same({ 1, "sluice: expected a password of 1 to 511 bytes, none of them zero\n" }, { status, err })
    status, _, err = run("x", "--cost 12")
    assert.equal(2, status)
    assert.matches("--cost: expected an integer from 1 to 11, found 12", err, 1, true)
  end)
end)

describe("sluice.cli.status", function()
  local json = require "sluice.json"
  local status = require "sluice.cli.status"

  local function state(changes)
    local base = {
      version = "1.2.3", state = "running", uptime = 93, started_at = 1000, pid = 42, files = { "sluice.yml" },
      state_dir = "/run/s", generation = 7, loaded_at = 1080,
      listeners = { { ["for"] = "proxy", address = "0.0.0.0:8443", flags = "ssl" } },
      last_reload = { ok = true, changed = true, reason = "signal", took_ms = 12.5, at = 1080, errors = {} },
      last_failure = json.null,
      workers = {
        {
          id = 1, pid = 43, state = "live", generation = 7, uptime = 92, exchanges = 5, exchanges_open = 1,
          connections_open = 2, restarts = 0, last_end = json.null,
        },
      },
      worker = {
        plugins = {
          { name = "hello", version = "1.0.0", priority = 10, hash = "abcd", loaded_at = 1090, dir = "/p/hello" },
        },
      },
    }
    for name, value in pairs(changes or {}) do base[name] = value end
    return base
  end

  it("shows processes, the generation and plugins on one screen", function()
    local screen = status.screen(state())
    assert.matches("sluice 1.2.3  running for 1 min 33 s  pid 42", screen, 1, true)
    assert.matches("proxy          0.0.0.0:8443 ssl\n", screen, 1, true)
    assert.matches("generation     7, live since 13 s (signal, 12 ms)", screen, 1, true)
    assert.matches("\n1 +43  live +7  1 min 32 s +5 +1 +2 +0", screen)
    assert.matches("hello +1.0.0 +10  abcd  3 s ago", screen)
    assert.is_nil(screen:find("FAILED", 1, true))
  end)

  it("counts streams for themselves", function()
    local with = state()
    local worker = with.workers[1]
    worker.streams, worker.streams_open, worker.exchanges, worker.exchanges_open = 4, 3, 9, 4
    assert.matches("\n1 +43  live +7  1 min 32 s +5 +1 +2 +3 +0", status.screen(with))
  end)

  it("shows where the last reload failed", function()
    local errors = { { file = "x.yml", line = 3, message = "no" } }
    local failure = { ok = false, at = 1091, reason = "signal", errors = errors }
    local screen = status.screen(state { last_reload = failure, last_failure = failure })
    assert.matches("THE LAST RELOAD FAILED 2 s ago (signal)\n  x.yml:3: no\n", screen, 1, true)
  end)

  it("still shows the processes when no worker answers", function()
    assert.matches("No worker answered", status.screen(state { worker = json.null }), 1, true)
  end)
end)

local binary = (os.getenv("SLUICE_HOME") or ".") .. "/bin/sluice"

describe("sluice plugin test", function()
  it("runs the specs of a bundled plugin too, which share helpers", function()
    local code, out = process.run { binary, "plugin", "test", "mocking" }
    assert.matches("%d+ successes / 0 failures / 0 errors", out)
    assert.equal(0, code)
  end)
end)

describe("sluice plugin new", function()
  it("says where it cannot write, and why", function()
    local code, out, err = process.run { binary, "plugin", "new", "hello", "--dir", "/dev/null/plugins" }
    assert.same({ 1, "", "sluice: cannot write /dev/null/plugins: Not a directory\n" }, { code, out, err })
  end)
end)

describe("sluice.cli.plugin.docs", function()
  local docs = require "sluice.cli.plugin.docs"
  local schema = require "sluice.schema"

  it("writes the table of options from the schema", function()
    local normal = assert(schema.normalise {
      greeting = { type = "string", default = "hello", len_max = 64, about = "text | header" },
      times = { type = "array", required = true, elements = { type = "integer", between = { 1, 9 } } },
    })
    assert.equal(table.concat({
      "| option | type | default | about |",
      "|---|---|---|---|",
      '| `greeting` | string, at most 64 characters | `"hello"` | text \\| header |',
      "| `times` | list of integer, 1 to 9 | required |  |",
      "",
    }, "\n"), docs.table(normal))
  end)

  it("shows what a record's own default says of its fields", function()
    local normal = assert(schema.normalise {
      queue = { type = "record", default = { size = 200 }, fields = {
        { size = { type = "integer", default = 1 } }, { delay = { type = "integer", default = 2 } } } },
    })
    local text = docs.table(normal)
    assert.matches("| `queue.size` | integer | `200` |", text, 1, true)
    assert.matches("| `queue.delay` | integer | `2` |", text, 1, true)
  end)

  it("renews the table in a README and leaves the rest", function()
    local readme = "# x\n<!-- options -->\nold\n<!-- /options -->\nend\n"
    assert.equal("# x\n<!-- options -->\nnew\n<!-- /options -->\nend\n", docs.renewed(readme, "new\n"))
    assert.is_nil(docs.renewed("# x\n", "new\n"))
  end)
end)
