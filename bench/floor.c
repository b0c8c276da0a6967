/* The floor: what a chat room costs when nobody but the kernel is paid.
 *
 * One epoll thread speaks the plain wire on /ws/chat/<room>/: a text message that comes in goes to every
 * socket of its room at once, one write() per socket and message. No gathering, no broker, no limits, no
 * logs, no compression. RFC 6455 as far as an honest client needs it; a dishonest one is cut off.
 *
 * Usage: floor PORT (0 = any free one). Prints "ready PORT" once it listens on 127.0.0.1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 1 << 18,    /* one recv() */
    MESSAGE_BYTES_MAX = 1 << 20,
    OUT_BYTES_MAX = 1 << 26, /* a stalled reader's share of memory: 64 MiB, then it is cut off */
    EVENTS = 512,
    BUCKETS = 1 << 14,
};
enum { CONTINUATION = 0, TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

struct buffer {
    char *bytes;
    size_t size, room;
};

struct conn {
    int fd, dead, waits_for_out;
    struct room *room; /* NULL until the 101 */
    size_t place;      /* index in room->members */
    struct buffer in;  /* an incomplete request or frame, between two recv() */
    struct buffer text;/* fragments of a message; empty between messages */
    struct buffer out; /* what the socket did not take */
    size_t out_sent;
    struct conn *next_dead;
};

struct room {
    char *name;
    struct conn **members;
    size_t count, allocated;
    struct room *next;
};

static int poller;
static struct room *rooms[BUCKETS];
static struct conn *graveyard; /* dead, freed after the turn: an event of this turn may still name them */
static char scratch[READ_BYTES + MESSAGE_BYTES_MAX + 64];
static char frame[MESSAGE_BYTES_MAX + 16];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void append(struct buffer *to, const void *bytes, size_t size) {
    if (to->size + size > to->room) {
        to->room = (to->size + size) * 2;
        to->bytes = realloc(to->bytes, to->room);
        if (!to->bytes) die("realloc");
    }
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

static void forget(struct buffer *b) {
    free(b->bytes);
    *b = (struct buffer){0};
}

/* ---- sockets ------------------------------------------------------------------------------------------- */

static void bury(struct conn *c) {
    if (c->dead) return;
    c->dead = 1;
    c->next_dead = graveyard;
    graveyard = c;
}

static void listen_for(struct conn *c, int out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    if (c->waits_for_out != out) epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    c->waits_for_out = out;
}

static void conn_write(struct conn *c, const char *bytes, size_t size) {
    if (c->dead) return;
    ssize_t sent = 0;
    if (!c->out.size) {
        sent = write(c->fd, bytes, size);
        if (sent == (ssize_t)size) return;
        if (sent < 0 && errno != EAGAIN) {
            bury(c);
            return;
        }
        if (sent < 0) sent = 0;
    }
    if (c->out.size + size > OUT_BYTES_MAX) {
        bury(c);
        return;
    }
    append(&c->out, bytes + sent, size - sent);
    listen_for(c, 1);
}

static void conn_flush(struct conn *c) {
    ssize_t sent = write(c->fd, c->out.bytes + c->out_sent, c->out.size - c->out_sent);
    if (sent < 0) {
        if (errno != EAGAIN) bury(c);
        return;
    }
    c->out_sent += sent;
    if (c->out_sent < c->out.size) return;
    forget(&c->out);
    c->out_sent = 0;
    listen_for(c, 0);
}

/* ---- rooms --------------------------------------------------------------------------------------------- */

static struct room *room_named(const char *name) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (const char *s = name; *s; s++) hash = (hash ^ (uint8_t)*s) * 16777619u;
    struct room **at = &rooms[hash % BUCKETS];
    for (; *at; at = &(*at)->next)
        if (!strcmp((*at)->name, name)) return *at;
    *at = calloc(1, sizeof **at);
    (*at)->name = strdup(name);
    return *at;
}

static void join(struct conn *c, struct room *room) {
    if (room->count == room->allocated) {
        room->allocated = room->allocated ? room->allocated * 2 : 4;
        room->members = realloc(room->members, room->allocated * sizeof *room->members);
        if (!room->members) die("realloc");
    }
    c->room = room;
    c->place = room->count;
    room->members[room->count++] = c;
}

static void leave(struct conn *c) {
    struct room *room = c->room;
    struct conn *last = room->members[--room->count];
    room->members[c->place] = last;
    last->place = c->place;
}

static size_t put_header(char *at, int opcode, size_t size) {
    at[0] = (char)(0x80 | opcode);
    if (size < 126) {
        at[1] = (char)size;
        return 2;
    }
    if (size < 65536) {
        at[1] = 126, at[2] = (char)(size >> 8), at[3] = (char)size;
        return 4;
    }
    at[1] = 127;
    for (int i = 0; i < 8; i++) at[2 + i] = (char)((uint64_t)size >> (56 - 8 * i));
    return 10;
}

#ifdef LIES /* a header of the tests: a write_entry that drops, doubles, swaps, to see the driver notice */
#include LIES
#else
#define write_entry conn_write
#endif

static void say_to_room(struct room *room, const char *text, size_t size) {
    size_t header = put_header(frame, TEXT, size);
    memcpy(frame + header, text, size);
    for (size_t i = 0; i < room->count; i++) write_entry(room->members[i], frame, header + size);
}

/* ---- RFC 6455 ------------------------------------------------------------------------------------------ */

static void answer(struct conn *c, int opcode, const char *payload, size_t size) {
    char control[2 + 125];
    if (size > 125) {
        bury(c);
        return;
    }
    put_header(control, opcode, size);
    memcpy(control + 2, payload, size);
    conn_write(c, control, 2 + size);
}

static void on_frame(struct conn *c, int final, int opcode, char *payload, size_t size) {
    if (opcode == PING) {
        answer(c, PONG, payload, size);
    } else if (opcode == CLOSE) {
        answer(c, CLOSE, payload, size < 2 ? 0 : 2);
        bury(c);
    } else if (opcode == TEXT && final && !c->text.size) {
        say_to_room(c->room, payload, size);
    } else if (opcode == TEXT || (opcode == CONTINUATION && c->text.size)) {
        append(&c->text, payload, size);
        if (c->text.size > MESSAGE_BYTES_MAX) bury(c);
        else if (final) {
            say_to_room(c->room, c->text.bytes, c->text.size);
            forget(&c->text);
        }
    } else if (opcode != PONG) {
        bury(c);
    }
}

static void unmask(char *payload, size_t size, const char key[4]) {
    uint32_t word;
    memcpy(&word, key, 4);
    uint64_t wide = (uint64_t)word << 32 | word;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t eight;
        memcpy(&eight, payload + i, 8);
        eight ^= wide;
        memcpy(payload + i, &eight, 8);
    }
    for (; i < size; i++) payload[i] ^= key[i & 3];
}

