#!lua flags=allow-oom
-- Writes orders (kicks, revocations) into the set of those that stand, all at once. A full server takes them all the
-- same: the set is bounded, and whoever has to be put out must not be able to stay by filling it.
--
-- KEYS[1]  a sorted set: target -> until when its order stands (broker's clock, ms); and highest, with the score +inf,
--          the stamp, `@<began>-<changed>`: of the set's first call and its last change (broker's clock, µs)
-- KEYS[2]  a sorted set: target -> when its order was given (broker's clock, µs); below 0: when it was lifted; and `@` ->
--          as <began>
-- ARGV[1]  how many orders may stand
-- ARGV[2…] per order: target; until when: ms, or `+` and ms from now on, or `-` to lift it; and when it was given, as in
--          KEYS[2], where that is known: then it is written only if what is there is older, or nothing is
--
-- Returns the stamp, and per order two: until when it stands (an empty text: it was left as it was; `!`: there is no
-- space for it), and when it was given. What was lifted stays on until it would have ended: whoever still knows the
-- order finds that it is over, not that it was lost. Orders that have ended leave at each call.

local ends, given = KEYS[1], KEYS[2]
local orders_max = tonumber(ARGV[1])
local FIRST = 2
-- What unpack() puts on Lua's stack at once.
local AT_ONCE = 1000
-- The sets outlive their last order by so long, so that whoever compares stamps finds one.
local EXPIRES_LATER_S = 60
-- A lift of what nobody here knows is remembered for so long: some node may.
local LIFTED_MS = 86400000

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)

local ended = redis.call('ZRANGE', ends, '-inf', string.format('%.0f', now_ms), 'BYSCORE')
for at = 1, #ended, AT_ONCE do
  local last = math.min(at + AT_ONCE - 1, #ended)
  redis.call('ZREM', ends, unpack(ended, at, last))
  redis.call('ZREM', given, unpack(ended, at, last))
end

-- A member's score; nil: it is none. ZSCORE, with the commands that nodes may run.
local function score(set, target)
  return tonumber(redis.call('ZADD', set, 'XX', 'INCR', '0', target) or nil)
end

local former = redis.call('ZRANGE', ends, -1, -1)[1]
local began, changed_us = (former or ''):match('^@(%d+)-(%d+)$')
if began then redis.call('ZREM', ends, former) end
-- One of the two was evicted: what is left is another set than it was.
if began and score(given, '@') ~= tonumber(began) then began = nil end
-- No two changes have one number, nor does a later one have a lower.
if changed_us then now_us = math.max(now_us, tonumber(changed_us) + 1) end
local now_text = string.format('%.0f', now_us)

-- Whether there is no space for one more: without counting them all.
local function full()
  return #redis.call('ZRANGE', ends, orders_max - 1, orders_max - 1) > 0
end

local answer, changed = {}, not began
for at = FIRST, #ARGV, 3 do
  local target, lasts, known_us = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local there_until, there_us = score(ends, target), score(given, target)
  local there = there_until and there_us
  local lifts = lasts == '-' or known_us:sub(1, 1) == '-'
  local until_ms
  if lasts == '-' then
    until_ms = there and there_until or now_ms + LIFTED_MS
  elseif lasts:sub(1, 1) == '+' then
    until_ms = now_ms + tonumber(lasts:sub(2))
  else
    until_ms = tonumber(lasts)
  end
  -- Tokens that are good no more stay so until that is lifted.
  if there and there_us > 0 and not lifts and target:find('^%["issued"') then until_ms = math.max(until_ms, there_until) end
  local line = ''
  if known_us ~= '' and there and math.abs(there_us) >= math.abs(tonumber(known_us)) then
    known_us = ''
  elseif not there_until and full() then
    line = '!'
  else
    known_us = known_us ~= '' and known_us or (lifts and '-' or '') .. now_text
    redis.call('ZADD', ends, until_ms, target)
    redis.call('ZADD', given, known_us, target)
    line, changed = string.format('%.0f', until_ms), true
  end
  answer[#answer + 1] = line
  answer[#answer + 1] = known_us
end

local longest = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
local stamp = changed and '@' .. (began or now_text) .. '-' .. now_text or former
redis.call('ZADD', ends, '+inf', stamp)
redis.call('ZADD', given, began or now_text, '@')
local left_s = math.max(0, longest and math.ceil((tonumber(longest) - now_ms) / 1000) or 0) + EXPIRES_LATER_S
redis.call('EXPIRE', ends, left_s)
redis.call('EXPIRE', given, left_s)
return { stamp:sub(2), unpack(answer) }
