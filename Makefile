# cortex: a portable compute-graph runtime.  `make help` lists the targets.
BUILD ?= build
CC ?= gcc
SAN ?=

MACHINE := $(shell $(CC) -dumpmachine)
PKG := $(shell command -v pkg-config 2>/dev/null)
LIBS_PC := jansson libpcre2-8 libutf8proc

CFLAGS_WARN := -Wall -Wextra -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-missing-field-initializers
# No fast-math, and no contraction: the same source gives the same bits with every compiler flag set below.
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE -O2 -g -I. -ffp-contract=off -fno-math-errno -fvisibility=hidden -fPIC $(CFLAGS_WARN)
ifneq ($(SAN),)
BUILD := $(BUILD)/san
CFLAGS_ALL += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif
CFLAGS_ALL += $(shell $(PKG) --cflags $(LIBS_PC) 2>/dev/null)
LDLIBS := $(shell $(PKG) --libs $(LIBS_PC) 2>/dev/null) -lm -lpthread -ldl

# Files in backends/cpu/isa/ are compiled once per instruction set, with CX_ISA naming it, and chosen at run time.
ifneq ($(filter x86_64-%,$(MACHINE)),)
ISAS := generic avx2 avx512
CFLAGS_generic := -O3
CFLAGS_avx2 := -O3 -march=haswell -mtune=znver3
CFLAGS_avx512 := -O3 -march=x86-64-v4 -mavx512vnni -mavx512bf16 -mavx512vbmi -mtune=znver4 -mprefer-vector-width=512
else
ISAS := generic
CFLAGS_generic := -O3
endif

LIB_SRC := $(wildcard graph/*.c backends/*.c backends/ref/*.c backends/null/*.c backends/cpu/*.c models/*.c models/*/*.c)
ISA_SRC := $(wildcard backends/cpu/isa/*.c)
APP_SRC := $(wildcard serve/*.c serve/*/*.c)
TEST_SRC := $(wildcard tests/test_*.c)
TEST_LIB_SRC := $(filter-out $(TEST_SRC),$(wildcard tests/*.c))

LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o) $(foreach i,$(ISAS),$(ISA_SRC:%.c=$(BUILD)/%.$(i).o))
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/%.o)
TEST_BIN := $(TEST_SRC:tests/%.c=$(BUILD)/tests/%)
TEST_LIB_OBJ := $(TEST_LIB_SRC:%.c=$(BUILD)/%.o)

.PHONY: all test clean
.SECONDARY:
all: $(BUILD)/cortex

$(BUILD)/libcortex.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/cortex: $(APP_OBJ) $(BUILD)/libcortex.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_LIB_OBJ) $(BUILD)/libcortex.a
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(CFLAGS) -MMD -MP -c $< -o $@

define isa_rule
$(BUILD)/%.$(1).o: %.c Makefile
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS_ALL) $(CFLAGS_$(1)) -DCX_ISA=$(1) -DCX_ISA_$(1)=1 $(CFLAGS) -MMD -MP -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call isa_rule,$(i))))

clean:
	rm -rf $(BUILD)

-include $(LIB_OBJ:.o=.d) $(APP_OBJ:.o=.d) $(TEST_LIB_OBJ:.o=.d) $(TEST_BIN:=.d)
