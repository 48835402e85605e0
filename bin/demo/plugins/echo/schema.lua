-- SPDX-License-Identifier: Apache-2.0
-- echo has no options.
return {}
