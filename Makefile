# Thunderhead. Each target installs what it needs (Debian 12), asks nothing, and can be run alone.
#   make demo        build, then the main job: a slice, a training gang, a model served; about two minutes after the build
#   make test        build everything and run every test
#   make azure-chaos 10,000 rehearsals of the azure provider among faults and crashes, against an emulator of Azure
#   make cluster-demo a training on a Slurm cluster in namespaces, one of whose nodes is killed; torchrun; Linpack (root)
#   make vm-demo     a slice of four real VMs by libvirt, without KVM in software emulation, and a training in them (root)
#   make test-browser the console in Debian's Chromium: the main job by clicking, at two widths
#   make screenshots docs/images, of a desk and of the twin's fleet
#   make build       the programs, in build/release
#   make fuzz        a minute of every fuzz target under address sanitizer (installs clang)
#   make fuzz-http   10 million HTTP requests through the parser, the router and the controller under address sanitizer
#   make asan tsan   the unit tests under sanitizers
.PHONY: demo cluster-demo vm-demo azure-chaos test test-browser screenshots build all-targets install fuzz fuzz-http asan tsan format clean
.DEFAULT_GOAL := build

PROGRAMS := th th-controld th-gateway th-node th-train th-serve th-sim bench-submit
JOBS := $(shell nproc)

install:
	@tools/install.sh

build/release/build.ninja: CMakeLists.txt CMakePresets.json cmake/rooms.cmake | install
	@cmake --preset release --log-level=WARNING > /dev/null

build: build/release/build.ninja
	@cmake --build build/release -j $(JOBS) --target $(PROGRAMS)

all-targets: build/release/build.ninja
	@cmake --build build/release -j $(JOBS)

demo: build
	@build/release/th demo

cluster-demo: build
	@tools/cluster_demo.py

vm-demo: build
	@tools/vm_demo.py

azure-chaos: build/release/build.ninja
	@cmake --build build/release -j $(JOBS) --target azure-chaos
	@build/release/azure-chaos --runs 10000

tests/openai/node_modules/.package-lock.json: tests/openai/package-lock.json | install
	@npm ci --prefix tests/openai --loglevel=error --no-audit --no-fund

tests/azurite/node_modules/.package-lock.json: tests/azurite/package-lock.json | install
	@npm ci --prefix tests/azurite --loglevel=error --no-audit --no-fund

tests/oidc/node_modules/.package-lock.json: tests/oidc/package-lock.json | install
	@npm ci --prefix tests/oidc --loglevel=error --no-audit --no-fund

# llama.cpp, as its package for Node.js has it built.
tests/gguf/node_modules/.package-lock.json: tests/gguf/package-lock.json | install
	@npm ci --prefix tests/gguf --omit=optional --ignore-scripts --loglevel=error --no-audit --no-fund

tests/browser/node_modules/.package-lock.json: tests/browser/package-lock.json | install
	@npm ci --prefix tests/browser --loglevel=error --no-audit --no-fund

test-browser: build tests/browser/node_modules/.package-lock.json tests/oidc/node_modules/.package-lock.json
	@tools/run_tests.sh build/release -L browser

screenshots: build tests/browser/node_modules/.package-lock.json
	@TH_BIN=$(CURDIR)/build/release TH_SOURCE=$(CURDIR) node tools/screenshots.mjs

test: all-targets tests/browser/node_modules/.package-lock.json tests/gguf/node_modules/.package-lock.json tests/openai/node_modules/.package-lock.json tests/azurite/node_modules/.package-lock.json tests/oidc/node_modules/.package-lock.json
	@tools/run_tests.sh build/release

asan tsan: install
	@cmake --preset $@ > /dev/null && cmake --build build/$@ -j $(JOBS) && tools/run_tests.sh build/$@ -L fast

fuzz: install
	@tools/fuzz.sh

fuzz-http: install
	@cmake --preset asan > /dev/null && cmake --build build/asan -j $(JOBS) --target th_sim_world_http_fuzz
	@seq $(JOBS) | ASAN_OPTIONS=malloc_context_size=4 TH_FUZZ_RUNS=$${TH_FUZZ_RUNS:-$$((4200000 / $(JOBS)))} xargs -P $(JOBS) -I{} \
	  env TH_FUZZ_SEED={} build/asan/fuzz/th_sim_world_http_fuzz src/sim/world/fuzz_seeds/http_fuzz

format:
	@git ls-files '*.cc' '*.h' | xargs clang-format -i

clean:
	@rm -rf build
