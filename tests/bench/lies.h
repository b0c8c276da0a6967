/* A floor that lies once: compiled into floor.c by the tests alone (-DLIES), to see that the driver notices.
 *
 * LIE names the lie, LIE_AT the write it happens at (1 is the first write of an entry to a socket). */
#include <sys/time.h>

/* Entries that a deaf joiner misses. Of few the driver may have sent all before it read the 101: those it is not owed. */
#define DEAF_TO 50

/* Whether it is among its first entries, and came `late`: the first of them is written now, or was then. */
static int is_new(const struct conn *c, int late) {
    static uint16_t port_of[1 << 16];
    static int missed[1 << 16];
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    getpeername(c->fd, (struct sockaddr *)&peer, &length);
    if (port_of[c->fd] != peer.sin_port) missed[c->fd] = late ? 0 : DEAF_TO;
    port_of[c->fd] = peer.sin_port;
    return missed[c->fd]++ < DEAF_TO;
}

static void write_elsewhere(const struct conn *c, const char *frame, size_t size) {
    for (int i = 0; i < BUCKETS; i++)
        for (struct room *room = rooms[i]; room; room = room->next)
            if (room != c->room && room->count) {
                conn_write(room->members[0], frame, size);
                return;
            }
}

static void write_entry(struct conn *c, const char *frame, size_t size) {
    static uint64_t writes;
    static struct conn *swapped;
    static char held[1 << 16];
    static size_t held_size;
    const char *lie = getenv("LIE"), *at = getenv("LIE_AT");
    int now = ++writes == strtoull(at ? at : "0", NULL, 10);
    int new = is_new(c, writes > strtoull(at ? at : "0", NULL, 10));
    if (!lie) lie = "";
    if (now && !strcmp(lie, "drop")) return;
    if (new && !strcmp(lie, "deaf joiner")) return;
    if (now && !strcmp(lie, "double")) conn_write(c, frame, size);
    if (now && !strcmp(lie, "elsewhere")) write_elsewhere(c, frame, size);
    if (now && !strcmp(lie, "stall")) usleep(300000);
    if (now && !strcmp(lie, "cut")) shutdown(c->fd, SHUT_RDWR);
    if (now && !strcmp(lie, "corrupt")) {
        char wrong[1 << 16];
        memcpy(wrong, frame, size);
        wrong[size - 4] ^= 1;
        conn_write(c, wrong, size);
        return;
    }
    if (now && !strcmp(lie, "swap")) {
        memcpy(held, frame, held_size = size);
        swapped = c;
        return;
    }
    conn_write(c, frame, size);
    if (swapped == c) {
        conn_write(c, held, held_size);
        swapped = NULL;
    }
}
