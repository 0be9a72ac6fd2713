/* What every fuzz target has: warp.c itself, and a way to insist. libFuzzer
 * hands each input over in a block of exactly its size, so that a read beyond
 * its end is seen. */

#define main warp_main
#include "../../warp.c"
#undef main

/* What holds for every input, or the input is a finding. */
#define MUST(holds)                                                              \
	do {                                                                     \
		if (!(holds)) {                                                  \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #holds); \
			abort();                                                 \
		}                                                                \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
