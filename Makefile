# SPDX-License-Identifier: Apache-2.0
# Builds bin/sluice and, from the same objects, the library that specs load; runs, tests and measures it.
#   make deps    installs what is missing        make test   everything that proves it
#   make         builds bin/sluice               make lint   luacheck, clang-format, warnings, cppcheck
#   make run     a demo gateway to curl          make bench  requests per CPU-second, in turns with nginx
# With LIBRDKAFKA=newer, in the environment too, bin/sluice has a newer librdkafka than Debian's inside.

VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
BUILD   := .build
CACHE   := .cache

CC       := gcc
CXX      := g++
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wvla -Werror
CXXWARN  := -Wall -Wextra -Wshadow -Wconversion -Wvla -Werror
CPPFLAGS += -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -DSLUICE_PREFIX='"$(PREFIX)"' \
            -isystem /usr/include/luajit-2.1 -isystem $(BUILD)/llhttp/lib
CFLAGS   += -std=c11 -g -fPIC -fno-strict-aliasing -fno-omit-frame-pointer
CXXFLAGS += -std=c++17 -fno-exceptions -g -fPIC -fno-strict-aliasing -fno-omit-frame-pointer
LDLIBS   := -lev -lnghttp2 -lssl -lcrypto -lcrypt -lrdkafka -lcares -llmdb -lpcre2-8 -lz -lbrotlienc -lzstd -lprotobuf \
            -lluajit-5.1 -lstdc++ -lm -ldl -lpthread

# Assertions stay on in a release: a broken invariant stops one worker, which the master replaces.
CFLAGS_release := -O2
CFLAGS_asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
LDFLAGS_asan   := -fsanitize=address,undefined

