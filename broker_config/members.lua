-- What one node says of who is in one room; and what changed by it, in a log of its own.
--
-- KEYS[1]  a hash: user -> `,<claim>,…, <member>`: who says that he is here, and how he is told of, as JSON; and, in the
--          field with no name, the stamp and the server: `<began>-<n> <server>`
-- KEYS[2]  a sorted set: claim -> until when it counts (broker's clock, ms); and, in the member with no name, when nodes
--          were last told that somebody asks
-- KEYS[3]  a stream: what changed, the last of it: `<began>-<n>` -> `#` how many are here then; `+<user>` the member, or
--          `-<user>` nothing, for each who came or went
-- ARGV[1]  the claim under which the node speaks
-- ARGV[2]  `1`: it is new, and what follows is all of it, or its beginning
-- ARGV[3]  which server this is: behind a failover or a restart the set is begun anew
-- ARGV[4]  for how many ms a claim counts from the last call on
-- ARGV[5]  the channel of the log of what changed
-- ARGV[6]  the channel on which nodes are told that somebody asks who is here; empty: nobody on this node does
-- ARGV[7]  what they are told, at most so often: ARGV[8], in ms
-- ARGV[9…] per user: his id, and the member; empty: he is here no more
--
-- Returns the stamp, how many are here, and 1 where the claim is not known (any more): then nothing was done, and the
-- node says all anew, as another claim. The set, and each claim, ends when it is not renewed. Nobody has no id, and no
-- claim has no name.

local members, claims, log = KEYS[1], KEYS[2], KEYS[3]
local claim, is_new, server, lasts_ms = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local FIRST = 9
local UNNAMED = ''
-- Entries of the log that stay, and changes in one of them. Who is behind them reads the whole set.
local LOG_ENTRIES = 64
local CHANGES_AT_ONCE = 256

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)

local function whole(number)
  return string.format('%.0f', number)
end

-- A claim's score; nil: there is no such claim. ZSCORE, with the commands that nodes may run.
local function score(name)
  return tonumber(redis.call('ZADD', claims, 'XX', 'INCR', '0', name) or nil)
end

local began, n, of = (redis.call('HGET', members, UNNAMED) or ''):match('^(%d+)-(%d+) (.*)$')
local is_there = began and of == server and #redis.call('ZRANGE', claims, 0, 0) > 0
if not is_there then
  if not is_new then return { '0-0', 0, 1 } end
  redis.call('DEL', members, claims, log)
  began = whole(math.max(now_us, (tonumber(began) or 0) + 1))
  n = 0
end

-- ---- who came and went ----

local changes = {}

local function told(sign, user, member)
  changes[#changes + 1] = sign .. user
  changes[#changes + 1] = member
end

local function keep(user, names, member)
  if names == ',' then
    redis.call('HDEL', members, user)
    told('-', user, '')
  else
    redis.call('HSET', members, user, names .. ' ' .. member)
  end
end

local function without(names, name)
  local from, to = names:find(',' .. name .. ',', 1, true)
  if not from then return names end
  return names:sub(1, from) .. names:sub(to + 1)
end

-- Claims that nobody renewed end, and what they said.
local ended = {}
for _, name in ipairs(redis.call('ZRANGE', claims, '-inf', whole(now_ms), 'BYSCORE')) do
  if name ~= UNNAMED then
    redis.call('ZREM', claims, name)
    ended[#ended + 1] = name
  end
end
if #ended > 0 then
  local all = redis.call('HGETALL', members)
  for at = 1, #all, 2 do
    local names, member = all[at + 1]:match('^(,%S*) (.*)$')
    if names then
      local left = names
      for _, name in ipairs(ended) do left = without(left, name) end
      if left ~= names then keep(all[at], left, member) end
    end
  end
end

local known = is_new or score(claim)
if known then
  for at = FIRST, #ARGV, 2 do
    local user, member = ARGV[at], ARGV[at + 1]
    local names, former = (redis.call('HGET', members, user) or ', '):match('^(,%S*) (.*)$')
    local mine = names:find(',' .. claim .. ',', 1, true)
    if member ~= '' then
      if not mine then names = names .. claim .. ',' end
      if not mine or member ~= former then keep(user, names, member) end
      if member ~= former then told('+', user, member) end
    elseif mine then
      keep(user, without(names, claim), former)
    end
  end
  redis.call('ZADD', claims, now_ms + lasts_ms, claim)
end

-- ---- what is told of it ----

n = tonumber(n)
local from = n
for first = 1, #changes, 2 * CHANGES_AT_ONCE do n = n + 1 end
local stamp = began .. '-' .. whole(n)
if n > from or not is_there then redis.call('HSET', members, UNNAMED, stamp .. ' ' .. server) end
local count = redis.call('HLEN', members) - 1
for first = 1, #changes, 2 * CHANGES_AT_ONCE do
  from = from + 1
  local last = math.min(first + 2 * CHANGES_AT_ONCE - 1, #changes)
  redis.call('XADD', log, 'MAXLEN', '~', LOG_ENTRIES, began .. '-' .. whole(from), '#', count, unpack(changes, first, last))
end
if #changes > 0 then redis.call('SPUBLISH', ARGV[5], stamp) end

if ARGV[6] ~= '' then
  local last_ms = score(UNNAMED)
  if not last_ms or now_ms - last_ms >= tonumber(ARGV[8]) then
    redis.call('SPUBLISH', ARGV[6], ARGV[7])
    redis.call('ZADD', claims, now_ms, UNNAMED)
  end
end

-- Half as long as a claim: where nobody could renew any, all begin anew, and none is taken for one that went.
local left_s = math.ceil(lasts_ms / 2000)
redis.call('EXPIRE', members, left_s)
redis.call('EXPIRE', claims, left_s)
redis.call('EXPIRE', log, left_s)
return { stamp, count, known and 0 or 1 }
