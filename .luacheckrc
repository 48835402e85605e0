-- SPDX-License-Identifier: Apache-2.0
std = "luajit"
max_line_length = 120
max_cyclomatic_complexity = 15
ignore = { "212/_.*" } -- an argument that is not used may say so by its name
files["spec/**/*_spec.lua"] = { std = "+busted" }
files["plugins/*/spec"] = { std = "+busted" }
