-- Moves read markers forward, and tells who listens. Never back: of two devices the one that read further counts.
--
-- KEYS      per owner a hash: room -> id of the last entry read there, and `#` -> in how many calls a marker moved, by
--           which who listens sees that he missed one
-- ARGV[1]   rooms of one owner; above it those go whose markers are oldest
-- ARGV[2]   what follows a hash's key in the name of its channel
-- ARGV[3…]  per owner: seconds that the hash stays from now on, how many markers follow; per marker: room, id
--           `<ms>-<n>`, the session that said so
--
-- Returns per owner the error by which nothing of his moved; empty: all moved that could. And one more error where
-- something that belongs to it was denied (by an ACL). On the channel of who moved comes the count of `#`, and behind
-- it per marker a line `<room> <id> <session>`. No room has a space in its name.

local rooms_max, channel_tail = tonumber(ARGV[1]), ARGV[2]
local MOVES = '#'

-- Numbers as texts without leading zeros, for some have more digits than a Lua number holds.
local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function later(id, than)
  local ms, n = (than or ''):match('^(%d+)-(%d+)$')
  if not ms then return true end -- there was none, or a stranger's
  local own_ms, own_n = id:match('^(%d+)-(%d+)$')
  if not own_ms then return false end -- a stranger's is older than any
  if own_ms == ms then return above(own_n, n) end
  return above(own_ms, ms)
end

-- What moved has moved: whoever said so is told of no error any more.
local denied

local function note(reply)
  local err = type(reply) == 'table' and reply.err
  denied = denied or err or nil
  return not err
end

local function forget_oldest(key)
  local held = redis.pcall('HLEN', key)
  if not note(held) or held - 1 <= rooms_max then return end
  local all, rooms = redis.pcall('HGETALL', key), {}
  if not note(all) then return end
  for at = 1, #all, 2 do
    if all[at] ~= MOVES then rooms[#rooms + 1] = { name = all[at], id = all[at + 1] } end
  end
  table.sort(rooms, function(a, b) return later(b.id, a.id) and not later(a.id, b.id) end)
  for at = 1, #rooms - rooms_max do note(redis.pcall('HDEL', key, rooms[at].name)) end
end

-- The error by which nothing moved, if one did.
local function move(key, stays_s, first, last)
  local rooms = {}
  for at = first, last, 3 do rooms[#rooms + 1] = ARGV[at] end
  local known = redis.pcall('HMGET', key, MOVES, unpack(rooms))
  if known.err then return known.err end
  local moved, news = {}, {}
  for place, room in ipairs(rooms) do
    local at = first + 3 * (place - 1)
    local id, session = ARGV[at + 1], ARGV[at + 2]
    if later(id, known[place + 1]) then
      moved[#moved + 1], moved[#moved + 2] = room, id
      news[#news + 1] = room .. ' ' .. id .. ' ' .. session
    end
  end
  if #moved == 0 then return end
  local moves = string.format('%.0f', (tonumber(known[1]) or 0) + 1)
  local set = redis.pcall('HSET', key, MOVES, moves, unpack(moved))
  if type(set) == 'table' and set.err then return set.err end
  note(redis.pcall('EXPIRE', key, stays_s))
  forget_oldest(key)
  note(redis.pcall('SPUBLISH', key .. channel_tail, moves .. '\n' .. table.concat(news, '\n')))
end

local refused, at = {}, 3
for index, key in ipairs(KEYS) do
  local first = at + 2
  at = first + 3 * tonumber(ARGV[at + 1])
  local why = move(key, ARGV[first - 2], first, at - 1)
  -- A replica's word is for the connection: the call goes to the master.
  if why and why:sub(1, 9) == 'READONLY ' then return redis.error_reply(why) end
  refused[index] = why or ''
end
refused[#refused + 1] = denied
return refused
