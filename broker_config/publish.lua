-- Appends the entries of one call to their rooms' logs and rings each room's doorbell once: with the newest id, and
-- a `!` before it when the log began with this call, so that who listens can count what a vanished log took along.
--
-- KEYS[1]   the once key of the calling node: its last call's number and what that call returned
-- KEYS[2…]  the logs that the call appends to, and what is known of their writers: of a producer epoch, sequence
--           number and id of its last bundle; of a request that came with a key of its own a mark of what it was, `-`
--           and the id of its bundle; a room's last Stream-Seq
-- Beside each log, named by it: PREFIX:{p}:rooms, a sorted set: room of this partition -> when its expiry was renewed.
-- ARGV[1…6] call number; 1 if it was sent before, and the once key must be there (else 0); retention in one text:
--           seconds, entries min, bytes min, entries max, bytes max; idle seconds, and how often that is renewed; once
--           key's seconds
-- ARGV[7]   what follows a log's key in the name of its doorbell's channel
-- ARGV[8…]  per entry: index into KEYS, sender, user (JSON; empty: nobody with a name), message
--           per bundle: `*`, index of the log, sender, user; index of its producer's key (0: it has none), epoch,
--           sequence number, or of its request's key, mark, `-`; index of the room's Stream-Seq (0: it has none), that;
--           seconds for which both are kept; how many messages, and they
--
-- Returns one line per entry: its id `<ms>-<n>`, or `!` and the error; one per bundle, of which all is appended or
-- nothing: the id of its last entry, `!` and the error, or `=` and what who sent it is told; and one more, `?` and a
-- sentence, where the server does not trim as it should; and one more, `-` and an error, where all is appended that can
-- be, and something that belongs to it was denied (by an ACL). A number that was answered before returns the saved
-- lines and appends nothing; a lower one is an error (STALE). So is a call that was sent before when the once key is
-- gone (FORGOTTEN: flushed, or the node was taken for dead): nobody can know whether it ran. Where that node never had
-- anything taken there is no such key, and the call did not run. Nothing is appended half: either the whole call ran or
-- none of it (a script is atomic), and an entry that Redis refuses has its own error line. A call of which nothing was
-- appended is not saved: sent again, it is tried again. A call without entries trims its logs, and no more.

local once = KEYS[1]
local number = tonumber(ARGV[1])
local sent_before_and_kept = ARGV[2] == '1'
local idle_s, renewal_s, once_s, channel_tail = ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7]
local FIRST = 8

-- Each call makes the functions below anew and pays for each, and for what each takes from outside: what only trimming
-- needs is made in there.

-- An id may be so far ahead of the clock without its entry saying so: nobody minds.
local AHEAD_MS = 1000
-- So many entries of strangers in a row are looked through for one of ours: only they know the running bytes.
local STRANGERS = 100

