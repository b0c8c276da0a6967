#!lua flags=no-writes
-- How far logs grew, without what was said last: a node that only watches rooms needs no message.
--
-- KEYS  the logs
--
-- Returns per log the id of its newest entry; empty: it has none, or there is no log of this name.

local ids = {}
for at, log in ipairs(KEYS) do
  -- pcall: one key that is no stream must not cost the others their answer.
  local found = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
  ids[at] = found[1] and found[1][1] or ''
end
return ids
