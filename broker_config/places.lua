#!lua flags=no-writes
-- Which entries some logs have, and of which histories, without what they say: a node that proves its place in many
-- logs needs no message.
--
-- KEYS     the logs
-- ARGV     per log how many questions, and those, of three: lowest id, highest id, and how many; the newest of them
--          first, below 0 the oldest
--
-- Returns the server's head of epochs (see publish.lua; empty: it does not say), and per question a list of id, b
-- (running bytes and epoch; empty: not written by publish.lua), id, b, …; an empty one of what is no log.

local replid = redis.call('INFO', 'replication'):match('master_replid:(%x%x%x%x%x%x%x%x)')
local answers = { replid and string.format('%010.0f', tonumber(replid, 16)) or '' }
local at = 0
for _, log in ipairs(KEYS) do
  at = at + 1
  for _ = 1, tonumber(ARGV[at]) do
    local low, high, count = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
    at = at + 3
    local found
    if count > 0 then
      found = redis.pcall('XREVRANGE', log, high, low, 'COUNT', count)
    else
      found = redis.pcall('XRANGE', log, low, high, 'COUNT', -count)
    end
    if found.err and found.err:sub(1, 9) ~= 'WRONGTYPE' then
      return found
    end
    local places = {}
    for _, entry in ipairs(found) do
      local ours = #entry[2] >= 10 and entry[2][3] == 'b'
      places[#places + 1] = entry[1]
      places[#places + 1] = ours and entry[2][4] or ''
    end
    answers[#answers + 1] = places
  end
end
return answers
