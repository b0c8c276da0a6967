/* The driver: many sessions of the plain wire in one epoll thread, and the judge of what they receive.
 *
 * Open loop: message i is due at start + i / rate, whatever the server does, and latency counts from when it
 * was due. A message names its run, room, speaker, number and due time; every delivery is checked (tape.h).
 * Prints one JSON object per line: {"event": …}. After "joined" and "done" it waits for a line on stdin, so
 * that its starter can read what the server holds. "begin" and "end" bound the measured window. The last line
 * is "result". It needs a core of its own: its share of it over the window is printed, and above 0.9 the
 * figures are the driver's, not the server's.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>

#include "driver.h"
#include "sockets.h"
#include "receive.h"

static void connect_more(void) {
    while (connecting < set.inflight && started < total) connect_one(&conns[started++]);
}

static uint64_t next_due_ns(void) {
    return messages_sent < messages ? start_ns + (uint64_t)((double)messages_sent * message_ns) : UINT64_MAX;
}

static void send_due(uint64_t now) {
    static char json[FRAME_BYTES_MAX + 32] = "{\"message\": \"";
    static struct conn *touched[EVENTS];
    int count = 0;
    for (uint64_t due; (due = next_due_ns()) <= now && count < EVENTS; messages_sent++) {
        struct room *room = &rooms[messages_sent % (uint64_t)set.rooms];
        uint32_t speaker = room->sent % (uint32_t)set.speakers;
        struct conn *c = &conns[room->number + speaker * (uint32_t)set.rooms];
        put_text(json + 13, room->number, room->sent);
        memcpy(json + 13 + set.bytes, "\"}", 2);
        room->sent++;
        if (now - due > late_ns_max) late_ns_max = now - due;
        if (c->state != OPEN) {
            unsent++;
            continue;
        }
        queue_frame(c, 1, json, (size_t)set.bytes + 15);
        touched[count++] = c;
    }
    for (int i = 0; i < count; i++) flush(touched[i]);
}

static void leave(struct conn *c, uint64_t judged_until_ns) {
    settle(c, judged_until_ns);
    queue_frame(c, 8, "\x03\xe8", 2);
    open_count--;
    c->state = LEAVING;
    c->stalled = 0;
    poll_for(c);
    flush(c);
}

/* One listener leaves; those that left and are gone come back. Called set.churn times a second. */
static void churn(uint64_t now) {
    int first = set.rooms * set.speakers, listeners = total - first;
    struct conn *c = &conns[first + churn_next++ % listeners];
    if (c->state == OPEN && !c->slow) leave(c, now - LEAVE_GRACE_NS);
    for (int back = 0; back <= set.churn && back < listeners; back++) {
        struct conn *left = &conns[first + (churn_next - 1 - back + listeners) % listeners];
        if (back == set.churn && left->state == LEAVING) shut(left); /* 1 s is enough to say goodbye */
        if (left->state == ABSENT) connect_one(left);
    }
}

static int all_arrived(void) {
    for (int i = 0; i < total; i++) {
        const struct member *m = &conns[i].member;
        if (conns[i].state != OPEN) continue;
        uint32_t next = m->start == NONE ? m->owed_from : m->next;
        if (m->seen ? lost_by(m, m->room->sent) > 0 : next != m->room->sent) return 0;
    }
    return 1;
}

static void turn(uint64_t until_ns) {
    static struct epoll_event events[EVENTS];
    uint64_t now = now_ns(), wait = until_ns > now ? until_ns - now : 0;
    struct timespec timeout = {(time_t)(wait / SECOND), (long)(wait % SECOND)};
    if (waiting_count) timeout = (struct timespec){0, 100000};
    int count = epoll_pwait2(poller, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < count; i++) {
        on_event(events[i].data.ptr, events[i].events);
        if (messages_sent < messages && (now = now_ns()) >= next_due_ns()) send_due(now);
    }
    if (waiting_count) retry_waiting();
}

static void connect_all(void) {
    uint64_t patience = now_ns() + 120 * SECOND;
    event("connecting");
    while (open_count < total) {
        connect_more();
        turn(now_ns() + SECOND / 10);
        if (now_ns() > patience) fail("only %d of %d sessions had their 101 after 120 s", open_count, total);
    }
    event_and_wait("joined");
}

