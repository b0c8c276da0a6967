-- Appends the entries of one call to their rooms' logs and rings each room's doorbell once: with the newest id, and
-- a `!` before it when the log began with this call, so that who listens can count what a vanished log took along.
--
-- KEYS[1]   the once key of the calling node: its last call's number and what that call returned
-- KEYS[2…]  the logs that the call appends to
-- ARGV[1…9] call number; 1 if it was sent before (else 0); retention: seconds, entries min, entries max, bytes max,
--           idle seconds, and how often that is renewed; once key's seconds
-- ARGV[10]  what follows a log's key in the name of its doorbell's channel
-- ARGV[11…] per entry: index into KEYS, sender, user, message
--
-- Returns one line per entry: its id `<ms>-<n>`, or `!` and the error. A number that was answered before returns
-- the saved lines and appends nothing; a lower one is an error (STALE). So is a call that was sent before when the
-- once key is gone (FORGOTTEN: flushed, or the node was taken for dead): nobody can know whether it ran. Nothing is
-- appended half: either the whole call ran or none of it (a script is atomic), and an entry that Redis refuses has
-- its own error line.

local once = KEYS[1]
local number = tonumber(ARGV[1])
local sent_before = ARGV[2] == '1'
local retention_s, entries_min, entries_max = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local bytes_max, idle_s, renewal_s, once_s = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local channel_tail = ARGV[10]

-- Trimming is looked at once in so many entries of a room: it costs more than the append itself.
local TRIM_EVERY = 16

local saved = redis.call('GET', once)
if saved then
  local last, lines = saved:match('^(%d+)\n(.*)$')
  if tonumber(last) == number then return lines end
  if tonumber(last) > number then
    return redis.error_reply('STALE call ' .. number .. ' came after call ' .. last)
  end
elseif sent_before and number > 1 then
  return redis.error_reply('FORGOTTEN call ' .. number .. ' was sent before, and no answer is kept')
end

local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function bytes_up_to(entry)
  return entry[2][1] == 'v' and entry[2][3] == 'b' and tonumber(entry[2][4]) or 0
end

-- The newest entry's clock (a number, and its text), count and running bytes; zeros for a room without a log: it begins here.
local function newest_of(log)
  local found = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if found.err then return nil, found.err end
  if not found[1] then return { ms = 0, at = '0', n = 0, bytes = 0, bell = '!' } end
  local at, n = found[1][1]:match('^(%d+)-(%d+)$')
  return { ms = tonumber(at), at = at, n = tonumber(n), bytes = bytes_up_to(found[1]), bell = '' }
end

-- Retention is one number: how many of the newest entries stay. n is dense, so ages become counts by subtraction.
local function trim(log, newest)
  local young = redis.call('XRANGE', log, string.format('%.0f', now_ms - retention_s * 1000), '+', 'COUNT', 1)[1]
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local held = redis.call('XLEN', log)
  local young_n = young and tonumber(young[1]:match('%-(%d+)$')) or newest.n
  local keep = math.min(math.max(newest.n - young_n + 1, entries_min), entries_max)
  local bytes = newest.bytes - bytes_up_to(oldest)
  if bytes > bytes_max then keep = math.min(keep, math.max(1, math.floor(held * bytes_max / bytes))) end
  if held > keep then redis.call('XTRIM', log, 'MAXLEN', '~', keep) end
end

local logs, lines = {}, {}
for at = 11, #ARGV, 4 do
  local index = tonumber(ARGV[at])
  local log = KEYS[index]
  local newest, failure = logs[index], nil
  if not newest then
    newest, failure = newest_of(log)
    logs[index] = newest
  end
  if failure then
    lines[#lines + 1] = '!' .. failure
  else
    local ms, n = math.max(now_ms, newest.ms), newest.n + 1
    local bytes = newest.bytes + #ARGV[at + 3]
    -- A stranger's id may have 64 bits, and a number holds 53: its text goes on as it is.
    local ms_text = ms > newest.ms and string.format('%.0f', ms) or newest.at
    local id = ms_text .. string.format('-%.0f', n)
    local added = redis.pcall('XADD', log, id, 'v', '1', 'b', string.format('%.0f', bytes),
      'f', ARGV[at + 1], 'u', ARGV[at + 2], 'm', ARGV[at + 3])
    if added.err then
      lines[#lines + 1] = '!' .. added.err
    else
      lines[#lines + 1] = id
      local renewal_ms = renewal_s * 1000
      newest.renew = newest.renew or n == 1 or math.floor(ms / renewal_ms) ~= math.floor(newest.ms / renewal_ms)
      newest.trim = newest.trim or n % TRIM_EVERY == 0
      newest.ms, newest.at, newest.n, newest.bytes, newest.id = ms, ms_text, n, bytes, id
    end
  end
end

for index, newest in pairs(logs) do
  if newest.trim then trim(KEYS[index], newest) end
  if newest.renew then redis.call('EXPIRE', KEYS[index], idle_s) end
  if newest.id then redis.call('SPUBLISH', KEYS[index] .. channel_tail, newest.bell .. newest.id) end
end

local answer = table.concat(lines, '\n')
redis.call('SET', once, number .. '\n' .. answer, 'EX', once_s)
return answer