SOURCES := $(sort $(wildcard core/*.c))
# Only for libraries whose interface is C++.
CXX_SOURCES := $(sort $(wildcard core/*.cc))
LLHTTP  := api http llhttp
BUSTED  := luajit /usr/bin/busted

# One short line a step; `make V=1` shows the commands.
say = $(if $(V),,@echo '  $(1)  $(2)';) 

.DELETE_ON_ERROR:
.PHONY: all lib asan kafka tools peers deps run test lint bench install format clean FORCE

all: bin/sluice $(BUILD)/release/libsluice.so
lib: $(BUILD)/release/libsluice.so
asan: $(BUILD)/asan/sluice $(BUILD)/asan/libsluice.so

# ---- llhttp, the HTTP/1 parser: pinned by its hash, kept in .cache ----

LLHTTP_SDIST  := $(CACHE)/llhttp-9.3.0.0.tar.gz
LLHTTP_SHA256 := 0d989363e7fb6f270b9d49956e7a3945c26778f8c70a166815264309ac6a8295

$(LLHTTP_SDIST):
	@mkdir -p $(CACHE)
	pip3 download --quiet --no-binary llhttp --no-deps --dest $(CACHE) llhttp==9.3.0.0
	echo "$(LLHTTP_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(BUILD)/llhttp/lib/llhttp.h: $(LLHTTP_SDIST)
	echo "$(LLHTTP_SHA256)  $<" | sha256sum --check --quiet
	@mkdir -p $(BUILD)/llhttp
	tar -xzf $< -C $(BUILD)/llhttp --strip-components=1 --no-same-owner -m

# ---- Headers as text: the very declarations that the core was compiled with go to ffi.cdef ----
# bridge.h as it is; of those that `sluice explain` needs besides, what LuaJIT does not read (directives and inline
# functions) stays behind.

EXPLAINED := core/slice.h core/error.h core/uri.h core/router.h
as_text    = sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/"&\\n"/'

$(BUILD)/bridge_text.c: Makefile core/bridge.h core/kit.h core/stream_router.h $(EXPLAINED)
	@mkdir -p $(BUILD)
	$(call say,GEN,$@){ echo 'extern const char bridge_declarations[], router_declarations[], kit_declarations[],'; \
	  echo '  stream_router_declarations[];'; \
	  echo 'const char bridge_declarations[] ='; $(as_text) core/bridge.h; echo ';'; \
	  echo 'const char kit_declarations[] ='; $(as_text) core/kit.h; echo ';'; \
	  echo 'const char stream_router_declarations[] ='; \
	  sed -e '/^#/d' core/stream_router.h | $(as_text); echo ';'; \
	  echo 'const char router_declarations[] ='; \
	  sed -e '/^static inline/,/^}/d' -e '/^#/d' $(EXPLAINED) | $(as_text); echo ';'; } > $@

# ---- Objects, program and library of one variant ----

define variant
OBJECTS_$(1) := $$(SOURCES:core/%.c=$(BUILD)/$(1)/%.o) $$(CXX_SOURCES:core/%.cc=$(BUILD)/$(1)/%.o) \
                $(BUILD)/$(1)/bridge_text.o
PARSER_$(1)  := $$(LLHTTP:%=$(BUILD)/$(1)/llhttp/%.o)

# Rewritten only when it differs, so that another PREFIX or flag compiles anew and nothing else does.
$(BUILD)/$(1)/flags: FORCE
	@mkdir -p $$(@D)/llhttp
	@echo '$$(subst ','\'',$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(1)) $(WARNINGS) $(CXX) $(CXXFLAGS) $(CXXWARN))' | cmp -s - $$@ || \
	 echo '$$(subst ','\'',$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(1)) $(WARNINGS) $(CXX) $(CXXFLAGS) $(CXXWARN))' > $$@

$(BUILD)/$(1)/%.o: core/%.c $(BUILD)/$(1)/flags $(BUILD)/llhttp/lib/llhttp.h
	$$(call say,CC,$$@)$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(1)) $(WARNINGS) -MMD -MP -c -o $$@ $$<

$(BUILD)/$(1)/%.o: core/%.cc $(BUILD)/$(1)/flags
	$$(call say,CXX,$$@)$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(CFLAGS_$(1)) $(CXXWARN) -MMD -MP -c -o $$@ $$<

$(BUILD)/$(1)/bridge_text.o: $(BUILD)/bridge_text.c $(BUILD)/$(1)/flags
	$$(call say,CC,$$@)$(CC) $(CFLAGS) $(CFLAGS_$(1)) -c -o $$@ $$<

$(BUILD)/$(1)/llhttp/%.o: $(BUILD)/llhttp/lib/llhttp.h $(BUILD)/$(1)/flags
	$$(call say,CC,$$@)$(CC) $(CFLAGS) $(CFLAGS_$(1)) -I$(BUILD)/llhttp/lib -c -o $$@ $(BUILD)/llhttp/lib/$$*.c

$(BUILD)/$(1)/sluice: $$(OBJECTS_$(1)) $$(PARSER_$(1))
	$$(call say,LD,$$@)$(CC) $(LDFLAGS) $(LDFLAGS_$(1)) -rdynamic -o $$@ $$^ $(LDLIBS)

$(BUILD)/$(1)/libsluice.so: $$(filter-out %/main.o,$$(OBJECTS_$(1))) $$(PARSER_$(1))
	$$(call say,LD,$$@)$(CC) $(LDFLAGS) $(LDFLAGS_$(1)) -shared -o $$@ $$^ $(LDLIBS)

-include $$(OBJECTS_$(1):.o=.d)
endef

$(eval $(call variant,release))
$(eval $(call variant,asan))

# The same objects, with the librdkafka that is fetched for it: one that logs in by SCRAM at Kafka 4.
$(BUILD)/release/sluice-newer: $(BUILD)/release/sluice $(CACHE)/librdkafka/librdkafka.a
	$(call say,LD,$@)$(CC) $(LDFLAGS) -rdynamic -o $@ $(OBJECTS_release) $(PARSER_release) \
	  $(subst -lrdkafka,$(CACHE)/librdkafka/librdkafka.a,$(LDLIBS))

ifeq ($(LIBRDKAFKA),newer)
PROGRAM := $(BUILD)/release/sluice-newer
else ifeq ($(LIBRDKAFKA),)
PROGRAM := $(BUILD)/release/sluice
else
$(error LIBRDKAFKA=$(LIBRDKAFKA): expected newer, or nothing for the library of the system)
endif

bin/sluice: $(PROGRAM) FORCE
	@cmp -s $< $@ || { cp -f $< $@.new && mv -f $@.new $@; }

# ---- A Kafka broker for the specs ----

KAFKA := $(CACHE)/kafka/fetched

kafka: $(KAFKA)

$(KAFKA): spec/support/kafka/pom.xml
	@mkdir -p $(@D)
	rm -rf $(@D)/jars
	mvn -q -B -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(abspath $(@D)/jars)
	touch $@

# ---- HTTP/2 and gRPC by those who define them: h2spec, the gRPC project's interop client and server ----
# From Go modules that go.mod and go.sum pin; the Go that Debian has builds them, and no other is fetched.

GO       := GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 go
GO_FILES := $(sort $(wildcard spec/support/go/*.* spec/support/go/*/*.go))
# Named by what it was built from: a cache from elsewhere may be older than the sources and yet dated later.
GO_TOOLS := $(CACHE)/bin/built-$(firstword $(shell cat $(GO_FILES) | sha256sum))

