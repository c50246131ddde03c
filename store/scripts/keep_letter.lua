-- Acknowledge an entry, or settle an order, and keep the newest dead letter, which the same transaction has just
-- written for it. If it is done with already, somebody else did it: the letter is taken away again.
-- KEYS  {stream}:dead, and the stream or {stream}:redrive:<group>
-- ARGV  the entry's id and its group, or the order's id and ''
-- Answers 1 if the letter is kept, otherwise 0.
local done = ARGV[2] == '' and redis.call('XDEL', KEYS[2], ARGV[1]) or redis.call('XACK', KEYS[2], ARGV[2], ARGV[1])
if done == 0 then
    redis.call('XDEL', KEYS[1], redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1])
end
return done
