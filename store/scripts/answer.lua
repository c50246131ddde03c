-- Answer a part of a group's ask of a source: the events go to that group and to no other.
-- KEYS  {stream}:redrive:<group>, {stream}:asked:<source>, {stream}:gone:<group>
-- ARGV  group, source, the ask as it was read.
--       What is left of the ask after this; '' for nothing.
--       The ranges that no outbox has any more; '' for none.
--       Then for each event: its fields in one value.
-- Answers 0, and does nothing, when the ask has changed meanwhile: somebody else has answered.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] then
    return 0
end
for i = 6, #ARGV do
    redis.call('XADD', KEYS[1], '*', 'StreamId', '0-0', 'Fields', ARGV[i])
end
if ARGV[4] == '' then
    redis.call('HDEL', KEYS[2], ARGV[1])
else
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[2], ARGV[5])
end
return 1
