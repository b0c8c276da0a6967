#!lua flags=allow-oom
-- Deletes messages of a room's log: the entry of each is replaced by a tombstone, which has its id, its epoch and its
-- place among the counts, and nothing of who said what. A full server does it all the same: it takes no more memory
-- than there was.
--
-- An entry cannot be changed, and none can be written below the newest id, so the log is written anew: its entries, and
-- the groups that read it, where they stood. XDEL would leave a hole, which every reader takes for a loss, and leave
-- the text in the server's memory, and so in its files, until the stream's node goes. What groups have pending is lost;
-- groups of nodes have nothing pending (NOACK).
--
-- KEYS[1]  the log
-- ARGV[1]  seconds after which an unused log expires
-- ARGV[2]  the id up to which everything is deleted, `+`: all; empty: only what follows is
-- ARGV[3…] ids of the messages to be deleted
--
-- Returns the newest id of the log (empty: it has none), how many became tombstones now, the server's clock (ms), and
-- per id: 1: it became one now; 0: it was one before; empty: the log has no such message. Called again it does the same.

local log, idle_s, up_to = KEYS[1], ARGV[1], ARGV[2]
local FIRST = 3

local function is_ours(fields)
  return #fields >= 10 and fields[1] == 'v' and fields[3] == 'b' and fields[9] == 'm'
end

local function is_tombstone(fields)
  return fields[2] == '3'
end

local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local answers, wanted, any = { newest and newest[1] or '', 0, now_ms }, {}, false
for at = FIRST, #ARGV do
  local id = ARGV[at]
  local entry = redis.call('XRANGE', log, id, id)[1]
  local answer = ''
  if entry and is_ours(entry[2]) then
    answer = is_tombstone(entry[2]) and 0 or 1
    if answer == 1 then wanted[id], any = true, true end
  end
  answers[#answers + 1] = answer
end
if not newest or not (any or up_to ~= '') then return answers end

-- From the first command that writes to the last nothing may be refused, or the log were lost.
local needs = {
  ['del'] = { 'DEL', log },
  ['xadd'] = { 'XADD', log, '*', 'v', '1' },
  ['xgroup|create'] = { 'XGROUP', 'CREATE', log, 'g', '0' },
  ['expire'] = { 'EXPIRE', log, idle_s }
}
for name, command in pairs(needs) do
  if not redis.acl_check_cmd(unpack(command)) then
    return redis.error_reply("NOPERM this user has no permissions to run the '" .. name .. "' command")
  end
end

local function at_most(id, bound)
  if bound == '+' then return true end
  local ms, n = id:match('^(%d+)-(%d+)$')
  local bound_ms, bound_n = bound:match('^(%d+)-(%d+)$')
  ms, n, bound_ms, bound_n = tonumber(ms), tonumber(n), tonumber(bound_ms), tonumber(bound_n)
  return ms < bound_ms or ms == bound_ms and n <= bound_n
end

-- What unpack() puts on Lua's stack.
local FIELDS_MAX = 1000
local entries, groups = redis.call('XRANGE', log, '-', '+'), redis.call('XINFO', 'GROUPS', log)
for _, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  if #fields > FIELDS_MAX then
    return redis.error_reply('ERR the entry ' .. id .. ' has more fields than can be written anew: XDEL it')
  end
  if (wanted[id] or up_to ~= '' and at_most(id, up_to)) and is_ours(fields) and not is_tombstone(fields) then
    fields[2], fields[6], fields[8], fields[10] = '3', '', '', ''
    answers[2] = answers[2] + 1
  end
end
if answers[2] == 0 then return answers end

redis.call('DEL', log)
for _, entry in ipairs(entries) do redis.call('XADD', log, entry[1], unpack(entry[2])) end
for _, group in ipairs(groups) do
  local of = {}
  for at = 1, #group, 2 do of[group[at]] = group[at + 1] end
  redis.call('XGROUP', 'CREATE', log, of['name'], of['last-delivered-id'])
end
redis.call('EXPIRE', log, idle_s)
return answers
