-- Acknowledge an entry, or settle an order. The newest dead letter was written for it in the same transaction.
-- Remove that letter if the entry was done with before: another consumer has written one, or applied it.
-- KEYS  {stream}:dead, and the stream or {stream}:redrive:<group>
-- ARGV  the entry's id and its group, or the order's id and ''
-- Answers 1 if the letter is kept, otherwise 0.
local done = ARGV[2] == '' and redis.call('XDEL', KEYS[2], ARGV[1]) or redis.call('XACK', KEYS[2], ARGV[2], ARGV[1])
if done == 0 then
    redis.call('XDEL', KEYS[1], redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1])
end
return done
