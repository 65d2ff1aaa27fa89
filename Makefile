# cortex: a portable compute-graph runtime.  `make help` lists the targets.
#
# make run, make test: check what is missing, install it where that is allowed, build, do the job.
# Objects go to $(BUILD); nothing is generated into the source tree.

BUILD ?= build
PREFIX ?= /usr/local
SAN ?=
V ?=
ifeq ($(origin CC),default)
CC := gcc
endif
Q := $(if $(V),,@)

# ---- flags -------------------------------------------------------------------------------------
MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null)
PKG := $(shell command -v pkg-config 2>/dev/null)
LIBS_PC := jansson libpcre2-8 libutf8proc
CFLAGS_WARN := -Wall -Wextra -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	-Wno-missing-field-initializers
# No fast-math, and no contraction: a*b+c is an FMA only where the source says so, so that the same
# source gives the same bits for every instruction set below.
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE -O2 -g -I. -ffp-contract=off -fno-math-errno -fvisibility=hidden \
	-fPIC $(CFLAGS_WARN)
ifneq ($(SAN),)
override BUILD := $(BUILD)/san
CFLAGS_ALL += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif
# Link line of the static library's users; asked for late, since `make run` may first install pkg-config.
CFLAGS_PC = $(eval CFLAGS_PC := $(if $(PKG),$(shell $(PKG) --cflags $(LIBS_PC) 2>/dev/null)))$(CFLAGS_PC)
LIBS_FOUND = $(eval LIBS_FOUND := $(if $(PKG),$(shell $(PKG) --libs $(LIBS_PC) 2>/dev/null)))$(LIBS_FOUND)
LDLIBS = $(if $(LIBS_FOUND),$(LIBS_FOUND),-ljansson -lpcre2-8 -lutf8proc) -lz -lm -lpthread -ldl

# Files in backends/cpu/isa/ are compiled once per instruction set, with CX_ISA naming it, and chosen
# at run time by cpuid.
ifneq ($(filter x86_64-%,$(MACHINE)),)
ISAS := generic avx2 avx512
CFLAGS_generic := -O2
CFLAGS_avx2 := -O3 -march=haswell -mtune=znver3
CFLAGS_avx512 := -O3 -march=x86-64-v4 -mavx512vnni -mavx512bf16 -mavx512vbmi -mtune=znver3 \
	-mprefer-vector-width=512
else
ISAS := generic
CFLAGS_generic := -O2
endif

ifneq ($(SAN),)
# Instrumented vector code takes minutes at -O3, and no longer there.
$(foreach i,$(ISAS),$(eval CFLAGS_$(i) += -O1))
endif

# ---- what there is -----------------------------------------------------------------------------
LIB_SRC := $(wildcard graph/*.c backends/*.c backends/ref/*.c backends/null/*.c backends/cpu/*.c \
	backends/dialect/*.c backends/cuda/*.c \
	models/*.c models/*/*.c)
