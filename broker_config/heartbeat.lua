-- One node's sign of life in the registry, and the end of those who gave none.
--
-- KEYS[1] the registry: a sorted set, node id -> broker's clock in ms at its last heartbeat
-- ARGV[1] node id   ARGV[2] seconds after which a silent node is dead
--
-- Returns {1 if the node was not registered, ids alive, ids that this call found dead}.

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local dead_ms = now_ms - tonumber(ARGV[2]) * 1000

local dead = redis.call('ZRANGE', KEYS[1], '-inf', string.format('(%.0f', dead_ms), 'BYSCORE')
if #dead > 0 then redis.call('ZREM', KEYS[1], unpack(dead)) end
local added = redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
return { added, redis.call('ZRANGE', KEYS[1], 0, -1), dead }