tools: $(GO_TOOLS)

$(GO_TOOLS): $(GO_FILES)
	@mkdir -p $(@D)
	rm -f $(@D)/built*
	cd spec/support/go && $(GO) build -o $(abspath $(@D))/h2spec github.com/summerwind/h2spec/cmd/h2spec
	cd spec/support/go && $(GO) build -o $(abspath $(@D))/grpc-interop-client google.golang.org/grpc/interop/client
	cd spec/support/go && $(GO) build -o $(abspath $(@D))/grpc-interop-server google.golang.org/grpc/interop/server
	cd spec/support/go && $(GO) build -o $(abspath $(@D))/ ./grpc-compressed ./greeter ./otlp-descriptors
	touch $@

# ---- What others made, for the specs: WebSocket clients and services, JSON Schema's tests, another Avro; pinned by hash ----

WEBSOCKETS_SHA256 := a3b3366087c1bc0a2795111edcadddb8b3b59509d5db5d7ea3fdd69f954a8878
WS_SHA256         := a08221f2851472c944ca0178d89a9888c7f43fbd9998afc8a7ec6fe417c4ca20
JSONSCHEMA_SHA256 := d71497fef26351a33265337fa77ffeb82423f3ea21283cd9467bb03999266bc4
METASCHEMA_SHA256 := 87e4fdf3a94858b8a2ba2778d9ba57d8a9cafca7c7489c46ba0d30a8bc6a9c3c
ASYNCAPI_SHA256   := 01af8744dc33c0c7eb2e908f6a955319ee58b70ecadc9387d1aeb16c0cd28928
FASTAVRO_SHA256   := 13e11c6cb28626da85290933027cd419ce3f9ab8e45410ef24ce6b89d20a1f6c
RDKAFKA_SHA256    := 148f7e7b65c510314c70762d8f1be052c8fe1fdf03a128e6c78083a729a57a30
METASCHEMAS       := jsonschema_specifications-2023.12.1-py3-none-any.whl

peers: $(CACHE)/peers/websockets/src/websockets/version.py $(CACHE)/peers/ws/index.js \
       $(CACHE)/peers/json-schema/json/README.md $(CACHE)/peers/json-schema/jsonschema_specifications/__init__.py \
       $(CACHE)/peers/asyncapi/schemas/3.0.0.json \
       $(CACHE)/peers/fastavro/fastavro/__init__.py \
       $(CACHE)/librdkafka/librdkafka.a $(BUILD)/release/sluice-newer

$(CACHE)/websockets-13.1.tar.gz:
	@mkdir -p $(CACHE)
	pip3 download --quiet --no-binary websockets --no-deps --dest $(CACHE) websockets==13.1
	echo "$(WEBSOCKETS_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(CACHE)/ws-8.18.0.tgz:
	@mkdir -p $(CACHE)
	cd $(CACHE) && npm pack --silent ws@8.18.0
	echo "$(WS_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(CACHE)/peers/websockets/src/websockets/version.py: $(CACHE)/websockets-13.1.tar.gz
	@mkdir -p $(CACHE)/peers/websockets
	tar -xzf $< -C $(CACHE)/peers/websockets --strip-components=1 --no-same-owner -m

$(CACHE)/peers/ws/index.js: $(CACHE)/ws-8.18.0.tgz
	@mkdir -p $(@D)
	tar -xzf $< -C $(@D) --strip-components=1 --no-same-owner -m

# A newer librdkafka than Debian 12 has, which logs in by SCRAM at Kafka 4 too. This package brings its source. Tokens we
# fetch ourselves, so it needs no curl; Kerberos it does without.
$(CACHE)/node-rdkafka-3.6.1.tgz:
	@mkdir -p $(CACHE)
	cd $(CACHE) && npm pack --silent node-rdkafka@3.6.1
	echo "$(RDKAFKA_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(CACHE)/librdkafka/librdkafka.a: $(CACHE)/node-rdkafka-3.6.1.tgz
	@mkdir -p $(@D)
	tar -xzf $< -C $(@D) --strip-components=3 --no-same-owner -m package/deps/librdkafka
	cd $(@D) && ./configure --disable-gssapi --disable-curl --enable-zstd --disable-lz4-ext >configured.txt
	$(MAKE) -s -C $(@D)/src librdkafka.a librdkafka.so.1 >$(@D)/make.log 2>&1
	cp $(@D)/src/librdkafka.so.1 $(@D)/src/librdkafka.a $(@D)

