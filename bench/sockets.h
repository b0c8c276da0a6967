/* The driver's sockets: connecting from several addresses, masked frames out, being cut. No reading here. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static void poll_for(struct conn *c) {
    uint32_t wanted = c->stalled ? 0 : EPOLLIN;
    if (c->state == CONNECTING || c->out_size) wanted |= EPOLLOUT;
    struct epoll_event event = {.events = wanted, .data.ptr = c};
    if (wanted != c->polled) epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    c->polled = wanted;
}

static void flush(struct conn *c) {
    ssize_t sent = c->out_size ? write(c->fd, c->out + c->out_sent, c->out_size - c->out_sent) : 0;
    if (sent > 0) c->out_sent += (size_t)sent;
    if (c->out_sent == c->out_size) c->out_sent = c->out_size = 0;
    if (c->out_size || c->polled & EPOLLOUT) poll_for(c); /* an error shows at the next read */
}

static char *out_space(struct conn *c, size_t size) {
    if (c->out_size + size > c->out_room) {
        c->out_room = (c->out_size + size) * 2;
        c->out = grown(c->out, c->out_room);
    }
    return c->out + c->out_size;
}

/* A masked client frame (RFC 6455 §5.3), queued; the caller flushes. */
static void queue_frame(struct conn *c, int opcode, const char *payload, size_t size) {
    static uint64_t random = 88172645463325252;
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    uint32_t key = (uint32_t)random;
    char *at = out_space(c, size + 14), *begin = at;
    *at++ = (char)(0x80 | opcode);
    if (size < 126) *at++ = (char)(0x80 | size);
    else if (size < 65536) *at++ = (char)(0x80 | 126), *at++ = (char)(size >> 8), *at++ = (char)size;
    else {
        *at++ = (char)(0x80 | 127);
        for (int i = 56; i >= 0; i -= 8) *at++ = (char)((uint64_t)size >> i);
    }
    memcpy(at, &key, 4);
    for (size_t i = 0; i < size; i++) at[4 + i] = payload[i] ^ at[i & 3];
    c->out_size += (size_t)(at + 4 + size - begin);
}

static void connect_one(struct conn *c) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)set.port)}, here = there;
    int on = 1, place = c->index / PER_ADDRESS;
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    here.sin_addr.s_addr = htonl(127u << 24 | (1 + run_id % 250) << 16 | (1 + (uint32_t)place) << 8 | 1);
    here.sin_port = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("cannot open socket %d: %s (raise ulimit -n)", c->index, strerror(errno));
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (c->slow) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &set.receive_bytes, sizeof set.receive_bytes);
    if (bind(c->fd, (struct sockaddr *)&here, sizeof here)) fail("bind: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&there, sizeof there) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->state = CONNECTING;
    c->connect_ns = now_ns();
    c->polled = EPOLLOUT;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    connecting++;
}

static void keep_part(struct conn *c, const char *bytes, size_t size) {
    if (size) {
        char *kept = grown(NULL, size);
        memcpy(kept, bytes, size);
        free(c->part);
        c->part = kept;
    } else {
        free(c->part);
        c->part = NULL;
    }
    c->part_size = size;
}

/* Closes the books and the socket of a member; it is judged on what was due before `until_ns`. */
static void settle(struct conn *c, uint64_t until_ns) {
    uint32_t owed = c->member.room->sent;
    while (owed && due_ns_of(c->member.room->number, owed - 1) > until_ns) owed--;
    verdict.lost += lost_by(&c->member, owed);
    free(c->member.seen);
    c->member.seen = NULL;
    keep_part(c, NULL, 0);
    if (c->inflater) inflateEnd(c->inflater), free(c->inflater), c->inflater = NULL;
    c->waiting = 0;
}

static void shut(struct conn *c) {
    if (c->state == CONNECTING || c->state == SHAKING) connecting--;
    if (c->state == OPEN) open_count--;
    close(c->fd);
    c->out_size = c->out_sent = 0;
    c->state = ABSENT;
}

static void on_lost_connection(struct conn *c, int code) {
    if (c->state == CONNECTING || c->state == SHAKING)
        fail("session %d was refused or cut before its 101", c->index);
    for (int i = 0; i < CODES; i++) {
        if (closes[i].count && closes[i].code != code) continue;
        closes[i].code = code, closes[i].count++;
        break;
    }
    cut++;
    shut(c);
    c->state = CUT; /* its books stay open: what is sent from now on is lost for it */
}
