/* Bytes that come in: the 101, frames, and each message's way to the judge (tape.h). */

static void note_delivery(struct conn *c, uint64_t due, uint64_t now) {
    last_delivery_ns = now;
    if (now - window_begin < window_end - window_begin) window_deliveries++;
    if (due - window_begin < window_end - window_begin && !c->slow) histogram_add(&latency, now - due);
}

/* Moves over the frames that end at or before the member's offset. */
static void pass_frames(struct conn *c, uint64_t now) {
    struct member *m = &c->member;
    const struct room *room = m->room;
    for (; m->next < room->count && room->frame_end[m->next] <= m->offset; m->next++) {
        verdict.delivered++;
        note_delivery(c, room->due_ns[m->next], now);
    }
}

static int on_tape(const struct conn *c) {
    const struct member *m = &c->member;
    return c->state == OPEN && !m->seen && m->start != NONE && m->offset >= m->room->base;
}

static void lead(struct conn *c, uint32_t message, const char *frame, size_t size) {
    struct room *room = c->member.room;
    if (room->end - room->base + size > room->allocated) {
        uint64_t lowest = room->end;
        for (int i = (int)room->number; i < total; i += set.rooms) {
            uint64_t needed = frame_start(room, conns[i].member.next == NONE ? 0 : conns[i].member.next);
            if (on_tape(&conns[i]) && needed < lowest) lowest = needed;
        }
        tape_make_room(room, lowest, size);
    }
    uint32_t *newest = &room->last_of_speaker[message % (uint32_t)set.speakers];
    if (message < *newest) verdict.reordered++;
    *newest = message + 1;
    tape_append(room, message, due_ns_of(room->number, message), frame, size);
}

static void wait_for_tape(struct conn *c, uint32_t message, uint64_t now) {
    c->waiting = 1, c->waiting_for = message, c->waiting_ns = now;
    waiting[waiting_count++] = c;
    poll_for(c);
}

static void on_message(struct conn *c, uint32_t message, const char *frame, size_t size, uint64_t now) {
    struct member *m = &c->member;
    struct room *room = m->room;
    uint32_t position = position_of(room, message);
    if (m->start == NONE) {
        if (position == NONE) {
            wait_for_tape(c, message, now);
            return;
        }
        m->start = m->next = position;
    }
    if (position == NONE && m->next == room->count) {
        lead(c, message, frame, size);
        position = m->next;
    }
    if (!m->seen && position == m->next) {
        m->offset = room->frame_end[position];
        pass_frames(c, now);
        return;
    }
    uint64_t before = verdict.delivered;
    judge_strayed(m, message, &verdict);
    if (verdict.delivered > before) note_delivery(c, due_ns_of(room->number, message), now);
}

/* The text of a data frame: itself, or inflated (RFC 7692 §7.2.2). */
static const char *text_of(struct conn *c, const char *payload, size_t *size, int compressed) {
    z_stream *z = c->inflater ? c->inflater : &shared_inflater;
    static unsigned char tail[4] = {0, 0, 0xff, 0xff};
    if (!compressed) return payload;
    if (!c->inflater) inflateReset(z);
    z->next_out = (Bytef *)inflated, z->avail_out = sizeof inflated;
    z->next_in = (Bytef *)payload, z->avail_in = (uInt)*size;
    int result = inflate(z, Z_SYNC_FLUSH);
    z->next_in = tail, z->avail_in = 4;
    if (result == Z_OK || result == Z_BUF_ERROR) result = inflate(z, Z_SYNC_FLUSH);
    *size = sizeof inflated - z->avail_out;
    return result == Z_OK || result == Z_BUF_ERROR || result == Z_STREAM_END ? inflated : NULL;
}

static void on_control(struct conn *c, int opcode, const uint8_t *payload, size_t size) {
    if (opcode == 9) {
        queue_frame(c, 10, (const char *)payload, size);
        flush(c);
    } else if (opcode == 8) {
        on_lost_connection(c, size < 2 ? 1005 : payload[0] << 8 | payload[1]);
    }
}

/* Handles the first frame; its size, or 0 when it is not all here (or must wait for the tape). */
static size_t take_frame(struct conn *c, const char *bytes, size_t size, uint64_t now) {
    const uint8_t *b = (const uint8_t *)bytes;
    size_t header = 2;
    if (size < header) return 0;
    uint64_t length = b[1] & 0x7f;
    if (length >= 126) {
        header = length == 126 ? 4 : 10, length = 0;
        if (size < header) return 0;
        for (size_t i = 2; i < header; i++) length = length << 8 | b[i];
    }
    if (length > FRAME_BYTES_MAX - 16) fail("a frame of %llu bytes", (unsigned long long)length);
    if (size < header + length) return 0;
    int opcode = b[0] & 15, compressed = b[0] >> 6 & 1;
    if (opcode >= 8) {
        on_control(c, opcode, b + header, length);
        return header + length;
    }
    if (c->waiting) {
        c->waiting = 0;
        on_message(c, c->waiting_for, bytes, header + length, now);
        return header + length;
    }
    size_t text_size = length;
    const char *text = (b[0] & 0xb0) == 0x80 && opcode == 1 && !(b[1] & 0x80) && compressed <= c->compressed
                           ? text_of(c, bytes + header, &text_size, compressed) : NULL;
    if (!text) verdict.corrupt++; /* binary, masked, fragmented, not agreed: not this wire's */
    uint32_t message = text ? message_in(c->member.room, text, text_size) : NONE;
    if (message != NONE) on_message(c, message, bytes, header + length, now);
    return c->waiting ? 0 : header + length;
}