# The suite of tests that JSON Schema publishes, which this package brings with its source.
$(CACHE)/jsonschema-4.23.0.tar.gz:
	@mkdir -p $(CACHE)
	pip3 download --quiet --no-binary jsonschema --no-deps --dest $(CACHE) jsonschema==4.23.0
	echo "$(JSONSCHEMA_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(CACHE)/$(METASCHEMAS):
	@mkdir -p $(CACHE)
	pip3 download --quiet --no-deps --dest $(CACHE) jsonschema-specifications==2023.12.1
	echo "$(METASCHEMA_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(CACHE)/peers/json-schema/json/README.md: $(CACHE)/jsonschema-4.23.0.tar.gz
	@mkdir -p $(CACHE)/peers/json-schema
	tar -xzf $< -C $(CACHE)/peers/json-schema --strip-components=1 --no-same-owner -m jsonschema-4.23.0/json

$(CACHE)/peers/json-schema/jsonschema_specifications/__init__.py: $(CACHE)/$(METASCHEMAS)
	@mkdir -p $(CACHE)/peers/json-schema
	python3 -m zipfile -e $< $(CACHE)/peers/json-schema
	@touch $@

# AsyncAPI's definition of its documents, as JSON Schemas.
$(CACHE)/asyncapi-specs-6.11.1.tgz:
	@mkdir -p $(CACHE)
	cd $(CACHE) && npm pack --silent @asyncapi/specs@6.11.1
	echo "$(ASYNCAPI_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(CACHE)/peers/asyncapi/schemas/3.0.0.json: $(CACHE)/asyncapi-specs-6.11.1.tgz
	@mkdir -p $(CACHE)/peers/asyncapi
	tar -xzf $< -C $(CACHE)/peers/asyncapi --strip-components=1 --no-same-owner -m package/schemas/3.0.0.json

# Its own Python runs as it is; nothing of it is compiled.
$(CACHE)/fastavro-1.9.7.tar.gz:
	@mkdir -p $(CACHE)
	pip3 download --quiet --no-binary fastavro --no-deps --dest $(CACHE) fastavro==1.9.7
	echo "$(FASTAVRO_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(CACHE)/peers/fastavro/fastavro/__init__.py: $(CACHE)/fastavro-1.9.7.tar.gz
	@mkdir -p $(CACHE)/peers/fastavro
	tar -xzf $< -C $(CACHE)/peers/fastavro --strip-components=1 --no-same-owner -m fastavro-1.9.7/fastavro

# ---- What people type ----

deps:
	@bin/deps

# The sanitizer build runs what exercises C: the core by itself, and whole gateways.
test: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all asan kafka tools peers
	@rm -f $(BUILD)/results
	@spec/run release spec/support spec/core spec/lua spec/gateway plugins spec/kafka; release=$$?; \
	  spec/run asan spec/core spec/gateway; asan=$$?; \
	  exit $$((release | asan))

run: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	bin/sluice run -c bin/demo/sluice.yml

# Compiling is part of it: every warning is an error. An object file that has writable data breaks the rule that all a
# worker owns hangs from struct worker.
lint: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	luacheck -q lua plugins spec .luacheckrc
	clang-format-14 --dry-run -Werror core/*.c core/*.cc core/*.h
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	  --suppress=missingIncludeSystem --suppress=unknownEvaluationOrder \
	  --suppress=uninitvar --suppress=legacyUninitvar core
	@! objdump -t $(BUILD)/release/*.o | grep -E ' O \.(data|bss)(\.rel)?(\.local)?[[:space:]]' | grep -v __ioinit
	@! grep -L 'SPDX-License-Identifier: Apache-2.0' $$(git ls-files '*.c' '*.h' '*.lua') | grep .

format:
	clang-format-14 -i core/*.c core/*.cc core/*.h

# make bench CASES="plain key-auth" ROUNDS=5 SECONDS=4
bench: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@CASES='$(CASES)' ROUNDS='$(ROUNDS)' SECONDS='$(SECONDS)' luajit spec/bench/run.lua

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/sluice
	install -m 755 bin/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	cp -R lua plugins $(DESTDIR)$(PREFIX)/share/sluice/

clean:
	rm -rf $(BUILD) bin/sluice
