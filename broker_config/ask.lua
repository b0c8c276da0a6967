-- Rings all nodes for a question, and says who is there to answer it.
--
-- KEYS[1]  whose channel it is; nothing is stored there
-- KEYS[2]  the registry of nodes, a sorted set
-- ARGV[1]  what follows the key in the name of its channel
-- ARGV[2]  the question
--
-- Returns the nodes of the registry. In one call: who registers later did not hear it.

redis.call('SPUBLISH', KEYS[1] .. ARGV[1], ARGV[2])
return redis.call('ZRANGE', KEYS[2], 0, -1)
