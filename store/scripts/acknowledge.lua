-- Acknowledge entries, and note how old the database is by which they were applied.
-- KEYS  stream, {stream}:ages
-- ARGV  group, the database's branch, its count, then the ids of the entries
--
-- A sibling may have noted a higher count of the same branch already: that stays.
local branch, count = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%S+) (%d+)$')
if branch ~= ARGV[2] or tonumber(count) < tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
end
for first = 4, #ARGV, 1000 do -- as many as Lua can unpack at once
    redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
