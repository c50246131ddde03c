-- Note how old the database is by which a group applies entries.
-- KEYS  {stream}:ages
-- ARGV  group, the database's branch, its count
--
-- A sibling may have noted a higher count of the same branch already, or any where this one has none: that stays.
local branch, count = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) (%d+)$')
if not branch or (branch ~= ARGV[2] and ARGV[2] ~= '-') or tonumber(count) < tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
end
