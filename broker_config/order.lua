#!lua flags=allow-oom
-- Writes orders (kicks, revocations) into the set of those that stand, all at once. A full server takes them all the
-- same: the set is bounded, and whoever has to be put out must not be able to stay by filling it.
--
-- KEYS[1]  the set: a sorted set, target -> until when it stands (broker's clock, ms); and highest, with the score
--          +inf, its stamp, `@<began>-<changed>`: the set's first call and its last change, broker's clock, µs
-- ARGV[1]  how many orders may stand
-- ARGV[2]  1 if those that stand there already are to be left as they are, else 0
-- ARGV[3…] per order: target, and until when: ms; `+` and ms from now on; 0 to lift it
--
-- Returns the stamp, and per order until when it stands; 0 if it was lifted; an empty text if it was left as it was;
-- `!` if there is no space for it. Orders that have ended leave the set at each call, and with the last of them it goes.

local set = KEYS[1]
local orders_max, only_missing = tonumber(ARGV[1]), ARGV[2] == '1'
local FIRST = 3
-- What unpack() puts on Lua's stack at once.
local AT_ONCE = 1000
-- The set outlives its last order by so long, so that whoever compares stamps finds one.
local EXPIRES_LATER_S = 60

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)

local ended = redis.call('ZRANGE', set, '-inf', string.format('%.0f', now_ms), 'BYSCORE')
for at = 1, #ended, AT_ONCE do
  redis.call('ZREM', set, unpack(ended, at, math.min(at + AT_ONCE - 1, #ended)))
end

-- Until when an order stands there; false: there is none. ZSCORE, with the commands that nodes may run.
local function until_of(target)
  return redis.call('ZADD', set, 'XX', 'INCR', '0', target)
end

local former = redis.call('ZRANGE', set, -1, -1)[1]
local began, changed_us = (former or ''):match('^@(%d+)-(%d+)$')
if began then redis.call('ZREM', set, former) end

-- Whether there is no space for one more: without counting them all.
local function full()
  return #redis.call('ZRANGE', set, orders_max - 1, orders_max - 1) > 0
end

local lines, changed = {}, not began
for at = FIRST, #ARGV, 2 do
  local target, lasts = ARGV[at], ARGV[at + 1]
  local ends = lasts:sub(1, 1) == '+' and now_ms + tonumber(lasts:sub(2)) or tonumber(lasts)
  local stands = until_of(target)
  -- Tokens that are good no more stay so until that is lifted.
  if stands and ends > now_ms and target:find('^%["issued"') then ends = math.max(ends, tonumber(stands)) end
  local line
  if stands and only_missing then
    line = ''
  elseif ends <= now_ms then
    redis.call('ZREM', set, target)
    line, changed = '0', true
  elseif not stands and full() then
    line = '!'
  else
    redis.call('ZADD', set, ends, target)
    line, changed = string.format('%.0f', ends), true
  end
  lines[#lines + 1] = line
end

local longest = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
local now_text = string.format('%.0f', now_us)
local stamp = former
if changed then
  -- Another one than before, also where the clock went back by just so much.
  if changed_us == now_text then now_text = string.format('%.0f', now_us + 1) end
  stamp = '@' .. (began or now_text) .. '-' .. now_text
end
redis.call('ZADD', set, '+inf', stamp)
local left_s = longest and math.ceil((tonumber(longest) - now_ms) / 1000) or 0
redis.call('EXPIRE', set, left_s + EXPIRES_LATER_S)
return { stamp:sub(2), unpack(lines) }
