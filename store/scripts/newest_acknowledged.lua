-- Answer the id of the newest entry that a group has acknowledged, or false when there is none. What it
-- passed over since, see publish.lua, it has not: nobody has told its database.
-- KEYS  stream, {stream}:passed
-- ARGV  group
local delivered
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for i = 1, #info, 2 do
        group[info[i]] = info[i + 1]
    end
    if group['name'] == ARGV[1] then
        delivered = group['last-delivered-id']
    end
end
if not delivered then
    return false
end
local from, to = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%S+) (%S+)$')
if to == delivered then
    delivered = from
end

local count = redis.call('XPENDING', KEYS[1], ARGV[1])[1]
local pending = {}
if count > 0 then
    for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', count)) do
        pending[entry[1]] = true
    end
end
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], delivered, '-', 'COUNT', count + 1)) do
    if not pending[entry[1]] then
        return entry[1]
    end
end
return false
