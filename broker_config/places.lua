#!lua flags=no-writes
-- Which entries a log has, and of which histories, without what they say: a node that proves its place in many logs
-- needs no message.
--
-- KEYS[1]  the log
-- ARGV     questions of three: lowest id, highest id, and how many; the newest of them first, below 0 the oldest
--
-- Returns the server's head of epochs (see publish.lua; empty: it does not say), and per question a list of id, b
-- (running bytes and epoch; empty: not written by publish.lua), id, b, …

local replid = redis.call('INFO', 'replication'):match('master_replid:(%x%x%x%x%x%x%x%x)')
local answers = { replid and string.format('%010.0f', tonumber(replid, 16)) or '' }
for at = 1, #ARGV, 3 do
  local low, high, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local found
  if count > 0 then
    found = redis.call('XREVRANGE', KEYS[1], high, low, 'COUNT', count)
  else
    found = redis.call('XRANGE', KEYS[1], low, high, 'COUNT', -count)
  end
  local places = {}
  for _, entry in ipairs(found) do
    local ours = #entry[2] >= 10 and entry[2][3] == 'b'
    places[#places + 1] = entry[1]
    places[#places + 1] = ours and entry[2][4] or ''
  end
  answers[#answers + 1] = places
end
return answers
