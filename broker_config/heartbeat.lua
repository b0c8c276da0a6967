#!lua flags=allow-oom
-- One node's sign of life in the registry, and the end of those who gave none. A full server takes it all the same:
-- it holds a line per node and no more, and nodes that could not say that they live would bury each other.
--
-- KEYS[1] the registry: a sorted set, node id -> broker's clock in ms at its last heartbeat
-- ARGV[1] node id   ARGV[2] seconds after which a silent node is dead
--
-- Returns {1 if the node was not registered, ids alive, ids that this call found dead}.

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local ttl_ms = tonumber(ARGV[2]) * 1000

-- Time in which nobody at all could give a sign (a server that refused writes or was away, a clock that leapt ahead
-- or back) counts against nobody: all keep the distance that they had to the newest. A node that is alone beats every
-- ttl / 2 at the slowest: that is no silence.
local newest_ms = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
local leap_ms = newest_ms and now_ms - tonumber(newest_ms) or 0
if (leap_ms < 0 or leap_ms > ttl_ms * 0.6) and math.abs(leap_ms) < math.huge then -- a stranger's infinity is no clock
  local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
  for at = 1, #all, 2 do redis.call('ZADD', KEYS[1], tonumber(all[at + 1]) + leap_ms, all[at]) end
end

local dead = redis.call('ZRANGE', KEYS[1], '-inf', string.format('(%.0f', now_ms - ttl_ms), 'BYSCORE')
if #dead > 0 then redis.call('ZREM', KEYS[1], unpack(dead)) end
local added = redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
return { added, redis.call('ZRANGE', KEYS[1], 0, -1), dead }
