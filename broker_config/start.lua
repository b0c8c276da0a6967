#!lua flags=no-writes
-- Where the last entries of a log begin, found without moving a message out of the server.
--
-- KEYS[1] the log   ARGV[1] the id up to which it is looked at   ARGV[2] how many entries
--
-- Returns the id of the first of them, or of the log's oldest where it has fewer; nil where it has none.

local log, count = KEYS[1], tonumber(ARGV[2])
-- Redis takes 64 bits for each half of an id, and a number holds 53.
local EXACT_BELOW = 2 ^ 53

local function parts(id)
  local ms, n = id:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(n)
end

-- The newest at or below an id.
local function newest(id)
  local found = redis.call('XREVRANGE', log, id, '-', 'COUNT', 1)[1]
  return found and found[1]
end

local top = newest(ARGV[1])
if not top then return nil end
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1][1]
local top_ms, top_n = parts(top)
local oldest_ms, oldest_n = parts(oldest)
local _, end_n = parts(newest('+'))

-- A hole, or an entry that publish.lua did not write: counts tell nothing, so the entries themselves are counted. So
-- they are above what a number holds: a search that halves what it cannot tell apart never ends, and the server stands.
if redis.call('XLEN', log) ~= end_n - oldest_n + 1 or top_n < oldest_n or math.max(top_ms, end_n) >= EXACT_BELOW then
  local last = redis.call('XREVRANGE', log, top, '-', 'COUNT', count)
  return last[#last][1]
end

local wanted = top_n - count + 1
if wanted <= oldest_n then return oldest end
-- Dense counts: the entry with count `wanted` is there, and its ms is looked for. Chat comes in bursts, so a guess in
-- proportion takes turns with halving.
local low_ms, low_n, high_ms, high_n = oldest_ms, oldest_n, top_ms, top_n
local halve = false
while low_ms <= high_ms do
  local share = halve and 0.5 or (wanted - low_n) / (high_n - low_n)
  local ms = low_ms + math.floor((high_ms - low_ms) * share)
  local id = newest(string.format('%.0f-%.0f', ms, wanted))
  local found_ms, found_n = parts(id)
  if found_n == wanted then return id end
  if found_n < wanted then
    low_ms, low_n = ms + 1, found_n
  else
    high_ms, high_n = found_ms, found_n
  end
  halve = not halve
end
return top