/* `at` lies in `buffer`, with at least a frame's room before it. */
static void take_bytes(struct conn *c, char *at, size_t size, uint64_t now) {
    struct member *m = &c->member;
    while (size && c->state == OPEN) {
        const struct room *room = m->room;
        if (on_tape(c) && !c->inflater && m->offset < room->end) {
            size_t both = room->end - m->offset < size ? room->end - m->offset : size, same = both;
            if (memcmp(tape_at(room, m->offset), at, both))
                for (same = 0; at[same] == tape_at(room, m->offset)[same];) same++;
            m->offset += same, at += same, size -= same;
            pass_frames(c, now);
            if (same == both) continue;
            /* Back to the frame's begin: what was received of it so far is what the tape has. */
            size_t back = m->offset - frame_start(room, m->next);
            m->offset -= back, at -= back, size += back;
            memcpy(at, tape_at(room, m->offset), back);
        }
        size_t step = take_frame(c, at, size, now);
        at += step, size -= step;
        if (!step) break;
    }
    if (c->state == OPEN) keep_part(c, at, size);
}

static void retry_waiting(void) {
    int count = waiting_count;
    waiting_count = 0;
    for (int i = 0; i < count; i++) {
        struct conn *c = waiting[i];
        if (!c->waiting) continue; /* it left */
        if (position_of(c->member.room, c->waiting_for) == NONE) {
            waiting[waiting_count++] = c;
            continue;
        }
        char *at = memcpy(buffer + FRAME_BYTES_MAX, c->part, c->part_size);
        take_bytes(c, at, c->part_size, c->waiting_ns);
        if (c->state == OPEN) poll_for(c);
    }
}

static void on_connected(struct conn *c) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) fail("connect: %s", strerror(error));
    const char *token = tokens_count ? tokens[c->index % tokens_count] : "";
    size_t space = 600 + strlen(token);
    char *at = out_space(c, space);
    c->out_size += (size_t)snprintf(
        at, space,
        "GET /ws/chat/%s_%d/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s%s%s%s\r\n",
        set.prefix, (int)c->member.room->number, set.port, KEY,
        set.deflate ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" : "",
        tokens_count ? "Authorization: Bearer " : "", token, tokens_count ? "\r\n" : "");
    c->state = SHAKING;
    c->polled = 0;
    poll_for(c);
    flush(c);
}

static void agree_on_compression(struct conn *c, const char *head) {
    const char *agreed = strcasestr(head, "\r\nSec-WebSocket-Extensions:");
    c->compressed = agreed && strcasestr(agreed, "permessage-deflate") != NULL;
    if (c->compressed && !set.deflate) fail("permessage-deflate was not offered, but agreed");
    if (!c->compressed || strcasestr(agreed, "server_no_context_takeover")) return;
    c->inflater = calloc(1, sizeof *c->inflater);
    if (!c->inflater || inflateInit2(c->inflater, -15) != Z_OK) fail("zlib");
}

/* The 101: from here on the member is owed everything that is sent. */
static void on_joined(struct conn *c, uint64_t now) {
    struct member *m = &c->member;
    int first = m->room->sent == 0;
    histogram_add(&handshake, now - c->connect_ns);
    m->start = m->next = first ? 0 : NONE;
    m->offset = 0;
    m->owed_from = m->room->sent;
    c->state = OPEN;
    c->stalled = c->slow;
    connecting--, open_count++;
    poll_for(c);
}

static void on_shaking(struct conn *c, char *at, size_t size, uint64_t now) {
    char *end = memmem(at, size, "\r\n\r\n", 4);
    if (!end) {
        keep_part(c, at, size);
        return;
    }
    *end = 0;
    char *accept = strcasestr(at, "\r\nSec-WebSocket-Accept:");
    if (strncmp(at, "HTTP/1.1 101", 12) || !accept) fail("handshake refused: %.60s", at);
    accept += strlen("\r\nSec-WebSocket-Accept:");
    accept += strspn(accept, " ");
    if (strncmp(accept, ACCEPT, strlen(ACCEPT))) fail("a wrong Sec-WebSocket-Accept");
    agree_on_compression(c, at);
    keep_part(c, NULL, 0);
    on_joined(c, now);
    end += 4;
    take_bytes(c, end, (size_t)(at + size - end), now);
}

static void on_readable(struct conn *c) {
    char *at = buffer + FRAME_BYTES_MAX;
    if (c->part_size) memcpy(at, c->part, c->part_size);
    ssize_t got = recv(c->fd, at + c->part_size, READ_BYTES, 0);
    uint64_t now = now_ns();
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 && c->state == LEAVING) shut(c);
    else if (got <= 0) on_lost_connection(c, got ? 1006 : 1005);
    else if (c->state == SHAKING) on_shaking(c, at, c->part_size + (size_t)got, now);
    else if (c->state == OPEN) take_bytes(c, at, c->part_size + (size_t)got, now);
}

static void on_event(struct conn *c, uint32_t events) {
    if (c->state == CONNECTING) on_connected(c);
    else if (events & EPOLLOUT) flush(c);
    if (c->state >= SHAKING && c->state <= LEAVING && events & (EPOLLIN | EPOLLERR | EPOLLHUP) && !c->waiting)
        on_readable(c);
}