ISA_SRC := $(wildcard backends/cpu/isa/*.c)
APP_SRC := $(wildcard serve/*.c serve/*/*.c)
TEST_SRC := $(wildcard tests/test_*.c)
TEST_LIB_SRC := $(filter-out $(TEST_SRC),$(wildcard tests/*.c))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_SRC := $(wildcard bench/bench_*.c)
BENCH_LIB_SRC := $(filter-out $(BENCH_SRC),$(wildcard bench/*.c))
HEADERS := $(filter-out backends/opencl/% backends/vulkan/%,$(wildcard graph/*.h models/*/*.h backends/*/*.h))

comma := ,
have_h = $(if $(wildcard $(foreach d,/usr/include /usr/local/include,$(d)/$(1))),yes,no)
# OPENCL=yes, no: by default, where its headers are.  The library itself is looked for at run time.
OPENCL ?= $(call have_h,CL/cl.h)
ifeq ($(OPENCL),yes)
CFLAGS_ALL += -DCX_HAVE_OPENCL=1
LIB_SRC += $(wildcard backends/opencl/*.c)
LIB_GEN += $(BUILD)/gen/kernel_texts.o
HEADERS += $(wildcard backends/opencl/*.h)
endif
# VULKAN=yes, no: by default, where its headers and glslangValidator are.  The loader is looked for at run time.
GLSLANG := $(shell command -v glslangValidator 2>/dev/null)
VULKAN ?= $(if $(GLSLANG),$(call have_h,vulkan/vulkan.h),no)
ifeq ($(VULKAN),yes)
CFLAGS_ALL += -DCX_HAVE_VULKAN=1 -I$(BUILD)
LIB_SRC += $(wildcard backends/vulkan/*.c)
HEADERS += $(wildcard backends/vulkan/*.h)
else
TEST_SRC := $(filter-out tests/test_vulkan%,$(TEST_SRC))
endif

# HDF5=yes, no: by default, where its headers are.  NWB files are read by a plug-in, which alone links libhdf5.
CFLAGS_H5 := $(firstword $(foreach d,/usr/include/hdf5/serial /usr/local/include /usr/include,$(if $(wildcard $(d)/hdf5.h),-I$(d))))
LIBS_H5 := $(firstword $(foreach d,$(MACHINE)/hdf5/serial $(MACHINE),$(if $(wildcard /usr/lib/$(d)/libhdf5.so),-L/usr/lib/$(d)))) -lhdf5
HDF5 ?= $(if $(CFLAGS_H5),yes,no)
# CUDA=yes, no: its device code, a plug-in that nvcc makes in minutes; not unless asked for.  The host side is always there.
CUDA ?= no
PLUGINS := $(if $(filter yes,$(HDF5)),$(BUILD)/cortex-nwb.so) $(if $(filter yes,$(CUDA)),$(BUILD)/cortex-cuda.so)

LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o) $(LIB_GEN) $(foreach i,$(ISAS),$(ISA_SRC:%.c=$(BUILD)/%.$(i).o))
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/%.o) $(BUILD)/gen/dump_html.o
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_LIB_OBJ := $(TEST_LIB_SRC:%.c=$(BUILD)/%.o) $(BUILD)/wide/ref.o
BENCH_BIN := $(BENCH_SRC:%.c=$(BUILD)/%)
BENCH_LIB_OBJ := $(BENCH_LIB_SRC:%.c=$(BUILD)/%.o)

NVCC := $(shell command -v nvcc 2>/dev/null)
FOUND := cuda compiler: $(if $(NVCC),yes,no), vulkan headers: $(call have_h,vulkan/vulkan.h), \
	glslangValidator: $(if $(GLSLANG),yes,no), \
	opencl headers: $(call have_h,CL/cl.h), hdf5 headers: $(if $(CFLAGS_H5),yes,no)

.PHONY: all run test bench bench-quick lint format deps deps-install install docs help clean fuzz headers found
.SECONDARY:

all: found $(BUILD)/cortex $(PLUGINS)

found:
	@echo "backends: cpu ($(ISAS)),$(if $(filter yes,$(VULKAN)), vulkan$(comma))$(if $(LIB_GEN), opencl$(comma)) ref, null | optional, found here: $(FOUND)"

# ---- the two commands --------------------------------------------------------------------------
# DATA=DIR or DATA=SPIKES.npy,KINEMATICS.npy decodes a recording; without it a session is simulated.
DATA ?=
OUT ?= $(BUILD)/run
run:
	@.ci/deps install build
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(BUILD)/cortex decoder demo --model nano $(if $(DATA),--data "$(DATA)") --out "$(OUT)"

# SAN=1: everything under AddressSanitizer and UBSan, in its own build folder.
# K=name: only the programs whose name contains it.   FUZZ_SECONDS=0: no fuzzing.
K ?=
FUZZ_SECONDS ?= $(if $(SAN),0,10)
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
test:
	@.ci/deps install build test
	@$(MAKE) --no-print-directory -j$(JOBS) test-build
	@tests/run.sh "$(BUILD)" "$(K)" "$(FUZZ_SECONDS)"

.PHONY: test-build
test-build: all $(TEST_BIN) $(BUILD)/tests/cortex-faulty $(BUILD)/tests/cuda/libcuda.so.1 headers fuzz

# The grid, the models, memcheck and the benchmarks on a GPU, in one command; installs nothing.  See tests/gpu.sh.
GPU_BIN := $(addprefix $(BUILD)/,tests/test_grid tests/test_llm_devices tests/test_grad_model tests/test_cuda_driver \
	bench/bench_backend)
.PHONY: test-gpu
test-gpu:
	@tests/gpu.sh check; s=$$?; [ $$s = 3 ] && exit 0; [ $$s = 0 ] || exit $$s; \
	$(MAKE) --no-print-directory -j$(JOBS) CUDA=yes all $(GPU_BIN) $(BUILD)/tests/cuda/libcuda.so.1 && \
	tests/gpu.sh run "$(BUILD)"

# ---- build rules -------------------------------------------------------------------------------
$(BUILD)/libcortex.a: $(LIB_OBJ)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/cortex: $(APP_OBJ) $(BUILD)/libcortex.a
	$(Q)echo "  LD      $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/models/files/hdf5/%.o: CFLAGS_ALL += $(CFLAGS_H5)
$(BUILD)/cortex-nwb.so: $(BUILD)/models/files/hdf5/plugin.o $(BUILD)/graph/base.o
	$(Q)echo "  LD      $@"
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-Bsymbolic -o $@ $^ $(LIBS_H5)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_LIB_OBJ) $(BUILD)/libcortex.a
	$(Q)echo "  LD      $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(TEST_LIBS) $(LDLIBS)

$(BUILD)/bench/%: $(BUILD)/bench/%.o $(BENCH_LIB_OBJ) $(BUILD)/libcortex.a
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: %.c Makefile
	$(Q)mkdir -p $(@D)
	$(Q)echo "  CC      $<"
	$(Q)$(CC) $(CFLAGS_ALL) $(CFLAGS_PC) $(CFLAGS) -MMD -MP -c $< -o $@

define isa_rule
$(BUILD)/%.$(1).o: %.c Makefile
	$$(Q)mkdir -p $$(@D)
	$$(Q)echo "  CC $(1)  $$<"
	$$(Q)$(CC) $(CFLAGS_ALL) $(CFLAGS_$(1)) -DCX_ISA=$(1) -DCX_ISA_$(1)=1 $(CFLAGS) -MMD -MP -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call isa_rule,$(i))))

# The page of `cortex dump --format html`, as strings.
$(BUILD)/gen/dump_html.c: serve/embed.awk serve/dump.html
	$(Q)mkdir -p $(@D)
	$(Q)awk -f serve/embed.awk serve/dump.html >$@
$(BUILD)/gen/dump_html.o: $(BUILD)/gen/dump_html.c
	$(Q)$(CC) $(CFLAGS_ALL) -c $< -o $@

# Device code in the portable dialect, as strings; and the same sources through CUDA's compiler, where it is.
KERNELS := $(wildcard kernels/*.cl.h)
KERNEL_DEPS := $(wildcard kernels/*.h) graph/scalar.def graph/ops.def graph/dtype.def
$(BUILD)/gen/kernel_texts.c: kernels/embed.awk $(KERNEL_DEPS)
	$(Q)mkdir -p $(@D)
	$(Q)awk -f kernels/embed.awk $(KERNELS) >$@
$(BUILD)/gen/kernel_texts.o: $(BUILD)/gen/kernel_texts.c
	$(Q)$(CC) $(CFLAGS_ALL) -c $< -o $@
ifneq ($(and $(NVCC),$(filter-out yes,$(CUDA))),)
headers: $(patsubst %,$(BUILD)/%.ptx,$(filter-out %/elem.cl.h %/quant.cl.h,$(KERNELS)))
endif
$(BUILD)/kernels/%.ptx: kernels/% $(KERNEL_DEPS)
	$(Q)mkdir -p $(@D)
	$(Q)echo "  NVCC    $<"
	$(Q)$(NVCC) -arch=sm_80 -fmad=false -std=c++17 -I. -x cu -ptx -o $@ $<

# The CUDA plug-in: a fat binary per family of kernels, some once more for f32, f16 and bf16 alone (tensors 0..2 of these
# dtypes, by number), and nothing for the host.  FAMILY.log keeps what ptxas says; .ci/spills reads it.
CUDA_FAMILIES := $(patsubst kernels/%.cl.h,%,$(filter-out %/elem.cl.h %/quant.cl.h,$(KERNELS)))
CUDA_IMAGES := $(CUDA_FAMILIES) matmul-0.0.0 matmul-1.1.1 matmul-2.2.2
CUDA_CODE := -gencode 'arch=compute_80,code=[sm_80,sm_86]' -gencode 'arch=compute_90,code=[sm_90,compute_90]'
cuda_dtypes = $(if $(findstring -,$(1)),$(join -DCX_DT_0= -DCX_DT_1= -DCX_DT_2=,$(patsubst %,%u,$(subst ., ,$(lastword $(subst -, ,$(1)))))))
ifeq ($(CUDA)$(NVCC),yes)
$(error CUDA=yes needs nvcc, and it is not on the PATH)
endif
define cuda_rule
$(BUILD)/cuda/$(1).fatbin: $(firstword $(subst -, ,kernels/$(1))).cl.h $(KERNEL_DEPS)
	$$(Q)mkdir -p $$(@D)
	$$(Q)echo "  NVCC    $(1)"
	$$(Q)$(NVCC) $(CUDA_CODE) -fmad=false -std=c++17 -I. $(call cuda_dtypes,$(1)) -Xptxas -v -x cu -fatbin -o $$@.new $$< \
		>$(BUILD)/cuda/$(1).log 2>&1 || { cat $(BUILD)/cuda/$(1).log; false; }
	$$(Q)mv $$@.new $$@
endef
$(foreach i,$(CUDA_IMAGES),$(eval $(call cuda_rule,$(i))))
$(BUILD)/gen/cuda_plugin.c: $(CUDA_IMAGES:%=$(BUILD)/cuda/%.fatbin) Makefile backends/cuda/embed.sh
	$(Q)mkdir -p $(@D)
	$(Q)backends/cuda/embed.sh "$(BUILD)/cuda" "$(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')" \
		$(CUDA_IMAGES) >$@
$(BUILD)/cortex-cuda.so: $(BUILD)/gen/cuda_plugin.c
	$(Q)echo "  LD      $@"
	$(Q)$(CC) $(CFLAGS_ALL) -fno-sanitize=all -shared -nostdlib -o $@ $<

# A libcuda.so.1 that runs launches on the host: kernels as CUDA, through the host's C++ compiler, where it is.
CXX_FOUND := $(shell command -v $(CXX) 2>/dev/null)
EMU_OBJ := $(BUILD)/tests/cuda_emu/driver.o $(BUILD)/tests/cuda_emu/run.o $(if $(CXX_FOUND),$(CUDA_FAMILIES:%=$(BUILD)/tests/cuda_emu/%.kernels.o) $(BUILD)/gen/emu_table.o)
$(BUILD)/tests/cuda_emu/%.kernels.o: kernels/%.cl.h tests/cuda_emu/kernels.sh tests/cuda_emu/emu.hh $(KERNEL_DEPS)
	$(Q)mkdir -p $(@D)
	$(Q)echo "  CXX     $<"
	$(Q)tests/cuda_emu/kernels.sh $* >$(@:.o=.cc)
	$(Q)$(CXX) -std=c++17 -O1 -w -fPIC -ffp-contract=off -fno-math-errno -I. -Itests/cuda_emu -c $(@:.o=.cc) -o $@
$(BUILD)/gen/emu_table.c: tests/cuda_emu/kernels.sh Makefile
	$(Q)mkdir -p $(@D)
	$(Q)tests/cuda_emu/kernels.sh --table $(CUDA_FAMILIES) >$@
$(BUILD)/gen/emu_table.o: $(BUILD)/gen/emu_table.c
	$(Q)$(CC) $(CFLAGS_ALL) -c $< -o $@
$(BUILD)/tests/cuda/libcuda.so.1: $(EMU_OBJ)
	$(Q)mkdir -p $(@D)
	$(Q)echo "  LD      $@"
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-soname,libcuda.so.1 -o $@ $^ -lm

# Shaders become SPIR-V words in one header: gen/shaders.inc has an array spv_<name> per shaders/<name>.comp.
SHADERS := $(wildcard shaders/*.comp)
$(BUILD)/gen/ids.glsl: shaders/ids.def graph/ops.def graph/dtype.def
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -E -P -x c -I. $< -o $@
$(BUILD)/gen/%.spv.inc: shaders/%.comp $(BUILD)/gen/ids.glsl $(wildcard shaders/*.glsl) graph/scalar.def
	$(Q)echo "  GLSL    $<"
	$(Q)$(GLSLANG) -V --target-env vulkan1.2 -I. -I$(BUILD)/gen -x -o $@ $< >$@.log || { cat $@.log; rm -f $@; false; }
$(BUILD)/gen/shaders.inc: $(SHADERS:shaders/%.comp=$(BUILD)/gen/%.spv.inc) Makefile backends/vulkan/shaders.def
	$(Q)for s in $(SHADERS:shaders/%.comp=%); do echo "static const uint32_t spv_$$s[] = {"; \
		echo "#include \"gen/$$s.spv.inc\""; echo "};"; done >$@
$(BUILD)/backends/vulkan/shaders.o: $(BUILD)/gen/shaders.inc

# The binary with one more backend, `faulty`: for tests, and to learn debugging on (docs/DEBUGGING.md).
FAULTY_OBJ := $(BUILD)/tests/faulty/backend.o $(BUILD)/tests/faulty.o
.PHONY: faulty
faulty: $(BUILD)/tests/cortex-faulty
	@echo "built $<"
$(BUILD)/tests/cortex-faulty: $(APP_OBJ) $(FAULTY_OBJ) $(BUILD)/libcortex.a
	$(Q)echo "  LD      $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The reference once more with its f32 values in double, as wide_ref_eval(): see tests/wide_ref.h.
WIDE_OBJ := $(patsubst %.c,$(BUILD)/wide/%.o,$(filter-out backends/ref/ref.c,$(wildcard backends/ref/*.c)))
$(BUILD)/wide/%.o: %.c tests/wide_ref.h Makefile
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(CFLAGS) -include tests/wide_ref.h -MMD -MP -c $< -o $@
$(BUILD)/wide/ref.o: $(WIDE_OBJ)
	$(Q)echo "  LD      $@"
	$(Q)$(CC) -r -nostdlib -o $@.all $^
	$(Q)objcopy --redefine-sym cx__ref_eval=wide_ref_eval $@.all
	$(Q)objcopy --keep-global-symbol=wide_ref_eval $@.all $@

# The ONNX cases are protobuf: only the test reads them.
TEST_LIBS = -lz
ifneq ($(wildcard tests/onnx.proto),)
TEST_LIBS += -lprotobuf-c
$(BUILD)/tests/onnx.pb-c.c: tests/onnx.proto
	$(Q)mkdir -p $(@D)
	$(Q)protoc-c --proto_path=tests --c_out=$(@D) $<
$(BUILD)/tests/onnx.pb-c.o: $(BUILD)/tests/onnx.pb-c.c
	$(Q)$(CC) $(CFLAGS_ALL) -w -I$(BUILD)/tests -c $< -o $@
ONNX_OBJ := $(BUILD)/tests/test_onnx.o $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/onnx/*.c))
$(ONNX_OBJ): CFLAGS += -I$(BUILD)/tests
$(ONNX_OBJ): $(BUILD)/tests/onnx.pb-c.c
$(BUILD)/tests/test_onnx: $(ONNX_OBJ) $(BUILD)/tests/onnx.pb-c.o
endif

# Every header compiles alone.
headers: $(HEADERS:%=$(BUILD)/headers/%.ok)
$(BUILD)/headers/%.ok: %
	$(Q)mkdir -p $(@D)
	$(Q)echo '#include "$<"' | $(CC) $(CFLAGS_ALL) $(CFLAGS_PC) -fsyntax-only -x c -
	$(Q)touch $@

# libFuzzer targets, where clang and its runtime are: the library again, instrumented.
CLANG := $(firstword $(shell command -v clang-14 clang 2>/dev/null))
HAVE_FUZZ := $(and $(CLANG),$(wildcard /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a))
FUZZ_FLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
FUZZ_BIN := $(if $(HAVE_FUZZ),$(if $(SAN),,$(FUZZ_SRC:%.c=$(BUILD)/%)))
FUZZ_LIB_SRC := $(wildcard graph/*.c models/files/*.c models/text/*.c)
FUZZ_OBJ := $(FUZZ_LIB_SRC:%.c=$(BUILD)/fuzz-obj/%.o)
fuzz: $(FUZZ_BIN)
$(BUILD)/fuzz-obj/%.o: %.c Makefile
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(CFLAGS_ALL) $(CFLAGS_PC) -O1 -Wno-unknown-warning-option $(FUZZ_FLAGS) -c $< -o $@
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(FUZZ_OBJ) $(BUILD)/libcortex.a
	$(Q)mkdir -p $(@D)
	$(Q)echo "  FUZZ    $<"
	$(Q)$(CLANG) $(CFLAGS_ALL) $(CFLAGS_PC) -O1 -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=undefined $^ -o $@ $(LDLIBS)

# ---- the rest ----------------------------------------------------------------------------------
bench: all
	@$(MAKE) --no-print-directory $(BENCH_BIN)
	@bench/run.sh "$(BUILD)"

# Does the grid see a broken kernel? 50 seeded mutants on a copy of the tree; half an hour.
.PHONY: mutants
mutants:
	@python3 tests/mutate.py

docs: $(BUILD)/docs/gen_ops
	@$(BUILD)/docs/gen_ops >docs/OPS.md
$(BUILD)/docs/gen_ops: docs/gen_ops.c $(BUILD)/libcortex.a
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ $(LDLIBS)

lint:
	@.ci/deps install build lint
	@.ci/lint

format:
	@command -v clang-format-14 >/dev/null || { echo "make format: clang-format-14 is not installed"; exit 1; }
	@git ls-files '*.c' '*.h' | xargs clang-format-14 -i

# Prints what is missing, and the one line that installs it.  TIER: build test lint.
TIER ?= build test lint
deps:
	@.ci/deps check $(TIER)
deps-install:
	@.ci/deps install $(TIER)

install: all
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/lib" "$(DESTDIR)$(PREFIX)/include/graph"
	install -m 755 $(BUILD)/cortex "$(DESTDIR)$(PREFIX)/bin/cortex"
	$(if $(PLUGINS),install -d "$(DESTDIR)$(PREFIX)/lib/cortex" && install -m 755 $(PLUGINS) "$(DESTDIR)$(PREFIX)/lib/cortex/")
	install -m 644 $(BUILD)/libcortex.a "$(DESTDIR)$(PREFIX)/lib/libcortex.a"
	install -m 644 graph/cx.h graph/optim.h graph/base.h graph/ops.def graph/attrs.def graph/dtype.def \
		"$(DESTDIR)$(PREFIX)/include/graph/"

help:
	@echo "make run [DATA=...]     train a small decoder on a simulated session, or a recording, and draw the result"
	@echo "make test [K=..] [SAN=1] [FUZZ_SECONDS=n]  the whole suite"
	@echo "make                    build $(BUILD)/cortex and $(BUILD)/libcortex.a"
	@echo "make test-gpu           grid, models, memcheck, benchmarks on a GPU; says so where there is none"
	@echo "make CUDA=yes           also $(BUILD)/cortex-cuda.so, device code for NVIDIA: some minutes of nvcc"
	@echo "make faulty             $(BUILD)/tests/cortex-faulty, with a backend that can be told to be wrong"
	@echo "make bench              speed as a share of measured ceilings, TSV under bench/results/"
	@echo "make mutants            50 broken kernels: how many of them the grid of tests sees"
	@echo "make lint               the rules of the house, counted"
	@echo "make format             clang-format"
	@echo "make docs               docs/OPS.md from graph/ops.def"
	@echo "make deps [TIER=..]     what is missing, and the line that installs it; deps-install does it"
	@echo "make install PREFIX=    $(PREFIX)"
	@echo "make clean              remove $(BUILD)"

clean:
	rm -rf $(BUILD)

-include $(EMU_OBJ:.o=.d) $(BUILD)/models/files/hdf5/plugin.d $(FAULTY_OBJ:.o=.d) $(LIB_OBJ:.o=.d) $(APP_OBJ:.o=.d) $(TEST_LIB_OBJ:.o=.d) $(WIDE_OBJ:.o=.d) $(TEST_BIN:=.d) $(BENCH_BIN:=.d) $(BENCH_LIB_OBJ:.o=.d)
