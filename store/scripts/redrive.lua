-- Hand a dead letter to the group that failed, once: whoever deletes the letter hands it on.
-- KEYS  {stream}:dead, {stream}:redrive:<group>
-- ARGV  letter's id, the entry's id, the entry's fields in one value
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
    return 0
end
redis.call('XADD', KEYS[2], '*', 'StreamId', ARGV[2], 'Fields', ARGV[3])
return 1
