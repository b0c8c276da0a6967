/* What each member of a room is owed, and whether it got it: once, in order, byte for byte. No sockets here.
 *
 * A room has a *tape*: the frames of its log in the order in which the first member received them. That
 * member's frames are parsed and checked letter by letter; everyone else's bytes are compared with the tape
 * (memcmp), which says the same at memory speed. A member whose bytes differ is parsed from there: the same
 * message in other bytes (a compressor with context, say) is right; anything else makes it *strayed*, and
 * from then on a bitmap of what it has seen counts exactly what was lost, doubled and reordered.
 *
 * A member that joins while others speak starts at its first message; it cannot lead, because nobody knows
 * yet what lies between the tape's end and that message. It is owed nothing from before its 101 (but once it
 * has begun, no gap either), and everything that was sent after it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct room {
    uint32_t number, sent; /* messages 0 … sent-1 went out */
    /* The tape. Bytes before `base` were given back. */
    char *bytes;
    uint64_t base, end;
    size_t allocated;
    /* By position on the tape: which message, where its frame ends, when it was due. */
    uint32_t count, positions;
    uint32_t *message;
    uint64_t *frame_end, *due_ns;
    /* By message: its position, or NONE while no member has received it. */
    uint32_t *position, messages;
    uint32_t *last_of_speaker; /* by speaker: its newest message on the tape + 1 */
};

struct member {
    struct room *room;
    uint64_t offset;    /* on the tape: everything before it was received */
    uint32_t start;     /* its first position; NONE until a joiner's first message */
    uint32_t next;      /* the position expected now */
    uint32_t owed_from; /* the first message sent after its 101 */
    uint8_t *seen;      /* strayed: bitmap by message */
    uint32_t seen_bytes;
};

struct verdict {
    uint64_t delivered, lost, doubled, reordered, foreign, corrupt;
};

static void *grown(void *old, size_t bytes) {
    void *new = realloc(old, bytes);
    if (!new) {
        fprintf(stderr, "driver: out of memory\n");
        exit(1);
    }
    return new;
}

static inline uint64_t frame_start(const struct room *room, uint32_t position) {
    return position ? room->frame_end[position - 1] : 0;
}

static inline const char *tape_at(const struct room *room, uint64_t offset) {
    return room->bytes + (offset - room->base);
}

static uint32_t position_of(const struct room *room, uint32_t message) {
    return message < room->messages ? room->position[message] : NONE;
}

/* Gives back what every member has passed; `lowest` is the least offset that is still needed. */
static void tape_make_room(struct room *room, uint64_t lowest, size_t size) {
    size_t kept = room->end - lowest;
    if (room->bytes) memmove(room->bytes, tape_at(room, lowest), kept);
    room->base = lowest;
    if ((kept + size) * 2 <= room->allocated) return;
    room->allocated = (kept + size) * 2 < 2048 ? 2048 : (kept + size) * 2;
    room->bytes = grown(room->bytes, room->allocated);
}

/* The caller has made room. */
static void tape_append(struct room *room, uint32_t message, uint64_t due_ns, const char *frame,
                        size_t size) {
    if (room->count == room->positions) {
        room->positions = room->positions ? room->positions * 2 : 16;
        room->message = grown(room->message, room->positions * sizeof *room->message);
        room->frame_end = grown(room->frame_end, room->positions * sizeof *room->frame_end);
        room->due_ns = grown(room->due_ns, room->positions * sizeof *room->due_ns);
    }
    if (message >= room->messages) {
        uint32_t wanted = message < 8 ? 16 : message * 2;
        room->position = grown(room->position, wanted * sizeof *room->position);
        memset(room->position + room->messages, 0xff, (wanted - room->messages) * sizeof *room->position);
        room->messages = wanted;
    }
    memcpy(room->bytes + (room->end - room->base), frame, size);
    room->end += size;
    room->position[message] = room->count;
    room->message[room->count] = message;
    room->due_ns[room->count] = due_ns;
    room->frame_end[room->count++] = room->end;
}

static int has_seen(const struct member *m, uint32_t message) {
    if (m->seen) return message / 8 < m->seen_bytes && m->seen[message / 8] >> (message % 8) & 1;
    uint32_t position = position_of(m->room, message);
    return position != NONE && m->start != NONE && position >= m->start && position < m->next;
}

static void mark_seen(struct member *m, uint32_t message) {
    if (message / 8 >= m->seen_bytes) {
        uint32_t wanted = message / 4 + 64;
        m->seen = grown(m->seen, wanted);
        memset(m->seen + m->seen_bytes, 0, wanted - m->seen_bytes);
        m->seen_bytes = wanted;
    }
    m->seen[message / 8] |= (uint8_t)(1 << (message % 8));
}

static void stray(struct member *m) {
    uint32_t from = m->start, to = m->next;
    if (m->seen) return;
    if (from == NONE) from = to = m->start = m->next = 0;
    mark_seen(m, 0);
    m->seen[0] = 0;
    for (uint32_t position = from; position < to; position++) mark_seen(m, m->room->message[position]);
}

/* Takes note of one parsed message that is not simply the tape's next. */
static void judge_strayed(struct member *m, uint32_t message, struct verdict *verdict) {
    uint32_t position = position_of(m->room, message);
    stray(m);
    if (has_seen(m, message)) {
        verdict->doubled++;
        return;
    }
    mark_seen(m, message);
    verdict->delivered++;
    if (position == NONE) return; /* others did not get it: it is lost for them */
    if (position < m->next) verdict->reordered++;
    else m->next = position + 1;
}

/* The account of a member that is gone or done; it owed every message from its 101 up to `owed_to`. */
static uint64_t lost_by(const struct member *m, uint32_t owed_to) {
    const struct room *room = m->room;
    uint64_t lost = 0;
    if (!m->seen && m->start == 0 && m->next == room->count && room->count == owed_to) return 0;
    for (uint32_t message = m->owed_from; message < owed_to; message++) lost += !has_seen(m, message);
    if (!m->seen || m->start == NONE) return lost;
    for (uint32_t position = m->start; position < m->next; position++) /* sent before its 101, after its start */
        lost += room->message[position] < m->owed_from && !has_seen(m, room->message[position]);
    return lost;
}
