-- Hand a dead letter to the group that failed, once: whoever deletes the letter hands it on.
-- KEYS  {stream}:dead, {stream}:redrive:<group>, stream, {stream}:edited:<group>
-- ARGV  letter's id, the entry's id, the entry's fields in one value, group, what is to be done with it:
--       'redrive', 'edit' (the same, with fields that a rebuild is to have too) or 'discard', the name that the
--       event is known by, and the same ('' when it is its EventId)
-- Answers the id of the order, '0' when the letter was gone, or '-' when the group is gone: nobody would
-- try it again. A letter of a group that is gone can be discarded: '1'.
local there = false
if redis.call('EXISTS', KEYS[3]) == 1 then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[3])) do
        for i = 1, #info, 2 do
            there = there or (info[i] == 'name' and info[i + 1] == ARGV[4])
        end
    end
end
if not there and ARGV[5] ~= 'discard' then
    return '-'
end
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
    return '0'
end
if ARGV[5] == 'edit' then
    redis.call('HSET', KEYS[4], ARGV[6], ARGV[3])
elseif ARGV[5] == 'discard' then
    redis.call('HDEL', KEYS[4], ARGV[6])
end
if there then
    local order = ARGV[5] == 'discard' and 'discard' or 'redrive'
    return redis.call('XADD', KEYS[2], '*', 'StreamId', ARGV[2], 'Fields', ARGV[3], 'Order', order,
        'Name', ARGV[7])
end
return '1'
