-- Hand a dead letter to the group that failed, once: the call that deletes the letter hands it on. Needs entries.lua.
-- KEYS  {stream}:dead, {stream}:redrive:<group>, stream, {stream}:edited:<group>
-- ARGV  letter's id, the entry's id, the entry's fields in one value, group.
--       The action: 'redrive', 'edit' (redrive, and keep the fields for a rebuild, too) or 'discard'.
--       The event's name. The same again, but '' when it is the EventId.
-- Answers the id of the order, '0' when the letter was gone, or '-' when the group is gone: nobody would
-- try it again. A letter of a group that is gone can be discarded: '1'.
local there = false
for _, group in ipairs(groups_of(KEYS[3])) do
    there = there or group['name'] == ARGV[4]
end
if not there and ARGV[5] ~= 'discard' then
    return '-'
end
if call('XDEL', KEYS[1], ARGV[1]) == 0 then
    return '0'
end
if ARGV[5] == 'edit' then
    call('HSET', KEYS[4], ARGV[6], ARGV[3])
elseif ARGV[5] == 'discard' then
    call('HDEL', KEYS[4], ARGV[6])
end
if there then
    local order = ARGV[5] == 'discard' and 'discard' or 'redrive'
    return call('XADD', KEYS[2], '*', 'StreamId', ARGV[2], 'Fields', ARGV[3], 'Order', order,
        'Name', ARGV[7])
end
return '1'
