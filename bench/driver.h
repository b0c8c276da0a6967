/* What the driver's parts share: its settings, its sessions, the clock, and the text of a message. */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "histogram.h"
#include "tape.h"

enum {
    READ_BYTES = 1 << 18,
    FRAME_BYTES_MAX = 1 << 20,
    EVENTS = 256,
    PER_ADDRESS = 16000, /* sessions per source address 127.x.y.z: a port range holds some 28,000 */
    SPEAKERS_MAX = 64,
    TEXT_BYTES_MIN = 49, /* what the fields of a message take */
    CODES = 8,
};
static const uint64_t SECOND = 1000000000;
static const uint64_t LINGER_NS = 200000000; /* after the last delivery: for one that comes twice */
static const uint64_t LEAVE_GRACE_NS = 5000000000; /* a leaver owes nothing that was due later than this */

/* RFC 6455 §1.3's own example: any 16 bytes will do, and nobody has to compute SHA-1 here. */
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==", ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

enum state { ABSENT, CONNECTING, SHAKING, OPEN, LEAVING, CUT };

struct conn {
    struct member member; /* first: a conn is its member */
    enum state state;
    int fd, index;
    uint32_t polled;      /* the events asked of epoll */
    int slow, stalled;    /* one that is to stall; one that does not read for now */
    int compressed;       /* permessage-deflate was agreed */
    z_stream *inflater;   /* with context takeover only; otherwise one serves all */
    char *part;           /* an incomplete frame, or what a joiner received before the tape got there */
    size_t part_size;
    int waiting;          /* for the tape; with since when and for which message */
    uint64_t waiting_ns;
    uint32_t waiting_for;
    char *out;
    size_t out_size, out_sent, out_room;
    uint64_t connect_ns;
};

static struct {
    int port, rooms, members, speakers, bytes, stalled, receive_bytes, churn, inflight, deflate;
    double rate, seconds, warm_s, settle_s, drain_s, quiet_s;
    const char *prefix, *tokens;
} set = {.rooms = 1, .members = 2, .speakers = 10, .bytes = 128, .inflight = 64, .seconds = 5, .warm_s = 1,
         .settle_s = 1, .drain_s = 60, .quiet_s = 5, .prefix = "bench"};

/* Of set.tokens, a line each: connection i brings line i, behind the last the first again. */
static char **tokens;
static int tokens_count;

static int poller;
static uint32_t run_id;
static struct conn *conns;
static struct room *rooms;
static int total, started, open_count, connecting, churn_next, pending;
static struct histogram latency, handshake;
static struct verdict verdict;
static uint64_t start_ns, window_begin, window_end, window_deliveries, cut, unsent, last_delivery_ns;
static double message_ns; /* between two messages of the whole run */
static uint64_t messages, messages_sent, begin_cpu_ns, window_cpu_ns, late_ns_max;
static struct { int code; uint64_t count; } closes[CODES];
static z_stream shared_inflater;
static struct conn **waiting;
static int waiting_count;
static char buffer[READ_BYTES + FRAME_BYTES_MAX * 2], inflated[FRAME_BYTES_MAX], padding[FRAME_BYTES_MAX];

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}
#define now_ns() clock_ns(CLOCK_MONOTONIC)

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "driver: ");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(1);
}

static void event(const char *name) {
    printf("{\"event\": \"%s\", \"at_ns\": %llu}\n", name, (unsigned long long)now_ns());
    fflush(stdout);
}

static void event_and_wait(const char *name) {
    char line[64];
    event(name);
    if (!fgets(line, sizeof line, stdin)) exit(1); /* the starter is gone */
}

static uint64_t due_ns_of(uint32_t room, uint32_t message) {
    return start_ns + (uint64_t)(((double)message * set.rooms + room) * message_ns);
}

static char *put_hex(char *at, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--, value >>= 4) at[i] = "0123456789abcdef"[value & 15];
    at[digits] = ' ';
    return at + digits + 1;
}

static uint64_t get_hex(const char *at, int digits) {
    uint64_t value = 0;
    for (int i = 0; i < digits; i++)
        value = value << 4 | (uint64_t)(at[i] <= '9' ? at[i] - '0' : at[i] - 'a' + 10);
    return value;
}

/* "hb run room speaker number due-ns words…", exactly set.bytes long. */
static void put_text(char *text, uint32_t room, uint32_t message) {
    char *at = memcpy(text, "hb ", 3);
    at = put_hex(at + 3, run_id, 8);
    at = put_hex(at, room, 5);
    at = put_hex(at, message % (uint32_t)set.speakers, 4);
    at = put_hex(at, message, 8);
    at = put_hex(at, due_ns_of(room, message), 16);
    memcpy(at, padding + message % 997, (size_t)(set.bytes - (at - text)));
}

/* Words, not one letter repeated: a compressor should earn its figure. */
static void make_padding(void) {
    static const char *words[] = {"square", "people", "meet", "room", "the", "a",    "log",     "and",  "cup",
                                  "who",    "said",   "when", "what", "tea", "wire", "morning", "rain", "go"};
    uint32_t random = 12345;
    for (size_t i = 0; i < sizeof padding;) {
        random = random * 1664525u + 1013904223u;
        for (const char *w = words[(random >> 16) % 18]; *w && i < sizeof padding; w++) padding[i++] = *w;
        if (i < sizeof padding) padding[i++] = ' ';
    }
}

/* Which message of this room the payload {"message": "<text>"} is; NONE, told in the verdict, if none. */
static uint32_t message_in(const struct room *room, const char *json, size_t size) {
    static char expected[FRAME_BYTES_MAX];
    const char *text = memmem(json, size, "\"hb ", 4);
    if (size < 12 || memcmp(json, "{\"message\":", 11) || !text || json + size != text + set.bytes + 3 ||
        memcmp(text + 1 + set.bytes, "\"}", 2)) {
        verdict.corrupt++;
        return NONE;
    }
    text++;
    uint32_t number = (uint32_t)get_hex(text + 23, 8);
    if (get_hex(text + 3, 8) != run_id || get_hex(text + 12, 5) != room->number) {
        verdict.foreign++;
        return NONE;
    }
    if (number < room->sent) put_text(expected, room->number, number);
    if (number >= room->sent || memcmp(text, expected, (size_t)set.bytes)) {
        verdict.corrupt++;
        return NONE;
    }
    return number;
}
