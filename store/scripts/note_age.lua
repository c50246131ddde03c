-- Note the age of the database of a group.
-- KEYS  {stream}:ages
-- ARGV  group, the database's branch, its count
--
-- A sibling's higher count of the same branch stays. So does any count if this database has no branch.
--
-- HDEL needs no memory, and removes nothing here. After it, a full Redis takes the other writes of a script, too:
-- without them no entry would be acknowledged, and none trimmed.
redis.call('HDEL', KEYS[1], '')
local branch, count = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) (%d+)$')
if not branch or (branch ~= ARGV[2] and ARGV[2] ~= '-') or tonumber(count) < tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
end