static uint64_t earliest(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void speak(void) {
    int phase = 0;
    uint64_t churn_ns = set.churn ? SECOND / (uint64_t)set.churn : 0;
    start_ns = now_ns() + (uint64_t)(set.settle_s * 1e9);
    window_begin = start_ns + (uint64_t)(set.warm_s * 1e9);
    window_end = window_begin + (uint64_t)(set.seconds * 1e9);
    messages = (uint64_t)(set.rate * (set.warm_s + set.seconds));
    message_ns = set.rate > 0 ? 1e9 / set.rate : 0;
    uint64_t churn_due = set.churn ? start_ns + churn_ns : UINT64_MAX;
    while (phase < 2 || messages_sent < messages) {
        uint64_t now = now_ns();
        if (now >= next_due_ns()) send_due(now);
        if (phase == 0 && now >= window_begin) {
            begin_cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            event("begin");
            phase = 1;
        }
        if (phase == 1 && now >= window_end) {
            window_cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begin_cpu_ns;
            event("end");
            phase = 2;
        }
        for (; now >= churn_due && now < window_end; churn_due += churn_ns) churn(now);
        turn(earliest(earliest(next_due_ns(), now < window_end ? churn_due : UINT64_MAX),
                      phase == 0 ? window_begin : phase == 1 ? window_end : now));
    }
}

/* Everything sent must arrive: until it has, or nothing came for quiet_s. Then a moment more, for what arrives
 * twice. What still comes after drain_s is *pending*: nobody knows what of it is lost. */
static void drain(void) {
    uint64_t begin = now_ns(), arrived = 0;
    uint64_t drain_ns = (uint64_t)(set.drain_s * 1e9), quiet_ns = (uint64_t)(set.quiet_s * 1e9);
    last_delivery_ns = begin;
    if (set.stalled) event("reading");
    for (int i = 0; i < total; i++)
        if (conns[i].state == OPEN && conns[i].stalled) conns[i].stalled = 0, poll_for(&conns[i]);
    for (uint64_t now = begin; now - last_delivery_ns < quiet_ns; now = now_ns()) {
        if (now - begin > drain_ns) {
            pending = 1;
            return;
        }
        if (!arrived && connecting == 0 && all_arrived()) arrived = now;
        if (arrived && now - arrived > LINGER_NS) return;
        turn(now + SECOND / 100);
    }
}

static void print_histogram(const char *name, const struct histogram *h) {
    static const struct { const char *name; double percent; } wanted[] = {
        {"p50", 50}, {"p90", 90}, {"p99", 99}, {"p999", 99.9}, {"max", 100}};
    printf("\"%s\": {\"count\": %llu", name, (unsigned long long)h->count);
    for (int i = 0; i < 5; i++)
        printf(", \"%s\": %.4f", wanted[i].name, (double)histogram_percentile(h, wanted[i].percent) / 1e6);
    printf("}, ");
}

static void print_result(void) {
    const struct { const char *name; uint64_t value; } counts[] = {
        {"sessions", (uint64_t)total},
        {"sent", messages_sent},
        {"unsent", unsent},
        {"delivered", verdict.delivered},
        {"window_deliveries", window_deliveries},
        {"lost", verdict.lost},
        {"doubled", verdict.doubled},
        {"reordered", verdict.reordered},
        {"foreign", verdict.foreign},
        {"corrupt", verdict.corrupt},
        {"cut", cut},
        {"pending", (uint64_t)pending},
    };
    printf("{\"event\": \"result\", ");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        printf("\"%s\": %llu, ", counts[i].name, (unsigned long long)counts[i].value);
    print_histogram("latency_ms", &latency);
    print_histogram("handshake_ms", &handshake);
    printf("\"closes\": {");
    for (int i = 0; i < CODES && closes[i].count; i++)
        printf("%s\"%d\": %llu", i ? ", " : "", closes[i].code, (unsigned long long)closes[i].count);
    printf("}, \"late_ms_max\": %.3f, \"cpu_share\": %.4f}\n", (double)late_ns_max / 1e6,
           set.seconds > 0 ? (double)window_cpu_ns / 1e9 / set.seconds : 0);
    fflush(stdout);
}

static void say_goodbye(void) {
    uint64_t until = now_ns() + 2 * SECOND;
    int left = 0;
    for (int i = 0; i < total; i++)
        if (conns[i].state == OPEN) leave(&conns[i], 0);
    do {
        turn(now_ns() + SECOND / 20);
        left = 0;
        for (int i = 0; i < total; i++) left += conns[i].state == LEAVING;
    } while (left && now_ns() < until);
}

static void read_tokens(void) {
    FILE *file = fopen(set.tokens, "r");
    if (!file) fail("%s: %s", set.tokens, strerror(errno));
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        tokens = grown(tokens, ((size_t)tokens_count + 1) * sizeof *tokens);
        tokens[tokens_count++] = line;
        line = NULL, size = 0;
    }
    fclose(file);
    if (!tokens_count) fail("%s has no token", set.tokens);
}