local saved = redis.call('GET', once)
if saved then
  local last = saved:match('^%d+')
  if tonumber(last) == number then return saved:sub(#last + 2) end
  if tonumber(last) > number then
    return redis.error_reply('STALE call ' .. number .. ' came after call ' .. last)
  end
elseif sent_before_and_kept then
  return redis.error_reply('FORGOTTEN call ' .. number .. ' was sent before, and no answer is kept')
end

local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_text = string.format('%.0f', now_ms)
-- A log's expiry is renewed by its first entry in each share of the idle time; this one began then.
local renewal_ms = renewal_s * 1000
local renewed_ms = now_ms - now_ms % renewal_ms

-- An entry's clock and count, and the clock's text: a stranger's may have 64 bits, and a number holds 53.
local function id_of(entry)
  local text, n = entry[1]:match('^(%d+)-(%d+)$')
  return tonumber(text), tonumber(n), text
end

-- Whose history this is: the server's, and of a server another after each promotion, resync and restart, so that
-- entries of one epoch never went back. An epoch's tail is the microsecond in which the log took it up: it tells a log
-- from one that vanished. An older node's script reads over what is behind the point.
local info = redis.call('INFO', 'replication')
local _, before_replid = info:find('master_replid:', 1, true)
local server = before_replid and tonumber(info:sub(before_replid + 1, before_replid + 8), 16)

-- The epoch of a log that takes one up now.
local function fresh()
  return server and string.format('.%010.0f%06.0f', server, clock[2]) or ''
end

-- The room's running bytes, and the epoch with its point; no bytes: a stranger's entry, no epoch: an older script's.
local function bytes_up_to(entry)
  if entry[2][1] ~= 'v' or entry[2][3] ~= 'b' then return nil, '' end
  local bytes, epoch = entry[2][4]:match('^(%d+)(%.?%d*)')
  return tonumber(bytes), epoch or ''
end

-- When it was appended, where its id cannot say so: ids never go back, the server's clock may.
local function said_at(entry)
  return entry[2][11] == 't' and tonumber(entry[2][12]) or nil
end

-- The running bytes at the end of a log to which strangers wrote last: what ours had, and theirs.
local function bytes_behind_strangers(log)
  local bytes = 0
  for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', STRANGERS)) do
    local ours = bytes_up_to(entry)
    if ours then return bytes + ours end
    for _, part in ipairs(entry[2]) do bytes = bytes + #part end
  end
  return bytes
end

-- The newest entry's clock, count and running bytes, and the epoch that the next one has; zeros for a room without a
-- log: it begins here.
local function newest_of(log)
  local found = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if found.err then return nil, found.err end
  local entry = found[1]
  if not entry then return { ms = 0, text = '0', at = 0, n = 0, bytes = 0, bell = '!', epoch = fresh() } end
  local ms, n, text = id_of(entry)
  local bytes, former = bytes_up_to(entry)
  local same = former ~= '' and (not server or tonumber(former:sub(2, 11)) == server)
  return {
    ms = ms, text = text, at = said_at(entry) or ms, n = n, bell = '',
    bytes = bytes or bytes_behind_strangers(log),
    epoch = same and former or fresh(), parted = former ~= '' and not same
  }
end

-- Set where XTRIM cannot cut what it should.
local coarse = false

-- Retention is one number: how many of the newest entries stay. n is dense, so ages become counts by subtraction.
-- Returns the bytes that it freed.
local function trim(log, newest)
  -- A log from which nothing could be cut though it holds so many entries too many has nodes larger than that: four
  -- times stream-node-max-entries of valkey.conf.
  local COARSE_ENTRIES = 400
  -- Numbers from here on are not all told apart, and a search among them never ends: no count of ours comes so far.
  local EXACT_BELOW = 2 ^ 53
  local limits = {}
  for limit in ARGV[3]:gmatch('%S+') do limits[#limits + 1] = tonumber(limit) end
  local retention_s, entries_min, bytes_min, entries_max, bytes_max = unpack(limits)

  -- The running bytes at the oldest entry of ours; `otherwise`: there are too many strangers' before it.
  local function bytes_at_start(log, otherwise)
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    local bytes = oldest and bytes_up_to(oldest)
    if bytes or not oldest then return bytes or otherwise, oldest end
    for _, entry in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', STRANGERS)) do
      bytes = bytes_up_to(entry)
      if bytes then return bytes, oldest end
    end
    return otherwise, oldest
  end

  -- The count of the oldest entry that is younger than retention_s, the newest one's if none is. Mostly nobody has to
  -- search: the whole log is.
  local function oldest_young(log, newest, oldest)
    local since_ms = now_ms - retention_s * 1000
    local first = id_of(oldest) >= since_ms and oldest
      or redis.call('XRANGE', log, string.format('%.0f', since_ms), '+', 'COUNT', 1)[1]
    if not first then return newest.n end
    local first_ms, first_n = id_of(first)
    if first_ms <= now_ms + AHEAD_MS or newest.n >= EXACT_BELOW then return first_n end
    -- The clock went back: what has the newest one's ms in its id, but for the first of it, says itself when it was
    -- appended, in the order of the counts. What lies before that is older.
    local head = redis.call('XRANGE', log, newest.text, '+', 'COUNT', 1)[1]
    local _, low = id_of(head)
    local high, old = newest.n, false
    while low < high do
      local middle = low + math.floor((high - low) / 2) -- not of their sum: that may be more than a number holds
      local id = newest.text .. string.format('-%.0f', middle)
      local entry = redis.call('XRANGE', log, id, id)[1]
      local at = entry and said_at(entry)
      if at and at >= since_ms then
        high = middle
      else
        low, old = middle + 1, old or at ~= nil
      end
    end
    return old and low or first_n
  end

  local held = redis.call('XLEN', log)
  if held == 0 then return 0 end
  local start, oldest = bytes_at_start(log, newest.bytes)
  local bytes = newest.bytes - start
  -- How many of them there are in so many bytes, by the mean: to look at each would cost more than it is worth.
  local function within(limit)
    return bytes > limit and math.max(1, math.floor(held * limit / bytes)) or held
  end
  local least = math.min(entries_min, within(bytes_min))
  local keep = math.max(newest.n - oldest_young(log, newest, oldest) + 1, least)
  keep = math.min(keep, entries_max, within(bytes_max))
  if held <= keep then return 0 end
  if redis.call('XTRIM', log, 'MAXLEN', '~', keep) > 0 then
    return bytes_at_start(log, start) - start
  end
  coarse = coarse or held - keep > COARSE_ENTRIES
  return 0
end

-- Once an entry is in its log, no error may end the script: whoever sent it would be told that it will never appear.
-- What was denied is told beside the ids.
local denied

local function note(reply)
  if type(reply) == 'table' and reply.err then denied = denied or reply.err end
end

local function try_to_trim(log, newest)
  local fine, freed = pcall(trim, log, newest)
  if fine then return freed end
  note(type(freed) == 'table' and freed or { err = tostring(freed) })
  return 0
end

-- At maxmemory Redis refuses a script's first append, and after a write that went through none of its appends. So
-- the first one asks; once it was refused, a log takes what trimming it freed in this call, and not a byte more.
local full

-- `need`: the bytes of all that must follow with this one; nil: nothing must.
local function append(log, newest, sender, user, message, need)
  if full then
    newest.freed = newest.freed or try_to_trim(log, newest)
    if newest.freed < (need or #user + #message) then return nil, full end
    newest.freed = newest.freed - #user - #message
  end
  local ms, text, n, bytes = newest.ms, newest.text, newest.n + 1, newest.bytes + #user + #message
  if now_ms > ms then
    ms, text = now_ms, now_text
  elseif newest.parted then
    -- The clock is behind a former server's, whose last entries this one may lack: give none of their ids again.
    ms = ms + 1 + clock[2] % 1000
    text = string.format('%.0f', ms)
  end
  local id = text .. string.format('-%.0f', n)
  local b, added = string.format('%.0f', bytes) .. newest.epoch, nil
  -- The format: an older node tells a gap where somebody with a name spoke, and nowhere else.
  local v = user == '' and '1' or '2'
  if ms - now_ms > AHEAD_MS then
    added = redis.pcall('XADD', log, id, 'v', v, 'b', b, 'f', sender, 'u', user, 'm', message, 't', now_text)
  else
    added = redis.pcall('XADD', log, id, 'v', v, 'b', b, 'f', sender, 'u', user, 'm', message)
  end
  if added.err then
    if full or added.err:sub(1, 4) ~= 'OOM ' then return nil, added.err end
    full = added.err
    return append(log, newest, sender, user, message, need)
  end
  newest.renew = newest.renew or n == 1 or newest.at < renewed_ms or newest.at >= renewed_ms + renewal_ms
  -- It costs more than the append: once in 16 entries of a room.
  newest.trim = newest.trim or n % 16 == 0
  newest.parted = false
  newest.ms, newest.text, newest.at, newest.n, newest.bytes, newest.id = ms, text, now_ms, n, bytes, id
  return id
end

local logs, lines, appended = {}, {}, false

-- The newest of a log of this call; nil and the error: it is none.
local function newest_at(index)
  if not logs[index] then
    local newest, failure = newest_of(KEYS[index])
    if not newest then return nil, failure end
    logs[index] = newest
  end
  return logs[index]
end

-- Returns the error, if there is one, and where the next one stands.
local function append_bundle(at)
  -- Whether a producer's bundle is its next one; else what it is told (PROTOCOL.md of durable-streams, section 5.2.1).
  local function judged(key, epoch, seq)
    local last = redis.pcall('GET', key)
    if type(last) == 'table' then return '!' .. last.err end
    if seq == '-' then -- a request: it was appended, or another one with its key was
      local mark, id = (last or ''):match('^(%x+) %- (%S+)$')
      return id and (mark == epoch and '=repeated 0 ' .. id or '=other') or nil
    end
    epoch, seq = tonumber(epoch), tonumber(seq)
    local last_epoch, last_seq, id = (last or ''):match('^(%d+) (%d+) (%S+)$')
    if not id then return seq > 0 and '=gap 0' or nil end
    last_epoch, last_seq = tonumber(last_epoch), tonumber(last_seq)
    if epoch < last_epoch then return '=stale ' .. string.format('%.0f', last_epoch) end
    if epoch > last_epoch then return seq > 0 and '=begin' or nil end
    if seq <= last_seq then return '=repeated ' .. string.format('%.0f ', last_seq) .. id end
    return seq > last_seq + 1 and '=gap ' .. string.format('%.0f', last_seq + 1) or nil
  end

  -- Whether a Stream-Seq is above the room's last one (section 5.2): byte by byte, where `<` asks the server's locale.
  local function judged_sequence(key, sequence)
    local last = redis.pcall('GET', key)
    if type(last) == 'table' then return '!' .. last.err end
    if not last then return nil end
    for at = 1, math.min(#last, #sequence) do
      local before, now = last:byte(at), sequence:byte(at)
      if before ~= now then return before > now and '=passed' or nil end
    end
    return #sequence <= #last and '=passed' or nil
  end

  local index, sender, user, producer = tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  local epoch, seq, sequence_key, sequence = ARGV[at + 5], ARGV[at + 6], tonumber(ARGV[at + 7]), ARGV[at + 8]
  local kept_s, first = ARGV[at + 9], at + 11
  local behind = first + tonumber(ARGV[at + 10])
  local told = producer > 0 and judged(KEYS[producer], epoch, seq)
    or sequence_key > 0 and judged_sequence(KEYS[sequence_key], sequence)
  if told then
    lines[#lines + 1] = told
    return nil, behind
  end
  local need = 0
  for n = first, behind - 1 do need = need + #user + #ARGV[n] end
  local newest, failure = newest_at(index)
  local id
  -- Where the first one goes through, all do: a server that is full asks once in a script.
  for n = first, behind - 1 do
    if newest then id, failure = append(KEYS[index], newest, sender, user, ARGV[n], need) end
    if not id then break end
    need = need - #user - #ARGV[n]
  end
  if id and producer > 0 then
    note(redis.pcall('SET', KEYS[producer], epoch .. ' ' .. seq .. ' ' .. id, 'EX', kept_s))
  end
  if id and sequence_key > 0 then note(redis.pcall('SET', KEYS[sequence_key], sequence, 'EX', kept_s)) end
  lines[#lines + 1] = id or '!' .. failure
  appended = appended or id ~= nil
  return failure, behind
end

local at = FIRST
while at <= #ARGV do
  local index, failure = tonumber(ARGV[at]), nil
  if index then
    local newest, id
    newest, failure = newest_at(index)
    if newest then id, failure = append(KEYS[index], newest, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]) end
    lines[#lines + 1] = id or '!' .. failure
    appended, at = appended or id ~= nil, at + 4
  else
    failure, at = append_bundle(at)
  end
  -- A replica's word is for the connection, not for the entry: the call goes to the master.
  if failure and failure:sub(1, 9) == 'READONLY ' then return redis.error_reply(failure) end
end

for index, newest in pairs(logs) do
  if newest.trim then try_to_trim(KEYS[index], newest) end
  if newest.renew then
    -- Not noted: the sweep renews it as well, and is told. The index is named by the log: one call in thousands wants
    -- it, and all would pay for one more key.
    redis.pcall('EXPIRE', KEYS[index], idle_s)
    local partition, room = KEYS[index]:match('^(.*}):log:(.+)$')
    if room then
      local rooms = partition .. ':rooms'
      redis.pcall('ZADD', rooms, now_text, room)
      redis.pcall('EXPIRE', rooms, idle_s)
      -- Two that have expired go for each that is renewed: so it never holds many more than there are rooms.
      local since = string.format('(%.0f', now_ms - idle_s * 1000)
      local gone = redis.pcall('ZRANGE', rooms, '-inf', since, 'BYSCORE', 'LIMIT', 0, 2)
      if not gone.err and #gone > 0 then redis.pcall('ZREM', rooms, unpack(gone)) end
    end
  end
  if newest.id then note(redis.pcall('SPUBLISH', KEYS[index] .. channel_tail, newest.bell .. newest.id)) end
end

if #lines == 0 then
  for index = 2, #KEYS do
    local newest = newest_of(KEYS[index])
    if newest then trim(KEYS[index], newest) end
  end
end

if coarse then
  lines[#lines + 1] = '?a log cannot be trimmed: stream-node-max-entries and stream-node-max-bytes allow nodes '
    .. 'larger than what it may keep (hiroba broker apply)'
end
local told = table.concat(lines, '\n')
if appended then note(redis.pcall('SET', once, number .. '\n' .. told, 'EX', once_s)) end
return denied and told .. '\n-' .. denied or told
