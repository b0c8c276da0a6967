#!lua flags=allow-oom
-- A consumer group, made although the server is full: there are no more of them than rooms that nodes have open.
--
-- KEYS[1] the log, which must exist   ARGV[1] group   ARGV[2] the id behind which it begins to read

return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2])
