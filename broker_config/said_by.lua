#!lua flags=no-writes
-- Which messages of a stretch of a log somebody said, without moving a message out of the server.
--
-- KEYS[1] the log   ARGV[1] the id from which on it is looked at   ARGV[2] how many entries
-- ARGV[3] how the user begins in JSON: `{"id":"…",`
--
-- Returns where to go on (empty: that was all), then the ids.

local log, low, count, head = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local found = redis.call('XRANGE', log, low, '+', 'COUNT', count)
local answer = { #found == count and '(' .. found[#found][1] or '' }
for _, entry in ipairs(found) do
  local fields = entry[2]
  if fields[7] == 'u' and fields[8]:sub(1, #head) == head then answer[#answer + 1] = entry[1] end
end
return answer
