-- Note for a group that a source's events are gone for good, while the source counts as gone itself.
-- KEYS  {stream}:removed, {stream}:gone:<group>
-- ARGV  source, its ranges that no outbox has any more
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
