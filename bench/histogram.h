/* Latencies, log-linear as in HdrHistogram: 128 steps per power of two, read at most 0.8 % too high. */
#include <stdint.h>

enum { STEPS_LOG2 = 7, STEPS = 1 << STEPS_LOG2, SLOTS = (64 - STEPS_LOG2) * STEPS };

struct histogram {
    uint64_t count, max, slots[SLOTS];
};

static inline unsigned slot_of(uint64_t ns) {
    if (ns < 2 * STEPS) return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - STEPS_LOG2;
    return shift * STEPS + (unsigned)(ns >> shift);
}

static inline void histogram_add(struct histogram *h, uint64_t ns) {
    h->slots[slot_of(ns)]++;
    h->count++;
    if (ns > h->max) h->max = ns;
}

/* The highest value that shares the percentile's slot (0 when nothing was recorded). */
static uint64_t histogram_percentile(const struct histogram *h, double percent) {
    uint64_t wanted = (uint64_t)(percent / 100 * (double)h->count + 0.5), seen = 0;
    if (!h->count) return 0;
    if (wanted < 1) wanted = 1;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        seen += h->slots[slot];
        if (seen < wanted) continue;
        unsigned shift = slot < 2 * STEPS ? 0 : slot / STEPS - 1;
        uint64_t top = (((uint64_t)slot - shift * STEPS + 1) << shift) - 1;
        return top < h->max ? top : h->max;
    }
    return h->max;
}