/* Handles the first frame; its size, or 0 when it is not all here. */
static size_t take_frame(struct conn *c, char *bytes, size_t size) {
    if (size < 6) return 0;
    const uint8_t *b = (uint8_t *)bytes;
    uint64_t length = b[1] & 0x7f;
    size_t header = 6;
    if (length == 126) header = 8, length = (uint64_t)b[2] << 8 | b[3];
    else if (length == 127) {
        header = 14, length = 0;
        if (size < header) return 0;
        for (int i = 0; i < 8; i++) length = length << 8 | b[2 + i];
    }
    if (!(b[1] & 0x80) || (b[0] & 0x70) || length > MESSAGE_BYTES_MAX) { /* §5.1 */
        bury(c);
        return 0;
    }
    if (size < header + length) return 0;
    unmask(bytes + header, length, bytes + header - 4);
    on_frame(c, b[0] >> 7, b[0] & 15, bytes + header, length);
    return header + length;
}

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_block(uint32_t h[5], const uint8_t *block) {
    uint32_t w[80] = {0}, a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) w[i] = w[i] << 8 | block[4 * i + j];
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) f = (b & c) | (~b & d), k = 0x5a827999;
        else if (i < 40) f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
        else f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t t = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = t;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

/* RFC 6455 §4.2.2: base64(SHA-1(key + GUID)). Key and GUID are 60 bytes: two blocks with their padding. */
static void accept_of(const char key[24], char out[29]) {
    static const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t block[128] = {0}, digest[21] = {0};
    memcpy(block, key, 24);
    memcpy(block + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    block[60] = 0x80;
    block[126] = (60 * 8) >> 8, block[127] = (60 * 8) & 255;
    sha1_block(h, block);
    sha1_block(h, block + 64);
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int j = 0; j < 4; j++) out[4 * i + j] = letters[three >> (18 - 6 * j) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

/* Answers the handshake and joins; its size, or 0 when it is not all here. */
static size_t take_request(struct conn *c, char *bytes, size_t size) {
    char *end = memmem(bytes, size, "\r\n\r\n", 4), name[512], answer_text[160], accepted[29];
    if (!end) return 0;
    *end = 0;
    char *key = strcasestr(bytes, "\r\nSec-WebSocket-Key:");
    if (sscanf(bytes, "GET /ws/chat/%511[^/ ?]/", name) != 1 || !key) {
        static const char no[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        conn_write(c, no, sizeof no - 1);
        bury(c);
        return 0;
    }
    key += strlen("\r\nSec-WebSocket-Key:");
    key += strspn(key, " \t");
    if (strlen(key) < 24) {
        bury(c);
        return 0;
    }
    accept_of(key, accepted);
    join(c, room_named(name));
    int length = snprintf(answer_text, sizeof answer_text,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n", accepted);
    conn_write(c, answer_text, length);
    return end + 4 - bytes;
}

/* ---- the loop ------------------------------------------------------------------------------------------ */

static void on_readable(struct conn *c) {
    size_t size = c->in.size, used = 0, step = 1;
    if (size) memcpy(scratch, c->in.bytes, size);
    ssize_t got = recv(c->fd, scratch + size, READ_BYTES, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) bury(c);
        return;
    }
    size += got;
    while (!c->dead && used < size && step) {
        char *at = scratch + used;
        step = c->room ? take_frame(c, at, size - used) : take_request(c, at, size - used);
        used += step;
    }
    c->in.size = 0;
    if (used < size) append(&c->in, scratch + used, size - used);
    else if (c->in.bytes) forget(&c->in);
}

static void on_connection(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED) die("accept");
}

static void free_the_dead(void) {
    for (struct conn *c = graveyard, *next; c; c = next) {
        next = c->next_dead;
        if (c->room) leave(c);
        close(c->fd);
        free(c->in.bytes), free(c->text.bytes), free(c->out.bytes), free(c);
    }
    graveyard = NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: floor PORT\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof here;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&here, length)) die("bind");
    if (listen(listener, 4096)) die("listen");
    getsockname(listener, (struct sockaddr *)&here, &length);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    printf("ready %d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) on_connection(listener);
            else if (!c->dead && events[i].events & EPOLLOUT) conn_flush(c);
            if (c && !c->dead && events[i].events & ~EPOLLOUT) on_readable(c);
        }
        free_the_dead();
    }
}