static void read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'}, {"rooms", 1, 0, 'r'}, {"members", 1, 0, 'm'}, {"speakers", 1, 0, 's'},
        {"rate", 1, 0, 'R'}, {"seconds", 1, 0, 't'}, {"warm", 1, 0, 'w'}, {"settle", 1, 0, 'S'},
        {"drain", 1, 0, 'd'}, {"quiet", 1, 0, 'q'}, {"bytes", 1, 0, 'b'}, {"prefix", 1, 0, 'x'},
        {"stalled", 1, 0, 'l'}, {"receive-bytes", 1, 0, 'B'}, {"churn", 1, 0, 'c'}, {"inflight", 1, 0, 'i'},
        {"deflate", 0, 0, 'z'}, {"tokens", 1, 0, 'k'}, {0, 0, 0, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'p': set.port = atoi(optarg); break;
        case 'r': set.rooms = atoi(optarg); break;
        case 'm': set.members = atoi(optarg); break;
        case 's': set.speakers = atoi(optarg); break;
        case 'R': set.rate = atof(optarg); break;
        case 't': set.seconds = atof(optarg); break;
        case 'w': set.warm_s = atof(optarg); break;
        case 'S': set.settle_s = atof(optarg); break;
        case 'd': set.drain_s = atof(optarg); break;
        case 'q': set.quiet_s = atof(optarg); break;
        case 'b': set.bytes = atoi(optarg); break;
        case 'x': set.prefix = optarg; break;
        case 'l': set.stalled = atoi(optarg); break;
        case 'B': set.receive_bytes = atoi(optarg); break;
        case 'c': set.churn = atoi(optarg); break;
        case 'i': set.inflight = atoi(optarg); break;
        case 'z': set.deflate = 1; break;
        case 'k': set.tokens = optarg; break;
        default: exit(2);
        }
    }
    int readers = set.members - set.stalled;
    if (set.speakers > readers) set.speakers = readers;
    if (set.port < 1 || set.rooms < 1 || set.speakers < 1 || set.speakers > SPEAKERS_MAX || set.inflight < 1)
        fail("port, rooms, members, speakers (at most %d) or inflight make no sense", SPEAKERS_MAX);
    if (set.bytes < TEXT_BYTES_MIN || set.bytes > FRAME_BYTES_MAX - 1024)
        fail("bytes: from %d to %d", TEXT_BYTES_MIN, FRAME_BYTES_MAX - 1024);
    if (set.churn && set.rooms * (readers - set.speakers) <= set.churn) fail("churn: too few listeners");
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    if (set.tokens) read_tokens();
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL); /* 1 us; the default 50 us would be in every latency */
    run_id = (uint32_t)now_ns() * 2654435761u;
    total = set.rooms * set.members;
    conns = grown(NULL, (size_t)total * sizeof *conns);
    rooms = grown(NULL, (size_t)set.rooms * sizeof *rooms);
    waiting = grown(NULL, (size_t)total * sizeof *waiting);
    memset(conns, 0, (size_t)total * sizeof *conns);
    memset(rooms, 0, (size_t)set.rooms * sizeof *rooms);
    for (int r = 0; r < set.rooms; r++) {
        rooms[r].number = (uint32_t)r;
        rooms[r].last_of_speaker = calloc((size_t)set.speakers, sizeof(uint32_t));
    }
    for (int i = 0; i < total; i++) {
        conns[i].index = i;
        conns[i].member.room = &rooms[i % set.rooms];
        conns[i].slow = i / set.rooms >= set.members - set.stalled;
    }
    make_padding();
    if (inflateInit2(&shared_inflater, -15) != Z_OK) fail("zlib");
    poller = epoll_create1(EPOLL_CLOEXEC);
    connect_all();
    if (set.seconds > 0) speak();
    drain();
    event_and_wait("done");
    for (int i = 0; i < total; i++)
        if (conns[i].state == OPEN || conns[i].state == CUT) settle(&conns[i], UINT64_MAX);
    print_result();
    say_goodbye();
    return 0;
}
