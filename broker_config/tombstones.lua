#!lua flags=no-writes
-- Which messages of some logs are deleted: for a node that may not have heard it.
--
-- KEYS     the logs
-- ARGV[1]  how many of the newest entries of each are looked at
--
-- Returns per log a list of ids; an empty one of what is no log.

local answers = {}
for at, log in ipairs(KEYS) do
  local ids = {}
  local found = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', ARGV[1])
  if not found.err then
    for _, entry in ipairs(found) do
      if entry[2][1] == 'v' and entry[2][2] == '3' then ids[#ids + 1] = entry[1] end
    end
  end
  answers[at] = ids
end
return answers
