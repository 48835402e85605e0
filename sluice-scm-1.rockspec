-- SPDX-License-Identifier: Apache-2.0
-- `luarocks make` builds and installs a checkout. The C libraries come from the system: see bin/deps.
rockspec_format = "3.0"
package = "sluice"
version = "scm-1"
source = { url = "git+file://." }
description = {
  summary = "API gateway and event gateway in which every decision is a Lua plugin",
  license = "Apache-2.0",
}
dependencies = { "lua ~> 5.1", "lua-cjson" }
build = {
  type = "make",
  build_target = "all",
  install_target = "install",
  build_variables = { PREFIX = "$(PREFIX)" },
  install_variables = { PREFIX = "$(PREFIX)" },
}
